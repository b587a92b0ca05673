"""3: matrices over windows and targets. L, T and the batch size all differ, so transposed answers fail."""

import math

import numpy as np
import torch
from oracles import judge_refusal
from stand_ins import build_path_matrix, refusal, replaced
from torch.utils._python_dispatch import TorchDispatchMode

from ebmcourse.checking import assert_close, assert_either_way, exercise, fail, inputs, probe, ways

BATCH, FRAMES, TARGETS = 3, 7, 4


@inputs
def energies(rng):
    return torch.from_numpy(3 * rng.standard_normal((BATCH, FRAMES, 27)).astype(np.float32))


@inputs
def targets(rng):
    """Targets of every word, all different and with one blank among them."""
    rows = [rng.permutation(26)[:TARGETS] for _ in range(BATCH)]
    for row in rows:
        row[rng.integers(TARGETS)] = 26
    return torch.from_numpy(np.stack(rows))


@inputs
def large_energies(rng):
    return torch.from_numpy((500 * rng.standard_normal((2, FRAMES, 27))).astype(np.float32))


@inputs
def longer(rng):
    """Energies and targets of a larger batch of longer words."""
    energies = torch.from_numpy(rng.standard_normal((8, 40, 27)).astype(np.float32))
    return {"energies": energies, "targets": torch.from_numpy(rng.integers(0, 27, (8, 20)))}


@probe
class Counted(TorchDispatchMode):
    """Counts the operations of torch that run inside it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@probe
def counted(make, energies, targets):
    """A matrix, and how many operations it takes."""
    with Counted() as counting:
        value = make(energies.clone(), targets.clone())
    return {"matrix": value, "operations": counting.count}


@probe
def path_matrix(student, energies, targets):
    return {"whole": counted(student.structured_prediction.build_path_matrix, energies, targets)}


@probe
def small_path_matrix(student, energies, targets):
    return student.structured_prediction.build_path_matrix(energies.clone(), targets.clone())


@probe
def ce_matrix(student, energies, targets):
    """The matrix of the program as it is, and with a stand-in for the path matrix."""
    module = student.structured_prediction

    def isolated():
        with replaced(module, build_path_matrix=build_path_matrix):
            return counted(module.build_ce_matrix, energies, targets)

    return ways(whole=lambda: counted(module.build_ce_matrix, energies, targets), isolated=isolated)


@inputs
def wrong_matrices(_, energies, targets):
    """What known mistakes make of the path matrix and of the cross-entropies."""


@exercise(
    "3a",
    points=1,
    public=True,
    hint="pm[b, i, j] is the energy of window i for target j of word b; the shape is (B, L, T).",
)
def test_energies_of_the_targets(run, energies, targets, wrong_matrices):
    """`build_path_matrix` returns the energy of every window for every target, shape (B, L, T)."""
    got, want = run(path_matrix, energies, targets)
    assert_close(got["whole"]["matrix"], want["whole"]["matrix"], mistakes=wrong_matrices["path"])


@exercise(
    "3b",
    points=1,
    public=True,
    hint="The cross-entropy of -energies for each window and target, without a mean; the shape is (B, L, T).",
)
def test_cross_entropies_of_the_targets(run, energies, targets, wrong_matrices):
    """`build_ce_matrix` returns the cross-entropy of every window with every target, shape (B, L, T)."""
    got, want = run(ce_matrix, energies, targets)

    def judge(got, want):
        assert_close(got["matrix"], want["matrix"], mistakes=wrong_matrices["ce"])

    assert_either_way(got, want, judge)


def draw_words(rng):
    """Five words of 1 to 6 letters, one with a double letter, and a word of all letters."""
    letters = [[chr(97 + number) for number in rng.permutation(26)[:size]] for size in (3, 4, 6, 1, 26)]
    return ["".join(row) for row in letters] + ["".join((letters[1][0], letters[1][1], letters[1][1], letters[1][2]))]


@inputs
def words(rng):
    return draw_words(rng)


@inputs
def texts(rng):
    """Words and texts that are none, in random order."""
    a, b, c = (chr(97 + number) for number in rng.permutation(26)[:3])
    found = {
        "capitals": a + b.upper() + c,
        "space": a + b + " " + c,
        "first space": " " + a + b,
        "newline": a + b + "\n",
        "digit": a + "7" + c,
        "brace": a + "{" + c,
        "accent": a + b + "é",
        "empty": "",
    }
    named = [{"kind": kind, "text": text} for kind, text in found.items()]
    named += [{"kind": "word", "text": word} for word in draw_words(rng)]
    return [named[number] for number in rng.permutation(len(named))]


@probe
def transformed(student, words):
    return [student.structured_prediction.transform_word(word) for word in words]


@inputs
def wrong_words(_, words):
    """What known mistakes make of each word."""


@exercise("3c", points=0.5, public=True, hint="A blank (BETWEEN) follows every letter: cat → c _ a _ t _.")
def test_a_blank_follows_every_letter(run, words, wrong_words):
    """`transform_word` puts a blank after every letter, and nothing before the first."""
    got, want = run(transformed, words)
    for value, right, wrong in zip(got, want, wrong_words, strict=True):
        assert_close(value, right, mistakes=wrong)
        if value.dtype is not torch.int64:
            fail("The indices have the wrong dtype: `gather` needs torch.int64.")


@probe
def as_text(labels):
    return " ".join(f"{label:g}" for label in torch.as_tensor(labels).flatten().tolist())


@probe
def transform_tried(student, texts):
    """For each text, the labels as text, or the type of the exception."""
    transform = student.structured_prediction.transform_word
    found = []
    for text in texts:
        labels = []
        error = refusal(lambda text=text, labels=labels: labels.append(transform(text)))
        found.append(as_text(labels[0]) if labels else error["type"])
    return found
