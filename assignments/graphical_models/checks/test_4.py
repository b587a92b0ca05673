"""4: the check reader."""

import numpy as np
import torch
from calls import (
    AGAIN,
    SINGLE,
    SMALLEST,
    judge_calls,
    judge_cases,
    judge_finite,
    judge_slope,
    like,
    scalar,
    unchanged,
)
from stand_ins import number, read_graph, replaced, score

from ebmcourse import gtn
from ebmcourse.checking import assert_close, exercise, fail, inputs, probe, require


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


@inputs
def cuts(rng):
    """Columns of cuts, some of them next to each other."""
    return np.cumsum([int(rng.integers(0, 4)), *rng.permutation([1, 1, 1, 2, 2, 3, 4])]).tolist()


@probe
def pairs_of(student, cuts, narrowest, widest):
    found = student.graphical_models.segments(list(cuts), narrowest, widest)
    require(
        isinstance(found, list | tuple) and all(len(pair) == 2 for pair in found), "`segments` returns a list of pairs."
    )
    return sorted([int(i), int(j)] for i, j in found)


@probe
def pairs_of_several(student, cases):
    """The pairs of several lists of cuts, each with its two widths."""
    seen = {}
    for name, (cuts, low, high) in cases.items():
        with unchanged(cuts):
            found = student.graphical_models.segments(cuts, low, high)
        require(isinstance(found, list), "`segments` returns a list of pairs.")
        seen[name] = sorted([int(i), int(j)] for i, j in found)
    return seen


def judge_pairs(got, want, cuts, low, high):
    if got == want:
        return

    def width(pair):
        return cuts[pair[1]] - cuts[pair[0]]

    known = {
        "These are columns: return the numbers of the cuts.": [[cuts[i], cuts[j]] for i, j in want],
        "Only neighbouring cuts are used: a digit may have cuts within.": [p for p in want if p[1] - p[0] == 1],
        "The widest segment is missing: `widest` itself is allowed.": [p for p in want if width(p) < high],
        "The narrowest segment is missing: `narrowest` itself is allowed.": [p for p in want if width(p) > low],
        "The search from a cut ends at a segment that is too narrow, although wider ones follow.": [
            [i, j] for i, j in want if width([i, i + 1]) >= low
        ],
    }
    for sentence, wrong in known.items():
        if got == wrong:
            fail(sentence)
    if all(0 <= i < j < len(cuts) for i, j in got):
        count = sum(max(0, len(cuts) - step) for step in range(low, high + 1))
        if len(got) == count and all(low <= j - i <= high for i, j in got):
            fail("The width is counted in cuts: it is the difference of the columns.")
        if all(pair in got for pair in want):
            others = [width(pair) for pair in got if pair not in want] or [low]
            if max(others) < low:
                fail("Segments may be too narrow: each must have at least `narrowest` columns.")
            if min(others) > high:
                fail("Segments may be too wide: each may have at most `widest` columns.")
    fail("These are not the pairs of cuts whose columns differ by the given numbers.")


@exercise("4a", points=0.75, public=True, hint="All pairs i < j with narrowest ≤ cuts[j] - cuts[i] ≤ widest.")
def test_pairs_of_cuts(run, cuts):
    """`segments` returns all pairs of cuts between which a digit may be."""
    got, want = run(pairs_of, cuts, 2, 5)
    judge_pairs(got, want, cuts, 2, 5)


@inputs
def recognised(rng):
    """Segments between five cuts, with the energies of ten digits."""
    pairs = [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3], [2, 4], [3, 4]]
    order = rng.permutation(len(pairs))
    energies = torch.from_numpy(rng.uniform(0, 3, (len(pairs), 10)))
    return {"count": 5, "pairs": [pairs[number] for number in order], "energies": energies}


@probe
def graph_scores(student, case):
    """The scores of the recognition graph, its best digits, and the gradient of the forward score."""
    energies = case["energies"].clone().requires_grad_()
    pairs = [tuple(pair) for pair in case["pairs"]]
    graph = student.graphical_models.recognition_graph(case["count"], pairs, energies)
    require(isinstance(graph, gtn.Graph), "`recognition_graph` returns a graph of the engine.")
    score = gtn.forward_score(graph).weights_to_torch()
    require(
        score.requires_grad,
        "Gradients do not flow to the energies: neither detach them nor make a graph without gradients.",
    )
    return {
        "score": score.detach(),
        "least": torch.tensor([gtn.viterbi_score(graph).item()], dtype=torch.float64),
        "digits": gtn.viterbi_path(graph).labels_to_list(),
        "slope": torch.autograd.grad(score.sum(), energies)[0],
    }


@probe
def scores_by_digits(graph):
    """The forward scores of the strings of 1, 2, 3 and 4 digits; -inf where there is none."""
    scores = []
    for count in range(1, 5):
        scores.append(score(gtn.compose(graph, gtn.linear_graph(count, 10, False))))
    return torch.tensor(scores, dtype=torch.float64)


@probe
def several_graphs(student, cases):
    """The scores of the recognition graphs of several cases, from energies without a gradient."""
    seen = {}
    for name, case in cases.items():
        pairs, energies = [tuple(pair) for pair in case["pairs"]], case["energies"]
        with unchanged(pairs, energies):
            graph = student.graphical_models.recognition_graph(case["count"], pairs, energies)
        seen[name] = scores_by_digits(graph)
    return seen


@inputs
def wrong_recognitions(_, recognised):
    """The forward scores of known mistakes of `recognition_graph`."""


@exercise(
    "4b", points=0.75, public=True, hint="Ten arcs for each segment, in the order of `energies`; weights are -energies."
)
def test_scores_of_the_recognition_graph(run, recognised, wrong_recognitions):
    """`recognition_graph` has an arc for each segment and digit, with minus its energy."""
    got, want = run(graph_scores, recognised)
    assert_close(got["score"], want["score"], mistakes=wrong_recognitions)
    assert_close(got["least"], want["least"])
    if got["digits"] != want["digits"]:
        fail("The best path has other digits: the labels are the digits 0 … 9.")
    judge_slope(got["slope"], want["slope"])


@inputs
def reading(rng):
    """Arcs of a recognition graph of digits 0 … 3 with energies, a grammar, and an answer with two ways to be cut.

    The grammar wants two or three digits, the last of which is 1 or 2. So the first two digits of the answer are an
    amount as well.
    """


@probe
def graphs_of(case, weighted):
    """The energies as a leaf, the recognition graph, and the grammar with or without energies."""
    energies = case["energies"].clone().requires_grad_()
    costs = case["costs"] if weighted else torch.zeros_like(case["costs"])
    return energies, read_graph(case["recognition"], -energies), read_graph(case["grammar"], -costs)


@probe
def of_paths(forward_score):
    """`forward_score`, which is given graphs that have a path."""

    def scored(graph, *options):
        require(
            graph.num_nodes() > 0,
            "A graph without a path is scored: the right answer is a chain with one arc for each of its digits.",
        )
        return forward_score(graph, *options)

    return scored


@probe
def loss_of(student, case, weighted):
    energies, recognition, grammar = graphs_of(case, weighted)
    with replaced(gtn, forward_score=of_paths(gtn.forward_score)):
        value = number(student.graphical_models.amount_loss(recognition, list(case["answer"]), grammar))
    require(
        isinstance(value, torch.Tensor) and value.dim() == 0 and value.requires_grad,
        "`amount_loss` returns a tensor of shape () with a gradient.",
    )
    return {"loss": value.detach(), "slope": torch.autograd.grad(value, energies)[0]}


@probe
def several_losses(student, cases):
    """The losses of several cases."""
    seen = {}
    for name, case in cases.items():
        energies, recognition, grammar = graphs_of(case, True)
        with unchanged(recognition, case["answer"], grammar):
            value = scalar(student.graphical_models.amount_loss(recognition, case["answer"], grammar))
        seen[name] = like(value, energies).detach()
    return seen


@probe
def several_amounts(student, cases):
    """The amounts that are read in several cases, from energies without a gradient."""
    seen = {}
    for name, case in cases.items():
        with torch.no_grad():
            _, recognition, grammar = graphs_of(case, True)
            with unchanged(recognition, grammar):
                found = student.graphical_models.read_amount(recognition, grammar)
        require(isinstance(found, list | tuple), "`read_amount` returns a list of digits.")
        seen[name] = [int(digit) for digit in found]
    return seen


@probe
def amount_of(student, case, weighted):
    _, recognition, grammar = graphs_of(case, weighted)
    found = student.graphical_models.read_amount(recognition, grammar)
    require(isinstance(found, list | tuple), "`read_amount` returns a list of digits.")
    return [int(digit) for digit in found]


@inputs
def wrong(_, reading):
    """The losses and the digits of known mistakes for `reading`, with a grammar without energies."""


def judge_amount_loss(got, want, wrong):
    infinite = "The loss is infinite or undefined (NaN): subtract scores, as their exponentials overflow or vanish."
    judge_finite(got["loss"], want["loss"], infinite)
    assert_close(got["loss"], want["loss"], mistakes=wrong)
    judge_slope(got["slope"], want["slope"])


@exercise("4c", points=1, public=True, hint="forward_score of all amounts minus forward_score of the right one.")
def test_loss_of_the_right_amount(run, reading, wrong):
    """`amount_loss` is -log p of the right amount."""
    got, want = run(loss_of, reading, False)
    judge_amount_loss(got, want, wrong["loss"])


@exercise("4d", points=0.75, public=True, hint="The labels of the best path of the composition.")
def test_amount_of_least_energy(run, reading, wrong):
    """`read_amount` returns the digits of the best path that the grammar allows."""
    got, want = run(amount_of, reading, False)
    judge_amount(got, want, lambda: wrong["digits"])


def judge_amount(got, want, wrong):
    if got == want:
        return
    mistakes = {
        **wrong(),
        "The digits are reversed.": want[::-1],
        "Digits are not frames: nothing may be merged or dropped.": gtn.collapse(want),
    }
    known = [sentence for sentence, digits in mistakes.items() if got == digits]
    # Different mistakes may read the same digits.
    fail(known[0] if len(known) == 1 else "This is not the amount of least energy.")
