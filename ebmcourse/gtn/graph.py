"""The graph: a weighted automaton with labels on its arcs, and the simplest ways to make one.

A *path* leads from a start node to an accept node; its weight is the sum of its arcs' weights. Weights are
scores: large = likely. For energies (low = likely), give −E, or score with a min-semiring (see `semiring`).
"""

import ctypes
import functools
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .autodiff import Differentiable
from .device import CPU, Device, wants_grad
from .picture import to_svg
from .text import to_text
from .topology import ACCEPT, EPSILON, INPUT, MAX_LABEL, OUTPUT, START, Topology


class Graph(Differentiable):
    """A weighted automaton (acceptor or transducer) that records how it was made, for `backward`.

    calc_grad: whether `backward` computes the gradient of this graph's weights
    """

    _empty_because: str = ""  # set where a composition has no path at all

    def __init__(self, calc_grad: bool = True):
        self._calc_grad = bool(calc_grad)
        # While being built: flags of each node, four numbers per arc, a weight per arc. `_finish` turns them
        # into arrays when these are first needed; `_topology` is None until then.
        self._topology: Topology | None = None
        self._nodes: list[int] = []
        self._arcs: list[int] = []
        self._weights: Any = []

    @classmethod
    def _of(
        cls,
        topology: Topology,
        weights: np.ndarray,
        inputs: "Sequence[Graph]" = (),
        backward: "Callable[[np.ndarray], Sequence[np.ndarray | None]] | None" = None,
        calc_grad: bool = False,
    ) -> "Graph":
        """A finished graph; with `inputs` it needs a gradient where one of them does."""
        graph = cls.__new__(cls)
        graph._topology = topology
        graph._weights = weights
        graph._calc_grad = calc_grad
        for g in inputs:
            if g._calc_grad:
                graph._calc_grad = True
                graph._inputs = inputs
                graph._backward = backward
                graph._depth = max(graph._depth, g._depth + 1)
        return graph

    def add_node(self, start: bool = False, accept: bool = False) -> int:
        """Add a node and return its number (0, 1, …)."""
        if self._topology is not None:
            self._reopen()
        self._nodes.append((START if start else 0) | (ACCEPT if accept else 0))
        return len(self._nodes) - 1

    def add_arc(
        self,
        src_node: int,
        dst_node: int,
        ilabel: int | None = None,
        olabel: int | None = None,
        weight: float = 0.0,
        *,
        label: int | None = None,
    ) -> int:
        """Add an arc and return its number (0, 1, …).

        ilabel, olabel: integers ≥ 0, or `epsilon` (-1) for an arc that reads or writes nothing; `olabel` defaults
            to `ilabel`, and `label` gives both
        weight: a score (large = likely)
        raises ValueError: a node that does not exist, a label out of range, a NaN
        """
        if self._topology is not None:
            self._reopen()
        if ilabel is None:
            ilabel = label
        if olabel is None:
            olabel = ilabel
        count = len(self._nodes)
        try:
            # `index` accepts numpy integers and 0-d tensors, and refuses floats.
            index = operator.index
            src_node, dst_node = index(src_node), index(dst_node)
            ilabel, olabel = index(ilabel), index(olabel)  # type: ignore[arg-type]
        except TypeError:
            raise ValueError(
                f"Nodes and labels of an arc must be integers, not {src_node!r}, {dst_node!r}, {ilabel!r}, "
                f"{olabel!r}: map symbols to numbers 0, 1, … first."
            ) from None
        if not (0 <= src_node < count and 0 <= dst_node < count):
            raise ValueError(
                f"Arc {src_node} → {dst_node} needs nodes that do not exist (the graph has {count}): "
                "call add_node() for each node first."
            )
        if not (EPSILON <= ilabel <= MAX_LABEL and EPSILON <= olabel <= MAX_LABEL):
            raise ValueError(
                f"Label {ilabel}:{olabel} on arc {src_node} → {dst_node} is out of range: use labels 0, 1, … "
                "or gtn.epsilon (-1)."
            )
        weight = float(weight)
        if weight != weight:
            raise ValueError(f"The weight of arc {src_node} → {dst_node} is NaN: give it a number.")
        self._arcs += (src_node, dst_node, ilabel, olabel)
        self._weights.append(weight)
        return len(self._weights) - 1

    def _finish(self) -> Topology:
        """The topology, made from the lists where the graph is still being built."""
        if self._topology is None:
            nodes = np.array(self._nodes, np.uint8)
            arcs = np.array(self._arcs, np.int32).reshape(-1, 4)
            self._weights = np.array(self._weights)
            self._topology = Topology(nodes, arcs)
        return self._topology

    def _reopen(self) -> None:
        """Back to lists, so that nodes and arcs can be added; graphs that share the topology keep it."""
        assert self._topology is not None
        if self._tensor is not None:
            raise ValueError("The weights of this graph are a torch tensor: add nodes and arcs before set_weights().")
        if (backward := self._backward) is not None:
            count = len(self._weights)
            self._backward = lambda delta: backward(delta[:count])  # arcs added now come from nowhere
        self._nodes = self._topology.nodes.tolist()
        self._arcs = self._topology.arcs.ravel().tolist()
        self._weights = self._weights.tolist()
        self._topology, self._empty_because = None, ""

    def arc_sort(self, olabel: bool = False) -> None:
        """Has no effect: composition sorts arcs where that helps. It is here so that code for gtn runs."""

    def mark_arc_sorted(self, olabel: bool = False) -> None:
        """Has no effect, see `arc_sort`."""

    def num_nodes(self) -> int:
        """The number of nodes, N."""
        return len(self._nodes) if self._topology is None else self._topology.nodes.size

    def num_arcs(self) -> int:
        """The number of arcs, A."""
        return len(self._weights)

    def num_start(self) -> int:
        """The number of start nodes."""
        return int(np.count_nonzero(self._finish().nodes & START))

    def num_accept(self) -> int:
        """The number of accept nodes."""
        return int(np.count_nonzero(self._finish().nodes & ACCEPT))

    def item(self) -> float:
        """The weight of a graph with one arc (a score). ValueError for any other graph."""
        if len(self._weights) != 1:
            raise ValueError(
                f"item() is for a graph with one arc, such as a score; this one has {self.num_arcs()}: "
                "use weights_to_list()."
            )
        return float(self._weights[0])

    def labels_to_list(self, ilabel: bool = True) -> list[int]:
        """The input (or output) labels of all arcs, (A,), in the order in which the arcs were added."""
        return self._finish().arcs[:, INPUT if ilabel else OUTPUT].tolist()

    def weights_to_list(self) -> list[float]:
        """The weights of all arcs, (A,), in the order in which the arcs were added."""
        self._finish()
        return self._weights.tolist()

    def weights_to_numpy(self, dtype: Any = np.float32) -> np.ndarray:
        """A copy of the weights (A,), float32 as in gtn; the engine itself computes in float64."""
        self._finish()
        return self._weights.astype(dtype)

    def weights(self) -> int:
        """The address of a float32 copy of the weights, valid until the next call."""
        self._float32 = self.weights_to_numpy()
        return self._float32.ctypes.data

    def set_weights(self, weights: Any) -> None:
        """Set all arc weights: a list, a numpy array, a torch tensor, or the address of float32 numbers
        (`tensor.data_ptr()`; the tensor must be contiguous, on the CPU, and is copied now).

        A tensor of any shape is read row by row and must have one element per arc; where it needs a gradient,
        see `weights_to_torch`.

        raises ValueError: a wrong number of weights, or a NaN. At an address, the number cannot be checked,
            and a NaN forbids its arc (-inf, with a RuntimeWarning) unless all weights are NaN: code for gtn
            relies on that
        """
        self._finish()
        count, tensor = len(self._weights), None
        by_address = isinstance(weights, int | np.integer)
        if by_address:
            if weights == 0 and count:
                raise ValueError("set_weights was given the address 0: pass the tensor itself.")
            values = np.array((ctypes.c_float * count).from_address(int(weights)), np.float64)
        else:
            if hasattr(weights, "detach"):
                tensor = weights if weights.requires_grad and self._calc_grad else None
                weights = weights.detach().double().cpu().numpy()
            values = np.array(weights, np.float64).ravel()
            if values.size != count:
                raise ValueError(f"set_weights got {values.size} weights for {count} arcs: give one weight per arc.")
        square = values @ values
        if square != square:  # a sum of squares is NaN only where a term is
            missing = np.isnan(values)
            found = f"The weight for arc {int(np.argmax(missing))} is NaN"
            if not by_address or missing.all():
                raise ValueError(f"{found}: look for the NaN in what made the weights.")
            warnings.warn(f"{found}: each NaN is taken as -inf, a forbidden arc.", RuntimeWarning, stacklevel=2)
            values[missing] = -np.inf
        self._weights, self._tensor = values, tensor

    def grad(self) -> "Graph":
        """This graph with the gradient of its weights in place of the weights.

        raises RuntimeError: `backward` was not called, or `calc_grad` is False
        """
        if not self._calc_grad:
            raise RuntimeError("This graph has calc_grad=False, so it has no gradient: set calc_grad = True.")
        if self._grad is None:
            raise RuntimeError("There is no gradient yet: call gtn.backward() on a score made from this graph.")
        return Graph._of(self._finish(), self._grad)

    def __repr__(self) -> str:
        return to_text(self._finish(), self.weights_to_list(), limit=10)

    def _repr_svg_(self) -> str | None:
        # The picture of a larger graph shows nothing but lines.
        return to_svg(self._finish(), self.weights_to_list()) if self.num_arcs() <= 200 else None


epsilon = EPSILON


def _scalar(label: int) -> Topology:
    return Topology(np.array([START, ACCEPT], np.uint8), np.array([[0, 1, label, label]], np.int32))


_EPSILON_ARC, _SCORE_ARC = _scalar(EPSILON), _scalar(0)


def scalar_graph(weight: float, device: Device | bool = Device(CPU), calc_grad: bool = True) -> Graph:  # noqa: B008
    """A start and an accept node with an epsilon arc of this weight between them.

    device, calc_grad: as for `linear_graph`
    raises ValueError: the weight is NaN, or the device another one
    """
    if weight != weight:
        raise ValueError("A scalar graph cannot hold NaN: give it a number.")
    return Graph._of(_EPSILON_ARC, np.array([float(weight)]), calc_grad=wants_grad(device, calc_grad))


def score_graph(
    score: float,
    inputs: Sequence[Graph],
    backward: Callable[[np.ndarray], Sequence[np.ndarray | None]],
) -> Graph:
    """The result of a function whose value is one number: a single arc with label 0, as gtn makes it."""
    if score != score:
        raise ValueError("The result is ∞ - ∞: check the input scores for infinite weights.")
    return Graph._of(_SCORE_ARC, np.array([score]), inputs, backward)


@functools.lru_cache(maxsize=64)
def _linear_topology(steps: int, labels: int) -> Topology:
    nodes = np.zeros(steps + 1, np.uint8)
    nodes[0] = START
    nodes[-1] |= 0 if steps == 0 else ACCEPT
    arcs = np.empty((steps, labels, 4), np.int32)
    step = np.arange(steps, dtype=np.int32)[:, None]
    arcs[..., 0], arcs[..., 1] = step, step + 1
    arcs[..., 2] = arcs[..., 3] = np.arange(labels, dtype=np.int32)
    return Topology(nodes, arcs.reshape(-1, 4))


def linear_graph(M: int, N: int, device: Device | bool = Device(CPU), calc_grad: bool = True) -> Graph:  # noqa: B008
    """M steps with N arcs each, labels 0 … N-1, weights 0: the graph of an emission matrix of shape (M, N).

    Arc m · N + n is label n at step m, so that `set_weights` takes the matrix row by row.

    M, N: ≥ 0
    device: gtn.Device(gtn.CPU), which makes no difference; or calc_grad, as in gtn 0.0.0
    calc_grad: whether `backward` computes the gradient of the weights
    raises ValueError: a negative M or N, another device
    """
    M, N = operator.index(M), operator.index(N)
    if M < 0 or N < 0:
        raise ValueError(f"linear_graph needs M ≥ 0 steps and N ≥ 0 labels, not {M} and {N}.")
    # Batches repeat the same shape. Only small graphs are kept, so that the cache stays below 100 MB.
    topology = _linear_topology(M, N) if M * N <= 50_000 else _linear_topology.__wrapped__(M, N)
    return Graph._of(topology, np.zeros(M * N), calc_grad=wants_grad(device, calc_grad))
