"""Scores of a graph in any semiring, and its best paths. Weights are scores: large = likely."""

import itertools

import numpy as np

from .graph import Graph, score_graph
from .lazy import kernels
from .lists import over_lists
from .semiring import Counting, KBest, Log, MinPlus, Semiring, Tropical
from .topology import ACCEPT, START, Topology


def _checked(graph: Graph) -> Topology:
    """The graph's topology; ValueError where it cannot have an accepting path."""
    topology = graph._finish()
    if graph._empty_because:
        raise ValueError(f"There is no accepting path: {graph._empty_because}.")
    flags = int(np.bitwise_or.reduce(topology.nodes, initial=0))
    if topology.nodes.size and flags != START | ACCEPT:
        kind, word = ("accept", "accept=True") if flags & START else ("start", "start=True")
        raise ValueError(f"The graph has no {kind} node: give add_node({word}) to at least one node.")
    return topology


def _check_order(topology: Topology, stuck: int) -> None:
    """ValueError that says why accept node `stuck` cannot be scored; nothing for -1."""
    if stuck < 0:
        return
    order, _ = kernels.topological_order(topology.nodes, topology.arcs)
    blocked = np.delete(topology.arcs, order, axis=0)
    source = dict(zip(blocked[:, 1].tolist(), blocked[:, 0].tolist(), strict=True))
    # Each blocked arc leaves a node that waits for a blocked arc itself, or that nothing can reach.
    node, passed = stuck, set()
    while node in source and node not in passed:
        passed.add(node)
        node = source[node]
    if node in passed:
        raise ValueError(
            f"The graph has a cycle through node {node}, so it has paths without end and no score: compose "
            "it with an acyclic graph (such as a linear_graph) first."
        )
    raise ValueError(
        f"Node {node} leads to accept node {stuck}, but it is not a start node and no arc enters it: make it a "
        "start node, or remove its arcs."
    )


def _check_joined(topology: Topology) -> None:
    """ValueError where the graph has nodes but no accepting path."""
    if topology.nodes.size and kernels.count_paths(topology.nodes, topology.arcs)[0] == 0:
        raise ValueError("There is no accepting path: no arcs lead from a start node to an accept node.")


def _check_number(score: float) -> None:
    if score != score:
        raise ValueError("A path adds +∞ and -∞ (or a NaN): use weights that are finite, or -∞ for forbidden arcs.")


@over_lists
def forward_score(g: Graph, semiring: Semiring = Log()) -> Graph:  # noqa: B008 (an immutable value)
    """The score of all accepting paths together, as a graph with one arc (`item()` gives the number).

    With the default semiring this is log Σ over paths of exp(path weight). See `semiring` for the others;
    `KBest(k)` gives a graph with one arc for each of the (at most) k best paths. A graph without nodes scores
    -∞, as in gtn. The gradient is NaN only where the score itself is infinite.

    raises ValueError: a cycle, no start node, no accept node, no accepting path, a path that adds +∞ and -∞
    """
    if isinstance(semiring, Tropical):
        return viterbi_score(g)
    if isinstance(semiring, MinPlus):
        return _best(g, 1, -1.0)
    if isinstance(semiring, KBest):
        return _best(g, semiring.k, 1.0)
    topology = _checked(g)
    nodes, arcs = topology.nodes, topology.arcs
    if isinstance(semiring, Counting):
        count, stuck = kernels.count_paths(nodes, arcs)
        _check_order(topology, stuck)
        return score_graph(count, (), lambda delta: ())
    beta = semiring.beta
    score, shares, stuck = kernels.forward(nodes, arcs, g._weights, beta, g._calc_grad)
    _check_order(topology, stuck)
    if not abs(score) < np.inf:
        _check_number(score)
        _check_joined(topology)
    return score_graph(score / beta, (g,), lambda delta: (delta * shares,))


@over_lists
def viterbi_score(g: Graph) -> Graph:
    """The largest weight of an accepting path, as a graph with one arc. Errors as for `forward_score`."""
    return _best(g, 1, 1.0)


@over_lists
def viterbi_path(g: Graph) -> Graph:
    """The accepting path of largest weight, as a graph. Of equally good paths, it is always the same one.

    A graph without nodes gives a graph without nodes.

    raises ValueError: as for `forward_score`, and where every path has the weight -∞
    """
    paths = nbest(g, 1)
    return paths[0] if paths else Graph._of(g._finish(), g._weights, (g,), lambda delta: (delta,))


def nbest(g: Graph, n: int) -> list[Graph]:
    """The n accepting paths of largest weight, best first; fewer where the graph has fewer of weight above -∞.

    Paths differ in their arcs; two of them can have the same labels.

    raises ValueError: as for `viterbi_path`, and for n < 1
    """
    if n < 1:
        raise ValueError(f"nbest needs n ≥ 1, not {n}.")
    topology = _checked(g)
    _, paths = _best_paths(topology, g._weights, n)
    if topology.nodes.size and not paths:
        _check_joined(topology)
        raise ValueError("There is no accepting path: every path has an arc of weight -∞.")
    return [path_graph(g, path) for path in paths]


def path_graph(g: Graph, path: np.ndarray) -> Graph:
    """The arcs `path` of g, which follow each other, as a graph."""
    length = path.size
    nodes = np.zeros(length + 1, np.uint8)
    nodes[0] = START
    nodes[-1] |= ACCEPT
    arcs = g._finish().arcs[path]
    arcs[:, 0] = np.arange(length)
    arcs[:, 1] = arcs[:, 0] + 1
    size = g._weights.size
    return Graph._of(
        Topology(nodes, arcs),
        g._weights[path],
        (g,),
        lambda delta: (np.bincount(path, delta, size),),
    )


def _best_paths(topology: Topology, weights: np.ndarray, k: int) -> tuple[np.ndarray, list[np.ndarray]]:
    scores, flat, stops, stuck = kernels.best_paths(topology.nodes, topology.arcs, weights, k)
    _check_order(topology, stuck)
    return scores, [flat[i:j] for i, j in itertools.pairwise(stops)]


def _best(g: Graph, k: int, sign: float) -> Graph:
    """The k largest path weights (smallest, where sign is -1) as parallel arcs of a graph; -∞ where k = 1 and
    every path is forbidden."""
    topology = _checked(g)
    scores, paths = _best_paths(topology, sign * g._weights, k)
    if not paths:
        _check_joined(topology)
        return score_graph(-sign * np.inf, (g,), lambda delta: (np.zeros(g._weights.size),))
    size = g._weights.size

    def backward(delta: np.ndarray) -> tuple[np.ndarray]:
        grad = np.zeros(size)
        for path, d in zip(paths, delta, strict=True):
            grad[path] += d
        return (grad,)

    if k == 1:
        return score_graph(sign * float(scores[0]) + 0.0, (g,), backward)  # + 0.0: never -0
    arcs = np.tile(np.array([0, 1, 0, 0], np.int32), (len(paths), 1))
    return Graph._of(Topology(np.array([START, ACCEPT], np.uint8), arcs), scores, (g,), backward)
