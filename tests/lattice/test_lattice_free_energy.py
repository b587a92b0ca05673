"""`free_energy`: the free energy over the paths of `viterbi`."""

import math

import pytest
import torch
from hypothesis import strategies as st
from lattice_oracles import alignments, for_all
from test_lattice_viterbi import everything_around, problems
from torch.autograd import gradcheck, gradgradcheck

from ebmcourse.lattice import compiled, dense, free_energy, viterbi
from ebmcourse.lattice.lattices import alignment_lattice

BETAS = st.floats(0.01, 20.0)


@for_all(problems(), BETAS)
def test_it_is_the_soft_minimum_over_all_paths(problem, beta):
    energies, targets, frames, counts, first, last = problem
    free = free_energy(energies, targets, frames, counts, beta=beta, optional_first=first, optional_last=last)
    for item, (length, count) in enumerate(zip(frames, counts, strict=True)):
        _, sums = everything_around(energies[item, :length], targets[item, :count], first, last)
        expected = -torch.logsumexp(-beta * sums, 0).item() / beta
        assert free[item].item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@for_all(problems(), BETAS)
def test_torch_operations_give_the_same_values_and_gradients(problem, beta):
    energies, targets, frames, counts, first, last = problem
    energies = (energies * beta).requires_grad_()
    compiled = free_energy(energies, targets, frames, counts, optional_first=first, optional_last=last)
    lattice = alignment_lattice(energies, targets, frames, counts, first, last)
    plain = dense.free_energies(energies, lattice)
    torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-12)
    weights = torch.linspace(1, 2, len(frames), dtype=torch.float64)
    gradients = [torch.autograd.grad((weights * free).sum(), energies)[0] for free in (compiled, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-11)


@for_all(problems())
def test_it_tends_to_viterbi_as_beta_grows(problem):
    energies, targets, frames, counts, first, last = problem
    ends = {"optional_first": first, "optional_last": last}
    least = viterbi(energies, targets, frames, counts, **ends).energy
    for beta in (1.0, 1e3, 1e9):
        gap = least - free_energy(energies, targets, frames, counts, beta=beta, **ends)
        for item, (length, count) in enumerate(zip(frames, counts, strict=True)):
            bound = math.log(len(alignments(length, count, first, last))) / beta
            assert -1e-12 <= gap[item].item() <= bound + 1e-12


def test_its_gradient_is_the_probability_that_a_path_uses_an_energy():
    torch.manual_seed(0)
    energies = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[3, 0, 3]])
    free_energy(energies, targets, beta=2.0).sum().backward()
    paths, sums = everything_around(energies[0].detach(), targets[0])
    expected = torch.zeros(6, 4, dtype=torch.float64)
    for path, probability in zip(paths, (-2.0 * sums).softmax(0), strict=True):
        for i, j in enumerate(path):
            expected[i, targets[0, j]] += probability
    torch.testing.assert_close(energies.grad[0], expected, rtol=1e-12, atol=1e-12)


def test_first_and_second_derivatives():
    torch.manual_seed(1)
    energies = torch.randn(3, 5, 3, dtype=torch.float64, requires_grad=True)
    targets, frames, counts = torch.tensor([[0, 1, 2], [1, 1, 0], [2, 0, 0]]), [5, 4, 3], [3, 2, 1]

    def free(e):
        return free_energy(e, targets, frames, counts, beta=1.5, optional_last=True)

    assert gradcheck(free, energies)
    assert gradgradcheck(free, energies)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e3, 1e6])
def test_energies_may_have_any_range(scale):
    """Weights far outside of the range of a float64, also through the length of the items."""
    torch.manual_seed(2)
    energies = (scale * torch.randn(2, 400, 5, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 5, (2, 150))
    lattice = alignment_lattice(energies, targets, None, [150, 4], False, True)
    compiled = free_energy(energies, targets, None, [150, 4], optional_last=True)
    plain = dense.free_energies(energies, lattice)
    torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(free.sum(), energies)[0] for free in (compiled, plain)]
    # A sum of 400 logarithms of size ~scale carries rounding of ~scale · 1e-13 into every probability.
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-11 * max(1.0, scale / 10))
    torch.testing.assert_close(gradients[0].sum(dim=2), torch.ones(2, 400, dtype=torch.float64))


def test_equal_energies_count_the_paths():
    """C(L − 1, T − 1) paths of energy 0; the count itself would overflow a float64."""
    length, count = 3000, 1200
    free = free_energy(torch.zeros(1, length, 1, dtype=torch.float64), torch.zeros(1, count).long())
    paths = math.lgamma(length) - math.lgamma(count) - math.lgamma(length - count + 1)
    assert free.item() == pytest.approx(-paths, rel=1e-12)


def test_every_path_may_have_a_very_large_energy():
    """A weight of exp(−5000) must not be lost although all others at that frame are near 1."""
    energies = torch.zeros(1, 3, 2, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        energies[0, 1, :] = torch.tensor([5000.0, 5001.0])
        energies[0, 2, 0] = torch.inf
    free = free_energy(energies, torch.tensor([[0, 1]]))
    assert free.item() == pytest.approx(5000.0 - math.log1p(math.exp(-1.0)), rel=1e-14)
    free.backward()
    torch.testing.assert_close(energies.grad[0, 1], torch.tensor([0.0, -1.0]).double().softmax(0))


@pytest.mark.parametrize("huge", [2.0**30, 1e20, 1e30, 1e300])
def test_a_huge_number_works_in_place_of_infinity(huge):
    energies = torch.zeros(1, 6, 2, dtype=torch.float64)
    energies[0, 2:, 0] = huge
    energies.requires_grad_()
    free = free_energy(energies, torch.tensor([[0, 1]]))
    assert free.item() == pytest.approx(-math.log(2))  # the step is taken at frame 1 or 2
    free.backward()
    assert energies.grad[0, :, 1].tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0, 1.0])
    everywhere = free_energy(energies + huge, torch.tensor([[0, 1]]))
    assert everywhere.item() == pytest.approx(6 * huge)


def test_the_loops_are_compiled_once_for_all_memory_layouts():
    torch.manual_seed(4)
    energies, targets = torch.randn(9, 5, 6, dtype=torch.float64), torch.randint(0, 5, (4, 18)).t()
    frames = torch.tensor([6, 6, 5, 6, 4, 6] * 3)
    expected = free_energy(energies.transpose(1, 2).clone(), targets[::2].clone(), frames[::2].tolist())
    strided = free_energy(energies.transpose(1, 2), targets[::2], frames[::2])
    torch.testing.assert_close(strided, expected, rtol=1e-14, atol=0)
    free_energy(energies.transpose(1, 2).float(), targets[::2].int(), frames[::2].numpy())
    assert len(compiled.free_energies.signatures) <= 2  # one for each dtype
    viterbi(energies.transpose(1, 2), targets[::2], frames[::2])
    viterbi(energies.transpose(1, 2).float(), targets[::2], frames[::2])
    assert len(compiled.best_paths.signatures) <= 2


def test_float32_input_gives_float32_results():
    torch.manual_seed(3)
    energies, targets = torch.randn(2, 40, 5, requires_grad=True), torch.randint(0, 5, (2, 7))
    free = free_energy(energies, targets)
    assert free.dtype == torch.float32
    torch.testing.assert_close(free, free_energy(energies.double(), targets).float())
    free.sum().backward()
    assert energies.grad.dtype == torch.float32
