"""The reference of the assignment `graphical_models`: gradients by finite differences, values by listing all paths."""

from __future__ import annotations

import itertools
from types import ModuleType

import pytest
import torch

from autograder import assignment
from autograder.release.programs import reference_program
from ebmcourse import gtn
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.untrusted.student import Student

LOSSES = (
    "energy_loss",
    "perceptron_loss",
    "hinge_loss",
    "log_loss",
    "lvq2_loss",
    "mce_loss",
    "square_square_loss",
    "square_exponential_loss",
    "nll_loss",
    "mee_loss",
)
WRONG_IS_BEST, RIGHT_IS_BEST = [1, 2], [2]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    with laid_out(reference_program(assignment.load("graphical_models"))) as folder:
        return Student(folder).graphical_models


@pytest.fixture
def energies() -> torch.Tensor:
    """Four frames, three labels; the best path spells the string 2."""
    generator = torch.Generator().manual_seed(1)
    found = torch.rand(4, 3, dtype=torch.float64, generator=generator)
    found[:, 2] -= 0.6
    return found.requires_grad_()


def listed(energies: torch.Tensor, answer: list[int], beta: float) -> list[torch.Tensor]:
    paths = list(itertools.product(range(energies.shape[1]), repeat=len(energies)))
    sums = torch.stack([energies[range(len(path)), list(path)].sum() for path in paths])
    right = torch.tensor([gtn.collapse(path) == answer for path in paths])
    free = [-(-beta * values).logsumexp(0) / beta for values in (sums[right], sums)]
    return [sums[right].min(), sums.min(), sums[~right].min(), *free]


@pytest.mark.parametrize("answer", [WRONG_IS_BEST, RIGHT_IS_BEST, [1, 1]])
def test_ingredients_equal_those_of_all_listed_paths(program, energies, answer):
    found = program.ingredients(energies, answer, 1.7)
    torch.testing.assert_close(torch.stack(found), torch.stack(listed(energies, answer, 1.7)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("answer", [WRONG_IS_BEST, RIGHT_IS_BEST])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_all_losses(program, energies, name, answer):
    loss = getattr(program, name)
    assert torch.autograd.gradcheck(lambda leaf: loss(program.ingredients(leaf, answer)), energies)


def test_gradients_of_the_scores(program):
    arcs = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (1, 3)]
    leaf = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda energies: program.forward(arcs, energies, 1.3), leaf)
    assert torch.autograd.gradcheck(lambda energies: program.viterbi(arcs, energies)[0], leaf)


def test_gradients_of_the_check_reader(program):
    pairs = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    leaf = torch.rand(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grammar = program.trie([[1, 5], [2, 0], [1, 2, 5]])

    def loss(energies):
        return program.amount_loss(program.recognition_graph(4, pairs, energies), [1, 5], grammar)

    assert torch.autograd.gradcheck(loss, leaf)


def test_the_free_energy_approaches_the_minimum_from_below(program):
    arcs = program.ladder(6)
    energies = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    least, path = program.viterbi(arcs, energies)
    values = [program.forward(arcs, energies, beta)[-1] for beta in (1.0, 10.0, 100.0, 1000.0)]
    assert values == sorted(values) and values[-1] <= least and least - values[-1] < 0.01
    assert torch.allclose(energies[path].sum(), least)
    shares = program.shares(arcs, energies, 1000.0)
    assert torch.allclose(shares[path], torch.ones(6, dtype=torch.float64), atol=1e-3)


def test_each_arc_is_read_once(program):
    arcs = program.CountedArcs(program.ladder(30))
    program.forward(arcs, torch.zeros(60), 1.0)
    assert arcs.read == 60


def test_multipliers_equal_the_gradients_of_autograd(program):
    generator = torch.Generator().manual_seed(0)
    widths = [4, 3, 5, 2]
    shapes = list(itertools.pairwise(widths))
    weights = [torch.randn(b, a, dtype=torch.float64, generator=generator).requires_grad_() for a, b in shapes]
    biases = [torch.randn(b, dtype=torch.float64, generator=generator).requires_grad_() for _, b in shapes]
    x = torch.randn(4, dtype=torch.float64, generator=generator).requires_grad_()
    states = program.run_network(weights, biases, x)
    cost = sum((k + 1) * state.square().sum() / 2 for k, state in enumerate(states))
    expected = torch.autograd.grad(cost, [*states, *weights, *biases])
    lambdas = program.multipliers(weights, states, [(k + 1) * state for k, state in enumerate(states)])
    of_weights, of_biases = program.weight_gradients(states, lambdas)
    for found, wanted in zip([*lambdas, *of_weights, *of_biases], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_the_adjoint_equals_backpropagation_in_constant_memory(program):
    torch.manual_seed(0)
    f, start = program.field(), torch.randn(3, 2, dtype=torch.float64).requires_grad_()
    parameters, peaks = list(f.parameters()), []
    fine = program.integrate(f, start, 1.5, 300)
    expected = torch.autograd.grad(fine.square().sum() / 2, [start, *parameters])
    for steps in (20, 80):
        with torch.no_grad():
            end = program.integrate(f, start, 1.5, steps)
        with program.SavedBytes() as saved:
            first, found = program.adjoint(f, parameters, end, end, 1.5, steps)
        peaks.append(saved.peak)
        for one, other in zip([first, *found], expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert peaks[0] == peaks[1] > 0
    with program.SavedBytes() as saved:
        end = program.integrate(f, start, 1.5, 80)
    assert saved.peak > 50 * peaks[0]
    del end


def test_a_state_at_rest_is_found(program):
    torch.manual_seed(0)
    inner = program.field()
    state = program.settle(lambda z: 0.3 * inner(z) - z, torch.randn(4, 2, dtype=torch.float64), 0.2, 200)
    assert (0.3 * inner(state) - state).abs().max() < 1e-6
    assert all(parameter.grad is None for parameter in inner.parameters())


def test_the_variational_free_energy_is_a_tight_bound(program):
    generator = torch.Generator().manual_seed(0)
    energies = 2 * torch.randn(50, 6, dtype=torch.float64, generator=generator)
    free = -(-1.4 * energies).logsumexp(1) / 1.4
    q = torch.rand(50, 6, dtype=torch.float64, generator=generator)
    assert (program.variational_free_energy(energies, q / q.sum(1, keepdim=True), 1.4) >= free).all()
    tight = program.variational_free_energy(energies, program.gibbs(energies, 1.4), 1.4)
    torch.testing.assert_close(tight, free, rtol=0, atol=1e-6)
