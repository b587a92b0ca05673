"""6e: training with the CTC loss, whose place torch's takes here."""

import numpy as np
import torch
import torch.nn.functional as F
from oracles import (
    FIRST_LOSSES,
    NEVER_CALLED,
    descend,
    fail_calls,
    is_read,
    judge_close,
    judge_descent,
    judge_mean_losses,
    judge_modes,
    per_batch,
)
from stand_ins import SGD, CTCCriterion, Loader, Reader, as_losses, as_tensor, with_gradients

from ebmcourse.checking import Mismatch, exercise, fail, inputs, probe
from ebmcourse.checking.compare import difference
from ebmcourse.data.words import BETWEEN, SimpleWordsDataset, collate_fn

RATE = 0.3
SIZES = (2, 3)


@inputs
def weights(rng):
    return torch.from_numpy(2 * rng.standard_normal((27, 13)).astype(np.float32))


def random_words(rng, lengths, widths):
    """Words of different letters, but that those of three letters begin with the same letter twice."""
    rows = [rng.permutation(26)[:length] for length in lengths]
    texts = ["".join(chr(97 + row[max(i - (len(row) == 3), 0)]) for i in range(len(row))) for row in rows]
    passes = [[torch.from_numpy(rng.random((32, width)).astype(np.float32)) for width in widths] for _ in range(3)]
    return {"texts": texts, "passes": passes}


@inputs
def alike(rng):
    """Five words of two letters with images of one width."""
    return random_words(rng, [2] * 5, [38] * 5)


@inputs
def mixed(rng):
    """Five words of 1 to 3 letters with images of different widths."""
    return random_words(rng, (3, 1, 2, 1, 2), (58, 18, 37, 30, 46))


@inputs
def uneven(rng):
    """Five words; those of the second batch have more letters and windows. There is no padding."""
    return random_words(rng, (2, 2, 3, 3, 3), (38, 38, 62, 62, 62))


@probe
def trained(student, weights, words, sizes, epochs, factor=1.0):
    """The weights after plain gradient descent and after its first step, the number of steps, the losses, the modes of
    the model, how often the loader was read, and the calls of the criterion.

    factor: of the loss; the steps are the same for each, unless gradients are clipped
    """
    model, criterion = Reader(weights).eval(), CTCCriterion(factor)
    passes = [list(zip(images, words["texts"], strict=True)) for images in words["passes"]]
    loader = Loader(passes, sizes, collate_fn)
    optimizer = SGD(model.parameters(), RATE / factor)
    train = student.structured_prediction.train_gtn_model
    losses = with_gradients(lambda: train(model, epochs, loader, criterion, optimizer), criterion)
    return {
        "weights": model.weights,
        "step": model.first_step(),
        "steps": optimizer.steps,
        "given": criterion.given,
        "losses": as_losses(losses),
        "in_training": model.in_training(),
        "reads": loader.reads,
        "targets": criterion.targets,
        "lengths": as_tensor(criterion.lengths),
        "excess": as_tensor(criterion.excess),
        "sums": as_tensor(criterion.sums),
        "counts": as_tensor(criterion.counts),
    }


@probe
def weights_after(student, weights, words):
    """The weights after one epoch with gradients of a norm of about 50, and whether the criterion was called."""
    after = trained(student, weights, words, SIZES, 1, 6.0)
    return {"weights": after["weights"], "is_called": bool(after["targets"])}


def passes_of(weights, words, sizes):
    """For each batch of each pass: the features (B, L, F) of the padded images, the numbers of windows, the letters."""
    passes = []
    for all_images in words["passes"]:
        batches, start = [], 0
        for size in sizes:
            images, texts = all_images[start : start + size], words["texts"][start : start + size]
            start += size
            width = max(image.shape[1] for image in images)
            padded = torch.stack([F.pad(image, (0, width - image.shape[1])) for image in images])
            lengths = [(image.shape[1] - 18) // 4 + 1 for image in images]
            letters = [[ord(letter) - 97 for letter in text] for text in texts]
            batches.append((Reader(weights).features(padded[:, None]), lengths, letters))
        passes.append(batches)
    return passes


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


POSITIVE = "The log-probabilities are those of +energies: negate the energies, since low means likely."


def about_log_probs(given, weights, passes):
    """What the criterion got instead of the log-probabilities of the first batch; "" if these, None if it is unknown.

    given: what it got in its first call, which may be for the first words only
    """
    energies, *later = (batches[0][0] @ weights.T for batches in passes)
    right = (-energies).log_softmax(2)
    wrong = {
        POSITIVE: energies.log_softmax(2),
        "The criterion gets the negated log-probabilities: pass the log_softmax itself.": -right,
        "The minus is outside the log_softmax: pass the log_softmax of -energies.": -energies.log_softmax(2),
        "The criterion gets probabilities: pass the log_softmax of -energies.": (-energies).softmax(2),
        "The criterion gets the energies: pass the log_softmax of -energies.": energies,
        "The criterion gets -energies: pass their log_softmax.": -energies,
        "The log_softmax is taken over the windows: take it over the 27 classes.": (-energies).log_softmax(1),
        "The log_softmax is taken over the words: take it over the 27 classes.": (-energies).log_softmax(0),
    }
    if given.dim() != 3 or not 0 < len(given) <= len(right) or given.shape[2] != 27:
        return None
    if difference(given, right[: len(given)], 1e-4, 1e-4) is None:
        return ""
    known = torch.cat([right.flatten(0, 1), *((-values).log_softmax(2).flatten(0, 1) for values in later)])
    found = (name for name, value in wrong.items() if not difference(given, value[: len(given)], 1e-4, 1e-4))
    if sentence := next(found, None):
        return sentence
    if ((given.flatten(0, 1)[:, None] - known[None]).abs().amax(2) > 1e-3).all():
        return (
            "What the criterion gets are not the log-probabilities of the first batch: pass the log_softmax of the "
            "-energies of its images, as they are."
        )
    return None


def about_targets(targets, letters):
    """What is wrong with the targets of all words; None where it is unknown."""
    if len(targets) != len(letters) or targets == letters:
        return None
    if sorted(targets) == sorted(letters):
        return "The targets are in another order than the images: target b holds the letters of image b."
    if all(sorted(target) == sorted(row) for target, row in zip(targets, letters, strict=True)):
        return "The letters of the targets are in another order than those of the words."
    return "The targets are not the classes of the letters: they are `letters`, each row cut at its true length."


def judge_training(got, weights, words, sizes, epochs):
    letters = [[ord(letter) - 97 for letter in text] for text in words["texts"]] * epochs
    for target, row in zip(got["targets"], letters, strict=False):
        if target == [label for letter in row for label in (letter, BETWEEN)]:
            fail("The targets contain blanks: pass plain letters, CTC inserts the blanks itself.")
        if target[: len(row)] == row and set(target[len(row) :]) == {BETWEEN}:
            fail("The targets contain padding: cut each at its true length.")
        if len(target) < len(row) and target == [row[i] for i in range(len(row)) if row[i] not in row[:i]]:
            fail(
                "A letter that occurs twice in a row is only once in the targets: all letters of a word belong to them."
            )
    passes = passes_of(weights, words, sizes)
    used = passes[:epochs]

    def after(**rule):
        return lambda: descend(weights, used, RATE, loss_of(**rule))

    right = after()()
    is_right = got["weights"].shape == right.shape and (got["weights"] - right).abs().max() < 1e-4
    if not is_right and (sentence := about_targets(got["targets"], letters)):
        fail(sentence)
    if not is_right and (sentence := about_log_probs(got["given"], weights, passes)):
        fail(sentence)
    given = got["lengths"].tolist() if got["lengths"].dim() == 1 else []
    windows = [length for batch in passes[0] for length in batch[1]] * epochs
    if not is_right and len(given) == len(windows) and any(a < b for a, b in zip(given, windows, strict=True)):
        fail("Some numbers of windows are too small: pass the `window_counts` of the widths to the criterion.")
    # log Σ exp of the log-probabilities of a window is 0.
    if not is_right and got["excess"].numel() and not got["excess"].max() < 1e-3:
        fail("The criterion does not get log-probabilities: pass the log_softmax of -energies.")
    mistakes = [
        (POSITIVE, after(sign=1)),
        ("The steps follow the sum of the losses of the words: take the criterion's mean.", after(mean=False)),
        (
            "Windows in the padding are included: pass the `window_counts` of the widths to the criterion.",
            after(padding=True),
        ),
    ]

    def given():
        return about_log_probs(got["given"], weights, passes) if got["targets"] == letters else None

    if got["weights"].shape == right.shape and len(got["targets"]) < len(letters) and not is_right:
        known = [used[:1], [batches[:1] for batches in used], [batches[-1:] for batches in used]]
        if all(difference(got["weights"], descend(weights, some, RATE, loss_of()), 1e-4, 1e-4) for some in known):
            fail("Some of the words never enter the loss: the criterion must get all words of every batch, once.")
    judge_descent(got, weights, passes, epochs, RATE, loss_of(), mistakes, given, sizes, "word")


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


### BEGIN HIDDEN TESTS
@exercise(
    "6e",
    points=0.25,
    seconds=20,
    hint="Cut targets at their true length, and pass the true numbers of windows to the criterion.",
)
def test_words_of_different_length(run, weights, mixed, uneven):
    """Only the letters and windows of each word count, not its padding, for energies of any magnitude."""
    got, _ = run(trained, weights, mixed, SIZES, 2)
    judge_training(got, weights, mixed, SIZES, 2)
    judge_modes(got["in_training"])
    # Energies so large that the softmax of most classes is 0, whose logarithm is infinite.
    large = 100 * weights
    got, _ = run(weights_after, large, uneven)
    if not got["weights"].isfinite().all():
        fail(
            "Large energies give infinite or undefined weights: is there the logarithm of a softmax? `log_softmax` is "
            "finite."
        )
    # The loader may have been read once before the training.
    first, second, _ = passes_of(large, uneven, SIZES)
    right, later = (descend(large, [batches], RATE, loss_of()) for batches in (first, second))
    if difference(got["weights"], later, 1e-4, 1e-4):
        step = (got["weights"] - large).flatten()
        if (
            step.norm() < 0.9 * (right - large).norm()
            and F.cosine_similarity(step, (right - large).flatten(), 0) > 0.99
        ):
            clipped = "Large gradients are clipped: take each step with the gradient as it is."
            fail(clipped if got["is_called"] is True else NEVER_CALLED)
        limited = "For large energies, a step is wrong: are the probabilities limited? Use `log_softmax` alone."
        judge_close(got["weights"], right, limited, atol=1e-4)


@exercise(
    "6e",
    points=0.25,
    seconds=20,
    hint="Set the running loss to zero at the start of each epoch, and divide it at the end.",
)
def test_mean_loss_of_every_epoch(run, weights, uneven):
    """`train_gtn_model` returns a list with the mean loss per word of each epoch."""
    got, _ = run(trained, weights, uneven, SIZES, 3)
    losses = per_batch(got["sums"], got["counts"], SIZES, 3)
    # The arguments are judged above: here, the first loss may also be that of a known mistake. The loader may have been
    # read once before the training.
    passes = passes_of(weights, uneven, SIZES)
    known = [loss_of(**rule)(weights, batches[0]) for rule in ({}, *WRONG_ARGUMENTS) for batches in passes[:2]]
    if losses is None:
        fail_calls(got, 3, "words", SIZES)
    if (losses[0, 0] - torch.stack(known)).abs().min() > 1e-3:
        fail(about_log_probs(got["given"], weights, passes) or FIRST_LOSSES)
    numbers = {
        "letters": [sum(map(len, letters)) for _, _, letters in passes[0]],
        "windows": [sum(lengths) for _, lengths, _ in passes[0]],
    }
    weighted = "The means of the batches are weighted by their {}: weight each by the number of its words."
    mistakes = {weighted.format(what): [n / sum(each) for n in each] for what, each in numbers.items()}
    judge_mean_losses(got["losses"], losses, SIZES, "words", mistakes)


@inputs
def drawn(rng):
    """Three letters and three pairs of them, drawn with the course's font, and the initial weights of a network."""
    letters = [chr(97 + number) for number in rng.permutation(26)[:3]]
    pairs = [first + second for first in letters for second in letters if first != second]
    words = letters + [pairs[number] for number in rng.permutation(6)[:3]]
    texts = [words[number] for number in rng.permutation(6)]
    images = [SimpleWordsDataset(2).draw_text(text) for text in texts]
    start = 0.01 * rng.standard_normal((27, 32 * 18 + 1)).astype(np.float32)
    return {"texts": texts, "passes": [images], "weights": torch.from_numpy(start)}


@probe
def learned(student, words):
    """The energies of the words after a training with Adam."""
    model = Reader(words["weights"], 32, 18)
    loader = Loader([list(zip(words["passes"][0], words["texts"], strict=True))], (3, 3), collate_fn)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    criterion = CTCCriterion()
    train = student.structured_prediction.train_gtn_model
    with_gradients(lambda: train(model, 24, loader, criterion, optimizer), criterion)
    with torch.no_grad():
        return {"energies": [model(image[None, None])[0] for image in words["passes"][0]]}


@exercise("6e", points=0.5, seconds=60, hint="After the training, the classes of least energy must read as the words.")
def test_words_are_learned(run, drawn):
    """After training on six short words, the words are read correctly."""
    got, want = run(learned, drawn)
    if any(a.shape != b.shape for a, b in zip(got["energies"], want["energies"], strict=True)):
        raise Mismatch("After training, the energies have the wrong shape.")
    # The reference reads all six (60 seeds), an untrained network none.
    if sum(map(is_read, got["energies"], drawn["texts"])) < 4:
        fail("After training, most of the words are not read correctly.")


### END HIDDEN TESTS
