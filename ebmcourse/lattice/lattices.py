"""Which paths are allowed: a chain of states per item, for plain alignments and for CTC.

A path visits one state per frame. From state s it stays, steps to s + 1, or, where allowed, jumps to s + 2. It
begins in one of the first states and ends in one of the last.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from ebmcourse.lattice.checks import Lengths, check_blank, check_labels, check_lengths


class Lattice(NamedTuple):
    """The states of B items, all numpy arrays on the CPU, contiguous.

    labels: (B, S) int64, the class that a frame in state s pays for
    jumps:  (B, S) bool, whether s − 2 → s is allowed
    frames: (B,) int64, true number of frames
    states: (B,) int64, true number of states
    first, last: how many of an item's first and last states a path may begin and end in (1 or 2)
    """

    labels: np.ndarray
    jumps: np.ndarray
    frames: np.ndarray
    states: np.ndarray
    first: int
    last: int


def alignment_lattice(
    energies: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    optional_first: bool,
    optional_last: bool,
) -> Lattice:
    """One state per label: a path starts at the first, ends at the last, and stays or advances by one."""
    batch, length, classes = energies.shape
    frames = check_lengths("input_lengths", input_lengths, batch, 1, length)
    labels, counts = check_labels(targets, target_lengths, batch, classes)
    _check_fit(frames, np.maximum(counts - optional_first - optional_last, 1), "one for each label")
    jumps = np.zeros(labels.shape, dtype=bool)
    return Lattice(labels, jumps, frames, counts, 1 + optional_first, 1 + optional_last)


def ctc_lattice(
    energies: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int,
    allow_empty: bool = False,
    may_join: bool = True,
    allow_short: bool = False,
) -> Lattice:
    """2U + 1 states for U letters: state 2u + 1 is letter u, even states are blanks.

    The first and the last blank are optional. So are the blanks between different letters, unless `may_join`
    is False; equal neighbours always need one, or they would be read as a single letter. With `allow_short`, an
    item may have too few frames for its target, and then has no path.
    """
    batch, length, classes = energies.shape
    blank = check_blank(blank, classes)
    frames = check_lengths("input_lengths", input_lengths, batch, 0 if allow_short else 1, length)
    letters, counts = check_labels(targets, target_lengths, batch, classes, lowest=0 if allow_empty else 1)
    inside = np.arange(letters.shape[1]) < counts[:, None]
    if (blanks := inside & (letters == blank)).any():
        item, position = np.argwhere(blanks)[0]
        raise ValueError(
            f"item {item}: the target holds the blank ({blank}) at position {position}; give plain letters, "
            "the blanks between them are added here"
        )
    labels = np.full((batch, 2 * letters.shape[1] + 1), blank, dtype=np.int64)
    labels[:, 1::2] = letters
    joins = (letters[:, 1:] != letters[:, :-1]) & may_join
    jumps = np.zeros(labels.shape, dtype=bool)
    jumps[:, 3::2] = joins
    needed = np.maximum(counts + (inside[:, 1:] & ~joins).sum(axis=1), 1)
    if not allow_short:
        _check_fit(frames, needed, "one for each letter, and one for the blank between two equal letters")
    return Lattice(labels, jumps, frames, 2 * counts + 1, first=2, last=2)


def _check_fit(frames: np.ndarray, needed: np.ndarray, reason: str) -> None:
    short = frames < needed
    if short.any():
        item = int(short.argmax())
        raise ValueError(
            f"item {item} has {frames[item]} frames, but its target needs at least {needed[item]} "
            f"({reason}): give a wider input or a shorter target"
        )
