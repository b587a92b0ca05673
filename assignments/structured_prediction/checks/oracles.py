"""The right answers by brute force: list all paths, and add up the energies along each.

Only judgements and inputs use this module, in a process without student code.
"""

import re
from functools import cache

import torch
import torch.nn.functional as F
from stand_ins import UNUSED

from ebmcourse import gtn
from ebmcourse.checking import Mismatch, assert_close, assert_either_way, fail
from ebmcourse.checking.compare import difference
from ebmcourse.checking.outcome import DIFFERENT_NUMBERS
from ebmcourse.data.words import BETWEEN

INFINITY = float("inf")


@cache
def ways(frames, first, last, moves):
    """All sequences of states (P, frames) that start in `first`, end in `last` and follow `moves`.

    moves: for each state, the states that may follow it
    """
    found = [(state,) for state in first]
    for _ in range(frames - 1):
        found = [(*way, state) for way in found for state in moves[way[-1]]]
    return torch.tensor([way for way in found if way[-1] in last], dtype=torch.long).view(-1, frames)


def chain(states, steps=(0, 1)):
    """The moves that advance by one of `steps`."""
    return tuple(tuple(state + step for step in steps if 0 <= state + step < states) for state in range(states))


def alignments(frames, states, *, first=(0,), last=None, steps=(0, 1)):
    """All paths of an alignment of `frames` windows with `states` targets."""
    return ways(frames, tuple(first), (states - 1,) if last is None else tuple(last), chain(states, tuple(steps)))


def sums(pm, paths):
    """The energy of each path (P,) through pm (L, T), in float64."""
    return pm.double()[torch.arange(len(pm)), paths].sum(1)


def least(pm, paths):
    """The least energy of all paths; infinite if there is none."""
    return sums(pm, paths).min() if len(paths) else torch.tensor(INFINITY)


def blanked(target, blank):
    """c a t → _ c _ a _ t _"""
    return [blank, *(label for letter in target for label in (letter, blank))]


def ctc_moves(target, *, skips="different", stays=True, drops=False):
    """The moves between the states of the blanked target.

    skips: which blanks may be skipped, those between "different" letters, "all", "none", or those before a "new" letter
    stays: whether a state may be repeated, or which may: "letters" or "blanks"
    drops: whether letters may be skipped, from blank to blank
    """
    moves = []
    for state in range(2 * len(target) + 1):
        to = [state] if stays is True or stays == ("letters" if state % 2 else "blanks") else []
        to += [state + 1] if state < 2 * len(target) else []
        letter = state // 2
        if state % 2 and letter + 1 < len(target):
            new = target[letter + 1] not in target[: letter + 1]
            may = {"all": True, "none": False, "new": new}.get(skips, target[letter] != target[letter + 1])
            to += [state + 2] if may else []
        to += [state + 2] if drops and state % 2 == 0 and letter < len(target) else []
        moves.append(tuple(to))
    return tuple(moves)


def ctc_paths(frames, target, *, first=(0, 1), last=(-2, -1), **rules):
    """All sequences of states of the blanked target that read as the target."""
    states = 2 * len(target) + 1
    ends = tuple(sorted({state % states for state in last}))
    return ways(frames, tuple(state for state in first if state < states), ends, ctc_moves(tuple(target), **rules))


def ctc_score(log_probs, target, blank, **rules):
    """log Σ over paths of exp Σ log_probs, in float64; log_probs (L, C)."""
    paths = ctc_paths(len(log_probs), target, **rules)
    matrix = log_probs[:, blanked(target, blank)]
    return sums(matrix, paths).logsumexp(0) if len(paths) else torch.tensor(-INFINITY).double()


def source_score(log_probs, target, blank, steps=(1,)):
    """The score of a graph whose arcs that advance by one of `steps` have the label of the state that they leave."""
    labels = torch.tensor(blanked(target, blank))
    states = len(labels)
    ends = tuple(sorted({end % states for end in (-2, -1)}))
    paths = ways(len(log_probs) + 1, (0,), ends, ctc_moves(tuple(target)))
    before, after = paths[:, :-1], paths[:, 1:]
    from_source = torch.isin(after - before, torch.tensor(steps))
    emitted = labels[torch.where(from_source, before, after)]
    found = log_probs.double()[torch.arange(len(log_probs)), emitted].sum(1)
    return found.logsumexp(0) if len(paths) else torch.tensor(-INFINITY).double()


def random_log_probs(rng, *shape):
    """Random log-probabilities over the last axis, in float64."""
    return torch.from_numpy(2 * rng.standard_normal(shape)).log_softmax(-1)


def random_targets(rng, letters=range(1, 26)):
    """Plain letters of three words of different lengths; the second has a double letter."""
    letters = rng.permutation(letters).tolist()
    return [letters[:3], [*letters[3:6], letters[5]], letters[6:8]]


def ctc_losses(log_probs, targets, lengths=None, blank=BETWEEN):
    """-log p of each target (B,), by torch in float64."""
    full = torch.full((len(log_probs),), log_probs.shape[1])
    sizes = torch.tensor([len(row) for row in targets])
    labels = torch.tensor([label for row in targets for label in row])
    frames = log_probs.double().transpose(0, 1)
    return F.ctc_loss(frames, labels, full if lengths is None else lengths, sizes, blank, reduction="none")


def judge_close(got, want, otherwise, **options):
    """`assert_close`, which says `otherwise` where the numbers differ and no known mistake explains them."""
    try:
        assert_close(got, want, **options)
    except Mismatch as mismatch:
        if mismatch.diagnosis or mismatch.reason != DIFFERENT_NUMBERS or not otherwise:
            raise
        raise Mismatch(otherwise) from None


def judge_ways(got, want, judge):
    """`assert_either_way`, with the diagnosis of the isolated way, which no earlier exercise can have caused."""
    assert_either_way(got, {way: want[way] for way in sorted(want, key=lambda way: way != "isolated")}, judge)


def explanation(found, right, mistakes):
    """The one mistake that explains all values in `found`; None if none does or several do.

    mistakes: for each value, what the mistakes give, by the same names; a list holds what variants of a mistake give
    """

    def same(value, others):
        others = others if isinstance(others, list) else [others]
        return any(difference(value, other, 1e-4, 1e-5) is None for other in others)

    wrong = [number for number, value in enumerate(found) if not same(value, right[number])]
    for numbers in (range(len(found)), wrong):
        names = [name for name in mistakes[0] if all(same(found[number], mistakes[number][name]) for number in numbers)]
        if wrong and names:
            return names[0] if len(names) == 1 else None
    return None


def descend(weights, epochs, rate, loss_of, *, keep_gradients="", clip=INFINITY, late=False):
    """The weights after plain gradient descent with one step per batch.

    epochs: the batches of each epoch
    loss_of: the loss as loss_of(weights, batch), before the step
    keep_gradients: accumulate gradients over the steps of an "epoch" or of the whole "training"
    clip: the largest norm of a gradient
    late: take each step on the gradient of the batch before
    """
    sum_of_slopes = before = torch.zeros_like(weights)
    for batches in epochs:
        if keep_gradients == "epoch":
            sum_of_slopes = torch.zeros_like(weights)
        for batch in batches:
            at = weights.detach().requires_grad_()
            slope = torch.autograd.grad(loss_of(at, batch), at)[0]
            sum_of_slopes = slope + sum_of_slopes if keep_gradients else before if late else slope
            before = slope
            weights = at.detach() - rate * sum_of_slopes * min(1.0, clip / max(sum_of_slopes.norm().item(), 1e-12))
    return weights


NEVER_CALLED = "The criterion is never called: compute the loss with the argument `criterion`."
FIRST_LOSSES = (
    "The first losses of the criterion are not those of the first batch before its step: is there a step before, or "
    "are these other arguments than those of this batch?"
)
ONE_EPOCH = "Only one epoch is trained: go through the loader once for each epoch."
LATER_EPOCHS_LOST = "At the end, the weights are those after the first epoch: keep what the later epochs change."
NO_LATER_STEPS = (
    "At the end, the weights are those after the first epoch: take a step for every batch of the later epochs, too."
)
SAME_BATCHES = "Every epoch has the same batches: read the loader anew in each epoch, because it draws new samples."
MORE_READS = (
    "The loader is read more often than there are epochs: read it once in each, since it draws other images each time."
)


def judge_reads(reads, epochs):
    """Fail unless the loader was read once in each epoch, and perhaps once more before or after the training."""
    if reads == 1 < epochs:
        fail(SAME_BATCHES)
    if reads > epochs + 1:
        fail(MORE_READS)
    if reads not in (epochs, epochs + 1):
        fail("The loader must be read once in each epoch.")


def judge_descent(observed, weights, passes, epochs, rate, loss_of, mistakes, given, sizes, what):
    """Fail unless the weights are those after plain gradient descent on the batches of the passes.

    observed: the weights, also after the first step, the number of steps, how often the loader was read, and the calls
        of the criterion
    passes: the batches of each pass through the loader, which are drawn anew each time
    mistakes: pairs of a diagnosis and a function that returns wrong weights
    given: says what is wrong with the arguments of the criterion for the first batch, where none of the mistakes
        explains the weights: "" if nothing is, None if it is unknown
    sizes: the numbers of samples in the batches of an epoch; what: an "image" or a "word"
    """
    got, used = observed["weights"], passes[:epochs]
    has_all_steps = observed["steps"] >= epochs * len(sizes)
    later_lost = LATER_EPOCHS_LOST if has_all_steps else NO_LATER_STEPS
    usual = [
        (about_no_change(observed, weights), lambda: weights),
        (
            "Each step uses the gradient of the batch before: call `loss.backward()` before `optimizer.step()`.",
            lambda: descend(weights, used, rate, loss_of, late=True),
        ),
        (
            "Gradients accumulate over the batches: call `optimizer.zero_grad()` before each `backward()`.",
            lambda: descend(weights, used, rate, loss_of, keep_gradients="training"),
        ),
        (
            "Gradients accumulate over the batches of an epoch: call `optimizer.zero_grad()` before each `backward()`.",
            lambda: descend(weights, used, rate, loss_of, keep_gradients="epoch"),
        ),
        (
            "The gradients are clipped: take each step with the gradient as it is.",
            lambda: descend(weights, used, rate, loss_of, clip=1.0),
        ),
        ("The steps increase the loss: it must decrease.", lambda: descend(weights, used, -rate, loss_of)),
        (
            ONE_EPOCH if observed["reads"] < epochs else later_lost,
            lambda: descend(weights, used[:1], rate, loss_of),
        ),
        ("There is one epoch too many.", lambda: descend(weights, passes[: epochs + 1], rate, loss_of)),
        (
            "Only the first batch of each epoch makes a step: take a step for every batch.",
            lambda: descend(weights, [batches[:1] for batches in used], rate, loss_of),
        ),
        (
            "Only the last batch of each epoch makes a step: take a step for every batch, inside the loop.",
            lambda: descend(weights, [batches[-1:] for batches in used], rate, loss_of),
        ),
        (SAME_BATCHES, lambda: descend(weights, used[:1] * epochs, rate, loss_of)),
    ]

    def matching():
        """The first mistake that gives these weights: all of them would take long."""
        for sentence, wrong in usual:
            value = wrong()
            if difference(got, value, 1e-4, 1e-4) is None:
                return {sentence: value}
        if sentence := about_number_of_steps(observed["steps"], epochs, sizes, what):
            return {sentence: got}
        for sentence, wrong in mistakes:
            value = wrong()
            if difference(got, value, 1e-4, 1e-4) is None:
                return {sentence: value}
        if not observed["counts"].numel():
            return {NEVER_CALLED: got}
        if observed["reads"] > epochs + 1:
            return {MORE_READS: got}
        sentence = given()
        return {sentence: got} if sentence else {}

    right = descend(weights, used, rate, loss_of)
    # In float64 the reference's weights differ by less than 1e-6; mistakes change them by more than 0.01.
    if difference(got, right, 1e-4, 1e-4):
        # A program that has read the loader once before the training gets the next samples.
        later = descend(weights, (passes[1:] + passes[:1])[:epochs], rate, loss_of)
        if difference(got, later, 1e-4, 1e-4):
            otherwise = about_steps(observed["step"], weights, used[0][0], rate, loss_of, given)
            judge_close(got, right, otherwise, atol=1e-4, mistakes=matching)
    judge_reads(observed["reads"], epochs)


def about_no_change(observed, weights):
    """Why the weights at the end are those from before the training."""
    if observed["reads"] == 0:
        return "The model has not changed, and the loader is never read: train in each of the epochs."
    order = "for every batch, call `optimizer.zero_grad()`, `loss.backward()` and `optimizer.step()` in this order."
    if observed["steps"] == 0:
        return f"The model has not changed, and the optimizer makes no step: {order}"
    if difference(observed["step"], weights, 0, 0) is not None:
        return "The model has its first weights again at the end, although they change before: keep what is learned."
    return (
        "The model has not changed, although the optimizer makes steps: its weights have no gradient then. Compute the "
        f"loss with this model, and {order}"
    )


def about_number_of_steps(steps, epochs, sizes, what):
    """What is wrong with the number of steps that the optimizer made; None if nothing is."""
    wanted = epochs * len(sizes)
    if steps == 0:
        return "The weights change, but the argument `optimizer` makes no step: call its method `step`."
    if steps == epochs * sum(sizes):
        return f"There is one step for each {what}: take one step for each batch."
    if steps == epochs < wanted:
        return "The optimizer makes as many steps as there are epochs: take one step for each batch."
    if steps < wanted:
        return "The optimizer makes fewer steps than there are batches in all epochs: take one step for each batch."
    if steps > wanted:
        return "The optimizer makes more steps than there are batches in all epochs: take one step for each batch."
    return None


def about_steps(step, weights, batch, rate, loss_of, given):
    """What the weights after the first step, which is on this batch, tell about the steps; None if it is nothing."""
    right = descend(weights, [[batch]], rate, loss_of)
    if step.shape != right.shape or not step.isfinite().all():
        return None
    if difference(step, right, 1e-4, 1e-4) is None:
        return (
            "The first step is right, but a later one is not: each step follows the gradient of its own batch alone, "
            "at the rate of the optimizer."
        )
    change, wanted = step - weights, right - weights
    length = (change * wanted).sum() / wanted.square().sum()
    if (change - length * wanted).norm() < 1e-3 * change.norm():
        if length < 0:
            return "The steps increase the loss: it must decrease."
        return (
            "The first step has the right direction, but the wrong length: take one step for each batch, on the "
            "gradient of the mean loss as it is."
        )
    if given() == "":
        return (
            "The criterion gets the right values for the first batch, but the step does not follow the gradient of its "
            "result: call `backward()` on the result as it is, and change nothing before `optimizer.step()`."
        )
    return None


def about_energies(given, right):
    """What the criterion got instead of the energies `right` (N, 27); None if it is unknown.

    given: the energies of the first call, which may be for the first windows or words only
    right: the energies for the first batch, first those of the first pass through the loader
    """
    if given.dim() != 2 or not 0 < len(given) <= len(right) or given.shape[1] != right.shape[1]:
        return None
    if ((given[:, None] - right[None]).abs().amax(2) > 1e-3).all():
        foreign = (
            "The energies that the criterion gets are not those of the model for the images of the first batch: call "
            "the model on these images as they are, and pass its energies unchanged."
        )
    else:
        foreign = None
    right = right[: len(given)]
    normalised = "The criterion gets {}: pass the energies unchanged, `cross_entropy` normalises them."
    known = {
        "The energies have the wrong sign: pass them unchanged, `cross_entropy` negates them.": [-right],
        normalised.format("probabilities"): [right.softmax(1), (-right).softmax(1)],
        normalised.format("log-probabilities"): [right.log_softmax(1), (-right).log_softmax(1)],
    }
    found = (name for name, values in known.items() if any(not difference(given, v, 1e-4, 1e-4) for v in values))
    return next(found, foreign)


def fail_calls(observed, epochs, what, sizes):
    """Say why the criterion did not get each of `what` once in each epoch; there are `sizes` of them in the batches."""
    calls, expected = observed["counts"].sum().item(), sum(sizes)
    if not observed["counts"].numel():
        fail(NEVER_CALLED)
    if calls == expected and observed["reads"] < epochs:
        fail(ONE_EPOCH)
    if calls == (epochs - 1) * expected:
        fail("An epoch is missing: train `epochs` epochs.")
    if calls == (epochs + 1) * expected:
        if observed["steps"] == epochs * len(sizes):
            fail(f"The criterion gets all {what} of one more epoch, without a step: each must enter the loss once.")
        fail("There is one epoch too many.")
    if calls < expected and observed["reads"] < epochs:
        fail(f"Fewer {what} enter the loss than one epoch has: train on all batches of every epoch.")
    judge_reads(observed["reads"], epochs)
    if calls < epochs * expected:
        fail(f"Some of the {what} never enter the loss: the criterion must get all {what} of every batch, once.")
    if calls > epochs * expected:
        fail(f"The criterion gets more than the {what} of the batches: each of them must enter the loss once.")
    fail(f"The criterion does not get the {what} batch by batch: it must get all {what} of a batch before its step.")


def judge_modes(in_training):
    """Fail unless the model was in training mode in the first call with gradients, and in all of them."""
    if in_training["first"] is not True:
        fail("The model is not in training mode when it is first called: call `model.train()` before.")
    if in_training["all"] is not True:
        fail("The model does not stay in training mode: something in the loop puts it into evaluation mode.")


def per_batch(sums, counts, sizes, epochs):
    """The mean losses (epochs, batches) from the sums and numbers of losses of each call of a criterion.

    A batch has `sizes` losses, in one call or several. Returns None if the calls do not add up to these sizes.
    """
    found, calls = [], iter(zip(sums, counts, strict=True))
    for size in list(sizes) * epochs:
        total, number = 0.0, 0
        while number < size:
            value, count = next(calls, (0.0, size + 1))
            total, number = total + value, number + max(count, 1)
        if number > size:
            return None
        found.append(float(total) / size)
    return torch.tensor(found).view(epochs, -1) if next(calls, None) is None else None


def judge_mean_losses(returned, losses, sizes, what, mistakes=None, items=None):
    """Fail unless what is returned is the mean of each epoch over its losses (epochs, batches).

    sizes: the numbers of `what` in the batches
    items: the number of samples in the batches, if they are not the `what`
    mistakes: further diagnoses, each with the factors (batches,) of the batches in the wrong mean
    """
    got, kind = returned["numbers"], returned["kind"]
    if kind not in ("numbers", "nothing", "undefined", "graphs", "tensors", "no list"):
        fail("A list with one number per epoch is expected as the return value.")
    if kind == "undefined":
        fail("Some of the losses that are returned are infinite or undefined (NaN).")
    if kind == "nothing" or got.numel() == 0:
        fail("Nothing or an empty list is returned: is a `return` missing?")
    if got.dim() == 0:
        fail("A list with one number per epoch is expected, not a single number.")
    if kind == "graphs":
        fail("The losses are tensors that hold the graphs of their batches: use `loss.item()`.")
    if kind == "tensors":
        fail("The losses are tensors: return a list of numbers, with `loss.item()`.")
    if kind == "no list":
        fail("The losses are in a tuple or an array: return a list of numbers.")
    losses, sizes = losses.double(), torch.tensor(sizes).double()
    mean = (losses * sizes).sum(1) / sizes.sum()
    items = sizes.sum() if items is None else items
    numbers = torch.arange(1, len(mean) + 1)
    if got.dim() == 1 and got.shape not in (mean.shape, losses.flatten().shape, mean[:-1].shape):
        fail("The list must have one number per epoch.")
    if got.shape == losses.flatten().shape and difference(got, losses.flatten(), 1e-4, 1e-5):
        fail("The list must have one number per epoch.")
    judge_close(
        got,
        mean,
        f"These are not the mean losses over the {what} of each epoch.",
        mistakes={
            f"These are sums over the {what}: divide them by the number of {what}.": (losses * sizes).sum(1),
            "These are sums of the losses of the batches: return means.": losses.sum(1),
            f"This is the mean over the batches, which differ in size: weight each by its number of {what}.": (
                losses.mean(1)
            ),
            f"These are the sums of the means of the batches, divided by the number of {what}: multiply each mean, as "
            f"the criterion returns it, by the {what} of its batch.": (losses.sum(1) / sizes.sum()),
            "The running loss is not reset: set it to zero at the start of each epoch.": mean.cumsum(0),
            "The running loss is not reset, so these are means over all epochs so far: set sum and number to zero at "
            "the start of each epoch.": (mean.cumsum(0) / numbers),
            "The running loss is not reset: set it to zero at the start of each epoch, and divide it at the end.": (
                losses.sum(1).cumsum(0)
            ),
            "This is the loss of the last batch of each epoch, not the mean over all batches.": losses[:, -1],
            "These are the losses of all batches: return one number per epoch.": losses.flatten(),
            "An epoch is missing: return one number per epoch.": mean[:-1],
            f"The sums are divided by the length of the data set: count the {what} that the loader yields.": (
                (losses * sizes).sum(1) / (items + UNUSED)
            ),
            f"The sums over the {what} are divided by the number of batches: divide them by the number of {what}.": (
                (losses * sizes).sum(1) / losses.shape[1]
            ),
            f"The sums over the {what} are divided by the {what} of the last batch: divide by those of all batches.": (
                (losses * sizes).sum(1) / sizes[-1]
            ),
            "This is the loss of the first batch of each epoch, not the mean over all batches.": losses[:, 0],
            **{sentence: (losses * torch.tensor(factors)).sum(1) for sentence, factors in (mistakes or {}).items()},
        },
    )


def judge_refusal(got, numbers, forgotten, unnamed, where=""):
    """Fail unless there was a ValueError whose message contains a number from each set in `numbers`.

    got: the type and, where `numbers` are asked for, the message of the exception
    forgotten, unnamed: the diagnoses if nothing was raised, and if the message lacks a number
    where: what it is raised for, such as " for an empty text"
    """
    if got["type"] == "":
        fail(forgotten)
    if got["type"] != "ValueError":
        fail(f"The exception{where} is not a ValueError: raise one with a message that says what is wrong.")
    named = {int(digits) for digits in re.findall(r"\d{1,9}", got.get("message", ""))}
    if not all(named & choices for choices in numbers):
        fail(unnamed)


def is_read(energies, text):
    """Whether the classes of least energy in the windows (L, 27) read as the text."""
    return gtn.collapse(energies.argmin(1).tolist(), BETWEEN) == [ord(letter) - 97 for letter in text]
