"""Are two graphs the same? Exactly, up to the numbering of nodes, or as far as random paths can tell."""

import random
from collections import Counter
from typing import Any

import numpy as np

from .compose import compose
from .functions import project_input, project_output
from .graph import Graph
from .shortest import forward_score, path_graph
from .topology import ACCEPT, START


def _rows(g: Graph) -> list[tuple]:
    """(source, destination, input label, output label, weight) of each arc."""
    arcs = g._finish().arcs.tolist()
    return [(*arc, weight) for arc, weight in zip(arcs, g.weights_to_list(), strict=True)]


def equal(g1: Graph, g2: Graph) -> bool:
    """Whether both have the same nodes and the same arcs, labels and weights included, in any order."""
    return bool(np.array_equal(g1._finish().nodes, g2._finish().nodes)) and Counter(_rows(g1)) == Counter(_rows(g2))


def isomorphic(g1: Graph, g2: Graph) -> bool:
    """Whether the nodes of g1 can be renumbered so that it equals g2. Slow for large, very regular graphs."""
    if (g1.num_nodes(), g1.num_arcs()) != (g2.num_nodes(), g2.num_arcs()):
        return False
    names: dict[Any, int] = {}
    rows = _rows(g1), _rows(g2)

    def refined(colours: list[list[Any]]) -> list[list[Any]] | None:
        """Colour nodes by their own colour and those of their neighbours across each kind of arc, until no
        colours no longer change; None where the two graphs then have different colours."""
        while True:
            around: list[list[list]] = [[[] for _ in colour] for colour in colours]
            for colour, seen, arcs in zip(colours, around, rows, strict=True):
                for u, v, *arc in arcs:
                    seen[u].append((0, colour[v], *arc))
                    seen[v].append((1, colour[u], *arc))
            finer = [
                [names.setdefault((c, *sorted(s)), len(names)) for c, s in zip(colour, seen, strict=True)]
                for colour, seen in zip(colours, around, strict=True)
            ]
            if Counter(finer[0]) != Counter(finer[1]):
                return None
            if len(set(finer[0])) == len(set(colours[0])):
                return finer
            colours = finer

    # Where nodes still share a colour, one of them must correspond to some node of that colour: try each.
    todo: list[list[list[Any]]] = [[g._finish().nodes.tolist() for g in (g1, g2)]]
    while todo:
        colours = refined(todo.pop())
        if colours is None:
            continue
        shared = [(size, colour) for colour, size in Counter(colours[0]).items() if size > 1]
        if not shared:
            return True
        rarest = min(shared)[1]
        u = colours[0].index(rarest)
        for x in [x for x, colour in enumerate(colours[1]) if colour == rarest]:
            todo.append([[*c[:y], -1, *c[y + 1 :]] for c, y in zip(colours, (u, x), strict=True)])
    return False


def sample(g: Graph, max_length: int = 1000, rng: random.Random | None = None) -> Graph:
    """A random path: at each node one of its arcs, or the end where it accepts, all equally likely.

    A walk that ends at a node without arcs, or that meets no accept node within `max_length` arcs, gives a
    graph without nodes. The path depends on `rng`, or on Python's global generator where that is None.
    """
    draw: Any = rng or random
    topology = g._finish()
    first, ids = topology.by_source()
    starts = np.flatnonzero(topology.nodes & START)
    if not starts.size or not (topology.nodes & ACCEPT).any():
        return Graph()
    node = int(starts[draw.randrange(starts.size)])
    path: list[int] = []
    accepted = -1
    for length in range(max_length + 1):
        accepts = bool(topology.nodes[node] & ACCEPT)
        accepted = length if accepts else accepted
        arcs = ids[first[node] : first[node + 1]]
        if not arcs.size and not accepts:
            return Graph()
        choice = draw.randrange(arcs.size + accepts)
        if choice == arcs.size:
            break
        path.append(int(arcs[choice]))
        node = int(topology.arcs[path[-1], 1])
    return path_graph(g, np.array(path[:accepted], np.int64)) if accepted >= 0 else Graph()


def rand_equivalent(
    g1: Graph,
    g2: Graph,
    num_samples: int = 1000,
    tol: float = 1e-4,
    max_length: int = 1000,
    rng: random.Random | None = None,
) -> bool:
    """Whether `num_samples` random paths, drawn from both graphs by `sample`, have the same score in each.

    The score of a path is the forward score of all paths with the same labels, compared with the absolute
    tolerance `tol`. True does not prove that the graphs are equivalent.

    raises ValueError: a graph has a cycle of epsilons
    """
    draw: Any = rng or random
    for _ in range(num_samples):
        path = sample(g1 if draw.random() < 0.5 else g2, max_length, rng)
        if path.num_nodes() == 0:
            continue
        inputs, outputs = project_input(path), project_output(path)
        same = [compose(compose(inputs, g), outputs) for g in (g1, g2)]
        if (same[0].num_nodes() == 0) != (same[1].num_nodes() == 0):
            return False
        if same[0].num_nodes():
            a, b = (forward_score(g).item() for g in same)
            if a != b and not abs(a - b) <= tol:
                return False
    return True
