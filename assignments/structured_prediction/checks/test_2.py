"""2: training on single letters.

A model that is linear in given features is trained by plain gradient descent, so the right result is known.
"""

import numpy as np
import torch
from oracles import about_energies, descend, fail_calls, judge_descent, judge_mean_losses, judge_modes, per_batch
from stand_ins import CrossEntropy, Loader, Reader, as_losses, as_tensor, with_gradients

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
    """The weights after plain gradient descent and after its first step, the losses, the modes of the model, how often
    the loader was read, and the calls of the criterion.
    """
    model = Reader(weights).eval()
    passes = [list(zip(*drawn, strict=True)) for drawn in zip(samples["images"], samples["letters"], strict=True)]
    loader = Loader(passes, sizes, simple_collate_fn)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    criterion = CrossEntropy()
    train = student.structured_prediction.train_model
    losses = with_gradients(lambda: train(model, epochs, loader, criterion, optimizer), criterion)
    calls = {"sums": as_tensor(criterion.sums), "counts": as_tensor(criterion.counts), "given": criterion.given}
    return {
        "weights": model.weights,
        "step": model.first_step(),
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


def singles(batches):
    """Batches with one image each."""
    return [pair for features, labels in batches for pair in zip(features.split(1), labels.split(1), strict=True)]


def cosine(got, right, weights):
    """The cosine of the angle between the changes of `weights`; 0 if the shape is wrong or nothing has changed."""
    if got.shape != right.shape:
        return 0.0
    return torch.nn.functional.cosine_similarity((got - weights).flatten(), (right - weights).flatten(), dim=0).item()


def about_first_call(got, weights, batch):
    """What is wrong with the arguments of the criterion in its first call, which is for this batch."""
    features, labels = batch
    energies, given = features @ weights.T, got["given"]
    if difference(given, energies[: len(given)], 1e-4, 1e-4) or len(got["labels"]) < len(labels):
        return about_energies(given, energies)
    if torch.equal(got["labels"][: len(labels)], labels.float()):
        return None
    return "The classes that the criterion gets are not the letters of the images."


def judge_weights(got, weights, passes, epochs):
    def after(loss, batches_of_epochs=passes[:epochs]):
        return lambda: descend(weights, batches_of_epochs, RATE, loss)

    def sum_over(weights, batches):
        return sum(loss_of()(weights, batch) for batch in batches)

    mistakes = [
        ("The energies have the wrong sign: pass them unchanged, `cross_entropy` negates them.", after(loss_of(1))),
        ("The loss is summed over the batch: use the criterion's mean.", after(loss_of(reduction="sum"))),
        (
            "There is one step for each image: take one step for each batch.",
            after(loss_of(), [singles(batches) for batches in passes[:epochs]]),
        ),
        (
            "There is only one step per epoch: take a step for every batch.",
            after(sum_over, [[batches] for batches in passes[:epochs]]),
        ),
    ]

    def given():
        return about_first_call(got, weights, passes[0][0])

    judge_descent(got, weights, passes, epochs, RATE, loss_of(), mistakes, given)


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
        fail(
            about_first_call(got, weights, passes_of(weights, samples, SIZES)[0][0])
            or "The first losses of the criterion are not those of the first batch before its step."
        )
    judge_mean_losses(got["losses"], losses, SIZES, "images")
