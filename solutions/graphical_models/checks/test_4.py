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


### BEGIN HIDDEN TESTS
@inputs
def cut_lists(rng):
    """Lists of cuts with the least and the largest width: the smallest one, one without a pair, and others."""
    first = np.cumsum([int(rng.integers(0, 4)), *rng.permutation([1, 1, 2, 3, 3, 5])]).tolist()
    second = np.cumsum([0, *rng.permutation([1, 2, 2, 4, 4, 6])]).tolist()
    third = np.cumsum([1, *rng.permutation([1, 2, 2, 2, 2, 3])]).tolist()
    return {
        "smallest": (first[:2], 1, 9),
        "none": (second, 50, 60),
        "first": (first, 1, 3),
        "second": (second, 3, 8),
        "equal": (first, 3, 3),
        "third": (third, 1, 3),
        "again": (first, 1, 3),
    }


@exercise(
    "4a",
    points=0.25,
    needs=(test_pairs_of_cuts,),
    hint="Take both widths from the arguments: they may be equal, or fit no pair.",
)
def test_pairs_of_several_lists(run, cut_lists):
    """`segments` is right for other widths, for a single pair, for none, and call after call."""
    got, want = run(pairs_of_several, cut_lists)
    widths = "The pairs are wrong for other widths: take both from the arguments, each may be reached exactly."
    judge_cases(got, want, {"first": widths, "second": widths, "equal": widths, "none": widths})
    other = "One list of cuts is right, but another one with the same widths is not."
    judge_cases(got, want, {"again": AGAIN, "third": AGAIN if got["third"] == got["first"] else other})
    judge_cases(got, want, {"smallest": SMALLEST})


### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
def graph_text(arcs, accept, start=(0,)):
    """A graph as text, from its arcs (source, destination, label), the nodes that accept, and those at the start."""
    return "\n".join(" ".join(map(str, line)) for line in (start, accept, *arcs))


### END HIDDEN TESTS


@inputs
def wrong_recognitions(_, recognised):
    """The forward scores of known mistakes of `recognition_graph`."""

    ### BEGIN HIDDEN TESTS
    def score_of(case, sign=-1.0, accept=(recognised["count"] - 1,), start=(0,)):
        arcs = [[i, j, digit] for i, j in case["pairs"] for digit in range(10)]
        return tensor([score(read_graph(graph_text(arcs, accept, start), sign * case["energies"]))])

    every = range(recognised["count"])

    energies, pairs = recognised["energies"], recognised["pairs"]
    best = energies.masked_fill(energies > energies.amin(1, keepdim=True), 1e6)
    return {
        "The weights are plus energies: set minus the energies.": score_of(recognised, 1.0),
        "Paths may end at any cut: only the last one accepts.": score_of(recognised, accept=every),
        "Paths may end at any cut but the first: only the last one accepts.": score_of(recognised, accept=every[1:]),
        "Paths may begin at any cut: only the first one is the start.": score_of(recognised, start=every),
        "The arcs are not in the order of the energies: all digits of the first segment come first.": score_of(
            recognised | {"energies": energies.reshape(10, -1).T}
        ),
        "Only the best digit of each segment has an arc: add all ten.": score_of(recognised | {"energies": best}),
        "The segments are sorted, but not the rows of their energies.": score_of(recognised | {"pairs": sorted(pairs)}),
        "The energies of each segment are normalised: weights are minus the energies.": score_of(
            recognised | {"energies": -(-energies).log_softmax(1)}
        ),
    }
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@inputs
def segmented(rng):
    """Two cuts, a last cut that no segment reaches, energies of float32, and two cases of the same shape."""

    def drawn(count, pairs):
        energies = torch.from_numpy(rng.uniform(0, 3, (len(pairs), 10)))
        return {"count": count, "pairs": pairs, "energies": energies}

    pairs = [[2, 3], [0, 2], [0, 1], [1, 2], [1, 3]]
    first, second = drawn(4, pairs), drawn(4, pairs)
    return {
        "smallest": drawn(2, [[0, 1]]),
        "unreached": drawn(4, [[0, 1], [1, 2], [0, 2]]),
        "single": second | {"energies": second["energies"].float()},
        "first": first,
        "second": second,
        "again": first,
    }


@exercise(
    "4b",
    points=0.25,
    needs=(test_scores_of_the_recognition_graph,),
    hint="Paths lead from the first to the last cut, also where no segment reaches it.",
)
def test_several_recognition_graphs(run, segmented):
    """The graph is right for two cuts, for a last cut that no segment reaches, for float32, and call after call."""
    got, want = run(several_graphs, segmented)
    last = "A path ends before the last cut: only the last one of all `count` cuts accepts."
    judge_calls(got, want)
    judge_cases(got, want, {"single": SINGLE, "unreached": last, "smallest": SMALLEST})


### END HIDDEN TESTS


@inputs
def reading(rng):
    """Arcs of a recognition graph of digits 0 … 3 with energies, a grammar, and an answer with two ways to be cut.

    The grammar wants two or three digits, the last of which is 1 or 2. So the first two digits of the answer are an
    amount as well.
    """
    ### BEGIN HIDDEN TESTS
    pairs = [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3], [2, 4], [3, 4], [1, 4]]
    arcs = [[i, j, digit] for i, j in pairs for digit in range(4)]
    energies = rng.uniform(0, 2, len(arcs))
    energies[[number for number, arc in enumerate(arcs) if arc[1] == 4 and arc[2] in (0, 3)]] -= 1.5
    grammar = [[0, 1, digit] for digit in range(4)] + [[1, 2, digit] for digit in range(4)]
    grammar += [[node, 3, digit] for node in (1, 2) for digit in (1, 2)]
    return {
        "recognition": graph_text(arcs, [4]),
        "energies": torch.from_numpy(energies),
        "grammar": graph_text(grammar, [3]),
        "costs": torch.from_numpy(rng.uniform(0, 2, len(grammar))),
        "answer": [int(rng.integers(4)), last := int(rng.choice([1, 2])), last],
    }
    ### END HIDDEN TESTS


### BEGIN HIDDEN TESTS
@inputs
def high_reading(rng):
    """Energies in the hundreds."""
    arcs = [[i, i + 1, digit] for i in range(3) for digit in range(4)]
    energies = torch.from_numpy(rng.uniform(0, 2, len(arcs)) + 500)
    grammar = [[0, 1, digit] for digit in range(4)] + [[1, 2, digit] for digit in range(4)]
    grammar += [[node, 3, digit] for node in (1, 2) for digit in (1, 2)]
    costs = torch.from_numpy(rng.uniform(0, 2, len(grammar)))
    answer = [int(rng.integers(4)), int(rng.integers(4)), int(rng.choice([1, 2]))]
    graphs = {"recognition": graph_text(arcs, [3]), "grammar": graph_text(grammar, [3])}
    return graphs | {"energies": energies, "costs": costs, "answer": answer}


### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
def wrong_losses(case, weighted):
    _, recognition, grammar = graphs_of(case, weighted)
    arcs = [[k, k + 1, digit] for k, digit in enumerate(case["answer"])]
    none = torch.zeros(len(arcs))
    chain = read_graph(graph_text(arcs, [len(arcs)]), none)
    every = gtn.compose(recognition, grammar)
    right = gtn.compose(every, chain)
    bare = gtn.forward_score(gtn.compose(recognition, chain)).item()
    beginnings = read_graph(graph_text(arcs, range(1, len(arcs) + 1)), none)
    total, answer = gtn.forward_score(every).item(), gtn.forward_score(right).item()
    of_plus = [gtn.forward_score(graph, gtn.Log(-1.0)).item() for graph in (every, right)]

    return {
        "The sign is wrong: the loss is never negative.": tensor(answer - total),
        "This is the free energy of the answer: subtract that of all amounts.": tensor(-answer),
        "The weights are taken as energies: they are minus the energies already, so the default semiring is right.": (
            tensor(of_plus[1] - of_plus[0])
        ),
        "The semiring is that of energies: the weights are minus the energies, so the default one is right.": tensor(
            of_plus[0] - of_plus[1]
        ),
        "All amounts have their best path only: sum over all paths with `forward_score`.": tensor(
            gtn.viterbi_score(every).item() - answer
        ),
        "These are Viterbi scores: sum over all paths with `forward_score`.": tensor(
            gtn.viterbi_score(every).item() - gtn.viterbi_score(right).item()
        ),
        "The grammar is missing: compare with its amounts, not with all strings.": tensor(
            gtn.forward_score(recognition).item() - bare
        ),
        "The right answer has its best path only: sum over all ways to cut the image into its digits.": tensor(
            total - gtn.viterbi_score(right).item()
        ),
        "Amounts that are a beginning of the answer count as right: only the last node of its chain accepts.": tensor(
            total - gtn.forward_score(gtn.compose(every, beginnings)).item()
        ),
        "The grammar is missing in the score of all amounts: only its amounts count.": tensor(
            gtn.forward_score(recognition).item() - answer
        ),
        "The right answer lacks the energies of the grammar: compose it with the grammar as well.": tensor(
            total - bare
        ),
    }


def wrong_amounts(case, weighted):
    """The digits that known mistakes of `read_amount` read."""
    _, recognition, grammar = graphs_of(case, weighted)
    bare = graphs_of(case, False)[2]
    negated = graphs_of(case | {"energies": -case["energies"]}, weighted)[1]
    graphs = {
        "The energies of the grammar are ignored.": gtn.compose(recognition, bare),
        "The grammar is missing: its amounts are the only ones that may be read.": recognition,
        "This is the amount of largest energy: the weights of the graph are minus energies already.": (
            gtn.compose(negated, grammar)
        ),
    }
    return {sentence: gtn.viterbi_path(graph).labels_to_list() for sentence, graph in graphs.items()}


### END HIDDEN TESTS


@inputs
def wrong(_, reading):
    """The losses and the digits of known mistakes for `reading`, with a grammar without energies."""
    ### BEGIN HIDDEN TESTS
    return {"loss": wrong_losses(reading, False), "digits": wrong_amounts(reading, False)}
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@inputs
def readings(rng):
    """Amounts of one digit, of four with repeated digits and a zero, and two of the same shape."""

    def drawn(steps, digits):
        """Energies of steps with four digits each, lowest for `digits`, and a grammar whose last digit is 1 or 2."""
        arcs = [[step, step + 1, digit] for step in range(steps) for digit in range(4)]
        energies = rng.uniform(1, 2, len(arcs))
        energies[[4 * step + digit for step, digit in enumerate(digits)]] -= 3.0
        grammar = [[0, 1, digit] for digit in range(4)] if steps > 1 else []
        grammar += [[1, 1, digit] for digit in range(4)] + [[0, 3, 1], [0, 3, 2], [1, 3, 1], [1, 3, 2]]
        costs = torch.from_numpy(rng.uniform(0, 1, len(grammar)))
        graphs = {"recognition": graph_text(arcs, [steps]), "grammar": graph_text(grammar, [3])}
        return graphs | {"energies": torch.from_numpy(energies), "costs": costs}

    a, b = rng.permutation([1, 2, 3])[:2].tolist()
    first = drawn(4, [a, a, 0, 1]) | {"answer": [a, a, 0, 1]}
    second = drawn(4, [b, 0, 0, 2]) | {"answer": [a, b, b, 2]}
    return {"smallest": drawn(1, [2]) | {"answer": [1]}, "first": first, "second": second, "again": first}


@exercise("4c", points=0.25, hint="The energies of the grammar count for the right answer, too.")
def test_loss_with_a_weighted_grammar(run, reading):
    """The energies of the grammar count for the right amount and for all."""
    got, want = run(loss_of, reading, True)
    judge_amount_loss(got, want, lambda: wrong_losses(reading, True))


@exercise("4c", points=0.5, hint="Subtract the scores, do not divide exponentials.")
def test_loss_of_large_energies(run, high_reading):
    """`amount_loss` is finite for energies in the hundreds."""
    got, want = run(loss_of, high_reading, True)
    judge_amount_loss(got, want, lambda: wrong_losses(high_reading, True))


@exercise("4d", points=0.5, hint="Compose with the grammar as it is: its weights count.")
def test_amount_with_a_weighted_grammar(run, preferring):
    """The energies of the grammar decide which amount is read."""
    got, want = run(amount_of, preferring, True)
    judge_amount(got, want, lambda: wrong_amounts(preferring, True))


@inputs
def preferring(rng):
    """A reading in which the energies of the grammar change the result."""
    arcs = [[i, i + 1, digit] for i in range(3) for digit in range(4)]
    energies = torch.from_numpy(rng.uniform(0, 1, len(arcs)))
    energies[8 + int(rng.choice([0, 3]))] -= 1  # an amount that the grammar does not have
    grammar = [[0, 1, digit] for digit in range(4)] + [[1, 2, digit] for digit in range(4)]
    grammar += [[node, 3, digit] for node in (1, 2) for digit in (1, 2)]
    costs = rng.uniform(0, 1, len(grammar))
    best = [int(energies[4 * step : 4 * step + 4].argmin()) for step in range(2)]
    costs[best[0]] += 3
    costs[4 + best[1]] += 3
    answer = [int(rng.integers(4)), int(rng.integers(4)), int(rng.choice([1, 2]))]
    graphs = {"recognition": graph_text(arcs, [3]), "grammar": graph_text(grammar, [3])}
    return graphs | {"energies": energies, "costs": torch.from_numpy(costs), "answer": answer}


@exercise(
    "4c",
    points=0.25,
    needs=(test_loss_of_the_right_amount, test_loss_with_a_weighted_grammar),
    hint="The loss has the shape (), and both graphs and the answer stay as they are.",
)
def test_losses_of_several_amounts(run, readings):
    """`amount_loss` is right for a single digit, for repeated digits, and call after call."""
    got, want = run(several_losses, readings)
    judge_calls(got, want, sizes="The loss is wrong for an amount of four digits, some of them equal.")
    judge_cases(got, want, {"smallest": SMALLEST})


@exercise(
    "4d",
    points=0.25,
    needs=(test_amount_of_least_energy, test_amount_with_a_weighted_grammar),
    hint="The labels of the path as they are: digits may be equal or 0.",
)
def test_several_amounts(run, readings):
    """`read_amount` is right for a single digit, for repeated digits and zeros, and call after call."""
    got, want = run(several_amounts, readings)
    if got["first"] == gtn.collapse(want["first"]):
        fail("Digits are not frames: nothing may be merged or dropped.")
    judge_calls(got, want, sizes="The amount is wrong for four digits, some of them equal or 0.")
    judge_cases(got, want, {"smallest": SMALLEST})


### END HIDDEN TESTS
