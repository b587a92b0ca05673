# %% [markdown]
# # Graphs, losses and free energies
#
# An energy-based model gives every answer an energy, low where the answer fits the input. This assignment is about what
# follows from that: which losses make the energies useful, how sums and minima over exponentially many answers are
# computed on graphs, and how gradients flow through such programs.
#
# **How to work.** Everything is in this notebook. In each part, write what the `TODO`s ask for. The cell below your
# code shows it at work, and you may change it as you like. The cell `check_part("…")` runs the public checks of the
# exercise on your functions as they are currently defined. Grading runs further, hidden checks with other inputs.
#
# | part | what to write |
# |---|---|
# | 1 | the losses of energy-based learning |
# | 2 | Viterbi and the forward algorithm on a graph |
# | 3 | composition with a lexicon and a grammar |
# | 4 | a check reader, trained through its graphs |
# | 5 | backpropagation from Lagrange multipliers |
# | 6 | neural differential equations and the adjoint |
# | 7 | the variational free energy |
#
# The training cells take a few minutes on a laptop. Grading does not run them: it calls your functions.
#
# The assignment follows a lecture by Y. LeCun on graphical energy-based methods. Where its published notes contain an
# error in a formula, the text gives the right one and says so.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %matplotlib inline
import copy
import math
import os
from itertools import groupby, pairwise
from pathlib import Path
from string import ascii_lowercase as LETTERS
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from IPython.display import Image, display
from matplotlib.figure import Figure
from torch import Tensor, nn

from ebmcourse import gtn, plots
from ebmcourse.checking.notebook import check_part, once_written
from ebmcourse.data import amounts

# %% [markdown]
# The next cell is given. It contains figures and small helpers.


# %% nbgrader={"grade_id": "tools", "locked": true}
class Ingredients(NamedTuple):
    """What the losses of part 1 are made of: tensors of shape ()."""

    answer: Tensor  # energy of the right answer
    best: Tensor  # least energy of all answers
    wrong: Tensor  # energy of the most offending wrong answer
    free_answer: Tensor  # free energy of the right answer
    free_all: Tensor  # free energy of all answers, -1/β · log Z


class CountedArcs(list):
    """A list of arcs that counts how many of them a loop has read."""

    read = 0

    def __iter__(self):
        for arc in super().__iter__():
            self.read += 1
            yield arc


def ladder(steps):
    """The arcs of a graph with 2^steps paths: two parallel arcs for each step."""
    return [(step, step + 1) for step in range(steps) for _ in range(2)]


def as_graph(arcs, energies):
    """The graph of the engine with these arcs, all with label 0; its weights are energies."""
    graph = gtn.Graph()
    last = arcs[-1][1]
    for node in range(last + 1):
        graph.add_node(start=node == 0, accept=node == last)
    for (source, destination), energy in zip(arcs, energies.tolist(), strict=True):
        graph.add_arc(source, destination, 0, 0, energy)
    return graph


def spelled(labels):
    """Labels as text: 0 is the blank `_`, then come a, b, c, …"""
    return "".join("_abcdefghijklmnopqrstuvwxyz"[label] for label in labels)


def letters_of(word):
    """The labels of a word: 0 for a, 1 for b, …"""
    return [ord(letter) - ord("a") for letter in word]


def word_of(labels):
    """The word of a list of labels, the inverse of `letters_of`."""
    return "".join(chr(ord("a") + label) for label in labels)


def digit_network():
    """Energies of the ten digits for crops (S, 8, 8): a small network (S, 10)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))


def single_digits(split):
    """All digits of one part, each centred: crops (N, 8, 8) and classes (N,)."""
    images, classes = amounts.digits(split)
    return torch.cat([amounts.crops(torch.from_numpy(image), [(0, 8)]) for image in images]), torch.from_numpy(classes)


def train_on_digits(net, epochs):
    """Train on single digits with the cross-entropy, which knows nothing of segments."""
    crops, classes = single_digits("train")
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(crops)).split(32):
            loss = nn.functional.cross_entropy(-net(crops[batch]), classes[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def graph_of(net, check):
    """The recognition graph of a check."""
    cuts = amounts.cut_hypotheses(check.image)
    pairs = segments(cuts, amounts.NARROWEST, amounts.WIDEST)
    crops = amounts.crops(check.image, [(cuts[i], cuts[j]) for i, j in pairs])
    return recognition_graph(len(cuts), pairs, net(crops))


def train_reader(net, checks, grammar, epochs):
    """Train on whole checks; returns the mean loss of each epoch. The last third has a smaller learning rate."""
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    net.train()
    means = []
    for epoch in range(epochs):
        total = 0.0
        if epoch == epochs * 2 // 3:
            optimizer.param_groups[0]["lr"] /= 4
        for batch in torch.randperm(len(checks)).split(8):
            losses = [amount_loss(graph_of(net, checks[i]), checks[i].digits, grammar) for i in batch.tolist()]
            loss = torch.stack(losses).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(losses)
        means.append(total / len(checks))
    return means


@torch.no_grad()
def share_read(net, checks, grammar):
    """The share of amounts that are read exactly."""
    net.eval()
    return sum(read_amount(graph_of(net, check), grammar) == check.digits for check in checks) / len(checks)


@torch.no_grad()
def share_read_with_fixed_cuts(net, checks):
    """The share of amounts that are read exactly with one way to cut and no grammar."""
    net.eval()
    right = 0
    for check in checks:
        cuts = amounts.fixed_cuts(check.image)
        right += net(amounts.crops(check.image, list(pairwise(cuts)))).argmin(1).tolist() == check.digits
    return right / len(checks)


@torch.no_grad()
def digit_accuracy(net):
    """The share of single digits, held out, that are recognised."""
    net.eval()
    crops, classes = single_digits("test")
    return (net(crops).argmin(1) == classes).float().mean().item()


def plot_reading(net, check, grammar, title):
    """A check and its segments: the wider an arc, the more of the probability of all amounts passes through it."""
    net.eval()
    cuts = amounts.cut_hypotheses(check.image)
    pairs = segments(cuts, amounts.NARROWEST, amounts.WIDEST)
    crops = amounts.crops(check.image, [(cuts[i], cuts[j]) for i, j in pairs])
    energies = net(crops).detach().requires_grad_()
    score = gtn.forward_score(gtn.compose(recognition_graph(len(cuts), pairs, energies), grammar)).weights_to_torch()
    shares_of = -torch.autograd.grad(score.sum(), energies)[0]  # (S, 10)
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    width = check.image.shape[1]
    axes.imshow(check.image, cmap="gray", extent=(0, width, 8, 0), interpolation="nearest")
    for (i, j), row in zip(pairs, shares_of, strict=True):
        share = row.sum().item()
        if share > 0.02:
            x = torch.linspace(0, 1, 20)
            height = -0.35 * (cuts[j] - cuts[i]) * 4 * x * (1 - x)
            colour = plots.COLOURS[int(row.argmax()) % len(plots.COLOURS)]
            axes.plot(cuts[i] + (cuts[j] - cuts[i]) * x, height, color=colour, linewidth=4 * share + 0.3)
            middle = (cuts[i] + cuts[j]) / 2
            axes.text(middle, height.min() - 0.1, int(row.argmax()), ha="center", alpha=min(1, 0.3 + share), fontsize=9)
    axes.set(xlim=(0, width), ylim=(8, -5), yticks=[], title=title, aspect="auto")
    return figure


def run_network(weights, biases, x):
    """The states z_0 = x, z_(k+1) = tanh(W_k z_k + b_k) of a network, a list of n + 1 vectors."""
    states = [x]
    for weight, bias in zip(weights, biases, strict=True):
        states.append(torch.tanh(weight @ states[-1] + bias))
    return states


class SavedBytes:
    """Measures the memory that autograd keeps: inside a `with` block, `peak` is the largest number of bytes."""

    def __enter__(self):
        self.now = self.peak = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)

    def _keep(self, tensor):
        self._count(tensor.numel() * tensor.element_size())
        return _Kept(tensor, self._count)

    def _count(self, size):
        self.now += size
        self.peak = max(self.peak, self.now)


class _Kept:
    """A tensor that autograd has saved; reports when it is released."""

    def __init__(self, tensor, count):
        self.tensor, self.count = tensor, count

    def __del__(self):
        self.count(-self.tensor.numel() * self.tensor.element_size())


def field(width=2, hidden=16):
    """A random vector field f(z) for states (…, width): a small network in float64."""
    return nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, width)).double()


@torch.no_grad()
def trajectory(f, start):
    """The states at 21 times from 0 to 1, (21, B, 2)."""
    states = [start]
    for _ in range(20):
        states.append(integrate(f, states[-1], 0.05, 1))
    return torch.stack(states)


def plot_trajectories(groups, goal):
    """One panel for each name: the paths (S, B, 2) of B points in the plane, and their goals (B, 2) as crosses."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    for axes, (name, states) in zip(
        figure.subplots(1, len(groups), sharex=True, sharey=True), groups.items(), strict=True
    ):
        for point in range(states.shape[1]):
            colour = plots.COLOURS[point]
            axes.plot(states[:, point, 0], states[:, point, 1], color=colour, marker=".", markersize=3)
            axes.plot(*goal[point], "x", color=colour, markersize=9)
        plots.clean(axes, title=name)
    return figure


def plot_lines(x, lines, xlabel, ylabel, **options):
    """One line for each entry of a dict that maps names to lists of values, drawn over x; options of the axes."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(lines.items()):
        style = ("-", "--")[number // len(plots.COLOURS) % 2]
        axes.plot(x, values, style, color=plots.COLOURS[number % len(plots.COLOURS)], label=name)
    plots.clean(axes, xlabel=xlabel, ylabel=ylabel)
    axes.set(**options)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def show_graph(graph, symbols="", emphasis=None, width=700):
    """Draw a graph; symbols: the character of label 0, 1, …; emphasis: how strongly to draw each arc, from 0 to 1."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "graph.png"
        gtn.draw(graph, file, dict(enumerate(symbols)), emphasis=emphasis)
        display(Image(file.read_bytes(), width=width))


# %% [markdown]
# If the environment variable `EBM_PRESET` is `small`, the notebook trains much less: long enough to see that everything
# runs, too short for good results.

# %%
# nbgrader runs the notebook only for its tested cells.
SMALL = os.environ.get("EBM_PRESET") == "small" or "NBGRADER_EXECUTION" in os.environ


def sized(full, small):
    """`full` for the whole notebook, `small` for a quick run."""
    return small if SMALL else full


# %% [markdown]
# ## 1 The loss zoo
#
# ### Sequence energies
#
# A network looks at $T$ frames and gives frame $t$ the energies $E_t[k]$ of $K$ labels. Label 0 is the blank, written
# as `_`. A *path* $\pi$ has one label per frame and the energy $\sum_t E_t[\pi_t]$. It spells a *string*: merge equal
# neighbours, then drop the blanks, so that `a_ab`, `aaab` and `_ab_` spell `aab`, `ab` and `ab`. Many paths spell the
# same string $Y$; the path is a latent variable. With $Y$ the right answer, all losses below need some of these
# numbers:
#
# | name | meaning | formula |
# |---|---|---|
# | `answer` | energy of the answer $Y$ | $E(Y) = \min_{\pi \text{ spells } Y} E(\pi)$ |
# | `best` | least energy of all answers | $\min_\pi E(\pi)$ |
# | `wrong` | energy of the most offending wrong answer | $E(\bar Y) = \min_{\pi \text{ does not spell } Y} E(\pi)$ |
# | `free_answer` | its free energy | $F_\beta(Y) = -\frac1\beta\log\sum_{\pi \text{ spells } Y} e^{-\beta E(\pi)}$ |
# | `free_all` | free energy of all answers | $-\frac1\beta\log Z = -\frac1\beta\log\sum_\pi e^{-\beta E(\pi)}$ |
#
# The most offending wrong answer is *not* the second-best path: that one usually spells the same string as the best.
#
# The graph engine computes all five. `gtn.linear_graph(T, K)` is the graph of all paths; `set_weights(energies)` gives
# its arcs their energies. `gtn.ctc_graph(answer)` is the graph of all paths that spell the answer, and
# `gtn.other_strings(answer, range(K))` that of all others. `gtn.intersect` keeps the paths that are in both graphs.
# `gtn.forward_score(graph, semiring)` is the minimum over the paths with the semiring `gtn.MinPlus()`, and the free
# energy with `gtn.Log(-beta)`. Its `weights_to_torch()` is a tensor with one number, through which gradients flow.
#
# **1a** Write `ingredients`.


# %% nbgrader={"grade_id": "ingredients", "solution": true}
def ingredients(energies, answer, beta=1.0):
    """The five numbers that the losses are made of.

    energies: (T, K), low = likely; label 0 is the blank
    answer: a list of labels from 1 to K - 1, not empty, that T frames can spell
    returns: `Ingredients`, whose items are tensors of shape () with gradients to `energies`
    """
    ### BEGIN SOLUTION 1a
    # TODO Return the five numbers as `Ingredients(answer, best, wrong, free_answer, free_all)`.
    # Make the graph of all paths once, and intersect it with that of the right and that of the wrong strings.
    frames = gtn.linear_graph(*energies.shape)
    frames.set_weights(energies)
    right = gtn.intersect(frames, gtn.ctc_graph(answer))
    others = gtn.intersect(frames, gtn.other_strings(answer, range(energies.shape[1])))
    scores = [
        gtn.forward_score(right, gtn.MinPlus()),
        gtn.forward_score(frames, gtn.MinPlus()),
        gtn.forward_score(others, gtn.MinPlus()),
        gtn.forward_score(right, gtn.Log(-beta)),
        gtn.forward_score(frames, gtn.Log(-beta)),
    ]
    return Ingredients(*(score.weights_to_torch().squeeze() for score in scores))
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-1a", "grade": true, "locked": true}
check_part("1a")

# %% [markdown]
# The five best paths of some energies, and what they spell:

# %%
with once_written():
    torch.manual_seed(0)
    energies = 2 + torch.rand(5, 4)
    energies[torch.arange(5), [1, 1, 0, 2, 2]] = 0.5 * torch.rand(5)
    energies[1, 0] = energies[1, 1] + 0.1
    frames = gtn.linear_graph(5, 4)
    frames.set_weights(-energies)
    paths = [path.labels_to_list() for path in gtn.nbest(frames, 5)]
    for path in paths:
        energy = sum(row[label].item() for row, label in zip(energies, path, strict=True))
        print(f"{spelled(path)} spells {spelled(gtn.collapse(path)):4} energy {energy:.3f}")
    parts = ingredients(energies, gtn.collapse(paths[0]))
    print(f"The energy of the answer is {parts.answer:.3f}, and of the most offending wrong answer {parts.wrong:.3f}.")

# %% [markdown]
# ### Ten losses
#
# A loss should be small where the energy of the right answer is lower than that of every wrong one. The *margin* says
# by how much it must be lower before the loss stops pushing.
#
# | loss | formula | margin |
# |---|---|---|
# | energy | $E(Y)$ | none |
# | perceptron | $E(Y) - \min_{Y'} E(Y')$ | 0 |
# | hinge | $\max(0,\ m + E(Y) - E(\bar Y))$ | $m$ |
# | log | $\log(1 + e^{E(Y) - E(\bar Y)})$ | > 0 |
# | LVQ2 | $\min(M,\ \max(0,\ E(Y) - E(\bar Y)))$ | 0 |
# | MCE | $1 / (1 + e^{-(E(Y) - E(\bar Y))})$ | > 0 |
# | square-square | $E(Y)^2 + \max(0,\ m - E(\bar Y))^2$ | $m$ |
# | square-exponential | $E(Y)^2 + \gamma e^{-E(\bar Y)}$ | > 0 |
# | NLL (MMI) | $F_\beta(Y) + \frac1\beta\log Z$ | > 0 |
# | MEE | $1 - e^{-\beta F_\beta(Y)} / Z$ | > 0 |
#
# The lecture notes print square-square with a minus between its terms. That loss would reward a *low* energy of the
# wrong answer; the two terms are added. The notes also write $E(Y)$ in NLL and MEE. With a latent path, the
# probability of an answer is the sum over its paths, so its free energy is used here.
#
# **1b** Write the eight losses that compare with one wrong answer. Exponentials of large energies overflow in a plain
# formula: torch has functions for the log and the MCE loss that do not.


# %% nbgrader={"grade_id": "margin-losses", "solution": true}
def energy_loss(parts):
    """The energy of the answer; parts: `Ingredients`, as for all losses -> a tensor of shape ()."""
    ### BEGIN SOLUTION 1b
    # TODO Return the energy loss.
    return parts.answer
    ### END SOLUTION


def perceptron_loss(parts):
    ### BEGIN SOLUTION 1b
    # TODO Return the perceptron loss.
    return parts.answer - parts.best
    ### END SOLUTION


def hinge_loss(parts, margin=1.0):
    ### BEGIN SOLUTION 1b
    # TODO Return the hinge loss.
    return torch.relu(margin + parts.answer - parts.wrong)
    ### END SOLUTION


def log_loss(parts):
    ### BEGIN SOLUTION 1b
    # TODO Return the log loss.
    return nn.functional.softplus(parts.answer - parts.wrong)
    ### END SOLUTION


def lvq2_loss(parts, cap=2.0):
    """cap: M, the largest value of the loss"""
    ### BEGIN SOLUTION 1b
    # TODO Return the LVQ2 loss.
    return (parts.answer - parts.wrong).clamp(0, cap)
    ### END SOLUTION


def mce_loss(parts):
    ### BEGIN SOLUTION 1b
    # TODO Return the minimum classification error loss.
    return torch.sigmoid(parts.answer - parts.wrong)
    ### END SOLUTION


def square_square_loss(parts, margin=1.0):
    ### BEGIN SOLUTION 1b
    # TODO Return the square-square loss.
    return parts.answer**2 + torch.relu(margin - parts.wrong) ** 2
    ### END SOLUTION


def square_exponential_loss(parts, gamma=1.0):
    ### BEGIN SOLUTION 1b
    # TODO Return the square-exponential loss.
    return parts.answer**2 + gamma * torch.exp(-parts.wrong)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-1b", "grade": true, "locked": true}
check_part("1b")

# %% [markdown]
# **1c** Write the two losses that compare with all answers at once. Both free energies may be in the hundreds.


# %% nbgrader={"grade_id": "probability-losses", "solution": true}
def nll_loss(parts):
    """The negative log-likelihood, divided by β."""
    ### BEGIN SOLUTION 1c
    # TODO Return the NLL loss.
    return parts.free_answer - parts.free_all
    ### END SOLUTION


def mee_loss(parts, beta=1.0):
    """The minimum empirical error loss: one minus the probability of the answer."""
    ### BEGIN SOLUTION 1c
    # TODO Return the MEE loss.
    return -torch.expm1(-beta * (parts.free_answer - parts.free_all))
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-1c", "grade": true, "locked": true}
check_part("1c")

# %% [markdown]
# ### What the losses do
#
# A small network sees five noisy frames of a string of two letters. Its energies are never negative. Each loss trains
# the same network from the same start on a few strings. The table has means over these strings after training: the
# energy of the answer, the margin $E(\bar Y) - E(Y)$, and the share of strings that are read correctly.

# %%
LOSSES = {
    "energy": energy_loss,
    "perceptron": perceptron_loss,
    "hinge": hinge_loss,
    "log": log_loss,
    "LVQ2": lvq2_loss,
    "MCE": mce_loss,
    "square-square": square_square_loss,
    "square-exponential": square_exponential_loss,
    "NLL": nll_loss,
    "MEE": mee_loss,
}


def noisy_strings(count, seed):
    """Pairs of frames (5, 4) and answers: noisy one-hot frames of two letters with a blank between them."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(count):
        first, second = torch.randint(1, 4, (2,), generator=generator).tolist()
        labels = torch.tensor([first, first, 0, second, second])
        noise = 0.3 * torch.randn(5, 4, generator=generator)
        pairs.append((nn.functional.one_hot(labels, 4) + noise, [first, second]))
    return pairs


def train_with(loss, pairs, steps):
    """Train one network with this loss: the means over the strings of energy, margin and right answers, per step."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4), nn.Softplus())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    history = []
    for _ in range(steps):
        parts = [ingredients(net(frames), answer) for frames, answer in pairs]
        energies = torch.stack([item.answer for item in parts]).detach()
        margins = torch.stack([item.wrong for item in parts]).detach() - energies
        history.append([energies.mean().item(), margins.mean().item(), (margins > 0).float().mean().item()])
        optimizer.zero_grad()
        torch.stack([loss(item) for item in parts]).mean().backward()
        optimizer.step()
    return history


with once_written():
    pairs = noisy_strings(8, seed=0)
    STEPS = sized(200, 15)
    histories = {name: train_with(loss, pairs, STEPS) for name, loss in LOSSES.items()}
    print(f"{'loss':20}{'energy':>9}{'margin':>9}{'right':>7}")
    for name, history in histories.items():
        energy, margin, right = history[-1]
        print(f"{name:20}{energy:9.3f}{margin:9.3f}{right:7.2f}")
    shown = ("energy", "hinge", "NLL")
    for column, label in enumerate(("energy of the answer", "margin")):
        lines = {name: [row[column] for row in histories[name]] for name in shown}
        display(plot_lines(range(STEPS), lines, "step", label))
    margins = {name: [row[1] for row in history] for name, history in histories.items()}
    display(plot_lines(range(STEPS), margins, "step", "margin"))

# %% [markdown]
# **1d** (2 points) The energy loss makes the energy of the right answers lower than any other loss does. (i) What has
# happened to the energies of all *other* answers, and why does hinge prevent it? (ii) The perceptron loss has the
# margin 0. For which energies is it zero although the network has learned nothing? (iii) The hinge loss stops at its
# margin. What does NLL do, and when is that a disadvantage?

# %% [markdown] nbgrader={"grade_id": "answer-1d", "grade": true, "solution": true, "points": 2}
# (i) They fall as well: the network gives every label of every frame nearly the same low energy, so the margin goes to
# zero. The model has collapsed. Nothing in the energy loss raises a wrong answer. Hinge raises the most offending one
# until it is higher by $m$. (ii) Where all energies are equal, the minimum equals the energy of the answer. (iii) NLL
# keeps increasing the difference to all wrong answers, with smaller and smaller gradients. This costs capacity, and
# makes the network certain of noisy or wrong training answers.
#
# ### BEGIN MARK SCHEME
# 1 point: (i), collapse (½), what hinge pushes up (½). ½ point: (ii). ½ point: (iii).
# ### END MARK SCHEME

# %% [markdown]
# ## 2 Viterbi and the forward algorithm
#
# An *interpretation graph* has one path for each way to interpret an input. In this part you write its two algorithms
# yourself, without the graph engine. The nodes are $0, \dots, N - 1$. `arcs` is a list of pairs (source, destination),
# at least one, and `energies` is a tensor with the energy $e$ of each arc, in the same order. Every arc leads to a
# larger number, the list is sorted by destination, and every node can be reached. Paths lead from node 0 to node
# $N - 1$. With
# $E(z)$ the sum of the energies along path $z$,
#
# $$F = \min_z E(z), \qquad F_\beta = -\frac1\beta\log\sum_z e^{-\beta E(z)}.$$
#
# One pass over the arcs is enough for each, because what has been found for a node is used by all paths through it:
#
# $$\alpha_0 = 0, \qquad \alpha_i = \min_{(k, i)}\,(\alpha_k + e_{ki})
#   \quad\text{or}\quad \alpha_i = -\frac1\beta\log\sum_{(k, i)} e^{-\beta(\alpha_k + e_{ki})}.$$
#
# The lecture notes lose the factor $1/\beta$ in the second recursion. Without it, β would multiply the energies once
# for every arc of a path.
#
# **2a** Write `viterbi`.


# %% nbgrader={"grade_id": "viterbi", "solution": true}
def viterbi(arcs, energies):
    """The path of least energy; of several, any one.

    arcs: a list of A pairs (source, destination), sorted by destination; energies: (A,)
    returns: its energy, a tensor of shape (), and the numbers of its arcs in `arcs` from the first to the last, a list
    """
    ### BEGIN SOLUTION 2a
    # TODO Return the least energy and the numbers of the arcs on its path.
    # Keep, for each node, its energy and the arc by which the best path enters it; then go back from the last node.
    alphas, entered = [energies.new_zeros(())], [None]
    for number, (source, destination) in enumerate(arcs):
        candidate = alphas[source] + energies[number]
        if destination == len(alphas):
            alphas.append(candidate)
            entered.append(number)
        elif candidate < alphas[destination]:
            alphas[destination], entered[destination] = candidate, number
    path, node = [], len(alphas) - 1
    while node > 0:
        path.append(entered[node])
        node = arcs[path[-1]][0]
    return alphas[-1], path[::-1]
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-2a", "grade": true, "locked": true}
check_part("2a")

# %% [markdown]
# **2b** Write `forward`. It must not overflow, and gradients must flow through it.


# %% nbgrader={"grade_id": "forward", "solution": true}
def forward(arcs, energies, beta):
    """The free energy of all paths to each node: arcs and energies as for `viterbi`, β > 0 -> α, shape (N,)."""
    ### BEGIN SOLUTION 2b
    # TODO Return α for all nodes.
    # Collect the arcs that enter a node, and combine them with torch.logsumexp.
    alphas = [energies.new_zeros(())]
    for _, entering in groupby(enumerate(arcs), key=lambda item: item[1][1]):
        ways = torch.stack([alphas[source] + energies[number] for number, (source, _) in entering])
        alphas.append(-torch.logsumexp(-beta * ways, dim=0) / beta)
    return torch.stack(alphas)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-2b", "grade": true, "locked": true}
check_part("2b")

# %% [markdown]
# $F_\beta$ lies below the minimum, because many paths together are more likely than the best one, and approaches it as
# β → ∞. The engine computes the same numbers. The table shows how many arcs are read where the number of paths doubles
# with every step.

# %%
with once_written():
    torch.manual_seed(0)
    arcs, energies = ladder(4), torch.rand(8, dtype=torch.float64)
    engine = as_graph(arcs, energies)
    least, path = viterbi(arcs, energies)
    betas = [0.5, 1, 2, 5, 10, 20, 50, 100]
    values = [forward(arcs, energies, beta)[-1].item() for beta in betas]
    for beta, value in zip(betas, values, strict=True):
        print(f"β = {beta:5}  F = {value:7.4f}  engine {gtn.forward_score(engine, gtn.Log(-beta)).item():7.4f}")
    print(f"minimum        {least:7.4f}  engine {gtn.forward_score(engine, gtn.MinPlus()).item():7.4f}")
    lines = {"$F_\\beta$": values, "minimum": [least.item()] * len(betas)}
    display(plot_lines(betas, lines, "β", "energy", xscale="log"))
    for steps in (5, 20, 80):
        arcs = CountedArcs(ladder(steps))
        forward(arcs, torch.rand(len(arcs)), 1.0)
        print(f"{2**steps} paths, {len(arcs)} arcs, {arcs.read} arcs read")

# %% [markdown]
# **2c** The derivative of $F_\beta$ with respect to the energy of an arc is the share of the paths through this arc:
# the probability that a path drawn from the Gibbs distribution uses it. Write `shares`.


# %% nbgrader={"grade_id": "shares", "solution": true}
def shares(arcs, energies, beta):
    """The probability of each arc: arcs, energies and β as for `forward` -> (A,), without a gradient."""
    ### BEGIN SOLUTION 2c
    # TODO Return the gradient of the free energy of the last node, from `forward`.
    leaves = energies.detach().requires_grad_()
    return torch.autograd.grad(forward(arcs, leaves, beta)[-1], leaves)[0]
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-2c", "grade": true, "locked": true}
check_part("2c")

# %% [markdown]
# The shares in a graph, first at β = 1, then at β = 20, where nearly all of the probability is on the best path:

# %%
with once_written():
    arcs = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4)]
    energies = torch.tensor([0.4, 0.9, 0.3, 0.8, 0.2, 1.0, 0.5])
    for beta in (1, 20):
        found = shares(arcs, energies, beta).tolist()
        print(f"β = {beta}:", " ".join(f"{arc}: {share:.2f}" for arc, share in zip(arcs, found, strict=True)))
        show_graph(as_graph(arcs, energies), emphasis=found)

# %% [markdown]
# **2d** (1 point) Why do the shares of the arcs that enter the last node add up to 1? What is the gradient of the
# Viterbi energy, and what does this mean for training?

# %% [markdown] nbgrader={"grade_id": "answer-2d", "grade": true, "solution": true, "points": 1}
# Every path uses exactly one of these arcs, and the probabilities of all paths add up to 1. The gradient of the Viterbi
# energy is 1 on the best path and 0 elsewhere: training with it changes one path only, even where another one is nearly
# as good, while the forward algorithm divides the gradient among all paths.
#
# ### BEGIN MARK SCHEME
# ½ point: exactly one arc per path. ½ point: 0 and 1, and only one path is trained.
# ### END MARK SCHEME

# %% [markdown]
# ## 3 Composition
#
# A *recognition graph* has one step per letter position, with an arc for every letter and the energy that a network
# gives it. A *grammar* is a graph whose paths are the strings that may occur. The composition of the two is the
# *interpretation graph*: its paths are the strings that both contain, and energies add up. In this part, label 0 is a,
# label 1 is b, and so on. `gtn.viterbi_path` looks for the largest weight, so the weight of an arc is *minus* its
# energy.
#
# **3a** A *trie* is a grammar for a list of words: words with the same beginning share its nodes and arcs. Write
# `trie`. `gtn.Graph(False)` makes an empty graph without gradients, its `add_node(start, accept)` returns the
# number of a new node, and `add_arc(source, destination, label)` adds an arc of weight 0.


# %% nbgrader={"grade_id": "trie", "solution": true}
def trie(words):
    """The graph of the words, one path for each; words: lists of labels, none of them empty, perhaps repeated."""
    ### BEGIN SOLUTION 3a
    # TODO Return a graph with one node for each beginning of a word, the empty one included.
    # A node accepts where a word ends, even if a longer word goes on. Whether a node accepts is set when it is added.
    whole = {tuple(word) for word in words}
    graph = gtn.Graph(False)
    nodes = {(): graph.add_node(True, False)}
    for word in words:
        for end in range(1, len(word) + 1):
            beginning = tuple(word[:end])
            if beginning not in nodes:
                nodes[beginning] = graph.add_node(False, beginning in whole)
                graph.add_arc(nodes[beginning[:-1]], nodes[beginning], beginning[-1])
    return graph
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-3a", "grade": true, "locked": true}
check_part("3a")

# %%
with once_written():
    show_graph(trie([letters_of(word) for word in ("cat", "cats", "car", "cut", "at")]), LETTERS)

# %% [markdown]
# **3b** Write `interpretation_graph`.


# %% nbgrader={"grade_id": "interpretation-graph", "solution": true}
def interpretation_graph(energies, grammar):
    """The strings of a grammar with T letters; energies: (T, K), low = likely; grammar: a graph with weights -E.

    returns: a graph with weights -E, through which gradients flow to `energies`
    """
    ### BEGIN SOLUTION 3b
    # TODO Return the composition of the recognition graph with the grammar.
    # `gtn.linear_graph` makes the recognition graph. Mind the sign of its weights.
    recognition = gtn.linear_graph(*energies.shape)
    recognition.set_weights(-energies)
    return gtn.compose(recognition, grammar)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-3b", "grade": true, "locked": true}
check_part("3b")

# %% [markdown]
# The example of the lecture: the first step has the letter c at the energy 0.4 (and a at 1.2), the second has x, u and
# a. After c, the trie knows only u and a, so x is not in the interpretation graph. Its arcs show minus their energies.

# %%
with once_written():
    energies = torch.full((3, 26), float("inf"))
    for step, letters in enumerate(
        ({"c": 0.4, "a": 1.2}, {"x": 0.1, "u": 0.8, "a": 0.5}, {"t": 0.3, "r": 0.9, "p": 0.2})
    ):
        for letter, energy in letters.items():
            energies[step, letters_of(letter)] = energy
    show_graph(
        interpretation_graph(energies, trie([letters_of(word) for word in ("cat", "car", "cut", "cup")])), LETTERS
    )

# %% [markdown]
# **3c** A weighted grammar adds energies of its own. In a *bigram grammar*, the energy of a letter depends on the
# letter before it. Write `bigram_grammar`. An arc with an energy is `graph.add_arc(source, destination, label, label,
# -energy)`.


# %% nbgrader={"grade_id": "bigram-grammar", "solution": true}
def bigram_grammar(first, following):
    """The graph of all strings of one letter or more.

    first: (K,), the energy of each letter at the beginning
    following: (K, K), following[i, j] is the energy of letter j after letter i
    """
    ### BEGIN SOLUTION 3c
    # TODO Return a graph with a start node, and one node for each letter: "the last letter was this".
    # All nodes but the start accept. Weights are minus energies.
    graph = gtn.Graph(False)
    start = graph.add_node(True, False)
    letters = [graph.add_node(False, True) for _ in range(len(first))]
    for j, energy in enumerate(first.tolist()):
        graph.add_arc(start, letters[j], j, j, -energy)
    for i, row in enumerate(following.tolist()):
        for j, energy in enumerate(row):
            graph.add_arc(letters[i], letters[j], j, j, -energy)
    return graph
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-3c", "grade": true, "locked": true}
check_part("3c")

# %% [markdown]
# Drawn words of a lexicon, read from energies with more and more noise: each letter by itself, with bigrams (whose
# energies are −log of their frequencies in the lexicon), and with the trie.

# %%
WORDS = """able acid baby back ball band bank base bath bear beat bell belt bird blue boat body bone book born cake
call calm camp card care case cash cast chat city clay clue coal coat code cold cook cool cope copy core cost crew
crop dark data date dawn dead deal dear debt deep deer desk dial diet dirt disk door dose down draw drop drug dual
dust duty each earn ease east easy edge exam face fact fail fair fall farm fast fate fear feel file fill film find
fine fire firm fish flat flow folk food foot form four free fuel full fund gain game gate gear gift girl give glad
goal gold golf good"""
LEXICON = WORDS.split()


def decode(energies, grammar):
    """The word of least energy in a grammar."""
    return word_of(gtn.viterbi_path(interpretation_graph(energies, grammar)).labels_to_list())


def bigrams(words):
    """The energies of `bigram_grammar`: -log of the frequencies in these words, with one more of each."""
    first, following = torch.ones(26), torch.ones(26, 26)
    for labels in map(letters_of, words):
        first[labels[0]] += 1
        for before, after in pairwise(labels):
            following[before, after] += 1
    return -(first / first.sum()).log(), -(following / following.sum(1, keepdim=True)).log()


with once_written():
    torch.manual_seed(0)
    lexicon, grammar = trie([letters_of(word) for word in LEXICON]), bigram_grammar(*bigrams(LEXICON))
    noises, read = [1.0, 1.5, 2.0, 2.5, 3.0], {"letter by letter": [], "bigrams": [], "lexicon": []}
    COUNT = sized(200, 40)
    for noise in noises:
        right = dict.fromkeys(read, 0)
        for _ in range(COUNT):
            word = LEXICON[int(torch.randint(len(LEXICON), ()))]
            energies = noise * torch.randn(4, 26)
            energies[torch.arange(4), letters_of(word)] -= 5.0
            found = {
                "letter by letter": word_of(energies.argmin(1).tolist()),
                "bigrams": decode(energies, grammar),
                "lexicon": decode(energies, lexicon),
            }
            for name in right:
                right[name] += found[name] == word
        for name in right:
            read[name].append(right[name] / COUNT)
    for name, shares_read in read.items():
        print(f"{name:18}", *(f"{share:5.2f}" for share in shares_read))
    display(plot_lines(noises, read, "noise", "words read", ylim=(0, 1.02)))

# %% [markdown]
# **3d** (1 point) Where does the interpretation graph have fewer paths than the recognition graph, and where does it
# have the same paths with other energies? Why can the lexicon fail on a word that the bigrams read?

# %% [markdown] nbgrader={"grade_id": "answer-3d", "grade": true, "solution": true, "points": 1}
# The trie removes all strings that are not in the lexicon, and leaves the energies of the others as they are. The
# bigram grammar keeps all strings and adds its energies to theirs. A word that is not in the lexicon has no path in its
# composition, so it cannot be read at any energy, while the bigrams give it a finite one.
#
# ### BEGIN MARK SCHEME
# ½ point: fewer paths with the trie, other energies with bigrams. ½ point: words outside of the lexicon.
# ### END MARK SCHEME

# %% [markdown]
# ## 4 A check reader
#
# In the nineties, banks read the amounts on checks with a graph transformer network. Where digits touch, it is not
# clear where one ends. So the image is cut at many places, and a *segmentation graph* holds all ways to put the pieces
# together: a node for each cut, an arc for each segment that may be a digit. A network looks at every segment, and each
# arc becomes ten arcs, one for each digit with its energy: the *recognition graph*. A *grammar* knows which amounts
# there are: three to five digits, the first not 0, the last 0 or 5, as prices are rounded to five cents.
#
# `ebmcourse.data.amounts` strings real handwritten digits (8 × 8 pixels) together. Some overlap by two columns.

# %%
checks = amounts.draw_checks(4, seed=5)
figure = Figure(figsize=(8, 1.2), layout="constrained")
for axes, check in zip(figure.subplots(1, 4), checks, strict=True):
    axes.imshow(check.image, cmap="gray")
    axes.set(xticks=[], yticks=[], title="".join(map(str, check.digits)))
display(figure)

# %% [markdown]
# **4a** Write `segments`.


# %% nbgrader={"grade_id": "segments", "solution": true}
def segments(cuts, narrowest, widest):
    """The pairs (i, j) of numbers of cuts between which a digit may be, as a list in any order.

    cuts: columns, in increasing order; a digit takes at least `narrowest` and at most `widest` columns
    """
    ### BEGIN SOLUTION 4a
    # TODO Return all pairs (i, j) with i < j and cuts[j] - cuts[i] in the given range.
    # There may be other cuts between the two.
    numbers = range(len(cuts))
    return [(i, j) for i in numbers for j in numbers[i + 1 :] if narrowest <= cuts[j] - cuts[i] <= widest]
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-4a", "grade": true, "locked": true}
check_part("4a")

# %% [markdown]
# **4b** Write `recognition_graph`.


# %% nbgrader={"grade_id": "recognition-graph", "solution": true}
def recognition_graph(count, segments, energies):
    """The graph with a node for each cut, and ten arcs for each segment.

    count: the number of cuts; paths lead from the first to the last
    segments: a list of S pairs of numbers of cuts; energies: (S, 10) of the digits 0 … 9 in each segment
    returns: a graph with weights -E, through which gradients flow to `energies`
    """
    ### BEGIN SOLUTION 4b
    # TODO Return the graph, with the digits as labels.
    # Add the arcs in the order of `energies`, row by row, and set all weights at once.
    graph = gtn.Graph()
    for cut in range(count):
        graph.add_node(cut == 0, cut == count - 1)
    for i, j in segments:
        for digit in range(energies.shape[1]):
            graph.add_arc(i, j, digit)
    graph.set_weights(-energies)
    return graph
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-4b", "grade": true, "locked": true}
check_part("4b")

# %% [markdown]
# The whole system learns from checks and their amounts. The training data does not say where the digits are.
# Two compositions of the
# recognition graph are needed: with the right answer, whose paths are all ways to cut the image into its digits, and
# with the grammar, whose paths are all ways to read any amount. With $F$ the free energy at β = 1, the loss is
#
# $$-\log p(Y) = F(Y) - F(\text{all amounts}),$$
#
# a difference of two forward scores.
#
# **4c** Write `amount_loss`.


# %% nbgrader={"grade_id": "amount-loss", "solution": true}
def amount_loss(recognition, answer, grammar):
    """-log p of the right amount among all amounts of the grammar, a tensor of shape ().

    recognition: a graph with weights -E; answer: a list of digits that both graphs allow
    grammar: a graph with weights 0 or -E
    """
    ### BEGIN SOLUTION 4c
    # TODO Return the difference of two forward scores.
    # The right answer is what the grammar and the chain of its digits have in common.
    chain = gtn.Graph(False)
    chain.add_node(True, False)
    for place, digit in enumerate(answer, start=1):
        chain.add_node(False, place == len(answer))
        chain.add_arc(place - 1, place, digit)
    every = gtn.compose(recognition, grammar)
    right = gtn.compose(every, chain)
    return (gtn.forward_score(every).weights_to_torch() - gtn.forward_score(right).weights_to_torch()).squeeze()
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-4c", "grade": true, "locked": true}
check_part("4c")

# %% [markdown]
# **4d** Write `read_amount`.


# %% nbgrader={"grade_id": "read-amount", "solution": true}
def read_amount(recognition, grammar):
    """The digits of the path of least energy in the composition, a list; arguments as for `amount_loss`."""
    ### BEGIN SOLUTION 4d
    # TODO Return the digits of the best path.
    # The energies of the grammar count as well.
    return gtn.viterbi_path(gtn.compose(recognition, grammar)).labels_to_list()
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-4d", "grade": true, "locked": true}
check_part("4d")

# %% [markdown]
# First, a network learns single digits. With fixed cuts (at gaps, and pieces that are too wide in equal parts) each
# segment is read by itself. Then a copy of the network learns from whole checks. All numbers are for checks made of
# digits that occur in no training. If digits are apart and each is recognised with probability $p$, an amount of $n$
# digits is read with probability $p^n$.

# %%
grammar = amounts.amount_grammar()
held_out = {
    "touching": amounts.draw_checks(sized(200, 20), seed=99, split="test"),
    "apart": amounts.draw_checks(sized(200, 20), seed=98, split="test", touching=False),
}
NETWORKS = {}

with once_written():
    torch.manual_seed(0)
    single = digit_network()
    train_on_digits(single, sized(20, 5))
    reader = copy.deepcopy(single)
    apart = amounts.draw_checks(sized(200, 10), seed=2, touching=False)
    losses = train_reader(reader, amounts.draw_checks(sized(800, 40), seed=1) + apart, grammar, sized(12, 3))
    NETWORKS |= {"before": single, "after": reader}
    p = digit_accuracy(single)
    print(f"{'amounts read exactly':36}", *(f"{name:>9}" for name in held_out))
    rows = {
        "single digits, fixed cuts": [share_read_with_fixed_cuts(single, group) for group in held_out.values()],
        "single digits, graph and grammar": [share_read(single, group, grammar) for group in held_out.values()],
        "trained through the graphs": [share_read(reader, group, grammar) for group in held_out.values()],
        f"p^n, p = {p:.3f}": [
            sum(p ** len(check.digits) for check in group) / len(group) for group in held_out.values()
        ],
    }
    for name, row in rows.items():
        print(f"{name:36}", *(f"{share:9.3f}" for share in row))
    display(plot_lines(range(1, len(losses) + 1), {"-log p": losses}, "epoch", "mean loss", ylim=(0, None)))

# %% [markdown]
# The grammar, and the first check that only the training on checks makes readable, with its best path before and after
# this training. Arcs are segments, with the digit that the network prefers; the wider, the more probable. Before, every
# part of a digit looks like some digit, for example like a 1. Afterwards, such segments have high energies for all
# digits.

# %%
show_graph(grammar, "0123456789")


def is_read(net, check):
    """Whether the network reads this check exactly."""
    return share_read(net, [check], grammar) == 1


check = next(
    (one for one in held_out["touching"] if NETWORKS and is_read(reader, one) and not is_read(single, one)),
    held_out["touching"][0],
)
title = "".join(map(str, check.digits))
for name, net in NETWORKS.items():
    display(plot_reading(net, check, grammar, f"{title}, {name} training on checks"))
    show_graph(gtn.viterbi_path(gtn.compose(graph_of(net, check), grammar)), "0123456789")

# %% [markdown]
# **4e** (2 points) (i) Why does the network that was trained on single digits read checks so poorly through the graph,
# although it knows the digits? (ii) Which arcs get a gradient from the first forward score only, which from both, and
# when do they cancel? (iii) Energies are not normalised in each segment. What would go wrong with the softmax of each
# segment instead?

# %% [markdown] nbgrader={"grade_id": "answer-4e", "grade": true, "solution": true, "points": 2}
# (i) It has never seen parts of digits or two digits in one segment, and gives some class of these a low energy.
# Nothing has compared the energies of different segments. (ii) Arcs on paths of the right answer get both, all other
# arcs of the amounts only that of the grammar. They cancel where the right answer has all of the probability. (iii)
# Each segment would have to distribute the probability 1 among its digits, also if it shows no digit at all. Paths with
# few segments would be preferred, since each further one multiplies by a probability below 1.
#
# ### BEGIN MARK SCHEME
# ½ point: (i). 1 point: (ii), which arcs (½), when they cancel (½). ½ point: (iii).
# ### END MARK SCHEME

# %% [markdown]
# ## 5 Backpropagation from Lagrange multipliers
#
# A network computes states $z_0 = x$ and $z_{k+1} = f_k(z_k, w_k)$. To minimise a cost that may depend on every state,
# subject to these equations as constraints, write
#
# $$\mathcal L = \sum_{k=0}^{n} C_k(z_k) + \sum_{k=0}^{n-1} \lambda_{k+1}^\top\bigl(f_k(z_k, w_k) - z_{k+1}\bigr).$$
#
# At a stationary point, all derivatives vanish. Those with respect to $\lambda$ give the network back. Those with
# respect to $z$ give the multipliers, from the last to the first:
#
# $$\lambda_n = \frac{\partial C_n}{\partial z_n}, \qquad
#   \lambda_k = \left(\frac{\partial f_k}{\partial z_k}\right)^{\!\top}\lambda_{k+1}
#   + \frac{\partial C_k}{\partial z_k}.$$
#
# So $\lambda_k$ is the gradient of the whole cost with respect to $z_k$, and the gradient with respect to $w_k$ is
# $(\partial f_k/\partial w_k)^\top\lambda_{k+1}$. (The lecture notes write the constraint
# as $z_{k+1} - f_k$. Then every $\lambda$ has the opposite sign: it is minus the gradient.)
#
# Here $f_k(z) = \tanh(W_k z + b_k)$, and $\tanh' = 1 - \tanh^2$. Do not use autograd: this part shows what it does.
#
# **5a** Write `multipliers`.


# %% nbgrader={"grade_id": "multipliers", "solution": true}
def multipliers(weights, states, slopes):
    """The multipliers λ_0 … λ_n, where λ_0 is the gradient with respect to the input; a list of n + 1 vectors.

    weights: W_0 … W_(n-1); states: z_0 … z_n
    slopes: ∂C_k/∂z_k for k = 0 … n, vectors of the shapes of the states, zero where a state costs nothing
    """
    ### BEGIN SOLUTION 5a
    # TODO Return the list λ_0 … λ_n, computed from the last to the first.
    # The derivative of tanh at step k follows from the state z_(k+1) that it produced.
    found = [slopes[-1]]
    for weight, state, slope in zip(weights[::-1], states[:0:-1], slopes[-2::-1], strict=True):
        found.append(weight.T @ ((1 - state**2) * found[-1]) + slope)
    return found[::-1]
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-5a", "grade": true, "locked": true}
check_part("5a")

# %% [markdown]
# **5b** Write `weight_gradients`.


# %% nbgrader={"grade_id": "weight-gradients", "solution": true}
def weight_gradients(states, lambdas):
    """The gradients of all W_k and of all b_k, two lists of n; states: z_0 … z_n, lambdas: λ_0 … λ_n."""
    ### BEGIN SOLUTION 5b
    # TODO Return ∂L/∂W_k and ∂L/∂b_k for k = 0 … n - 1.
    # b_k enters f_k where W_k z_k does, so start with its gradient.
    of_biases = [(1 - state**2) * multiplier for state, multiplier in zip(states[1:], lambdas[1:], strict=True)]
    of_weights = [torch.outer(slope, state) for slope, state in zip(of_biases, states[:-1], strict=True)]
    return of_weights, of_biases
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-5b", "grade": true, "locked": true}
check_part("5b")

# %% [markdown]
# The multipliers and the gradients of autograd, for a cost of the last state only and for a cost of every state:

# %%
with once_written():
    torch.manual_seed(0)
    DEPTH, WIDTH = 12, 6
    weights = [
        (1.1 * torch.randn(WIDTH, WIDTH, dtype=torch.float64) / WIDTH**0.5).requires_grad_() for _ in range(DEPTH)
    ]
    biases = [torch.zeros(WIDTH, dtype=torch.float64).requires_grad_() for _ in range(DEPTH)]
    x, target = torch.randn(WIDTH, dtype=torch.float64), torch.zeros(WIDTH, dtype=torch.float64)
    norms = {}
    for name, costs in (("the last state", [0.0] * DEPTH + [1.0]), ("every state", [1.0] * (DEPTH + 1))):
        states = run_network(weights, biases, x)
        for state in states[1:]:
            state.retain_grad()
        sum(cost * (state - target).square().sum() / 2 for cost, state in zip(costs, states, strict=True)).backward()
        with torch.no_grad():
            slopes = [cost * (state - target) for cost, state in zip(costs, states, strict=True)]
            lambdas = multipliers(weights, states, slopes)
            of_weights, _ = weight_gradients(states, lambdas)
        differences = [(state.grad - found).abs().max() for state, found in zip(states[1:], lambdas[1:], strict=True)]
        differences += [(weight.grad - found).abs().max() for weight, found in zip(weights, of_weights, strict=True)]
        print(f"cost of {name}: largest difference from autograd {max(differences):.1e}")
        norms[name] = [found.norm().item() for found in lambdas]
        for leaf in (*weights, *biases):
            leaf.grad = None
    display(plot_lines(range(DEPTH + 1), norms, "k", "norm of $\\lambda_k$", ylim=(0, None)))

# %% [markdown]
# **5c** (1 point) Which derivative of $\mathcal L$ gives the forward pass, which the backward pass, and which the
# weight gradients? Why is one backward pass enough, even where every state has a cost?

# %% [markdown] nbgrader={"grade_id": "answer-5c", "grade": true, "solution": true, "points": 1}
# The derivative with respect to $\lambda$, to $z$ and to $w$. $\lambda_{k+1}$ already sums up what all later costs need
# of $z_{k+1}$, and the recursion is linear, so each step only adds the slope of its own cost.
#
# ### BEGIN MARK SCHEME
# ½ point: λ, z, w. ½ point: λ sums up all later costs.
# ### END MARK SCHEME

# %% [markdown]
# ## 6 Neural differential equations
#
# In a *neural ODE*, the state follows $\mathrm dz/\mathrm dt = f(z, w)$: a network with infinitely many layers
# $z_{t + \mathrm dt} = z_t + f(z_t, w)\,\mathrm dt$ that share their weights. A solver takes finite steps. With the
# step $h = T/S$, one step of the classical Runge-Kutta method (RK4) is
#
# $$k_1 = f(z),\quad k_2 = f(z + \tfrac h2 k_1),\quad k_3 = f(z + \tfrac h2 k_2),\quad k_4 = f(z + h k_3),\quad
#   z \leftarrow z + \tfrac h6(k_1 + 2k_2 + 2k_3 + k_4).$$
#
# **6a** Write `integrate`.


# %% nbgrader={"grade_id": "integrate", "solution": true}
def integrate(f, z, time, steps):
    """The state after `time`, by `steps` steps of RK4; f(z) has the shape of z; a negative time goes back."""
    ### BEGIN SOLUTION 6a
    # TODO Take the steps and return the last state.
    # Make new tensors in each step, so that gradients can flow through all of them.
    h = time / steps
    for _ in range(steps):
        k1 = f(z)
        k2 = f(z + h / 2 * k1)
        k3 = f(z + h / 2 * k2)
        k4 = f(z + h * k3)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return z
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-6a", "grade": true, "locked": true}
check_part("6a")

# %% [markdown]
# ### The adjoint
#
# With $f_k(z) = z + f(z)\,\mathrm dt$, the recursion of part 5 becomes a differential equation for $\lambda(t)$, which
# is solved from $T$ back to 0. The gradient of the weights is an integral along the way:
#
# $$\lambda(T) = \frac{\partial C}{\partial z(T)}, \qquad
#   \frac{\mathrm d\lambda}{\mathrm dt} = -\Bigl(\frac{\partial f}{\partial z}\Bigr)^{\!\top}\lambda, \qquad
#   \frac{\partial C}{\partial w} = \int_0^T \Bigl(\frac{\partial f}{\partial w}\Bigr)^{\!\top}\lambda\,\mathrm dt.$$
#
# The state $z(t)$ is needed on the way back. It need not be stored: it is recomputed by solving its own equation
# backwards, together with the other two. So the memory does not depend on the number of steps.
#
# **6b** Write `adjoint`. `torch.autograd.grad(f(z), [z, *parameters], λ)` computes both products with $\lambda$ at
# once.


# %% nbgrader={"grade_id": "adjoint", "solution": true}
def adjoint(f, parameters, end, slope, time, steps):
    """The gradients of a cost of z(T), without storing the states.

    f: the field, f(z) for z of any shape; parameters: the list of its parameters, all of which it uses
    end: z(T), found by `integrate`; slope: ∂C/∂z(T), of the same shape
    returns: ∂C/∂z(0), and a list with ∂C/∂w for each parameter
    """
    ### BEGIN SOLUTION 6b
    # TODO Return both gradients: solve for z, λ and the integral together, from T back to 0.
    # `integrate` works on one tensor: flatten all three into one vector, and take them apart inside the field.
    sizes = [end.numel(), end.numel(), *(parameter.numel() for parameter in parameters)]

    def apart(vector):
        z, multiplier, *rest = vector.split(sizes)
        shaped = [part.view_as(parameter) for part, parameter in zip(rest, parameters, strict=True)]
        return z.view_as(end), multiplier.view_as(end), shaped

    def backwards(vector):
        z, multiplier, _ = apart(vector)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = f(z)
            products = torch.autograd.grad(value, [z, *parameters], multiplier)
        return torch.cat([value.detach().flatten(), *(-product.flatten() for product in products)])

    zeros = [torch.zeros_like(parameter).flatten() for parameter in parameters]
    with torch.no_grad():
        vector = torch.cat([end.flatten(), slope.flatten(), *zeros])
        _, multiplier, integrals = apart(integrate(backwards, vector, -time, steps))
    return multiplier, integrals
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-6b", "grade": true, "locked": true}
check_part("6b")

# %% [markdown]
# The difference between the adjoint and backpropagation through a fine solver, and the memory that autograd keeps:

# %%
with once_written():
    torch.manual_seed(0)
    f, start, goal = field(), torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    parameters = list(f.parameters())
    exact = torch.autograd.grad((integrate(f, start, 2.0, 400) - goal).square().sum() / 2, parameters)
    STEPS_TRIED = [5, 10, 20, 40, 80]
    memory, errors = {"backpropagation": [], "adjoint": []}, []
    for steps in STEPS_TRIED:
        with SavedBytes() as saved:
            cost = (integrate(f, start, 2.0, steps) - goal).square().sum() / 2
        memory["backpropagation"].append(saved.peak / 1000)
        del cost
        with torch.no_grad():
            end = integrate(f, start, 2.0, steps)
        with SavedBytes() as saved:
            _, found = adjoint(f, parameters, end, end - goal, 2.0, steps)
        memory["adjoint"].append(saved.peak / 1000)
        errors.append(max((a - b).abs().max().item() for a, b in zip(found, exact, strict=True)))
        print(f"{steps:3} steps: largest difference of the gradients {errors[-1]:.1e}")
    display(plot_lines(STEPS_TRIED, memory, "steps", "memory in kB", ylim=(0, None)))

# %% [markdown]
# ### Reaching a target
#
# With the adjoint, three points learn to be at three targets at the time $T$:

# %%
with once_written():
    torch.manual_seed(0)
    f = field()
    start = torch.tensor([[-1.0, 0.0], [0.0, 0.5], [1.0, 0.0]], dtype=torch.float64)
    goal = torch.tensor([[0.5, -0.5], [0.0, 0.5], [0.5, 1.5]], dtype=torch.float64)
    parameters, costs = list(f.parameters()), []
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    before = trajectory(f, start)
    for _ in range(sized(120, 15)):
        with torch.no_grad():
            end = integrate(f, start, 1.0, 10)
        _, gradients = adjoint(f, parameters, end, end - goal, 1.0, 10)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        costs.append((end - goal).square().sum().item() / 2)
    print(f"cost before {costs[0]:.3f}, after {costs[-1]:.5f}")
    display(plot_trajectories({"before": before, "after": trajectory(f, start)}, goal))

# %% [markdown]
# ### A state at rest
#
# At a state with $f(z) = 0$, nothing changes any more. To find one, it is not necessary to follow the system through
# time: minimise $\|f(z)\|^2$ over $z$, which needs a single evaluation of $f$ per step. (Whether the system returns to
# this state after a small push is another question.)
#
# **6c** Write `settle`.


# %% nbgrader={"grade_id": "settle", "solution": true}
def settle(f, z, rate, steps):
    """The state after gradient descent on ‖f(z)‖² (the sum of squares) from z, with this rate and at least one step."""
    ### BEGIN SOLUTION 6c
    # TODO Take the steps, and return the last state without a gradient.
    # The parameters of f must not change, nor collect gradients.
    z = z.detach().clone()
    for _ in range(steps):
        z.requires_grad_()
        slope = torch.autograd.grad(f(z).square().sum(), z)[0]
        z = z.detach() - rate * slope
    return z.detach()
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-6c", "grade": true, "locked": true}
check_part("6c")

# %%
with once_written():
    torch.manual_seed(0)
    inner = field()

    def resting(z):
        return inner(z) - z

    start = 2 * torch.randn(1, 2, dtype=torch.float64)
    norms = {"along time": [], "by descent": []}
    EFFORTS = [1, 2, 4, 8, 16, 32, 64]
    for effort in EFFORTS:
        with torch.no_grad():
            norms["along time"].append(
                resting(integrate(resting, start, effort / 4, max(1, effort // 4))).norm().item()
            )
        norms["by descent"].append(resting(settle(resting, start, 0.2, effort)).norm().item())
    display(plot_lines(EFFORTS, norms, "evaluations of f", "norm of f", xscale="log", yscale="log"))

# %% [markdown]
# **6d** (1 point) Where do the gradients of the adjoint with few steps come from, and why do they differ from those of
# backpropagation through the same few steps? Which of the two is the exact gradient of what the program computes?

# %% [markdown] nbgrader={"grade_id": "answer-6d", "grade": true, "solution": true, "points": 1}
# The adjoint solves the continuous equations with its own errors, and the state that it recomputes backwards is not
# exactly the state of the forward pass. Backpropagation differentiates the solver's own steps, so it gives the exact
# gradient of the number that the program computes; both agree in the limit of many steps.
#
# ### BEGIN MARK SCHEME
# ½ point: errors of its own. ½ point: backpropagation is exact for the program.
# ### END MARK SCHEME

# %% [markdown]
# ## 7 Variational free energy
#
# The free energy $F = -\frac1\beta\log\int e^{-\beta E(z)}\,\mathrm dz$ is often out of reach. Multiply and divide by a
# distribution $q$ that is easy to sample. Since $-\log$ is convex, Jensen's inequality gives an upper bound:
#
# $$F = -\frac1\beta\log\int q(z)\,\frac{e^{-\beta E(z)}}{q(z)}\,\mathrm dz
#     \;\le\; \int q(z)\Bigl[E(z) + \frac1\beta\log q(z)\Bigr]\mathrm dz
#     = \langle E\rangle_q - \frac1\beta H(q).$$
#
# Average energy minus entropy over β: physicists call it the variational free energy. It equals $F$ exactly if $q$ is
# the Gibbs distribution $q(z) \propto e^{-\beta E(z)}$. (The lecture notes leave out the logarithm in the first
# formula, and the factor $q$ in the entropy $H(q) = -\int q\log q$.)
#
# **7a** Write both for finitely many states.


# %% nbgrader={"grade_id": "variational-free-energy", "solution": true}
def variational_free_energy(energies, q, beta):
    """⟨E⟩ - H/β for each row; energies and q: (B, K), rows of q add up to 1 and may contain zeros -> (B,)."""
    ### BEGIN SOLUTION 7a
    # TODO Return the bound of each row.
    # 0 · log 0 counts as 0: see torch.xlogy.
    return (q * energies + torch.xlogy(q, q) / beta).sum(dim=1)
    ### END SOLUTION


def gibbs(energies, beta):
    """The Gibbs distribution of each row; energies: (B, K), perhaps in the hundreds -> (B, K)."""
    ### BEGIN SOLUTION 7a
    # TODO Return the probabilities of the states.
    return torch.softmax(-beta * energies, dim=1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-7a", "grade": true, "locked": true}
check_part("7a")

# %% [markdown]
# The gap between the bound and $F$ for distributions between the uniform one and the Gibbs distribution:

# %%
with once_written():
    torch.manual_seed(0)
    energies, beta = 2 * torch.randn(1, 8, dtype=torch.float64), 1.5
    free = -torch.logsumexp(-beta * energies, 1) / beta
    mixtures = torch.linspace(0, 1, 41, dtype=torch.float64)
    q = torch.stack([(1 - t) / 8 + t * gibbs(energies, beta)[0] for t in mixtures])
    gaps = variational_free_energy(energies.expand(41, -1), q, beta) - free
    print(f"gap at the Gibbs distribution: {gaps[-1]:.1e}")
    display(plot_lines(mixtures, {"bound - F": gaps}, "share of the Gibbs distribution", "energy", ylim=(0, None)))

# %% [markdown]
# ### Sampling
#
# For a continuous state, let $q$ be a normal distribution with independent components, of mean $\mu$ and standard
# deviation $\sigma$. Its entropy is $H = \sum_i \bigl(\log\sigma_i + \tfrac12\log(2\pi e)\bigr)$. The average energy is
# estimated from samples. With $z = \mu + \sigma\varepsilon$, where $\varepsilon$ is standard normal noise, the samples
# are differentiable in $\mu$ and $\sigma$: the *reparameterisation trick*.
#
# **7b** Write `sampled_bound`.


# %% nbgrader={"grade_id": "sampled-bound", "solution": true}
def sampled_bound(energy, mean, log_std, noise, beta):
    """An estimate of the variational free energy, differentiable in the mean and the log of the standard deviation.

    energy: energy(z) is (S,) for z (S, D); mean, log_std: (D,); noise: (S, D), standard normal -> shape ()
    """
    ### BEGIN SOLUTION 7b
    # TODO Return the mean energy of the samples minus the entropy divided by β.
    # The entropy is exact: it needs no samples.
    samples = mean + log_std.exp() * noise
    entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
    return energy(samples).mean() - entropy / beta
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-7b", "grade": true, "locked": true}
check_part("7b")

# %% [markdown]
# For the energy $E(z) = \frac12 z^\top A z$, the free energy is known: $F = -\frac1\beta\bigl(\frac
# D2\log\frac{2\pi}\beta - \frac12\log\det A\bigr)$. Where $A$ is diagonal, $q$ can become the Gibbs distribution and
# the bound becomes tight. Where the components are correlated, independent ones cannot follow, and a gap remains.

# %%
with once_written():
    beta, STEPS = 2.0, sized(300, 60)
    matrices = {
        "independent": torch.tensor([[4.0, 0.0], [0.0, 0.5]]),
        "correlated": torch.tensor([[2.25, 1.6], [1.6, 2.25]]),
    }
    lines = {}
    for name, A in matrices.items():
        torch.manual_seed(0)
        free = -(math.log(2 * math.pi / beta) - 0.5 * torch.logdet(A).item()) / beta
        mean, log_std = torch.tensor([2.0, -2.0]).requires_grad_(), torch.zeros(2).requires_grad_()
        optimizer = torch.optim.Adam([mean, log_std], lr=0.05)
        bounds = []

        def energy(z, A=A):
            return 0.5 * ((z @ A) * z).sum(1)

        for _ in range(STEPS):
            bound = sampled_bound(energy, mean, log_std, torch.randn(256, 2), beta)
            optimizer.zero_grad()
            bound.backward()
            optimizer.step()
            bounds.append(bound.item() - free)
        lines[name] = bounds
        print(f"{name}: F = {free:.3f}, gap at the end {sum(bounds[-20:]) / 20:.3f}")
    display(plot_lines(range(STEPS), lines, "step", "bound - F", ylim=(0, 2)))

# %% [markdown]
# **7c** (1 point) What does each of the two terms of the bound do to $q$ when it is minimised alone? What happens for
# β → ∞ and for β → 0? Is the gap of the correlated case an error of the sampling?

# %% [markdown] nbgrader={"grade_id": "answer-7c", "grade": true, "solution": true, "points": 1}
# The average energy alone pulls $q$ into the minimum, until its width is zero; the entropy alone makes $q$ as wide as
# possible. For β → ∞ the energy wins, for β → 0 the entropy. The gap is not noise: it is the divergence between $q$ and
# the Gibbs distribution, divided by β, and no $q$ with independent components has less.
#
# ### BEGIN MARK SCHEME
# ½ point: the two terms and the limits. ½ point: the gap is due to the family of q.
# ### END MARK SCHEME

# %% [markdown]
# ## Handing in
#
# Restart the kernel, run all cells once more, and save the notebook. Then run `ebmcourse check` in a terminal: it
# repeats the public checks of all exercises on the saved notebook. Hand in this notebook.
#
# ## References
#
# * Y. LeCun, S. Chopra, R. Hadsell, M. Ranzato, F. Huang, *A tutorial on energy-based learning*, 2006: the losses.
# * Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document recognition*, Proc. IEEE
#   1998: graph transformer networks.
