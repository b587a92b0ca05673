"""Checks of arguments: a ValueError says what is wrong and what to do.

Labels and lengths are returned as numpy arrays on the CPU: they are small, and checking them there costs a
microsecond where a torch operation costs five.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Lengths = Tensor | Sequence[int] | None


def check_energies(energies: Tensor, name: str = "energies") -> None:
    """Raise ValueError unless `energies` is a non-empty float32 or float64 tensor of shape (B, L, C)."""
    if not isinstance(energies, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(energies).__name__}")
    if energies.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {energies.dtype}: convert with .float()")
    if energies.dim() != 3:
        raise ValueError(f"{name} must have shape (batch, frames, classes), got {tuple(energies.shape)}")
    if energies.shape[0] == 0:
        raise ValueError(f"the batch is empty: {name} has shape {tuple(energies.shape)}, skip such a batch")
    if energies.numel() == 0:
        raise ValueError(f"{name} has no frames or no classes: its shape is {tuple(energies.shape)}")


def check_values(energies: Tensor, frames: np.ndarray) -> None:
    """Raise ValueError for NaN or −inf within the true lengths; +inf (a forbidden class) is allowed."""
    # One pass over the tensor: the minimum is NaN if any value is.
    if np.isfinite(energies.amin().item()):
        return
    for item, length in enumerate(frames.tolist()):
        rows = energies[item, :length]
        bad = (rows.isnan() | (rows == -torch.inf)).any(dim=1)
        if bad.any():
            frame = int(bad.nonzero()[0])
            raise ValueError(
                f"item {item}, frame {frame}: an energy is NaN or −inf; look for a loss that diverged or a "
                "division by zero before this call"
            )


def check_log_probs(log_probs: Tensor, frames: np.ndarray) -> None:
    """Raise ValueError for values above 0 within the true lengths, which are not log-probabilities."""
    margin = 1e-4  # for the rounding of float32
    if log_probs.amax().item() <= margin:
        return
    for item, length in enumerate(frames.tolist()):
        if length and (highest := log_probs[item, :length].amax().item()) > margin:
            raise ValueError(
                f"item {item}: log_probs holds {highest:.4g}, but a log-probability is at most 0: "
                "give (-energies).log_softmax(dim=-1)"
            )


def check_finite(result: Tensor) -> None:
    """Raise ValueError where an item's result is infinite: every path has a forbidden class."""
    if result.amax().item() < torch.inf:
        return
    item = int((~result.isfinite()).nonzero()[0])
    raise ValueError(f"item {item}: every path has infinite energy; allow the classes that its target needs")


def check_lengths(name: str, lengths: Lengths, batch: int, lowest: int, highest: int) -> np.ndarray:
    """(B,) int64 true lengths, each within lowest..highest; None means `highest` for every item."""
    if lengths is None:
        return np.full(batch, highest, dtype=np.int64)
    array = _integers(name, lengths)
    if array.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), one length for each item, got {array.shape}")
    outside = (array < lowest) | (array > highest)
    if outside.any():
        item = int(outside.argmax())
        raise ValueError(f"item {item}: {name} is {array[item]}, but must lie within {lowest}..{highest}")
    return array


def check_labels(targets: Tensor, lengths: Lengths, batch: int, classes: int, lowest: int = 1) -> tuple:
    """Label sequences and their true lengths as numpy arrays (B, T), (B,); padding is replaced by class 0."""
    if not isinstance(targets, Tensor):
        raise ValueError(f"targets must be a padded torch tensor, got {type(targets).__name__}")
    labels = _integers("targets", targets)
    if labels.ndim != 2 or labels.shape[0] != batch:
        raise ValueError(f"targets must have shape (batch, length) with batch {batch}, got {labels.shape}")
    counts = check_lengths("target_lengths", lengths, batch, 0, labels.shape[1])
    if (counts < lowest).any():
        item = int((counts < lowest).argmax())
        raise ValueError(f"item {item}: the target is empty; leave such items out of the batch")
    labels[np.arange(labels.shape[1]) >= counts[:, None]] = 0
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        item, position = np.argwhere(outside)[0]
        raise ValueError(
            f"item {item}: label {labels[item, position]} at position {position} is not one of the classes "
            f"0..{classes - 1} of the energies; where it is padding, give target_lengths"
        )
    return labels, counts


def check_blank(blank: int, classes: int) -> int:
    """The blank's class; a negative number counts from the last class."""
    if isinstance(blank, bool) or not isinstance(blank, int | np.integer) or not -classes <= blank < classes:
        raise ValueError(f"blank must be a class index within {-classes}..{classes - 1}, got {blank!r}")
    return int(blank) % classes


def _integers(name: str, values: Tensor | Sequence[int]) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got {array.dtype}: convert with .long()")
    return np.array(array, dtype=np.int64, order="C")  # a copy, in the memory layout that the loops need
