"""Reverse-mode differentiation over graphs, and the bridge to torch's own.

Every function of graphs leaves in its result the graphs it was made from and a function that maps the
gradient of the result's weights to the gradients of theirs. Weights of result arcs are sums of weights of
input arcs, or log sums of such sums, so these maps are short.
"""

import functools
import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .graph import Graph
from .lists import broadcast


def _inputs(graph: Graph) -> Sequence[Graph]:
    """The graphs that `graph` was made from; ValueError where `backward` has freed them."""
    if graph._inputs is None:
        raise ValueError(
            "backward() ran through this graph already and freed what it needs: pass retain_graph=True to "
            "the first call, or compute the score again."
        )
    return graph._inputs


def _gradients(graph: Graph, seed: np.ndarray, retain: bool) -> Iterator[tuple[Graph, np.ndarray]]:
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


def _leaves(graph: Graph) -> list[Graph]:
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
    g: Graph | Sequence[Graph],
    grad: Graph | Sequence[Graph] | bool | Sequence[bool] | None = None,
    retain_graph: bool | Sequence[bool] = False,
) -> None:
    """Add the gradient of Σ grad · (weights of g) to `grad()` of every graph that g was made from.

    `grad` is a graph with as many arcs as g; without it, ones. The record of how g was made is freed unless
    `retain_graph`; a second call then raises ValueError. As in gtn, `backward(g, True)` retains, and lists of
    graphs are taken one by one.
    """
    if isinstance(grad, bool) or (isinstance(grad, Sequence) and grad and isinstance(grad[0], bool | int)):
        grad, retain_graph = None, grad  # type: ignore[assignment]
    if not isinstance(g, Graph):
        for row in broadcast(g, grad, retain_graph):
            backward(*row)
        return
    if not g._calc_grad:
        return
    g._finish()
    seed = np.ones(g.num_arcs()) if grad is None else np.array(grad.weights_to_list())  # type: ignore[union-attr]
    if seed.size != g.num_arcs():
        raise ValueError(f"grad has {seed.size} arcs and the graph {g.num_arcs()}: give one with as many.")
    for made_from, delta in _gradients(g, seed, bool(retain_graph)):
        made_from._add_grad(delta)


@functools.cache
def _torch_function() -> Any:
    """The torch function behind `weights_to_torch`, made late so that the engine does not wait for torch."""
    import torch

    class Weights(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, graph: Graph, leaves: Sequence[Graph], *tensors: Any) -> Any:
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


def weights_to_torch(graph: Graph) -> Any:
    """See `Graph.weights_to_torch`."""
    import torch

    leaves = _leaves(graph)
    if not leaves:
        return torch.tensor(graph.weights_to_list())
    return _torch_function().apply(graph, leaves, *(g._tensor for g in leaves))
