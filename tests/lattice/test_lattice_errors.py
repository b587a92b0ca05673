"""Mistakes raise a sentence that names the item and says what to do."""

import subprocess
import sys

import pytest
import torch

from ebmcourse.lattice import Trie, ctc_align, ctc_loss, free_energy, lexicon_decode, viterbi

B, L, C = 2, 5, 4
LOG_PROBS = torch.zeros(B, L, C).log_softmax(-1)
ENERGIES = -LOG_PROBS
TARGETS = torch.tensor([[0, 1, 2], [2, 1, 0]])


def changed(tensor, index, value):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


BAD_ENERGIES = [
    ("a list", [[[0.0]]], "must be a torch tensor, got list"),
    ("half precision", ENERGIES.half(), r"float32 or float64, got torch.float16: convert with .float\(\)"),
    ("integers", torch.zeros(B, L, C).long(), "float32 or float64"),
    ("one item without a batch axis", ENERGIES[0], r"shape \(batch, frames, classes\), got \(5, 4\)"),
    ("an empty batch", ENERGIES[:0], "the batch is empty"),
    ("no frames", ENERGIES[:, :0], "no frames"),
    ("NaN", changed(ENERGIES, (1, 3, 0), torch.nan), "item 1, frame 3: an energy is NaN"),
]
BAD_TARGETS = [
    ("a list", [[0, 1], [1, 0]], None, "padded torch tensor, got list"),
    ("floats", TARGETS.float(), None, r"targets must hold integers, got float32: convert with .long\(\)"),
    ("booleans", TARGETS.bool(), None, "targets must hold integers"),
    ("flat", TARGETS.flatten(), None, r"shape \(batch, length\) with batch 2, got \(6,\)"),
    ("another batch", TARGETS[:1], None, r"with batch 2, got \(1, 3\)"),
    (
        "label too high",
        changed(TARGETS, (1, 2), 4),
        None,
        "item 1: label 4 at position 2 is not one of .* 0..3",
    ),
    ("label negative", changed(TARGETS, (0, 1), -1), None, "item 0: label -1 at position 1"),
    ("empty", TARGETS, [3, 0], "item 1: the target is empty"),
    ("length beyond the tensor", TARGETS, [3, 4], r"item 1: target_lengths is 4, but must lie within 0..3"),
    ("negative length", TARGETS, [-1, 3], "item 0: target_lengths is -1"),
    ("lengths as floats", TARGETS, [1.0, 2.0], "target_lengths must hold integers"),
    ("too few lengths", TARGETS, [3], r"target_lengths must have shape \(2,\)"),
]
BAD_FRAMES = [
    ("beyond the tensor", [5, 6], r"item 1: input_lengths is 6, but must lie within 1..5"),
    ("none", [0, 5], "item 0: input_lengths is 0"),
    ("floats", torch.tensor([5.0, 5.0]), "input_lengths must hold integers"),
    ("too few for the target", [5, 2], "item 1 has 2 frames, but its target needs at least 3"),
]
ALIGNERS = pytest.mark.parametrize("function", [viterbi, free_energy])
CTC = pytest.mark.parametrize("function", [ctc_loss, ctc_align])


def cases(table):
    return pytest.mark.parametrize(("bad", "message"), [pytest.param(*row[1:], id=row[0]) for row in table])


@ALIGNERS
@cases(BAD_ENERGIES)
def test_energies(function, bad, message):
    with pytest.raises(ValueError, match=message):
        function(bad, TARGETS)


@CTC
@cases(BAD_ENERGIES)
def test_log_probs(function, bad, message):
    with pytest.raises(ValueError, match=message):
        function(-bad if isinstance(bad, torch.Tensor) else bad, TARGETS)


@cases(BAD_ENERGIES)
def test_energies_of_a_lexicon(bad, message):
    with pytest.raises(ValueError, match=message):
        lexicon_decode(bad, Trie(["ab"], "abc"))


@pytest.mark.parametrize("function", [viterbi, free_energy, ctc_loss, ctc_align])
@pytest.mark.parametrize(("targets", "lengths", "message"), [pytest.param(*row[1:], id=row[0]) for row in BAD_TARGETS])
def test_targets(function, targets, lengths, message):
    with pytest.raises(ValueError, match=message):
        function(LOG_PROBS, targets, None, lengths)


@pytest.mark.parametrize("function", [viterbi, free_energy, ctc_loss, ctc_align])
@cases(BAD_FRAMES)
def test_input_lengths(function, bad, message):
    with pytest.raises(ValueError, match=message):
        function(LOG_PROBS, TARGETS, bad)


@CTC
def test_repeated_letters_need_a_frame_for_their_blank(function):
    targets = torch.tensor([[0, 1, 2], [1, 1, 1]])
    with pytest.raises(ValueError, match=r"item 1 has 4 frames, but its target needs at least 5 .*blank"):
        function(LOG_PROBS, targets, [5, 4])


@CTC
def test_a_blank_in_a_target_is_refused(function):
    with pytest.raises(ValueError, match=r"item 1: the target holds the blank \(3\) at position 1"):
        function(LOG_PROBS, changed(TARGETS, (1, 1), 3))
    with pytest.raises(ValueError, match=r"item 0: the target holds the blank \(0\) at position 0"):
        function(LOG_PROBS, TARGETS, blank=0)


@CTC
@pytest.mark.parametrize("blank", [4, -5, 1.0, True, None])
def test_a_blank_must_be_a_class(function, blank):
    with pytest.raises(ValueError, match=r"blank must be a class index within -4..3"):
        function(LOG_PROBS, TARGETS, blank=blank)


@CTC
def test_energies_are_not_log_probabilities(function):
    with pytest.raises(ValueError, match=r"item 1: log_probs holds 2, .*log_softmax"):
        function(changed(LOG_PROBS, (1, 0, 0), 2.0), TARGETS)


@pytest.mark.parametrize(
    ("log_probs", "lengths", "message"),
    [
        (changed(LOG_PROBS, (1, 0, 0), torch.nan), [5, 5], "item 1, frame 0: an energy is NaN"),
        (changed(LOG_PROBS, (1, 0, 0), 2.0), [0, 5], "item 1: log_probs holds 2"),
        (LOG_PROBS, [5, -1], "item 1: input_lengths is -1, but must lie within 0..5"),
        (LOG_PROBS, [5, 6], "item 1: input_lengths is 6"),
    ],
)
def test_zeroing_infinity_hides_nothing_else(log_probs, lengths, message):
    with pytest.raises(ValueError, match=message):
        ctc_loss(log_probs, TARGETS, lengths, zero_infinity=True)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match='reduction must be "mean", "sum" or "none"'):
        ctc_loss(LOG_PROBS, TARGETS, reduction="average")


@pytest.mark.parametrize("beta", [0.0, -1.0, float("inf"), float("nan"), "cold"])
def test_beta_must_be_positive_and_finite(beta):
    with pytest.raises(ValueError, match="beta must be a positive, finite number"):
        free_energy(ENERGIES, TARGETS, beta=beta)


@pytest.mark.parametrize("function", [viterbi, free_energy, ctc_loss, ctc_align])
@pytest.mark.parametrize("classes", [[1], [0, 1, 2, 3]])
def test_no_finite_path_is_an_error_and_not_infinity(function, classes):
    forbidding = changed(LOG_PROBS, (1, slice(None), classes), -torch.inf)
    with pytest.raises(ValueError, match="item 1: every path has infinite energy"):
        function(forbidding if function in (ctc_loss, ctc_align) else -forbidding, TARGETS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the lexicon is empty"),
        (["ab", ""], "empty word"),
        (["ab", "ax"], "the word 'ax' holds letters outside the alphabet"),
        (["ab", 3], "collection of strings"),
        ("abc", "not one string"),
    ],
)
def test_lexicons(words, message):
    with pytest.raises(ValueError, match=message):
        Trie(words, "abc")
    with pytest.raises(ValueError, match="a letter twice"):
        Trie(["a"], "aa")


def test_lexicon_decoding():
    with pytest.raises(ValueError, match="item 1: no word of the lexicon fits into its 2 frames"):
        lexicon_decode(ENERGIES, Trie(["abc", "bb"], "abc"), [5, 2])
    with pytest.raises(ValueError, match="item 0: no word of the lexicon fits"):
        lexicon_decode(changed(ENERGIES, (0, slice(None), 0), torch.inf), Trie(["a", "ba"], "abc"))
    with pytest.raises(ValueError, match="letter 'd' of the lexicon has no class of its own"):
        lexicon_decode(ENERGIES, Trie(["abd"], "abcd"))
    with pytest.raises(ValueError, match="letter 'z' of the lexicon has no class of its own"):
        lexicon_decode(ENERGIES, Trie(["z"]))
    with pytest.raises(ValueError, match="got list: build it once"):
        lexicon_decode(ENERGIES, ["a"])


def test_importing_the_package_does_not_import_numba():
    code = "import sys, ebmcourse.lattice; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
