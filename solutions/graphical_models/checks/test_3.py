"""3: composition with a lexicon and a grammar."""

from itertools import pairwise
from math import prod

import numpy as np
import torch
from calls import SINGLE, SMALLEST, judge_calls, judge_cases, judge_slope, unchanged
from stand_ins import lexicon, score

from ebmcourse import gtn
from ebmcourse.checking import assert_close, exercise, fail, inputs, probe, require

A, C, R, T, U, X = (ord(letter) - ord("a") for letter in "acrtux")


def scored(rng, letters, steps):
    return torch.from_numpy(rng.uniform(0.0, 2.0, (steps, letters)))


def drawn_words(rng):
    """Words over six letters that share beginnings; a word ends where another goes on, before or after it."""
    a, b, c, d = rng.permutation(6)[:4].tolist()
    e = int(rng.integers(6))
    return [[a, b, c], [a, b, d], [a, b, c, e], [b], [d, a, b], [a, d], [b, b, e, a], [d]]


@inputs
def words(rng):
    return drawn_words(rng)


@inputs
def repeated(rng):
    found = drawn_words(rng)
    return [*found, found[1], found[5]]


@inputs
def numbered(rng):
    """Words of labels from 0 to 12, two of which are the same when their digits are written one after the other."""
    return [[1, 12], [11, 2], [1, 1, 2], [int(rng.integers(3, 10))], [12, int(rng.integers(10))]]


@inputs
def frames(rng):
    """Energies (T, 6) for T = 1 … 5."""
    return [scored(rng, 6, steps) for steps in range(1, 6)]


@inputs
def wide_frames(rng):
    """Energies (T, 13) for T = 1 … 3."""
    return [scored(rng, 13, steps) for steps in range(1, 4)]


@probe
def letters(weights):
    """The graph of all strings with one letter for each row of the weights (T, K)."""
    graph = gtn.linear_graph(*weights.shape, False)
    graph.set_weights(weights)
    return graph


@probe
def scores_by_length(graph, frames):
    """The forward scores of the strings of 0, 1, 2, … letters; -inf where there is none."""
    empty = gtn.Graph(False)
    empty.add_node(True, True)
    scores = [score(gtn.compose(empty, graph))]
    scores += [score(gtn.compose(letters(-energies), graph)) for energies in frames]
    return torch.tensor(scores, dtype=torch.float64)


@probe
def strings_of(student, words, frames):
    """The forward scores of the strings that the trie accepts, and its size."""
    graph = student.graphical_models.trie([list(word) for word in words])
    require(isinstance(graph, gtn.Graph), "`trie` returns a graph of the engine.")
    return {"scores": scores_by_length(graph, frames), "size": [graph.num_nodes(), graph.num_arcs()]}


@probe
def strings_of_several(student, cases, frames):
    """The forward scores of the strings that the trie of each list of words accepts."""
    seen = {}
    for name, words in cases.items():
        with unchanged(words):
            graph = student.graphical_models.trie(words)
        seen[name] = scores_by_length(graph, frames)
    return seen


### BEGIN HIDDEN TESTS
def listed(words, frames):
    """The scores of a list of words."""
    return scores_by_length(gtn.union([lexicon([word]) for word in words]), frames)


def shared_by_place(words, frames, once=False):
    """The scores of a graph in which words share the nodes of a letter at a place, whatever came before.

    once: whether only the first arc into each node is there
    """
    places = sorted({(place, label) for word in words for place, label in enumerate(word, start=1)})
    number = {(0, None): 0} | {place: count for count, place in enumerate(places, start=1)}
    paths = [[(0, None), *enumerate(word, start=1)] for word in words]
    last = {path[-1] for path in paths}
    graph = gtn.Graph(False)
    for place in number:
        graph.add_node(place == (0, None), place in last)
    arcs = list(dict.fromkeys(pair for path in paths for pair in pairwise(path)))
    if once:
        arcs = [(before, after) for after, before in dict((after, before) for before, after in arcs[::-1]).items()]
    for before, after in arcs:
        graph.add_arc(number[before], number[after], after[1])
    return scores_by_length(graph, frames)


def wrong_tries(words, frames):
    """The scores of known mistakes of `trie`."""
    unique = [list(word) for word in dict.fromkeys(map(tuple, words))]
    beginnings = [list(word) for word in {tuple(word[:end]) for word in unique for end in range(1, len(word) + 1)}]
    leaves = [word for word in unique if not any(other[: len(word)] == word != other for other in unique)]
    created = [word for at, word in enumerate(unique) if not any(other[: len(word)] == word for other in unique[:at])]
    later = [word for word in unique if word not in created]
    paths = {
        tuple(word): prod(sum(other[:end] == word[:end] for other in words) for end in range(1, len(word) + 1))
        for word in words
    }
    return {
        "A word that is the beginning of another one is missing: its last node must accept.": listed(leaves, frames),
        "A word is missing whose nodes were added for a longer word before it.": listed(created, frames),
        "Words share nodes whose beginnings are different, so the graph has strings that are no words.": (
            shared_by_place(unique, frames)
        ),
        "Words share nodes whose beginnings are different: a node belongs to one whole beginning.": shared_by_place(
            unique, frames, once=True
        ),
        "Words that share a beginning have several paths: add an arc only together with its new node.": listed(
            [list(word) for word, count in paths.items() for _ in range(count)], frames
        ),
        "Beginnings of words are accepted: only nodes where a word ends may accept.": listed(beginnings, frames),
        "A word has two paths: add no node for a beginning that has one.": listed(words + later, frames),
        "A word that is given twice has two paths: it must have one.": listed(words, frames),
    }


### END HIDDEN TESTS


@inputs
def wrong_words(_, words, frames):
    """The scores of known mistakes of `trie`."""
    ### BEGIN HIDDEN TESTS
    return wrong_tries(words, frames)
    ### END HIDDEN TESTS


def judge_trie(got, want, wrong):
    empty = {"The empty string is accepted: no word is empty.": torch.cat([torch.zeros(1), want["scores"][1:]])}
    assert_close(got["scores"], want["scores"], mistakes=lambda: wrong() | empty)
    if all(found > right for found, right in zip(got["size"], want["size"], strict=True)):
        fail(
            "The words do not share the nodes of their beginnings: look for the node of a beginning before you add one."
        )
    if got["size"] != want["size"]:
        fail("The paths are right, but the graph does not have one node for each beginning, with one arc into it.")


@exercise("3a", points=0.75, public=True, hint="One node for each beginning; it accepts where a whole word ends.")
def test_words_of_the_trie(run, words, frames, wrong_words):
    """`trie` accepts the words and nothing else, and shares the nodes of their beginnings."""
    got, want = run(strings_of, words, frames)
    judge_trie(got, want, lambda: wrong_words)


### BEGIN HIDDEN TESTS
@inputs
def lexica(rng):
    """The smallest list of words, and two others, the first of them twice."""
    first, second = drawn_words(rng)[:-1], drawn_words(rng)[:-1]
    return {"smallest": [[int(rng.integers(6))]], "first": first, "second": second, "again": first}


LABELS = "The graph is wrong for labels above 9, although it is right for smaller ones: tell beginnings apart."


@exercise(
    "3a",
    points=0.25,
    needs=(test_words_of_the_trie,),
    hint="Tell beginnings apart by their labels, which may have two digits.",
)
def test_labels_of_two_digits(run, numbered, wide_frames):
    """`trie` accepts the words of labels above 9, and nothing else."""
    got, want = run(strings_of, numbered, wide_frames)
    judge_cases(got, want, {"scores": LABELS})
    judge_trie(got, want, lambda: wrong_tries(numbered, wide_frames))


@exercise(
    "3a",
    points=0.25,
    needs=(test_words_of_the_trie,),
    hint="Make a new graph in each call, and leave the list of words as it is.",
)
def test_tries_of_several_lexica(run, lexica, frames):
    """`trie` is right for a single letter, and call after call."""
    got, want = run(strings_of_several, lexica, frames)
    judge_calls(got, want)
    judge_cases(got, want, {"smallest": SMALLEST})


@exercise("3a", points=0.25, hint="Do not add a second path for a word that is given twice.")
def test_repeated_words(run, repeated, frames):
    """Words that are given twice have one path."""
    got, want = run(strings_of, repeated, frames)
    judge_trie(got, want, lambda: wrong_tries(repeated, frames))


### END HIDDEN TESTS


@inputs
def lecture(rng):
    """The example of the lecture, with other energies: c, then x, u or a; the trie goes on with u or a."""
    energies = torch.full((3, 26), 9.0, dtype=torch.float64)
    energies += torch.from_numpy(rng.uniform(0, 1, (3, 26)))
    energies[0, C] = 0.4
    energies[1, [X, U, A]] = torch.from_numpy(np.sort(rng.uniform(0.1, 1.0, 3)))
    energies[2, [T, R]] = torch.from_numpy(rng.uniform(0.1, 1.0, 2))
    return {"energies": energies, "words": [[C, U, T], [C, A, T], [C, A, R]]}


@inputs
def weighted(rng):
    """Energies of a recognition graph and of the arcs of a lexicon."""
    return {
        "energies": scored(rng, 6, 3),
        "words": [[0, 1, 2], [0, 1, 3], [4, 5, 5], [2, 2]],
        "costs": rng.uniform(0, 1, 9),
    }


@probe
def interpretations(student, case):
    """Scores of the interpretation graph, its size, the best string, and the gradient of the forward score."""
    energies = case["energies"].clone().requires_grad_()
    build = student.graphical_models.interpretation_graph
    graph = build(energies, lexicon(case["words"], case.get("costs")))
    require(isinstance(graph, gtn.Graph), "`interpretation_graph` returns a graph of the engine.")
    if not graph.num_nodes():
        steps = len(energies)
        square = build(energies[:, :steps], lexicon([range(steps)]))
        require(
            square.num_nodes() == 0,
            "There is a path only for as many steps as letters: `linear_graph` takes the number of steps first.",
        )
    require(graph.num_nodes() > 0, "The interpretation graph has no path.")
    best = gtn.viterbi_path(graph)
    score = gtn.forward_score(graph).weights_to_torch()
    require(
        score.requires_grad,
        "Gradients do not flow to the energies: neither detach them nor make a graph without gradients.",
    )
    return {
        "arcs": graph.num_arcs(),
        "string": best.labels_to_list(),
        "least": torch.tensor([gtn.viterbi_score(graph).item()], dtype=torch.float64),
        "score": score.detach(),
        "slope": torch.autograd.grad(score.sum(), energies)[0],
    }


@probe
def several_interpretations(student, cases):
    """The forward scores of the interpretation graphs of several cases, from energies without a gradient."""
    seen = {}
    for name, case in cases.items():
        energies, grammar = case["energies"], lexicon(case["words"], case["costs"])
        with unchanged(energies, grammar):
            graph = student.graphical_models.interpretation_graph(energies, grammar)
        seen[name] = torch.tensor(gtn.forward_score(graph).item(), dtype=torch.float64)
    return seen


### BEGIN HIDDEN TESTS
def wrong_interpretations(case):
    """The least energies, negated, of known mistakes of `interpretation_graph`."""
    energies, costs = case["energies"], case.get("costs")

    def least(graph):
        return torch.tensor([gtn.viterbi_score(graph).item()], dtype=torch.float64)

    def scores(weights, costs):
        return least(gtn.compose(letters(weights), lexicon(case["words"], costs)))

    return {
        "The weights are plus energies: set minus the energies.": scores(energies, costs),
        "The energies of the grammar are lost: composition adds the weights of both graphs.": scores(-energies, None),
        "The energies are normalised in each step: the weights are minus the energies.": scores(
            (-energies).log_softmax(1), costs
        ),
        "This is the recognition graph: compose it with the grammar.": least(letters(-energies)),
    }


### END HIDDEN TESTS


@inputs
def wrong_lecture(_, lecture):
    """The least energies, negated, of known mistakes of `interpretation_graph`."""
    ### BEGIN HIDDEN TESTS
    return wrong_interpretations(lecture)
    ### END HIDDEN TESTS


def judge_interpretations(got, want, wrong):
    assert_close(got["least"], want["least"], mistakes=wrong)
    if got["string"] != want["string"]:
        fail("The best path has the right weight, but other letters.")
    assert_close(
        got["score"],
        want["score"],
        mistakes={"The graph has the best path only: return the whole composition.": want["least"]},
    )
    if got["arcs"] != want["arcs"]:
        fail("The paths are right, but the number of arcs is not that of the composition.")
    judge_slope(got["slope"], want["slope"])


@exercise("3b", points=1, public=True, hint="The weights of the recognition graph are minus the energies.")
def test_example_of_the_lecture(run, lecture, wrong_lecture):
    """After c, only the letters that the lexicon allows are in the interpretation graph."""
    got, want = run(interpretations, lecture)
    judge_interpretations(got, want, wrong_lecture)


### BEGIN HIDDEN TESTS
@inputs
def interpreted(rng):
    """A single letter, energies of float32, forbidden letters among energies in the hundreds, and repeated calls."""
    words, costs = [[0, 1, 2], [0, 1, 3], [4, 5, 5]], rng.uniform(0, 1, 9)
    first = {"energies": scored(rng, 6, 3), "words": words, "costs": costs}
    high = scored(rng, 6, 3) + 400
    high[1, 1] = float("inf")
    return {
        "smallest": {"energies": scored(rng, 2, 1), "words": [[0], [1]], "costs": costs[:2]},
        "single": first | {"energies": first["energies"].float()},
        "first": first,
        "second": first | {"energies": scored(rng, 6, 3)},
        "again": first,
        "high": first | {"energies": high},
    }


@exercise("3b", points=0.25, hint="Composition adds the weights of both graphs.")
def test_weights_of_the_grammar(run, weighted):
    """The energies of recognition and grammar are added."""
    got, want = run(interpretations, weighted)
    judge_interpretations(got, want, lambda: wrong_interpretations(weighted))


@exercise(
    "3b",
    points=0.25,
    needs=(test_example_of_the_lecture, test_weights_of_the_grammar),
    hint="Energies may be high, or infinite for a forbidden letter. Leave the arguments as they are.",
)
def test_several_interpretations(run, interpreted):
    """The graph is right for a single letter, for forbidden letters, for float32, and call after call."""
    got, want = run(several_interpretations, interpreted)
    high = "The result is wrong where a letter is forbidden, with an infinite energy, and others are in the hundreds."
    judge_calls(got, want)
    judge_cases(got, want, {"single": SINGLE, "high": high, "smallest": SMALLEST})


### END HIDDEN TESTS


@inputs
def bigram(rng):
    return {"first": torch.from_numpy(rng.uniform(0, 2, 5)), "following": torch.from_numpy(rng.uniform(0, 2, (5, 5)))}


@inputs
def steps(rng):
    """Energies (T, 5) for T = 1 … 3."""
    return [scored(rng, 5, count) for count in (1, 2, 3)]


@inputs
def grammars(rng):
    """Grammars of a single letter, of float32, and two of three letters, the first of them twice."""

    def drawn(count):
        return {
            "first": torch.from_numpy(rng.uniform(0, 2, count)),
            "following": torch.from_numpy(rng.uniform(0, 2, (count, count))),
        }

    first, second = drawn(3), drawn(3)
    single = {name: energies.float() for name, energies in second.items()}
    return {"smallest": drawn(1), "single": single, "first": first, "second": second, "again": first}


@probe
def bigram_scores(student, bigram, steps):
    """The forward scores of all strings with 0, 1, 2, … letters."""
    graph = student.graphical_models.bigram_grammar(bigram["first"], bigram["following"])
    require(isinstance(graph, gtn.Graph), "`bigram_grammar` returns a graph of the engine.")
    return scores_by_length(graph, steps)


@probe
def scores_of_several(student, grammars, steps):
    seen = {}
    for name, case in grammars.items():
        with unchanged(case["first"], case["following"]):
            graph = student.graphical_models.bigram_grammar(case["first"], case["following"])
        seen[name] = scores_by_length(graph, [energies[:, : len(case["first"])] for energies in steps])
    return seen


@inputs
def wrong_bigrams(_, bigram, steps):
    """The scores of known mistakes of `bigram_grammar`."""

    ### BEGIN HIDDEN TESTS
    def bigram_sums(first, following, steps):
        """The forward scores of all strings by the recursion over the letters."""
        found = [torch.tensor(-torch.inf, dtype=torch.float64)]
        for energies in steps:
            alpha = -first - energies[0]
            for row in energies[1:]:
                alpha = (alpha[:, None] - following).logsumexp(0) - row
            found.append(alpha.logsumexp(0))
        return torch.stack(found)

    def shifted_sums(first, following, steps):
        """The same, where the label of an arc is that of the node that it leaves, except for the first."""
        found = [torch.tensor(-torch.inf, dtype=torch.float64)]
        for energies in steps:
            alpha = -first - energies[0]
            for row in energies[1:]:
                alpha = ((alpha - row)[:, None] - following).logsumexp(0)
            found.append(alpha.logsumexp(0))
        return torch.stack(found)

    first, following = bigram["first"], bigram["following"]
    return {
        "An arc has the label of the letter before: the arc into the node of letter j has the label j.": shifted_sums(
            first, following, steps
        ),
        "The weights are plus energies: they must be minus energies.": bigram_sums(-first, -following, steps),
        "The axes of `following` are exchanged: the first is the letter before.": bigram_sums(
            first, following.T, steps
        ),
        "The weights of the first letters are plus energies: they must be minus energies.": bigram_sums(
            -first, following, steps
        ),
        "The weights after the first letter are plus energies: they must be minus energies.": bigram_sums(
            first, -following, steps
        ),
        "A letter cannot follow itself: there is an arc from each node to itself, too.": bigram_sums(
            first, following.masked_fill(torch.eye(len(first)).bool(), torch.inf), steps
        ),
        "The energies of the first letter are missing.": bigram_sums(0 * first, following, steps),
        "The energies after the first letter are missing.": bigram_sums(first, 0 * following, steps),
    }
    ### END HIDDEN TESTS


@exercise("3c", points=0.75, public=True, hint="following[i, j] is on the arc from the node of i to the node of j.")
def test_energies_of_bigrams(run, bigram, steps, wrong_bigrams):
    """`bigram_grammar` gives every string the energies of its letters, each after the one before."""
    got, want = run(bigram_scores, bigram, steps)
    empty = {"The empty string is accepted: the start node must not accept.": torch.cat([torch.zeros(1), want[1:]])}
    assert_close(got, want, mistakes=wrong_bigrams | empty)


### BEGIN HIDDEN TESTS
@exercise(
    "3c",
    points=0.25,
    needs=(test_energies_of_bigrams,),
    hint="Take the number of letters from `first`, and leave both tensors as they are.",
)
def test_several_grammars(run, grammars, steps):
    """`bigram_grammar` is right for a single letter, for float32, and call after call."""
    got, want = run(scores_of_several, grammars, steps)
    judge_calls(got, want)
    judge_cases(got, want, {"single": SINGLE, "smallest": SMALLEST})


### END HIDDEN TESTS
