"""6a: the graph of connectionist temporal classification.

Graphs are compared by what they accept: with random emissions, the sum over all common paths differs for any two graphs
that accept different strings, whatever their nodes.
"""

import math

import numpy as np
import torch
from oracles import INFINITY, ctc_score, judge_refusal, random_log_probs, source_score
from stand_ins import refusal

from ebmcourse import gtn
from ebmcourse.checking import Mismatch, assert_close, exercise, fail, inputs, probe, require
from ebmcourse.checking.compare import difference
from ebmcourse.data.words import BETWEEN

OTHER_BLANK = 4


@inputs
def words(rng):
    """Targets of different letters, none of which is 0 or `OTHER_BLANK`."""
    letters = rng.permutation(np.setdiff1d(np.arange(1, 26), [OTHER_BLANK]))
    return [letters[:3].tolist(), letters[3:5].tolist(), letters[5:6].tolist()]


@inputs
def double_letters(rng):
    """Targets with double letters, one with the letter a, 0, at two places, and one without letters."""
    a, b, c = rng.permutation(np.arange(1, 26))[:3].tolist()
    return [[a, b, b], [c, c], [b, b, a], [0, c, 0], []]


@inputs
def emissions(rng):
    """Log-probabilities for 1, 3, 5 and 6 frames."""
    return [random_log_probs(rng, frames, 27) for frames in (1, 3, 5, 6)]


@probe
def score_of(graph, emissions, outputs=False):
    """log Σ over all paths of the graph that the emissions allow; -inf if there is none.

    outputs: compare the emissions with the output labels of the graph, not with its input labels
    """
    line = gtn.linear_graph(len(emissions), emissions.shape[1], False)
    line.set_weights(emissions)
    both = gtn.intersect(graph, line) if outputs else gtn.intersect(line, graph)
    return gtn.forward_score(both).item() if both.num_nodes() else float("-inf")


@probe
def score_of_string(graph, string):
    """The logarithm of the number of paths for this string of labels, where the weights are 0; -inf if there is none.

    The score for emissions shows that a graph is wrong; those of strings show what is wrong with it.
    """
    line = gtn.Graph(False)
    line.add_node(start=True, accept=not string)
    for number, label in enumerate(string):
        line.add_node(accept=number == len(string) - 1)
        line.add_arc(number, number + 1, label)
    both = gtn.intersect(line, graph)
    return gtn.forward_score(both).item() if both.num_nodes() else float("-inf")


@probe
def strings_of(target, blank):
    """Strings of labels by what is special about them; blank: None for BETWEEN."""
    blank, given = BETWEEN if blank is None else blank, blank

    def joined(letters, sign=blank):
        return [sign] + [label for letter in letters for label in (letter, sign)]

    whole, last = joined(target), target[-1:]
    found = {
        "whole": whole,
        "no first blank": whole[1:],
        "no last blank": whole[:-1],
        "no blanks between": [blank, *target, blank],
        "first blank repeated": [blank, *whole],
        "last blank repeated": [*whole, blank],
        "letter repeated": whole[:-1] + last + [blank],
        "blank repeated": [label for label in whole for _ in range(1 + (label == blank))][1:-1],
        "last letter missing": joined(target[:-1]),
        "first letter missing": joined(target[1:]),
        "middle letter missing": joined(target[:1] + target[2:]),
        "letter twice": joined(target + last),
        "letters alone": list(target),
        "blanks alone": [blank, blank],
        "ends before the last letter": joined(target[:-1])[:-1],
        "another letter": joined([*target[:-1], (target[-1] if target else 0) % 24 + 1]),
    }
    if given in (None, BETWEEN):
        return found
    others = joined(target, BETWEEN)
    return {"BETWEEN for the blank": others, "BETWEEN after the letters": others[1:]} | found


@probe
def accepted(student, targets, emissions, blank):
    """The scores (targets, emissions) of the graph of each target with each of the emissions."""
    given = [] if blank is None else [blank]
    graphs = []
    for target in targets:
        try:
            graphs.append(student.structured_prediction.create_ctc_graph(list(target), *given))
        except ValueError:
            require(len(target) > 0, "A target without letters is refused: its graph accepts strings of blanks.")
            require(
                blank is not None or 0 not in target,
                "A target with the letter a, whose class is 0, is refused: the default blank is BETWEEN = 26.",
            )
            require(
                len(set(target)) == len(target),
                "A target in which a letter occurs twice is refused: its graph requires a blank between equal "
                "neighbours.",
            )
            require(
                blank is None or BETWEEN not in target,
                "BETWEEN is refused in a target with another blank: it is a letter then.",
            )
            raise
    require(
        all(isinstance(graph, gtn.Graph) for graph in graphs),
        "`create_ctc_graph` must return the graph alone, a `gtn.Graph`.",
    )
    return {
        "scores": torch.tensor([[score_of(graph, line) for line in emissions] for graph in graphs]),
        "strings": [
            torch.tensor([score_of_string(graph, string) for string in strings_of(target, blank).values()])
            for graph, target in zip(graphs, targets, strict=True)
        ],
    }


@probe
def emitted(student, targets, emissions):
    """The scores by the output labels of the graphs, and the targets after the graphs were made."""
    used = [list(target) for target in targets]
    graphs = [student.structured_prediction.create_ctc_graph(target) for target in used]
    scores = torch.tensor([[score_of(graph, line, outputs=True) for line in emissions] for graph in graphs])
    return {"scores": scores, "targets": used}


def scores(targets, emissions, blank, **rules):
    return torch.stack([torch.stack([ctc_score(line, row, blank, **rules) for line in emissions]) for row in targets])


def from_sources(targets, emissions, blank, steps):
    return torch.stack([torch.stack([source_score(line, row, blank, steps) for line in emissions]) for row in targets])


def second_start(row):
    """The first states if the first letter is a start node, too: some of them can be reached from both."""
    return (0, 1, 1, 2, 3) if len(row) > 1 and row[0] != row[1] else (0, 1, 1, 2)


def wrong_scores(targets, emissions, blank, given):
    """The results of known mistakes; given: whether the blank is an argument."""

    def twice(row):
        return [label for letter in row for label in (letter, blank)]

    wrong = {
        "The blank between equal letters can be skipped, so both letters merge into one.": (
            scores(targets, emissions, blank, skips="all")
        ),
        "The blank between different letters must be optional: add an arc from letter to letter.": (
            scores(targets, emissions, blank, skips="none")
        ),
        "The blank before the first letter is missing: a string may begin with blanks.": (
            scores(targets, emissions, blank, first=(1,))
        ),
        "The blank before the first letter must be optional: a string may begin with the letter.": (
            scores(targets, emissions, blank, first=(0,))
        ),
        "The blank after the last letter must be optional: the last two nodes accept.": (
            scores(targets, emissions, blank, last=(-1,))
        ),
        "A string may also end with a blank: the last two nodes accept.": (
            scores(targets, emissions, blank, last=(-2,))
        ),
        "Labels cannot be repeated: each node needs an arc to itself.": (
            scores(targets, emissions, blank, stays=False)
        ),
        "Letters cannot be repeated: the nodes of letters need an arc to themselves, too.": (
            scores(targets, emissions, blank, stays="blanks")
        ),
        "Blanks cannot be repeated: the nodes of blanks need an arc to themselves, too.": (
            scores(targets, emissions, blank, stays="letters", first=(1,))
        ),
        "Blanks between letters and after them cannot be repeated: their nodes need an arc to themselves, too.": (
            scores(targets, emissions, blank, stays="letters")
        ),
        "Labels cannot be repeated, and a string cannot begin with a blank: each node needs an arc to itself.": (
            scores(targets, emissions, blank, stays=False, first=(1,))
        ),
        "The blank before a letter can only be skipped if the letter is new: compare with the letter before it.": (
            scores(targets, emissions, blank, skips="new")
        ),
        "Letters can be skipped, too: there must be no arc from blank to blank.": (
            scores(targets, emissions, blank, drops=True, first=(0, 1, 2))
        ),
        "A string may begin after the first letter: only the first node is a start node.": torch.stack(
            [
                torch.stack([ctc_score(line, row, blank, first=second_start(row)) for line in emissions])
                for row in targets
            ]
        ),
        "The label of an arc to the next node must be that of this node, not of the node that the arc leaves.": (
            from_sources(targets, emissions, blank, (1,))
        ),
        "The label of an arc must be that of the node to which it leads, not of the node that it leaves.": (
            from_sources(targets, emissions, blank, (1, 2))
        ),
        "There are blanks next to blanks: the target is plain letters, and the graph inserts the blanks.": (
            scores([twice(row) for row in targets], emissions, blank)
        ),
    }
    if given:
        wrong["`blank_idx` is ignored: the blank is not always BETWEEN."] = scores(targets, emissions, BETWEEN)
    else:
        default = "The default blank is 0, which is the letter a: it must be BETWEEN = 26."
        wrong[default] = scores(targets, emissions, 0)
    return {name: value.float() for name, value in wrong.items()}


def about_strings(found, target, blank):
    """What is wrong with a graph with these scores of strings; None if it is unknown."""
    strings = strings_of(target, blank)
    if found.shape != (len(strings),):
        return None
    accepts = {name: score > -INFINITY for name, score in zip(strings, found.tolist(), strict=True)}
    should = {name: gtn.collapse(string, blank) == list(target) for name, string in strings.items()}
    refused = {
        "whole": "A string with blanks before, between and after the letters is not accepted.",
        "no first blank": "The blank before the first letter must be optional: a string may begin with the letter.",
        "no last blank": "The blank after the last letter must be optional: the last two nodes accept.",
        "no blanks between": "The blank between different letters must be optional: add an arc from letter to letter.",
        "first blank repeated": "The blank before the first letter cannot be repeated: it needs an arc to itself.",
        "last blank repeated": "The blank after the last letter cannot be repeated: it needs an arc to itself.",
        "letter repeated": "A letter cannot be repeated: it needs an arc to itself.",
        "blank repeated": "A blank between letters cannot be repeated: it needs an arc to itself.",
    }
    repeated = {
        "last blank repeated": "the blank after the last letter",
        "letter repeated": "a letter",
        "blank repeated": "a blank between letters",
    }
    wrongly = {
        "BETWEEN for the blank": "`blank_idx` is ignored: a string is accepted in which BETWEEN stands for the blank.",
        "BETWEEN after the letters": "`blank_idx` is ignored for some nodes: their blank is BETWEEN.",
        "last letter missing": (
            "A string without the last letter is accepted: only the last two nodes accept, and no arc skips a letter."
        ),
        "ends before the last letter": (
            "A string without the last letter is accepted: only the last two nodes accept, and no arc skips a letter."
        ),
        "blanks alone": "A string of blanks alone is accepted: the first node is the start, but does not accept.",
        "first letter missing": (
            "A string without the first letter is accepted: only the first node is a start, and no arc skips a letter."
        ),
        "no blanks between": "The blank between equal letters can be skipped, so both letters merge into one.",
        "middle letter missing": "A string is accepted in which a letter is missing.",
        "letter twice": "A string is accepted in which the last letter occurs once more, after a blank.",
        "another letter": "A string with another last letter is accepted.",
    }
    if not target and not accepts["whole"]:
        return "With an empty target, the only node must accept: strings of blanks read as the empty word."
    if accepts["last letter missing"] and accepts["no last blank"] and not accepts["whole"]:
        return (
            "A string without the last letter is accepted, and one that ends with a blank is not: the last two nodes, "
            "which accept, are those of the last letter and of a blank after it."
        )
    accepted_ones = [name for name in (*wrongly, *strings) if accepts.get(name) and not should[name]]
    if accepted_ones:
        return wrongly.get(accepted_ones[0])
    if not accepts["whole"] and accepts["no last blank"]:
        return "A string may also end with a blank: the last two nodes accept."
    if not accepts["whole"] and accepts["no first blank"]:
        return "A string may also begin with blanks: the first node is that of the blank, with an arc to itself."
    if not accepts["whole"] and accepts["letters alone"]:
        return "Blanks after letters are not accepted: an arc leads from each letter to the blank after it."
    for name in strings:
        if should[name] and not accepts[name]:
            return refused.get(name)
    numbers = [math.exp(score) if abs(score) < 100 else 0.0 for score in found.tolist()]
    if any(abs(number - round(number)) > 1e-3 for number in numbers):
        return "The arcs have weights: their weights must be 0."
    ambiguous = {name for name, number in zip(strings, numbers, strict=False) if number > 1.5}
    begin_with_blank = {name for name, string in strings.items() if accepts[name] and string[:1] == [blank]}
    if ambiguous and ambiguous == begin_with_blank:
        return "A string that begins with a blank has more than one path: does the first node have two arcs to itself?"
    if len(ambiguous) == 1 and (what := repeated.get(*ambiguous)):
        return f"A string in which {what} is repeated has more than one path: does its node have two arcs to itself?"
    if ambiguous:
        return "A string has more than one path: there must be exactly one for each string that reads as the target."
    return None


def judge_graphs(got, targets, emissions, blank, given):
    right = scores(targets, emissions, blank).float()
    try:
        assert_close(got["scores"], right, mistakes=lambda: wrong_scores(targets, emissions, blank, given))
    except Mismatch as mismatch:
        if mismatch.diagnosis is None:
            about = [about_strings(*each, blank) for each in zip(got["strings"], targets, strict=False)]
            raise Mismatch(mismatch.reason, next(filter(None, about), None)) from None
        raise


@exercise(
    "6a",
    points=1,
    public=True,
    seconds=30,
    hint="Nodes: blank, letter, blank, …, blank. Arcs: stay, advance, or skip the blank between different letters.",
)
def test_graph_of_different_letters(run, words, emissions):
    """`create_ctc_graph` accepts exactly the strings of labels that read as the target."""
    for blank in (None, OTHER_BLANK):
        got, _ = run(accepted, words, emissions, blank)
        judge_graphs(got, words, emissions, BETWEEN if blank is None else blank, blank is not None)


@probe
def blank_in_target(student, targets, emissions):
    """The exceptions for targets that contain the blank, and the scores for a target without it."""
    module = student.structured_prediction
    dirty = {
        "default": refusal(lambda: module.create_ctc_graph([*targets[0], BETWEEN])),
        "given": refusal(lambda: module.create_ctc_graph([targets[0][0], OTHER_BLANK], OTHER_BLANK)),
        "inside": refusal(lambda: module.create_ctc_graph([targets[0][0], BETWEEN, targets[0][1]])),
        "first": refusal(lambda: module.create_ctc_graph([BETWEEN, *targets[0]])),
    }
    graph = module.create_ctc_graph(list(targets[1]))
    return {"refused": dirty, "scores": torch.tensor([score_of(graph, line) for line in emissions[2:]])}


### BEGIN HIDDEN TESTS
@exercise(
    "6a", points=0.5, seconds=30, hint="Equal letters are separated by the blank between them: no arc may skip it."
)
def test_graph_of_double_letters(run, double_letters, emissions):
    """`create_ctc_graph` requires a blank between equal neighbours only, and works for a target without letters."""
    got, _ = run(accepted, double_letters, emissions, None)
    judge_graphs(got, double_letters, emissions, BETWEEN, False)
    used, _ = run(emitted, double_letters, emissions)
    if difference(used["scores"], got["scores"], 1e-4, 1e-5):
        fail("The graph is not an acceptor: pass one label to `add_arc`, so that inputs and outputs are the same.")
    if used["targets"] != double_letters:
        fail("The list `target` was changed: the caller still needs it.")


@exercise(
    "6a", points=0.5, seconds=30, hint="CTC targets are plain letters: raise a ValueError if the blank is in one."
)
def test_blank_in_the_target(run, words, emissions):
    """`create_ctc_graph` raises a ValueError that says so if the target contains the blank."""
    got, _ = run(blank_in_target, words, emissions)
    accepted_blanks = {
        "default": "A blank in the target is accepted: raise a ValueError, since it is not a letter.",
        "given": "The blank in the target is accepted if it is not BETWEEN: compare the target with `blank_idx`.",
        "inside": "A blank between two letters is accepted, although one at the end is not: it may be anywhere.",
        "first": "A blank before the letters is accepted, although one after them is not: it may be anywhere.",
    }
    for name, found in got["refused"].items():
        judge_refusal(found, [], accepted_blanks[name], "")
        if not any(word in found["message"].lower() for word in ("blank", "between", "26", str(OTHER_BLANK))):
            fail("The message of the ValueError does not say that the blank is in the target.")
    # With another blank, BETWEEN is a letter.
    between = [BETWEEN, *words[1]]
    letter, _ = run(accepted, [between], emissions[2:], OTHER_BLANK)
    # Which strings the graph accepts is judged above: here, known mistakes pass.
    for found, target, blank in ((got["scores"], words[1], BETWEEN), (letter["scores"][0], between, OTHER_BLANK)):
        lines = emissions[2:]
        known = [scores([target], lines, blank), *wrong_scores([target], lines, blank, blank != BETWEEN).values()]
        if all(difference(found, value[0].float(), 1e-4, 1e-5) for value in known):
            fail("The graph of a target of plain letters is wrong.")


### END HIDDEN TESTS
