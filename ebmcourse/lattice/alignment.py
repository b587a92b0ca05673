"""The path of least energy through a lattice."""

from typing import NamedTuple

import torch
from torch import Tensor

from ebmcourse.lattice import backend
from ebmcourse.lattice.checks import Lengths, check_energies, check_finite, check_log_probs, check_values
from ebmcourse.lattice.lattices import Lattice, alignment_lattice, ctc_lattice

PADDING = -100  # torch's cross_entropy ignores this label


class Alignment(NamedTuple):
    """The best path of each item.

    energy: (B,) the sum of the energies along the path (low = likely), differentiable
    path:   (B, L) int64, the state of each frame
    labels: (B, L) int64, the class of each frame
    Beyond an item's true length, path and labels hold `PADDING`, which `cross_entropy` ignores.
    """

    energy: Tensor
    path: Tensor
    labels: Tensor


def viterbi(
    energies: Tensor,
    targets: Tensor,
    input_lengths: Lengths = None,
    target_lengths: Lengths = None,
    *,
    optional_first: bool = False,
    optional_last: bool = False,
) -> Alignment:
    """The alignment of least energy between frames and a label sequence.

    A path gives each frame i a position j(i) of the target: it starts at position 0, ends at position T −
    1, and from one frame to the next it stays or advances by one. Its energy is Σ_i energies[i,
    targets[j(i)]]. Blanks are labels like any other here: to align "cat" as c_a_t_, give those six labels.

    energies: (B, L, C), low = likely; +inf forbids a class
    targets: (B, T) integers in 0..C−1
    input_lengths, target_lengths: (B,) true L and T of each item
    optional_first, optional_last: the first or last label (a blank at the border) may be left out
    returns: an `Alignment`; `path` holds positions of the target. Ties go to the smaller position.
    raises ValueError: fewer frames than labels, an empty target or batch, labels or lengths out of range, NaN,
        or an item without a path of finite energy
    """
    check_energies(energies)
    lattice = alignment_lattice(energies, targets, input_lengths, target_lengths, optional_first, optional_last)
    return align(energies, lattice)


def ctc_align(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths = None,
    target_lengths: Lengths = None,
    blank: int = -1,
    *,
    allow_empty: bool = False,
) -> Alignment:
    """The most probable CTC path that reads as the target; arguments and errors as for `ctc_loss`.

    returns: an `Alignment`. `energy` is −log p(path); `path` holds states of the target with blanks put in:
    2u + 1 is letter u, 2u is the blank before it, 2U the last blank.
    """
    check_energies(log_probs, "log_probs")
    lattice = ctc_lattice(log_probs, targets, input_lengths, target_lengths, blank, allow_empty)
    check_log_probs(log_probs, lattice.frames)
    return align(-log_probs, lattice)


def align(energies: Tensor, lattice: Lattice) -> Alignment:
    """The best path through any lattice; ValueError for NaN and where every path has infinite energy."""
    check_values(energies, lattice.frames)
    path = backend.best_paths(energies.detach(), lattice, PADDING)
    inside = path >= 0
    labels = torch.from_numpy(lattice.labels).to(energies.device).gather(1, path.clamp(min=0))
    # Summed along the path, and not taken from the recursion, so that autograd sees which energies it has.
    energy = energies.gather(2, labels[..., None]).squeeze(2).where(inside, 0.0).sum(dim=1)
    check_finite(energy)
    return Alignment(energy, path, labels.where(inside, PADDING))
