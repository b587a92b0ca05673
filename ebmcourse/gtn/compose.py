"""Composition, the central operation of graph transformer networks."""

import numpy as np

from .graph import Graph
from .lazy import kernels
from .lists import over_lists
from .topology import INPUT, OUTPUT, Topology


@over_lists
def compose(g1: Graph, g2: Graph) -> Graph:
    """The transducer that applies g1, then g2.

    It has one path for each pair of paths where the output of g1 equals the input of g2 (epsilons apart), with
    g1's input labels, g2's output labels and the sum of both weights. Where there is no such pair, the result has
    no nodes, and scoring it raises ValueError.
    """
    t1, t2 = g1._finish(), g2._finish()
    # Look arcs up in the graph with more arcs per node, and loop over those of the other.
    search1 = t1.arcs.shape[0] * t2.nodes.size > t2.arcs.shape[0] * t1.nodes.size
    first1, ids1 = t1.by_source(OUTPUT if search1 else None)
    first2, ids2 = t2.by_source(None if search1 else INPUT)
    nodes, arcs, weights, parents = kernels.compose(
        t1.nodes, t1.arcs, g1._weights, first1, ids1, t2.nodes, t2.arcs, g2._weights, first2, ids2, search1
    )
    size1, size2 = g1._weights.size, g2._weights.size

    def backward(delta: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        return (
            kernels.gathered(parents, 0, delta, size1) if g1._calc_grad else None,
            kernels.gathered(parents, 1, delta, size2) if g2._calc_grad else None,
        )

    result = Graph._of(Topology(nodes, arcs), weights, (g1, g2), backward)
    if nodes.size == 0:
        result._empty_because = (
            "the two graphs composed have no path in common (for CTC: too few frames for the letters and the "
            "blanks between equal ones, or a label that the emissions lack)"
        )
    return result


def intersect(g1: Graph, g2: Graph) -> Graph:
    """The paths that two acceptors share, with the sum of their weights: `compose` under gtn's other name."""
    return compose(g1, g2)
