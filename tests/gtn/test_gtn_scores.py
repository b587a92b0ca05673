"""Scores and best paths, against a list of all paths."""

import math
from collections import Counter

import numpy as np
import pytest
from gtn_oracles import build, for_all, graphs, log_sum_exp, paths, rows, weight
from hypothesis import strategies as st

from ebmcourse import gtn


@for_all(graphs(), st.sampled_from([0.5, 1.0, 3.0, -1.0, -2.0]))
def test_forward_score_is_the_log_sum_of_all_paths(g, beta):
    expected = log_sum_exp([weight(g, path) for path in paths(g)], beta)
    assert gtn.forward_score(g, gtn.Log(beta)).item() == pytest.approx(expected, abs=1e-12)


@for_all(graphs())
def test_min_and_max_are_over_all_paths(g):
    weights = [weight(g, path) for path in paths(g)]
    assert gtn.viterbi_score(g).item() == max(weights)
    assert gtn.forward_score(g, gtn.Tropical()).item() == max(weights)
    assert gtn.forward_score(g, gtn.MinPlus()).item() == min(weights)
    assert gtn.forward_score(g, gtn.Counting()).item() == len(weights)


@for_all(graphs())
def test_viterbi_path_is_an_accepting_path_of_the_best_weight(g):
    path = gtn.viterbi_path(g)
    labelled = [tuple(arc[2:] for arc in (rows(g)[a] for a in p)) for p in paths(g)]
    assert tuple(arc[2:] for arc in rows(path)) in labelled
    assert weight(path, list(range(path.num_arcs()))) == gtn.viterbi_score(g).item()


@for_all(graphs(), st.integers(1, 12))
def test_nbest_lists_the_best_paths_once_each(g, n):
    best = sorted((weight(g, path) for path in paths(g)), reverse=True)[:n]
    found = gtn.nbest(g, n)
    assert [sum(path.weights_to_list()) for path in found] == best
    assert gtn.forward_score(g, gtn.KBest(n)).weights_to_list() == best
    taken = []
    for path in found:  # the gradient of a path marks its arcs
        g.zero_grad()
        gtn.backward(path)
        taken.append([a for a, used in enumerate(g.grad().weights_to_list()) if used])
    there = Counter(tuple(sorted(path)) for path in paths(g))
    assert Counter(map(tuple, taken)) <= there


@for_all(graphs(), st.sampled_from([1.0, 10.0, 1e3, 1e6]))
def test_a_large_beta_comes_within_log_paths_over_beta_of_viterbi(g, beta):
    slack = math.log(gtn.forward_score(g, gtn.Counting()).item()) / beta + 1e-12
    best, worst = gtn.viterbi_score(g).item(), gtn.forward_score(g, gtn.MinPlus()).item()
    assert best - 1e-12 <= gtn.forward_score(g, gtn.Log(beta)).item() <= best + slack
    assert worst - slack <= gtn.forward_score(g, gtn.Log(-beta)).item() <= worst + 1e-12


def test_scores_of_long_chains_do_not_overflow():
    g = gtn.linear_graph(1000, 3)
    g.set_weights([500.0] * 3000)
    assert gtn.forward_score(g).item() == pytest.approx(500e3 + 1000 * math.log(3), rel=1e-12)
    assert gtn.viterbi_score(g).item() == 500e3


def test_arcs_of_weight_minus_infinity_are_forbidden():
    g = build(3, [0], [2], [(0, 1, 0, 0, -math.inf), (1, 2, 0, 0, 1.0), (0, 2, 1, 1, 2.0)])
    assert gtn.forward_score(g).item() == 2.0
    assert [path.labels_to_list() for path in gtn.nbest(g, 5)] == [[1]]
    gtn.backward(gtn.forward_score(g))
    assert g.grad().weights_to_list() == [0.0, 0.0, 1.0]


@for_all(graphs())
def test_a_cycle_that_leads_to_no_accept_node_does_not_matter(g):
    before = gtn.forward_score(g).item()
    start = rows(g)[0][0]
    dead = [g.add_node(), g.add_node()]
    g.add_arc(start, dead[0], 0)
    g.add_arc(dead[0], dead[1], 0)
    g.add_arc(dead[1], dead[0], 0)
    assert gtn.forward_score(g).item() == pytest.approx(before, abs=1e-12)


def test_probabilities_of_arcs_are_the_gradient():
    g = gtn.linear_graph(4, 5)
    weights = np.random.default_rng(0).normal(size=(4, 5))
    g.set_weights(weights)
    gtn.backward(gtn.forward_score(g))
    softmax = np.exp(weights) / np.exp(weights).sum(1, keepdims=True)
    assert g.grad().weights_to_numpy(np.float64).reshape(4, 5) == pytest.approx(softmax, abs=1e-12)
