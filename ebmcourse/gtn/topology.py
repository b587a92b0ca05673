"""The unchanging part of a graph: its nodes and arcs, without the weights."""

import numpy as np

from .lazy import kernels

EPSILON = -1
START, ACCEPT = 1, 2  # flags of a node
INPUT, OUTPUT = 2, 3  # columns of the arcs that hold labels
MAX_LABEL = 2**31 - 1


class Topology:
    """`nodes` (N,) uint8 flags, and `arcs` (A, 4) int32 rows: source, destination, input label, output label.

    Graphs that differ only in weights share one.
    """

    def __init__(self, nodes: np.ndarray, arcs: np.ndarray):
        self.nodes = nodes
        self.arcs = arcs
        self._groups: dict[int | None, tuple[np.ndarray, np.ndarray]] = {}

    def by_source(self, column: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Arc ids grouped by source node: those of node u are `ids[first[u]:first[u + 1]]`, in the order
        in which they were added, or sorted by the label in `column` (INPUT or OUTPUT).
        """
        if column not in self._groups:
            if column is None:  # contiguous, because numba compiles once more for a column that is, as of a single arc
                self._groups[column] = kernels.group(np.ascontiguousarray(self.arcs[:, 0]), self.nodes.size)
            else:
                ids = np.lexsort((self.arcs[:, column], self.arcs[:, 0])).astype(np.int32)
                first = np.searchsorted(self.arcs[ids, 0], np.arange(self.nodes.size + 1)).astype(np.int32)
                self._groups[column] = first, ids
        return self._groups[column]
