"""5: training along the best path.

A model that is linear in given features is trained by plain gradient descent. The judgement aligns the words by listing
all paths, and knows what must come out.
"""

import numpy as np
import torch
import torch.nn.functional as F
from oracles import alignments, blanked, descend, falls, is_read, judge_mean_losses, per_batch, sums
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
    """Call `train` with a loader; as the program is, and with stand-ins for the exercises before this one."""
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
    """What training with plain gradient descent makes of the model, and the losses."""

    def train(module, loader):
        model, criterion = Reader(weights).eval(), CrossEntropy()
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        losses = module.train_ebm_model(model, epochs, loader, criterion, optimizer)
        asked = {"sums": as_tensor(criterion.sums), "counts": as_tensor(criterion.counts)}
        return {"weights": model.weights, "losses": as_losses(losses), "in_training": all(model.modes), **asked}

    return training(student, words, sizes, train)


def batches_of(weights, words, sizes):
    """For every batch the features of every word's own windows, (L, F) each, those of the padded image, and letters."""
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
    """The blanked target and the states of the best path through it, whose blanks at the borders may be left out."""
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
        "The gradients of all batches pile up: call `optimizer.zero_grad()` before every `backward()`.": (
            lambda: after(loss_of(), keep_gradients=True)
        ),
        "The loss is the sum over all windows: take the mean.": lambda: after(loss_of(mean="sum")),
        "The loss is a sum over windows, divided by the number of words: take the mean over all windows.": (
            lambda: after(loss_of(mean="sums"))
        ),
        "The mean losses of the words are added up: take the mean over all windows of the batch.": (
            lambda: after(loss_of(mean="sum of means"))
        ),
        "Every word counts alike here; every window must: take the mean over all windows of the batch.": (
            lambda: after(loss_of(mean="words"))
        ),
        "Windows of the padding count: a word has `window_counts(width)` windows of its own.": (
            lambda: after(loss_of(padding=True))
        ),
        "Windows of the padding count, and every word alike: take its own `window_counts(width)` windows.": (
            lambda: after(loss_of(padding=True, mean="words"))
        ),
        "The labels are those of least energy in every window: align them with the word by the best path.": (
            lambda: after(loss_of(target="argmin"))
        ),
        "The positions on the path are taken for classes: look up the target at each position.": (
            lambda: after(loss_of(target="states"))
        ),
        "The energy along the path is the loss: give energies and labels to the criterion.": (
            lambda: after(loss_of(target="energies"))
        ),
        "The path is the one of the highest energy.": lambda: after(loss_of(sign=-1)),
        "The steps go uphill: the loss must become smaller.": (
            lambda: descend(weights, batches, -RATE, epochs, loss_of())[0]
        ),
        "Only one epoch is trained.": lambda: descend(weights, batches, RATE, 1, loss_of())[0],
    }
    # A path with the blank forced at an end does not always have room.
    if all(len(own) >= 2 * len(letters) for batch in batches for own, _, letters in batch):
        mistakes |= {
            "The path may not begin with a blank, and must end with one: use `best_labels`, which leaves both open.": (
                lambda: after(loss_of(first=(1,), last=(-1,)))
            ),
            "The path must begin with a letter here: the blank before it is allowed, use `best_labels`.": (
                lambda: after(loss_of(first=(1,)))
            ),
            "The path must end with a blank here: it may end with the last letter, use `best_labels`.": (
                lambda: after(loss_of(last=(-1,)))
            ),
            "The path must begin and end with a blank here: both may be left out, use `best_labels`.": (
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
    hint="For every word: matrix, best path, labels; the criterion over all windows of the batch; then one step.",
)
def test_one_step_along_the_best_paths(run, weights, alike):
    """`train_ebm_model` makes one step per batch down the mean cross-entropy along the best paths."""
    got, want = run(trained, weights, alike, SIZES, 2)
    batches = batches_of(weights, alike, SIZES)
    assert_either_way(got, want, lambda got, want: judge_weights(got["weights"], weights, batches, 2))


@exercise(
    "5a",
    points=0.5,
    seconds=20,
    public=True,
    hint="Start the running loss at zero in every epoch, and divide it at the end.",
)
def test_mean_loss_of_every_epoch(run, weights, alike):
    """`train_ebm_model` returns a list with the mean loss of every epoch."""
    got, want = run(trained, weights, alike, SIZES, 3)
    batches = batches_of(weights, alike, SIZES)
    windows = [sum(len(own) for own, _, _ in batch) for batch in batches]

    def judge(got, want):
        losses = per_batch(got["sums"], got["counts"], windows, 3)
        if losses is None or losses[0, 0] < 0.01:
            fail("The criterion is not asked once for every window of every word.")
        # Over batches of different size the mean may be taken over windows, over words (here the same) or batches.
        divided = (
            "Means of the batches are divided by the number of words: weigh each by its windows, and divide by these."
        )
        other = {divided: losses.double().sum(1) / sum(SIZES)}
        judge_mean_losses(got["losses"], losses, [windows, [1.0] * len(windows)], windows, "windows", other)

    assert_either_way(got, want, judge)
