"""1: the free energy."""

import numpy as np
import torch

from ebmcourse.checking import assert_close, exercise, inputs, probe


@inputs
def energies(rng):
    return torch.from_numpy(rng.standard_normal((4, 5)).astype(np.float32))


@inputs
def betas(rng):
    return torch.from_numpy(rng.uniform(0.5, 3.0, 3).astype(np.float32))


@inputs
def large_energies(rng):
    """Energies of both signs whose exponentials overflow in float32."""
    return torch.from_numpy((500 * rng.choice([-1, 1], (4, 1)) + rng.standard_normal((4, 5))).astype(np.float32))


@probe
def free_energies(student, energies, betas):
    return [student.__PROGRAM__.free_energy(energies, float(beta)) for beta in betas]


def mistakes(energies, betas, want):
    """What frequent mistakes return instead, by their diagnoses."""
    return {
        "This is β times the free energy: divide by β.": [
            float(beta) * value for beta, value in zip(betas, want, strict=True)
        ],
        "This is the free energy for β = 1: β has no effect.": [-(-energies).logsumexp(1)] * len(betas),
        "The sign of the energies is wrong: this is the soft maximum.": [
            (float(beta) * energies).logsumexp(1) / float(beta) for beta in betas
        ],
    }


@exercise("1a", points=2, public=True, hint="F = -1/β · log Σ exp(-β E): β and the minus sign occur twice.")
def test_values_for_any_beta(run, energies, betas):
    """`free_energy` returns -1/β · log Σ exp(-β E) of each row, for any β > 0."""
    got, want = run(free_energies, energies, betas)
    assert_close(got, want, mistakes=mistakes(energies, betas, want))


### BEGIN HIDDEN TESTS
@exercise("1a", points=1, hint="Large energies overflow in exp: use torch.logsumexp(-β E), then divide by -β.")
def test_large_energies_do_not_overflow(run, large_energies, betas):
    """`free_energy` is also correct for energies in the hundreds."""
    got, want = run(free_energies, large_energies, betas)
    assert_close(got, want, mistakes=mistakes(large_energies, betas, want))


### END HIDDEN TESTS
