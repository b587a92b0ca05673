"""5: training along the best path.

A model that is linear in given features is trained by plain gradient descent. The judgement aligns the words by listing
all paths, so the right result is known.
"""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from oracles import (
    FIRST_LOSSES,
    about_energies,
    alignments,
    blanked,
    descend,
    fail_calls,
    is_read,
    judge_descent,
    judge_mean_losses,
    judge_modes,
    judge_ways,
    per_batch,
    sums,
)
from stand_ins import (
    SGD,
    CrossEntropy,
    Loader,
    Reader,
    as_losses,
    as_tensor,
    build_ce_matrix,
    build_path_matrix,
    find_path,
    path_energy,
    replaced,
    with_gradients,
)

from ebmcourse.checking import Mismatch, exercise, fail, inputs, probe, require, ways
from ebmcourse.checking.compare import difference
from ebmcourse.checking.observer import NoObservation
from ebmcourse.data.words import BETWEEN, SimpleWordsDataset, collate_fn

RATE = 0.3
SIZES = (2, 3)


def draw_words(rng, lengths):
    return ["".join(chr(97 + number) for number in rng.integers(0, 26, length)) for length in lengths]


@inputs
def weights(rng):
    """The constants make the energies of grey windows 0, so that the best path of a word depends on its image."""
    weights = 2 * rng.standard_normal((27, 13)).astype(np.float32)
    weights[:, -1] = -weights[:, :-1].sum(1) / 2
    return torch.from_numpy(weights)


def draw(rng, lengths, widths):
    """Words of these lengths, with random images of these widths for each of three passes.

    The images have blocks of one brightness, so that the best path of a word depends on its image.
    """

    def image(width):
        blocks = rng.random((4, width // 6 + 1)).astype(np.float32)
        return torch.from_numpy(np.kron(blocks, np.ones((8, 6), np.float32))[:, :width])

    return {"texts": draw_words(rng, lengths), "passes": [[image(width) for width in widths] for _ in range(3)]}


@inputs
def alike(rng):
    """Five words of two letters with images of one width."""
    return draw(rng, [2] * 5, [38] * 5)


@inputs
def mixed(rng):
    """Five words of 1 to 3 letters with images of different widths, the widest word first."""
    return draw(rng, (3, 1, 2, 1, 2), (58, 18, 37, 30, 46))


@inputs
def uneven(rng):
    """Five words of two letters; those of the second batch have more windows, and padding."""
    return draw(rng, [2] * 5, (38, 38, 58, 46, 50))


@probe
def training(student, words, sizes, train, only=""):
    """Call `train(module, loader)` for the program as it is, and with stand-ins for the exercises before this one."""
    module = student.structured_prediction
    labels = {
        text: torch.tensor([label for letter in text.encode() for label in (letter - 97, BETWEEN)])
        for text in words["texts"]
    }
    counts = {(image.shape[1] - 18) // 4 + 1 for images in words["passes"] for image in images}

    def find_path_of_word(pm):
        require(
            pm.shape[0] >= pm.shape[1] or pm.shape[0] in counts,
            "`best_labels` gets fewer windows than a word has: give it all `window_counts(width)` windows of the word.",
        )
        require(
            pm.shape[0] >= pm.shape[1],
            "`find_path` gets fewer windows than targets: call `best_labels` with all `window_counts(width)` windows "
            "of the word, and with the targets of its letters alone.",
        )
        return find_path(pm)

    def targets_of_word(word):
        require(word in labels, "`transform_word` gets another text than those of the batch, `texts`.")
        return labels[word].clone()

    stand_ins = {
        "build_path_matrix": build_path_matrix,
        "build_ce_matrix": build_ce_matrix,
        "path_energy": path_energy,
        "find_path": find_path_of_word,
        "transform_word": targets_of_word,
    }

    def attempt():
        passes = [list(zip(images, words["texts"], strict=True)) for images in words["passes"]]
        return train(module, Loader(passes, sizes, collate_fn))

    def isolated():
        with replaced(module, **stand_ins):
            return attempt()

    attempts = {"whole": attempt, "isolated": isolated}
    return ways(**({only: attempts[only]} if only else attempts))


@probe
def trained(student, weights, words, sizes, epochs):
    """The weights after plain gradient descent and after its first step, the number of steps, the losses, the modes of
    the model, how often the loader was read, and the calls of the criterion.
    """

    def train(module, loader):
        model, criterion = Reader(weights).eval(), CrossEntropy()
        optimizer = SGD(model.parameters(), RATE)
        losses = with_gradients(lambda: module.train_ebm_model(model, epochs, loader, criterion, optimizer), criterion)
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

    return training(student, words, sizes, train)


def passes_of(weights, words, sizes):
    """For each word of each batch of each pass: the features (L, F) of its own and of its padded image; its letters."""
    reader, passes = Reader(weights), []
    for all_images in words["passes"]:
        batches, start = [], 0
        for size in sizes:
            images, texts = all_images[start : start + size], words["texts"][start : start + size]
            start += size
            width = max(image.shape[1] for image in images)
            own = [reader.features(image[None, None])[0] for image in images]
            padded = [reader.features(F.pad(image, (0, width - image.shape[1]))[None, None])[0] for image in images]
            letters = [[ord(letter) - 97 for letter in text] for text in texts]
            batches.append(list(zip(own, padded, letters, strict=True)))
        passes.append(batches)
    return passes


def best_states(energies, letters, first=(0, 1), last=(-2, -1), sign=1):
    """The blanked target and the states of its best path; by default, the blanks at its ends are optional."""
    labels = torch.tensor(blanked(letters, BETWEEN))
    pm = sign * energies[:, labels].detach()
    states = len(labels)
    ends = tuple(sorted({end % states for end in last}))
    paths = alignments(len(energies), states, first=first, last=ends)
    return labels, paths[sums(pm, paths).argmin()]


def loss_of(*, padding="", mean="windows", target="labels", **borders):
    """The loss of a batch as a function of the weights; the arguments are known mistakes.

    padding: windows in the padding are "aligned", are "blank", or are taken for the "first" ones
    """
    known = {}

    def loss(weights, batch):
        each = []
        for own, padded, letters in batch:
            seen = {"aligned": padded, "first": padded[len(padded) - len(own) :]}.get(padding, own)
            energies = seen @ weights.T
            labels, states = best_states(energies, letters, **borders)
            others = {
                "states": states,
                "argmin": energies.argmin(1),
                "targets": labels[energies[:, labels].argmin(1)],
                "first": known.setdefault((tuple(letters), len(own)), labels[states]),
            }
            classes = others.get(target, labels[states])
            if padding == "blank":
                rest = padded[len(own) :] @ weights.T
                energies = torch.cat([energies, rest])
                classes = torch.cat([classes, torch.full((len(rest),), BETWEEN)])
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


BORDERS = {  # first what is also true of the paths of the others, in case these give the same weights
    "": {},
    "No path begins with a blank: in `best_labels`, the first blank is optional.": {"first": (1,)},
    "Every path ends with a blank: in `best_labels`, the last blank is optional.": {"last": (-1,)},
    "No path begins with a blank, and all end with one: call `best_labels` with BETWEEN and `transform_word(text)`, in "
    "this order: both are optional then.": {
        "first": (1,),
        "last": (-1,),
    },
    "Every path begins and ends with a blank: in `best_labels`, both are optional.": {
        "first": (0,),
        "last": (-1,),
    },
}
MEANS = {
    "": {},
    "The steps follow the sum of the losses over all windows: take the mean.": {"mean": "sum"},
    "The steps follow a sum over windows, divided by the number of words: take the mean over all windows.": {
        "mean": "sums"
    },
    "The steps follow the sum of the mean losses of the words: take the mean over all windows of the batch.": {
        "mean": "sum of means"
    },
    "Every word has the same weight: take the mean over all windows of the batch.": {"mean": "words"},
}
PADDING = {
    "": {},
    "Windows in the padding are included: a word only has `window_counts(width)` windows.": {"padding": "aligned"},
}
OTHERS = {
    "The first letter is taken for the optional blank: the targets of a word begin with BETWEEN.": {"first": (1, 2)},
    "Windows in the padding enter the loss as blanks: they must not enter it.": {"padding": "blank"},
    "The last windows of the padded image are used: the first `window_counts(width)` belong to the word.": {
        "padding": "first"
    },
    "The labels are the classes of least energy: use the labels along the best path of the word.": {"target": "argmin"},
    "The labels are the targets of least energy in each window: use the labels along the best path.": {
        "target": "targets"
    },
    "The labels of the first epoch are used in all epochs: align the words with the current energies in each step.": {
        "target": "first"
    },
    "The positions on the path are used as classes: look up the target at each position.": {"target": "states"},
    "This is the path of highest energy: use the path of least energy.": {"sign": -1},
    "The loss is the energy along the path: call the criterion with energies and labels.": {"target": "energies"},
}


def judge_weights(got, weights, passes, epochs):
    """Known mistakes often come together: borders, means and padding are tried in all combinations."""
    used = passes[:epochs]
    together = sorted(product(BORDERS, MEANS, PADDING), key=lambda sentences: sum(map(bool, sentences)))
    rules = [
        (" ".join(filter(None, names)), BORDERS[names[0]] | MEANS[names[1]] | PADDING[names[2]]) for names in together
    ]

    def fits(rule):
        """Whether every word has enough windows for a path that must include the first or last blank."""
        words = [word for batches in used for batch in batches for word in batch]
        aligned = rule.get("padding") == "aligned"
        enough = (len(padded if aligned else own) > 2 * len(letters) for own, padded, letters in words)
        return not rule.keys() & {"first", "last"} or all(enough)

    def after(rule):
        return lambda: descend(weights, used, RATE, loss_of(**rule))

    mistakes = [(name, after(rule)) for name, rule in [*rules[1:], *OTHERS.items()] if fits(rule)]

    def given():
        """About the labels only if they are of all windows: what is said of missing windows comes later."""
        windows = sum(len(own) for batch in used for words in batch for own, _, _ in words)
        if got["counts"].sum() == windows:
            return about_first_batch(got, weights, passes)
        return about_energies(got["given"], energies_of_first(weights, passes))

    try:
        sizes = [len(batch) for batch in passes[0]]
        judge_descent(got, weights, passes, epochs, RATE, loss_of(), mistakes, given, sizes, "word")
    except Mismatch as mismatch:
        if mismatch.diagnosis is None:
            judge_windows(got, passes, epochs)
        raise


def judge_windows(got, passes, epochs):
    """Fail if the criterion got fewer or more windows than the words have."""
    counted, labels = got["counts"].sum().item(), got["labels"]
    own, padded, words = 0, 0, 0
    for batch in passes[0]:
        own += epochs * sum(len(features) for features, _, _ in batch)
        padded += epochs * sum(len(features) for _, features, _ in batch)
        words += epochs * len(batch)
    if counted % (own // epochs) == 0:  # all windows, in another number of epochs perhaps
        return
    if counted < own:
        if not (labels == BETWEEN).any():
            fail("No window is labelled as a gap: windows of the gaps enter the loss, too, with the class BETWEEN.")
        if counted == own - words:
            fail(
                "The loss lacks as many windows as there are words, perhaps one of each: each word has "
                "`window_counts(width)` windows."
            )
        fail("Too few windows enter the loss: all `window_counts(width)` windows of all words belong to it.")
    if counted == padded > own:
        fail("Windows in the padding are included: a word only has `window_counts(width)` windows.")
    if counted > own:
        fail("Too many windows enter the loss: each word has `window_counts(width)` windows.")


def energies_of_first(weights, passes):
    """The energies of all windows of the first batch, and of the other windows that its images may have.

    These are those in the padding, and those of the later passes.
    """
    words = [word for batches in passes for word in batches[0]]
    own, padded = (torch.cat([word[number] for word in words]) for number in (0, 1))
    return torch.cat([own, padded]) @ weights.T


def about_first_batch(got, weights, passes):
    """What is wrong with what the criterion got for the first batch; "" if nothing is, None if it is unknown."""
    batch = passes[0][0]
    energies = [own @ weights.T for own, _, _ in batch]
    windows, given = torch.cat(energies), got["given"]
    if difference(given, windows[: len(given)], 1e-4, 1e-4) or len(got["labels"]) < len(windows):
        return about_energies(given, energies_of_first(weights, passes))
    best = [best_states(own, letters) for own, (_, _, letters) in zip(energies, batch, strict=True)]
    right, found = [labels[states] for labels, states in best], got["labels"][: len(windows)].long()
    if torch.equal(found, torch.cat(right)):
        return ""
    if torch.equal(found, torch.cat(right[::-1])) and min(map(len, right)) > 1:  # of one window, a shift does the same
        return "The labels of the words are in the reverse order: those of a word belong to its energies."
    return (
        "The labels of the first batch are not those of the best paths: call `best_labels` with the path matrix of the "
        "word's own windows and its targets, BETWEEN followed by `transform_word(text)`."
    )


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
    passes = passes_of(weights, alike, SIZES)
    judge_ways(got, want, lambda got, want: judge_weights(got, weights, passes, 2))


@exercise(
    "5a",
    points=0.5,
    seconds=20,
    public=True,
    hint="Set the running loss to zero at the start of each epoch, and divide it at the end.",
)
def test_mean_loss_of_every_epoch(run, weights, uneven):
    """`train_ebm_model` returns a list with the mean loss per window of each epoch."""
    got, want = run(trained, weights, uneven, SIZES, 3)
    passes = passes_of(weights, uneven, SIZES)
    windows = [sum(len(own) for own, _, _ in batch) for batch in passes[0]]
    padded = [sum(len(features) for _, features, _ in batch) for batch in passes[0]]
    # The labels are judged above: here, the first loss may also be that of a known mistake. The loader may have been
    # read once before the training.
    rules = [*BORDERS.values(), *(rule for rule in OTHERS.values() if rule.get("target") != "energies")]
    first = torch.stack([loss_of(**rule)(weights, batches[0]) for rule in rules for batches in passes[:2]])

    def judge(got, want):
        counted = [(sizes, per_batch(got["sums"], got["counts"], sizes, 3)) for sizes in (windows, padded)]
        sizes, losses = next((pair for pair in counted if pair[1] is not None), (windows, None))
        if losses is None:
            judge_windows(got, passes, 3)
            fail_calls(got, 3, "windows of the words", windows)
        if (losses[0, 0] - first).abs().min() > 1e-4:  # the first batch has no padding
            fail(about_first_batch(got, weights, passes) or FIRST_LOSSES)
        if got["counts"].numel() == 3 * sum(SIZES):  # one call for each word
            of_words = (got["sums"] / got["counts"]).view(3, -1)
            of_batches = torch.stack([part.mean(1) for part in of_words.split(SIZES, dim=1)], dim=1)
            factors = torch.tensor(windows) / sum(windows)
            for wrong in (of_words.mean(1), of_batches.mean(1), (of_batches * factors).sum(1)):
                if difference(got["losses"]["numbers"].float(), wrong, 1e-4, 1e-5) is None:
                    fail("The mean losses of the words have the same weight: weight each by the number of its windows.")
        mistakes = {
            "The means of the batches are divided by the number of words: weight each by its windows first.": [
                1 / sum(SIZES) for _ in SIZES
            ],
            "The means of the batches are weighted by their words: weight each by the number of its windows.": [
                size / sum(SIZES) for size in SIZES
            ],
            "The means of the batches are weighted by windows in the padding, too: count only those of the words.": [
                size / sum(padded) for size in padded
            ],
        }
        judge_mean_losses(got["losses"], losses, sizes, "windows", mistakes, items=sum(SIZES))

    judge_ways(got, want, judge)
