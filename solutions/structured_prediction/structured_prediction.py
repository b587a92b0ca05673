# %% [markdown]
# # Reading words: structured prediction with energies
#
# It is easy to train a network that recognises single letters. Reading a *word* is harder. There are $26^8$ words of
# eight letters, too many for one output each, and nobody tells us where in the image each letter is. In this assignment
# you train a network that looks at an image through small windows. It learns by itself which windows belong to which
# letter, and then reads words of any length.
#
# **How to work.** Everything is in this notebook. In each part, write what the `TODO`s ask for. The cell below your
# code shows it at work, and you may change it as you like. The cell `check_part("…")` runs the public checks of the
# exercise on your functions as they are currently defined. Grading runs further, hidden checks with other inputs, so an
# exercise can be worth more points than its public checks.
#
# | part | what to write |
# |---|---|
# | 1 | the network that sees an image through windows |
# | 2 | training on single letters |
# | 3 | matrices of energies: windows × targets |
# | 4 | the energy of a path, and the path of least energy |
# | 5 | training on words along the best path |
# | 6 | connectionist temporal classification with graphs |
# | 7 | training from scratch (a question) |
# | 8 | other fonts (a question) |
# | 9 | reading: from labels to text |
#
# All training cells together take about two minutes on a laptop. Grading does not run them: it calls your functions.

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
# The next cell is given. It contains the loss of single windows, functions that apply a network, and figures.


# %% nbgrader={"grade_id": "tools", "locked": true}
SYMBOLS = ascii_lowercase + "_"  # one character for each of the 27 classes; _ is BETWEEN


def cross_entropy(energies, target, **options):
    """The cross-entropy of -energies, since low energies are likely; arguments as for `nn.functional.cross_entropy`."""
    return nn.functional.cross_entropy(-energies, target, **options)


@torch.no_grad()
def get_accuracy(model, dataset):
    """The fraction of one-letter images whose letter has the least energy; puts the model into evaluation mode."""
    model.eval()
    images, letters = simple_collate_fn(list(dataset))  # (B, 32, W), (B,)
    energies = model(images.unsqueeze(1))[:, 0]  # (B, 27), first window
    return (energies.argmin(dim=1) == letters).float().mean().item()


@torch.no_grad()
def energies_of(model, image):
    """The energies (L, 27) of one image (32, W); puts the model into evaluation mode."""
    model.eval()
    return model(image[None, None])[0]


@torch.no_grad()
def window_labels(model, dataset):
    """The class of least energy in each window, as one list per word, and the texts of the words.

    Puts the model into evaluation mode.
    """
    model.eval()
    batch = collate_fn(list(dataset))
    labels = model(batch.images.unsqueeze(1)).argmin(dim=2).tolist()  # (B, L)
    counts = window_counts(batch.widths).tolist()
    return [row[:count] for row, count in zip(labels, counts, strict=True)], batch.texts


def signs(labels):
    """Classes as text, one character per window: [7, 7, 26, 8] -> "hh_i"."""
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
    """Energies (L, 27) below their image (32, W): one row per class, one column per window, at the window's centre."""
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    above, axes = figure.subplots(2, 1, height_ratios=[1, 4], sharex=True)
    left, right = ((column - 8.5) / 4 for column in (-0.5, image.shape[1] - 0.5))  # borders of the image, in windows
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
    """A matrix (L, T) with one column per window and one row per target, and a path of points (i, j) on it."""
    figure = Figure(figsize=(8, min(6.5, 1.2 + 0.2 * pm.shape[1])), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(torch.as_tensor(pm).T, aspect="auto", cmap="viridis", interpolation="nearest")
    if path is not None:
        axes.plot(*zip(*path, strict=True), color=plots.COLOURS[1], marker=".", linewidth=1.5)
    step = 1 if len(targets) < 30 else 2  # of long words, name the letters only
    axes.set_yticks(range(0, len(targets), step), targets[::step], fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="window", ylabel="target")
    axes.set_title(title, fontsize=10, color=plots.GREY)
    figure.colorbar(drawn, ax=axes, label="energy")
    return figure


def plot_lines(lines, xlabel, ylabel):
    """One line for each entry of a dict that maps names to lists of values, drawn over 1, 2, 3, …"""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(lines.items(), plots.COLOURS, strict=False):
        axes.plot(range(1, len(values) + 1), values, color=colour, marker=".", label=name)
    plots.clean(axes, xlabel=xlabel, ylabel=ylabel)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def show_graph(graph, emphasis=None):
    """Draw a graph whose labels are classes; emphasis: one number from 0 to 1 per arc, how strongly to draw it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "graph.png"
        gtn.draw(graph, file, dict(enumerate(SYMBOLS)), emphasis=emphasis)
        display(Image(file.read_bytes(), width=800))


# %% [markdown]
# The next cell contains helpers for the training cells. If the environment variable `EBM_PRESET` is `small`, the
# notebook trains much less: long enough to see that everything runs, too short to read well.

# %%
# nbgrader runs the notebook only for its tested cells.
SMALL = os.environ.get("EBM_PRESET") == "small" or "NBGRADER_EXECUTION" in os.environ
MODELS, LOSSES = {}, {}  # by name: the networks that the cells below train, and their losses, one per epoch


def sized(full, small):
    """`full` for the whole notebook, `small` for a quick run."""
    return small if SMALL else full


def trained(name):
    """The network of this name, trained in a cell above."""
    if name not in MODELS:
        raise NotImplementedError(f"this cell uses the network {name!r}, which a cell above trains")
    return MODELS[name]


def plot_losses(*names):
    """The mean loss of each epoch for the trainings of these names that have been run."""
    return plot_lines({name: LOSSES[name] for name in names if name in LOSSES}, "epoch", "mean loss")


# %% [markdown]
# ## 1 Words, windows, energies
#
# ### The images
#
# The images show random letters a-z in a font in which every letter is 11 pixels wide. They are 32 pixels high and 18
# pixels wide per letter, with bright ink on black. *Jitter* moves the text 0 to 7 pixels to the right; *noise* sets
# each pixel to ink with probability 0.1.

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
# windows. A window is wide enough for one letter, but too narrow to show two in full. Neighbouring windows overlap:
# except near the borders, each column is in four or five of them.

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
# An energy-based model assigns a number to every configuration of its variables, low where they fit together. To
# predict, it looks for the configuration of least energy. Our network gives window $i$ of an image 27 energies
# $E_i[k]$. The energy $E_i[k]$ says how poorly class $k$ fits what the window shows: the letters a … z are the classes
# 0 … 25, and class 26 (`BETWEEN`, written as `_`) is the gap between two letters. The Gibbs distribution turns energies
# into probabilities,
#
# $$p_i(k) = \frac{e^{-E_i[k]}}{Z_i}, \qquad Z_i = \sum_{k=0}^{26} e^{-E_i[k]},
#     \qquad -\log p_i(k) = E_i[k] + \log Z_i .$$
#
# So $-E$ plays the role of the logits of a classifier. **A low energy means likely**, everywhere in this notebook.
#
# The same small network is applied to all windows. This is a convolution: with a kernel of 32 × 18 pixels, stride 4 and
# no padding, one call on a wide image gives the same energies as one call for each of its windows. What the network has
# learned from images of single letters can then be used on words of any length.
#
# **1a** Write `SimpleNet`. Any network is fine if, in evaluation mode, its output for window $i$ depends on the 18
# columns of this window only; dropout and batch normalisation are allowed. With noisy images, a non-linearity between
# the convolution and the last layer makes a clear difference.


# %% nbgrader={"grade_id": "simple-net", "solution": true}
class SimpleNet(nn.Module):
    """Energies of the 27 classes for every window of 32 × 18 pixels, 4 pixels apart.

    Window i consists of the columns 4i … 4i + 17, and its energies depend on these alone.
    """

    def __init__(self):
        super().__init__()
        ### BEGIN SOLUTION 1a
        # TODO Create the layers for windows of 32 × 18 pixels, 4 columns apart.
        # A convolution with that kernel size and stride, without padding, gives one vector per window. Add a
        # non-linearity and a linear layer to ALPHABET_SIZE energies.
        self.look = nn.Conv2d(1, 256, kernel_size=(32, 18), stride=(1, 4))
        self.judge = nn.Linear(256, ALPHABET_SIZE)
        ### END SOLUTION

    def forward(self, x):
        """x: (B, 1, 32, W) images, W ≥ 18 -> (B, L, 27) energies, with L = (W - 18) // 4 + 1 windows."""
        ### BEGIN SOLUTION 1a
        # TODO Return the energies of all windows, shape (B, L, 27), and do not modify the images.
        # Energies are arbitrary real numbers, low = likely: use no (log-)softmax or non-linearity after the last layer.
        # The result has three axes even for a single window (W = 18) and for a single image.
        features = self.look(x).relu()  # (B, 256, 1, L)
        return self.judge(features.squeeze(2).transpose(1, 2))  # (B, L, 27)
        ### END SOLUTION


# %% [markdown]
# Before training, the energies mean nothing yet, but their shape is right:

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
# An image of one letter is 18 pixels wide and so has a single window. Nothing has to be aligned, and the network can be
# trained as a classifier with the cross-entropy $-\log p_0(k)$ of the correct letter $k$. The training images have
# jitter, because in a word a letter can be anywhere in a window.
#
# **2a** Write `train_model`. It returns the mean loss of each epoch. Take the mean over images, not over batches,
# because the last batch may be smaller.


# %% nbgrader={"grade_id": "train-model", "solution": true}
def train_model(model, epochs, dataloader, criterion, optimizer):
    """Train on images of single letters.

    dataloader: yields images (B, 32, W) and letters (B,); all images have one window, 18 ≤ W ≤ 21. It may draw other
        images each time that it is read, so read it once in each epoch
    criterion: the mean loss of energies (B, 27) and letters (B,), here `cross_entropy`
    returns: the mean loss per image of each epoch, a list of `epochs` floats
    """
    ### BEGIN SOLUTION 2a
    # TODO Train for `epochs` epochs, with one optimizer step for each batch, on its gradient as it is (no clipping).
    # Put the model into training mode first. The model expects images with a channel, (B, 1, 32, W). Batches may differ
    # in size, but every image has the same weight in the mean loss of an epoch.
    model.train()
    losses = []
    for _ in range(epochs):
        total, count = 0.0, 0
        for images, letters in dataloader:
            energies = model(images.unsqueeze(1))[:, 0]  # (B, 27), the only window
            loss = criterion(energies, letters)
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
# Now we apply the same network to a word. Where a window shows one letter, the network recognises it. What does it say
# about windows that show the gap between two letters, or nothing at all?

# %%
with once_written():
    image = drawing.draw_text("hello")
    energies = energies_of(trained("letters"), image)
    print("the class of least energy in each window:", signs(energies.argmin(dim=1)))
    display(plot_energies(energies, image, "hello, trained on single letters"))

# %% [markdown]
# **2b** (1 point) No training image shows the class `BETWEEN`. What happens to its energy during this training anyway,
# and which term of the loss causes it? What does the network therefore predict for a window between two letters?

# %% [markdown] nbgrader={"grade_id": "answer-2b", "grade": true, "solution": true, "points": 1}
# The energy of `BETWEEN` appears in $\log Z$ of every image. The derivative of the loss with respect to it is
# $-p_0(26)$, so each step raises it: `BETWEEN` is a wrong answer for every image and becomes unlikely everywhere. In a
# gap, or where there is nothing, the network still has to choose a class, and it chooses the letter that differs least.
#
# ### BEGIN MARK SCHEME
# ½ point: its energy is raised everywhere, through log Z. ½ point: a gap is classified as a letter, never as `BETWEEN`.
# ### END MARK SCHEME

# %% [markdown]
# ## 3 Windows and targets
#
# ### Which window shows which letter?
#
# A word becomes a sequence of **targets** $y_0, \dots, y_{T-1}$: its letters, each followed by the class `BETWEEN`, so
# "cat" becomes c `_` a `_` t `_`. The windows are in the same order as the letters, but we do not know how many windows
# belong to each target. This is a *latent variable*, the **alignment** or **path** $z$: window $i$ belongs to the
# target at position $z_i$. For a given alignment, the energy of image and word is a sum over the windows,
#
# $$E(x, y, z) = \sum_{i=0}^{L-1} E_i[y_{z_i}] .$$
#
# It depends only on the numbers $E_i[y_j]$. They form the **path matrix**, with a row for each window and a column for
# each target:
#
# $$\mathrm{pm}[i, j] = E_i[y_j] .$$
#
# **3a** Write `build_path_matrix`, for a whole batch and without loops. The functions of parts 3 and 4 are called with
# detached energies: gradients need not flow through them, and energies may be returned in another floating-point type.


# %% nbgrader={"grade_id": "path-matrix", "solution": true}
def build_path_matrix(energies, targets):
    """The energy of every window for every target.

    energies: (B, L, 27); targets: (B, T) int64 classes
    returns: (B, L, T), where pm[b, i, j] = energies[b, i, targets[b, j]]
    """
    ### BEGIN SOLUTION 3a
    # TODO Return the matrix without a loop: `gather` selects entries by their indices.
    # Each word has its own targets, and a class may occur several times among them.
    windows = energies.shape[1]
    return energies.gather(2, targets.unsqueeze(1).expand(-1, windows, -1))
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-3a", "grade": true, "locked": true}
check_part("3a")

# %% [markdown]
# ### Energies and cross-entropies
#
# For a loss we need log-probabilities. Since $-\log p_i(k) = E_i[k] + \log Z_i$, the matrix of cross-entropies is
#
# $$\mathrm{CE}[i, j] = -\log p_i(y_j) = \mathrm{pm}[i, j] + \log Z_i, \qquad
#     \log Z_i = \log\sum_{k=0}^{26} e^{-E_i[k]} .$$
#
# A path takes exactly one entry from each row. So along *every* path the two sums differ by the same number, $\sum_i
# \log Z_i$: **the best path is the same on both matrices, and its energies differ by $\sum_i\log Z_i$.**
#
# **3b** Write `build_ce_matrix`, for a whole batch, without loops, and for energies of any magnitude.


# %% nbgrader={"grade_id": "ce-matrix", "solution": true}
def build_ce_matrix(energies, targets):
    """The cross-entropy of every window with every target: -log p(target | window), p the softmax of -energies.

    energies: (B, L, 27); targets: (B, T) int64 classes
    returns: (B, L, T)
    """
    ### BEGIN SOLUTION 3b
    # TODO Return the matrix without a loop, finite for energies of any magnitude.
    # The sum in log Z runs over all 27 classes, not only over the targets.
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
    """The targets of a word, with a blank after each letter: "cat" -> tensor([2, 26, 0, 26, 19, 26]), int64.

    raises ValueError, with a message of your choice: the word is empty or contains anything but the letters a-z
    """
    ### BEGIN SOLUTION 3c
    # TODO Return the classes of the letters, each followed by BETWEEN.
    # Raise a ValueError for any other character, such as a capital, an accented letter, a space or a newline, and for
    # the empty word. The checks do not read its message.
    if not word or not set(word) <= set(ascii_lowercase):
        raise ValueError(f"a word consists of the letters a-z, but this is {word!r}")
    return torch.tensor([target for letter in word for target in (ord(letter) - ord("a"), BETWEEN)])
    ### END SOLUTION


# %%
with once_written():
    print("cat ->", transform_word("cat"), signs(transform_word("cat")))

# %% nbgrader={"grade_id": "test-3c", "grade": true, "locked": true}
check_part("3c")

# %% [markdown]
# **3d** (1 point) The best path is the same on both matrices. Does this mean that either of them can be used for the
# *loss*? Suppose that somebody trains the network to minimise the sum of pm along the best path. What is the result?

# %% [markdown] nbgrader={"grade_id": "answer-3d", "grade": true, "solution": true, "points": 1}
# No. The sum of pm can be made as small as one likes by lowering *all* energies of all windows, for example with a
# constant added in the last layer. The loss falls, but no class is preferred to another. In CE this constant cancels,
# because $\log Z_i$ rises by as much as the energies fall. $\log Z_i$ does not depend on the target, so it has no
# influence on the path. But it depends on the weights of the network: this term raises the energies of wrong answers.
#
# ### BEGIN MARK SCHEME
# ½ point: all energies fall together, nothing is learned (collapse). ½ point: log Z is the same for all paths, but
# depends on the weights; it raises the other energies.
# ### END MARK SCHEME

# %% [markdown]
# ## 4 Paths
#
# ### Valid paths
#
# A path gives each of the $L$ windows a position among the $T$ targets. It is **valid** if
#
# * it starts at the first target, $z_0 = 0$, and ends at the last, $z_{L-1} = T - 1$,
# * from one window to the next it stays or advances by exactly one, $z_{i+1} - z_i \in \{0, 1\}$.
#
# So no target is skipped, the path never goes back, and the word is read to its end. If a path could stop anywhere, it
# would stop early and read only the cheapest beginning of the word. A valid path advances in $T - 1$ of its $L - 1$
# steps, so there are $\binom{L-1}{T-1}$ valid paths. With fewer windows than targets, $L < T$, there is none.
#
# **4a** Write `path_energy`. A path that is not valid has infinite energy. Use `float("inf")`, not some large number:
# infinity stays infinite whatever is added to it.


# %% nbgrader={"grade_id": "path-energy", "solution": true}
def path_energy(pm, path):
    """The energy of a path: the sum of pm[i, path[i]] over all windows i.

    pm: (L, T); path: a list or a tuple of target positions (ints)
    returns: a tensor without axes; infinite if the path is not valid
    """
    ### BEGIN SOLUTION 4a
    # TODO Return the energy of the path: float("inf"), as a tensor, if it is not valid.
    # A valid path has one position for each of the L windows, starts at 0, ends at T - 1, and stays or advances by
    # exactly one from each window to the next. Expect any sequence: too short, too long, empty, or with positions that
    # do not exist.
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
# The alignment is never observed, only image and word. What is their energy? The **free energy** is the energy of the
# best alignment,
#
# $$F(x, y) = \min_z E(x, y, z) .$$
#
# This is the *minimum itself*, not the path at which it is attained. It is the limit for $\beta\to\infty$ of
#
# $$F_\beta(x, y) = -\frac1\beta\log\sum_z e^{-\beta E(x, y, z)} ,$$
#
# which takes all alignments into account, with more weight on better ones. We return to it in part 6. The largest of
# $n$ positive terms is at least their mean and at most their sum, so $F_\beta \le F \le F_\beta + \frac1\beta\log n$.
#
# ### Viterbi's algorithm
#
# "hello" has 19 windows and, with its blanks, 10 targets: 48,620 paths. The whole alphabet has more than $10^{14}$. But
# all paths that pass through $(i, j)$ continue in the same ways, so only the best way to reach $(i, j)$ matters. Its
# energy is
#
# $$\mathrm{dp}[i, j] = \mathrm{pm}[i, j] + \min\bigl(\mathrm{dp}[i-1, j],\; \mathrm{dp}[i-1, j-1]\bigr),$$
#
# because the path has either stayed at target $j$ or come from the target before it. The first row says that paths
# start at 0: $\mathrm{dp}[0, 0] = \mathrm{pm}[0, 0]$ and $\mathrm{dp}[0, j] = \infty$ for $j > 0$. Entries to the left
# of the first column count as infinite as well. Paths end at $T - 1$, so the free energy is $\mathrm{dp}[L-1, T-1]$,
# even if another entry of the last row is smaller. To find the path, start from there and go back from row to row, each
# time to the entry that gave the minimum. This takes $L\cdot T$ steps, while there are $\binom{L-1}{T-1}$ paths.
#
# **4b** Write `find_path`. Training calls it for every word. Its time must grow with $L\cdot T$, not with the number of
# paths; how many milliseconds it takes is not graded.


# %% nbgrader={"grade_id": "find-path", "solution": true}
def find_path(pm):
    """The valid path of least energy (Viterbi).

    pm: (L, T) energies of windows (a few hundred at most) and targets; it is not modified
    returns: three values,
        the free energy, which is the least energy of all valid paths, a tensor without axes;
        the points (i, j) of such a path, one per window, from (0, 0) to (L - 1, T - 1);
        the table dp (L, T), where dp[i, j] is the least energy of all ways from (0, 0) to (i, j), or infinity if there
            is none; entries that no valid path contains may be infinite, too
    raises ValueError: there are fewer windows than targets; the message names both numbers
    """
    ### BEGIN SOLUTION 4b
    # TODO Fill the table row by row, then follow the best path back.
    # Go back from (L - 1, T - 1) along the moves that gave the minima. A path starts at (0, 0), so the rest of the
    # first row cannot be reached and is float("inf"). If both moves are equally good, take either of them, but the path
    # must remain valid. A loop over the windows is fine; if rows are tensors, no loop over the targets is needed.
    windows, targets = pm.shape
    if windows < targets:
        raise ValueError(f"no path leads through {targets} targets in only {windows} windows")
    infinity = pm.new_tensor([float("inf")])
    row = torch.cat([pm[0, :1], infinity.expand(targets - 1)])  # (T,)
    rows = [row]
    for energies in pm[1:]:
        advanced = torch.cat([infinity, row[:-1]])  # entry j - 1 of the row above
        row = torch.minimum(row, advanced) + energies
        rows.append(row)
    dp = torch.stack(rows)  # (L, T)

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
# The best path of the whole alphabet, found with an untrained network and with the network that was trained on single
# letters. All letters have the same width, so the path should be a diagonal.


# %%
def best_path_figure(model, text, title, length=None):
    """The path matrix of a text, drawn in an image `length` pixels wide, and the best path on it."""
    energies = energies_of(model, SimpleWordsDataset(1).draw_text(text, length))  # (L, 27)
    targets = transform_word(text)  # (T,)
    pm = build_path_matrix(energies[None], targets[None])[0]  # (L, T)
    free_energy, path, _ = find_path(pm)
    return plot_pm(pm, path, signs(targets), f"{title}: free energy {free_energy.item():.1f}")


with once_written():
    torch.manual_seed(0)
    display(best_path_figure(SimpleNet(), ascii_lowercase, "before training", 288))
    display(best_path_figure(trained("letters"), ascii_lowercase, "trained on single letters", 288))

# %% [markdown]
# **4c** (1 point) Suppose that somebody follows the path back from the smallest entry of the last row instead of from
# $(L-1, T-1)$. In the path matrix of some word, the first letter has the least energy in every window. Which path do
# they find? What would training on such paths teach the network?

# %% [markdown] nbgrader={"grade_id": "answer-4c", "grade": true, "solution": true, "points": 1}
# They find the path that stays at target 0 in all windows, because it is the cheapest way to the last row. Training
# would then lower the energy of the first letter in windows that show the other letters, which makes the same path even
# cheaper the next time. The loss falls, but the word is read as its first letter. The end condition forces the other
# letters to appear somewhere, and only this tells the network about them.
#
# ### BEGIN MARK SCHEME
# ½ point: the path stays at the first target. ½ point: training reinforces it, the other letters are never learned.
# ### END MARK SCHEME

# %% [markdown]
# ### The borders of a word
#
# With the targets c `_` a `_` t `_`, a path has to begin with a letter and end with a gap. But with jitter a word
# begins with empty columns, which would have to be assigned to its first letter. And an image of one letter has a
# single window, with no room for a gap. So the blank *before the first letter* and the blank *after the last letter*
# are both optional: the targets are `_` c `_` a `_` t `_`, and a path may leave out the first blank, the last, or both.
# The next cell implements this with your `find_path`. It tries every choice for which there are enough windows, and
# takes the best.


# %% nbgrader={"grade_id": "best-labels", "locked": true}
def best_labels(pm, targets):
    """The class of every window on the best path through _c_a_t_, where the first and the last blank are optional.

    pm: (L, 2N + 1) energies for these targets; targets: (2N + 1,) classes, BETWEEN first and last
    returns: (L,) int64
    raises ValueError: there are fewer windows than letters and blanks between them
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
    pm = torch.ones(6, 5) - torch.eye(6, 5)  # windows 0 to 4 fit the targets _ a _ b _, window 5 fits none
    for title, rows in {"room on both sides": pm, "none on the left": pm[1:], "none at all": pm[1:4]}.items():
        print(f"{title:20} {signs(best_labels(rows, targets))}")

# %% [markdown]
# ## 5 Training on words
#
# ### The loss
#
# Once the alignment is known, a word is a set of windows with known labels, and we can use the cross-entropy. So
# training alternates between two steps. *First*, with the current energies, find the best path $z^*$ of each word.
# *Then* take one optimizer step that lowers the mean cross-entropy along these paths,
#
# $$\mathcal L = \frac1{\sum_w L_w}\sum_w\sum_{i=0}^{L_w-1} \bigl(E_i[y_{z^*_i}] + \log Z_i\bigr),$$
#
# where word $w$ of the batch has $L_w$ windows. $k$-means and hard expectation maximisation work in the same way:
# better energies give better paths, and better paths give better energies. Two remarks:
#
# * The path is computed from *detached* energies. This is not an approximation: if the minimum is attained at $z^*$,
#   the gradient of $\min_z E(x, y, z)$ is the gradient of $E(x, y, z^*)$ with the path held fixed.
# * The words of a batch differ in length, and their images are padded to a common width. Windows in the padding do not
#   belong to the word: they are not aligned and do not enter the loss. Otherwise the alignment of a short word would
#   depend on the other words in its batch.
#
# **5a** Write `train_ebm_model`. A batch has the fields `images` (B, 32, W), `widths` (B,), `letters` (B, N), `lengths`
# (B,) and `texts`; `window_counts(widths)` returns the numbers $L_w$. Images are padded with zeros on the right, and
# `letters` with `BETWEEN`. The loader may draw other images each time that it is read, so read it once in
# each epoch.


# %% nbgrader={"grade_id": "train-ebm", "solution": true}
def train_ebm_model(model, num_epochs, train_loader, criterion, optimizer):
    """Train on words, along the best path of each.

    train_loader: yields `Batch`es (images, widths, letters, lengths, texts), padded to common sizes
    criterion: the mean loss of energies (N, 27) and classes (N,), here `cross_entropy`
    returns: the mean loss per window of each epoch, a list of `num_epochs` floats
    """
    ### BEGIN SOLUTION 5a
    # TODO Take one optimizer step per batch, on the mean loss over all windows of its words, without clipping.
    # Put the model into training mode first. Each word has window_counts(width) windows; the rest is padding and does
    # not count. The targets of a word are BETWEEN followed by transform_word(text). Get its labels from `best_labels`,
    # with the path matrix of detached energies, because gradients do not flow through the path. Then call the criterion
    # once on the windows of all words, so that every window has the same weight.
    model.train()
    losses = []
    for _ in range(num_epochs):
        total, count = 0.0, 0
        for images, widths, _, _, texts in train_loader:
            padded = model(images.unsqueeze(1))  # (B, L, 27)
            energies = [row[:windows] for row, windows in zip(padded, window_counts(widths), strict=True)]
            aligned = []  # the classes of each word's windows
            for own, text in zip(energies, texts, strict=True):  # own: (L_w, 27)
                targets = torch.cat([torch.tensor([BETWEEN]), transform_word(text)])  # (2N + 1,)
                pm = build_path_matrix(own.detach()[None], targets[None])[0]  # (L_w, 2N + 1)
                aligned.append(best_labels(pm, targets))
            labels = torch.cat(aligned)  # (all windows of the batch,)
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
# The training starts from the network that knows single letters, and uses words of one to three letters with jitter.


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
# What has changed? Before, the path had to pass through gaps that the network classified as letters. Now windows that
# show a gap are classified as `BETWEEN`, although no image was ever labelled with this class.

# %%
with once_written():
    image, viterbi_model = drawing.draw_text("hello"), trained("Viterbi")
    for name, title in {"letters": "before", "Viterbi": "after"}.items():
        labels = energies_of(trained(name), image).argmin(dim=1)
        print(f"the class of least energy in each window {title:6}: {signs(labels)}")
        display(best_path_figure(trained(name), "hello", f"{title} training on words"))
    display(plot_energies(energies_of(viterbi_model, image), image, "hello, trained on words"))
    display(best_path_figure(viterbi_model, ascii_lowercase, "after training on words", 288))

# %% [markdown]
# **5b** (2 points) Suppose that somebody trains on words of exactly two letters, without jitter. The network then reads
# all new words of two letters correctly, one in three words of three letters, and almost no word of eight letters. With
# the training set above, words of eight letters are read as well as short ones. Explain both results. (Letters are 11
# pixels wide and windows are 4 pixels apart. What can a window show?)

# %% [markdown] nbgrader={"grade_id": "answer-5b", "grade": true, "solution": true, "points": 2}
# Without jitter, the letters of two-letter words begin at columns 0 and 11, so the windows always cut them at the same
# few positions. The third letter begins at column 22 and the fourth at column 33. Their offsets from the grid of
# windows are different (11, 22 and 33 leave the remainders 3, 2 and 1 when divided by 4), and the network was never
# trained on such views of letters and gaps. Besides, a letter in the middle of a word has neighbours on both sides,
# which never occurs in words of two letters. With jitter, all offsets occur. With words of three letters, every
# neighbourhood that fits into a window occurs, because a window of 18 pixels shows parts of at most three letters of 11
# pixels. A network that sees one window at a time cannot notice that a word is longer: all windows of a long word look
# like windows of short words.
#
# ### BEGIN MARK SCHEME
# 1 point: some offsets between letters and windows were never seen, and jitter produces all of them. ½ point: letters
# with neighbours on both sides. ½ point: windows are classified one by one, so once all views are known, the length of
# the word does not matter.
# ### END MARK SCHEME

# %% [markdown]
# ## 6 Connectionist temporal classification
#
# ### All alignments instead of the best one
#
# Early in training the best path is often wrong, but the Viterbi loss uses nothing else. **Connectionist temporal
# classification** (CTC) uses all alignments. Every window emits a label, a letter or the blank, with probability
# $p_i(k)$, independently of the other windows. A string of labels *reads as* a word if merging equal neighbours and
# then dropping the blanks gives the word: `_cc_aat` and `c_a_ttt` both read as "cat". The probability of a word is the
# sum over all strings that read as it,
#
# $$p(y\mid x) = \sum_{\pi\,:\,\pi\text{ reads as }y}\;\prod_{i=0}^{L-1} p_i(\pi_i), \qquad
#     \mathcal L_{\mathrm{CTC}} = -\log p(y\mid x) .$$
#
# Since $-\log p_i = E_i + \log Z_i$, this is $F_1(x, y) + \sum_i\log Z_i$: instead of the minimum, it contains the free
# energy at $\beta = 1$, a sum over all alignments. As $p(y\mid x)$ is a probability, **the loss is never negative**. A
# negative loss is a sure sign of a bug, for example of strings that are counted twice.
#
# ### Words as graphs
#
# The strings that read as a word are those that a finite automaton accepts. For "cat" its states are `_ c _ a _ t _`.
# Each state has an arc to itself (the label is repeated) and an arc to the next state. Each letter also has an arc that
# skips the blank and leads to the next letter, *unless both letters are the same*: `ll` reads as a single l, so "hello"
# needs a blank between its two l. Blanks between *different* letters are therefore optional here, while in part 4 they
# were not. The label of an arc is that of the state to which it leads. There is exactly one path for each string that
# reads as the word.
#
# The graph inserts the blanks, so a CTC target consists of **plain letters**, c a t. If the target already contained
# blanks, the graph would put blanks around blanks, and strings would be counted many times.
#
# **6a** Write `create_ctc_graph` with `gtn.Graph` and its methods `add_node(start=…, accept=…)` and `add_arc(from, to,
# label)`.


# %% nbgrader={"grade_id": "ctc-graph", "solution": true}
def create_ctc_graph(target, blank_idx=BETWEEN):
    """The acceptor of all strings of window labels that read as `target`.

    target: plain letters, a list of N ints without blanks
    returns: a `gtn.Graph` with weights 0, for example with 2N + 1 nodes, where node 2k + 1 is letter k and node 2k is
        the blank before it
    raises ValueError: the target contains the blank
    """
    ### BEGIN SOLUTION 6a
    # TODO Build the graph: nodes for _ c _ a _ t _, each with an arc to itself.
    # The label of an arc is that of the node to which it leads. There are arcs to the next node, and from each letter
    # to the next letter unless both are the same. The first node is the start; the last two nodes accept (only one if
    # the target is empty). If the target contains the blank, raise a ValueError that says so, because the graph inserts
    # the blanks itself.
    if blank_idx in target:
        raise ValueError(f"the target {list(target)} contains the blank, {blank_idx}: give only its letters")
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
# The graphs of "cat" and "oo". The start node has a thick border, accepting nodes have a double border.

# %%
with once_written():
    for word in ("cat", "oo"):
        show_graph(create_ctc_graph([SYMBOLS.index(letter) for letter in word]))

# %% nbgrader={"grade_id": "test-6a", "grade": true, "locked": true}
check_part("6a")

# %% [markdown]
# ### The loss is a forward score
#
# The windows form a graph, too: $L + 1$ nodes in a row and 27 arcs from each node to the next, with the weights $\log
# p_i(k)$. This is `gtn.linear_graph(L, 27)`. Its **intersection** with the graph of the word has one path for each
# string that both accept, with the weight $\sum_i\log p_i(\pi_i)$. The **forward score** of a graph is
# $\log\sum_{\text{paths}} e^{\text{weight}}$. It is computed like the best path, with $\log\sum\exp$ in place of the
# minimum:
#
# $$\alpha(v) = \log\sum_{u\to v} e^{\alpha(u) + w_{uv}} .$$
#
# So $\log p(y\mid x)$ is the forward score of the intersection, and a loss takes four calls. Weights in `gtn` are
# *scores*: high means likely.
#
# **6b** Write `CTCLossFunction.forward`. The argument `reduction` means the same as in torch: "none" returns one loss
# per word, and "mean" divides the loss of each word by its number of letters and then takes the mean over the batch.
# You may also compute the loss without graphs.
#
# ### The gradient is a posterior
#
# Which share of $p(y\mid x)$ comes from strings with label $k$ in window $i$? We call it $\gamma_i(k)$; for each window
# these shares sum to 1. Differentiating the sum over strings gives
#
# $$\frac{\partial\,\log p(y\mid x)}{\partial\log p_i(k)} = \gamma_i(k), \qquad
#     \frac{\partial\mathcal L_{\mathrm{CTC}}}{\partial E_i[k]} = \gamma_i(k) - p_i(k) .$$
#
# The second formula follows from the first with the derivative of the softmax. It shows the contrast found in all
# energy-based learning: energies fall where the correct word needs them to ($\gamma$), and rise where the model assigns
# probability ($p$). The gradient of Viterbi training has the same form, with $\gamma$ replaced by 1 on the best path
# and by 0 elsewhere.
#
# **6c** Write `CTCLossFunction.backward` in the same cell. After `gtn.backward(score)`, `graph.grad()` is the gradient
# of the score with respect to the weights of the graph.


# %% nbgrader={"grade_id": "ctc-loss", "solution": true}
class CTCLossFunction(torch.autograd.Function):
    """-log p(target | image) for every word of a batch, computed with graphs; call it as `CTCLossFunction.apply`."""

    @staticmethod
    def forward(ctx, log_probs, targets, input_lengths=None, blank_idx=BETWEEN, reduction="none"):
        """
        log_probs: (B, L, C) log-probabilities of the labels of every window
        targets: B lists of plain letters
        input_lengths: (B,) true numbers of windows, or None if all L count
        reduction: "none" returns the losses (B,); "mean" divides the loss of each word by its number of letters (by 1
            for an empty target) and returns the mean over the batch, a tensor without axes, like
            `torch.nn.functional.ctc_loss`
        raises ValueError: the reduction is unknown, or a word has fewer windows than its target needs; the message
            then names both numbers
        """
        ### BEGIN SOLUTION 6b
        # TODO Compute the losses, and save in `ctx` what `backward` needs.
        # For each word, intersect the graph of its target with a linear graph of its own windows, whose weights are its
        # rows of log_probs. The forward score of the intersection is log p(target | image). A target needs one window
        # for each letter, and one more for the blank between two equal letters.
        if reduction not in ("none", "mean"):
            raise ValueError(f"the reduction must be 'none' or 'mean', not {reduction!r}")
        batch, windows, classes = log_probs.shape
        counts = [windows] * batch if input_lengths is None else [int(length) for length in input_lengths]
        ctx.words, ctx.shape = [], log_probs.shape
        for row, target, count in zip(log_probs.detach(), targets, counts, strict=True):  # row: (L, C)
            needed = len(target) + sum(before == after for before, after in pairwise(target))
            if count < needed:
                raise ValueError(f"the target {list(target)} needs {needed} windows, but there are only {count}")
            emissions = gtn.linear_graph(count, classes, True)
            emissions.set_weights(row[:count])
            loss = gtn.negate(gtn.forward_score(gtn.intersect(emissions, create_ctc_graph(target, blank_idx))))
            scale = 1 / (max(len(target), 1) * batch) if reduction == "mean" else 1.0
            ctx.words.append((emissions, loss, scale))
        losses = log_probs.new_tensor([loss.item() * scale for _, loss, scale in ctx.words])  # (B,)
        return losses.sum() if reduction == "mean" else losses
        ### END SOLUTION

    @staticmethod
    def backward(ctx, grad_output):
        """The gradient with respect to log_probs, (B, L, C), and None for every other argument of `forward`.

        grad_output: the gradient with respect to the result of `forward`; (B,) for "none", no axes for "mean"

        The derivative of the log_softmax, from which log_probs come, is not part of it: torch multiplies by it later.
        """
        ### BEGIN SOLUTION 6c
        # TODO Return the gradient: `gtn.backward` computes it for the weights of the linear graphs.
        # Multiply it by grad_output, which has one entry per word for "none", and by the factor of the reduction. The
        # gradient of windows beyond the true length is 0. gtn adds to the gradients of an earlier call, so set these to
        # zero first, or keep the graphs for one call only: a second call may raise an exception, but must not return
        # another gradient.
        gradient = grad_output.new_zeros(ctx.shape)  # (B, L, C)
        factors = grad_output.expand(len(gradient))  # (B,)
        for b, (emissions, loss, scale) in enumerate(ctx.words):
            emissions.zero_grad()  # gtn adds to the gradients of an earlier call
            gtn.backward(loss, retain_graph=True)
            slopes = torch.from_numpy(emissions.grad().weights_to_numpy(float)).view(-1, ctx.shape[2])  # (L_b, C)
            gradient[b, : len(slopes)] = factors[b] * scale * slopes
        return gradient, None, None, None, None
        ### END SOLUTION


# %% nbgrader={"grade_id": "ctc-criterion", "locked": true}
def ctc_loss(log_probs, targets, input_lengths=None, blank_idx=BETWEEN, reduction="mean"):
    """`CTCLossFunction` as a function with named arguments."""
    return CTCLossFunction.apply(log_probs, targets, input_lengths, blank_idx, reduction)


# %% [markdown]
# Three tests whose results are known. If eight windows say `cc_aa_tt` with certainty, the loss is 0. If eight windows
# say nothing, each string has the probability $27^{-8}$, and we get the number of strings that read as "cat" in eight
# windows. And the loss must be equal to that of torch.

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
# The intersection for "at" in four windows, with random energies. Each arc is drawn as strongly as its share of all
# paths. These shares are the gradient of the forward score.

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
# The same graphs give the best path if we replace the sum by the maximum: `gtn.viterbi_path` returns a graph with the
# labels along this path. To align the path with the word we need *positions*: 0 is the blank before the first letter, 1
# the first letter, 2 the blank after it, and so on. A label alone does not determine its position, because a letter can
# occur several times in a word.
#
# **6d** Write `viterbi`.


# %% nbgrader={"grade_id": "viterbi", "solution": true}
def viterbi(energies, targets, input_lengths=None, blank_idx=BETWEEN):
    """The best path of every word through its CTC graph.

    energies: (B, L, C), low = likely; targets: B lists of plain letters
    input_lengths: (B,) true numbers of windows, or None if all L count; they are enough for every target
    returns: the energies of the best paths, a tensor (B,), and B lists with the position of each of the word's windows
        in the blanked target _c_a_t_: 0 is the first blank, 2k + 1 is letter k
    """
    ### BEGIN SOLUTION 6d
    # TODO Return energies and positions of the best paths: gtn finds the path of *largest* weight.
    # A label does not determine its position, because a letter may occur twice. But along a path, the position follows
    # from the previous label: a new blank is at the next position, a new letter at the next position of a letter.
    batch, windows, classes = energies.shape
    counts = [windows] * batch if input_lengths is None else [int(length) for length in input_lengths]
    least, paths = [], []
    for row, target, count in zip(energies.detach(), targets, counts, strict=True):  # row: (L, C)
        emissions = gtn.linear_graph(count, classes, False)
        emissions.set_weights(-row[:count])
        best = gtn.viterbi_path(gtn.intersect(emissions, create_ctc_graph(target, blank_idx)))
        least.append(-sum(best.weights_to_list()))
        position, before, path = 0, blank_idx, []
        for label in best.labels_to_list():
            if label != before:
                position += 1 if blank_idx in (label, before) else 2
            path.append(position)
            before = label
        paths.append(path)
    return energies.new_tensor(least), paths
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-6d", "grade": true, "locked": true}
check_part("6d")

# %% [markdown]
# All paths and the best one: the shares $\gamma_i(k)$ for "hello" are the negative gradient of the loss, and the dots
# mark the best path. With the network that knows single letters, the blank has a large share where the word requires
# one, between the two l, and little elsewhere.


# %%
def shares_figure(model, text, title):
    """The share of the CTC paths that have label k in window i, and the best path as dots."""
    image, target = drawing.draw_text(text), [SYMBOLS.index(letter) for letter in text]
    energies = energies_of(model, image)  # (L, 27)
    log_probs = (-energies).log_softmax(1)[None].requires_grad_()  # (1, L, 27)
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
# **6e** Write `train_gtn_model`. It gets batches like those of part 5, and the given function `ctc_loss` with its
# default reduction "mean". Call the criterion with three arguments.


# %% nbgrader={"grade_id": "train-gtn", "solution": true}
def train_gtn_model(model, num_epochs, train_loader, criterion, optimizer):
    """Train on words with the CTC loss.

    train_loader: yields `Batch`es (images, widths, letters, lengths, texts), padded to common sizes
    criterion: criterion(log_probs, targets, input_lengths) is the mean loss of the words; here `ctc_loss`
    returns: the mean loss per word of each epoch, a list of `num_epochs` floats
    """
    ### BEGIN SOLUTION 6e
    # TODO Take one optimizer step per batch, on the loss of the criterion, without clipping the gradients.
    # Put the model into training mode first. The log-probabilities of a window are the log_softmax of its -energies.
    # The targets are lists with the plain letters of each word, without padding. Compute the true numbers of windows
    # from the widths.
    model.train()
    losses = []
    for _ in range(num_epochs):
        total, count = 0.0, 0
        for images, widths, letters, lengths, _ in train_loader:
            log_probs = (-model(images.unsqueeze(1))).log_softmax(dim=2)  # (B, L, 27)
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
# **6f** (2 points) Compare training along the best path (part 5) with CTC. (i) Write down the gradients of both losses
# with respect to $E_i[k]$. When do they agree? (ii) What does each method do early in training, when two alignments
# have nearly the same energy? (iii) Show that the CTC loss of a word is at most the sum of the cross-entropies along
# any alignment that reads as the word.

# %% [markdown] nbgrader={"grade_id": "answer-6f", "grade": true, "solution": true, "points": 2}
# (i) Viterbi: $[k = y_{z^*_i}] - p_i(k)$, for the sum over the windows. CTC: $\gamma_i(k) - p_i(k)$. They agree if one
# alignment has nearly all of the probability of the word, so that $\gamma$ is 0 or 1. This is the case late in
# training. (ii) Viterbi chooses one of the two, by chance, and gives it the full weight. The step makes it more likely
# that the same one is chosen again, so a wrong choice may be reinforced for a long time. CTC divides its gradient
# between both according to their probabilities, and the many other words decide. (iii) $p(y\mid x)$ is a sum of
# non-negative terms, one of which is the probability $\prod_i p_i(\pi_i)$ of the labels of this alignment. So it is at
# least as large as this term, and $-\log p(y\mid x)$ is at most $-\sum_i\log p_i(\pi_i)$.
#
# ### BEGIN MARK SCHEME
# 1 point: (i), both gradients (½) and when they agree (½). ½ point: (ii). ½ point: (iii).
# ### END MARK SCHEME

# %% [markdown]
# ## 7 Training from scratch
#
# Is the training on single letters needed? Here both methods start from random weights. They use the same words as
# before, for a few more epochs.

# %%
with once_written():
    for name, train, criterion in (("Viterbi", train_ebm_model, cross_entropy), ("CTC", train_gtn_model, ctc_loss)):
        torch.manual_seed(0)
        model, words = SimpleNet(), word_loader(SimpleWordsDataset, 4)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        LOSSES[f"{name} from scratch"] = train(model, sized(12, 2), words, criterion, optimizer)
        MODELS[f"{name} from scratch"] = model
        display(plot_losses(name, f"{name} from scratch"))
        print("hello:", signs(energies_of(model, drawing.draw_text("hello")).argmin(dim=1)))

# %% [markdown]
# **7a** (1 point) Why does this work at all, without a single image whose letters are labelled one by one? If *all*
# words have six letters, the network soon predicts `BETWEEN` for every window, and the loss stays on a plateau for many
# epochs, even longer with CTC than with Viterbi. Why does this happen? What changes if there are words of one letter?

# %% [markdown] nbgrader={"grade_id": "answer-7a", "grade": true, "solution": true, "points": 1}
# The words constrain one another: a letter occurs in many words, at different places and next to different neighbours,
# and only the correct labels of the windows suit all of them. But at first, all alignments of a long word are about
# equally good. The blank occurs in every word and makes up about half of the targets, while each letter makes up few of
# them. Averaged over the words, the blank is therefore the best answer for every window, and this is what the first
# steps teach. From then on the best alignments are those with blanks nearly everywhere, whatever the windows show, and
# the share of each letter is small and arbitrary. An image of one letter has one window and thus one alignment: it is a
# labelled letter. Once a few letters are known, the alignments of short words follow, and from these the others.
#
# ### BEGIN MARK SCHEME
# ½ point: the same letters occur in many words, and only consistent labels survive. ½ point: the blank is the most
# frequent target of all words, and short words have few alignments (one letter: a single one).
# ### END MARK SCHEME

# %% [markdown]
# ## 8 Other fonts
#
# `CustomWordsDataset` draws each word in one of several fonts. Here it uses two that look like handwriting; one of them
# consists of capitals. The network was trained on another font. What does it read?

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
# The same network after further training, on handwriting only:

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
# **8a** (1 point) Look at the energies of the handwritten word before and after this training. What is different? Is
# the network uncertain when it is wrong? What do you expect for printed words now, and what would you train on if the
# network had to read both? (The numbers are in part 9.)

# %% [markdown] nbgrader={"grade_id": "answer-8a", "grade": true, "solution": true, "points": 1}
# The network has learned the shapes of one font and judges new shapes by these. This is a *domain shift*. Its energies
# in windows of handwriting are as far apart as in print, often with a clear minimum at a wrong class: it is wrong but
# certain, because nothing in its training showed it shapes other than letters of this font. After training on
# handwriting, the minimum follows the letters. Print is now read worse than before, because no training word was
# printed any more. To read both, train on a mixture of both; with many fonts in the mixture, unseen fonts are read
# better, too.
#
# ### BEGIN MARK SCHEME
# ½ point: domain shift, confident mistakes. ½ point: print gets worse (forgetting), train on a mixture.
# ### END MARK SCHEME

# %% [markdown]
# ## 9 Reading
#
# To read an unknown word, take the class of least energy in each window, merge equal neighbours, and then drop the
# blanks. The order matters: from h e l `_` l o we have to get both l, so the blank must still be there when neighbours
# are merged. A letter that appears in several neighbouring windows is one letter, and *two* different letters may be
# next to each other without a blank.
#
# **9a** Write `indices_to_str`.


# %% nbgrader={"grade_id": "indices-to-str", "solution": true}
def indices_to_str(indices):
    """The text of a sequence of window labels (a list or a tensor of ints): "hh_eel_l_oo_" is read as "hello".

    Equal neighbours are one letter, then blanks are dropped. The text of labels without letters is empty.
    """
    ### BEGIN SOLUTION 9a
    # TODO Merge equal neighbours, then drop BETWEEN, and join the letters without a separator.
    # Keep this order, so that h e l _ l o keeps both l.
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
# How many new words of one to eight letters are read correctly? No network was trained on words of more than three
# letters.


# %%
def word_accuracy(model, dataset):
    """The fraction of words that are read correctly."""
    found, texts = window_labels(model, dataset)
    return sum(indices_to_str(labels) == text for labels, text in zip(found, texts, strict=True)) / len(texts)


NAMES = ("letters", "Viterbi", "CTC", "Viterbi from scratch", "CTC from scratch", "handwriting")
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
# Now words of three letters under other conditions: without jitter, with noise (which occurred in no training), and in
# handwriting. What would you change so that words with noise are read, too?

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
# Restart the kernel, run all cells once more, and save the notebook. Then run `ebmcourse check` in a terminal: it
# repeats the public checks of all exercises on the saved notebook. Hand in this notebook.
#
# ## References
#
# * Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document recognition*, Proc. IEEE
#   1998: graph transformer networks.
# * Y. LeCun, S. Chopra, R. Hadsell, M. Ranzato, F. Huang, *A tutorial on energy-based learning*, 2006.
# * A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, *Connectionist temporal classification*, ICML 2006.
# * A. Hannun, V. Pratap, J. Kahn, W.-N. Hsu, *Differentiable weighted finite-state transducers*, 2020: gtn.
