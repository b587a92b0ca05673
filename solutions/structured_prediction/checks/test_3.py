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


### BEGIN HIDDEN TESTS
def picked(energies, targets):
    """energies[b, i, targets[b, j]]: (B, L, T)."""
    return torch.stack([item[:, labels] for item, labels in zip(energies, targets, strict=True)])


### END HIDDEN TESTS


### BEGIN HIDDEN TESTS
def wrong_path_matrices(energies, targets):
    """The results of known mistakes for the path matrix."""
    path, (frames, labels) = picked(energies, targets), (energies.shape[1], targets.shape[1])
    return {
        "The axes are swapped: windows (L) come before targets (T).": path.mT,
        "All words use the targets of the first word: each word has its own.": energies[:, :, targets[0]],
        "These are the energies of the first T classes: select the classes in `targets`.": energies[:, :, :labels],
        "These are the energies of all classes: select those in `targets`.": energies,
        "These are log-probabilities: the matrix contains the energies unchanged.": picked(
            (-energies).log_softmax(2), targets
        ),
        "These are probabilities: the matrix contains the energies unchanged.": picked((-energies).softmax(2), targets),
        "These are cross-entropies: the matrix contains the energies unchanged, without log Z.": picked(
            -(-energies).log_softmax(2), targets
        ),
        "The classes are shifted by one: class k is column k of the energies, and the blank is 26.": picked(
            energies, (targets + 1) % 27
        ),
        "The blank has the energies of the letter z: class 26 is the last of 27 columns.": picked(
            energies, targets.clamp(max=25)
        ),
        "The blank has the energies of the letter a: class 26 is the last of 27 columns.": picked(
            energies, targets % 26
        ),
        "These are the columns of all classes in the batch: there is one column for each target of a word.": (
            energies[:, :, list(dict.fromkeys(targets.flatten().tolist()))]
        ),
        "The energies of all classes are summed: each entry is that of one. Does `one_hot` lack the number of classes, "
        "27?": energies.sum(2, keepdim=True).repeat(1, 1, labels),
        "There are T rows: a row for each of the L windows is expected.": path[:, :labels],
        "There is only the row of the first window: expand the index, so that it has a row for each window.": (
            path[:, :1]
        ),
        "All rows are those of the first window: row i holds the energies of window i.": (
            path[:, :1].repeat(1, frames, 1)
        ),
        "Only the first target of each word is selected: there is a column for each target.": path[:, :, :1],
        "This is the matrix of the first word only: (B, L, T) is expected.": path[0],
        "The words come after windows and targets: (B, L, T) is expected.": path.permute(1, 2, 0),
        "The windows come before the words: (B, L, T) is expected.": path.transpose(0, 1),
        "Every word is combined with the targets of all words, which gives one axis too many.": (
            energies[:, :, targets]
        ),
    }


def wrong_ce_matrices(energies, targets):
    """The results of known mistakes for the cross-entropies."""
    path, log_z = picked(energies, targets), (-energies).logsumexp(2, keepdim=True)
    right, labels = path + log_z, targets.shape[1]
    return {
        "This is the cross-entropy of +energies: negate them, since low energies are likely.": picked(
            -energies.log_softmax(2), targets
        ),
        "The axes are swapped: windows (L) come before targets (T).": right.mT,
        "The gap is missing in log Z: the sum runs over all 27 classes.": (
            path + (-energies[:, :, :26]).logsumexp(2, keepdim=True)
        ),
        "log Z is that of +energies: take the `logsumexp` of -energies.": path + energies.logsumexp(2, keepdim=True),
        "These are log-probabilities: the cross-entropy is the negative.": -right,
        "These are probabilities: the cross-entropy is minus their logarithm.": (-right).exp(),
        "These are the energies: add log Z of each window.": path,
        "log Z has the wrong sign: the cross-entropy is E + log Z.": path - log_z,
        "The energies have the wrong sign: the cross-entropy is E + log Z.": log_z - path,
        "Z is added without the logarithm: the cross-entropy is E + log Z.": path + log_z.exp(),
        "Only log Z is returned: the cross-entropy is E + log Z.": log_z.repeat(1, 1, labels),
        "log Z is that of the mean over the classes: Z is the sum.": right - math.log(27),
        "The logarithm has the base 2: use the natural one.": right / math.log(2),
        "The logarithm has the base 10: use the natural one.": right / math.log(10),
        "The softmax is taken over the windows: take it over the 27 classes.": picked(
            -(-energies).log_softmax(1), targets
        ),
        "The softmax is taken over the words of the batch: take it over the 27 classes.": picked(
            -(-energies).log_softmax(0), targets
        ),
        "log Z is one number for all windows of a word: each window has its own.": (
            path + (-energies).flatten(1).logsumexp(1)[:, None, None]
        ),
        "log Z is one number for the whole batch: each window has its own.": path + (-energies).flatten().logsumexp(0),
        "The softmax is taken over the targets of the word: take it over all 27 classes.": (-(-path).log_softmax(2)),
        "All words use the targets of the first word: each word has its own.": (
            -(-energies).log_softmax(2)[:, :, targets[0]]
        ),
        "This is the mean, a single number: one entry for each window and target is expected, as with "
        "`reduction='none'`.": right.mean(),
        "This is the sum, a single number: one entry for each window and target is expected.": right.sum(),
        "These are the cross-entropies of the first T classes: select the classes in `targets`.": (
            -(-energies).log_softmax(2)[:, :, :labels]
        ),
        "This is the matrix of the first word only: (B, L, T) is expected.": right[0],
    }


### END HIDDEN TESTS


@inputs
def wrong_matrices(_, energies, targets):
    """What known mistakes make of the path matrix and of the cross-entropies."""
    ### BEGIN HIDDEN TESTS
    wrong = {"path": wrong_path_matrices(energies, targets), "ce": wrong_ce_matrices(energies, targets)}
    return wrong | {"energies of the targets": picked(energies, targets)}
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
def judge_operations(run, made_by, energies, targets, longer, advice):
    few, _ = run(made_by, energies, targets)
    many, _ = run(made_by, longer["energies"], longer["targets"])

    def judge(few, many):
        # The differences between the targets of a window are those of the path matrix, for both matrices.
        right = picked(longer["energies"], longer["targets"])
        if many["matrix"].shape != right.shape:
            fail("The shape is wrong: (B, L, T) is expected for any number of words, windows and targets.")
        if not has_offsets(few["matrix"], picked(energies, targets)):
            fail("The matrix is wrong, whatever operations make it.")
        if not has_offsets(many["matrix"], right):
            fail("The matrix of a larger batch of longer words is wrong.")
        if not (isinstance(few["operations"], int) and isinstance(many["operations"], int)):
            fail("The number of operations is unknown.")
        if many["operations"] < 1:
            fail("No operation of torch makes the matrix: use those of torch on whole tensors.")
        # Without loops, ten operations suffice; a loop over the words, windows or targets takes more for longer words.
        if many["operations"] > few["operations"] + 4:
            fail(f"There is a loop: longer words take more operations. {advice}")
        if max(few["operations"], many["operations"]) > 100:
            fail(f"There are more than 100 operations: is there a loop over the classes? {advice}")

    judge_ways(few, many, judge)


@exercise("3a", points=0.5, hint="Without loops, long words take as many operations as short ones.")
def test_path_matrix_without_loops(run, energies, targets, longer):
    """`build_path_matrix` takes the same number of operations for long words as for short ones."""
    judge_operations(run, path_matrix, energies, targets, longer, "A single `gather` can select all entries.")


def judge_single(matrix, right, about, mistakes=None, **tolerance):
    """Judge a matrix with axes of size 1."""
    if isinstance(matrix, torch.Tensor) and matrix.dim() < 3:
        fail("An axis of size 1 is missing: (B, L, T) is expected.")
    if isinstance(matrix, torch.Tensor) and matrix.shape != right.shape:
        fail("The shape is wrong for a single word, window or target: (B, L, T) is expected.")
    judge_matrix(matrix, right, mistakes or {}, about, **tolerance)


@exercise("3a", points=0.5, hint="There may be only one word, window or target: keep all three axes.")
def test_path_matrix_of_one_letter(run, energies, targets):
    """`build_path_matrix` works for a single word, window or target."""
    for frames, labels in ((1, 1), (1, 3), (FRAMES, 1)):
        words, letters = energies[:1, :frames], targets[:1, :labels]
        got, _ = run(small_path_matrix, words, letters)
        right = picked(words, letters)
        about = partial(about_entries, got, words, letters, right)
        judge_single(got, right, about, wrong_path_matrices(words, letters))


### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
def saturated(matrix, energies, targets, right):
    """The cross-entropies if probabilities have a lower bound or energies are limited, as far as `matrix` tells it."""
    if matrix.shape != right.shape or not matrix.isfinite().all():
        return {}
    largest = int(matrix.argmax())
    value, p = matrix.double().flatten()[largest].item(), (-energies.double()).softmax(2)
    with_epsilon, without = torch.tensor([value, right.flatten()[largest].item()]).double().neg().exp()
    epsilon = with_epsilon - without
    limit, window = value / 2, energies.flatten(0, 1)[largest // right.shape[2]]
    for _ in range(3):  # log Z of energies of which n are -limit is limit + log n
        limit = (value - math.log(max(1, int((window < -limit).sum())))) / 2
    limited = energies.clamp(-limit, limit) if limit > 0 else energies
    return {
        "A small number is added to the probabilities, or limits them: use `logsumexp` or `log_softmax` instead.": (
            -(picked(p, targets) + epsilon).log()
        ).float(),
        "The energies are limited: `logsumexp` takes energies of any magnitude.": picked(
            -(-limited).log_softmax(2), targets
        ),
    }


@exercise("3b", points=0.5, hint="Without loops, long words take as many operations as short ones.")
def test_ce_matrix_without_loops(run, energies, targets, longer):
    """`build_ce_matrix` takes the same number of operations for long words as for short ones."""
    advice = "`gather` selects all entries at once, and `logsumexp` or `log_softmax` with `dim=2` treats all windows."
    judge_operations(run, ce_matrix, energies, targets, longer, advice)


@exercise(
    "3b", points=0.5, hint="exp(-E) overflows for energies of large magnitude: use `logsumexp` or `cross_entropy`."
)
def test_cross_entropies_of_large_energies(run, large_energies, offsets, targets):
    """`build_ce_matrix` returns E + log Z for energies of any magnitude, without overflow."""
    got, want = run(ce_matrix, large_energies, targets[:2])
    path = picked(large_energies, targets[:2])
    right = path + (-large_energies).logsumexp(2, keepdim=True)
    overflow = (
        "exp gives infinity or 0 for large energies: use `logsumexp`, `log_softmax` or the given `cross_entropy`."
    )
    wrong_if_large = (
        "The matrix is wrong for energies of large magnitude, which `logsumexp` or `log_softmax` of -energies take as "
        "they are."
    )

    def judge(got, want):
        matrix = got["matrix"]
        if matrix.shape == right.shape and not matrix.isfinite().all():
            fail(overflow)
        # The values are about 1000: those of the reference differ by 1e-4 from the same in float64.
        mistakes = wrong_ce_matrices(large_energies, targets[:2])
        mistakes |= saturated(matrix, large_energies, targets[:2], right)
        judge_matrix(matrix, right, mistakes, lambda: about_offsets(matrix, path, right) or wrong_if_large, atol=1e-2)

    judge_ways(got, want, judge)
    # An offset of a window, which log Z has with the opposite sign.
    got, want = run(ce_matrix, large_energies + offsets, targets[:2])
    one_sided = (
        "The matrix is wrong where all energies of a window are large, or all are very negative: log Z is negative or "
        "large there, too."
    )

    def judge_offsets(got, want):
        if difference(got["matrix"], right, 1e-4, 1e-2):
            fail(one_sided if got["matrix"].shape == right.shape and got["matrix"].isfinite().all() else overflow)

    judge_ways(got, want, judge_offsets)
    # A single word, window and target.
    energies, labels = large_energies[:1, :1], targets[:1, :1]
    got, want = run(ce_matrix, energies, labels)
    single, path = picked(-(-energies).log_softmax(2), labels), picked(energies, labels)

    def judge_one(got, want):
        judge_single(got["matrix"], single, partial(about_offsets, got["matrix"], path, single), atol=1e-2)

    judge_ways(got, want, judge_one)


### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
def encoded(word, pattern):
    """The classes of `word` with a pattern for each letter, such as "c_": c is the letter, _ is a blank."""
    return torch.tensor([26 if sign == "_" else ord(letter) - 97 for letter in word for sign in pattern])


def wrong_encodings(word):
    """The results of known mistakes."""
    right = encoded(word, "c_")
    letters = torch.where(right == 26, -1, right)
    return {
        "The blanks come before the letters: put a blank after each letter.": encoded(word, "_c"),
        "There is also a blank before the first letter: begin with the letter.": torch.cat([torch.tensor([26]), right]),
        "The blank after the last letter is missing.": right[:-1],
        "There are two blanks after each letter: put only one.": encoded(word, "c__"),
        "The blanks are missing: put a blank after each letter.": right[::2],
        "The blank has the index 0, which is the letter a: use BETWEEN = 26.": torch.where(right == 26, 0, right),
        "The blank is 0 and the letters start at 1: a is 0, and the blank is BETWEEN = 26.": letters + 1,
        "The letters start at 1: a is 0.": torch.where(right == 26, 26, right + 1),
        "These are character codes: subtract the code of a.": torch.where(right == 26, 26, right + 97),
        "There is an extra batch axis: return a tensor with one axis.": right[None],
        "Letters and blanks are in two columns: return a tensor with one axis, c _ a _ t _.": right.view(-1, 2),
        "The letters come before all blanks: put a blank after each letter.": torch.cat([right[::2], right[1::2]]),
        "The targets run backwards.": right.flip(0),
        "The letters run backwards: keep their order.": encoded(word[::-1], "c_"),
        "Equal neighbours are merged: every letter of the word is a target.": encoded(
            "".join(letter for letter, _ in groupby(word)), "c_"
        ),
        "A letter that occurs again is left out: every letter of the word is a target.": encoded(
            "".join(dict.fromkeys(word)), "c_"
        ),
        "The letters are sorted: keep their order.": encoded("".join(sorted(word)), "c_"),
    }


### END HIDDEN TESTS


@inputs
def wrong_words(_, words):
    """What known mistakes make of each word."""
    ### BEGIN HIDDEN TESTS
    return [wrong_encodings(word) for word in words]
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@exercise("3c", points=0.5, hint="Raise a ValueError for an empty text and for anything but a-z.")
def test_only_letters_are_words(run, texts):
    """`transform_word` raises a ValueError for an empty text and for characters other than a-z."""
    got, _ = run(transform_tried, [given["text"] for given in texts])
    sentences = {
        "capitals": "Capital letters are accepted: they have no class.",
        "space": "A space is accepted: it has no class.",
        "first space": "A space before the word is accepted: it has no class.",
        "newline": "A newline at the end is accepted: `strip` removes it, and `$` in a regular expression ignores it.",
        "digit": "A digit is accepted: it has no class.",
        "brace": "The character `{`, which follows z, is accepted: it would get the class of the blank.",
        "underscore": "An underscore is accepted: it shows a blank, but is no letter.",
        "hyphen": "A hyphen is accepted: it has no class.",
        "apostrophe": "An apostrophe is accepted: it has no class.",
        "backtick": "The character before a, a backtick, is accepted: it has no class.",
        "accent": "A letter other than a-z is accepted: `isalpha` and `islower` are true for é, too.",
        "empty": "An empty text is accepted: it has no letters to align.",
    }
    foreign = [found for found, given in zip(got, texts, strict=True) if given["kind"] not in ("word", "empty")]
    if not any(found.isidentifier() for found in foreign):
        fail("Any characters are accepted: raise a ValueError for all but the letters a-z.")
    accepted = {
        given["kind"]
        for found, given in zip(got, texts, strict=True)
        if given["kind"] not in ("word", "empty") and not found.isidentifier()
    }
    inside = {"capitals", "space", "digit", "brace", "underscore", "hyphen", "apostrophe"}
    if accepted == inside | {"newline", "accent"}:
        fail("Only the first character of a text is checked: raise a ValueError for all but the letters a-z.")
    if accepted == inside | {"first space", "backtick"}:
        fail("Only the last character of a text is checked: raise a ValueError for all but the letters a-z.")
    for found, given in zip(got, texts, strict=True):
        text = given["text"]
        if given["kind"] != "word":
            judge_refusal({"type": found if found.isidentifier() else ""}, [], sentences[given["kind"]], "")
        elif found.isidentifier():
            fail("There is an exception for a word of the letters a-z.")
        # Where the blanks are is judged above.
        elif found not in map(as_text, (encoded(text, "c_"), *wrong_encodings(text).values())):
            fail("A word of the letters a-z gets wrong targets.")


### END HIDDEN TESTS
