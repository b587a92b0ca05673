"""The recursions of `compiled.py` in torch operations: for other devices, and for second derivatives.

One loop over the frames; batch and states are array axes.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ebmcourse.lattice.lattices import Lattice


def free_energies(energies: Tensor, lattice: Lattice) -> Tensor:
    """−log Σ_paths exp(−E(path)) of each item (B,), differentiable any number of times."""
    emissions, jumps, frames = _on_device(energies, lattice)
    scores = _initial(emissions, lattice)
    for t in range(1, len(emissions)):
        arrived = _soft_minimum(_ways(scores, jumps)) + emissions[t]
        scores = torch.where(t < frames, arrived, scores)
    return _soft_minimum(_ends(scores, lattice)[0])


def best_paths(energies: Tensor, lattice: Lattice, padding: int) -> Tensor:
    """The states (B, L) of each item's path of least energy; of equal ways into a state the earliest wins."""
    emissions, jumps, frames = _on_device(energies, lattice)
    scores = _initial(emissions, lattice)
    moves = [torch.zeros_like(scores, dtype=torch.long)]
    for t in range(1, len(emissions)):
        low, way = _ways(scores, jumps).min(dim=-1)
        scores = torch.where(t < frames, low + emissions[t], scores)
        moves.append(torch.where(low < torch.inf, 2 - way, 0))  # a state that no path reaches would lead below 0
    final, candidates = _ends(scores, lattice)
    state = candidates.gather(1, final.argmin(dim=1, keepdim=True))
    path = []
    for t in reversed(range(len(emissions))):
        inside = t < frames
        path.append(torch.where(inside, state, padding))
        state = torch.where(inside, state - moves[t].gather(1, state), state)
    return torch.cat(path[::-1], dim=1)


def best_words(
    energies: Tensor,
    frames: np.ndarray,
    blank: int,
    parent: np.ndarray,
    label: np.ndarray,
    joins: np.ndarray,
    is_word: np.ndarray,
) -> Tensor:
    """The trie node of each item's best word (B,), −1 where none fits; the rest are fields of a `Trie`."""

    def here(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(energies.device)

    true_frames, parents, labels = here(frames)[:, None], here(parent), here(label)
    letter = energies.new_full((energies.shape[0], len(parent)), torch.inf)
    gap = letter.clone()
    gap[:, 0] = 0.0
    root = torch.arange(len(parent), device=energies.device) == 0
    for t in range(energies.shape[1]):
        inside = t < true_frames
        joined = letter[:, parents].masked_fill(~here(joins), torch.inf)
        into_letter = torch.minimum(torch.minimum(letter, gap[:, parents]), joined).masked_fill(root, torch.inf)
        into_gap = torch.minimum(gap, letter) + energies[:, t, blank, None]
        letter = torch.where(inside, into_letter + energies[:, t, labels], letter)
        gap = torch.where(inside, into_gap, gap)
    low, node = torch.minimum(letter, gap).masked_fill(~here(is_word), torch.inf).min(dim=1)
    return torch.where(low.isfinite(), node, -1)


def _on_device(energies: Tensor, lattice: Lattice) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Energies of the states, (B, S) for each frame; jumps (B, S); true numbers of frames (B, 1)."""
    labels = torch.from_numpy(lattice.labels).to(energies.device)
    emissions = energies.gather(2, labels[:, None].expand(-1, energies.shape[1], -1))
    jumps = torch.from_numpy(lattice.jumps).to(energies.device)
    frames = torch.from_numpy(lattice.frames).to(energies.device)[:, None]
    # One unbind, because the gradient of L separate slices would need L tensors of shape (B, L, S).
    return emissions.unbind(dim=1), jumps, frames


def _initial(emissions: tuple[Tensor, ...], lattice: Lattice) -> Tensor:
    """(B, S): the first frame's energies in the states where a path may begin, else infinite."""
    positions = torch.arange(emissions[0].shape[1], device=emissions[0].device)
    return torch.where(positions < lattice.first, emissions[0], torch.inf)


def _ways(scores: Tensor, jumps: Tensor) -> Tensor:
    """(B, S, 3): the scores of the states that a path may come from, the earliest first."""
    step = pad(scores, (1, 0), value=torch.inf)[:, :-1]
    jump = pad(scores, (2, 0), value=torch.inf)[:, :-2].masked_fill(~jumps, torch.inf)
    return torch.stack((jump, step, scores), dim=-1)


def _ends(scores: Tensor, lattice: Lattice) -> tuple[Tensor, Tensor]:
    """(B, 2): scores and indices of the last states but one and the last; infinite where no path may end."""
    final = torch.from_numpy(lattice.states).to(scores.device)[:, None] - 1
    states = torch.cat((final - 1, final), dim=1)
    allowed = (states >= 0) & (states > final - lattice.last)
    states = states.clamp(min=0)
    return scores.gather(1, states).masked_fill(~allowed, torch.inf), states


def _soft_minimum(scores: Tensor) -> Tensor:
    """−log Σ exp(−score) over the last axis; infinite, with zero gradient, where all scores are.

    torch.logsumexp gives NaN gradients there, and most lattices have unreachable states.
    """
    low = scores.detach().amin(dim=-1)
    dead = low == torch.inf
    low = torch.where(dead, 0.0, low)
    total = torch.exp(low[..., None] - scores).sum(dim=-1)
    return torch.where(dead, torch.inf, low - torch.log(torch.where(dead, 1.0, total)))
