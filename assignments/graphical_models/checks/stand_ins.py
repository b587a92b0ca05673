"""Stand-ins for the exercises that a check does not ask about, so that one mistake costs points only once.

They run in the process of the student's code, so they contain no part of the reference: they call the course's library,
which students have anyway, or are formulas that the assignment states. A stand-in is sent to a submission only with a
check of a later exercise than the one it replaces.
"""

from contextlib import contextmanager

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
def forward(arcs, energies, beta):
    """The free energies of all nodes, by the recursion of the text."""
    found = [energies.new_zeros(())]
    for node in range(1, arcs[-1][1] + 1):
        ways = [found[source] + energies[number] for number, (source, end) in enumerate(arcs) if end == node]
        found.append(-torch.logsumexp(-beta * torch.stack(ways), 0) / beta)
    return torch.stack(found)


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
def acceptor(nodes, arcs, weights, accept):
    """A graph with these arcs (source, destination, label), which starts at node 0; weights: a tensor or None."""
    graph = gtn.Graph(weights is not None)
    for node in range(nodes):
        graph.add_node(node == 0, node in accept)
    for source, destination, label in arcs:
        graph.add_arc(source, destination, label)
    if weights is not None:
        graph.set_weights(weights)
    return graph


@probe
def score(graph):
    """The forward score of a graph; -inf where it has no path."""
    return gtn.forward_score(graph).item() if graph.num_nodes() else -float("inf")
