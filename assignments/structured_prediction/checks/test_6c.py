"""6c: the gradient of the CTC loss. The oracle is the gradient of torch's own loss."""

from functools import partial

import numpy as np
import torch
from oracles import blanked, ctc_losses, ctc_paths, judge_close, judge_ways, random_targets, sums
from stand_ins import graph_of_letters, replaced

from ebmcourse.checking import Mismatch, assert_close, exercise, fail, inputs, probe, require, ways
from ebmcourse.checking.compare import difference
from ebmcourse.data.words import BETWEEN

OTHER_BLANK = 4
FRAMES = 12  # enough for all letters and blanks


@inputs
def logits(rng):
    return torch.from_numpy(2 * rng.standard_normal((3, FRAMES, 27)).astype(np.float32))


@inputs
def targets(rng):
    return random_targets(rng)


@inputs
def lengths(rng):
    """Three numbers of windows, all smaller than `FRAMES`."""
    return torch.from_numpy(rng.permutation([9, 10, 11]))


@inputs
def upstream(rng):
    """The gradient with respect to the loss of each word; the first is positive, the second is negative.

    None is the mean or the sum of all three.
    """
    signs = [1, -1, rng.choice([-1, 1])]
    return torch.from_numpy((rng.permutation([0.4, 0.8, 1.9]) * signs).astype(np.float32))


@inputs
def directions(rng):
    return torch.from_numpy(0.3 * rng.standard_normal((4, 3, FRAMES, 27)).astype(np.float32))


@inputs
def special(rng):
    """Batches that are special: a single word with 30 classes and another blank, and one with an empty target."""
    letters = rng.permutation(np.setdiff1d(np.arange(1, 27), [OTHER_BLANK, BETWEEN])).tolist()
    draw = partial(rng.standard_normal, dtype=np.float32)
    return {
        "single": {"logits": torch.from_numpy(2 * draw((1, 7, 30))), "targets": [[letters[0], 0, letters[1]]]},
        "empty": {"logits": torch.from_numpy(2 * draw((2, 5, 27))), "targets": [letters[2:4], []]},
    }


@probe
def loss_and_gradient(student, batch, blank, reduction, factor):
    """The loss of a batch, and the gradient of its sum times `factor` with respect to the log-probabilities.

    Both are 0 where there is no loss, which is judged in 6b.
    """
    module = student.structured_prediction

    def attempt():
        log_probs = batch["logits"].log_softmax(2).requires_grad_()
        rows = [list(row) for row in batch["targets"]]
        try:
            loss = module.CTCLossFunction.apply(log_probs, rows, None, blank, reduction)
            value = factor * loss.sum()
            has_loss = bool(value.isfinite())
        except NotImplementedError:
            raise
        except Exception:
            has_loss = False
        if not has_loss:
            return {"loss": torch.zeros(()), "gradient": torch.zeros(log_probs.shape)}
        [gradient] = differentiated(value, [log_probs])
        return {"loss": loss.detach(), "gradient": gradient}

    def isolated():
        with replaced(module, create_ctc_graph=graph_of_letters):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@probe
def differentiated(value, inputs):
    """The gradients of a value; says what is wrong where torch refuses what `backward` returns."""
    try:
        return torch.autograd.grad(value, inputs, retain_graph=True)
    except RuntimeError as error:
        require(
            "number of gradients" not in str(error),
            "`backward` must return one value for each argument of `forward` after `ctx`: the gradient and four None.",
        )
        require(
            "appears to not have been used" not in str(error),
            "`backward` returns no gradient (None) for `log_probs`.",
        )
        require(
            "invalid gradient at index" not in str(error),
            "The gradient that `backward` returns has another shape than `log_probs`, (B, L, C).",
        )
        raise


@probe
def gradients(student, logits, targets, lengths, reduction, upstream, directions):
    """The gradient with respect to the logits, twice, and to the log-probabilities, and finite differences of the loss
    along some directions.
    """
    module = student.structured_prediction

    def total(logits):
        return total_of(logits.log_softmax(2))

    def total_of(log_probs):
        rows = [list(row) for row in targets]
        loss = module.CTCLossFunction.apply(log_probs, rows, lengths, BETWEEN, reduction)
        return (loss * upstream[: loss.numel()].view(loss.shape)).sum()

    def attempt():
        nonlocal lengths
        try:
            return observed()
        except NotImplementedError:
            raise
        except Exception:  # that None or a tensor of lengths stops the loss is judged in 6b
            if isinstance(lengths, list):
                raise
        lengths = [logits.shape[1]] * len(logits) if lengths is None else lengths.tolist()
        return observed()

    def observed():
        x = logits.clone().requires_grad_()
        log_probs = x.log_softmax(2)
        value = total_of(log_probs)
        if lengths is not None:  # another loss, before the gradient of the first
            total(logits.flip(0).clone().requires_grad_())
        gradient, direct = differentiated(value, (x, log_probs))
        try:
            [again] = torch.autograd.grad(value, x)
        except Exception:  # a program may keep the graphs for a single call
            again = gradient
        with torch.no_grad():
            changes = [(total(logits + 0.02 * d) - total(logits - 0.02 * d)) / 0.04 for d in directions]
        return {"gradient": gradient, "direct": direct, "again": again, "changes": torch.stack(changes)}

    def isolated():
        with replaced(module, create_ctc_graph=graph_of_letters):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


def slopes(logits, targets, lengths=None):
    """The gradient of the loss of each word with respect to its logits, by torch: (B, L, C)."""
    x = logits.double().requires_grad_()
    ctc_losses(x.log_softmax(2), targets, lengths).sum().backward()
    return x.grad.float()


def judge_gradient(got, logits, targets, lengths, factors, directions, mistakes):
    """The gradient must be `factors` (B,) times that of each word, or else the gradient of the student's own loss.

    The loss itself is judged in 6b. Whichever paths it sums over and whatever it divides by, `follows_paths` and the
    finite differences tell whether the gradient is that of this loss. Where the weights of the graphs or the targets
    are wrong, the gradient may be what a right `backward` makes of them.
    """
    own, own_changes = got["gradient"], got["changes"]
    judge_direct(got["direct"], own, logits)
    right = factors[:, None, None] * slopes(logits, targets, lengths)

    def is_of_own_loss(gradient):
        changes = (gradient * directions).sum((1, 2, 3))
        # Losses of about 30 in float32, differences over 0.04: errors of 1e-4 from rounding, 1e-3 from curvature.
        return (changes - own_changes).abs().max() < 0.01 + 0.01 * changes.abs().max()

    is_sound = own.shape == right.shape and own.isfinite().all()
    if is_sound and follows_paths(own, logits, targets) and is_of_own_loss(own):
        return
    if difference(own, right, 1e-4, 1e-4):
        for gradient, slope in gradients_of_wrong_losses(logits, targets, lengths, factors):
            if is_of_own_loss(slope) and difference(own, gradient, 1e-4, 1e-4) is None:
                return
    judge_close(own, right, about_factors(own, logits, targets, lengths), atol=1e-4, mistakes=mistakes)


def gradients_of_wrong_losses(logits, targets, lengths, factors):
    """For losses of wrong weights or targets: what a right `backward` gives for the logits, and the true gradient."""
    x = logits.double().requires_grad_()
    log_probs = x.log_softmax(2)
    counts = torch.full((len(targets),), FRAMES) if lengths is None else lengths
    is_own = torch.arange(FRAMES) < counts[:, None]
    words = [(row, int(count)) for row, count in zip(log_probs, counts, strict=True)]
    last = torch.stack([row.roll(count - FRAMES, 0) for row, count in words])
    turned = torch.stack([torch.cat([row[:count].T.reshape(count, -1), row[count:]]) for row, count in words])
    wrong = [(log_probs.exp(), targets), (-log_probs, targets), (last, targets), (turned, targets)]
    wrong += [(log_probs[:1].expand_as(log_probs), targets), (log_probs, targets[:1] * len(targets))]
    for weights, rows in wrong:
        scores = (weights.logsumexp(2) * is_own).sum(1) - ctc_losses(weights.log_softmax(2), rows, counts)
        returned, slope = torch.autograd.grad(-(factors * scores).sum(), (weights, x), retain_graph=True)
        yield (returned - returned.sum(2, keepdim=True) * logits.softmax(2)).float(), slope.float()


def about_factors(own, logits, targets, lengths):
    """Whether only the factors of the words are wrong; None if it is more than these."""
    each = slopes(logits, targets, lengths)
    if own.shape != each.shape or not own.isfinite().all() or not own.abs().max() > 1e-6:
        return None
    factors = (own * each).sum((1, 2)) / each.square().sum((1, 2))
    if difference(own, factors[:, None, None] * each, 1e-4, 1e-4):
        return None
    return (
        "The gradients of the words are right up to their factors: multiply each by its entry of `grad_output`, or for "
        "the mean by `grad_output` / (its letters · words), and by nothing else."
    )


def judge_direct(direct, own, logits):
    """Fail if the gradient with respect to the log-probabilities already contains that of the softmax.

    The gradient with respect to the logits is the same then.
    """
    if direct.shape != logits.shape or own.shape != logits.shape:
        raise Mismatch("The gradient must have the shape of the log-probabilities.")
    if not direct.isfinite().all():
        return
    sums_of_windows = direct.sum(2, keepdim=True)
    assert_close(own, direct - sums_of_windows * logits.softmax(2), atol=1e-4)
    if direct.abs().max() > 1e-3 and sums_of_windows.abs().max() < 1e-3 * direct.abs().max():
        fail("This is the gradient with respect to the logits: return -γ, because `log_softmax` has its own gradient.")


def follows_paths(gradient, logits, targets):
    """Whether the gradient is that of a loss of the form -log Σ over paths of labels of each word, times a number.

    Such a gradient is p - q in each window that counts: p is the softmax of the logits, and q is the share of the paths
    with a label there, which is 0 for labels that are not in the word.
    """
    for slope, p, target in zip(gradient, logits.softmax(2), targets, strict=True):
        counts = slope.abs().amax(1) > 1e-7
        foreign = torch.ones(27, dtype=torch.bool)
        foreign[[*target, BETWEEN]] = False
        slope, p = slope[counts], p[counts]
        factor = (slope * p)[:, foreign].sum() / p[:, foreign].square().sum()
        if len(p) < 2 or not 1e-2 < factor.abs() < 1e2:
            return False
        q = p - slope / factor
        if q[:, foreign].abs().max() > 1e-3 or q.min() < -1e-3 or q.std(0).max() < 1e-2:
            return False
    return True


MIXED = "The shares are mixed up: the arcs come window by window, so view them as (L, C), without a transposition."


def wrong_shares(logits, targets, each):
    """What known mistakes make of the shares of the paths in each window; each: the gradients of the words."""
    right = logits.softmax(2) - each
    probabilities = (-ctc_losses(logits.log_softmax(2), targets)).exp().float()
    log_probs = logits.log_softmax(2)
    best = torch.zeros_like(right)
    for row, target, share in zip(log_probs, targets, best, strict=True):
        labels = torch.tensor(blanked(target, BETWEEN))
        paths = ctc_paths(FRAMES, target)
        share[torch.arange(FRAMES), labels[paths[sums(-row[:, labels], paths).argmin()]]] = 1
    return {
        MIXED: right.reshape(len(right), -1, FRAMES).mT,
        "The gradient is 1 on the best path: it is the share of all paths, from `forward_score`.": best,
        "This is the gradient of -p: that of -log p is not multiplied by p.": right * probabilities[:, None, None],
        "The shares are multiplied by the probabilities: the gradient with respect to log p is -γ.": (
            right * logits.softmax(2)
        ),
        "The gradient is that of the windows in the reverse order.": right.flip(1),
        "All words have the gradient of the first: each has its own.": right[:1].repeat(len(right), 1, 1),
        "All words have the gradient of the last: each has its own.": right[-1:].repeat(len(right), 1, 1),
        "The words are in another order: the gradient of word b is that of loss b.": right.flip(0),
        "The gradient of the last window is missing.": right * (torch.arange(FRAMES) < FRAMES - 1)[:, None],
        "The shares are divided by the probabilities: the gradient with respect to log p is -γ.": (
            right / logits.softmax(2)
        ),
    }


def from_shares(shares, factors, logits):
    """The gradient with respect to the logits if that to the log-probabilities is minus the shares, times factors."""
    return factors[:, None, None] * (shares.sum(2, keepdim=True) * logits.softmax(2) - shares)


def wrong_gradients(logits, targets, factors, lengths=None):
    each = slopes(logits, targets, lengths)
    weights = factors[:, None, None]
    shares = {} if lengths is not None else wrong_shares(logits, targets, each)
    return {name: from_shares(share, factors, logits) for name, share in shares.items()} | {
        "`grad_output` is multiplied in twice.": weights**2 * each,
        "`grad_output` is ignored: multiply the gradient of each word by its entry.": each,
        "`grad_output` is ignored, and the gradient is divided by the number of words.": each / len(each),
        "The gradient is divided by the number of words, although each word has its own loss.": (
            weights * each / len(each)
        ),
        "The sign is wrong: the gradient of -log p is minus that of log p.": -weights * each,
        "The gradient is zero.": 0 * each,
        "`grad_output` has lost its sign: multiply the gradient of each word by its entry.": weights.abs() * each,
        "All words use the first entry of `grad_output`: each word has its own.": factors[0] * each,
        "All words use the sum of `grad_output`: each word has its own entry.": factors.sum() * each,
        "All words use the mean of `grad_output`: each word has its own entry.": factors.mean() * each,
        "All words use the last entry of `grad_output`: each word has its own.": factors[-1] * each,
    }


@exercise(
    "6c", points=1, public=True, seconds=30, hint="Multiply the gradient of each word by its entry of `grad_output`."
)
def test_gradient_of_every_word(run, logits, targets, upstream, directions):
    """`backward` returns the gradient of each word's loss, multiplied by `grad_output`."""
    got, want = run(gradients, logits, targets, None, "none", upstream, directions)
    mistakes = partial(wrong_gradients, logits, targets, upstream)

    def judge(got, want):
        judge_gradient(got, logits, targets, None, upstream, directions, mistakes)

    judge_ways(got, want, judge)


def misplaced(logits, targets, lengths, factors):
    """The results of known mistakes for words of different lengths."""

    def shares_of(logits):
        counts = (torch.arange(FRAMES) < lengths[:, None])[:, :, None]
        return (logits.softmax(2) - slopes(logits, targets, lengths)) * counts

    own, mixed = shares_of(logits), torch.zeros_like(logits)
    for row, length, wrong in zip(own, lengths, mixed, strict=True):
        wrong[:length] = row[:length].reshape(-1, int(length)).T
    ends = torch.stack([row.roll(FRAMES - int(length), 0) for row, length in zip(own, lengths, strict=True)])
    return wrong_gradients(logits, targets, factors, lengths) | {
        "The gradient of a word is placed at the last windows: the first `input_lengths[b]` are its own.": (
            from_shares(ends, factors, logits)
        ),
        MIXED: from_shares(mixed, factors, logits),
        "The gradient is that of another loss, which was computed in between: save what you need in `ctx`.": (
            from_shares(shares_of(logits.flip(0)), factors, logits)
        ),
    }
