"""3: composition with a lexicon and a grammar."""

import numpy as np
import torch
from stand_ins import lexicon

from ebmcourse import gtn
from ebmcourse.checking import assert_close, exercise, fail, inputs, probe, require

A, C, R, T, U, X = (ord(letter) - ord("a") for letter in "acrtux")


def scored(rng, letters, steps):
    return torch.from_numpy(rng.uniform(0.0, 2.0, (steps, letters)))


def drawn_words(rng):
    """Words over six letters that share beginnings; a word ends where another goes on."""
    a, b, c, d = rng.permutation(6)[:4].tolist()
    e = int(rng.integers(6))
    return [[a, b, c], [a, b, d], [a, b, c, e], [b], [a, d], [b, b, e, a]]


@inputs
def words(rng):
    return drawn_words(rng)


@inputs
def repeated(rng):
    found = drawn_words(rng)
    return [*found, found[1], found[4]]


@inputs
def frames(rng):
    """Energies (T, 6) for T = 1 … 4."""
    return [scored(rng, 6, steps) for steps in range(1, 5)]


def all_scores(graph, frames):
    """log Σ over the strings of T letters of exp(-energy), for each T."""
    found = []
    for energies in frames:
        recognition = gtn.linear_graph(*energies.shape)
        recognition.set_weights(-energies)
        found.append(gtn.forward_score(gtn.compose(recognition, graph)).item())
    return torch.tensor(found, dtype=torch.float64)


@probe
def strings_of(student, words, frames):
    """The forward score of the strings with 1, 2, … letters that the trie accepts, and its size."""
    graph = student.graphical_models.trie([list(word) for word in words])
    require(isinstance(graph, gtn.Graph), "`trie` returns a graph of the engine.")
    scores = []
    for energies in frames:
        recognition = gtn.linear_graph(energies.shape[0], energies.shape[1])
        recognition.set_weights(-energies)
        found = gtn.compose(recognition, graph)
        require(found.num_nodes() > 0, "The graph has no path for some of the words.")
        scores.append(gtn.forward_score(found).item())
    return {"scores": torch.tensor(scores, dtype=torch.float64), "size": [graph.num_nodes(), graph.num_arcs()]}


def listed(words, frames):
    """The scores of a list of words."""
    return all_scores(gtn.union([lexicon([word]) for word in words]), frames)


def judge_trie(got, want, words, frames):
    unique = [list(word) for word in dict.fromkeys(map(tuple, words))]
    beginnings = [list(word) for word in {tuple(word[:end]) for word in unique for end in range(1, len(word) + 1)}]

    def mistakes():
        return {
            "Beginnings of words are accepted: only nodes where a word ends may accept.": listed(beginnings, frames),
            "A word that is given twice has two paths: it must have one.": listed(words, frames),
        }

    assert_close(got["scores"], want["scores"], mistakes=mistakes)
    if got["size"][0] > want["size"][0]:
        fail(
            "The words do not share the nodes of their beginnings: look for the node of a beginning before you add one."
        )
    if got["size"] != want["size"]:
        fail("The paths are right, but the graph does not have one node for each beginning.")


@exercise("3a", points=1, public=True, hint="One node for each beginning; it accepts where a whole word ends.")
def test_words_of_the_trie(run, words, frames):
    """`trie` accepts the words and nothing else, and shares the nodes of their beginnings."""
    got, want = run(strings_of, words, frames)
    judge_trie(got, want, words, frames)


### BEGIN HIDDEN TESTS
@exercise("3a", points=0.5, hint="Do not add a second path for a word that is given twice.")
def test_repeated_words(run, repeated, frames):
    """Words that are given twice have one path."""
    got, want = run(strings_of, repeated, frames)
    judge_trie(got, want, repeated, frames)


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
    grammar = lexicon(case["words"], case.get("costs"))
    graph = student.graphical_models.interpretation_graph(energies, grammar)
    require(isinstance(graph, gtn.Graph), "`interpretation_graph` returns a graph of the engine.")
    require(graph.num_nodes() > 0, "The interpretation graph has no path.")
    best = gtn.viterbi_path(graph)
    score = gtn.forward_score(graph).weights_to_torch()
    require(score.requires_grad, "Gradients do not flow to the energies: give `set_weights` the tensor itself.")
    return {
        "arcs": graph.num_arcs(),
        "string": best.labels_to_list(),
        "least": torch.tensor([gtn.viterbi_score(graph).item()], dtype=torch.float64),
        "score": score.detach(),
        "slope": torch.autograd.grad(score.sum(), energies)[0],
    }


def judge_interpretations(got, want, case):
    def scores(sign, costs):
        recognition = gtn.linear_graph(*case["energies"].shape)
        recognition.set_weights(sign * -case["energies"])
        graph = gtn.compose(recognition, lexicon(case["words"], costs))
        return torch.tensor([gtn.viterbi_score(graph).item()], dtype=torch.float64)

    recognition = gtn.linear_graph(*case["energies"].shape)
    recognition.set_weights(-case["energies"])
    mistakes = {
        "The weights are plus energies: set minus the energies.": scores(-1.0, case.get("costs")),
        "The energies of the grammar are lost: composition adds the weights of both graphs.": scores(1.0, None),
        "This is the recognition graph: compose it with the grammar.": torch.tensor(
            [gtn.viterbi_score(recognition).item()], dtype=torch.float64
        ),
    }
    assert_close(got["least"], want["least"], mistakes=mistakes)
    if got["string"] != want["string"]:
        fail("The best path has the right weight, but other letters.")
    assert_close(got["score"], want["score"])
    if got["arcs"] != want["arcs"]:
        fail("The paths are right, but the number of arcs is not that of the composition.")
    assert_close(got["slope"], want["slope"])


@exercise("3b", points=1, public=True, hint="The weights of the recognition graph are minus the energies.")
def test_example_of_the_lecture(run, lecture):
    """After c, only the letters that the lexicon allows are in the interpretation graph."""
    got, want = run(interpretations, lecture)
    judge_interpretations(got, want, lecture)


### BEGIN HIDDEN TESTS
@exercise("3b", points=0.5, hint="Composition adds the weights of both graphs.")
def test_weights_of_the_grammar(run, weighted):
    """The energies of recognition and grammar are added."""
    got, want = run(interpretations, weighted)
    judge_interpretations(got, want, weighted)


### END HIDDEN TESTS


@inputs
def bigram(rng):
    return {"first": torch.from_numpy(rng.uniform(0, 2, 5)), "following": torch.from_numpy(rng.uniform(0, 2, (5, 5)))}


@inputs
def steps(rng):
    """Energies (T, 5) for T = 1 … 3."""
    return [scored(rng, 5, count) for count in (1, 2, 3)]


@probe
def bigram_scores(student, bigram, steps):
    """The forward scores of all strings with 1, 2, … letters."""
    graph = student.graphical_models.bigram_grammar(bigram["first"], bigram["following"])
    require(isinstance(graph, gtn.Graph), "`bigram_grammar` returns a graph of the engine.")
    scores = []
    for energies in steps:
        recognition = gtn.linear_graph(energies.shape[0], energies.shape[1])
        recognition.set_weights(-energies)
        found = gtn.compose(recognition, graph)
        require(found.num_nodes() > 0, "The graph has no path for strings of some length.")
        scores.append(gtn.forward_score(found).item())
    return torch.tensor(scores, dtype=torch.float64)


def bigram_sums(first, following, steps):
    """The forward scores of all strings by the recursion over the letters."""
    found = []
    for energies in steps:
        alpha = -first - energies[0]
        for row in energies[1:]:
            alpha = (alpha[:, None] - following).logsumexp(0) - row
        found.append(alpha.logsumexp(0))
    return torch.stack(found)


def judge_bigrams(got, want, bigram, steps):
    first, following = bigram["first"], bigram["following"]
    mistakes = {
        "The weights are plus energies: they must be minus energies.": bigram_sums(-first, -following, steps),
        "The axes of `following` are exchanged: the first is the letter before.": bigram_sums(
            first, following.T, steps
        ),
        "The energies of the first letter are missing.": bigram_sums(0 * first, following, steps),
        "The energies after the first letter are missing.": bigram_sums(first, 0 * following, steps),
    }
    assert_close(got, want, mistakes=mistakes)


@exercise("3c", points=1, public=True, hint="following[i, j] is on the arc from the node of i to the node of j.")
def test_energies_of_bigrams(run, bigram, steps):
    """`bigram_grammar` gives every string the energies of its letters, each after the one before."""
    got, want = run(bigram_scores, bigram, steps)
    judge_bigrams(got, want, bigram, steps)
