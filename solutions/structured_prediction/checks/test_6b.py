"""6b: the CTC loss. The oracles list all paths, or are torch's own loss."""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from oracles import (
    INFINITY,
    blanked,
    ctc_losses,
    ctc_paths,
    ctc_score,
    judge_refusal,
    judge_ways,
    least,
    random_log_probs,
    random_targets,
)
from stand_ins import as_tensor, create_ctc_graph, refusal, replaced

from ebmcourse.checking import assert_close, exercise, fail, inputs, probe, require, ways
from ebmcourse.checking.compare import difference
from ebmcourse.data.words import BETWEEN

OTHER_BLANK = 4


@inputs
def log_probs(rng):
    """Three words of eight frames."""
    return random_log_probs(rng, 3, 8, 27).float()


@inputs
def targets(rng):
    return random_targets(rng)


@inputs
def other(rng):
    """Three words of eight frames with 30 classes and another blank, one with the letter 0.

    lengths: their numbers of windows, all smaller than eight, and that of the last smaller than what the others need
    """
    letters = np.setdiff1d(np.arange(1, 30), [OTHER_BLANK, BETWEEN])
    targets = random_targets(rng, letters)
    targets[0][1] = 0
    lengths = torch.from_numpy(np.array([rng.integers(4, 6), rng.integers(6, 8), 2]))
    return {"log_probs": random_log_probs(rng, 3, 8, 30).float(), "targets": targets, "lengths": lengths}


@inputs
def unlikely(rng):
    """Three words of eight frames, whose probabilities are so small that exp gives 0 in float32."""
    return (20 * random_log_probs(rng, 3, 8, 27)).log_softmax(2).float()


@probe
def loss_of(student, log_probs, targets, lengths, blank, reduction):
    """The loss of the program as it is, and with a stand-in for the graph."""
    module = student.structured_prediction

    def attempt(log_probs=log_probs, lengths=lengths):
        rows = [list(row) for row in targets]
        # With lengths, the log-probabilities are not contiguous in memory.
        given = log_probs.clone() if lengths is None else log_probs.mT.contiguous().mT
        return {"loss": module.CTCLossFunction.apply(given, rows, lengths, blank, reduction)}

    def isolated():
        with replaced(module, create_ctc_graph=create_ctc_graph):
            try:
                return attempt()
            except RuntimeError as error:
                require(
                    lengths is None or "Boolean value of Tensor" not in str(error),
                    "A tensor of several numbers has no truth value: is `input_lengths` compared with None?",
                )
                raise
            except ValueError as error:
                require(
                    "no accepting path" not in str(error),
                    "The graph for a word has no path, although the word has enough windows: does each word have its "
                    "own target and its own windows?",
                )
                more = None if lengths is None else 3 * lengths
                require(
                    refusal(lambda: attempt(log_probs.repeat(1, 3, 1), more))["type"] == "ValueError",
                    "A word is refused that has enough windows: a target needs one for each letter, and one more "
                    "between two equal neighbours only.",
                )
                raise

    return ways(whole=attempt, isolated=isolated)


@probe
def default_loss_of(student, log_probs, targets):
    """The loss with the default arguments; otherwise like `loss_of`."""
    module = student.structured_prediction

    def attempt():
        return {"loss": module.CTCLossFunction.apply(log_probs.clone(), [list(row) for row in targets])}

    def isolated():
        with replaced(module, create_ctc_graph=create_ctc_graph):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


WRONG_PATHS = {
    "A string may also end with a letter, not only with a blank.": {"last": (-1,)},
    "A string may also end with a blank, not only with the last letter.": {"last": (-2,)},
    "A string may also begin with a letter, not only with a blank.": {"first": (0,)},
    "A string may also begin with a blank, not only with the first letter.": {"first": (1,)},
    "The blank between different letters may be left out.": {"skips": "none"},
    "The blank between equal letters cannot be left out: without it, both are read as one.": {"skips": "all"},
    "Labels may be repeated in neighbouring windows.": {"stays": False},
}


def wrong_losses(log_probs, targets, lengths=None, blank=BETWEEN):
    """The results of known mistakes for the loss of each word (B,)."""
    right = ctc_losses(log_probs, targets, lengths, blank)
    shorter = torch.tensor(log_probs.shape[1]).expand(len(targets)) - 1 if lengths is None else lengths - 1
    sizes = torch.tensor([len(row) for row in targets])
    frames = [log_probs.shape[1]] * len(targets) if lengths is None else lengths.tolist()

    return {
        "The sign is wrong: this is log p, and the loss is -log p.": -right,
        "`reduction='none'` returns a mean: one loss per word is expected.": right.mean(),
        "`reduction='none'` returns the mean loss per letter: one loss per word is expected.": (right / sizes).mean(),
        "The losses are divided by the numbers of letters: only `reduction='mean'` does this.": right / sizes,
        "This is the sum over the words: one loss per word is expected.": right.sum(),
        "These are probabilities: take the negative logarithm.": (-right).exp(),
        "This is -log p of the best path only: sum over all paths.": torch.stack(
            [
                least(-item[:size, blanked(row, blank)], ctc_paths(size, row))
                for item, row, size in zip(log_probs, targets, frames, strict=True)
            ]
        ),
        "Windows beyond `input_lengths` are included: they must not count.": ctc_losses(
            log_probs, targets, None, blank
        ),
        "All words get the largest of the `input_lengths`: each has its own.": ctc_losses(
            log_probs, targets, torch.tensor([max(frames)] * len(frames)), blank
        ),
        "`blank_idx` is ignored: the blank is not always BETWEEN.": ctc_losses(
            log_probs, targets, lengths, min(BETWEEN, log_probs.shape[2] - 1)
        ),
        "The last windows count: the first `input_lengths[b]` windows of word b are its own.": torch.stack(
            [
                ctc_losses(item[None, len(item) - size :], [row], None, blank)[0]
                for item, row, size in zip(log_probs, targets, frames, strict=True)
            ]
        ),
        "The last window is missing: `input_lengths` windows count, or all L.": ctc_losses(
            log_probs, targets, shorter, blank
        ),
        "The weights are probabilities: gtn adds log-probabilities.": ctc_losses(
            log_probs.exp(), targets, lengths, blank
        ),
        "All words have the log-probabilities of the first: each has its own.": ctc_losses(
            log_probs[:1].expand(len(targets), -1, -1), targets, lengths, blank
        ),
        "The losses are divided by the numbers of windows: leave them as they are.": right / torch.tensor(frames),
        "The weights are transposed: they come window by window, as in the rows of `log_probs`.": torch.stack(
            [
                ctc_losses(item[:size].T.reshape(1, size, -1), [row], torch.tensor([size]), blank)[0]
                for item, row, size in zip(log_probs, targets, frames, strict=True)
            ]
        ),
        "The weights are negated: high weights mean likely, so they are the log-probabilities as they are.": ctc_losses(
            -log_probs, targets, lengths, blank
        ),
        "Blanks are inserted twice: targets are plain letters, and the graph inserts the blanks.": -torch.stack(
            [
                ctc_score(item[:size].double(), [label for letter in row for label in (letter, blank)], blank)
                for item, row, size in zip(log_probs, targets, frames, strict=True)
            ]
        ),
        "All words have the target of the first: each has its own.": -torch.stack(
            [ctc_score(item[:size].double(), targets[0], blank) for item, size in zip(log_probs, frames, strict=True)]
        ),
        "The words are in another order: loss b is that of word b.": right.flip(0),
    } | {
        sentence: -torch.stack(
            [
                ctc_score(item[:size].double(), row, blank, **rule)
                for item, row, size in zip(log_probs, targets, frames, strict=True)
            ]
        )
        for sentence, rule in WRONG_PATHS.items()
    }


def judge_losses(got, right, mistakes):
    # The losses are about 20; those of the reference differ by 2e-6, a tenth of what the defaults allow.
    assert_close(got["loss"], right.float(), mistakes={name: wrong.float() for name, wrong in mistakes.items()})


@exercise(
    "6b",
    points=1,
    public=True,
    seconds=30,
    hint="Minus the forward score of the intersection of emissions and graph, for each word: shape (B,).",
)
def test_loss_of_every_word(run, log_probs, targets):
    """With `reduction="none"`, `CTCLossFunction` returns -log p of each word, shape (B,)."""
    got, want = run(loss_of, log_probs, targets, None, BETWEEN, "none")
    right, mistakes = ctc_losses(log_probs, targets), wrong_losses(log_probs, targets)
    judge_ways(got, want, lambda got, want: judge_losses(got, right, mistakes))


@inputs
def certain(rng):
    """Frames of a network that is nearly certain of two words: c _ a _ t _ _ _ and _ c _ a _ t _ _."""
    letters = rng.permutation(np.arange(1, 26))[:6].tolist()
    labels = [
        [letters[0], 26, letters[1], 26, letters[2], 26, 26, 26],
        [26, letters[3], 26, letters[4], 26, letters[5], 26, 26],
    ]
    logits = 9 * F.one_hot(torch.tensor(labels), 27) + torch.from_numpy(rng.standard_normal((2, 8, 27)))
    return {"log_probs": logits.log_softmax(2).float(), "targets": [letters[:3], letters[3:]]}


@exercise(
    "6b",
    points=0.5,
    public=True,
    seconds=30,
    hint="-log p ≥ 0, because a probability is at most 1. Targets are plain letters.",
)
def test_no_loss_is_negative(run, certain):
    """The loss is never negative, and it is close to 0 if the network is nearly certain of the word."""
    log_probs, targets = certain["log_probs"], certain["targets"]
    got, want = run(default_loss_of, log_probs, targets)
    right = ctc_losses(log_probs, targets).float()

    def judge(got, want):
        loss = got["loss"]
        if loss.dim() == 0:
            fail('With the default arguments, there must be one loss per word: the default reduction is "none".')
        # Small losses with known mistakes cost points above.
        for name, wrong in wrong_losses(log_probs, targets).items():
            if difference(loss, wrong.float(), 1e-4, 1e-4) is None and difference(wrong.float(), right, 1e-4, 1e-4):
                if wrong.abs().max() < 0.5:
                    return
                fail(name)
        if loss.shape == (2,) and loss.min() < -1e-3:
            fail(
                "The loss of a word is negative, so its probability exceeds 1: are there several paths for a string, "
                "or are the weights no log-probabilities?"
            )
        # -log p is about 0.03, and differs by less than 1e-5 from the same in float64.
        assert_close(loss, right, atol=1e-4)

    judge_ways(got, want, judge)


### BEGIN HIDDEN TESTS
@exercise(
    "6b",
    points=0.5,
    seconds=30,
    hint="As in torch: divide the loss of each word by its number of letters, then take the mean over the batch.",
)
def test_mean_loss(run, unlikely, targets):
    """With `reduction="mean"`, each loss is divided by its number of letters before the mean, as in torch."""
    judge_mean(run, unlikely, targets)
    judge_mean(run, unlikely, [targets[0], [], targets[2]])


def needed(target):
    """The number of windows that a target needs."""
    return len(target) + sum(before == after for before, after in pairwise(target))


def judge_mean(run, unlikely, targets):
    got, want = run(loss_of, unlikely, targets, None, BETWEEN, "mean")
    # As in torch, the loss of an empty target is not divided.
    each, sizes = ctc_losses(unlikely, targets), torch.tensor([max(len(row), 1) for row in targets])
    mistakes = {
        "This is the mean of the losses of the words: divide each by its number of letters first.": each.mean(),
        "This is the sum over the batch, not the mean.": (each / sizes).sum(),
        "The sum is divided by the number of all letters: divide each loss by its own, then take the mean.": (
            each.sum() / sizes.sum()
        ),
        "There is one loss per word: take the mean.": each,
        "These are the losses per letter of each word: take their mean.": each / sizes,
        "Each loss is divided by its number of letters twice.": (each / sizes**2).mean(),
        "The mean is divided by the number of words once more.": (each / sizes).mean() / len(each),
        "The sign is wrong: this is the mean of log p.": -(each / sizes).mean(),
        "The losses are divided by the number of windows, not of letters.": (each / 8).mean(),
        "The losses are divided by the numbers of windows that the targets need, not by the numbers of letters.": (
            each / torch.tensor([max(needed(row), 1) for row in targets])
        ).mean(),
        "The losses are divided by the number of letters of the longest target: divide each by its own.": (
            each.mean() / sizes.max()
        ),
        "The losses are divided by the lengths of the blanked targets, not by the numbers of letters.": (
            (each / (2 * sizes + 1)).mean()
        ),
    }
    mean = (each / sizes).mean()
    if [] in targets:
        mistakes["With an empty target, the mean is infinite: its own loss is finite, and must be divided by 1."] = (
            torch.tensor(INFINITY)
        )
        counted = torch.tensor([bool(row) for row in targets])
        mistakes["The loss of an empty target does not count: divide it by 1."] = (each / sizes * counted).mean()
        mistakes["Words without letters are left out of the mean: divide by the number of all words."] = (each / sizes)[
            counted
        ].mean()

    def judge(got, want):
        loss = got["loss"]
        if difference(loss, mean.float(), 1e-4, 1e-5) is None:
            return
        for name, wrong in wrong_losses(unlikely, targets).items():
            if wrong.shape == each.shape and wrong.isfinite().all() and not name.startswith("The losses are divided"):
                mistakes.setdefault(name, (wrong / sizes).mean())
        known = any(difference(loss, value.float(), 1e-4, 1e-5) is None for value in mistakes.values())
        if loss.shape == () and 0 < loss < 0.99 * mean and not known:
            fail(
                "The mean loss of unlikely words is too small: is it divided by something else than letters and words, "
                "or are the log-probabilities limited?"
            )
        judge_losses(got, mean, mistakes)

    judge_ways(got, want, judge)


@exercise("6b", points=0.5, seconds=30, hint="Only the first `input_lengths[b]` windows of word b count.")
def test_loss_of_padded_words(run, other):
    """Windows beyond `input_lengths` do not count in the loss, for any number of classes and any blank."""
    log_probs, targets, lengths = other["log_probs"], other["targets"], other["lengths"]
    got, want = run(loss_of, log_probs, targets, lengths, OTHER_BLANK, "none")
    right = ctc_losses(log_probs, targets, lengths, OTHER_BLANK)
    mistakes = wrong_losses(log_probs, targets, lengths, OTHER_BLANK)
    in_memory = torch.stack([item.T.flatten().view(item.shape) for item in log_probs])
    mistakes["The weights are read in the order of the memory: give `set_weights` the tensor, not its address."] = (
        ctc_losses(in_memory, targets, lengths, OTHER_BLANK)
    )

    def judge(got, want):
        if got["loss"].dim() == 0:  # a mean instead of one loss per word, which costs points above
            padded = "Windows beyond `input_lengths` are included: they must not count."
            judge_losses(got, right.mean(), {padded: ctc_losses(log_probs, targets, None, OTHER_BLANK).mean()})
        else:
            judge_losses(got, right, mistakes)

    judge_ways(got, want, judge)


@inputs
def too_short(rng):
    """A few frames, and words with too few of them, with exactly as many as needed, and with more than needed.

    padded: a word with too few frames if only `lengths` of them count
    """
    frames = int(rng.integers(12, 16))
    letters, doubles = int(rng.integers(frames + 1, 20)), int(rng.integers(frames // 2 + 2, frames))
    padded, lengths = int(rng.choice([10, 12])), rng.integers(5, 10, 1)
    # A message may name the labels of the target, so none of them is one of the numbers that it must name.
    numbers = [frames, letters, doubles, 2 * doubles - 1, padded, *lengths]
    labels = rng.permutation(np.setdiff1d(np.arange(1, 26), numbers)).tolist()
    exact = labels[:frames]
    exact[2], exact[5] = exact[0], exact[3]  # repeated, but not neighbours
    return {
        "log_probs": random_log_probs(rng, 1, frames, 27).float(),
        "letters": labels[:letters],
        "doubles": labels[-1:] * doubles,
        "exact": exact,
        "good": labels[-2:],
        "padded": labels[:padded],
        "lengths": torch.from_numpy(lengths),
    }


@probe
def losses_refused(student, too_short):
    """The exceptions for too few windows and for an unknown reduction, and the losses of words with enough windows."""
    module, log_probs = student.structured_prediction, too_short["log_probs"]

    def loss(*names, reduction="none", lengths=None):
        rows = [list(too_short[name]) for name in names]
        return module.CTCLossFunction.apply(log_probs.repeat(len(rows), 1, 1), rows, lengths, BETWEEN, reduction)

    def attempt():
        losses = [torch.zeros(0)]
        unwanted = refusal(lambda: losses.append(as_tensor(loss("exact")).flatten()))
        return {
            "reduction": refusal(lambda: loss("good", reduction="median"))["type"],
            "letters": refusal(lambda: loss("letters")),
            "second": refusal(lambda: loss("good", "letters")),
            "doubles": refusal(lambda: loss("doubles")),
            "padded": refusal(lambda: loss("padded", lengths=too_short["lengths"])),
            "exact": {"type": unwanted["type"], "loss": losses[-1]},
            "good": as_tensor(loss("good")),
        }

    def isolated():
        with replaced(module, create_ctc_graph=create_ctc_graph):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@exercise(
    "6b",
    points=0.5,
    seconds=30,
    hint="Raise a ValueError for an unknown reduction, and one that names both numbers for too few windows.",
)
def test_what_has_no_loss(run, too_short):
    """`CTCLossFunction` raises a ValueError for an unknown reduction and for too few windows."""
    got, want = run(losses_refused, too_short)
    log_probs = too_short["log_probs"]
    frames, letters, doubles = (len(value) for value in (log_probs[0], too_short["letters"], too_short["doubles"]))

    def judge_good(loss, word):
        right = ctc_losses(log_probs, [word])
        known = [right, -right, right / len(word)]
        if len(word) == 2:
            known.append(least(-log_probs[0][:, blanked(word, BETWEEN)], ctc_paths(frames, word))[None])
        # Which paths count is judged above: here, known mistakes pass.
        if all(difference(loss, value.float(), 1e-4, 1e-5) for value in known):
            fail("The loss of a word with enough windows is wrong.")

    def judge(got, want):
        silent = "A word with too few windows gets a loss: raise a ValueError, since no path reads as the word."
        unnamed = "The message of the ValueError does not name both numbers, of windows and of windows needed."
        if any(got[name]["type"] and "no accepting path" in got[name]["message"] for name in ("letters", "second")):
            unnamed = "The ValueError for too few windows is that of gtn: raise one before, which names both numbers."
        accepted = "An unknown reduction is accepted: raise a ValueError."
        judge_refusal({"type": got["reduction"]}, [], accepted, "", " for an unknown reduction")
        if got["exact"]["type"] == "ValueError":
            fail(
                "A word is refused that needs exactly as many windows as there are; only equal neighbours need a blank."
            )
        if got["exact"]["type"]:
            fail("There is an exception for a word that needs exactly as many windows as there are.")
        judge_refusal(got["letters"], [{frames}, {letters}], silent, unnamed, " for a word with too few windows")
        later = "Only the first word of a batch is checked: the second one has too few windows, but gets a loss."
        unchecked = (
            "The message does not name both numbers if the second word of a batch has too few windows: check each word."
        )
        judge_refusal(got["second"], [{frames}, {letters}], later, unchecked)
        equal = "The blank between equal letters needs a window of its own, which is not counted."
        uncounted = (
            "For equal neighbours, the message of the ValueError does not name both numbers: "
            "the blank between them needs a window of its own."
        )
        judge_refusal(got["doubles"], [{frames}, {2 * doubles - 1}], equal, uncounted)
        padded = "A word with too few windows gets a loss: compare its `input_lengths`, not L, with what it needs."
        unequal = (
            "With `input_lengths`, the message of the ValueError does not name both numbers: the number of windows is "
            "that of `input_lengths`."
        )
        judge_refusal(got["padded"], [{int(too_short["lengths"])}, {len(too_short["padded"])}], padded, unequal)
        if got["good"].dim() == 0:
            fail("The loss of a single word has lost its axis: without a mean, its shape is (1,).")
        judge_good(got["good"].flatten(), too_short["good"])
        judge_good(got["exact"]["loss"], too_short["exact"])

    judge_ways(got, want, judge)


### END HIDDEN TESTS
