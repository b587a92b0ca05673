"""Sums over all paths of a lattice: free energy and CTC loss."""

import math
from typing import Literal

import torch
from torch import Tensor

from ebmcourse.lattice import backend
from ebmcourse.lattice.checks import Lengths, check_energies, check_finite, check_log_probs, check_values
from ebmcourse.lattice.lattices import Lattice, alignment_lattice, ctc_lattice


def free_energy(
    energies: Tensor,
    targets: Tensor,
    input_lengths: Lengths = None,
    target_lengths: Lengths = None,
    *,
    beta: float = 1.0,
    optional_first: bool = False,
    optional_last: bool = False,
) -> Tensor:
    """The free energy −1/β log Σ_paths exp(−β E(path)) of each item, over the paths of `viterbi`.

    It is at most the least energy of a path, and less by at most log(number of paths)/β, so it tends to that
    energy as β → ∞. Its gradient with respect to an energy is the probability that a path drawn with
    p ∝ exp(−β E) has it.

    beta: inverse temperature, > 0; other arguments as for `viterbi`
    returns: (B,) free energies (low = likely)
    raises ValueError: as `viterbi`, and for a β that is not a positive, finite number
    """
    if not (isinstance(beta, int | float) and 0 < beta < math.inf):
        raise ValueError(f"beta must be a positive, finite number, got {beta!r}; for β → ∞ use viterbi")
    check_energies(energies)
    lattice = alignment_lattice(energies, targets, input_lengths, target_lengths, optional_first, optional_last)
    return _free_energies(energies * beta, lattice) / beta


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths = None,
    target_lengths: Lengths = None,
    blank: int = -1,
    reduction: Literal["mean", "sum", "none"] = "mean",
    *,
    allow_empty: bool = False,
    zero_infinity: bool = False,
) -> Tensor:
    """−log p(target), summed over all frame labellings that read as the target (Graves et al., ICML 2006).

    A labelling reads as the target when merging equal neighbours and then dropping blanks leaves the target.

    log_probs: (B, L, C) log-probabilities, batch first, e.g. (-energies).log_softmax(dim=-1)
    targets: (B, U) plain letters, without blanks
    input_lengths, target_lengths: (B,) true L and U of each item
    blank: its class; −1 is the last one
    reduction: "none" gives (B,) losses, "sum" their sum, "mean" the mean of loss / U as in torch
    allow_empty: let a target have no letters (its only labelling is all blanks)
    zero_infinity: let an item have no labelling of positive probability, because it has too few frames (even 0)
        or because classes are forbidden; its loss and gradient are then 0, as in torch, and it counts in the mean
    returns: a scalar, or (B,) for the reduction "none"
    raises ValueError: fewer frames than letters plus repeated letters, a blank in a target, an empty target
        or batch, labels or lengths out of range, NaN, or values above 0 (not log-probabilities)

    Values equal those of `torch.nn.functional.ctc_loss`. The gradient with respect to log_probs is minus the
    posterior of each class, the derivative. torch's is p minus the posterior, which is the derivative with respect
    to the input of the log_softmax; behind a log_softmax both give the same. torch has no second derivative.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')
    check_energies(log_probs, "log_probs")
    lattice = ctc_lattice(
        log_probs, targets, input_lengths, target_lengths, blank, allow_empty, allow_short=zero_infinity
    )
    check_log_probs(log_probs, lattice.frames)
    losses = _free_energies(-log_probs, lattice, allow_infinite=zero_infinity)
    if zero_infinity:
        possible = losses.isfinite() & torch.from_numpy(lattice.frames > 0).to(losses.device)
        losses = losses.where(possible, 0.0)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    letters = torch.from_numpy(lattice.states // 2).to(losses)
    return (losses / letters.clamp(min=1)).mean()


def _free_energies(energies: Tensor, lattice: Lattice, allow_infinite: bool = False) -> Tensor:
    check_values(energies, lattice.frames)
    free = backend.free_energies(energies, lattice)
    if not allow_infinite:
        check_finite(free)
    return free
