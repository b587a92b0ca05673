"""5: training along the best path.

A model that is linear in given features is trained by plain gradient descent. The judgement aligns the words by listing
all paths, so the right result is known.
"""

import numpy as np
import torch
import torch.nn.functional as F
from oracles import alignments, blanked, descend, is_read, judge_mean_losses, per_batch, sums
from stand_ins import (
    CrossEntropy,
    Reader,
    as_losses,
    as_tensor,
    build_ce_matrix,
    build_path_matrix,
    find_path,
    loader_of,
    path_energy,
    replaced,
)

from ebmcourse.checking import Mismatch, assert_close, assert_either_way, exercise, fail, inputs, probe, ways
from ebmcourse.checking.observer import NoObservation
from ebmcourse.data.words import BETWEEN, SimpleWordsDataset, collate_fn

RATE = 0.3
SIZES = (2, 3)


def draw_words(rng, lengths):
    return ["".join(chr(97 + number) for number in rng.integers(0, 26, length)) for length in lengths]


@inputs
def weights(rng):
    return torch.from_numpy(2 * rng.standard_normal((27, 13)).astype(np.float32))


@inputs
def alike(rng):
    """Five words of two letters with images of one width."""
    texts = draw_words(rng, [2] * 5)
    return {"texts": texts, "images": [torch.from_numpy(rng.random((32, 38)).astype(np.float32)) for _ in texts]}


@inputs
def mixed(rng):
    """Five words of 1 to 3 letters with images of different widths, the widest word first."""
    texts = draw_words(rng, (3, 1, 2, 1, 2))
    widths = (58, 18, 37, 30, 46)
    images = [torch.from_numpy(rng.random((32, width)).astype(np.float32)) for width in widths]
    return {"texts": texts, "images": images}


@probe
def training(student, words, sizes, train, only=""):
    """Call `train(module, loader)` for the program as it is, and with stand-ins for the exercises before this one."""
    module = student.structured_prediction
    labels = {
        text: torch.tensor([label for letter in text.encode() for label in (letter - 97, BETWEEN)])
        for text in words["texts"]
    }
    stand_ins = {
        "build_path_matrix": build_path_matrix,
        "build_ce_matrix": build_ce_matrix,
        "path_energy": path_energy,
        "find_path": find_path,
        "transform_word": lambda word: labels[word].clone(),
    }

    def attempt():
        return train(module, loader_of(list(zip(words["images"], words["texts"], strict=True)), sizes, collate_fn))

    def isolated():
        with replaced(module, **stand_ins):
            return attempt()

    attempts = {"whole": attempt, "isolated": isolated}
    return ways(**({only: attempts[only]} if only else attempts))


@probe
def trained(student, weights, words, sizes, epochs):
    """The weights after plain gradient descent, the losses, and the calls of the criterion."""

    def train(module, loader):
        model, criterion = Reader(weights).eval(), CrossEntropy()
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        losses = module.train_ebm_model(model, epochs, loader, criterion, optimizer)
        calls = {"sums": as_tensor(criterion.sums), "counts": as_tensor(criterion.counts)}
        return {"weights": model.weights, "losses": as_losses(losses), "in_training": all(model.modes), **calls}

    return training(student, words, sizes, train)


def batches_of(weights, words, sizes):
    """For each word of each batch: the features (L, F) of its windows, those of its padded image, and its letters."""
    batches, start = [], 0
    for size in sizes:
        images, texts = words["images"][start : start + size], words["texts"][start : start + size]
        start += size
        width = max(image.shape[1] for image in images)
        reader = Reader(weights)
        own = [reader.features(image[None, None])[0] for image in images]
        padded = [reader.features(F.pad(image, (0, width - image.shape[1]))[None, None])[0] for image in images]
        letters = [[ord(letter) - 97 for letter in text] for text in texts]
        batches.append(list(zip(own, padded, letters, strict=True)))
    return batches


def best_states(energies, letters, first=(0, 1), last=(-2, -1), sign=1):
    """The blanked target and the states of its best path; by default, the blanks at its ends are optional."""
    labels = torch.tensor(blanked(letters, BETWEEN))
    pm = sign * energies[:, labels].detach()
    states = len(labels)
    ends = tuple(sorted({end % states for end in last}))
    paths = alignments(len(energies), states, first=first, last=ends)
    return labels, paths[sums(pm, paths).argmin()]


def loss_of(*, padding=False, mean="windows", target="labels", **borders):
    """The loss of a batch as a function of the weights; the arguments are known mistakes."""

    def loss(weights, batch):
        each = []
        for own, padded, letters in batch:
            energies = (padded if padding else own) @ weights.T
            labels, states = best_states(energies, letters, **borders)
            classes = {"states": states, "argmin": energies.argmin(1)}.get(target, labels[states])
            if target == "energies":
                each.append(energies.gather(1, classes[:, None]).flatten())
            else:
                each.append(F.cross_entropy(-energies, classes, reduction="none"))
        means = {
            "windows": lambda: torch.cat(each).mean(),
            "words": lambda: torch.stack([values.mean() for values in each]).mean(),
            "sum": lambda: torch.cat(each).sum(),
            "sums": lambda: torch.cat(each).sum() / len(each),
            "sum of means": lambda: torch.stack([values.mean() for values in each]).sum(),
        }
        return means[mean]()

    return loss


def judge_weights(got, weights, batches, epochs):
    def after(loss, **rules):
        return descend(weights, batches, RATE, epochs, loss, **rules)[0]

    mistakes = {
        "The model has not changed: call `loss.backward()` and `optimizer.step()` for every batch.": lambda: weights,
        "Gradients accumulate over the batches: call `optimizer.zero_grad()` before each `backward()`.": (
            lambda: after(loss_of(), keep_gradients=True)
        ),
        "The loss is the sum over all windows: take the mean.": lambda: after(loss_of(mean="sum")),
        "The loss is a sum over windows, divided by the number of words: take the mean over all windows.": (
            lambda: after(loss_of(mean="sums"))
        ),
        "The mean losses of the words are summed: take the mean over all windows of the batch.": (
            lambda: after(loss_of(mean="sum of means"))
        ),
        "Every word has the same weight: take the mean over all windows of the batch.": (
            lambda: after(loss_of(mean="words"))
        ),
        "Windows in the padding are included: a word only has `window_counts(width)` windows.": (
            lambda: after(loss_of(padding=True))
        ),
        "Windows in the padding are included, and every word has the same weight: use all valid windows alike.": (
            lambda: after(loss_of(padding=True, mean="words"))
        ),
        "The labels are the classes of least energy: use the labels along the best path of the word.": (
            lambda: after(loss_of(target="argmin"))
        ),
        "The positions on the path are used as classes: look up the target at each position.": (
            lambda: after(loss_of(target="states"))
        ),
        "The loss is the energy along the path: call the criterion with energies and labels.": (
            lambda: after(loss_of(target="energies"))
        ),
        "This is the path of highest energy: use the path of least energy.": lambda: after(loss_of(sign=-1)),
        "The steps increase the loss: it must decrease.": (
            lambda: descend(weights, batches, -RATE, epochs, loss_of())[0]
        ),
        "Only one epoch is trained: go through the loader `num_epochs` times.": lambda: descend(
            weights, batches, RATE, 1, loss_of()
        )[0],
    }
    # A word may have too few windows for a path that must include the first or last blank.
    if all(len(own) >= 2 * len(letters) for batch in batches for own, _, letters in batch):
        mistakes |= {
            "No path begins with a blank, and all end with one: use `best_labels`, where both are optional.": (
                lambda: after(loss_of(first=(1,), last=(-1,)))
            ),
            "No path begins with a blank: use `best_labels`, where the first blank is optional.": (
                lambda: after(loss_of(first=(1,)))
            ),
            "Every path ends with a blank: use `best_labels`, where the last blank is optional.": (
                lambda: after(loss_of(last=(-1,)))
            ),
            "Every path begins and ends with a blank: use `best_labels`, where both are optional.": (
                lambda: after(loss_of(first=(0,), last=(-1,)))
            ),
        }
    right = after(loss_of())
    # In float64 the reference's weights differ by less than 1e-6; mistakes change them by more than 0.01.
    assert_close(got, right, atol=1e-4, mistakes=lambda: {name: wrong() for name, wrong in mistakes.items()})


@exercise(
    "5a",
    points=1.5,
    seconds=20,
    public=True,
    hint="Find the labels of each word on its best path. Then take one step on the mean loss of all windows.",
)
def test_one_step_along_the_best_paths(run, weights, alike):
    """`train_ebm_model` takes one optimizer step per batch on the mean cross-entropy along the best paths."""
    got, want = run(trained, weights, alike, SIZES, 2)
    batches = batches_of(weights, alike, SIZES)
    assert_either_way(got, want, lambda got, want: judge_weights(got["weights"], weights, batches, 2))


@exercise(
    "5a",
    points=0.5,
    seconds=20,
    public=True,
    hint="Set the running loss to zero at the start of each epoch, and divide it at the end.",
)
def test_mean_loss_of_every_epoch(run, weights, alike):
    """`train_ebm_model` returns a list with the mean loss of each epoch."""
    got, want = run(trained, weights, alike, SIZES, 3)
    batches = batches_of(weights, alike, SIZES)
    windows = [sum(len(own) for own, _, _ in batch) for batch in batches]
    # The labels are judged above: here, the first loss may also be that of a known mistake.
    borders = ({}, {"first": (1,)}, {"last": (-1,)}, {"first": (1,), "last": (-1,)}, {"first": (0,), "last": (-1,)})
    rules = (*borders, {"sign": -1}, {"target": "argmin"}, {"target": "states"})
    first = torch.stack([loss_of(**rule)(weights, batches[0]) for rule in rules])

    def judge(got, want):
        losses = per_batch(got["sums"], got["counts"], windows, 3)
        if losses is None or (losses[0, 0] - first).abs().min() > 1e-4:
            fail("The criterion must be called exactly once for each window of each word.")
        # Means over windows, over words (the same here) and over batches are all accepted.
        divided = (
            "The means of the batches are divided by the number of words: "
            "weight each mean by its windows, and divide by the number of all windows."
        )
        other = {divided: losses.double().sum(1) / sum(SIZES)}
        judge_mean_losses(got["losses"], losses, [windows, [1.0] * len(windows)], windows, "windows", other)

    assert_either_way(got, want, judge)
