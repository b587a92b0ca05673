"""Which implementation runs: compiled loops on the CPU, torch operations elsewhere; gradients for both."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmcourse.lattice import dense
from ebmcourse.lattice.lattices import Lattice

COMPILED_DEVICES = ("cpu",)

# `compiled` is imported where it is called: numba takes half a second to import, and few programs need it.


def best_paths(energies: Tensor, lattice: Lattice, padding: int) -> Tensor:
    """The states (B, L) of each item's path of least energy, `padding` beyond its true length."""
    if energies.device.type not in COMPILED_DEVICES:
        return dense.best_paths(energies, lattice, padding)
    from ebmcourse.lattice import compiled

    return torch.from_numpy(compiled.best_paths(_array(energies), *lattice, padding))


def best_words(
    energies: Tensor,
    frames: np.ndarray,
    blank: int,
    parent: np.ndarray,
    label: np.ndarray,
    joins: np.ndarray,
    depth: np.ndarray,
    is_word: np.ndarray,
) -> np.ndarray:
    """The trie node of each item's best word (B,), −1 where none fits; the last five are fields of a `Trie`."""
    if energies.device.type not in COMPILED_DEVICES:
        return dense.best_words(energies, frames, blank, parent, label, joins, is_word).cpu().numpy()
    from ebmcourse.lattice import compiled

    return compiled.best_words(_array(energies), frames, blank, parent, label, joins, depth, is_word)


def free_energies(energies: Tensor, lattice: Lattice) -> Tensor:
    """−log Σ_paths exp(−E(path)) of each item (B,), twice differentiable; +inf where an item has no path."""
    if energies.device.type not in COMPILED_DEVICES:
        return dense.free_energies(energies, lattice)
    free: Tensor = _FreeEnergies.apply(energies, lattice)
    return free


class _FreeEnergies(torch.autograd.Function):
    """The compiled recursion; its gradient is the expected visits that come with the free energies."""

    @staticmethod
    def forward(ctx: Any, energies: Tensor, lattice: Lattice) -> Tensor:
        from ebmcourse.lattice import compiled

        free, visits = compiled.free_energies(_array(energies), *lattice, ctx.needs_input_grad[0])
        ctx.lattice = lattice
        ctx.save_for_backward(energies, torch.from_numpy(visits))
        return torch.from_numpy(free).to(energies.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        energies, visits = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient itself must be differentiable
            free = dense.free_energies(energies, ctx.lattice)
            return *torch.autograd.grad(free, energies, grad, create_graph=True), None
        return grad[:, None, None] * visits, None


def _array(tensor: Tensor) -> np.ndarray:
    """A contiguous array: numba would compile the loops again for another memory layout."""
    return tensor.detach().contiguous().numpy()
