"""2: training on single letters.

A model that is linear in given features is trained by plain gradient descent, so the right result is known.
"""

import numpy as np
import torch
from oracles import descend, judge_mean_losses, per_batch
from stand_ins import CrossEntropy, Reader, as_losses, as_tensor, loader_of

from ebmcourse.checking import assert_close, exercise, fail, inputs, probe
from ebmcourse.data.words import simple_collate_fn

SIZES = (4, 5, 2)
RATE = 0.5


@inputs
def weights(rng):
    return torch.from_numpy(rng.standard_normal((27, 13)).astype(np.float32))


@inputs
def images(rng):
    return torch.from_numpy(rng.random((11, 32, 18)).astype(np.float32))


@inputs
def letters(rng):
    return "".join(chr(97 + number) for number in rng.permutation(26)[:11])


@probe
def trained(student, weights, images, letters, sizes, epochs):
    """The weights after plain gradient descent, the losses, whether the model was in training mode, and the calls of
    the criterion.
    """
    model = Reader(weights).eval()
    loader = loader_of(list(zip(images, letters, strict=True)), sizes, simple_collate_fn)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    criterion = CrossEntropy()
    losses = student.structured_prediction.train_model(model, epochs, loader, criterion, optimizer)
    calls = {"sums": as_tensor(criterion.sums), "counts": as_tensor(criterion.counts)}
    return {"weights": model.weights, "losses": as_losses(losses), "in_training": all(model.modes), **calls}


def loss_of(sign=-1, reduction="mean"):
    def loss(weights, batch):
        features, labels = batch
        return torch.nn.functional.cross_entropy(sign * features @ weights.T, labels, reduction=reduction)

    return loss


def batches_of(weights, images, letters, sizes):
    features = Reader(weights).features(images[:, None])[:, 0]
    labels = torch.tensor([ord(letter) - 97 for letter in letters])
    return list(zip(features.split(sizes), labels.split(sizes), strict=True))


def cosine(got, right, weights):
    """The cosine of the angle between the changes of `weights`; 0 if the shape is wrong or nothing has changed."""
    if got.shape != right.shape:
        return 0.0
    return torch.nn.functional.cosine_similarity((got - weights).flatten(), (right - weights).flatten(), dim=0).item()


def judge_weights(got, weights, batches, epochs):
    right = descend(weights, batches, RATE, epochs, loss_of())[0]
    # In float64 the reference's weights differ by less than 1e-6; mistakes change them by more than 0.01.
    assert_close(
        got["weights"],
        right,
        atol=1e-4,
        mistakes=lambda: {
            "The model has not changed: call `loss.backward()` and `optimizer.step()` for every batch.": weights,
            "Gradients accumulate over the batches: call `optimizer.zero_grad()` before each `backward()`.": (
                descend(weights, batches, RATE, epochs, loss_of(), keep_gradients=True)[0]
            ),
            "The energies have the wrong sign: pass them unchanged, `cross_entropy` negates them.": (
                descend(weights, batches, RATE, epochs, loss_of(1))[0]
            ),
            "The loss is summed over the batch: use the criterion's mean.": (
                descend(weights, batches, RATE, epochs, loss_of(reduction="sum"))[0]
            ),
            "The steps increase the loss: it must decrease.": descend(weights, batches, -RATE, epochs, loss_of())[0],
            "Only one epoch is trained: go through the loader `epochs` times.": (
                descend(weights, batches, RATE, 1, loss_of())[0]
            ),
            "Only the first batch of each epoch is used: take a step for every batch.": (
                descend(weights, batches[:1], RATE, epochs, loss_of())[0]
            ),
            "There is only one step per epoch: take a step for every batch.": descend(
                weights,
                [batches],
                RATE,
                epochs,
                lambda weights, all_batches: sum(loss_of()(weights, batch) for batch in all_batches),
            )[0],
        },
    )


@exercise(
    "2a",
    points=1,
    seconds=20,
    public=True,
    hint="For each batch: energies of the only window, criterion, zero_grad, backward, step.",
)
def test_one_step_for_every_batch(run, weights, images, letters):
    """`train_model` takes one optimizer step on the mean loss for every batch."""
    got, _ = run(trained, weights, images, letters, SIZES, 2)
    judge_weights(got, weights, batches_of(weights, images, letters, SIZES), 2)


@exercise(
    "2a",
    points=0.5,
    seconds=20,
    public=True,
    hint="Sum the loss times the number of images, and divide by the number of all images at the end of the epoch.",
)
def test_mean_loss_of_every_epoch(run, weights, images, letters):
    """`train_model` returns a list with the mean loss per image of each epoch."""
    got, _ = run(trained, weights, images, letters, SIZES, 3)
    losses = per_batch(got["sums"], got["counts"], SIZES, 3)
    first = loss_of()(weights, batches_of(weights, images, letters, SIZES)[0])
    if losses is None or not torch.isclose(losses[0, 0], first, atol=1e-4):
        fail("The criterion must be called exactly once for each image in each epoch.")
    judge_mean_losses(got["losses"], losses, [SIZES], SIZES, "images")
