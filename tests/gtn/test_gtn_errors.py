"""Mistakes raise one sentence that says what to do."""

import math

import numpy as np
import pytest
import torch
from gtn_oracles import build

from ebmcourse import gtn

NO_PATH = build(3, [0], [2], [(0, 1, 0)])
FORBIDDEN = build(2, [0], [1], [(0, 1, 0, 0, -math.inf)])
TWO_INFINITIES = build(3, [0], [2], [(0, 1, 0, 0, math.inf), (1, 2, 0, 0, -math.inf)])
LOOP = build(3, [0], [2], [(0, 1, 0), (1, 1, 1), (1, 2, 0)])
CYCLE = build(4, [0], [3], [(0, 1, 0), (1, 2, 0), (2, 1, 0), (2, 3, 0)])
UNREACHABLE = build(3, [0], [2], [(0, 2, 0), (1, 2, 0)])
LONG = gtn.compose(gtn.linear_graph(2, 3), gtn.ctc_graph([1, 1]))


@pytest.mark.parametrize("score", [gtn.forward_score, gtn.viterbi_score, gtn.viterbi_path])
@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (build(2, [], [1], [(0, 1, 0)]), r"no start node: give add_node\(start=True\)"),
        (build(2, [0], [], [(0, 1, 0)]), r"no accept node: give add_node\(accept=True\)"),
        (NO_PATH, "no accepting path"),
        (LONG, "no accepting path: .* too few frames"),
        (gtn.project_output(LONG), "no accepting path: .* too few frames"),
        (LOOP, "cycle through node 1"),
        (CYCLE, "cycle through node [12],.* compose it with an acyclic graph"),
        (UNREACHABLE, "Node 1 leads to accept node 2, .* make it a start node"),
    ],
)
def test_graphs_without_a_score(score, graph, message):
    with pytest.raises(ValueError, match=message):
        score(graph)


@pytest.mark.parametrize("semiring", [gtn.Log(2.0), gtn.Tropical(), gtn.MinPlus(), gtn.Counting(), gtn.KBest(3)])
def test_cycles_are_refused_in_every_semiring(semiring):
    with pytest.raises(ValueError, match="cycle"):
        gtn.forward_score(CYCLE, semiring)


def test_graphs_with_forbidden_paths_only():
    assert gtn.forward_score(FORBIDDEN).item() == gtn.viterbi_score(FORBIDDEN).item() == -math.inf
    with pytest.raises(ValueError, match="every path has an arc of weight -∞"):
        gtn.viterbi_path(FORBIDDEN)
    with pytest.raises(ValueError, match=r"\+∞ and -∞"):
        gtn.forward_score(TWO_INFINITIES)
    infinite = gtn.forward_score(FORBIDDEN)
    with pytest.raises(ValueError, match="∞ - ∞"):
        gtn.subtract(infinite, infinite)


def test_the_graph_without_nodes_scores_as_in_gtn():
    assert gtn.forward_score(gtn.Graph()).item() == -math.inf
    assert gtn.viterbi_path(gtn.Graph()).num_nodes() == 0


def two_nodes():
    return build(2, [0], [1], [(0, 1, 0), (0, 1, 1)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.add_arc(0, 2, 0), "nodes that do not exist .*has 2.*call add_node"),
        (lambda g: g.add_arc(-1, 0, 0), "nodes that do not exist"),
        (lambda g: g.add_arc(0, 1, -2), "out of range: use labels 0, 1"),
        (lambda g: g.add_arc(0, 1, 0, 2**31), "out of range"),
        (lambda g: g.add_arc(0, 1, "a"), "must be integers"),
        (lambda g: g.add_arc(0, 1, 1.5), "must be integers"),
        (lambda g: g.add_arc(0, 1), "must be integers"),
        (lambda g: g.add_arc(0, 1, 0, 0, math.nan), "NaN: give it a number"),
        (lambda g: g.set_weights([1.0]), "got 1 weights for 2 arcs"),
        (lambda g: g.set_weights(np.zeros(3)), "got 3 weights for 2 arcs"),
        (lambda g: g.set_weights(torch.zeros(2, 2)), "got 4 weights for 2 arcs"),
        (lambda g: g.set_weights([math.inf, math.nan]), "weight for arc 1 is NaN"),
        (lambda g: g.set_weights(0), "address 0"),
        (lambda g: g.item(), r"this one has 2.*weights_to_list\(\)"),
        (lambda g: gtn.negate(g), "scores, graphs with one arc; this one has 2"),
        (lambda g: gtn.nbest(g, 0), "n ≥ 1"),
        (lambda g: gtn.KBest(0), "k ≥ 1"),
        (lambda g: gtn.Log(0.0), "finite beta ≠ 0"),
        (lambda g: gtn.Log(math.inf), r"Tropical\(\) and MinPlus\(\)"),
        (lambda g: gtn.scalar_graph(math.nan), "cannot hold NaN"),
        (lambda g: gtn.linear_graph(-1, 3), "M ≥ 0"),
        (lambda g: gtn.linear_graph(1, 1, gtn.Device(gtn.CUDA)), r"always on the CPU: give gtn\.Device\(gtn\.CPU\)"),
        (lambda g: gtn.scalar_graph(1.0, gtn.Device(gtn.CUDA, 1)), "always on the CPU"),
        (lambda g: gtn.linear_graph(1, 1, g), "must be a gtn.Device .*, not a Graph"),
        (lambda g: gtn.Device("cpu"), "gtn.CPU or gtn.CUDA, not 'cpu'"),
        (lambda g: gtn.backward(g, gtn.scalar_graph(1.0)), "grad has 1 arcs and the graph 2"),
        (lambda g: gtn.ctc_graph([1, 0], blank=0), r"contains the blank \(0\)"),
        (lambda g: gtn.most_offending_path(gtn.ctc_graph([]), []), "there is no wrong answer"),
        (lambda g: gtn.draw(g, "graph.jpeg"), r"\.svg, \.png, \.pdf or \.dot"),
        (lambda g: gtn.draw(g, "graph.svg", emphasis=[1.0]), "1 numbers for 2 arcs"),
    ],
)
def test_wrong_arguments(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        call(two_nodes())
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_gradients_that_do_not_exist():
    g = two_nodes()
    with pytest.raises(RuntimeError, match=r"no gradient yet: call gtn\.backward"):
        g.grad()
    g.calc_grad = False
    with pytest.raises(RuntimeError, match="calc_grad=False"):
        g.grad()


def test_arcs_added_between_use_and_backward():
    g = two_nodes()
    score = gtn.forward_score(g)
    g.add_arc(0, 1, 2)
    with pytest.raises(ValueError, match="do not add arcs"):
        gtn.backward(score)


def test_arcs_added_to_a_graph_of_a_tensor():
    g = two_nodes()
    g.set_weights(torch.zeros(2, requires_grad=True))
    with pytest.raises(ValueError, match="before set_weights"):
        g.add_arc(0, 1, 2)


def test_freed_records():
    g = gtn.forward_score(two_nodes())
    gtn.backward(g)
    with pytest.raises(ValueError, match="retain_graph=True"):
        gtn.backward(g)
    with pytest.raises(ValueError, match="retain_graph=True"):
        g.weights_to_torch()


def test_a_nan_at_an_address_forbids_its_arc():
    """gtn's own STC criterion gives log(exp(-inf) - exp(-inf)), a NaN, for a class of probability 0."""
    g = two_nodes()
    weights = np.array([math.nan, 2.0], np.float32)
    with pytest.warns(RuntimeWarning, match="weight for arc 0 is NaN: .* taken as -inf"):
        g.set_weights(weights.ctypes.data)
    assert g.weights_to_list() == [-math.inf, 2.0]
    weights[1] = math.nan
    with pytest.raises(ValueError, match="weight for arc 0 is NaN"):
        g.set_weights(weights.ctypes.data)
