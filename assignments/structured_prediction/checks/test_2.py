"""2: training on single letters.

A model that is linear in given features is trained by plain gradient descent, so the right result is known.
"""

import numpy as np
import torch
from oracles import (
    FIRST_LOSSES,
    NEVER_CALLED,
    about_energies,
    descend,
    fail_calls,
    judge_descent,
    judge_mean_losses,
    judge_modes,
    per_batch,
)
from stand_ins import SGD, CrossEntropy, Loader, Reader, as_losses, as_tensor, with_gradients

from ebmcourse.checking import exercise, fail, inputs, probe
from ebmcourse.checking.compare import difference
from ebmcourse.data.words import simple_collate_fn

SIZES = (4, 5, 2)
RATE = 0.5


@inputs
def weights(rng):
    return torch.from_numpy(rng.standard_normal((27, 13)).astype(np.float32))


@inputs
def samples(rng):
    """The images (32, 18) and letters of three passes. The second pass has brighter images, so its loss is higher."""
    images = rng.random((3, 11, 32, 18)) * np.array([0.3, 1, 0.5])[:, None, None, None]
    letters = ["".join(chr(97 + number) for number in rng.permutation(26)[:11]) for _ in images]
    return {"images": list(torch.from_numpy(images.astype(np.float32))), "letters": letters}


@inputs
def single(rng):
    """A single image of the largest width that has one window."""
    image = torch.from_numpy(rng.random((1, 32, 21)).astype(np.float32))
    return {"images": [image], "letters": [chr(97 + rng.integers(26))]}


@probe
def trained(student, weights, samples, sizes, epochs):
    """The weights after plain gradient descent and after its first step, the number of steps, the losses, the modes of
    the model, how often the loader was read, and the calls of the criterion.
    """
    model = Reader(weights).eval()
    passes = [list(zip(*drawn, strict=True)) for drawn in zip(samples["images"], samples["letters"], strict=True)]
    loader = Loader(passes, sizes, simple_collate_fn)
    optimizer = SGD(model.parameters(), RATE)
    criterion = CrossEntropy()
    train = student.structured_prediction.train_model
    losses = with_gradients(lambda: train(model, epochs, loader, criterion, optimizer), criterion)
    calls = {"sums": as_tensor(criterion.sums), "counts": as_tensor(criterion.counts), "given": criterion.given}
    return {
        "weights": model.weights,
        "step": model.first_step(),
        "steps": optimizer.steps,
        "labels": criterion.labels,
        "losses": as_losses(losses),
        "in_training": model.in_training(),
        "reads": loader.reads,
        **calls,
    }


def loss_of(sign=-1, reduction="mean"):
    def loss(weights, batch):
        features, labels = batch
        return torch.nn.functional.cross_entropy(sign * features @ weights.T, labels, reduction=reduction)

    return loss


def passes_of(weights, samples, sizes):
    """The batches (features, labels) of each pass."""
    passes = []
    for images, letters in zip(samples["images"], samples["letters"], strict=True):
        features = Reader(weights).features(images[:, None])[:, 0]
        labels = torch.tensor([ord(letter) - 97 for letter in letters])
        passes.append(list(zip(features.split(sizes), labels.split(sizes), strict=True)))
    return passes


def cosine(got, right, weights):
    """The cosine of the angle between the changes of `weights`; 0 if the shape is wrong or nothing has changed."""
    if got.shape != right.shape:
        return 0.0
    return torch.nn.functional.cosine_similarity((got - weights).flatten(), (right - weights).flatten(), dim=0).item()


def about_first_call(got, weights, passes):
    """What is wrong with the arguments of the criterion in its first call; "" if nothing is, None if it is unknown."""
    features, labels = passes[0][0]
    energies, given = features @ weights.T, got["given"]
    if given.shape == energies.shape and difference(given, energies, 1e-4, 1e-4):
        distances, nearest = (given[:, None] - energies[None]).abs().amax(2).min(1)
        if distances.max() < 1e-4 and len(nearest.unique()) == len(nearest):
            return "The energies that the criterion gets are in another order than the images."
    if difference(given, energies[: len(given)], 1e-4, 1e-4) or len(got["labels"]) < len(labels):
        return about_energies(given, torch.cat([batches[0][0] @ weights.T for batches in passes]))
    if torch.equal(got["labels"][: len(labels)], labels.float()):
        return ""
    return "The classes that the criterion gets are not the letters of the images."


def judge_weights(got, weights, passes, epochs):
    def given():
        return about_first_call(got, weights, passes)

    summed = "The steps follow the sum of the losses over the batch: take each on the criterion's mean as it is."
    mistakes = [] if got["counts"].numel() else [(NEVER_CALLED, lambda: got["weights"])]
    mistakes.append((summed, lambda: descend(weights, passes[:epochs], RATE, loss_of(reduction="sum"))))
    sizes = [len(labels) for _, labels in passes[0]]
    judge_descent(got, weights, passes, epochs, RATE, loss_of(), mistakes, given, sizes, "image")


@exercise(
    "2a",
    points=1,
    seconds=20,
    public=True,
    hint="For each batch: energies of the only window, criterion, zero_grad, backward, step.",
)
def test_one_step_for_every_batch(run, weights, samples):
    """`train_model` takes one optimizer step on the mean loss for every batch."""
    got, _ = run(trained, weights, samples, SIZES, 2)
    judge_weights(got, weights, passes_of(weights, samples, SIZES), 2)


@exercise(
    "2a",
    points=0.5,
    seconds=20,
    public=True,
    hint="Sum the loss times the number of images, and divide by the number of all images at the end of the epoch.",
)
def test_mean_loss_of_every_epoch(run, weights, samples):
    """`train_model` returns a list with the mean loss per image of each epoch."""
    got, _ = run(trained, weights, samples, SIZES, 3)
    losses = per_batch(got["sums"], got["counts"], SIZES, 3)
    first = torch.stack([loss_of()(weights, batches[0]) for batches in passes_of(weights, samples, SIZES)])
    if losses is None:
        fail_calls(got, 3, "images", SIZES)
    if (losses[0, 0] - first[:2]).abs().min() > 1e-4:
        fail(about_first_call(got, weights, passes_of(weights, samples, SIZES)) or FIRST_LOSSES)
    judge_mean_losses(got["losses"], losses, SIZES, "images")
