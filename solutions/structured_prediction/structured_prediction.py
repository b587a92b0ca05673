# %% [markdown]
# # Reading words: structured prediction with energies
#
# A network that names single letters is quickly trained. A *word* is harder. There are $26^8$ words of eight letters,
# too many for an output each, and nobody says where in the image each letter is. In this assignment you train a network
# that looks at an image through small windows. It finds out by itself which windows belong to which letter, and then
# reads words of any length.
#
# **How to work.** Everything is in this notebook. In each part you write what the `TODO`s ask for, look at your code at
# work in the cell below, which you may change as you like, and run a cell `check_part("…")` with the public checks of
# that exercise. They check the functions as they are defined at this moment. More checks run when your work is graded,
# on other inputs, so an exercise can have more points than its public checks give.
#
# | part | what to write |
# |---|---|
# | 1 | the network that sees an image through windows |
# | 2 | training on single letters |
# | 3 | energies of windows and targets as matrices |
# | 4 | the energy of a path, and the path of least energy |
# | 5 | training on words, along the best path |
# | 6 | connectionist temporal classification, with graphs |
# | 7 | training from nothing (a question) |
# | 8 | other fonts (a question) |
# | 9 | from labels to text: reading |
#
# The cells that train take two minutes together on a laptop. Grading does not run them: it calls your functions.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %matplotlib inline
import copy
import os
from itertools import groupby, pairwise
from pathlib import Path
from string import ascii_lowercase
from tempfile import TemporaryDirectory

import torch
from IPython.display import Image, display
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import nn
from torch.utils.data import DataLoader

from ebmcourse import gtn, plots
from ebmcourse.checking.notebook import check_part, once_written
from ebmcourse.data.words import (
    ALPHABET_SIZE,
    BETWEEN,
    CustomWordsDataset,
    SimpleWordsDataset,
    collate_fn,
    simple_collate_fn,
    window_counts,
)

# %% [markdown]
# The next cell holds what is given: the loss of single windows, two ways of asking a network, and figures.


# %% nbgrader={"grade_id": "tools", "locked": true}
SYMBOLS = ascii_lowercase + "_"  # the signs of the 27 classes; _ is BETWEEN


def cross_entropy(energies, *args, **kwargs):
    """The cross-entropy of -energies: a low energy is a high probability. Arguments as for torch's."""
    return nn.functional.cross_entropy(-energies, *args, **kwargs)


@torch.no_grad()
def get_accuracy(model, dataset):
    """The share of one-letter images whose own letter has the least energy in the first window."""
    model.eval()
    images, letters = simple_collate_fn(list(dataset))
    return (model(images.unsqueeze(1))[:, 0].argmin(dim=1) == letters).float().mean().item()


@torch.no_grad()
def energies_of(model, image):
    """The energies (L, 27) of one image (32, W)."""
    model.eval()
    return model(image[None, None])[0]


@torch.no_grad()
def window_labels(model, dataset):
    """The classes of least energy in the windows of every word, a list of lists, and the texts of the words."""
    model.eval()
    batch = collate_fn(list(dataset))
    labels = model(batch.images.unsqueeze(1)).argmin(dim=2).tolist()
    counts = window_counts(batch.widths).tolist()
    return [row[:count] for row, count in zip(labels, counts, strict=True)], batch.texts


def signs(labels):
    """Classes as text, one sign per window: [7, 7, 26, 8] -> "hh_i"."""
    return "".join(SYMBOLS[label] for label in labels)


def plot_images(images, titles):
    """Word images (32, W), one below the other."""
    figure = Figure(figsize=(7, 0.75 * len(images)), layout="constrained")
    for axes, image, title in zip(figure.subplots(len(images), 1), images, titles, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set_ylabel(title, rotation=0, ha="right", va="center", color=plots.GREY)
        axes.set(xticks=[], yticks=[])
    return figure


def plot_energies(energies, image, title="", label="energy (dark = low = likely)"):
    """Energies (L, 27) of an image (32, W): one row per class, and one column per window, below the window's middle."""
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    above, axes = figure.subplots(2, 1, height_ratios=[1, 4], sharex=True)
    left, right = ((column - 8.5) / 4 for column in (-0.5, image.shape[1] - 0.5))  # in numbers of windows
    above.imshow(image, aspect="auto", cmap="gray", vmin=0, vmax=1, extent=(left, right, 32, 0))
    above.set_axis_off()
    above.set_title(title, fontsize=10, color=plots.GREY)
    drawn = axes.imshow(torch.as_tensor(energies).T, aspect="auto", cmap="viridis", interpolation="nearest")
    axes.set_yticks(range(ALPHABET_SIZE), SYMBOLS, fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="window", ylabel="class", xlim=(left, right))
    figure.colorbar(drawn, ax=[above, axes], label=label)
    return figure


def plot_pm(pm, path=None, targets="", title=""):
    """A matrix (L, T), one column per window and one row per target, and a path of points (i, j) on it."""
    figure = Figure(figsize=(8, min(6.5, 1.2 + 0.2 * pm.shape[1])), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(torch.as_tensor(pm).T, aspect="auto", cmap="viridis", interpolation="nearest")
    if path is not None:
        axes.plot(*zip(*path, strict=True), color=plots.COLOURS[1], marker=".", linewidth=1.5)
    step = 1 if len(targets) < 30 else 2  # the letters alone
    axes.set_yticks(range(0, len(targets), step), targets[::step], fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="window", ylabel="target")
    axes.set_title(title, fontsize=10, color=plots.GREY)
    figure.colorbar(drawn, ax=axes, label="energy")
    return figure


def plot_lines(lines, xlabel, ylabel):
    """Numbers over 1, 2, 3, …: one line for every name in a dict of lists."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(lines.items(), plots.COLOURS, strict=False):
        axes.plot(range(1, len(values) + 1), values, color=colour, marker=".", label=name)
    plots.clean(axes, xlabel=xlabel, ylabel=ylabel)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def show_graph(graph, **options):
    """Draw a graph whose labels are classes; options as for `gtn.draw`."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "graph.png"
        gtn.draw(graph, file, dict(enumerate(SYMBOLS)), **options)
        display(Image(file.read_bytes(), width=800))


# %% [markdown]
# A few helpers for the cells that train. With `EBM_PRESET=small` in the environment the notebook trains on far less:
# enough to see whether everything runs, and too little to read.

# %%
# nbgrader runs the notebook for its tested cells only.
SMALL = os.environ.get("EBM_PRESET") == "small" or "NBGRADER_EXECUTION" in os.environ
MODELS, LOSSES = {}, {}  # the networks that the cells below train, and the losses of their epochs, by name


def sized(full, small):
    """A number for the whole notebook, or for a quick run of it."""
    return small if SMALL else full


def trained(name):
    """A network that a cell above has trained."""
    if name not in MODELS:
        raise NotImplementedError(f"this needs the network “{name}”, which a cell further up trains.")
    return MODELS[name]


def plot_losses(*names):
    """The mean loss of every epoch of these trainings, as far as they have been run."""
    return plot_lines({name: LOSSES[name] for name in names if name in LOSSES}, "epoch", "mean loss")


# %% [markdown]
# ## 1 Words, windows, energies
#
# ### The images
#
# The images are drawn: random letters a-z in a font in which every letter is 11 pixels wide, on 18 pixels of width per
# letter, 32 pixels high, bright ink on black. *Jitter* begins the text 0 to 7 pixels further to the right; *noise* inks
# every pixel with probability 0.1.

# %%
torch.manual_seed(0)
drawing = SimpleWordsDataset(8, seed=0)
conditions = {
    "plain": {},
    "jitter": {"jitter": True},
    "noise": {"noise": True},
    "both": {"jitter": True, "noise": True},
}
display(plot_images([drawing.draw_text("energies", **how) for how in conditions.values()], list(conditions)))

# %% [markdown]
# ### Windows
#
# The network sees the image through windows of 32 × 18 pixels. Window $i$ shows the columns $4i, \dots, 4i + 17$, so an
# image of width $W$ has
#
# $$L = \left\lfloor\frac{W - 18}{4}\right\rfloor + 1$$
#
# windows. A window is wide enough for one letter and narrow enough not to show two in full. Neighbouring windows
# overlap: every column, those at the borders aside, is in four or five of them.

# %%
image = drawing.draw_text("hello")
figure = Figure(figsize=(8, 1.6), layout="constrained")
axes = figure.subplots()
axes.imshow(image, cmap="gray", vmin=0, vmax=1)
for number, colour in zip((0, 5, 10), plots.COLOURS, strict=False):
    axes.add_patch(Rectangle((4 * number - 0.5, -0.5), 18, 32, fill=False, edgecolor=colour, linewidth=2))
    axes.text(4 * number + 8.5, -2, f"window {number}", color=colour, ha="center", fontsize=8)
axes.set(xticks=range(0, image.shape[1], 10), yticks=[])
display(figure)

# %% [markdown]
# ### Energies
#
# An energy-based model gives every configuration of its variables a number, low where they fit together, and predicts
# by looking for the least energy. Our network gives window $i$ of an image 27 energies $E_i[k]$: how badly does the
# window look like the letter $k$ (0 … 25 for a … z), or like the gap between two letters (`BETWEEN`, 26, written as
# `_`)? The Gibbs distribution turns them into probabilities,
#
# $$p_i(k) = \frac{e^{-E_i[k]}}{Z_i}, \qquad Z_i = \sum_{k=0}^{26} e^{-E_i[k]},
#     \qquad -\log p_i(k) = E_i[k] + \log Z_i .$$
#
# So $-E$ plays the part that logits play in a classifier. **A low energy is likely**, everywhere in this notebook.
#
# The same little network judges all windows. That is a convolution: a kernel of 32 × 18 pixels with stride 4 and no
# padding does for a wide image in one call what it would do for its windows one by one. What was learnt from images of
# one letter can then be used on words of any length.
#
# **1a** Write `SimpleNet`. Any network is fine whose output for window $i$ depends on these 18 columns alone. A
# non-linearity between the convolution and the last layer is worth its price as soon as there is noise.


# %% nbgrader={"grade_id": "simple-net", "solution": true}
class SimpleNet(nn.Module):
    """Energies of the 27 classes for every window of 32 × 18 pixels, 4 pixels apart.

    Window i is the columns 4i … 4i + 17, and its energies depend on these alone.
    """

    def __init__(self):
        super().__init__()
        ### BEGIN SOLUTION 1a
        # TODO Make the layers: together they see a window of 32 × 18 pixels, and the next window 4 columns further on.
        # A convolution of that size and stride, without padding, makes one vector of each window. Then a
        # non-linearity, and a linear layer to ALPHABET_SIZE energies.
        self.look = nn.Conv2d(1, 256, kernel_size=(32, 18), stride=(1, 4))
        self.judge = nn.Linear(256, ALPHABET_SIZE)
        ### END SOLUTION

    def forward(self, x):
        """x: (B, 1, 32, W) images, W ≥ 18 -> (B, L, 27) energies, with L = (W - 18) // 4 + 1 windows."""
        ### BEGIN SOLUTION 1a
        # TODO Return the energies of all windows, shape (B, L, 27), low = likely.
        # They are any real numbers: no softmax, no non-linearity after the last layer. The result has three axes also
        # for a single window (W = 18) and a single image.
        features = self.look(x).relu()  # (B, 256, 1, L)
        return self.judge(features.squeeze(2).transpose(1, 2))
        ### END SOLUTION


# %% [markdown]
# Before training the energies say nothing, but their shape is right:

# %%
with once_written():
    torch.manual_seed(0)
    energies = energies_of(SimpleNet(), image)
    print(f"an image of width {image.shape[1]} has {len(energies)} windows: energies of shape {tuple(energies.shape)}")
    display(plot_energies(energies, image, "hello, before training"))

# %% nbgrader={"grade_id": "test-1a", "grade": true, "locked": true}
check_part("1a")

# %% [markdown]
# ## 2 Training on single letters
#
# An image of one letter is 18 pixels wide and so has a single window. There is nothing to align, and the network can be
# trained as a classifier, with the cross-entropy $-\log p_0(k)$ of the right letter $k$. The training images have
# jitter, since in a word a letter may stand anywhere in the window.
#
# **2a** Write `train_model`. It returns the mean loss of every epoch; a mean over images, not over batches, because the
# last batch may be smaller.


# %% nbgrader={"grade_id": "train-model", "solution": true}
def train_model(model, epochs, dataloader, criterion, optimizer):
    """Train on images of single letters.

    dataloader: yields images (B, 32, W) and letters (B,); all images have one window
    criterion: the mean loss of energies (B, 27) and letters (B,), here `cross_entropy`
    returns: the mean loss per image of every epoch, a list of `epochs` floats
    """
    ### BEGIN SOLUTION 2a
    # TODO Go through the loader `epochs` times, and make one step of the optimizer for every batch.
    # Put the model into training mode first. The model takes images with a channel, (B, 1, 32, W). Batches may have
    # different sizes: the mean loss of an epoch weighs every image alike.
    model.train()
    losses = []
    for _ in range(epochs):
        total, count = 0.0, 0
        for images, letters in dataloader:
            loss = criterion(model(images.unsqueeze(1))[:, 0], letters)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(letters)
            count += len(letters)
        losses.append(total / count)
    return losses
    ### END SOLUTION


# %%
with once_written():
    torch.manual_seed(0)
    letters = SimpleWordsDataset(1, len=sized(1000, 400), jitter=True, seed=1)
    loader = DataLoader(letters, batch_size=16, collate_fn=simple_collate_fn)
    model = SimpleNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    LOSSES["letters"] = train_model(model, sized(10, 3), loader, cross_entropy, optimizer)
    MODELS["letters"] = model
    display(plot_losses("letters"))
    print("accuracy on new letters:", get_accuracy(model, SimpleWordsDataset(1, len=1000, seed=2)))
    print("            with jitter:", get_accuracy(model, SimpleWordsDataset(1, len=1000, jitter=True, seed=3)))

# %% nbgrader={"grade_id": "test-2a", "grade": true, "locked": true}
check_part("2a")

# %% [markdown]
# The same network on a word. Where a window shows one letter, the letter is found. What about the windows that show the
# gap between two letters, or none at all?

# %%
with once_written():
    image = drawing.draw_text("hello")
    energies = energies_of(trained("letters"), image)
    print("the best class of every window:", signs(energies.argmin(dim=1)))
    display(plot_energies(energies, image, "hello, trained on single letters"))

# %% [markdown]
# **2b** (1 point) No training image shows the class `BETWEEN`. What happens to its energy in this training all the
# same, through which term of the loss? What does the network therefore say of a window between two letters?

# %% [markdown] nbgrader={"grade_id": "answer-2b", "grade": true, "solution": true, "points": 1}
# The energy of `BETWEEN` appears in $\log Z$ of every image. Its derivative is $-p_0(26)$, so that each step raises it:
# `BETWEEN` is a wrong answer for every image, and becomes unlikely everywhere. In a gap, or where there is nothing, the
# network has to choose a letter all the same, and takes the one that looks least different.
#
# ### BEGIN MARK SCHEME
# ½ point: it is raised everywhere, through log Z. ½ point: a gap is called a letter, never `BETWEEN`.
# ### END MARK SCHEME

# %% [markdown]
# ## 3 Windows and targets
#
# ### Which window shows which letter?
#
# A word is turned into a sequence of **targets** $y_0, \dots, y_{T-1}$: its letters, with the class `BETWEEN` after
# each, so that "cat" becomes c `_` a `_` t `_`. The windows come in the order of the letters, but how many windows
# there are for each target is unknown. It is a *latent variable*, the **alignment** or **path** $z$: window $i$ belongs
# to the target at position $z_i$. Given the alignment, the energy of image and word is a sum over the windows,
#
# $$E(x, y, z) = \sum_{i=0}^{L-1} E_i[y_{z_i}] .$$
#
# All that it needs are the numbers $E_i[y_j]$, the **path matrix** with a row for every window and a column for every
# target:
#
# $$\mathrm{pm}[i, j] = E_i[y_j] .$$
#
# **3a** Write `build_path_matrix`, for a whole batch and without loops.


# %% nbgrader={"grade_id": "path-matrix", "solution": true}
def build_path_matrix(energies, targets):
    """The energy of every window for every target.

    energies: (B, L, 27); targets: (B, T) int64 classes
    returns: (B, L, T), where pm[b, i, j] = energies[b, i, targets[b, j]]
    """
    ### BEGIN SOLUTION 3a
    # TODO Return the matrix, without a loop: `gather` picks by indices.
    # Every word has its own targets, and the targets may repeat a class.
    windows = energies.shape[1]
    return energies.gather(2, targets.unsqueeze(1).expand(-1, windows, -1))
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-3a", "grade": true, "locked": true}
check_part("3a")

# %% [markdown]
# ### Energies and cross-entropies
#
# For a loss we need log-probabilities. With $-\log p_i(k) = E_i[k] + \log Z_i$, the matrix of cross-entropies is
#
# $$\mathrm{CE}[i, j] = -\log p_i(y_j) = \mathrm{pm}[i, j] + \log Z_i, \qquad
#     \log Z_i = \log\sum_{k=0}^{26} e^{-E_i[k]} .$$
#
# A path takes exactly one entry of each row. So along *every* path the two sums differ by the same number, $\sum_i \log
# Z_i$: **the best path is the same on both matrices, and its energies differ by $\sum_i\log Z_i$.**
#
# **3b** Write `build_ce_matrix`, for a whole batch, without loops, and for energies of any size.


# %% nbgrader={"grade_id": "ce-matrix", "solution": true}
def build_ce_matrix(energies, targets):
    """The cross-entropy of every window with every target: -log p(target | window), p the softmax of -energies.

    energies: (B, L, 27); targets: (B, T) int64 classes
    returns: (B, L, T)
    """
    ### BEGIN SOLUTION 3b
    # TODO Return the matrix, without a loop, and finite for energies of any size.
    # log Z of a window runs over all 27 classes, not over the targets only.
    return build_path_matrix(energies, targets) + torch.logsumexp(-energies, dim=2, keepdim=True)
    ### END SOLUTION


# %%
with once_written():
    torch.manual_seed(0)
    energies, targets = torch.randn(1, 5, 27), torch.tensor([[2, 26, 0]])
    difference = build_ce_matrix(energies, targets) - build_path_matrix(energies, targets)
    print("CE - pm, the same for all targets of a window:\n", difference[0], sep="")
    print("log Z of the windows:\n", (-energies[0]).logsumexp(dim=1), sep="")

# %% nbgrader={"grade_id": "test-3b", "grade": true, "locked": true}
check_part("3b")

# %% [markdown]
# **3c** Write `transform_word`. `BETWEEN` has the index 26, because 0 is the letter a.


# %% nbgrader={"grade_id": "transform-word", "solution": true}
def transform_word(word):
    """The targets of a word, a blank after every letter: "cat" -> tensor([2, 26, 0, 26, 19, 26]), int64.

    raises ValueError: an empty word, or anything but the letters a-z
    """
    ### BEGIN SOLUTION 3c
    # TODO Return the classes of the letters, each followed by BETWEEN.
    # Refuse what is not made of a-z, also capitals, accents and the empty word, with a ValueError that says so.
    if not word or not set(word) <= set(ascii_lowercase):
        raise ValueError(f"a word is made of the letters a-z, and {word!r} is not")
    return torch.tensor([target for letter in word for target in (ord(letter) - ord("a"), BETWEEN)])
    ### END SOLUTION


# %%
with once_written():
    print("cat ->", transform_word("cat"), signs(transform_word("cat")))

# %% nbgrader={"grade_id": "test-3c", "grade": true, "locked": true}
check_part("3c")

# %% [markdown]
# **3d** (1 point) The best path is the same on both matrices. Does it also make no difference which of the two one
# takes as the *loss*? Somebody trains the network to make the sum of pm along the best path small. What comes out?

# %% [markdown] nbgrader={"grade_id": "answer-3d", "grade": true, "solution": true, "points": 1}
# It does make a difference. The sum of pm is smallest if the network lowers *all* energies of all windows without end,
# which a constant added to the last layer does: the loss falls, and no class is preferred to another. In CE this
# constant cancels, because $\log Z_i$ falls by as much as the energies rise. $\log Z_i$ does not depend on the target,
# so it says nothing about the path, but it depends on the weights of the network: it is what raises the energies of
# wrong answers.
#
# ### BEGIN MARK SCHEME
# ½ point: all energies fall together, nothing is learnt (collapse). ½ point: log Z is the same for all paths, but not
# for all weights; it pushes the others up.
# ### END MARK SCHEME

# %% [markdown]
# ## 4 Paths
#
# ### Valid paths
#
# A path gives each of the $L$ windows a position among the $T$ targets. It is **valid** if
#
# * it starts at the first target, $z_0 = 0$, and ends at the last, $z_{L-1} = T - 1$,
# * and from one window to the next it stays or advances by exactly one, $z_{i+1} - z_i \in \{0, 1\}$.
#
# So no target is skipped, none comes twice, and the word is read to its end. A path that may stop anywhere would read a
# beginning of the word only, the one that is cheapest. A valid path makes $T - 1$ of its $L - 1$ steps forward, so
# there are $\binom{L-1}{T-1}$ of them. With fewer windows than targets, $L < T$, there is none at all.
#
# **4a** Write `path_energy`. What is not a valid path has infinite energy: `float("inf")`, which stays infinite
# whatever is added to it, and not some large number.


# %% nbgrader={"grade_id": "path-energy", "solution": true}
def path_energy(pm, path):
    """The energy of a path: the sum of pm[i, path[i]] over all windows i.

    pm: (L, T); path: a sequence of target positions (ints)
    returns: a tensor without axes; infinite where the path is not valid
    """
    ### BEGIN SOLUTION 4a
    # TODO Return the energy of the path, or float("inf") as a tensor where it is not valid.
    # A valid path has one position for each of the L windows, starts at 0, ends at T - 1, and from one window to the
    # next stays or advances by exactly one. Any sequence may come: too short, too long, empty, with positions that do
    # not exist.
    windows, targets = pm.shape
    path = [int(position) for position in path]
    steps = (after - before for before, after in pairwise(path))
    if len(path) != windows or path[0] != 0 or path[-1] != targets - 1 or not all(step in (0, 1) for step in steps):
        return pm.new_tensor(float("inf"))
    return pm[range(windows), path].sum()
    ### END SOLUTION


# %%
with once_written():
    pm = torch.arange(12.0).view(4, 3)
    print(pm)
    for path in ([0, 0, 1, 2], [0, 1, 1, 2], [0, 1, 1, 1], [0, 2, 2, 2], [0, 1, 2]):
        print(path, "has the energy", path_energy(pm, path).item())

# %% nbgrader={"grade_id": "test-4a", "grade": true, "locked": true}
check_part("4a")

# %% [markdown]
# ### The free energy
#
# We never see the alignment, only image and word. What is their energy? The **free energy** is that of the best
# alignment,
#
# $$F(x, y) = \min_z E(x, y, z) ,$$
#
# the *minimum itself*, not the path at which it is taken. It is the limit for $\beta\to\infty$ of
#
# $$F_\beta(x, y) = -\frac1\beta\log\sum_z e^{-\beta E(x, y, z)} ,$$
#
# which counts all alignments, the good ones more. We return to it in part 6. As the largest of $n$ terms is at least
# their mean and at most their sum, $F_\beta \le F \le F_\beta + \frac1\beta\log n$.
#
# ### Viterbi's algorithm
#
# "hello" has 19 windows and, with its blanks, 10 targets: 48,620 paths. The alphabet in a row has more than $10^{14}$.
# But all paths that come to $(i, j)$ go on in the same way, so only the best way to $(i, j)$ matters. Its energy is
#
# $$\mathrm{dp}[i, j] = \mathrm{pm}[i, j] + \min\bigl(\mathrm{dp}[i-1, j],\; \mathrm{dp}[i-1, j-1]\bigr),$$
#
# where the path either has stayed at target $j$ or has come from the target before. The first row says that paths start
# at 0, $\mathrm{dp}[0, 0] = \mathrm{pm}[0, 0]$ and $\mathrm{dp}[0, j] = \infty$ for $j > 0$; what lies left of the
# first column is infinite as well. That they end at $T - 1$ is said by where we look: the free energy is
# $\mathrm{dp}[L-1, T-1]$, even where another entry of the last row is smaller. From there the path is followed back,
# each time to the entry that gave the minimum. The work is $L\cdot T$ instead of $\binom{L-1}{T-1}$.
#
# **4b** Write `find_path`. Training calls it for every word, so it should not take longer than a millisecond.


# %% nbgrader={"grade_id": "find-path", "solution": true}
def find_path(pm):
    """The valid path of least energy (Viterbi).

    pm: (L, T) energies of windows and targets; it is not changed
    returns: the free energy, i.e. the least energy of all valid paths, a tensor without axes; the points (i, j) of such
        a path, one for each window, from (0, 0) to (L - 1, T - 1); and the table dp (L, T), where dp[i, j] is the least
        energy of the ways from (0, 0) to (i, j), infinite where no way leads
    raises ValueError: fewer windows than targets; the message names both numbers
    """
    ### BEGIN SOLUTION 4b
    # TODO Fill the table row by row, then follow the moves that gave the minima back from (L - 1, T - 1).
    # A way starts at (0, 0), so nothing else in the first row can be reached. Infinity is float("inf"). Where both
    # moves are equally good, take either, but one of the two: the path must be valid. A loop over the windows is fine;
    # with rows as tensors, none over the targets is needed.
    windows, targets = pm.shape
    if windows < targets:
        raise ValueError(f"no path leads through {targets} targets in only {windows} windows")
    infinity = pm.new_tensor([float("inf")])
    row = torch.cat([pm[0, :1], infinity.expand(targets - 1)])
    rows = [row]
    for energies in pm[1:]:
        advanced = torch.cat([infinity, row[:-1]])
        row = torch.minimum(row, advanced) + energies
        rows.append(row)
    dp = torch.stack(rows)

    table, j = dp.tolist(), targets - 1
    points = [(windows - 1, j)]
    for i in range(windows - 2, -1, -1):
        if j > 0 and table[i][j - 1] <= table[i][j]:
            j -= 1
        points.append((i, j))
    return dp[-1, -1], points[::-1], dp
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-4b", "grade": true, "locked": true}
check_part("4b")

# %% [markdown]
# The best path of the whole alphabet, by the network that knows single letters and by one that knows nothing. As the
# letters are equally wide, it should be a diagonal.


# %%
def best_path_figure(model, text, title, length=None):
    """The path matrix of a text, drawn in an image of that length, and the best path on it."""
    energies = energies_of(model, SimpleWordsDataset(1).draw_text(text, length))
    targets = transform_word(text)
    pm = build_path_matrix(energies[None], targets[None])[0]
    free_energy, path, _ = find_path(pm)
    return plot_pm(pm, path, signs(targets), f"{title}: free energy {free_energy.item():.1f}")


with once_written():
    torch.manual_seed(0)
    display(best_path_figure(SimpleNet(), ascii_lowercase, "before training", 288))
    display(best_path_figure(trained("letters"), ascii_lowercase, "trained on single letters", 288))

# %% [markdown]
# **4c** (1 point) Somebody follows the path back from the smallest entry of the last row instead of from $(L-1, T-1)$.
# With pm of a word whose first letter has the least energy in all windows, which path do they find? What would training
# on such paths teach the network?

# %% [markdown] nbgrader={"grade_id": "answer-4c", "grade": true, "solution": true, "points": 1}
# The path that stays at target 0 in all windows: it is the cheapest of all ways into the last row. Training would then
# lower the energy of the first letter in windows that show the other letters, which makes the same path still cheaper
# the next time. The loss falls, and the word is read as its first letter. The end condition forces the other letters to
# be somewhere, and that is all that tells the network about them.
#
# ### BEGIN MARK SCHEME
# ½ point: the path stays at the first target. ½ point: training confirms it, the other letters are never learnt.
# ### END MARK SCHEME

# %% [markdown]
# ### The borders of a word
#
# With the targets c `_` a `_` t `_`, a path begins with a letter and must end with a gap. But with jitter a word begins
# with empty columns, which would be charged to its first letter, and an image of one letter has a single window, with
# no room for a gap. So the blank *before the first letter* and the one *after the last letter* are both optional: the
# targets are `_` c `_` a `_` t `_`, and a path may leave out the first, the last, or both. The next cell does this with
# your `find_path`: it tries each choice for which there are enough windows, and takes the best.


# %% nbgrader={"grade_id": "best-labels", "locked": true}
def best_labels(pm, targets):
    """The class of every window on the best path through _c_a_t_, whose first and last blank may be left out.

    pm: (L, 2N + 1) energies for these targets; targets: (2N + 1,) classes, BETWEEN first and last
    returns: (L,) int64
    raises ValueError: fewer windows than letters and the blanks between them
    """
    windows, last = pm.shape[0], len(targets)
    borders = [(1, last - 1), (0, last - 1), (1, last), (0, last)]
    fitting = [(first, end) for first, end in borders if end - first <= windows] or borders[:1]
    found = [(find_path(pm[:, first:end]), first) for first, end in fitting]
    (_, points, _), first = min(found, key=lambda way: float(way[0][0]))
    return targets[[first + j for _, j in points]]


# %%
with once_written():
    targets = torch.cat([torch.tensor([BETWEEN]), transform_word("ab")])
    pm = torch.ones(6, 5) - torch.eye(6, 5)  # cheap: the blank, a, the blank, b, the blank, nothing
    for title, rows in {"room on both sides": pm, "none on the left": pm[1:], "none at all": pm[1:4]}.items():
        print(f"{title:20} {signs(best_labels(rows, targets))}")

# %% [markdown]
# ## 5 Training on words
#
# ### The loss
#
# Given the alignment, a word is a set of windows with known labels, and the cross-entropy does the rest. So training
# goes to and fro. *First*, with the energies as they are, find the best path $z^*$ of each word. *Then* make one step
# that lowers the mean cross-entropy along these paths,
#
# $$\mathcal L = \frac1{\sum_w L_w}\sum_w\sum_{i=0}^{L_w-1} \bigl(E_i[y_{z^*_i}] + \log Z_i\bigr),$$
#
# where word $w$ of the batch has $L_w$ windows. This is how $k$-means and hard expectation maximisation work: better
# energies give better paths, and better paths give better energies. Two remarks.
#
# * The path is found on *detached* energies. That is no approximation: where the minimum is taken at $z^*$, the
#   gradient of $\min_z E(x, y, z)$ is that of $E(x, y, z^*)$ with the path held fixed.
# * Words of a batch differ in length, and their images are padded to one width. The windows of the padding are no
#   windows of the word: they are neither aligned nor in the loss. Otherwise a short word's alignment would depend on
#   which words happen to be in the same batch.
#
# **5a** Write `train_ebm_model`. A batch has the fields `images` (B, 32, W), `widths` (B,), `letters` (B, N), `lengths`
# (B,) and `texts`; `window_counts(widths)` gives the $L_w$.


# %% nbgrader={"grade_id": "train-ebm", "solution": true}
def train_ebm_model(model, num_epochs, train_loader, criterion, optimizer):
    """Train on words, along the best path of each.

    train_loader: yields `Batch`es (images, widths, letters, lengths, texts), padded to common sizes
    criterion: the mean loss of energies (N, 27) and classes (N,), here `cross_entropy`
    returns: the mean loss per window of every epoch, a list of `num_epochs` floats
    """
    ### BEGIN SOLUTION 5a
    # TODO Make one step for every batch, down the mean loss over all windows of its words.
    # Training mode first. A word has window_counts(width) windows of its own; the others are padding and count nowhere.
    # Its targets are BETWEEN and then transform_word(text). Find its labels with `best_labels`, on the path matrix of
    # detached energies: the path is looked for, not differentiated. Then one criterion over the windows of all words
    # together, so that every window weighs alike.
    model.train()
    losses = []
    for _ in range(num_epochs):
        total, count = 0.0, 0
        for images, widths, _, _, texts in train_loader:
            padded = model(images.unsqueeze(1))
            energies = [row[:windows] for row, windows in zip(padded, window_counts(widths), strict=True)]
            labels = []
            for own, text in zip(energies, texts, strict=True):
                targets = torch.cat([torch.tensor([BETWEEN]), transform_word(text)])
                pm = build_path_matrix(own.detach()[None], targets[None])[0]
                labels.append(best_labels(pm, targets))
            labels = torch.cat(labels)
            loss = criterion(torch.cat(energies), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            count += len(labels)
        losses.append(total / count)
    return losses
    ### END SOLUTION


# %% [markdown]
# The network starts from single letters and sees words of one to three letters with jitter.


# %%
def word_loader(dataset_class, seed):
    """Batches of words of one to three letters, with jitter."""
    words = dataset_class(3, len=sized(2500, 256), jitter=True, min_length=1, seed=seed)
    return DataLoader(words, batch_size=32, collate_fn=collate_fn)


with once_written():
    torch.manual_seed(0)
    model = copy.deepcopy(trained("letters"))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    words = word_loader(SimpleWordsDataset, 4)
    LOSSES["Viterbi"] = train_ebm_model(model, sized(8, 2), words, cross_entropy, optimizer)
    MODELS["Viterbi"] = model
    display(plot_losses("Viterbi"))

# %% nbgrader={"grade_id": "test-5a", "grade": true, "locked": true}
check_part("5a")

# %% [markdown]
# What has changed? Before, the path had to go through gaps that the network took for letters. Now windows with a gap
# have found their class, although no image was ever labelled with it.

# %%
with once_written():
    for name, title in {"letters": "before", "Viterbi": "after"}.items():
        model, image = trained(name), drawing.draw_text("hello")
        print(f"the best class of every window {title:6}: {signs(energies_of(model, image).argmin(dim=1))}")
        display(best_path_figure(model, "hello", f"{title} training on words"))
    display(plot_energies(energies_of(model, image), image, "hello, trained on words"))
    display(best_path_figure(model, ascii_lowercase, "after training on words", 288))

# %% [markdown]
# **5b** (2 points) Somebody trains on words of exactly two letters, without jitter. The network reads new words of two
# letters without a mistake, one in three words of three letters, and next to no word of eight. With the training set
# above, words of eight letters are read as well as short ones. Explain both. (Letters are 11 pixels wide, windows 4
# pixels apart. What can be in a window?)

# %% [markdown] nbgrader={"grade_id": "answer-5b", "grade": true, "solution": true, "points": 2}
# Without jitter, letters of two-letter words begin at columns 0 and 11, so that the windows cut them at few and always
# the same positions. The third letter begins at column 22, the fourth at 33, at other offsets to the grid of windows
# (11, 22 and 33 leave the remainders 3, 2 and 1 when divided by 4), and such views of letters and gaps were never
# trained. Besides, a letter in the middle of a word has a neighbour on both sides; in words of two letters there never
# is one on both. With jitter all offsets occur, and with three letters so does every neighbourhood that fits into a
# window: a window of 18 pixels never shows more than parts of three letters of 11 pixels. A network that sees windows
# only cannot notice that a word is longer, since all windows of a long word look like windows of short ones.
#
# ### BEGIN MARK SCHEME
# 1 point: offsets of letters to windows that were never seen, and jitter brings all of them. ½ point: a letter with
# neighbours on both sides. ½ point: windows are judged one by one, so that once all views are known the length of the
# word does not matter.
# ### END MARK SCHEME

# %% [markdown]
# ## 6 Connectionist temporal classification
#
# ### All alignments instead of the best one
#
# Early in training, the best path is often wrong, and yet the Viterbi loss believes in it alone. **Connectionist
# temporal classification** (CTC) counts all of them. Every window emits a label, a letter or the blank, with
# probability $p_i(k)$, independently of the others. A string of labels *reads as* a word if merging equal neighbours
# and then dropping blanks gives the word: `_cc_aat` and `c_a_ttt` both read as "cat". The probability of a word is the
# sum over all strings that read as it,
#
# $$p(y\mid x) = \sum_{\pi\,:\,\pi\text{ reads as }y}\;\prod_{i=0}^{L-1} p_i(\pi_i), \qquad
#     \mathcal L_{\mathrm{CTC}} = -\log p(y\mid x) .$$
#
# With $-\log p_i = E_i + \log Z_i$ this is $F_1(x, y) + \sum_i\log Z_i$: the free energy at $\beta = 1$, with all its
# alignments, instead of the minimum. As $p(y\mid x)$ is a probability, **the loss is never negative**. A negative loss
# is a sure sign of a bug, such as strings that are counted twice.
#
# ### Words as graphs
#
# The strings that read as a word are those that an automaton accepts. For "cat" its states are `_ c _ a _ t _`. An arc
# leads from a state to itself (the label is repeated), to the next one, and from a letter over the blank to the next
# letter, *unless both letters are the same*: `ll` reads as one l, so that "hello" needs a blank between its two l.
# Blanks between *different* letters may be left out here; in part 4 they could not. The label of an arc is that of the
# state it leads to. Each string that reads as the word has exactly one path.
#
# The graph puts the blanks in, so a CTC target is **plain letters**, c a t. A target that holds blanks already would
# get blanks around blanks, and strings that are counted many times.
#
# **6a** Write `create_ctc_graph`, with `gtn.Graph`: `add_node(start=…, accept=…)` and `add_arc(from, to, label)`.


# %% nbgrader={"grade_id": "ctc-graph", "solution": true}
def create_ctc_graph(target, blank_idx=BETWEEN):
    """The acceptor of all strings of window labels that read as `target`.

    target: plain letters, a list of N ints without blanks
    returns: a `gtn.Graph` with 2N + 1 nodes and weights 0; node 2k + 1 is "in letter k", node 2k "in the blank before"
    raises ValueError: the blank is in the target
    """
    ### BEGIN SOLUTION 6a
    # TODO Build the graph: nodes for _ c _ a _ t _, each with an arc to itself.
    # The label of an arc is that of the node that it leads to. Arcs lead to the next node, and from letter to letter
    # over the blank between them, but not where both are the same letter. The first node is the start, the last two
    # accept (with an empty target, the only one). A blank among the letters is a ValueError that says so: the blanks
    # are put in here.
    if blank_idx in target:
        raise ValueError(f"the target {list(target)} holds the blank, {blank_idx}: give its letters only")
    graph = gtn.Graph(False)
    last = 2 * len(target)
    for node in range(last + 1):
        is_letter = node % 2 == 1
        label = target[node // 2] if is_letter else blank_idx
        graph.add_node(start=node == 0, accept=node >= last - 1)
        graph.add_arc(node, node, label)
        if node > 0:
            graph.add_arc(node - 1, node, label)
        if is_letter and node > 1 and label != target[node // 2 - 1]:
            graph.add_arc(node - 2, node, label)
    return graph
    ### END SOLUTION


# %% [markdown]
# The graphs of "cat" and of "oo". A thick rim is the start, double rims accept.

# %%
with once_written():
    for word in ("cat", "oo"):
        show_graph(create_ctc_graph([SYMBOLS.index(letter) for letter in word]))

# %% nbgrader={"grade_id": "test-6a", "grade": true, "locked": true}
check_part("6a")

# %% [markdown]
# ### The loss is a forward score
#
# The windows are a graph too: $L + 1$ nodes in a row, 27 arcs from each to the next with the weights $\log p_i(k)$,
# `gtn.linear_graph(L, 27)`. Its **intersection** with the graph of the word has a path for every string that both
# accept, with the weight $\sum_i\log p_i(\pi_i)$. The **forward score** of a graph is $\log\sum_{\text{paths}}
# e^{\text{weight}}$, and is computed like the best path, with $\log\sum\exp$ in the place of the minimum:
#
# $$\alpha(v) = \log\sum_{u\to v} e^{\alpha(u) + w_{uv}} .$$
#
# So $\log p(y\mid x)$ is the forward score of the intersection, and a loss takes four calls. Weights in `gtn` are
# *scores*, high = likely.
#
# **6b** Write `CTCLossFunction.forward`. What `reduction` means is what torch means by it: "none" gives a loss for
# every word, "mean" divides the loss of each word by its number of letters and then takes the mean over the batch.
#
# ### The gradient is a posterior
#
# Which share of $p(y\mid x)$ comes from strings with the label $k$ in window $i$? Call it $\gamma_i(k)$; for each
# window these shares add up to 1. Differentiating the sum over strings gives just that,
#
# $$\frac{\partial\,\log p(y\mid x)}{\partial\log p_i(k)} = \gamma_i(k), \qquad
#     \frac{\partial\mathcal L_{\mathrm{CTC}}}{\partial E_i[k]} = \gamma_i(k) - p_i(k) .$$
#
# The second follows with the softmax. It is the contrast of all energy-based learning: energies fall where the right
# word needs them ($\gamma$), and rise where the model believes in them ($p$). Viterbi training has the same gradient
# with $\gamma$ replaced by 1 on the best path and 0 elsewhere.
#
# **6c** Write `CTCLossFunction.backward`, in the same cell. `gtn.backward(score)` leaves in `graph.grad()` the gradient
# of a score with respect to a graph's weights.


# %% nbgrader={"grade_id": "ctc-loss", "solution": true}
class CTCLossFunction(torch.autograd.Function):
    """-log p(target | image) for every word of a batch, with graphs; used through `CTCLossFunction.apply`."""

    @staticmethod
    def forward(ctx, log_probs, targets, input_lengths=None, blank_idx=BETWEEN, reduction="none"):
        """
        log_probs: (B, L, C) log-probabilities of the labels of every window
        targets: B lists of plain letters
        input_lengths: (B,) true numbers of windows, or None where all L count
        reduction: "none" gives the losses (B,); "mean" divides the loss of every word by its number of letters, and
            gives the mean of these over the batch, a tensor without axes, as `torch.nn.functional.ctc_loss` does
        raises ValueError: another reduction; fewer windows than a target needs, with both numbers in the message
        """
        ### BEGIN SOLUTION 6b
        # TODO Compute the losses, and leave in `ctx` what `backward` needs.
        # For each word, intersect a linear graph of its own windows (weights: its rows of log_probs) with the graph of
        # its target; the forward score is log p(target | image). A target needs a window for each letter, and one more
        # for the blank between two equal letters.
        if reduction not in ("none", "mean"):
            raise ValueError(f"the reduction is 'none' or 'mean', not {reduction!r}")
        batch, windows, classes = log_probs.shape
        counts = [windows] * batch if input_lengths is None else [int(length) for length in input_lengths]
        ctx.words, ctx.shape = [], log_probs.shape
        for row, target, count in zip(log_probs.detach(), targets, counts, strict=True):
            needed = len(target) + sum(before == after for before, after in pairwise(target))
            if count < needed:
                raise ValueError(f"the target {list(target)} needs {needed} windows, and there are {count}")
            emissions = gtn.linear_graph(count, classes, True)
            emissions.set_weights(row[:count])
            loss = gtn.negate(gtn.forward_score(gtn.intersect(emissions, create_ctc_graph(target, blank_idx))))
            scale = 1 / (max(len(target), 1) * batch) if reduction == "mean" else 1.0
            ctx.words.append((emissions, loss, scale))
        losses = log_probs.new_tensor([loss.item() * scale for _, loss, scale in ctx.words])
        return losses.sum() if reduction == "mean" else losses
        ### END SOLUTION

    @staticmethod
    def backward(ctx, grad_output):
        """The gradient with respect to log_probs, (B, L, C), and None for every other argument of `forward`.

        grad_output: what comes from above: (B,) for the reduction "none", without axes for "mean"
        """
        ### BEGIN SOLUTION 6c
        # TODO Return the gradient: `gtn.backward` finds it for the weights of the linear graphs.
        # Multiply by grad_output, which has a number of its own for each word under "none", and by what the reduction
        # divides by. Windows beyond the true length get 0.
        gradient = grad_output.new_zeros(ctx.shape)
        factors = grad_output.expand(len(gradient))  # one for each word
        for row, factor, (emissions, loss, scale) in zip(gradient, factors, ctx.words, strict=True):
            emissions.zero_grad()
            gtn.backward(loss, retain_graph=True)
            slopes = torch.from_numpy(emissions.grad().weights_to_numpy(float)).view(-1, row.shape[1])
            row[: len(slopes)] = factor * scale * slopes
        return gradient, None, None, None, None
        ### END SOLUTION


# %% nbgrader={"grade_id": "ctc-criterion", "locked": true}
def ctc_loss(log_probs, targets, input_lengths=None, blank_idx=BETWEEN, reduction="mean"):
    """`CTCLossFunction` as a function with names for its arguments."""
    return CTCLossFunction.apply(log_probs, targets, input_lengths, blank_idx, reduction)


# %% [markdown]
# Three checks with pencil and paper. Eight windows that say `cc_aa_tt` beyond doubt: no loss. Eight windows that know
# nothing: each string has the probability $27^{-8}$, and the number of strings that read as "cat" in eight windows
# comes out. And torch's own loss must be the same.

# %%
with once_written():
    cat = [SYMBOLS.index(letter) for letter in "cat"]
    certain = torch.full((1, 8, 27), -30.0)
    certain[0, range(8), [SYMBOLS.index(sign) for sign in "cc_aa_tt"]] = 0.0
    print(f"certain: {ctc_loss(certain.log_softmax(2), [cat]).item():z.4f}")
    uniform = torch.zeros(1, 8, 27).log_softmax(2)
    strings = torch.exp(8 * torch.tensor(27.0).log() - ctc_loss(uniform, [cat], reduction="none")).item()
    print(f"strings of 8 labels that read as cat: {strings:.0f}")
    torch.manual_seed(0)
    log_probs = torch.randn(1, 8, 27).log_softmax(2)
    own = ctc_loss(log_probs, [cat])
    torchs = nn.functional.ctc_loss(log_probs.transpose(0, 1), torch.tensor([cat]), [8], [3], blank=BETWEEN)
    print(f"ours {own.item():.5f}, torch's {torchs.item():.5f}")

# %% nbgrader={"grade_id": "test-6b", "grade": true, "locked": true}
check_part("6b")

# %% nbgrader={"grade_id": "test-6c", "grade": true, "locked": true}
check_part("6c")

# %% [markdown]
# The intersection for "at" in four windows, with random energies: each arc is drawn as strong as its share of all
# paths, which is the gradient of the forward score.

# %%
with once_written():
    torch.manual_seed(1)
    emissions = gtn.linear_graph(4, 27, True)
    emissions.set_weights((3 * torch.randn(4, 27)).log_softmax(1).round(decimals=1))
    both = gtn.intersect(emissions, create_ctc_graph([SYMBOLS.index(letter) for letter in "at"]))
    gtn.backward(gtn.forward_score(both))
    show_graph(both, emphasis=both.grad().weights_to_list())

# %% [markdown]
# ### The best path again
#
# The same graphs give the best path, if the maximum takes the place of the sum: `gtn.viterbi_path`. It returns the
# labels along the path. To lay them over the word, we need *positions*: 0 is the blank before the first letter, 1 the
# first letter, 2 the blank behind it, and so on. A label alone does not tell them, as a letter may occur in a word
# several times, and in any order.
#
# **6d** Write `viterbi`.


# %% nbgrader={"grade_id": "viterbi", "solution": true}
def viterbi(energies, targets, input_lengths=None, blank_idx=BETWEEN):
    """The best path of every word through its CTC graph.

    energies: (B, L, C), low = likely; targets: B lists of plain letters
    input_lengths: (B,) true numbers of windows, or None where all L count
    returns: the energies of the best paths, (B,), and B lists with the position of every window of the word in the
        blanked target _c_a_t_: 0 is the first blank, 2k + 1 is letter k
    """
    ### BEGIN SOLUTION 6d
    # TODO Return energies and positions of the best paths: gtn looks for the *largest* weight of a path.
    # The same letter may be in a word twice, so a label does not tell its position. But along a path it can be told
    # from the label before: a blank leads to the next position, a new letter to the next position of a letter.
    batch, windows, classes = energies.shape
    counts = [windows] * batch if input_lengths is None else [int(length) for length in input_lengths]
    scores, paths = [], []
    for row, target, count in zip(energies.detach(), targets, counts, strict=True):
        emissions = gtn.linear_graph(count, classes, False)
        emissions.set_weights(-row[:count])
        best = gtn.viterbi_path(gtn.intersect(emissions, create_ctc_graph(target, blank_idx)))
        scores.append(-sum(best.weights_to_list()))
        position, before, path = 0, blank_idx, []
        for label in best.labels_to_list():
            if label != before:
                position += 1 if blank_idx in (label, before) else 2
            path.append(position)
            before = label
        paths.append(path)
    return energies.new_tensor(scores), paths
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-6d", "grade": true, "locked": true}
check_part("6d")

# %% [markdown]
# All paths and the best one: the shares $\gamma_i(k)$ for "hello" are minus the gradient of the loss, and the dots are
# the best path. The network that knows single letters gives the blank a share where the word demands one, between the
# two l, and little elsewhere.


# %%
def shares_figure(model, text, title):
    """The shares of all CTC paths that have label k in window i, and the best path as dots."""
    image, target = drawing.draw_text(text), [SYMBOLS.index(letter) for letter in text]
    energies = energies_of(model, image)
    log_probs = (-energies).log_softmax(1)[None].requires_grad_()
    ctc_loss(log_probs, [target], reduction="none").sum().backward()
    _, [path] = viterbi(energies[None], [target])
    figure = plot_energies(-log_probs.grad[0], image, title, "share of all paths")
    labels = [BETWEEN if position % 2 == 0 else target[position // 2] for position in path]
    figure.axes[1].plot(range(len(labels)), labels, ".", color=plots.COLOURS[1])
    return figure


with once_written():
    display(shares_figure(trained("letters"), "hello", "hello, trained on single letters"))

# %% [markdown]
# ### Training
#
# **6e** Write `train_gtn_model`. It gets batches like those of part 5 and the given `ctc_loss`, whose reduction is
# "mean".


# %% nbgrader={"grade_id": "train-gtn", "solution": true}
def train_gtn_model(model, num_epochs, train_loader, criterion, optimizer):
    """Train on words with the CTC loss.

    train_loader: yields `Batch`es (images, widths, letters, lengths, texts), padded to common sizes
    criterion: called as criterion(log_probs, targets, input_lengths), gives the mean loss of the words; here `ctc_loss`
    returns: the mean loss per word of every epoch, a list of `num_epochs` floats
    """
    ### BEGIN SOLUTION 6e
    # TODO Make one step for every batch, down the loss of the criterion.
    # Training mode first. The log-probabilities of a window are the log_softmax of its -energies. Targets are lists of
    # the plain letters of each word, cut at its true length; the true numbers of windows come from the widths.
    model.train()
    losses = []
    for _ in range(num_epochs):
        total, count = 0.0, 0
        for images, widths, letters, lengths, _ in train_loader:
            log_probs = (-model(images.unsqueeze(1))).log_softmax(dim=2)
            targets = [row[:length].tolist() for row, length in zip(letters, lengths, strict=True)]
            loss = criterion(log_probs, targets, window_counts(widths))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(targets)
            count += len(targets)
        losses.append(total / count)
    return losses
    ### END SOLUTION


# %%
with once_written():
    torch.manual_seed(0)
    model = copy.deepcopy(trained("letters"))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    words = word_loader(SimpleWordsDataset, 4)
    LOSSES["CTC"] = train_gtn_model(model, sized(8, 2), words, ctc_loss, optimizer)
    MODELS["CTC"] = model
    display(plot_losses("CTC"))
    display(shares_figure(model, "hello", "hello, trained with CTC"))

# %% nbgrader={"grade_id": "test-6e", "grade": true, "locked": true}
check_part("6e")

# %% [markdown]
# **6f** (2 points) Compare training along the best path (part 5) with CTC. (i) Write down the gradient at $E_i[k]$ of
# both losses. When do they agree? (ii) What does either do early in training, when two alignments have nearly the same
# energy? (iii) Show that the CTC loss of a word is at most the sum of cross-entropies along any alignment that reads as
# it.

# %% [markdown] nbgrader={"grade_id": "answer-6f", "grade": true, "solution": true, "points": 2}
# (i) Viterbi: $[k = y_{z^*_i}] - p_i(k)$, for the sum over the windows. CTC: $\gamma_i(k) - p_i(k)$. They agree where
# one alignment has nearly all of the probability of the word, so that $\gamma$ is 0 or 1: late in training. (ii)
# Viterbi takes one of the two, by chance, with its whole weight, and the step makes it more likely to be taken again; a
# wrong choice may be confirmed for long. CTC divides its gradient between both by their probabilities, and lets the
# many other words decide. (iii) $p(y\mid x)$ is a sum of non-negative terms, one of which is the probability $\prod_i
# p_i(\pi_i)$ of the labels of this alignment. So it is at least as large as this term, and $-\log p(y\mid x)$ at most
# $-\sum_i\log p_i(\pi_i)$.
#
# ### BEGIN MARK SCHEME
# 1 point: (i), both gradients (½) and when they agree (½). ½ point: (ii). ½ point: (iii).
# ### END MARK SCHEME

# %% [markdown]
# ## 7 Training from nothing
#
# Is the training on single letters needed? Here both methods start from random weights, with the same words and a few
# epochs more.

# %%
with once_written():
    for name, train, criterion in (("Viterbi", train_ebm_model, cross_entropy), ("CTC", train_gtn_model, ctc_loss)):
        torch.manual_seed(0)
        model, words = SimpleNet(), word_loader(SimpleWordsDataset, 4)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        LOSSES[f"{name} from nothing"] = train(model, sized(12, 2), words, criterion, optimizer)
        MODELS[f"{name} from nothing"] = model
        display(plot_losses(name, f"{name} from nothing"))
        print("hello:", signs(energies_of(model, drawing.draw_text("hello")).argmin(dim=1)))

# %% [markdown]
# **7a** (1 point) Why does it work at all, without a single image whose letters are labelled one by one? If *all* words
# have six letters, the network soon answers `BETWEEN` for every window, and the loss stays at a plateau for many
# epochs, with CTC even longer than with Viterbi. Why there? What do words of one letter change?

# %% [markdown] nbgrader={"grade_id": "answer-7a", "grade": true, "solution": true, "points": 1}
# The words constrain one another: a letter occurs in many words, at different places and beside different neighbours,
# and only the right labelling of the windows suits all of them. But at first all alignments of a long word are about
# equally good. The blank is in every word and takes about half of the targets, a letter only few. So, averaged over
# words, the blank is the best answer for every window, and the first steps teach just that. From then on those
# alignments are the best that have blanks nearly everywhere, whatever the windows show, and the share of each letter is
# small and arbitrary. An image of one letter has one window and thus one alignment: it is a labelled letter. From a few
# known letters the alignments of short words follow, and from these the others.
#
# ### BEGIN MARK SCHEME
# ½ point: the same letters in many words, only consistent labellings last. ½ point: the blank is the most frequent
# target of all words, and short words have few alignments (one letter: a single one).
# ### END MARK SCHEME

# %% [markdown]
# ## 8 Other fonts
#
# `CustomWordsDataset` draws every word with one of several fonts, here with two that look like handwriting; one of them
# writes capitals. The network was trained on one font. What does it see?

# %%
with once_written():
    torch.manual_seed(0)
    pen = CustomWordsDataset(8, seed=8)
    texts = ["hello", "window", "energy", "energy"]
    images = [pen.draw_text(text) for text in texts]
    display(plot_images(images, texts))
    for text, image in zip(texts, images, strict=True):
        print(f"{text:8} {signs(energies_of(trained('CTC'), image).argmin(dim=1))}")
    display(plot_energies(energies_of(trained("CTC"), images[-1]), images[-1], "trained on the printed font"))

# %% [markdown]
# The same network after more training, on handwriting only:

# %%
with once_written():
    torch.manual_seed(0)
    model = copy.deepcopy(trained("CTC"))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    words = word_loader(CustomWordsDataset, 6)
    LOSSES["handwriting"] = train_gtn_model(model, sized(12, 2), words, ctc_loss, optimizer)
    MODELS["handwriting"] = model
    display(plot_losses("handwriting"))
    for text, image in zip(texts, images, strict=True):
        print(f"{text:8} {signs(energies_of(model, image).argmin(dim=1))}")
    display(plot_energies(energies_of(model, images[-1]), images[-1], "trained on handwriting"))

# %% [markdown]
# **8a** (1 point) Look at the energies of the handwritten word before and after. What is different, and is the network
# that fails unsure of itself? What do you expect of the printed words now, and what would you train on if both should
# be read? (Part 9 has the numbers.)

# %% [markdown] nbgrader={"grade_id": "answer-8a", "grade": true, "solution": true, "points": 1}
# The network has learnt the shapes of one font and judges new shapes by these, a *domain shift*. Its energies in
# windows of handwriting are as far apart as in print, often with a clear minimum at a wrong class: it is wrong and sure
# of it, since nothing in training told it how windows look that are no letters of this font. After training on
# handwriting the minimum follows the letters. Then print is read worse than before, because no word of the training
# asked for it any more. Who wants both trains on a mixture of both; with many fonts in it, fonts that were not in it
# are read better too.
#
# ### BEGIN MARK SCHEME
# ½ point: domain shift, confident mistakes. ½ point: print gets worse (forgetting), train on a mixture.
# ### END MARK SCHEME

# %% [markdown]
# ## 9 Reading
#
# To read a word that is not known, take the class of least energy in every window, merge equal neighbours, then drop
# the blanks. The order matters: h e l `_` l o must keep both l, so the blank has to be there until the neighbours have
# been merged. A letter that is seen in several windows is one letter, and *two* different letters may stand side by
# side without a blank.
#
# **9a** Write `indices_to_str`.


# %% nbgrader={"grade_id": "indices-to-str", "solution": true}
def indices_to_str(indices):
    """The text of a sequence of window labels (a list or a tensor of ints): "hh_eel_l_oo_" is read as "hello".

    Equal neighbours are one letter, then blanks are dropped. Without letters the text is empty.
    """
    ### BEGIN SOLUTION 9a
    # TODO Merge equal neighbours, then drop BETWEEN, and join the letters with nothing between them.
    # In this order: h e l _ l o keeps both l.
    merged = [label for label, _ in groupby(int(index) for index in indices)]
    return "".join(ascii_lowercase[label] for label in merged if label != BETWEEN)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-9a", "grade": true, "locked": true}
check_part("9a")

# %% [markdown]
# What the networks read, from the labels of the windows to the text:

# %%
with once_written():
    for text in ("hello", "words", "energy", "banana", "jazz"):
        print(text)
        for name in ("letters", "Viterbi", "CTC"):
            labels = energies_of(trained(name), drawing.draw_text(text)).argmin(dim=1)
            print(f"    {name:8} {signs(labels):24} {indices_to_str(labels)}")

# %% [markdown]
# How many new words of one to eight letters are read without a mistake? All networks have seen words of at most three
# letters.


# %%
def word_accuracy(model, dataset):
    """The share of words that are read without a mistake."""
    found, texts = window_labels(model, dataset)
    return sum(indices_to_str(labels) == text for labels, text in zip(found, texts, strict=True)) / len(texts)


NAMES = ("letters", "Viterbi", "CTC", "Viterbi from nothing", "CTC from nothing", "handwriting")
COUNT = sized(300, 40)

with once_written():
    accuracies = {}
    print(f"{'letters in the word':24}", *(f"{length:5}" for length in range(1, 9)))
    for name in NAMES:
        accuracies[name] = [
            word_accuracy(trained(name), SimpleWordsDataset(length, len=COUNT, jitter=True, seed=100 + length))
            for length in range(1, 9)
        ]
        print(f"{name:24}", *(f"{accuracy:5.2f}" for accuracy in accuracies[name]))
    display(plot_lines(accuracies, "letters in the word", "words read"))

# %% [markdown]
# And other images, with words of three letters: without jitter, with noise, which was in no training, and in
# handwriting. What would you change so that words with noise are read too?

# %%
with once_written():
    sets = {
        "plain": SimpleWordsDataset(3, len=COUNT, seed=200),
        "noise": SimpleWordsDataset(3, len=COUNT, noise=True, seed=201),
        "handwriting": CustomWordsDataset(3, len=COUNT, jitter=True, seed=202),
    }
    print(f"{'':24}", *(f"{name:>12}" for name in sets))
    for name in NAMES:
        print(f"{name:24}", *(f"{word_accuracy(trained(name), dataset):12.2f}" for dataset in sets.values()))

# %% [markdown]
# ## Handing in
#
# Restart the kernel, run all cells once more, and save. `ebmcourse check` in a terminal repeats the public checks of
# all exercises on the saved notebook. Hand in this notebook.
#
# ## References
#
# * Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document recognition*, Proc. IEEE
#   1998: graph transformer networks.
# * Y. LeCun, S. Chopra, R. Hadsell, M. Ranzato, F. Huang, *A tutorial on energy-based learning*, 2006.
# * A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, *Connectionist temporal classification*, ICML 2006.
# * A. Hannun, V. Pratap, J. Kahn, W.-N. Hsu, *Differentiable weighted finite-state transducers*, 2020: gtn.
