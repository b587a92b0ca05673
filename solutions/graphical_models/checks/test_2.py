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
    ### BEGIN HIDDEN TESTS
    while True:
        found = drawn_graph(rng, int(rng.integers(6, 9)))
        if greedy(found) > alphas_by(found, torch.min)[-1] + 0.1:
            return found
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
def alphas_by(graph, combine, ways=lambda ways: list(ways), factor=1.0):
    """α of all nodes, where `combine` makes one number of the energies of all ways to enter a node.

    `ways` chooses among the pairs of source and number of the arcs that enter a node, and may change them. The α of
    the source is multiplied by `factor`.
    """
    found = [torch.zeros((), dtype=torch.float64)]
    for node in range(1, graph["nodes"]):
        entering = [(source, number) for number, (source, end) in enumerate(graph["arcs"]) if end == node]
        energies = [factor * found[source] + graph["energies"][number] for source, number in ways(entering)]
        found.append(combine(torch.stack(energies)))
    return torch.stack(found)


def greedy(graph):
    """The energy of the path that enters each node by its arc of least energy."""
    node, energy = graph["nodes"] - 1, torch.zeros((), dtype=torch.float64)
    while node:
        entering = [n for n, arc in enumerate(graph["arcs"]) if arc[1] == node]
        best = min(entering, key=lambda n: float(graph["energies"][n]))
        energy, node = energy + graph["energies"][best], graph["arcs"][best][0]
    return energy


def shares_by(graph, combine, nodes=slice(-1, None)):
    """The gradient of α of the last node, or of the sum over other ones."""
    leaves = graph["energies"].clone().requires_grad_()
    return torch.autograd.grad(alphas_by(graph | {"energies": leaves}, combine)[nodes].sum(), leaves)[0]


def wrong_minima(graph):
    """The energies of known mistakes of `viterbi`."""
    return {
        "This is the path of largest energy: low energies are likely.": alphas_by(graph, torch.max)[-1],
        "This is the free energy at β = 1, not the minimum.": alphas_by(graph, lambda e: -(-e).logsumexp(0))[-1],
        "Each node takes the arc of least energy: the path so far has to be added.": greedy(graph),
    }


def wrong_alphas(graph, beta):
    """α of known mistakes of `forward`."""

    def free(energies):
        return -(-beta * energies).logsumexp(0) / beta

    return {
        "α is not divided by β, as in the lecture notes: β multiplies the energies once for each arc.": alphas_by(
            graph, lambda e: -(-beta * e).logsumexp(0)
        ),
        "β has no effect.": alphas_by(graph, lambda e: -(-e).logsumexp(0)),
        "β multiplies the energy of the arc only: the exponent is -β (α + e).": alphas_by(graph, free, factor=1 / beta),
        "β multiplies α only: the exponent is -β (α + e).": alphas_by(
            graph | {"energies": graph["energies"] / beta}, free
        ),
        "The minus before the logarithm is missing.": alphas_by(graph, lambda e: -free(e)),
        "The minus in the exponent is missing.": alphas_by(graph, lambda e: free(-e)),
        "The sign is wrong: this is a soft maximum of the energies.": alphas_by(
            graph, lambda e: (beta * e).logsumexp(0) / beta
        ),
        "These are least energies: combine all ways with log Σ exp.": alphas_by(graph, torch.min),
        "This is the mean over the ways, not their sum.": alphas_by(
            graph, lambda e: -((-beta * e).logsumexp(0) - np.log(len(e))) / beta
        ),
        "Parallel arcs overwrite each other: each of them is a way of its own.": alphas_by(
            graph, free, lambda ways: dict(ways).items()
        ),
        "The α of the node before is used: use that of the source of each arc.": alphas_by(
            graph, free, lambda ways: [(max(source for source, _ in ways), number) for _, number in ways]
        ),
    }


def wrong_shares(graph, beta):
    """The shares of known mistakes of `shares`."""

    def free(energies):
        return -(-beta * energies).logsumexp(0) / beta

    alphas, energies = alphas_by(graph, free), graph["energies"]
    sources, ends = torch.tensor(graph["arcs"]).T
    return {
        "β has no effect: give it to `forward`.": shares_by(graph, lambda e: -(-e).logsumexp(0)),
        "This is the gradient of the sum of α over all nodes: only α of the last node counts.": shares_by(
            graph, free, slice(None)
        ),
        "These are the arcs of the best path only: take the gradient of the free energy.": shares_by(graph, torch.min),
        "This is a softmax over single arcs: take the gradient of the free energy, which sums over paths.": (
            -beta * energies
        ).softmax(0),
        "These are the shares among the arcs into each node: the node may be reached by few of all paths.": (
            -beta * (alphas[sources] + energies - alphas[ends])
        ).exp(),
    }


### END HIDDEN TESTS


@inputs
def wrong(_, graph, beta):
    """The results of known mistakes of each function for `graph`."""
    ### BEGIN HIDDEN TESTS
    return {
        "viterbi": wrong_minima(graph),
        "forward": wrong_alphas(graph, beta),
        "shares": wrong_shares(graph, beta),
    }
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
# These come before 2c, with which a stand-in for `forward` is sent.
@exercise("2a", points=0.5, hint="Add up energies from node to node: listing all paths takes forever.")
def test_best_of_very_many_paths(run, large_graph):
    """`viterbi` finds the best of more paths than can be listed."""
    got, want = run(best_path, large_graph)
    judge_path(got, want, large_graph, lambda: wrong_minima(large_graph))


@exercise("2a", points=0.25, hint="Energies may have any size: do not start with 0 or a large number.")
def test_best_path_with_large_energies(run, far_graph):
    """`viterbi` is right for energies in the ten thousands."""
    got, want = run(best_far_path, far_graph)
    # A free energy is below the minimum, too, but by less than 20.
    if float(got["energy"]) < float(want["energy"]) - 20:
        fail("The energy is far below that of every path, as where the search begins with a fixed number.")
    judge_path(got, want, far_graph, lambda: wrong_minima(far_graph))


@exercise(
    "2a",
    points=0.25,
    needs=(test_best_path,),
    hint="An energy may be 0. The result is like the energies, and no call may change what it is given.",
)
def test_best_paths_of_several_graphs(run, graphs):
    """`viterbi` is right for a single arc, for energies of 0, for float32, and call after call."""
    got, want = run(best_paths, graphs)
    zero = "The result is wrong where a node has the energy 0: it does not mean that no path was found."
    for part in ("energy", "along"):
        judge_calls(got[part], want[part])
        judge_cases(got[part], want[part], {"zero": zero, "single": SINGLE, "smallest": SMALLEST})


@exercise("2b", points=0.25, hint="Use torch.logsumexp: exponentials of energies in the hundreds overflow.")
def test_forward_with_large_energies(run, high_graph, beta):
    """`forward` is right for energies in the hundreds of either sign."""
    got, want = run(alphas, high_graph, beta)
    overflow = "There are infinite or undefined (NaN) values: use torch.logsumexp, as exponentials overflow or vanish."
    judge_finite(got["alphas"], want["alphas"], overflow)
    judge_alphas(got, want, lambda: wrong_alphas(high_graph, beta))


@exercise("2b", points=0.5, hint="Visit each arc once: listing all paths takes forever.")
def test_sum_over_very_many_paths(run, large_graph, beta):
    """`forward` sums over more paths than can be listed."""
    got, want = run(alphas, large_graph, beta)
    judge_alphas(got, want, lambda: wrong_alphas(large_graph, beta))


@exercise(
    "2b",
    points=0.25,
    needs=(test_free_energy_of_every_node,),
    hint="α is a tensor (N,) like the energies, and no call may change what it is given.",
)
def test_free_energies_of_several_graphs(run, graphs):
    """`forward` is right for a single arc, for float32, for an integer β, and call after call."""
    got, want = run(several_alphas, graphs, 2)
    judge_calls(got, want)
    judge_cases(got, want, {"zero": SIZES, "single": SINGLE, "smallest": SMALLEST})


### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@exercise("2c", points=0.25, hint="Give β to `forward`.")
def test_shares_at_high_beta(run, graph, beta, factors):
    """For large β, the shares are those of the best path."""
    got, want = run(shares_of, graph, 40 * beta, factors)
    high = 40 * beta
    assert_either_way(got, want, lambda got, want: judge_shares(got, want, high, lambda: wrong_shares(graph, high)))


@exercise(
    "2c",
    points=0.25,
    needs=(test_shares_of_the_arcs,),
    hint="Shares need no gradient, and do not depend on whether the energies need one.",
)
def test_shares_of_several_graphs(run, graphs, beta, factors):
    """`shares` is right for a single arc, for energies with a gradient, for float32, and call after call."""
    got, want = run(several_shares, graphs, beta, factors)

    def judge(got, want):
        gradient = "The result is wrong for energies that need a gradient, or where other shares were computed before."
        judge_cases(got, want, {"first": SIZES, "second": gradient, "again": AGAIN, "zero": SIZES, "single": SINGLE})
        judge_cases(got, want, {"smallest": SMALLEST})

    assert_either_way(got, want, judge)


### END HIDDEN TESTS
