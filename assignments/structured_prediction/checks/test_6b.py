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
