"""3.3: the sampler.

Chains are random, so the checks use statistics: a chain that continues another one contains its noise pattern, means
over many chains show where they move, and standard deviations show how much noise they contain.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from stand_ins import Slope, held, isolate
from torch import nn

from ebmcourse.checking import Mismatch, assert_close, assert_either_way, exercise, fail, inputs, probe, ways

SHAPE = (1, 12, 12)
CLASSES = 3
CALLS = 15
SIZE = 16  # of a buffer
FILLED = 5  # number of calls after which all buffers are full


@inputs
def slopes(rng):
    """The gradients of f(x, y) for each class, and of f(x). Some pixels exceed the clamp."""
    small = rng.uniform(0.008, 0.025, (CLASSES + 1, *SHAPE)) * rng.choice([-1, 1], (CLASSES + 1, *SHAPE))
    large = np.sign(small) * rng.uniform(0.1, 0.3, small.shape)
    return torch.from_numpy(np.where(rng.random(small.shape) < 0.2, large, small).astype(np.float32))


@inputs
def labels(rng):
    return torch.from_numpy(rng.permutation(np.arange(36) % CLASSES))


@inputs
def no_labels(rng):
    """Labels of -1, which stand for chains without a class."""
    return -torch.ones(36, dtype=torch.int64)


@inputs
def start(rng):
    return torch.from_numpy(rng.uniform(-0.5, 0.5, (36, *SHAPE)).astype(np.float32))


@inputs
def drift(rng):
    """The gradient of f in 3.3a, so small that a step of size 10 moves the chains by less than their noise."""
    return torch.from_numpy(0.0003 * rng.choice([-1, 1], SHAPE).astype(np.float32))


@inputs
def noise(rng):
    """The noise of the stand-in for `update` in each call. Half precision is enough, and makes the input small."""
    return torch.from_numpy((0.02 * rng.standard_normal((CALLS, 36, *SHAPE))).astype(np.float16))


@probe
def chains_over_calls(student, labels, size, drift, noise):
    """The chains of successive calls, one for each noise, and the size of the sampler's tensors afterwards."""
    conditional = () if labels.min() < 0 else (labels,)
    calls, noise = len(noise), noise.float()

    def attempt(isolated):
        model = Slope(drift.expand(CLASSES + 1, *SHAPE).clone())
        sample_size = len(labels) + 4 * len(conditional)  # another number than that of the labels
        sampler = student.ex_main.MCMCSampler(model, SHAPE, sample_size, CLASSES, cbuffer_size=size)
        if isolated:
            isolate(sampler, None, keep=("initial_chains", "store"))
        seen = []
        for call in range(calls):
            if isolated:
                sampler.update = lambda x, *args, call=call, **kwargs: x + noise[call]
            seen.append(sampler.synthesize_samples(*conditional, steps=1).half())  # half precision, to send less
        return {"chains": torch.stack(seen), "held": held(sampler)}

    return ways(whole=lambda: attempt(False), isolated=lambda: attempt(True))


def origins(chains, starts, limit):
    """The index of the earlier chain that each chain continues, or -1: (calls - FILLED, B).

    chains, starts: (calls, B, pixels). An index is the number of the call times B plus the number of the chain. A
    chain continues the earlier one with the most similar pattern if its start has at least the correlation `limit`.
    """
    patterns, starts = (F.normalize(each - each.mean(2, keepdim=True), dim=2) for each in (chains, starts))
    found = []
    for call in range(FILLED, len(chains)):
        best, index = (starts[call] @ patterns[:call].flatten(0, 1).T).max(1)
        found.append(torch.where(best > limit, index, -1))
    return torch.stack(found)


def follows_drift(moves, drift):
    """Whether the mean of the moves (N, pixels) has the direction of the hidden gradient, with any factor and sign."""
    return bool(torch.corrcoef(torch.stack([moves.mean(0), drift.flatten()]))[0, 1].abs() > 0.5)


def pixels_of(got, want):
    """The chains of all calls, (calls, B, pixels)."""
    if got["chains"].shape != want["chains"].shape:
        raise Mismatch("The chains must have the shape (B, C, H, W).")
    chains = got["chains"].float().flatten(2)
    if not chains.isfinite().all():
        fail("The chains contain infinite values or NaN.")
    return chains


def without(chains, drift):
    """The chains without their component in the direction of the hidden gradient."""
    direction = F.normalize(drift.flatten(), dim=0)
    return chains - (chains @ direction)[..., None] * direction


@exercise("3.3a", points=1, public=True, hint="New chains are Gaussian noise with mean 0 and standard deviation 0.01.")
def test_first_chains_are_small_noise(run, no_labels, drift, noise):
    """While the buffer is empty, all chains start from N(0, 0.01²)."""
    first = noise[:1]
    got, want = run(chains_over_calls, no_labels, 64, drift, first)

    def judge(got, want, isolated):
        chains = pixels_of(got, want)
        starts = chains - first.float().flatten(2) if isolated else without(chains, drift)
        spread = starts.std().item()
        if spread > 0.4 or abs(starts.mean().item()) > 0.4:
            fail("The initial values of the chains are too large. New chains start from N(0, 0.01²).")
        if spread < 0.007:
            fail("The chains start without noise. New chains start from N(0, 0.01²).")
        if (starts - starts.mean(1, keepdim=True)).std() < spread / 2:
            fail("All chains start from the same noise. Draw noise for each chain.")
        # 5,184 numbers estimate the spread within 1 %. The chains of the whole sampler contain the noise of a step,
        # 0.0112 in total, or of two steps. With other noise than the given one, the spread would be 0.02 or more.
        largest = 0.0115 if isolated else 0.016
        if not 0.0085 < spread < largest or abs(starts.mean().item()) > 0.002:
            fail("The initial noise must have mean 0 and standard deviation 0.01.")
        if not isolated and not follows_drift(chains[0], drift):
            fail("The chains do not follow the gradient of the network.")

    assert_either_way(got, want, lambda got, is_want: judge(got, is_want, is_want is want["isolated"]))


@exercise(
    "3.3a",
    points=1,
    public=True,
    hint="Most chains continue chains of the buffer, which is kept between calls. About 5 % start from noise.",
)
def test_chains_continue_from_the_buffer(run, no_labels, drift, noise):
    """Most chains continue chains of earlier calls, and about 5 % start from noise."""
    got, want = run(chains_over_calls, no_labels, SIZE, drift, noise)
    judge_either_way(got, want, drift, noise)


def judge_either_way(got, want, drift, noise, judge_more=lambda got, origin: None):
    """Check that most chains continue others; `judge_more` gets an observation and the result of `origins`."""

    def judge(way, want_way):
        given = noise if want_way is want["isolated"] else None
        judge_more(way, judge_persistence(way, want_way, drift, given))

    assert_either_way(got, want, judge)


def judge_persistence(got, want, drift, given):
    """Check that most chains continue others and about 5 % start from noise; returns the result of `origins`.

    given: the noise that was added to the chains in each call, or None for the whole sampler.
    """
    chains = pixels_of(got, want)
    if given is not None:
        # With the given noise subtracted, a chain is equal to the one that it continues.
        origin = origins(chains, chains - given.float().flatten(2), 0.98)
    else:
        # Independent patterns of 144 pixels have a correlation of 0 ± 0.08, continued ones of about 0.9.
        patterns = without(chains, drift)
        origin = origins(patterns, patterns, 0.5)
    fresh = (origin < 0).float().mean().item()
    if fresh > 0.99:
        fail("All chains start from noise. Check that chains are written to the buffer and read from it.")
    if fresh > 0.9:
        fail("Most chains start from noise, but only about 5 % should. Check the comparison with FRESH_SHARE.")
    if fresh == 0:
        fail("After the first call, no chain starts from noise. About 5 % should.")
    # For 10 × 36 chains: 5 % ± 1.1 % (standard deviation). A fixed number of 1 to 4 of 36 chains also passes.
    if not 0.012 < fresh < 0.13:
        fail("The fraction of chains that start from noise is wrong. It should be about 5 %.")
    if given is None:
        continued = origin >= 0
        moves = chains[FILLED:][continued] - chains.flatten(0, 1)[origin[continued]]
        if not follows_drift(moves, drift) or chains.abs().max() > 1.01:
            fail("The chains do not follow the gradient of the network.")
    return origin


### BEGIN HIDDEN TESTS
@exercise(
    "3.3a", points=1, hint="With labels, a chain continues a chain of its own class. Keep a buffer for each class."
)
def test_buffer_is_kept_per_class(run, labels, drift, noise):
    """With labels, chains continue chains of their own class."""
    got, want = run(chains_over_calls, labels, 8, drift, noise)

    def judge(got, origin):
        source = labels[origin.clamp_min(0) % len(labels)]
        if (source != labels)[origin >= 0].any():
            fail("Some chains continue chains of another class. Keep a buffer for each class.")

    judge_either_way(got, want, drift, noise, judge)


@exercise(
    "3.3a",
    points=1,
    hint="Keep at most `cbuffer_size` chains per class, for example in a tensor of fixed size.",
    needs=(test_chains_continue_from_the_buffer,),
)
def test_buffer_is_bounded(run, no_labels, drift, noise):
    """The buffer does not grow beyond its size."""
    got, want = run(chains_over_calls, no_labels, SIZE, drift, noise)

    def judge(got, origin):
        # Buffers for each class and for chains without a class, and a few copies of the batch.
        limit = ((CLASSES + 1) * SIZE + 3 * len(no_labels)) * math.prod(SHAPE)
        if not isinstance(got["held"], int) or got["held"] > limit:
            fail("The buffer grows with every call. Keep at most `cbuffer_size` chains per class.")
        if got["held"] < SIZE * math.prod(SHAPE):
            fail("The buffer keeps too few chains. It has room for `cbuffer_size` chains per class.")

    judge_either_way(got, want, drift, noise, judge)


### END HIDDEN TESTS


@probe
def travelled(history):
    """The change of each pixel from the first to the last entry; NaN for pixels near the limits of the image range."""
    return torch.where(history[0].abs() < 0.7, history[-1] - history[0], torch.nan)


def follow(moves, slopes):
    """Whether the moves are proportional to the slopes, with any factor and sign, for checks about something else.

    In the image range [-1, 1], no pixel can move by more than 2.
    """
    near = slopes.abs() < 0.03  # other pixels are clamped
    if moves.shape != slopes.shape or not moves.abs().max() < 2.01:
        return False
    return bool(torch.corrcoef(torch.stack([moves[near], slopes[near]]))[0, 1].abs() > 0.8)


@probe
def gradient_at(student, slopes, labels, start):
    """The gradient that the sampler uses: the result of `gradient`, and how far the chains of each class move."""
    model = Slope(slopes)

    def sampler():
        return student.ex_main.MCMCSampler(model, SHAPE, len(labels), CLASSES, cbuffer_size=8)

    def direct():
        with torch.enable_grad():
            return sampler().gradient(start.clone(), labels).detach()

    def moved():
        return sampler().synthesize_samples(labels, steps=1, step_size=10) / 10

    def on_the_way():  # independent of the initial images
        return travelled(sampler().synthesize_samples(labels, steps=2, step_size=4, return_img_per_step=True)) / 4

    def mean(chains):
        classes = torch.stack([chains[labels == label].nanmean(0) for label in range(CLASSES)])
        return {"value": classes[labels], "has_method": hasattr(sampler(), "gradient")}

    return ways(
        direct=lambda: {"value": direct()},
        on_the_way=lambda: mean(on_the_way()),
        moved=lambda: mean(moved()),
    )


def judge_gradient(got, want, slopes, labels):
    value, unclamped = got["value"], slopes[labels]
    clamped = unclamped.clamp(-0.03, 0.03)
    if value.shape == clamped.shape and not got.get("has_method", True):
        # Without a method `gradient`, only the moves are known. Their length and sign are checked in 3.3c.
        near = unclamped.abs() < 0.03
        factor = (value * clamped)[near].nanmean() / clamped[near].square().mean()
        value = value / factor if factor.abs() > 0.1 else value
    # The noise in the mean of twelve chains is 0.011 / 3.5 / 10 = 0.0003; the tolerance is seven times that.
    assert_close(
        value,
        clamped,
        rtol=0,
        atol=0.0022,
        mistakes={
            "The gradient is not clamped. Clamp it to ±0.03.": unclamped,
            "The gradient is not clamped: only the images are clipped. Clamp the gradient to ±0.03.": (
                unclamped.clamp(-0.1, 0.1)
            ),
            "The sign is wrong: this is the gradient of the energy E. Compute the gradient of f = -E.": -clamped,
            "The labels are ignored. Pass them to the network.": slopes[-1:].clamp(-0.03, 0.03).expand_as(clamped),
            "The gradient is divided by the batch size. Differentiate the sum of f over the batch, not the mean.": (
                unclamped / len(labels)
            ),
        },
    )


@exercise(
    "3.3b",
    points=1,
    public=True,
    hint="Differentiate the sum of f(x, y) with respect to the images, and clamp the gradient to ±0.03.",
)
def test_gradient_at_the_images(run, slopes, labels, start):
    """The chains follow the clamped gradient of f(x, y) with respect to the images."""
    for classes in (labels, 0 * labels):
        got, want = run(gradient_at, slopes, classes, start)
        assert_either_way(got, want, lambda got, want, classes=classes: judge_gradient(got, want, slopes, classes))


@probe
def after_error(sampler, model):
    """The state of the network after an exception while sampling, for samplers with a context manager."""
    try:
        with sampler.sampling_mode():
            raise ZeroDivisionError
    except (ZeroDivisionError, AttributeError, TypeError):
        return [model.w.requires_grad, model.training]


@probe
def side_effects(student, slopes, labels, start, training):
    """How sampling changes the network, in train mode with gradients or in eval mode without, and the moves."""

    def sample(isolated):
        model = Slope(slopes).train(training)
        model.other = nn.Parameter(torch.ones(()), requires_grad=False)  # frozen before
        sampler = student.ex_main.MCMCSampler(model, SHAPE, len(labels), CLASSES, cbuffer_size=8)
        if isolated:
            isolate(sampler, start, keep=("gradient", "sampling_mode"))
            sampler.update = lambda x, gradient, *args, **kwargs: x + gradient
        with torch.set_grad_enabled(training):
            try:
                chains = sampler.synthesize_samples(labels, steps=3)
            except RuntimeError:
                if all(model.gradients_on):
                    raise
                chains = start
            way = chains - start if isolated else chains
            return {
                "moves": torch.stack([way[labels == label].mean(0) for label in range(CLASSES)]),
                "labels": torch.cat(model.labels_seen)[-3 * len(labels) :].view(3, -1).float(),
                "gradients_on": all(model.gradients_on),
                "detached": not chains.requires_grad,
                "requires_grad": [model.w.requires_grad, model.other.requires_grad],
                "parameter_gradient": model.w.grad is not None,
                "eval_mode": not any(model.in_training),
                "training": model.training,
                "grad_mode": torch.is_grad_enabled() == training,
                "frozen": all(model.is_frozen),
                "after_error": after_error(sampler, model),
            }

    return ways(isolated=lambda: sample(True), whole=lambda: sample(False))


### BEGIN HIDDEN TESTS
@exercise(
    "3.3b",
    points=1,
    hint="Restore requires_grad, the train or eval mode, and the grad mode. Sampling must not change .grad.",
)
def test_sampling_restores_the_network(run, slopes, labels, start):
    """Sampling freezes the network and then restores its state, and the samples are detached."""
    for training in (True, False):
        got, want = run(side_effects, slopes, labels, start, training)
        assert_either_way(got, want, lambda got, want: judge_side_effects(got, want, slopes))


### END HIDDEN TESTS


def judge_side_effects(got, want, slopes):
    sentences = {
        "gradients_on": "Sampling does not work inside torch.no_grad(). Use torch.enable_grad().",
        "detached": "The samples are not detached. Detach the chains in each step.",
        "requires_grad": "After sampling, requires_grad of the parameters is not restored.",
        "parameter_gradient": "Sampling changes .grad of the parameters. Set requires_grad to False while sampling.",
        "eval_mode": "The network is in train mode during sampling. Switch it to eval mode.",
        "training": "After sampling, the train or eval mode of the network is not restored.",
        "grad_mode": "After sampling, the grad mode is not restored. Use `with torch.enable_grad()`.",
        "frozen": "The parameters require gradients during sampling. Set requires_grad to False.",
        "after_error": "After an exception while sampling, the network is not restored. Use try and finally.",
    }
    for name, sentence in sentences.items():
        if got[name] != want[name]:
            fail(sentence)
    ignored = {"The labels are ignored. Pass them to the network.": -torch.ones_like(want["labels"])}
    assert_close(got["labels"], want["labels"], mistakes=ignored)
    if not follow(got["moves"], slopes[:-1]):
        fail("The chains do not follow the gradient of the network.")


@probe
def chains_after(student, slopes, start, steps, step_size, history, isolated):
    """The chains after some steps: with a given gradient and start (isolated), or of the whole sampler."""
    sampler = student.ex_main.MCMCSampler(Slope(slopes), SHAPE, len(start), CLASSES, cbuffer_size=8)
    if isolated:
        isolate(sampler, torch.zeros_like(start), keep=("update",), gradient=slopes[-1:].clamp(-0.03, 0.03))
    return {"chains": sampler.synthesize_samples(steps=steps, step_size=step_size, return_img_per_step=history)}


@probe
def steps_from(student, slopes, start, steps, step_size, history):
    settings = student, slopes, start, steps, step_size, history
    return ways(isolated=lambda: chains_after(*settings, True), whole=lambda: chains_after(*settings, False))


@probe
def moves_of(student, slopes, start, steps, step_size):
    """How far the chains move in all steps; `on_the_way` is independent of the initial images."""
    settings = student, slopes, start, steps, step_size

    def on_the_way():
        history = chains_after(*settings, True, False)["chains"]
        return {"chains": travelled(history) * steps / (steps - 1)}

    return ways(
        isolated=lambda: chains_after(*settings, False, True),
        on_the_way=on_the_way,
        whole=lambda: chains_after(*settings, False, False),
    )


@exercise("3.3c", points=1, public=True, hint="Return x + step_size · gradient + noise, clipped to [-1, 1].")
def test_chains_move_uphill(run, slopes, start):
    """A step moves the chains by `step_size` times the gradient, towards higher f."""
    got, want = run(moves_of, slopes, start, 3, 4.0)
    near = slopes[-1].abs() < 0.03  # other pixels are clamped, which is checked in 3.3b
    slope = slopes[-1][near]
    path = 3 * 4 * slope
    twice = (2 * slope).clamp(-0.03, 0.03)

    def judge(got, want):
        if got["chains"].shape != want["chains"].shape:
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        # The noise in the mean of 36 chains is 0.014 / 6 = 0.0023; the tolerance is six times that.
        assert_close(
            got["chains"].nanmean(0)[near],
            path,
            rtol=0,
            atol=0.015,
            mistakes={
                "The chains do not move. Check that the result of the step is used: x.add(…) does not change x.": (
                    0 * path
                ),
                "The chains move towards lower f. Add the gradient of f, or subtract the gradient of E.": -path,
                "The chains are clipped to [0, 1]. The image range is [-1, 1].": path.clamp(0, 1),
                "`step_size` is ignored. Multiply the gradient by it.": path * 10 / 4,
                "The step is only half as long. Multiply the gradient by `step_size`.": path / 2,
                "The gradients of all steps are added. Set x.grad to zero after each step.": (
                    4 * (slope + twice + (slope + twice).clamp(-0.03, 0.03))
                ),
            },
        )

    assert_either_way(got, want, judge)


### BEGIN HIDDEN TESTS
@exercise("3.3c", points=0.5, hint="Clip the images to [-1, 1] in each step.")
def test_chains_stay_in_the_image_range(run, slopes, start):
    """The chains stay in the range [-1, 1]."""
    got, want = run(steps_from, slopes, start, 9, 10.0, False)

    def judge(got, want):
        chains = got["chains"]
        if chains.shape != want["chains"].shape:
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        if not chains.abs().max() < 1.0001:
            fail("The chains leave the image range. Clip them to [-1, 1] in each step.")
        if not follow(chains.mean(0), slopes[-1]):
            fail("The chains do not follow the gradient.")

    assert_either_way(got, want, judge)


@exercise("3.3c", points=1, hint="Add Gaussian noise with mean 0 and standard deviation 0.005 in each step.")
def test_noise_has_the_right_spread(run, slopes, start):
    """Each step adds noise with standard deviation 0.005."""
    quiet = 0.002 * slopes  # the moves in 64 steps do not reach the limits of the image range
    got, want = run(moves_of, quiet, start, 64, 10.0)

    def judge(got, want):
        if got["chains"].shape != want["chains"].shape:
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        mean = got["chains"].nanmean(0)
        factor = (mean * quiet[-1]).sum() / quiet[-1].square().sum()
        noise = got["chains"] - factor * quiet[-1]
        noise = noise[~noise.isnan()]
        if abs(noise.mean().item()) > 0.02:
            fail("The mean of the noise is not 0. Use randn, not rand.")
        # The standard deviation of 64 steps is 8 · 0.005 = 0.04, or 0.0412 with a start from N(0, 0.01²).
        spread = noise.std().item()
        if spread < 0.0115:
            fail("The steps contain no noise. Check that the noise is used: x.add(…) does not change x.")
        within = got["chains"] - factor * quiet[-1]
        if (within - within.nanmean((1, 2, 3), keepdim=True)).nan_to_num().std() < spread / 2:
            fail("All pixels of an image get the same noise. Use torch.randn_like(x).")
        if not 0.036 < spread < 0.046:
            fail("The noise of a step has the wrong standard deviation. It should be 0.005.")
        if not follow(mean, quiet[-1]):
            fail("The chains do not follow the gradient.")

    assert_either_way(got, want, judge)


### END HIDDEN TESTS


@exercise(
    "3.3c",
    points=0.5,
    public=True,
    hint="Stack copies of the chains after each step: (steps, B, C, H, W).",
)
def test_every_step_can_be_returned(run, slopes, start):
    """With `return_img_per_step`, the chains after each step are returned, (steps, B, C, H, W)."""
    got, want = run(steps_from, slopes, start, 4, 4.0, True)

    def judge(got, want):
        chains = got["chains"]
        if chains.shape != want["chains"].shape:
            raise Mismatch("The result must have the shape (steps, B, C, H, W).")
        if (chains[1:] - chains[:-1]).abs().flatten(1).mean(1).min() < 1e-4:
            fail("Some steps are equal. If the chains are changed in place, store a copy (clone) after each step.")
        if chains[0].abs().mean() < chains[1].abs().mean() / 3:
            fail("The first entry is the chains before the first step. Store the chains after each step.")
        if not all(follow(moves, slopes[-1]) for moves in (chains[1:] - chains[:-1]).mean(1)):
            fail("The chains do not follow the gradient from step to step.")

    assert_either_way(got, want, judge)
