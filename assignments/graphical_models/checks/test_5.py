"""5: backpropagation from Lagrange multipliers."""

from itertools import pairwise

import torch
from calls import SINGLE, SMALLEST, judge_calls, judge_cases, like, unchanged, without_autograd

from ebmcourse.checking import assert_close, exercise, inputs, probe, require

DEPTH = 4


def drawn_network(rng, widths):
    weights = [
        torch.from_numpy(1.2 * rng.standard_normal((after, before)) / before**0.5) for before, after in pairwise(widths)
    ]
    biases = [torch.from_numpy(0.3 * rng.standard_normal(after)) for after in widths[1:]]
    states = [torch.from_numpy(rng.standard_normal(widths[0]))]
    for weight, bias in zip(weights, biases, strict=True):
        states.append(torch.tanh(weight @ states[-1] + bias))
    return {"weights": weights, "biases": biases, "states": states}


@inputs
def square(rng):
    """A network whose states have equal widths, so that wrong products have values as well."""
    return drawn_network(rng, [3] * (DEPTH + 1))


@inputs
def ragged(rng):
    """A network whose states have different widths."""
    return drawn_network(rng, [4, 2, 5, 3])


@inputs
def slopes(rng):
    """The slope of a cost of each state of `square`."""
    return [torch.from_numpy(rng.standard_normal(3)) for _ in range(DEPTH + 1)]


@inputs
def ragged_slopes(rng):
    return [torch.from_numpy(rng.standard_normal(width)) for width in (4, 2, 5, 3)]


@inputs
def lambdas(rng):
    return [torch.from_numpy(rng.standard_normal(3)) for _ in range(DEPTH + 1)]


@inputs
def ragged_lambdas(rng):
    return [torch.from_numpy(rng.standard_normal(width)) for width in (4, 2, 5, 3)]


@probe
def multipliers_of(student, network, slopes):
    with without_autograd():
        found = student.graphical_models.multipliers(network["weights"], network["states"], slopes)
    require(isinstance(found, list | tuple), "`multipliers` returns a list of vectors.")
    return list(found)


@probe
def products_of(student, network, lambdas):
    with without_autograd(), unchanged(network["states"], lambdas):
        found = student.graphical_models.weight_gradients(network["states"], lambdas)
    require(isinstance(found, tuple) and len(found) == 2, "`weight_gradients` returns two lists.")
    return {"weights": list(found[0]), "biases": list(found[1])}


@probe
def several_multipliers(student, networks, vectors):
    """The multipliers of several networks, with gradients switched off, as where they are used."""
    seen = {}
    for name, network in networks.items():
        weights, states, slopes = network["weights"], network["states"], vectors[name]
        with torch.no_grad(), unchanged(weights, states, slopes):
            found = student.graphical_models.multipliers(weights, states, slopes)
        seen[name] = [like(item, states[0]) for item in found]
    return seen


@probe
def several_products(student, networks, vectors):
    """The gradients of the weights and biases of several networks."""
    seen = {}
    for name, network in networks.items():
        states, lambdas = network["states"], vectors[name]
        with torch.no_grad(), unchanged(states, lambdas):
            weights, biases = student.graphical_models.weight_gradients(states, lambdas)
        seen[name] = [like(item, states[0]) for item in (*weights, *biases)]
    return seen


def only_last(slopes):
    return [*(torch.zeros_like(slope) for slope in slopes[:-1]), slopes[-1]]


@inputs
def wrong(_, square, slopes, lambdas):
    """The results of known mistakes, of `multipliers` for a cost of the last and of every state."""


def judge_multipliers(got, want, slopes, wrong):
    mistakes = {
        "The signs are those of the lecture notes: here, λ is plus the gradient.": [-item for item in want],
        "The list is reversed: it begins with λ_0.": want[::-1],
        "λ_0 is missing: it is the gradient with respect to the input.": want[1:],
        "λ_0 lacks the slope of the cost of the input.": [want[0] - slopes[0], *want[1:]],
    }
    # In float64, another order of operations changes 1e-15.
    assert_close(got, want, rtol=1e-5, atol=1e-6, mistakes=lambda: mistakes | wrong())


@exercise("5a", points=1, public=True, hint="λ_k = W_kᵀ ((1 - z_(k+1)²) λ_(k+1)): the weights are transposed.")
def test_cost_of_the_last_state(run, square, slopes, wrong):
    """`multipliers` are the gradients of a cost of the last state."""
    got, want = run(multipliers_of, square, only_last(slopes))
    judge_multipliers(got, want, only_last(slopes), lambda: wrong["last"])


@exercise("5a", points=0.5, public=True, hint="Add the slope of the cost of z_k when you compute λ_k.")
def test_cost_of_every_state(run, square, slopes, wrong):
    """`multipliers` are the gradients where every state has a cost."""
    got, want = run(multipliers_of, square, slopes)
    judge_multipliers(got, want, slopes, lambda: wrong["every"])


@exercise(
    "5b",
    points=1,
    public=True,
    hint="The gradient of b_k is (1 - z_(k+1)²) λ_(k+1); that of W_k is its outer product with z_k.",
)
def test_gradients_of_the_weights(run, square, lambdas, wrong):
    """`weight_gradients` returns the gradients of all weights and biases."""
    got, want = run(products_of, square, lambdas)
    judge_products(got, want, lambdas, lambda: wrong["weights"])


def judge_products(got, want, lambdas, wrong):
    transposed = {
        "The matrices are transposed: rows belong to the state that is produced.": [w.T for w in want["weights"]],
    }
    no_derivative = {"The gradients of the biases lack the derivative of tanh: multiply by 1 - z².": lambdas[1:]}
    for name, mistakes in (("weights", lambda: transposed | wrong()), ("biases", no_derivative)):
        assert_close(got[name], want[name], rtol=1e-5, atol=1e-6, mistakes=mistakes)
