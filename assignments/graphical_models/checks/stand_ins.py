"""Stand-ins for the exercises that a check does not ask about, so that one mistake costs points only once.

They run in the process of the student's code and are released, so none is the function that it replaces: they compute
something else, or call the course's library, which students have anyway. A stand-in is sent to a submission only with a
check of a later exercise than the one it replaces.
"""

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from ebmcourse import gtn
from ebmcourse.checking import probe


@probe
@contextmanager
def replaced(module, **stand_ins):
    """Replace the module's functions of these names by stand-ins, inside a `with` block."""
    own = {name: vars(module)[name] for name in stand_ins if name in vars(module)}
    vars(module).update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            vars(module).pop(name, None)
        vars(module).update(own)


@probe
def number(value):
    """What a function returned as a tensor of shape (); anything that is no single number unchanged."""
    if isinstance(value, int | float):
        return torch.tensor(float(value), dtype=torch.float64)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.reshape(())
    return value


@probe
def other_sums(factors):
    """A stand-in for `forward` that is no solution of 2b: in place of free energies, β · Σ factor · e² over arcs.

    The gradient depends on the factors, so that a program must differentiate to know it.
    """

    def forward(arcs, energies, beta):
        sums = (beta * factors[: len(arcs)].to(energies.dtype) * energies.square()).cumsum(0)
        last = {end: number for number, (_, end) in enumerate(arcs)}  # of the arcs that enter each node
        return torch.cat([energies.new_zeros(1), sums[list(last.values())]])

    return forward


@probe
def lexicon(words, costs=None):
    """A graph with a separate path for each word; costs: energies of the arcs, in the order of the words."""
    graph, weights = gtn.Graph(False), iter(() if costs is None else costs)
    graph.add_node(start=True)
    for word in words:
        node = 0
        for place, label in enumerate(word):
            after = graph.add_node(False, place == len(word) - 1)
            graph.add_arc(node, after, int(label), int(label), -float(next(weights, 0.0)))
            node = after
    return graph


@probe
class Field(nn.Module):
    """A vector field A tanh(B z + c), in float64; it counts how often it is evaluated."""

    def __init__(self, outer, inner, offset):
        super().__init__()
        self.outer, self.inner, self.offset = (nn.Parameter(item.clone()) for item in (outer, inner, offset))
        self.calls = 0

    def forward(self, z):
        self.calls += 1
        return torch.tanh(z @ self.inner.T + self.offset) @ self.outer.T


@probe
def integrate(f, z, time, steps):
    """The state after `time`, by `steps` steps of Kutta's 3/8 rule, as accurate as RK4 but no solution of 6a."""
    h = time / steps
    for _ in range(steps):
        k1 = f(z)
        k2 = f(z + k1 * h / 3)
        k3 = f(z - k1 * h / 3 + k2 * h)
        k4 = f(z + (k1 - k2 + k3) * h)
        z = z + (k1 + 3 * k2 + 3 * k3 + k4) * h / 8
    return z


@probe
def read_graph(text, weights):
    """The graph of a text in the engine's format, with these weights: no code that builds it is released."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "graph.txt"
        file.write_text(text)
        graph = gtn.loadtxt(file, "gtn")
    graph.set_weights(weights)
    return graph


@probe
def score(graph):
    """The forward score of a graph; -inf where it has no path."""
    return gtn.forward_score(graph).item() if graph.num_nodes() else -float("inf")
