"""What is right, by brute force: all paths are listed, and the energies are added up along each.

Only judgements use this, in a process without student code.
"""

import re
from functools import cache

import torch

from ebmcourse.checking import assert_close, fail
from ebmcourse.checking.compare import difference
from ebmcourse.data.words import BETWEEN

INFINITY = float("inf")


@cache
def ways(frames, first, last, moves):
    """All sequences of states (P, frames) that start in `first`, end in `last` and follow `moves`.

    moves: for every state, the states that the next frame may have.
    """
    found = [(state,) for state in first]
    for _ in range(frames - 1):
        found = [(*way, state) for way in found for state in moves[way[-1]]]
    return torch.tensor([way for way in found if way[-1] in last], dtype=torch.long).view(-1, frames)


def chain(states, steps=(0, 1)):
    """Moves that advance by one of `steps`."""
    return tuple(tuple(state + step for step in steps if 0 <= state + step < states) for state in range(states))


def alignments(frames, states, *, first=(0,), last=None, steps=(0, 1)):
    """All paths of an alignment of `frames` windows with `states` targets."""
    return ways(frames, tuple(first), (states - 1,) if last is None else tuple(last), chain(states, tuple(steps)))


def sums(pm, paths):
    """The energy of every path (P,) through pm (L, T), in float64."""
    return pm.double()[torch.arange(len(pm)), paths].sum(1)


def least(pm, paths):
    """The least energy of all paths; infinite where there is none."""
    return sums(pm, paths).min() if len(paths) else torch.tensor(INFINITY)


def blanked(target, blank):
    """c a t → _ c _ a _ t _"""
    return [blank, *(label for letter in target for label in (letter, blank))]


def ctc_moves(target, *, skips="different", stays=True):
    """Moves between the states of the blanked target; `skips` over blanks: between different letters, all, none."""
    moves = []
    for state in range(2 * len(target) + 1):
        to = [state] if stays else []
        to += [state + 1] if state < 2 * len(target) else []
        letter = state // 2
        if state % 2 and letter + 1 < len(target):
            may = {"all": True, "none": False}.get(skips, target[letter] != target[letter + 1])
            to += [state + 2] if may else []
        moves.append(tuple(to))
    return tuple(moves)


def ctc_paths(frames, target, *, first=(0, 1), last=(-2, -1), **rules):
    """All sequences of states of the blanked target that read as the target."""
    states = 2 * len(target) + 1
    ends = tuple(sorted({state % states for state in last}))
    return ways(frames, tuple(state for state in first if state < states), ends, ctc_moves(tuple(target), **rules))


def ctc_score(log_probs, target, blank, **rules):
    """log Σ over paths of exp Σ log_probs, in float64; log_probs (L, C)."""
    paths = ctc_paths(len(log_probs), target, **rules)
    matrix = log_probs[:, blanked(target, blank)]
    return sums(matrix, paths).logsumexp(0) if len(paths) else torch.tensor(-INFINITY).double()


def descend(weights, batches, rate, epochs, loss_of, *, keep_gradients=False):
    """The weights after plain gradient descent with one step per batch, and the loss before every step.

    loss_of(weights, batch) is a number. Returns weights and losses (epochs, batches).
    """
    losses, sum_of_slopes = [], torch.zeros_like(weights)
    for _ in range(epochs):
        for batch in batches:
            at = weights.detach().requires_grad_()
            value = loss_of(at, batch)
            slope = torch.autograd.grad(value, at)[0]
            sum_of_slopes = slope + sum_of_slopes if keep_gradients else slope
            weights = at.detach() - rate * sum_of_slopes
            losses.append(value.detach())
    return weights, torch.stack(losses).view(epochs, -1)


def per_batch(sums, counts, sizes, epochs):
    """The mean losses (epochs, batches) of what a criterion was asked: sums and numbers of its losses at every call.

    A batch may take one call or several; it has `sizes` losses, and where calls do not fit into these, None returns.
    """
    found, calls = [], iter(zip(sums, counts, strict=True))
    for size in list(sizes) * epochs:
        total, number = 0.0, 0
        while number < size:
            value, count = next(calls, (0.0, size + 1))
            total, number = total + value, number + max(count, 1)
        if number > size:
            return None
        found.append(float(total) / size)
    return torch.tensor(found).view(epochs, -1) if next(calls, None) is None else None


def judge_mean_losses(got, losses, rights, sizes, what, mistakes=None):
    """Fail unless `got` is one of the right means of losses (epochs, batches), over which each epoch's mean is taken.

    rights: weights (batches,) of the batches in the mean; several where more than one is right, first the sheet's.
    sizes: how many `what` a batch has.
    """
    if got.numel() == 0:
        fail("Nothing is returned, or an empty list: is a `return` missing?")
    if got.dim() == 0:
        fail("A list with one number per epoch is expected, not one number.")
    losses, sizes = losses.double(), torch.tensor(sizes).double()
    means = [(losses * torch.tensor(weights)).sum(1) / sum(weights) for weights in rights]
    for mean in means[1:]:
        if difference(got, mean, 1e-4, 1e-5) is None:
            return
    mean = means[0]
    numbers = torch.arange(1, len(mean) + 1)
    assert_close(
        got,
        mean,
        mistakes={
            f"These are sums over the {what}: divide by their number.": (losses * sizes).sum(1),
            "These are sums of the losses of all batches: divide.": losses.sum(1),
            f"This is the mean over the batches, which are not equally large: weigh each by its {what}.": losses.mean(
                1
            ),
            f"Means are divided by the number of {what}: multiply the mean of a batch by its {what} first.": (
                losses.sum(1) / sizes.sum()
            ),
            "The running loss is not reset: start it at zero in every epoch.": mean.cumsum(0),
            "The running loss is not reset: start sum and number at zero in every epoch.": mean.cumsum(0) / numbers,
            "The running loss is not reset: start it at zero in every epoch, and divide.": losses.sum(1).cumsum(0),
            "This is the loss of the last batch of every epoch, not the mean of all.": losses[:, -1],
            "This is the loss of the last epoch alone: return a list with one number per epoch.": mean[-1],
            "These are the losses of all batches: return one number per epoch.": losses.flatten(),
            "An epoch is missing: return one number per epoch.": mean[:-1],
            **(mistakes or {}),
        },
    )


def judge_refusal(got, numbers, forgotten, unnamed):
    """Fail unless a ValueError was raised whose message names one of the numbers in each set of `numbers`."""
    if got["type"] == "":
        fail(forgotten)
    if got["type"] != "ValueError":
        fail("Another exception than a ValueError is raised, one that does not say what is wrong.")
    named = {int(digits) for digits in re.findall(r"\d{1,9}", got["message"])}
    if not all(named & choices for choices in numbers):
        fail(unnamed)


def is_read(energies, text):
    """Whether the labels of least energy in the windows (L, 27) collapse to the text."""
    labels = energies.argmin(1).unique_consecutive().tolist()
    return "".join(chr(97 + label) for label in labels if label != BETWEEN) == text


def falls(losses):
    """Whether the losses of a training (N,) are smaller in its last quarter than in its first, by a third."""
    quarter = max(1, len(losses) // 4)
    return bool(losses[-quarter:].mean() < 2 / 3 * losses[:quarter].mean())
