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


@inputs
def wrong_words(_, words, frames):
    """The scores of known mistakes of `trie`."""


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


@inputs
def wrong_lecture(_, lecture):
    """The least energies, negated, of known mistakes of `interpretation_graph`."""


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


@exercise("3c", points=0.75, public=True, hint="following[i, j] is on the arc from the node of i to the node of j.")
def test_energies_of_bigrams(run, bigram, steps, wrong_bigrams):
    """`bigram_grammar` gives every string the energies of its letters, each after the one before."""
    got, want = run(bigram_scores, bigram, steps)
    empty = {"The empty string is accepted: the start node must not accept.": torch.cat([torch.zeros(1), want[1:]])}
    assert_close(got, want, mistakes=wrong_bigrams | empty)
