"""The free energy of a system with finitely many states."""

import torch
from torch import Tensor


def free_energy(energies: Tensor, beta: float) -> Tensor:
    """F = -1/β · log Σ exp(-β E) of every row: energies (B, K), low = likely, β > 0 -> (B,)."""
    ### BEGIN SOLUTION 1a
    # TODO Return the free energy of every row, shape (B,).
    return -torch.logsumexp(-beta * energies, dim=1) / beta
    ### END SOLUTION
