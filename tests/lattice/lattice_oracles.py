"""Slow and simple answers: a list of all paths."""

from collections.abc import Callable
from itertools import groupby, pairwise, product

import torch
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy
from torch import Tensor


def for_all(*strategies: SearchStrategy) -> Callable:
    """Run a test on the same examples in each run, without a deadline, because first calls compile."""
    return lambda test: settings(derandomize=True, deadline=None)(given(*strategies)(test))


def alignments(frames: int, targets: int, first: bool = False, last: bool = False) -> list[tuple[int, ...]]:
    """All ways to give each frame a position: start, end and steps as in the docstring of `viterbi`."""
    starts = {0, 1} if first and targets > 1 else {0}
    ends = {targets - 1, targets - 2} if last and targets > 1 else {targets - 1}
    return [
        path
        for path in product(range(targets), repeat=frames)
        if path[0] in starts and path[-1] in ends and all(b - a in (0, 1) for a, b in pairwise(path))
    ]


def reads_as(labelling: tuple[int, ...], blank: int) -> list[int]:
    """Merge equal neighbours, then drop blanks."""
    return [label for label, _ in groupby(labelling) if label != blank]


def ctc_labellings(frames: int, classes: int, blank: int, target: list[int]) -> list[tuple[int, ...]]:
    """All labellings of the frames that read as the target."""
    return [labelling for labelling in product(range(classes), repeat=frames) if reads_as(labelling, blank) == target]


def energies_of(energies: Tensor, labellings: list[tuple[int, ...]]) -> Tensor:
    """(L, C) energies, N labellings → (N,) sums."""
    return torch.stack([sum(energies[i, label] for i, label in enumerate(path)) for path in labellings])
