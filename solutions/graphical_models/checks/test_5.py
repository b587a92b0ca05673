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


### BEGIN HIDDEN TESTS
def backwards(network, slopes, *, transposed=True, derivative=lambda before, after: 1 - after**2, first=True):
    """The multipliers by a changed recursion; first: whether the derivative is multiplied before the weights."""
    found = [slopes[-1]]
    for k in range(len(network["weights"]) - 1, -1, -1):
        weight, states = network["weights"][k], network["states"]
        weight, factor = weight.T if transposed else weight, derivative(states[k], states[k + 1])
        found.insert(0, (weight @ (factor * found[0]) if first else factor * (weight @ found[0])) + slopes[k])
    return found


def wrong_multipliers(network, slopes):
    """The results of known mistakes of `multipliers`."""
    known = {
        "The derivative of tanh is missing: multiply by 1 - z² first.": backwards(
            network, slopes, derivative=lambda before, after: 1
        ),
        "tanh is applied to the state once more: the states are tanh already, so the derivative is 1 - z².": backwards(
            network, slopes, derivative=lambda before, after: 1 - after.tanh() ** 2
        ),
        "The state is not squared: the derivative of tanh is 1 - z².": backwards(
            network, slopes, derivative=lambda before, after: 1 - after
        ),
        "The slopes of the states before the last are ignored: add each at its own step.": backwards(
            network, only_last(slopes)
        ),
    }
    if len({len(state) for state in network["states"]}) == 1:
        known |= {
            "The weights are not transposed.": backwards(network, slopes, transposed=False),
            "The derivative of tanh is multiplied after the weights: multiply λ by it first.": backwards(
                network, slopes, first=False
            ),
            "The derivative of tanh is taken at the state before: use the state that tanh produced.": backwards(
                network, slopes, derivative=lambda before, after: 1 - before**2
            ),
        }
    return known


def wrong_products(states, lambdas):
    """The gradients of the weights by known mistakes of `weight_gradients`."""
    plain, after = lambdas[1:], states[1:]

    def outer(slopes, states):
        return [torch.outer(slope, state) for slope, state in zip(slopes, states, strict=True)]

    def scaled(factors, multipliers):
        return [factor * multiplier for factor, multiplier in zip(factors, multipliers, strict=True)]

    derivatives = [1 - state**2 for state in after]
    known = {
        "The derivative of tanh is missing: multiply by 1 - z² first.": outer(plain, states[:-1]),
        "tanh is applied to the state once more: the states are tanh already, so the derivative is 1 - z².": outer(
            scaled([1 - state.tanh() ** 2 for state in after], plain), states[:-1]
        ),
        "W_k is multiplied by the state that it produces: it acts on z_k.": outer(scaled(derivatives, plain), after),
    }
    if len({len(state) for state in states}) == 1:
        known["λ_k is used for W_k: it is λ_(k+1) that belongs to its equation."] = outer(
            scaled(derivatives, lambdas[:-1]), states[:-1]
        )
        known["The derivative of tanh is taken at the state before: use the state that tanh produced."] = outer(
            scaled([1 - state**2 for state in states[:-1]], plain), states[:-1]
        )
    return known


### END HIDDEN TESTS


@inputs
def wrong(_, square, slopes, lambdas):
    """The results of known mistakes, of `multipliers` for a cost of the last and of every state."""
    ### BEGIN HIDDEN TESTS
    return {
        "last": wrong_multipliers(square, only_last(slopes)),
        "every": wrong_multipliers(square, slopes),
        "weights": wrong_products(square["states"], lambdas),
    }
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@inputs
def networks(rng):
    """A network of one step, one of float32, and two of the same widths, the first of them twice."""
    first, second = drawn_network(rng, [2, 3, 2]), drawn_network(rng, [2, 3, 2])
    single = {name: [item.float() for item in items] for name, items in second.items()}
    return {"smallest": drawn_network(rng, [2, 1]), "single": single, "first": first, "second": second, "again": first}


@inputs
def vectors(rng):
    """A vector for each state of `networks`: slopes, or multipliers."""
    found = {"smallest": [2, 1], "first": [2, 3, 2], "second": [2, 3, 2]}
    found = {name: [torch.from_numpy(rng.standard_normal(width)) for width in widths] for name, widths in found.items()}
    return found | {"single": [item.float() for item in found["second"]], "again": found["first"]}


@exercise(
    "5a",
    points=0.25,
    needs=(test_cost_of_every_state,),
    hint="Leave states and slopes as they are. A network may have a single step.",
)
def test_multipliers_of_several_networks(run, networks, vectors):
    """`multipliers` are right for a single step, for float32, and call after call."""
    got, want = run(several_multipliers, networks, vectors)
    judge_calls(got, want)
    judge_cases(got, want, {"single": SINGLE, "smallest": SMALLEST})


@exercise(
    "5b",
    points=0.25,
    needs=(test_gradients_of_the_weights,),
    hint="Leave states and multipliers as they are. A network may have a single step.",
)
def test_gradients_of_several_networks(run, networks, vectors):
    """`weight_gradients` are right for a single step, for float32, and call after call."""
    got, want = run(several_products, networks, vectors)
    judge_calls(got, want)
    judge_cases(got, want, {"single": SINGLE, "smallest": SMALLEST})


@exercise("5a", points=0.25, hint="The states may have different widths.")
def test_states_of_different_widths(run, ragged, ragged_slopes):
    """`multipliers` are right for states of different widths."""
    got, want = run(multipliers_of, ragged, ragged_slopes)
    judge_multipliers(got, want, ragged_slopes, lambda: wrong_multipliers(ragged, ragged_slopes))


@exercise("5b", points=0.25, hint="W_k has one row for each item of z_(k+1).")
def test_weights_of_different_shapes(run, ragged, ragged_lambdas):
    """`weight_gradients` are right for states of different widths."""
    got, want = run(products_of, ragged, ragged_lambdas)
    judge_products(got, want, ragged_lambdas, lambda: wrong_products(ragged["states"], ragged_lambdas))


### END HIDDEN TESTS
