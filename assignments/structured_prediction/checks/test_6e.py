"""6e: training with the CTC loss, whose place torch's takes here."""

import numpy as np
import torch
import torch.nn.functional as F
from oracles import descend, is_read, judge_mean_losses, per_batch
from stand_ins import CTCCriterion, Reader, as_losses, as_tensor, loader_of

from ebmcourse.checking import Mismatch, assert_close, exercise, fail, inputs, probe
from ebmcourse.data.words import BETWEEN, SimpleWordsDataset, collate_fn

RATE = 0.3
SIZES = (2, 3)


@inputs
def weights(rng):
    return torch.from_numpy(2 * rng.standard_normal((27, 13)).astype(np.float32))


def random_words(rng, lengths, widths):
    texts = ["".join(chr(97 + number) for number in rng.permutation(26)[:length]) for length in lengths]
    images = [torch.from_numpy(rng.random((32, width)).astype(np.float32)) for width in widths]
    return {"texts": texts, "images": images}


@inputs
def alike(rng):
    """Five words of two letters with images of one width."""
    return random_words(rng, [2] * 5, [38] * 5)


@inputs
def mixed(rng):
    """Five words of 1 to 3 letters with images of different widths."""
    return random_words(rng, (3, 1, 2, 1, 2), (58, 18, 37, 30, 46))


@probe
def trained(student, weights, words, sizes, epochs):
    """The weights after plain gradient descent, the losses, and the calls of the criterion."""
    model, criterion = Reader(weights).eval(), CTCCriterion()
    loader = loader_of(list(zip(words["images"], words["texts"], strict=True)), sizes, collate_fn)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    losses = student.structured_prediction.train_gtn_model(model, epochs, loader, criterion, optimizer)
    return {
        "weights": model.weights,
        "losses": as_losses(losses),
        "targets": criterion.targets,
        "excess": as_tensor(criterion.excess),
        "sums": as_tensor(criterion.sums),
        "counts": as_tensor(criterion.counts),
    }


def batches_of(weights, words, sizes):
    """For each batch: the features (B, L, F) of the padded images, the numbers of windows, and the letters."""
    batches, start = [], 0
    for size in sizes:
        images, texts = words["images"][start : start + size], words["texts"][start : start + size]
        start += size
        width = max(image.shape[1] for image in images)
        padded = torch.stack([F.pad(image, (0, width - image.shape[1])) for image in images])
        lengths = [(image.shape[1] - 18) // 4 + 1 for image in images]
        letters = [[ord(letter) - 97 for letter in text] for text in texts]
        batches.append((Reader(weights).features(padded[:, None]), lengths, letters))
    return batches


WRONG_ARGUMENTS = ({"sign": 1}, {"scores": "energies"}, {"scores": "probabilities"}, {"blanks": True})


def loss_of(*, padding=False, sign=-1, mean=True, scores="log_probs", blanks=False):
    """The loss of a batch as a function of the weights; the arguments are known mistakes."""

    def loss(weights, batch):
        features, lengths, letters = batch
        energies = sign * features @ weights.T
        given = {"energies": lambda: energies, "probabilities": lambda: energies.softmax(2)}
        log_probs = given.get(scores, lambda: energies.log_softmax(2))().transpose(0, 1)
        if blanks:
            letters = [[label for letter in row for label in (letter, BETWEEN)] for row in letters]
        sizes = torch.tensor([len(row) for row in letters])
        labels = torch.tensor([label for row in letters for label in row])
        frames = torch.tensor([features.shape[1]] * len(lengths) if padding else lengths)
        each = F.ctc_loss(log_probs, labels, frames, sizes, BETWEEN, reduction="none") / sizes
        return each.mean() if mean else each.sum()

    return loss


def judge_training(got, weights, words, sizes, epochs):
    letters = [[ord(letter) - 97 for letter in text] for text in words["texts"]] * epochs
    for target, row in zip(got["targets"], letters, strict=False):
        if target == [label for letter in row for label in (letter, BETWEEN)]:
            fail("The targets contain blanks: pass plain letters, CTC inserts the blanks itself.")
        if target[: len(row)] == row and set(target[len(row) :]) == {BETWEEN}:
            fail("The targets contain padding: cut each at its true length.")
    batches = batches_of(weights, words, sizes)

    def after(loss, **rules):
        return descend(weights, batches, RATE, epochs, loss, **rules)[0]

    def mistakes():
        return {
            "The model has not changed: call `loss.backward()` and `optimizer.step()` for every batch.": weights,
            "Gradients accumulate over the batches: call `optimizer.zero_grad()` before each `backward()`.": after(
                loss_of(), keep_gradients=True
            ),
            "The log-probabilities are those of +energies: negate the energies, since low means likely.": after(
                loss_of(sign=1)
            ),
            "The loss is the sum over the words: take the mean.": after(loss_of(mean=False)),
            "Windows in the padding are included: pass the `window_counts` of the widths to the criterion.": after(
                loss_of(padding=True)
            ),
            "The steps increase the loss: it must decrease.": descend(weights, batches, -RATE, epochs, loss_of())[0],
            "Only one epoch is trained: go through the loader `num_epochs` times.": descend(
                weights, batches, RATE, 1, loss_of()
            )[0],
        }

    right = after(loss_of())
    is_right = got["weights"].shape == right.shape and (got["weights"] - right).abs().max() < 1e-4
    # log Σ exp of the log-probabilities of a window is 0.
    if not is_right and got["excess"].numel() and not got["excess"].max() < 1e-3:
        fail("The criterion does not get log-probabilities: pass the log_softmax of -energies.")
    # In float64 the reference's weights differ by less than 1e-6; mistakes change them by more than 0.01.
    assert_close(got["weights"], right, atol=1e-4, mistakes=mistakes)


@exercise(
    "6e",
    points=1,
    seconds=20,
    public=True,
    hint="Log-probabilities are log_softmax(-energies); the targets are plain letters.",
)
def test_one_step_for_every_batch(run, weights, alike):
    """`train_gtn_model` takes one optimizer step per batch on the mean CTC loss."""
    got, _ = run(trained, weights, alike, SIZES, 2)
    judge_training(got, weights, alike, SIZES, 2)
