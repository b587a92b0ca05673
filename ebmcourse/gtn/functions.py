"""Functions that build graphs from graphs: arithmetic on scores, and the regular operations on languages.

A score is a graph with one arc; the arithmetic raises ValueError for any other graph. Gradients flow through all
of these functions.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from .graph import Graph, score_graph
from .lists import broadcast, over_lists
from .topology import ACCEPT, EPSILON, INPUT, OUTPUT, START, Topology


def _number(g: Graph, function: str) -> float:
    if g.num_arcs() != 1:
        raise ValueError(f"{function}() works on scores, graphs with one arc; this one has {g.num_arcs()}.")
    g._finish()
    return g.item()


@over_lists
def negate(g: Graph) -> Graph:
    """-g, for a score g."""
    return score_graph(-_number(g, "negate"), (g,), lambda delta: (-delta,))


@over_lists
def add(g1: Graph, g2: Graph) -> Graph:
    """g1 + g2, for two scores."""
    return score_graph(_number(g1, "add") + _number(g2, "add"), (g1, g2), lambda delta: (delta, delta))


@over_lists
def subtract(g1: Graph, g2: Graph) -> Graph:
    """g1 - g2, for two scores."""
    value = _number(g1, "subtract") - _number(g2, "subtract")
    return score_graph(value, (g1, g2), lambda delta: (delta, -delta))


def _copy(g: Graph, arcs: np.ndarray) -> Graph:
    copy = Graph._of(Topology(g._finish().nodes, arcs), g._weights, (g,), lambda delta: (delta,))
    copy._empty_because = g._empty_because
    return copy


@over_lists
def clone(g: Graph) -> Graph:
    """A copy of g."""
    return _copy(g, g._finish().arcs)


@over_lists
def project_input(g: Graph) -> Graph:
    """g with its input labels as output labels too: an acceptor."""
    arcs = g._finish().arcs.copy()
    arcs[:, OUTPUT] = arcs[:, INPUT]
    return _copy(g, arcs)


@over_lists
def project_output(g: Graph) -> Graph:
    """g with its output labels as input labels too: an acceptor."""
    arcs = g._finish().arcs.copy()
    arcs[:, INPUT] = arcs[:, OUTPUT]
    return _copy(g, arcs)


def _side_by_side(
    graphs: Sequence[Graph],
    nodes: Sequence[np.ndarray],
    joints: Iterable[tuple[int, int]] = (),
    first: int = 0,
) -> Graph:
    """All graphs in one, their nodes numbered one after the other from `first`, with the flags `nodes` and with
    epsilon arcs of weight 0 (`joints`) after all other arcs.
    """
    arcs, weights, offset = [np.empty((0, 4), np.int32)], [np.empty(0)], first
    for g in graphs:
        arcs.append(g._finish().arcs + np.array([offset, offset, 0, 0], np.int32))
        weights.append(g._weights)
        offset += g.num_nodes()
    epsilons = np.array([(u, v, EPSILON, EPSILON) for u, v in joints], np.int32).reshape(-1, 4)
    bounds = np.cumsum([w.size for w in weights])

    def backward(delta: np.ndarray) -> list[np.ndarray]:
        return [delta[i:j] for i, j in itertools.pairwise(bounds)]

    topology = Topology(np.concatenate([np.empty(0, np.uint8), *nodes]), np.concatenate([*arcs, epsilons]))
    return Graph._of(topology, np.concatenate([*weights, np.zeros(len(epsilons))]), tuple(graphs), backward)


def _flagged(g: Graph, flag: int) -> list[int]:
    return np.flatnonzero(g._finish().nodes & flag).tolist()


def union(graphs: Sequence) -> Graph | list[Graph]:
    """The graph of all paths of the given graphs. A list of lists gives a list of unions."""
    if graphs and not isinstance(graphs[0], Graph):
        return [union(g) for g in graphs]  # type: ignore[misc]
    return _side_by_side(graphs, [g._finish().nodes for g in graphs])


def concat(graphs: Graph | Sequence, other: Graph | Sequence | None = None) -> Graph | list[Graph]:
    """The graph of all paths that are a path of the first graph, then one of the second, and so on.

    Epsilon arcs of weight 0 join them. Takes two graphs or a list of graphs (an empty list gives the graph that
    accepts only the empty string); two lists of graphs, or a list of lists, give a list.
    """
    if other is not None:
        pairs = list(broadcast(graphs, other))
        return concat(pairs[0]) if isinstance(graphs, Graph) else [concat(pair) for pair in pairs]  # type: ignore
    if graphs and not isinstance(graphs[0], Graph):  # type: ignore[index]
        return [concat(g) for g in graphs]  # type: ignore
    if not graphs:
        return Graph._of(Topology(np.array([START | ACCEPT], np.uint8), np.empty((0, 4), np.int32)), np.empty(0))
    nodes, joints, offset = [], [], 0
    for i, g in enumerate(graphs):  # type: ignore[arg-type]
        kept = (START if i == 0 else 0) | (ACCEPT if i == len(graphs) - 1 else 0)  # type: ignore[arg-type]
        nodes.append(g._finish().nodes & np.uint8(kept))
        if i > 0:
            before = graphs[i - 1]  # type: ignore[index]
            ends = [u + offset - before.num_nodes() for u in _flagged(before, ACCEPT)]
            joints += [(u, v + offset) for u in ends for v in _flagged(g, START)]
        offset += g.num_nodes()
    return _side_by_side(graphs, nodes, joints)  # type: ignore[arg-type]


@over_lists
def closure(g: Graph) -> Graph:
    """The graph of any number of paths of g, one after the other, including none (Kleene's star)."""
    nodes = [np.array([START | ACCEPT], np.uint8), np.zeros(g.num_nodes(), np.uint8)]
    joints = [(0, v + 1) for v in _flagged(g, START)] + [(u + 1, 0) for u in _flagged(g, ACCEPT)]
    return _side_by_side([g], nodes, joints, first=1)


@over_lists
def remove(g: Graph, label: int = EPSILON, olabel: int | None = None, *, ilabel: int | None = None) -> Graph:
    """g without its arcs label:olabel (by default epsilons; `olabel` defaults to `label`, also called `ilabel`).

    Each path of removed arcs before an arc becomes part of that arc, its weight included: there is one new arc
    for each such path that visits no node twice. Where removed arcs lead to an accept node, the node before them
    accepts; their own weights are lost, because a graph has no final weights.
    """
    ilabel = label if ilabel is None else ilabel
    olabel = ilabel if olabel is None else olabel
    topology = g._finish()
    nodes, arcs = topology.nodes, topology.arcs
    removed = (arcs[:, INPUT] == ilabel) & (arcs[:, OUTPUT] == olabel)
    kept = (nodes & START) != 0
    kept[arcs[~removed, 1]] = True
    number = np.cumsum(kept) - 1
    flags = nodes & np.uint8(START)
    leaving: list[list[tuple[int, int]]] = [[] for _ in range(nodes.size)]
    for a, (u, v) in enumerate(arcs[:, :2].tolist()):
        leaving[u].append((a, v))

    rows: list[tuple[int, int, int, int]] = []
    owners: list[int] = []  # for each old arc in a new one: the new arc …
    parts: list[int] = []  # … and the old arc
    for start in np.flatnonzero(kept).tolist():
        walks: list[tuple[int, tuple[int, ...], frozenset[int]]] = [(start, (), frozenset([start]))]
        for node, walk, visited in walks:  # grows during the loop: breadth first
            flags[start] |= nodes[node] & ACCEPT
            for a, v in leaving[node]:
                if not removed[a]:
                    owners += [len(rows)] * (len(walk) + 1)
                    parts += [*walk, a]
                    rows.append((number[start], number[v], arcs[a, INPUT], arcs[a, OUTPUT]))
                elif v not in visited:
                    walks.append((v, (*walk, a), visited | {v}))
    size = g._weights.size
    owner, part = np.array(owners, np.int64), np.array(parts, np.int64)
    weights = np.zeros(len(rows))
    np.add.at(weights, owner, g._weights[part])
    return Graph._of(
        Topology(flags[kept], np.array(rows, np.int32).reshape(-1, 4)),
        weights,
        (g,),
        lambda delta: (np.bincount(part, delta[owner], size),),
    )
