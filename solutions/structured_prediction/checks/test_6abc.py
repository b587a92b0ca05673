"""6a-c: the graph of connectionist temporal classification, and the loss with its gradient.

Graphs are compared by what they accept: with random emissions, the sum over all shared paths tells any two apart that
accept different label strings, whatever their nodes. The oracles list all paths, or are torch's own loss.
"""

import numpy as np
import torch
import torch.nn.functional as F
from oracles import blanked, ctc_paths, ctc_score, judge_refusal, least
from stand_ins import as_tensor, create_ctc_graph, refusal, replaced

from ebmcourse import gtn
from ebmcourse.checking import Mismatch, assert_close, assert_either_way, exercise, fail, inputs, probe, ways
from ebmcourse.data.words import BETWEEN

OTHER_BLANK = 4


def random_log_probs(rng, *shape):
    return torch.from_numpy(2 * rng.standard_normal(shape)).log_softmax(-1)


@inputs
def words(rng):
    """Targets of different letters, none of which is 0 or `OTHER_BLANK`."""
    letters = rng.permutation(np.setdiff1d(np.arange(1, 26), [OTHER_BLANK]))
    return [letters[:3].tolist(), letters[3:5].tolist(), letters[5:6].tolist()]


@inputs
def double_letters(rng):
    """Targets with neighbours that are equal."""
    a, b, c = rng.permutation(np.arange(1, 26))[:3].tolist()
    return [[a, b, b], [c, c], [b, b, a]]


@inputs
def emissions(rng):
    """Log-probabilities for 1, 3, 5 and 6 frames."""
    return [random_log_probs(rng, frames, 27) for frames in (1, 3, 5, 6)]


@probe
def score_of(graph, emissions):
    """log Σ of all paths through the graph that the emissions allow; -inf where there is none."""
    line = gtn.linear_graph(len(emissions), emissions.shape[1], False)
    line.set_weights(emissions)
    both = gtn.intersect(line, graph)
    return gtn.forward_score(both).item() if both.num_nodes() else float("-inf")


@probe
def accepted(student, targets, emissions, blank):
    """What the graph of every target scores with all emissions, (targets, emissions)."""
    given = [] if blank is None else [blank]
    graphs = [student.structured_prediction.create_ctc_graph(list(target), *given) for target in targets]
    return {"scores": torch.tensor([[score_of(graph, line) for line in emissions] for graph in graphs])}


def scores(targets, emissions, blank, **rules):
    return torch.stack([torch.stack([ctc_score(line, row, blank, **rules) for line in emissions]) for row in targets])


def judge_graphs(got, targets, emissions, blank, given):
    def twice(row):
        return [label for letter in row for label in (letter, blank)]

    def mistakes():
        wrong = {
            "A blank may be left out between equal letters here, so that they merge into one.": (
                scores(targets, emissions, blank, skips="all")
            ),
            "The blank between two different letters can be left out: an arc leads from letter to letter.": (
                scores(targets, emissions, blank, skips="none")
            ),
            "The blank before the first letter is missing.": scores(targets, emissions, blank, first=(1,)),
            "The blank before the first letter can be left out: the first letter may follow the start at once.": (
                scores(targets, emissions, blank, first=(0,))
            ),
            "The blank after the last letter can be left out: a string may end with the last letter too.": (
                scores(targets, emissions, blank, last=(-1,))
            ),
            "A string may end with a blank: both last states accept.": scores(targets, emissions, blank, last=(-2,)),
            "A label may come several times in a row: every state has an arc to itself.": (
                scores(targets, emissions, blank, stays=False)
            ),
            "No state has an arc to itself: a label may come several times in a row, and a blank first.": (
                scores(targets, emissions, blank, stays=False, first=(1,))
            ),
            "There are blanks beside the blanks: the target holds plain letters, and the graph puts the blanks in.": (
                scores([twice(row) for row in targets], emissions, blank)
            ),
        }
        if given:
            wrong["`blank_idx` is ignored: the blank is not always BETWEEN."] = scores(targets, emissions, BETWEEN)
        else:
            default = "The default blank is the index 0 here, which is the letter a: it is BETWEEN = 26."
            wrong[default] = scores(targets, emissions, 0)
        return {name: value.float() for name, value in wrong.items()}

    right = scores(targets, emissions, blank).float()
    assert_close(got["scores"], right, mistakes=mistakes)


@exercise(
    "6a",
    points=1,
    public=True,
    seconds=30,
    hint="States: blank, letter, blank, letter, …, blank. Stay, go on, or leave out the blank between two letters.",
)
def test_graph_of_different_letters(run, words, emissions):
    """`create_ctc_graph` accepts just the label strings that collapse to the target."""
    for blank in (None, OTHER_BLANK):
        got, _ = run(accepted, words, emissions, blank)
        judge_graphs(got, words, emissions, BETWEEN if blank is None else blank, blank is not None)


@probe
def blank_in_target(student, targets, emissions):
    """What the graph of a target with a blank in it raises, and what graphs without one score."""
    module = student.structured_prediction
    dirty = {
        "default": refusal(lambda: module.create_ctc_graph([*targets[0], BETWEEN])),
        "given": refusal(lambda: module.create_ctc_graph([targets[0][0], OTHER_BLANK], OTHER_BLANK)),
    }
    graph = module.create_ctc_graph(list(targets[1]))
    return {"refused": dirty, "scores": torch.tensor([score_of(graph, line) for line in emissions[2:]])}


### BEGIN HIDDEN TESTS
@exercise(
    "6a", points=0.5, seconds=30, hint="Between equal letters the blank is what keeps them apart: no arc leaves it out."
)
def test_graph_of_double_letters(run, double_letters, emissions):
    """`create_ctc_graph` keeps equal letters apart."""
    got, _ = run(accepted, double_letters, emissions, None)
    judge_graphs(got, double_letters, emissions, BETWEEN, False)


@exercise("6a", points=0.5, seconds=30, hint="The targets of CTC are plain letters: raise a ValueError that says so.")
def test_blank_in_the_target(run, words, emissions):
    """A blank inside a target is a ValueError that says so."""
    got, _ = run(blank_in_target, words, emissions)
    for found in got["refused"].values():
        judge_refusal(found, [], "A blank inside the target is let through: it stands for no letter.", "")
        if not any(name in found["message"].lower() for name in ("blank", "between", "26", str(OTHER_BLANK))):
            fail("The message of the ValueError does not say that the blank is in the target.")
    if not got["scores"].isfinite().all() or got["scores"].std() < 1e-6:
        fail("A target of plain letters does not come through.")


### END HIDDEN TESTS


@inputs
def log_probs(rng):
    """Three words of eight frames."""
    return random_log_probs(rng, 3, 8, 27).float()


@inputs
def targets(rng):
    """Plain letters, of different number; the second has a double letter."""
    letters = rng.permutation(np.arange(1, 26)).tolist()
    return [letters[:3], [*letters[3:6], letters[5]], letters[6:8]]


@inputs
def lengths(rng):
    return torch.tensor([8, *rng.permutation([6, 7]).tolist()])


@probe
def loss_of(student, log_probs, targets, lengths, reduction, blank=BETWEEN):
    module = student.structured_prediction

    def attempt():
        rows = [list(row) for row in targets]
        return {"loss": module.CTCLossFunction.apply(log_probs.clone(), rows, lengths, blank, reduction)}

    def isolated():
        with replaced(module, create_ctc_graph=create_ctc_graph):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


def losses(log_probs, targets, lengths=None, blank=BETWEEN):
    """-log p of every target (B,), by torch."""
    full = torch.full((len(log_probs),), log_probs.shape[1])
    sizes = torch.tensor([len(row) for row in targets])
    labels = torch.tensor([label for row in targets for label in row])
    frames = log_probs.double().transpose(0, 1)
    return F.ctc_loss(frames, labels, full if lengths is None else lengths, sizes, blank, reduction="none")


def wrong_losses(log_probs, targets, lengths=None):
    """Known mistakes of the loss of every word (B,)."""
    right = losses(log_probs, targets, lengths)
    sizes = torch.tensor([len(row) for row in targets])
    frames = [log_probs.shape[1]] * len(targets) if lengths is None else lengths.tolist()

    return {
        "The sign is wrong: this is log p, and the loss is -log p.": -right,
        "`reduction='none'` returns a mean here: one loss per word is expected.": right.mean(),
        "`reduction='none'` returns a mean here, of the losses per letter: one loss per word is expected.": (
            (right / sizes).mean()
        ),
        "The losses are divided by the number of letters, which `reduction='mean'` does.": right / sizes,
        "This is their sum: one loss per word is expected.": right.sum(),
        "These are probabilities: take the negative logarithm.": (-right).exp(),
        "This is -log of the best path alone; the loss sums over all paths.": torch.stack(
            [
                least(-item[:size, blanked(row, BETWEEN)], ctc_paths(size, row))
                for item, row, size in zip(log_probs, targets, frames, strict=True)
            ]
        ),
        "Windows beyond `input_lengths` count.": losses(log_probs, targets),
        "Blanks are put between letters that already have blanks: targets are plain letters.": -torch.stack(
            [
                ctc_score(item[:size].double(), [label for letter in row for label in (letter, BETWEEN)], BETWEEN)
                for item, row, size in zip(log_probs, targets, frames, strict=True)
            ]
        ),
    }


def judge_losses(got, right, mistakes):
    # The reference's losses, of the size 20, differ by 2e-6: a tenth of what the defaults allow.
    assert_close(got["loss"], right.float(), mistakes={name: wrong.float() for name, wrong in mistakes.items()})


@exercise(
    "6b",
    points=1,
    public=True,
    seconds=30,
    hint="-log Σ exp over the paths that emissions and graph share, for every word: (B,).",
)
def test_loss_of_every_word(run, log_probs, targets):
    """`reduction="none"` returns -log p of every word, (B,)."""
    got, want = run(loss_of, log_probs, targets, None, "none")
    right, mistakes = losses(log_probs, targets), wrong_losses(log_probs, targets)
    assert_either_way(got, want, lambda got, want: judge_losses(got, right, mistakes))


@inputs
def certain(rng):
    """Frames of a network that is certain of two words of three letters: c _ a _ t _ _ _ and _ c _ a _ t _ _."""
    letters = rng.permutation(np.arange(1, 26))[:6].tolist()
    labels = [
        [letters[0], 26, letters[1], 26, letters[2], 26, 26, 26],
        [26, letters[3], 26, letters[4], 26, letters[5], 26, 26],
    ]
    logits = 18 * F.one_hot(torch.tensor(labels), 27) + torch.from_numpy(rng.standard_normal((2, 8, 27)))
    return {"log_probs": logits.log_softmax(2).float(), "targets": [letters[:3], letters[3:]]}


@exercise(
    "6b",
    points=0.5,
    public=True,
    seconds=30,
    hint="-log p ≥ 0: the probability of a word is at most 1. Targets are plain letters.",
)
def test_no_loss_is_negative(run, certain):
    """Where the network is certain of the word, the loss is 0; it is never negative."""
    log_probs, targets = certain["log_probs"], certain["targets"]
    got, want = run(loss_of, log_probs, targets, None, "none")

    def judge(got, want):
        loss = got["loss"]
        if loss.shape == (2,) and loss.min() < -1e-3:
            fail("The loss of a word is negative, so its probability is above 1: is the same path counted twice?")
        if loss.shape == () and abs(loss.item()) < 1e-3:
            return  # a mean of the right losses: that costs points above
        # -log p is 1e-6, and float32 knows log-probabilities near 0 to 1e-7.
        assert_close(loss, losses(log_probs, targets).float(), atol=1e-4)

    assert_either_way(got, want, judge)


### BEGIN HIDDEN TESTS
@exercise(
    "6b",
    points=0.5,
    seconds=30,
    hint="Like torch: divide the loss of a word by its number of letters, then take the mean.",
)
def test_mean_loss(run, log_probs, targets):
    """`reduction="mean"` returns the mean over the batch of the loss per letter, as torch's `ctc_loss` does."""
    got, want = run(loss_of, log_probs, targets, None, "mean")
    each, sizes = losses(log_probs, targets), torch.tensor([len(row) for row in targets])
    mistakes = {
        "This is the mean of the losses of the words: divide each by its number of letters first.": each.mean(),
        "This is the sum over the batch, not the mean.": (each / sizes).sum(),
        "All losses are divided by the number of all letters: divide each by its own, and take the mean.": (
            each.sum() / sizes.sum()
        ),
        "There is one loss per word: take the mean.": each,
        "There is one loss per letter and word: take the mean.": each / sizes,
        "The mean is taken twice.": (each / sizes).mean() / len(each),
        "The sign is wrong: this is the mean of log p.": -(each / sizes).mean(),
        "The losses are divided by the number of windows, not by that of letters.": (each / 8).mean(),
    }
    assert_either_way(got, want, lambda got, want: judge_losses(got, (each / sizes).mean(), mistakes))


@exercise("6b", points=0.5, seconds=30, hint="Only the first `input_lengths[b]` windows of word b count.")
def test_loss_of_padded_words(run, log_probs, targets, lengths):
    """Windows beyond `input_lengths` do not count."""
    got, want = run(loss_of, log_probs, targets, lengths, "none")
    right, mistakes = losses(log_probs, targets, lengths), wrong_losses(log_probs, targets, lengths)

    def judge(got, want):
        if got["loss"].dim() == 0:  # a mean where one loss per word is asked for: that costs points above
            right_mean, padded_mean = right.mean(), losses(log_probs, targets).mean()
            judge_losses(got, right_mean, {"Windows beyond `input_lengths` count.": padded_mean})
        else:
            judge_losses(got, right, mistakes)

    assert_either_way(got, want, judge)


@inputs
def too_short(rng):
    """Four frames for a word of five letters, and for one of three with two double letters."""
    letters = rng.permutation(np.arange(1, 26))[:6].tolist()
    log_probs = random_log_probs(rng, 1, 4, 27).float()
    return {"log_probs": log_probs, "letters": [letters[:5]], "doubles": [[letters[5]] * 3]}


@probe
def losses_refused(student, too_short):
    """What is raised where there are too few windows, and for an unknown reduction; and the loss where all is well."""
    module, log_probs = student.structured_prediction, too_short["log_probs"]

    def loss(rows, reduction="none"):
        return module.CTCLossFunction.apply(log_probs.clone(), rows, None, BETWEEN, reduction)

    def attempt():
        good = as_tensor(loss([too_short["letters"][0][:2]])).flatten()
        return {
            "reduction": refusal(lambda: loss([too_short["letters"][0][:2]], "median")),
            "letters": refusal(lambda: loss([list(row) for row in too_short["letters"]])),
            "doubles": refusal(lambda: loss([list(row) for row in too_short["doubles"]])),
            "good": good,
        }

    def isolated():
        with replaced(module, create_ctc_graph=create_ctc_graph):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@exercise(
    "6b",
    points=0.5,
    seconds=30,
    hint="Raise a ValueError for an unknown reduction, and for too few windows with both numbers.",
)
def test_what_has_no_loss(run, too_short):
    """An unknown reduction, or fewer windows than a target needs, is a ValueError that says so."""
    got, want = run(losses_refused, too_short)

    def judge(got, want):
        silent = "A word with too few windows gets a loss: no path reads as it, raise a ValueError."
        unnamed = "The message of the ValueError does not name both numbers, of windows and of those needed."
        judge_refusal(got["reduction"], [], "An unknown reduction is let through: raise a ValueError.", "")
        judge_refusal(got["letters"], [{4}, {5}], silent, unnamed)
        doubles = "Between equal letters a blank takes a window of its own, which is not counted here."
        judge_refusal(got["doubles"], [{4}, {5, 3}], doubles, unnamed)
        if got["good"].numel() != 1 or not got["good"].isfinite().all() or got["good"].abs().max() < 1e-3:
            fail("A word with enough windows gets no loss.")

    assert_either_way(got, want, judge)


### END HIDDEN TESTS


@inputs
def logits(rng):
    return torch.from_numpy(2 * rng.standard_normal((3, 8, 27)).astype(np.float32))


@inputs
def upstream(rng):
    """What the loss of every word is multiplied by, after it."""
    return torch.from_numpy((rng.permutation([0.4, 0.9, 1.7]) * rng.choice([-1, 1])).astype(np.float32))


@inputs
def directions(rng):
    return torch.from_numpy(0.3 * rng.standard_normal((4, 3, 8, 27)).astype(np.float32))


@probe
def gradients(student, logits, targets, lengths, reduction, upstream, directions):
    """The gradient at the logits, and how the loss really changes along some directions."""
    module = student.structured_prediction

    def total(logits):
        rows = [list(row) for row in targets]
        loss = module.CTCLossFunction.apply(logits.log_softmax(2), rows, lengths, BETWEEN, reduction)
        return (loss * upstream[: loss.numel()].view(loss.shape)).sum()

    def attempt():
        x = logits.clone().requires_grad_()
        total(x).backward()
        with torch.no_grad():
            changes = [(total(logits + 0.02 * d) - total(logits - 0.02 * d)) / 0.04 for d in directions]
        return {"gradient": x.grad, "changes": torch.stack(changes)}

    def isolated():
        with replaced(module, create_ctc_graph=create_ctc_graph):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


def slopes(logits, targets, lengths=None):
    """The gradient of the loss of every word with respect to its logits, by torch: (B, L, C)."""
    x = logits.double().requires_grad_()
    losses(x.log_softmax(2), targets, lengths).sum().backward()
    return x.grad.float()


def judge_gradient(got, logits, targets, lengths, factors, directions, mistakes):
    """The gradient must be `factors` (B,) times that of every word; or fit the student's own loss, right or not.

    The loss itself is judged in 6b. Whatever paths it sums over, and by whatever it divides, `follows_paths` and the
    differences of the loss tell whether the gradient is the one of that loss.
    """
    own, own_changes = got["gradient"], got["changes"]
    right = factors[:, None, None] * slopes(logits, targets, lengths)
    if own.shape == right.shape and own.isfinite().all() and follows_paths(own, logits, targets):
        changes = (own * directions).sum((1, 2, 3))
        # Of losses of the size 30 in float32 over differences of 0.04: 1e-4 from rounding, 1e-3 from curvature.
        if (changes - own_changes).abs().max() < 0.01 + 0.01 * changes.abs().max():
            return
    assert_close(own, right, atol=1e-4, mistakes=mistakes)


def follows_paths(gradient, logits, targets):
    """Whether a gradient at the logits is that of some -log Σ over paths of labels of each word, times a number.

    Such a gradient is p - q in every window that counts: p is the softmax of the logits, and q the share of all paths
    that have a label there, which other labels than those of the word cannot have.
    """
    for slope, p, target in zip(gradient, logits.softmax(2), targets, strict=True):
        counts = slope.abs().amax(1) > 1e-7
        foreign = torch.ones(27, dtype=torch.bool)
        foreign[[*target, BETWEEN]] = False
        slope, p = slope[counts], p[counts]
        factor = (slope * p)[:, foreign].sum() / p[:, foreign].square().sum()
        if len(p) < 2 or factor.abs() < 1e-2:
            return False
        q = p - slope / factor
        if q[:, foreign].abs().max() > 1e-3 or q.min() < -1e-3 or q.std(0).max() < 1e-2:
            return False
    return True


def wrong_gradients(logits, targets, factors):
    each = slopes(logits, targets)
    weights = factors[:, None, None]
    return {
        "`grad_output` is ignored: multiply the gradient of every word by its number in it.": each,
        "`grad_output` is ignored, and the gradient is divided by the number of words.": each / len(each),
        "The gradient is divided by the number of words, although every word has a loss of its own.": (
            weights * each / len(each)
        ),
        "The sign is wrong: the gradient of -log p is minus that of log p.": -weights * each,
        "The gradient is zero.": 0 * each,
        "All words get the first number of `grad_output`: every word has its own.": factors[0] * each,
        "All words get the sum of `grad_output`: every word has its own.": factors.sum() * each,
    }


@exercise(
    "6c", points=1, public=True, seconds=30, hint="Multiply the gradient of every word by its entry of `grad_output`."
)
def test_gradient_of_every_word(run, logits, targets, upstream, directions):
    """`backward` gives the gradient of every word's loss, times what comes from above."""
    got, want = run(gradients, logits, targets, None, "none", upstream, directions)
    mistakes = wrong_gradients(logits, targets, upstream)

    def judge(got, want):
        judge_gradient(got, logits, targets, None, upstream, directions, mistakes)

    assert_either_way(got, want, judge)


### BEGIN HIDDEN TESTS
@exercise("6c", points=0.5, seconds=30, hint="For the mean, every word counts 1 / (letters · words).")
def test_gradient_of_the_mean(run, logits, targets, upstream, directions):
    """`backward` gives the gradient of the mean loss, times what comes from above."""
    got, want = run(gradients, logits, targets, None, "mean", upstream, directions)
    factors = upstream[0] / torch.tensor([float(len(row)) for row in targets]) / len(targets)
    each = slopes(logits, targets)
    mistakes = {
        "The gradient is not divided by the number of words.": len(targets) * factors[:, None, None] * each,
        "The gradient is not divided by the numbers of letters.": upstream[0] / len(targets) * each,
        "The gradient is that of the sum: divide by the numbers of letters and of words.": upstream[0] * each,
        "`grad_output` is ignored: multiply the gradient by it.": factors[:, None, None] / upstream[0] * each,
        "The sign is wrong: the gradient of -log p is minus that of log p.": -factors[:, None, None] * each,
    }

    def judge(got, want):
        judge_gradient(got, logits, targets, None, factors, directions, mistakes)

    assert_either_way(got, want, judge)


@exercise("6c", points=0.5, seconds=30, hint="Windows beyond `input_lengths` have the gradient 0.")
def test_gradient_of_padded_words(run, logits, targets, lengths, upstream, directions):
    """Windows beyond `input_lengths` get no gradient."""
    got, want = run(gradients, logits, targets, lengths, "none", upstream, directions)

    def judge(got, want):
        own = got["gradient"]
        if own.shape != logits.shape:
            raise Mismatch("The gradient has not the shape of the log-probabilities.")
        if not own.isfinite().all():
            fail("Windows beyond `input_lengths` have undefined gradients: start with zeros, not with `empty`.")
        judge_gradient(got, logits, targets, lengths, upstream, directions, wrong_gradients(logits, targets, upstream))

    assert_either_way(got, want, judge)


### END HIDDEN TESTS
