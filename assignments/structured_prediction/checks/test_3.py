"""3: matrices over windows and targets. L, T and the batch are all different, so that transposed answers fail."""

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
    """Different labels for every word, the blank among them."""
    rows = [rng.permutation(26)[:TARGETS] for _ in range(BATCH)]
    for row in rows:
        row[rng.integers(TARGETS)] = 26
    return torch.from_numpy(np.stack(rows))


@inputs
def large_energies(rng):
    return torch.from_numpy((500 * rng.standard_normal((2, FRAMES, 27))).astype(np.float32))


@inputs
def longer(rng):
    """Energies and targets of more and longer words."""
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
def ce_matrix(student, energies, targets):
    """As the program is, and with a stand-in for the path matrix."""
    module = student.structured_prediction

    def isolated():
        with replaced(module, build_path_matrix=build_path_matrix):
            return counted(module.build_ce_matrix, energies, targets)

    return ways(whole=lambda: counted(module.build_ce_matrix, energies, targets), isolated=isolated)


def picked(energies, targets):
    """energies[b, i, targets[b, j]]: (B, L, T)."""
    return torch.stack([item[:, labels] for item, labels in zip(energies, targets, strict=True)])


@exercise(
    "3a", points=1, public=True, hint="pm[b, i, j] is the energy of window i for the target j of word b: (B, L, T)."
)
def test_energies_of_the_targets(run, energies, targets):
    """`build_path_matrix` holds the energy of every window for every target, (B, L, T)."""
    got, _ = run(path_matrix, energies, targets)
    assert_close(
        got["whole"]["matrix"],
        picked(energies, targets),
        mistakes={
            "The axes are the wrong way round: windows (L) come before targets (T).": picked(energies, targets).mT,
            "All words get the targets of the first one.": energies[:, :, targets[0]],
            "These are the energies of the first T labels: take those that `targets` names.": energies[:, :, :TARGETS],
            "These are the values of the log_softmax; the matrix holds the energies as they are.": picked(
                (-energies).log_softmax(2), targets
            ),
            "This is the matrix of the first word alone: (B, L, T) is expected.": picked(energies, targets)[0],
            "Every word is combined with the targets of all words: one axis too many.": energies[:, :, targets],
        },
    )


def judge_operations(run, made_by, energies, targets, longer):
    few, _ = run(made_by, energies, targets)
    many, _ = run(made_by, longer["energies"], longer["targets"])

    def judge(few, many):
        right = picked(longer["energies"], longer["targets"])
        # Both matrices order the targets of a window alike: this is asked here, and the numbers above.
        if many["matrix"].shape != right.shape:
            fail("The shape is wrong: (B, L, T) is expected, for any number of words, windows and targets.")
        offsets = many["matrix"] - right
        if (offsets - offsets[:, :, :1]).abs().max() > 1e-3:
            fail("For more and longer words the matrix is wrong.")
        if not isinstance(many["operations"], int) or many["operations"] > few["operations"] + 4:
            fail("There is a loop: longer words take more operations. Let one `gather` pick all numbers.")

    assert_either_way(few, many, judge)


@exercise(
    "3b",
    points=1,
    public=True,
    hint="The cross-entropy of -energies, for each window with each target, not averaged: (B, L, T).",
)
def test_cross_entropies_of_the_targets(run, energies, targets):
    """`build_ce_matrix` holds the cross-entropy of every window for every target, (B, L, T)."""
    got, want = run(ce_matrix, energies, targets)
    right = picked(-(-energies).log_softmax(2), targets)
    mistakes = {
        "This is the cross-entropy of +energies: a low energy is likely, so negate them.": picked(
            -energies.log_softmax(2), targets
        ),
        "The axes are the wrong way round: windows (L) come before targets (T).": right.mT,
        "These are log-probabilities; the cross-entropy is their negative.": -right,
        "These are the energies: add log Z of every window.": picked(energies, targets),
        "log Z has the wrong sign: the cross-entropy is E + log Z.": 2 * picked(energies, targets) - right,
        "The softmax runs over the windows: it is over the 27 classes.": picked(-(-energies).log_softmax(1), targets),
        "The softmax runs over the targets of the word: it is over all 27 classes.": (
            -(-picked(energies, targets)).log_softmax(2)
        ),
        "This is one number, the mean: pass `reduction='none'`.": right.mean(),
        "This is the matrix of the first word alone: (B, L, T) is expected.": right[0],
    }
    assert_either_way(got, want, lambda got, want: assert_close(got["matrix"], right, mistakes=mistakes))


@inputs
def words(rng):
    """Five words of 1 to 6 letters, one with a double letter."""
    letters = [[chr(97 + number) for number in rng.permutation(26)[:size]] for size in (3, 4, 6, 1)]
    return ["".join(row) for row in letters] + ["".join((letters[1][0], letters[1][1], letters[1][1], letters[1][2]))]


@inputs
def no_words(rng):
    """Texts that are no words of letters a-z."""
    a, b, c = (chr(97 + number) for number in rng.permutation(26)[:3])
    return {
        "capitals": a + b.upper() + c,
        "space": a + b + " " + c,
        "digit": a + "7" + c,
        "brace": a + "{" + c,
        "accent": a + b + "é",
        "empty": "",
    }


@probe
def transformed(student, words):
    return [student.structured_prediction.transform_word(word) for word in words]


def encoded(word, pattern):
    """Indices of the letters of `word` in a pattern such as "c_": c for a letter, _ for a blank."""
    return torch.tensor([26 if sign == "_" else ord(letter) - 97 for letter in word for sign in pattern])


@exercise("3c", points=0.5, public=True, hint="A blank (BETWEEN) follows every letter: cat → c _ a _ t _.")
def test_a_blank_follows_every_letter(run, words):
    """`transform_word` puts a blank behind every letter, and nothing before the first."""
    got, _ = run(transformed, words)
    blank = torch.tensor([26])
    for value, word in zip(got, words, strict=True):
        right = encoded(word, "c_")
        letters = torch.where(right == 26, -1, right)
        assert_close(
            value,
            right,
            mistakes={
                "The blank stands before every letter, not behind it.": encoded(word, "_c"),
                "There is a blank before the first letter too: begin with the letter.": torch.cat([blank, right]),
                "The last blank is missing.": right[:-1],
                "There are two blanks behind every letter.": encoded(word, "c__"),
                "The blanks are missing.": right[::2],
                "The blank has the index 0, which is the letter a: it is BETWEEN = 26.": torch.where(
                    right == 26, 0, right
                ),
                "The blank has the index 0 and the letters count from 1: a is 0, and the blank is BETWEEN = 26.": (
                    letters + 1
                ),
                "The letters count from 1: a is 0.": torch.where(right == 26, 26, right + 1),
                "These are the codes of the characters: subtract that of a.": torch.where(right == 26, 26, right + 97),
                "There is a batch axis too many.": right[None],
            },
        )
        if value.is_floating_point():
            fail("The indices are no integers: `gather` needs dtype torch.int64.")


@probe
def transform_refused(student, words, texts):
    transform = student.structured_prediction.transform_word
    found = {name: refusal(lambda text=text: transform(text)) for name, text in texts.items()}
    return {"good": [transform(word) for word in words], "bad": found}
