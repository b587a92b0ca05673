"""Reverse-mode differentiation over graphs, and the connection to torch's own.

Every function of graphs stores in its result the graphs it was made from and a function that maps the
gradient of the result's weights to the gradients of theirs. Weights of result arcs are sums of weights of
input arcs, or log sums of such sums, so these maps are short.
"""

import functools
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .lists import broadcast


class Differentiable:
    """What differentiation needs of a graph: how it was made, its weights, and the gradient of these.

    `Graph` is its only subclass.
    """

    # Filled by functions of graphs: what this graph was made from, and the map from its gradient to theirs.
    _inputs: "Sequence[Differentiable] | None" = ()
    _backward: "Callable[[np.ndarray], Sequence[np.ndarray | None]] | None" = None
    _depth: int = 0  # more than that of any graph it was made from
    _grad: np.ndarray | None = None
    _tensor: Any = None  # the torch tensor that gave the weights, where it needs a gradient
    _calc_grad: bool

    def num_arcs(self) -> int:
        """The number of arcs, A."""
        raise NotImplementedError

    def weights_to_list(self) -> list[float]:
        """The weights of all arcs, (A,)."""
        raise NotImplementedError

    @property
    def calc_grad(self) -> bool:
        """Whether `backward` computes the gradient of this graph's weights. False forgets how it was made."""
        return self._calc_grad

    @calc_grad.setter
    def calc_grad(self, value: bool) -> None:
        self._calc_grad = bool(value)
        if not value:
            self._inputs, self._backward, self._grad, self._tensor = (), None, None, None

    def is_grad_available(self) -> bool:
        """Whether `grad()` has something to return."""
        return self._grad is not None

    def zero_grad(self) -> None:
        """Forget the gradient; the next `backward` starts from 0."""
        self._grad = None

    def weights_to_torch(self) -> Any:
        """The weights (A,) as a torch tensor, through which torch's gradients flow back to every tensor that
        was given to `set_weights` of this graph or of one that it was made from.
        """
        import torch

        leaves = _leaves(self)
        if not leaves:
            return torch.tensor(self.weights_to_list())
        return _torch_function().apply(self, leaves, *(g._tensor for g in leaves))

    def _add_grad(self, grad: np.ndarray) -> None:
        if grad.size != self.num_arcs():
            raise ValueError(
                f"A gradient of {grad.size} numbers does not fit {self.num_arcs()} arcs: do not add arcs to "
                "a graph between its use and backward()."
            )
        self._grad = grad if self._grad is None else self._grad + grad


def _inputs(graph: Differentiable) -> Sequence[Differentiable]:
    """The graphs that `graph` was made from; ValueError where `backward` has freed them."""
    if graph._inputs is None:
        raise ValueError(
            "backward() ran through this graph already and freed what it needs: pass retain_graph=True to "
            "the first call, or compute the score again."
        )
    return graph._inputs


def _gradients(graph: Differentiable, seed: np.ndarray, retain: bool) -> Iterator[tuple[Differentiable, np.ndarray]]:
    """`graph` with `seed`, then each graph that it was made from with the gradient of its weights."""
    found = {id(graph): seed}
    queue = [(-graph._depth, id(graph), graph)]
    while queue:
        # The deepest graph has no consumers left in the queue, so its gradient is complete.
        _, key, graph = heapq.heappop(queue)
        grad = found.pop(key)
        yield graph, grad
        if graph._backward is None:
            continue
        for g, part in zip(_inputs(graph), graph._backward(grad), strict=True):
            if part is None or not g._calc_grad:
                continue
            key = id(g)
            if key in found:
                found[key] = found[key] + part
            else:
                found[key] = part
                heapq.heappush(queue, (-g._depth, key, g))
        if not retain:
            graph._inputs = None


def _leaves(graph: Differentiable) -> list[Differentiable]:
    """The graphs that `graph` was made from whose weights came from a torch tensor that needs a gradient."""
    leaves, seen, stack = [], {id(graph)}, [graph]
    while stack:
        g = stack.pop()
        if g._tensor is not None:
            leaves.append(g)
        for h in _inputs(g):
            if id(h) not in seen:
                seen.add(id(h))
                stack.append(h)
    return leaves


def backward(
    g: Differentiable | Sequence[Differentiable],
    grad: Differentiable | Sequence[Differentiable] | bool | Sequence[bool] | None = None,
    retain_graph: bool | Sequence[bool] = False,
) -> None:
    """Add the gradient of Σ grad · (weights of g) to `grad()` of every graph that g was made from.

    g: a graph, usually a score
    grad: a graph with as many arcs as g, whose weights are the factors; None: all of them are 1
    retain_graph: keep the record of how g was made, for a second call
    raises ValueError: grad has another number of arcs than g, or an earlier call has freed the record

    As in gtn, `backward(g, True)` retains, and lists of graphs are taken one by one.
    """
    if isinstance(grad, bool) or (isinstance(grad, Sequence) and grad and isinstance(grad[0], bool | int)):
        grad, retain_graph = None, grad  # type: ignore[assignment]
    if not isinstance(g, Differentiable):
        for row in broadcast(g, grad, retain_graph):
            backward(*row)
        return
    if not g._calc_grad:
        return
    seed = np.ones(g.num_arcs()) if grad is None else np.array(grad.weights_to_list())  # type: ignore[union-attr]
    if seed.size != g.num_arcs():
        raise ValueError(f"grad has {seed.size} arcs and the graph {g.num_arcs()}: give one with as many.")
    for made_from, delta in _gradients(g, seed, bool(retain_graph)):
        made_from._add_grad(delta)


@functools.cache
def _torch_function() -> Any:
    """The torch function of `weights_to_torch`, made at its first use: importing the engine does not import torch."""
    import torch

    class Weights(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, graph: Differentiable, leaves: Sequence[Differentiable], *tensors: Any) -> Any:
            ctx.graph, ctx.leaves = graph, leaves
            ctx.like = [(t.shape, t.dtype, t.device) for t in tensors]
            return torch.tensor(graph.weights_to_list(), dtype=tensors[0].dtype, device=tensors[0].device)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Any) -> Any:
            seed = np.ascontiguousarray(grad.double().cpu().numpy())
            found = {id(g): d for g, d in _gradients(ctx.graph, seed, retain=True)}
            grads = (
                torch.as_tensor(found[id(g)]).reshape(shape).to(device, dtype) if id(g) in found else None
                for g, (shape, dtype, device) in zip(ctx.leaves, ctx.like, strict=True)
            )
            return None, None, *grads

    return Weights
