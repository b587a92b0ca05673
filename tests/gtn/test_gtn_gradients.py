"""Gradients, against central differences and against torch."""

import math

import numpy as np
import pytest
import torch
from gtn_oracles import build, for_all, graphs
from hypothesis import strategies as st

from ebmcourse import gtn

STEP = 1e-4  # of weights around 1; the error of a central difference is then about 1e-8


def check(function, *inputs):
    """The gradient of the score `function(*inputs)` for every weight of every input, against differences."""
    for g in inputs:
        g.zero_grad()
    gtn.backward(function(*inputs))
    for g in inputs:
        weights = g.weights_to_numpy(np.float64)
        numeric = np.zeros(weights.size)
        for a in range(weights.size):
            for sign in (1, -1):
                moved = weights.copy()
                moved[a] += sign * STEP
                g.set_weights(moved)
                numeric[a] += sign * function(*inputs).item() / (2 * STEP)
        g.set_weights(weights)
        exact = g.grad().weights_to_numpy(np.float64) if g.is_grad_available() else np.zeros(weights.size)
        assert exact == pytest.approx(numeric, abs=1e-6)


def spread(g):
    """`g` with weights such that no two paths have the same weight, so that the best path has a gradient."""
    g.set_weights([math.sqrt(p) - 4 for p in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)[: g.num_arcs()]])
    return g


@for_all(graphs(), st.sampled_from([1.0, 0.3, 4.0, -1.0]))
def test_forward_score(g, beta):
    check(lambda g: gtn.forward_score(g, gtn.Log(beta)), g)


@for_all(graphs())
def test_best_paths(g):
    g = spread(g)
    check(gtn.viterbi_score, g)
    check(lambda g: gtn.forward_score(gtn.viterbi_path(g)), g)
    check(lambda g: gtn.forward_score(g, gtn.MinPlus()), g)
    check(lambda g: gtn.forward_score(gtn.forward_score(g, gtn.KBest(3))), g)


FUNCTIONS = {
    "compose": gtn.compose,
    "union": lambda a, b: gtn.union([a, b, a]),
    "concat": lambda a, b: gtn.concat([a, b, a]),
    "closure": lambda a, b: gtn.compose(gtn.linear_graph(2, 2), gtn.compose(gtn.closure(a), gtn.clone(b))),
    "remove": lambda a, b: gtn.concat(gtn.remove(a), gtn.remove(b, 1)),
    "project": lambda a, b: gtn.concat(gtn.project_input(a), gtn.project_output(b)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_two_graphs(name):
    @for_all(graphs(labels=(gtn.epsilon, 0, 1), max_arcs=3), graphs(labels=(gtn.epsilon, 0), max_arcs=3))
    def property_(a, b):
        try:
            gtn.forward_score(FUNCTIONS[name](a, b))
        except ValueError:  # a cycle of epsilons, or no path in common
            return
        check(lambda a, b: gtn.forward_score(FUNCTIONS[name](a, b)), a, b)

    property_()


def test_arithmetic_on_scores():
    a, b = gtn.scalar_graph(1.5), gtn.scalar_graph(-2.0)
    check(lambda a, b: gtn.subtract(gtn.add(a, gtn.negate(b)), gtn.add(b, b)), a, b)


def test_a_graph_used_in_many_places_gets_the_sum():
    g = gtn.scalar_graph(1.0)
    total = g
    for _ in range(10):
        total = gtn.add(total, total)
    gtn.backward(total)
    assert g.grad().item() == 1024


@pytest.mark.parametrize("length", range(1, 8))
def test_paths_of_different_length_to_one_graph(length):
    weight = torch.tensor([1.0], requires_grad=True)
    g = gtn.scalar_graph(0.0)
    g.set_weights(weight)
    near = far = gtn.negate(g)
    for _ in range(2 * length):
        far = gtn.negate(far)
    total = gtn.add(near, gtn.add(far, near))
    total.weights_to_torch().backward()
    assert weight.grad.item() == -3.0
    gtn.backward(total)
    assert g.grad().item() == -3.0


def test_gradients_add_up_until_zeroed():
    g = gtn.scalar_graph(1.0)
    score = gtn.negate(gtn.negate(g))
    for times in (1.0, 2.0, 3.0):
        gtn.backward(score, retain_graph=True)
        assert g.grad().item() == times
    g.zero_grad()
    assert not g.is_grad_available()


def test_changing_weights_after_a_score_does_not_change_its_gradient():
    g = gtn.linear_graph(1, 2)
    score = gtn.forward_score(g)
    g.set_weights([5.0, -5.0])
    gtn.backward(score)
    assert g.grad().weights_to_list() == [0.5, 0.5]


def test_arcs_added_to_one_graph_do_not_reach_graphs_like_it():
    first, second = gtn.linear_graph(1, 2), gtn.linear_graph(1, 2)
    first.add_arc(0, 1, 7)
    assert (first.num_arcs(), second.num_arcs(), gtn.linear_graph(1, 2).num_arcs()) == (3, 2, 2)


def test_arcs_added_to_a_result_have_a_gradient_of_their_own():
    g = gtn.linear_graph(1, 2)
    g.set_weights([3.0, 1.0])
    both = gtn.compose(g, gtn.linear_graph(1, 2))
    both.add_arc(0, 1, 7, 7, 5.0)
    gtn.backward(gtn.viterbi_score(both))
    assert g.grad().weights_to_list() == [0.0, 0.0]
    assert both.grad().weights_to_list() == [0.0, 0.0, 1.0]


def test_an_empty_composition_can_be_filled():
    g = gtn.compose(gtn.linear_graph(1, 2), gtn.linear_graph(2, 2))
    g.add_node(True, True)
    assert gtn.forward_score(g).item() == 0.0


def test_torch_gradients_flow_through_composition_and_score():
    emissions = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    transitions = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def score(emissions, transitions):
        chain = gtn.linear_graph(4, 3)
        chain.set_weights(emissions)
        bigram = build(3, [0], [0, 1, 2], [(u, v, v, v) for u in range(3) for v in range(3)])
        bigram.set_weights(transitions)
        both = gtn.compose(chain, bigram)
        return torch.cat([gtn.forward_score(both).weights_to_torch(), gtn.viterbi_score(both).weights_to_torch()])

    inputs = emissions.requires_grad_(), transitions.requires_grad_()
    assert torch.autograd.gradcheck(score, inputs)
    alpha = torch.zeros(1, dtype=torch.float64)  # the same recursion by hand: node 0 is the start
    alpha = emissions[0] + transitions.view(3, 3)[0] + alpha
    for t in range(1, 4):
        alpha = torch.logsumexp(alpha[:, None] + transitions.view(3, 3), 0) + emissions[t]
    torch.testing.assert_close(score(*inputs)[0], torch.logsumexp(alpha, 0), rtol=1e-12, atol=1e-12)


def test_torch_sees_every_weight_of_a_graph():
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    g = gtn.linear_graph(2, 2)
    g.set_weights(weights)
    (gtn.clone(g).weights_to_torch() ** 2).sum().backward()
    torch.testing.assert_close(weights.grad, 2 * weights.detach())
    assert g.weights_to_torch().dtype == torch.float32
    assert not g.is_grad_available()


def test_graphs_without_gradients_give_torch_none():
    g = gtn.linear_graph(2, 2, calc_grad=False)
    g.set_weights(torch.ones(2, 2, requires_grad=True))
    assert not gtn.forward_score(g).weights_to_torch().requires_grad
