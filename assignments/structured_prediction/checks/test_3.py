"""3: matrices over windows and targets. L, T and the batch size all differ, so transposed answers fail."""

import math
from functools import partial
from itertools import groupby
from string import ascii_lowercase

import numpy as np
import torch
from oracles import explanation, judge_refusal, judge_ways
from stand_ins import build_path_matrix, refusal, replaced
from torch.utils._python_dispatch import TorchDispatchMode

from ebmcourse.checking import Mismatch, assert_close, exercise, fail, inputs, probe, require, ways
from ebmcourse.checking.compare import difference

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
def offsets(rng):
    """For each window a number of large magnitude, for energies that are all large or all small."""
    return torch.from_numpy(
        (rng.choice([-1, 1], (2, FRAMES, 1)) * rng.uniform(2000, 4000, (2, FRAMES, 1))).astype(np.float32)
    )


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
    try:
        with Counted() as counting:
            value = make(energies.clone(), targets.clone())
    except RuntimeError:
        make(energies.clone(), targets.clone())  # stops without `Counted`, which is not at fault
        raise
    require(not isinstance(value, np.ndarray), "The matrix is an array of NumPy: return a tensor.")
    return {"matrix": value, "operations": counting.count}


@probe
def path_matrix(student, energies, targets):
    return {"whole": counted(student.structured_prediction.build_path_matrix, energies, targets)}


@probe
def small_path_matrix(student, energies, targets):
    make = student.structured_prediction.build_path_matrix
    try:
        return make(energies.clone(), targets.clone())
    except Exception:
        blanks = torch.full_like(targets, 26)
        require(
            bool((targets == 26).any()) or refusal(lambda: make(energies.clone(), blanks))["type"] != "",
            "The function stops for targets without BETWEEN, although it works for BETWEEN alone: does `one_hot` lack "
            "the number of classes, 27?",
        )
        raise


@probe
def ce_matrix(student, energies, targets):
    """The matrix of the program as it is, and with a stand-in for the path matrix."""
    module = student.structured_prediction

    def isolated():
        with replaced(module, build_path_matrix=build_path_matrix):
            try:
                return counted(module.build_ce_matrix, energies, targets)
            except RuntimeError as error:
                require(
                    "must match the size of tensor" not in str(error),
                    "Tensors are combined whose shapes do not fit: log Z has one number for each window, so its shape "
                    "is (B, L, 1) where it is added to (B, L, T).",
                )
                raise

    return ways(whole=lambda: counted(module.build_ce_matrix, energies, targets), isolated=isolated)


@inputs
def wrong_matrices(_, energies, targets):
    """What known mistakes make of the path matrix and of the cross-entropies."""


def about_entries(matrix, energies, targets, right):
    """Of which word, window and class the entries of a wrong path matrix are; None where they are no energies."""
    words, frames, labels = len(energies), energies.shape[1], targets.shape[1]
    if matrix.shape != (words, frames, labels):
        return "The shape is wrong: (B, L, T) is expected for any number of words, windows and targets."
    distances, nearest = (matrix.double().reshape(-1, 1) - energies.double().reshape(1, -1)).abs().min(1)
    if not distances.max() < 1e-6:
        wrong = (matrix - right).abs() > 1e-4
        if (targets != 26).any() and not wrong.mT[targets != 26].any():
            return "Only the columns of the blank are wrong: its energies are those of class 26, like any other class."
        return None
    nearest = nearest.view(matrix.shape)
    classes, windows, owners = nearest % 27, nearest // 27 % frames, nearest // 27 // frames
    if (owners != torch.arange(words)[:, None, None]).any():
        return "Some entries are energies of another word: pm[b] holds those of word b."
    if (windows != torch.arange(frames)[:, None]).any():
        return "Some entries are energies of another window: row i holds those of window i."
    if all(torch.isin(found, own).all() for found, own in zip(classes, targets, strict=True)):
        if (classes == classes[:, :1]).all():
            return "The columns of a word are in another order than its targets, or repeated: column j is target j."
        return (
            "The targets of a word are mixed up: column j is target j in every row. Does a `view` or `reshape` build "
            "the index? Expand the targets along the windows instead."
        )
    if (classes.unsqueeze(2) == targets).all(3).any(2).all():
        return "Some entries are those of the targets of other words: each word has its own targets."
    return "Some entries are those of classes that are not among the targets of their word."


def about_offsets(matrix, path, right):
    """In which part wrong cross-entropies differ from the right ones, path + log Z; None where it is unknown."""
    if matrix.shape != path.shape:
        return "The shape is wrong: (B, L, T) is expected for any number of words, windows and targets."
    if path.shape[2] == 1:
        return None
    if has_offsets(matrix, path):
        return "The energies are right, but log Z is not: it is the `logsumexp` of the 27 -energies of each window."
    if has_offsets(matrix, -path):
        return "The energies have the wrong sign: the cross-entropy is E + log Z."
    wrong = (matrix - right).abs() > 1e-3
    added = (matrix[wrong].double().neg().exp() - right[wrong].double().neg().exp()).sort().values
    if len(added) > 1 and added[0] > 0 and added[-1] < 1.2 * added[0]:
        return "A small number is added to the probabilities: use `logsumexp` or `log_softmax` instead."
    if len(added) > 1 and added[0] > 0 and matrix[wrong].max() - matrix[wrong].min() < 1e-4:
        return "The probabilities are limited: use `logsumexp` or `log_softmax` instead."
    return None


def has_offsets(matrix, right):
    """Whether the entries of each window are those of `right` up to a number that is the same for all targets."""
    if matrix.shape != right.shape:
        return False
    offsets = matrix - right
    return bool((offsets - offsets[:, :, :1]).abs().max() <= 1e-3)


def judge_matrix(matrix, right, mistakes, about, **tolerance):
    """Fail unless the matrix is right; where no known mistake explains it, say what `about()` tells about it."""

    def explaining():
        """The known mistake that gives this matrix; nothing where several do, as for axes of size 1."""
        options = {"rtol": 1e-4, "atol": 1e-5} | tolerance
        found = {name: wrong for name, wrong in mistakes.items() if difference(matrix, wrong, **options) is None}
        return found if len(found) == 1 else {}

    try:
        assert_close(matrix, right, mistakes=explaining, **tolerance)
    except Mismatch as mismatch:
        if mismatch.diagnosis is None and isinstance(matrix, torch.Tensor):
            raise Mismatch(mismatch.reason, about()) from None
        raise


@exercise(
    "3a",
    points=1,
    public=True,
    hint="pm[b, i, j] is the energy of window i for target j of word b; the shape is (B, L, T).",
)
def test_energies_of_the_targets(run, energies, targets, wrong_matrices):
    """`build_path_matrix` returns the energy of every window for every target, shape (B, L, T)."""
    got, want = run(path_matrix, energies, targets)
    matrix, right = got["whole"]["matrix"], want["whole"]["matrix"]
    judge_matrix(matrix, right, wrong_matrices["path"], lambda: about_entries(matrix, energies, targets, right))


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
        matrix, path = got["matrix"], wrong_matrices["energies of the targets"]
        about = partial(about_offsets, matrix, path, want["matrix"])
        judge_matrix(matrix, want["matrix"], wrong_matrices["ce"], about)

    judge_ways(got, want, judge)


def draw_words(rng):
    """Words of 1 to 6 letters and one of all; one has a double letter, and one the same letter at two places."""
    letters = [[chr(97 + number) for number in rng.permutation(26)[:size]] for size in (3, 4, 6, 1, 26)]
    a, b, c, d = letters[1]
    return ["".join(row) for row in letters] + [a + b + b + c, a + b + c + a + d]


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
        "underscore": a + "_" + c,
        "hyphen": a + b + "-" + c,
        "apostrophe": a + "'" + b,
        "backtick": "`" + c,
        "accent": a + b + "é",
        "empty": "",
    }
    named = [{"kind": kind, "text": text} for kind, text in found.items()]
    named += [{"kind": "word", "text": word} for word in draw_words(rng)]
    return [named[number] for number in rng.permutation(len(named))]


@probe
def transformed(student, words):
    transform = student.structured_prediction.transform_word
    try:
        return [transform(word) for word in words]
    except ValueError:
        refused_words = [word for word in words if refusal(lambda word=word: transform(word))["type"]]
        require(refused_words != words, "Every word is refused with a ValueError.")
        require(
            any(len(set(word)) == len(word) for word in refused_words),
            "Words in which a letter occurs twice are refused: a word may have a letter at several places.",
        )
        refused = [letter for letter in ascii_lowercase if refusal(lambda letter=letter: transform(letter))["type"]]
        require(refused != ["z"], "A word with a z is refused: z belongs to the letters a-z.")
        require(refused != ["a"], "A word with an a is refused: a belongs to the letters a-z.")
        require(refused != list(ascii_lowercase), "A word of one letter is refused.")
        require(not refused, "Words with some of the letters a-z are refused.")
        require(False, "A word of the letters a-z is refused.")


@inputs
def wrong_words(_, words):
    """What known mistakes make of each word."""


@exercise("3c", points=0.5, public=True, hint="A blank (BETWEEN) follows every letter: cat → c _ a _ t _.")
def test_a_blank_follows_every_letter(run, words, wrong_words):
    """`transform_word` puts a blank after every letter, and nothing before the first."""
    got, want = run(transformed, words)

    def mistakes(value):
        """The one mistake that explains the targets of all words, not only these."""
        sentence = explanation(got, want, wrong_words)
        return {sentence: value} if sentence else {}

    for value, right in zip(got, want, strict=True):
        try:
            assert_close(value, right, mistakes=partial(mistakes, value))
        except Mismatch as mismatch:
            same = isinstance(value, torch.Tensor) and value.shape == right.shape
            if same and mismatch.diagnosis is None and torch.equal(value[::2].long(), right[::2]):
                fail("The letters are right, but the blanks after them are not BETWEEN = 26.")
            if same and mismatch.diagnosis is None and torch.equal(value[1::2].long(), right[1::2]):
                fail("There is a blank after each letter, but the letters are not those of the word in their order.")
            raise
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
        require(
            not labels or labels[0] is not None,
            "`transform_word` returns nothing (None) for some texts: raise a ValueError where a text is no word.",
        )
        found.append(as_text(labels[0]) if labels else error["type"])
    return found
