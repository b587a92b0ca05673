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
#
# The training cells take a few minutes on a laptop. Grading does not run them: it calls your functions.
#
# The assignment follows a lecture by Y. LeCun on graphical energy-based methods. Where its published notes contain an
# error in a formula, the text gives the right one and says so.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %matplotlib inline
import os
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from IPython.display import Image, display
from matplotlib.figure import Figure
from torch import Tensor, nn

from ebmcourse import gtn, plots
from ebmcourse.checking.notebook import check_part, once_written

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
        gtn.draw(graph, file, dict(enumerate(symbols)), dict(enumerate(symbols)), emphasis=emphasis)
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
    answer: a list of labels from 1 to K - 1
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
# The five best paths of random energies, and what they spell:

# %%
with once_written():
    torch.manual_seed(0)
    energies = 3 * torch.rand(5, 4)
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
# probability of an answer is the sum over its paths, so its free energy has to stand there.
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
    STEPS = sized(60, 15)
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
# **1d** (2 points) The energy loss makes the energy of the right answers as low as the others do. (i) What has happened
# to the energies of all *other* answers, and why does hinge prevent it? (ii) The perceptron loss has the margin 0. For
# which energies is it zero although the network has learned nothing? (iii) The hinge loss stops at its margin. What
# does NLL do, and when is that a disadvantage?

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
# and `energies` is a tensor with the energy $e$ of each arc, in the same order. Every arc leads to a larger number, the
# list is sorted by destination, and every node can be reached. Paths lead from node 0 to node $N - 1$. With
# $E(z)$ the sum of the energies along path $z$,
#
# $$F = \min_z E(z), \qquad F_\beta = -\frac1\beta\log\sum_z e^{-\beta E(z)}.$$
#
# Both need one pass over the arcs, because what has been found for a node is used by all paths through it:
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
    """The path of least energy.

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
