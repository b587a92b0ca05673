# %% [markdown]
# # Reading words: structured prediction with energies
#
# A network that names single letters is easily trained. A *word* is harder: nobody says where in the image each of
# its letters is. In this assignment you train a network that looks at an image through small windows, find out by
# yourself which window belongs to which letter, and read words of any length.
#
# **How to work.** Everything is in this notebook. In each part you write what the `TODO`s ask for, look at a figure of
# your code at work, and run a cell `check_part("…")` with the public checks of that part. More checks run when your
# work is graded, on other inputs.
#
# | part | what to write |
# |---|---|
# | 1 | the network that sees an image through windows |
# | 2 | training on single letters |
# | 3 | energies of windows and targets as a matrix |
# | 4 | the energy of a path, and the best path |
# | 5 | training on words, along the best path |
# | 6 | connectionist temporal classification, with graphs |
# | 7 | training from nothing |
# | 8 | other fonts |
# | 9 | from labels to text: reading |

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

# %% nbgrader={"grade_id": "tools", "locked": true}
SYMBOLS = ascii_lowercase + "_"  # of the 27 classes


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
def window_labels(model, dataset):
    """The class of least energy in every window of every word: a list of lists, and the list of the texts."""
    model.eval()
    batch = collate_fn(list(dataset))
    labels = model(batch.images.unsqueeze(1)).argmin(dim=2).tolist()
    counts = window_counts(batch.widths).tolist()
    return [row[:count] for row, count in zip(labels, counts, strict=True)], batch.texts


def signs(labels):
    """Classes as a string, one sign a window: [7, 7, 26, 8] -> "hh_i"."""
    return "".join(SYMBOLS[label] for label in labels)


def plot_energies(energies, image=None):
    """Energies (L, 27), one column per window and one row per class, and the image (32, W) above them."""
    figure = Figure(figsize=(9, 5.4 if image is not None else 4.4), layout="constrained")
    ratios = [1, 5] if image is not None else [1]
    *above, axes = figure.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    if image is not None:
        above[0].imshow(image, cmap="gray", aspect="auto")
        above[0].set_axis_off()
    drawn = axes.imshow(torch.as_tensor(energies).T, aspect="auto", cmap="viridis", interpolation="nearest")
    axes.set_yticks(range(ALPHABET_SIZE), SYMBOLS, fontsize=7)
    axes.set(xlabel="window", ylabel="class")
    figure.colorbar(drawn, ax=axes, label="energy (dark = low = likely)")
    return figure


def plot_pm(pm, path=None, targets="", title="", axes=None):
    """A matrix (L, T), one column per window and one row per target, and a path of points (i, j) on it."""
    figure = Figure(figsize=(9, 0.22 * pm.shape[1] + 1.4), layout="constrained") if axes is None else axes.figure
    axes = figure.subplots() if axes is None else axes
    drawn = axes.imshow(torch.as_tensor(pm).T, aspect="auto", cmap="viridis", interpolation="nearest")
    if path is not None:
        axes.plot(*zip(*path, strict=True), color=plots.COLOURS[1], marker=".", linewidth=1.5)
    if targets:
        axes.set_yticks(range(len(targets)), targets, fontsize=7)
    axes.set(xlabel="window", ylabel="target", title=title)
    figure.colorbar(drawn, ax=axes, label="energy")
    return figure


def plot_losses(**losses):
    """The mean loss of every epoch, one line for each training."""
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(losses.items(), plots.COLOURS, strict=False):
        axes.plot(range(1, len(values) + 1), values, color=colour, marker=".", label=name)
    plots.clean(axes, xlabel="epoch", ylabel="mean loss")
    axes.legend(frameon=False)
    return figure


def show_graph(graph, **options):
    """Draw a graph whose labels are classes."""
    names = dict(enumerate(SYMBOLS))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "graph.png"
        gtn.draw(graph, file, names, names, **options)
        display(Image(file.read_bytes()))


# %% [markdown]
# The notebook runs from top to bottom in a few minutes. With `EBM_PRESET=small` in the environment it trains on far
# less, to see whether everything works.

# %%
SMALL = os.environ.get("EBM_PRESET") == "small" or "NBGRADER_EXECUTION" in os.environ


def sized(full, small):
    """A number for the full notebook, or for a quick run of it."""
    return small if SMALL else full


# %% [markdown]
# ## 1 The data and the network
#
# **1a** Write `SimpleNet`.


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


# %%
with once_written():
    torch.manual_seed(0)
    image = SimpleWordsDataset(5).draw_text("hello")
    with torch.no_grad():
        energies = SimpleNet()(image[None, None])
    print(f"an image of width {image.shape[1]} has {energies.shape[1]} windows: energies {tuple(energies.shape)}")
    display(plot_energies(energies[0], image))

# %% nbgrader={"grade_id": "test-1a", "grade": true, "locked": true}
check_part("1a")

# %% [markdown]
# ## 2 Training on single letters
#
# **2a** Write `train_model`.


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
    letters = SimpleWordsDataset(1, len=sized(1000, 500), jitter=True, seed=1)
    loader = DataLoader(letters, batch_size=16, collate_fn=simple_collate_fn)
    pretrained = SimpleNet()
    optimizer = torch.optim.Adam(pretrained.parameters(), lr=1e-3)
    losses = train_model(pretrained, sized(15, 4), loader, cross_entropy, optimizer)
    display(plot_losses(letters=losses))
    print("accuracy on new letters:", get_accuracy(pretrained, SimpleWordsDataset(1, len=500, seed=2)))
    print("with jitter:            ", get_accuracy(pretrained, SimpleWordsDataset(1, len=500, jitter=True, seed=3)))

# %% nbgrader={"grade_id": "test-2a", "grade": true, "locked": true}
check_part("2a")

# %% [markdown]
# **2b** (1 point) How does the energy of the class `BETWEEN` come about in this training, although no image shows it?
# What does the network say in windows between two letters, and why?

# %% [markdown] nbgrader={"grade_id": "answer-2b", "grade": true, "solution": true, "points": 1}
# It appears in the partition sum of every window: the loss raises it whenever another class is right. So the network
# never answers `BETWEEN`, and calls a gap some letter.
#
# ### BEGIN MARK SCHEME
# ½ point: raised everywhere, through log Z. ½ point: a gap is called a letter.
# ### END MARK SCHEME

# %% [markdown]
# ## 3 Windows and targets
#
# **3a** Write `build_path_matrix`.


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
# **3b** Write `build_ce_matrix`.


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


# %% nbgrader={"grade_id": "test-3b", "grade": true, "locked": true}
check_part("3b")

# %% [markdown]
# **3c** Write `transform_word`.


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


# %% nbgrader={"grade_id": "test-3c", "grade": true, "locked": true}
check_part("3c")

# %% [markdown]
# ## 4 Paths
#
# **4a** Write `path_energy`.


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


# %% nbgrader={"grade_id": "test-4a", "grade": true, "locked": true}
check_part("4a")

# %% [markdown]
# **4b** Write `find_path`.


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
# A word may begin a little to the right of the image's edge, and its last letter may end at the right edge. So the
# path of a word may begin with a blank or with its first letter, and end with a blank or with its last letter. The
# next cell tries what has room, with your `find_path`.


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


# %% [markdown]
# ## 5 Training on words
#
# **5a** Write `train_ebm_model`.


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


# %%
with once_written():
    torch.manual_seed(0)
    words = SimpleWordsDataset(2, len=sized(2500, 320), seed=4)
    loader = DataLoader(words, batch_size=32, collate_fn=collate_fn)
    ebm_model = copy.deepcopy(pretrained)
    optimizer = torch.optim.Adam(ebm_model.parameters(), lr=1e-3)
    ebm_losses = train_ebm_model(ebm_model, sized(15, 3), loader, cross_entropy, optimizer)
    display(plot_losses(words=ebm_losses))

# %% nbgrader={"grade_id": "test-5a", "grade": true, "locked": true}
check_part("5a")

# %% [markdown]
# ## 6 Connectionist temporal classification
#
# **6a** Write `create_ctc_graph`.


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


# %% nbgrader={"grade_id": "test-6a", "grade": true, "locked": true}
check_part("6a")

# %% [markdown]
# **6b** Write `CTCLossFunction.forward`. **6c** Write `backward`.


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


# %% nbgrader={"grade_id": "test-6b", "grade": true, "locked": true}
check_part("6b")

# %% nbgrader={"grade_id": "test-6c", "grade": true, "locked": true}
check_part("6c")

# %% [markdown]
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
# **6e** Write `train_gtn_model`.


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
    words = SimpleWordsDataset(3, len=sized(2500, 320), seed=5)
    loader = DataLoader(words, batch_size=32, collate_fn=collate_fn)
    gtn_model = copy.deepcopy(pretrained)
    optimizer = torch.optim.Adam(gtn_model.parameters(), lr=1e-3)
    gtn_losses = train_gtn_model(gtn_model, sized(15, 3), loader, ctc_loss, optimizer)
    display(plot_losses(words=gtn_losses))

# %% nbgrader={"grade_id": "test-6e", "grade": true, "locked": true}
check_part("6e")

# %% [markdown]
# ## 7 Training from nothing
#
# **7a** (1 point) Compare the two curves.

# %%
with once_written():
    torch.manual_seed(0)
    scratch_model = SimpleNet()
    optimizer = torch.optim.Adam(scratch_model.parameters(), lr=1e-3)
    scratch_losses = train_gtn_model(scratch_model, sized(20, 3), loader, ctc_loss, optimizer)
    display(plot_losses(pretrained=gtn_losses, scratch=scratch_losses))

# %% [markdown] nbgrader={"grade_id": "answer-7a", "grade": true, "solution": true, "points": 1}
# Without pretraining the loss first stays at a plateau, where the network says blank everywhere.
#
# ### BEGIN MARK SCHEME
# ½ point: the plateau. ½ point: why.
# ### END MARK SCHEME

# %% [markdown]
# ## 8 Other fonts
#
# **8a** (1 point) What happens with handwriting?

# %%
with once_written():
    torch.manual_seed(0)
    handwriting = CustomWordsDataset(3, len=sized(2500, 320), seed=6)
    loader = DataLoader(handwriting, batch_size=32, collate_fn=collate_fn)
    hand_model = copy.deepcopy(gtn_model)
    optimizer = torch.optim.Adam(hand_model.parameters(), lr=1e-3)
    hand_losses = train_gtn_model(hand_model, sized(20, 3), loader, ctc_loss, optimizer)
    display(plot_losses(handwriting=hand_losses))

# %% [markdown] nbgrader={"grade_id": "answer-8a", "grade": true, "solution": true, "points": 1}
# The network has learnt the shapes of one font.
#
# ### BEGIN MARK SCHEME
# 1 point: domain shift.
# ### END MARK SCHEME

# %% [markdown]
# ## 9 Reading
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


# %%
with once_written():
    for text in ("hello", "words", "energy"):
        example = [(SimpleWordsDataset(1).draw_text(text), text)]
        for name, model in {"EBM": ebm_model, "CTC": gtn_model}.items():
            [labels], _ = window_labels(model, example)
            print(f"{text:8} {name:4} {signs(labels):26} {indices_to_str(labels)}")

# %% nbgrader={"grade_id": "test-9a", "grade": true, "locked": true}
check_part("9a")
