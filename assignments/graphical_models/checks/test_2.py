"""2: Viterbi and the forward algorithm."""

from itertools import pairwise

import numpy as np
import torch
from calls import (
    AGAIN,
    SINGLE,
    SIZES,
    SMALLEST,
    judge_calls,
    judge_cases,
    judge_finite,
    judge_slope,
    like,
    scalar,
    unchanged,
)
from stand_ins import number, other_sums, replaced

from ebmcourse.checking import assert_close, assert_either_way, difference, exercise, fail, inputs, probe, require, ways

RTOL, ATOL = 1e-6, 1e-4  # float32 changes energies of 2400 by 3e-4, and those of the other graphs by 1e-6


def drawn_graph(rng, nodes, spread=1.0, shift=0.0):
    """Arcs between most pairs of nodes, sorted by destination, some of them parallel, and energies of both signs."""
    arcs = []
    for destination in range(1, nodes):
        count = int(rng.integers(1, destination + 1))
        sources = [destination - 1, *rng.choice(destination, count).tolist()]
        arcs += [(source, destination) for source in sources]
    energies = spread * rng.standard_normal(len(arcs)) + shift
    return {"arcs": [list(arc) for arc in arcs], "energies": torch.from_numpy(energies), "nodes": nodes}


@inputs
def graph(rng):
    """A graph whose best path does not enter each node by its arc of least energy."""


@inputs
def large_graph(rng):
    """A ladder with more paths than a program can list."""
    steps = int(rng.integers(70, 90))
    arcs = [[step, step + 1] for step in range(steps) for _ in range(2)]
    return {"arcs": arcs, "energies": torch.from_numpy(rng.standard_normal(len(arcs))), "nodes": steps + 1}


@inputs
def high_graph(rng):
    """Energies in the hundreds, of both signs."""
    found = drawn_graph(rng, 7)
    found["energies"] = found["energies"] + float(rng.choice([-1, 1])) * 400.0 * torch.tensor(
        [destination - source for source, destination in found["arcs"]], dtype=torch.float64
    )
    return found


@inputs
def far_graph(rng):
    """Energies in the ten thousands: each path has more than 100,000, and less than 1 after a division by a million."""
    found = drawn_graph(rng, 7)
    lengths = torch.tensor([destination - source for source, destination in found["arcs"]], dtype=torch.float64)
    return found | {"energies": found["energies"] + 2e4 * lengths}


@inputs
def graphs(rng):
    """The smallest graph, one of float32, two of the same shape, and one in which good ways have the energy 0."""
    first = drawn_graph(rng, 5)
    second = first | {"energies": torch.from_numpy(rng.standard_normal(len(first["arcs"])))}
    arcs = [[step, step + 1] for step in range(4) for _ in range(2)]
    worse = rng.uniform(0.5, 1.0, 4)
    zeros = [0.0, worse[0], worse[1], 0.0, 0.0, worse[2], -worse[3], worse[3]]
    return {
        "smallest": {"arcs": [[0, 1]], "energies": torch.from_numpy(rng.standard_normal(1)), "nodes": 2},
        "single": first | {"energies": first["energies"].float()},
        "first": first,
        "second": second,
        "again": first,
        "zero": {"arcs": arcs, "energies": torch.tensor(zeros, dtype=torch.float64), "nodes": 5},
    }


@inputs
def beta(rng):
    return float(rng.choice([0.4, 2.5]) * rng.uniform(0.8, 1.2))


@inputs
def factors(rng):
    """Of the stand-in for `forward`, one for each arc."""
    return torch.from_numpy(rng.uniform(0.5, 1.5, 100))


@probe
def best_path(student, graph):
    arcs = [tuple(arc) for arc in graph["arcs"]]
    found = student.graphical_models.viterbi(arcs, graph["energies"].clone())
    require(isinstance(found, tuple) and len(found) == 2, "`viterbi` returns two values: the energy and the path.")
    energy, path = found
    require(isinstance(path, list | tuple), "`viterbi` returns the path as a list.")
    return {"energy": number(energy), "path": [int(arc) for arc in path]}


@probe
def best_far_path(student, graph):
    """The best path; where a program stops, whether it finds one for the same graph with small energies."""
    try:
        return best_path(student, graph)
    except (TypeError, IndexError, KeyError, ValueError, AttributeError, UnboundLocalError):
        best_path(student, graph | {"energies": graph["energies"] / 1e6})
        require(False, "No path is found where all energies are high: begin with infinity, not with a fixed number.")


@probe
def best_paths(student, graphs):
    """The least energy and the sum of the energies along the path of each graph."""
    seen = {"energy": {}, "along": {}}
    for name, graph in graphs.items():
        arcs, energies = [tuple(arc) for arc in graph["arcs"]], graph["energies"]
        with unchanged(arcs, energies):
            energy, path = student.graphical_models.viterbi(arcs, energies)
        require(isinstance(path, list), "`viterbi` returns the path as a list.")
        seen["energy"][name] = like(scalar(energy), energies).detach()
        seen["along"][name] = energies[path].sum()
    return seen


@probe
def several_alphas(student, graphs, beta):
    """α of the nodes of each graph."""
    seen = {}
    for name, graph in graphs.items():
        arcs, energies = [tuple(arc) for arc in graph["arcs"]], graph["energies"]
        with unchanged(arcs, energies):
            seen[name] = like(student.graphical_models.forward(arcs, energies, beta), energies)
    return seen


@probe
def several_shares(student, graphs, beta, factors):
    """The shares of each graph, by the program as it is, and its gradients of a stand-in for `forward`."""
    module = student.graphical_models

    def attempt():
        seen = {}
        for name, graph in graphs.items():
            arcs, energies = [tuple(arc) for arc in graph["arcs"]], graph["energies"].clone()
            energies.requires_grad_(name == "second")
            with unchanged(arcs, energies):
                found = like(module.shares(arcs, energies, beta), energies)
            require(not found.requires_grad, "The shares need a gradient: return them without one.")
            seen[name] = found
        return seen

    def isolated():
        with replaced(module, forward=other_sums(factors)):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@probe
def alphas(student, graph, beta):
    """α of all nodes, and the gradient of the last with respect to the energies."""
    arcs = [tuple(arc) for arc in graph["arcs"]]
    energies = graph["energies"].clone().requires_grad_()
    found = student.graphical_models.forward(arcs, energies, beta)
    if isinstance(found, list | tuple):
        found = torch.stack([torch.as_tensor(item).double().reshape(()) for item in found])
    require(isinstance(found, torch.Tensor) and found.dim() == 1, "`forward` returns α, one number for each node.")
    require(found.requires_grad, "Gradients do not flow through α: compute it with torch, without `item` or `detach`.")
    return {"alphas": found, "slope": torch.autograd.grad(found[-1], energies)[0]}


@probe
def shares_of(student, graph, beta, factors):
    """The shares by the program as it is, and its gradient of a stand-in for `forward`."""
    module = student.graphical_models
    arcs = [tuple(arc) for arc in graph["arcs"]]

    def attempt():
        return module.shares(arcs, graph["energies"].clone(), beta)

    def isolated():
        with replaced(module, forward=other_sums(factors)):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@inputs
def wrong(_, graph, beta):
    """The results of known mistakes of each function for `graph`."""


def judge_path(got, want, graph, wrong):
    arcs, path = graph["arcs"], got["path"]
    assert_close(got["energy"], want["energy"], rtol=RTOL, atol=ATOL, mistakes=wrong)
    if path == want["path"][::-1] and len(path) > 1:
        fail("The path is reversed: the first arc leaves node 0.")
    nodes = [0, *(arcs[number][1] for number in want["path"])]
    if path in (nodes, nodes[1:]):
        fail("The path is a list of nodes: return the numbers of its arcs.")
    if not path or not all(0 <= number < len(arcs) for number in path):
        fail("The path is not a list of numbers of arcs.")
    if path in (want["path"][1:], want["path"][:-1]):
        fail("The first or the last arc of the path is missing.")
    if arcs[path[0]][0] != 0 or arcs[path[-1]][1] != graph["nodes"] - 1:
        fail("The path does not lead from node 0 to the last node.")
    if any(arcs[before][1] != arcs[after][0] for before, after in pairwise(path)):
        fail("The arcs of the path do not follow each other.")
    # Several paths may be best.
    if difference(graph["energies"][path].sum(), want["energy"], RTOL, ATOL):
        if [arcs[number] for number in path] == [arcs[number] for number in want["path"]]:
            fail("The path has an arc that is parallel to the best one: parallel arcs have numbers of their own.")
        fail("The energies along the path do not add up to the energy that is returned.")


def judge_alphas(got, want, wrong):
    mistakes = {
        "α of the first node is missing: it is 0.": want["alphas"][1:],
        "This is α of the last node only: return all.": want["alphas"][-1:],
    }
    assert_close(got["alphas"], want["alphas"], rtol=RTOL, atol=ATOL, mistakes=lambda: wrong() | mistakes)
    judge_slope(got["slope"], want["slope"])


@exercise("2a", points=1, public=True, hint="Keep the least energy of each node and the arc by which it is reached.")
def test_best_path(run, graph, wrong):
    """`viterbi` returns the least energy of all paths and the numbers of the arcs on that path."""
    got, want = run(best_path, graph)
    judge_path(got, want, graph, lambda: wrong["viterbi"])


@exercise("2b", points=1, public=True, hint="β occurs twice: in the exponent, and as 1/β before the logarithm.")
def test_free_energy_of_every_node(run, graph, beta, wrong):
    """`forward` returns -1/β · log Σ exp(-β (α + e)) for each node, with gradients."""
    got, want = run(alphas, graph, beta)
    judge_alphas(got, want, lambda: wrong["forward"])


@exercise("2c", points=0.75, public=True, hint="The gradient of the last α with respect to the energies.")
def test_shares_of_the_arcs(run, graph, beta, factors, wrong):
    """`shares` returns the probability that a path uses each arc."""
    got, want = run(shares_of, graph, beta, factors)
    assert_either_way(got, want, lambda got, want: judge_shares(got, want, beta, lambda: wrong["shares"]))


def judge_shares(got, want, beta, wrong):
    mistakes = {
        "These are β times the shares: take the gradient of the free energy, not of β times it.": beta * want,
        "These are the shares divided by β: take the gradient of the free energy itself.": want / beta,
        "The shares are negative: take the gradient of the free energy, not of its negative.": -want,
        "The shares of all arcs add up to 1: those of the arcs into the last node must.": want / want.sum(),
    }
    assert_close(got, want, mistakes=lambda: wrong() | mistakes)
