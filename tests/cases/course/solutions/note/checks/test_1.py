"""The free energy."""

import numpy as np
import torch

from ebmcourse.checking import assert_close, exercise, inputs, probe


@inputs
def energies(rng):
    return torch.from_numpy(rng.standard_normal((4, 5)).astype(np.float32))


@inputs
def large_energies(rng):
    """Energies whose exponentials no float32 can hold, of both signs."""
    return torch.from_numpy((500 * rng.choice([-1, 1], (4, 1)) + rng.standard_normal((4, 5))).astype(np.float32))


@probe
def free_energies(student, energies):
    return [student.note.free_energy(energies, beta) for beta in (0.5, 1.0, 3.0)]


@exercise("1a", points=2, public=True, hint="F = -1/β · log Σ exp(-β E).")
def test_free_energy_is_the_soft_minimum(run, energies):
    """`free_energy` returns -1/β · log Σ exp(-β E) of every row."""
    got, want = run(free_energies, energies)
    assert_close(got, want, mistakes={"The sign of the energies is wrong.": [-value for value in want]})


### BEGIN HIDDEN TESTS
@exercise("1a", points=1, hint="See torch.logsumexp.")
def test_large_energies_do_not_overflow(run, large_energies):
    """`free_energy` is exact for energies in the hundreds."""
    got, want = run(free_energies, large_energies)
    assert_close(got, want)


### END HIDDEN TESTS
