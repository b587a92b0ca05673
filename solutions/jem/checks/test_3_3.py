"""3.3: the sampler.

Chains are random, so they are judged by what does not depend on the dice: a chain that goes on from another one
carries that one's noise pattern; means over many chains show where they move; spreads show how much noise there is.
"""

import math

import numpy as np
import torch
from stand_ins import Slope, held, isolate

from ebmcourse.checking import Mismatch, assert_close, assert_either_way, exercise, fail, inputs, probe, ways

SHAPE = (1, 12, 12)
CLASSES = 3
CALLS = 15
SIZE = 16  # of a buffer
FILLED = 5  # after so many calls every slot of the buffers has been filled


@inputs
def slopes(rng):
    """The gradient of every class's energy, and of the unconditional one: within the clamp, but for a few pixels."""
    small = rng.uniform(0.008, 0.025, (CLASSES + 1, *SHAPE)) * rng.choice([-1, 1], (CLASSES + 1, *SHAPE))
    large = np.sign(small) * rng.uniform(0.1, 0.3, small.shape)
    return torch.from_numpy(np.where(rng.random(small.shape) < 0.2, large, small).astype(np.float32))


@inputs
def labels(rng):
    return torch.from_numpy(rng.permutation(np.arange(36) % CLASSES))


@inputs
def no_labels(rng):
    """For chains without a class."""
    return -torch.ones(36, dtype=torch.int64)


@inputs
def start(rng):
    return torch.from_numpy(rng.uniform(-0.5, 0.5, (36, *SHAPE)).astype(np.float32))


@probe
def chains_over_calls(student, calls, labels, size):
    """The chains that `calls` calls return one after the other, without any slope, and how much the sampler holds."""
    conditional = () if labels.min() < 0 else (labels,)
    noise = 0.005 * torch.randn(calls, len(labels), *SHAPE)

    def attempt(isolated):
        model = Slope(torch.zeros(CLASSES + 1, *SHAPE))
        sampler = student.ex_main.MCMCSampler(model, SHAPE, len(labels), CLASSES, cbuffer_size=size)
        if isolated:
            isolate(sampler, None, keep=("initial_chains", "store"))
        seen = []
        for call in range(calls):
            if isolated:
                sampler.update = lambda x, *args, call=call, **kwargs: x + noise[call]
            seen.append(sampler.synthesize_samples(*conditional, steps=1).half())  # half: these are many numbers
        return {"chains": torch.stack(seen), "held": held(sampler)}

    return ways(whole=lambda: attempt(False), isolated=lambda: attempt(True))


def origins(chains):
    """For every chain (calls - FILLED, B) the flat index of the earlier chain whose pattern it carries on, or -1."""
    patterns = chains.flatten(2).flatten(0, 1)
    patterns = patterns - patterns.mean(1, keepdim=True)
    patterns = patterns / patterns.norm(dim=1, keepdim=True).clamp_min(1e-12)
    calls, batch = chains.shape[:2]
    found = []
    for call in range(FILLED, calls):
        similar = patterns[call * batch : (call + 1) * batch] @ patterns[: call * batch].T
        best, index = similar.max(1)
        # Independent patterns of 144 pixels correlate by 0.08 (standard deviation), continued ones by 0.9.
        found.append(torch.where(best > 0.5, index, -1))
    return torch.stack(found)


@exercise(
    "3.3a", points=1, public=True, hint="Fresh chains start from a Gaussian with mean 0 and standard deviation 0.01."
)
def test_first_chains_are_small_noise(run, no_labels):
    """While the buffer holds nothing, all chains start from N(0, 0.01²)."""
    got, want = run(chains_over_calls, 1, no_labels, 64)

    def judge(got, want):
        chains = got["chains"].float()
        if chains.shape != want["chains"].shape:
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        # 0.01 from the start and 0.005 from one step of noise: 0.0112; 5,184 numbers fix it to 1 %.
        spread = chains.std().item()
        if not chains.isfinite().all():
            fail("The chains hold infinite or undefined (NaN) values.")
        if spread > 0.4 or abs(chains.mean().item()) > 0.4:
            fail("The chains start far from zero, as uniform or wide noise: N(0, 0.01²) is asked for.")
        if spread < 0.007:
            fail("The chains start without noise: draw them from N(0, 0.01²).")
        if not 0.0085 < spread < 0.016 or abs(chains.mean().item()) > 0.002:
            fail("The spread of the initial noise is wrong: its standard deviation is 0.01, its mean 0.")

    assert_either_way(got, want, judge)


@exercise(
    "3.3a",
    points=1,
    public=True,
    hint="Most chains go on from the buffer, which lives across calls; about 5 % start fresh.",
)
def test_chains_go_on_from_the_buffer(run, no_labels):
    """Most chains of a call continue chains of earlier calls; about 5 % start fresh."""
    got, want = run(chains_over_calls, CALLS, no_labels, SIZE)
    assert_either_way(got, want, judge_persistence)


def judge_persistence(got, want):
    """Raise unless most chains go on and some start fresh; returns where each chain comes from, see `origins`."""
    if got["chains"].shape != want["chains"].shape:
        raise Mismatch("The chains must have the shape (B, C, H, W).")
    origin = origins(got["chains"].float())
    fresh = (origin < 0).float().mean().item()
    if fresh > 0.99:
        fail("Every call starts afresh: the buffer is not read, or what was sampled is never written to it.")
    if fresh > 0.9:
        fail("Most chains start fresh, where about 5 % should: is a comparison the wrong way round?")
    if fresh == 0:
        fail("No chain ever starts fresh after the first call: about 5 % should.")
    # 10 × 36 chains: 5 % ± 1.1 % (standard deviation); a fixed number of 1 to 4 among 36 passes as well.
    if not 0.012 < fresh < 0.13:
        fail("The share of fresh chains is wrong: about 5 % are asked for.")
    return origin


### BEGIN HIDDEN TESTS
@exercise(
    "3.3a", points=1, hint="With labels, every chain goes on from a chain of its own class: keep one buffer per class."
)
def test_buffer_is_kept_per_class(run, labels):
    """With labels, chains continue chains of their own class."""
    got, want = run(chains_over_calls, CALLS, labels, 8)

    def judge(got, want):
        origin = judge_persistence(got, want)
        source = labels[origin.clamp_min(0) % len(labels)]
        if (source != labels)[origin >= 0].any():
            fail("Chains go on from chains of another class: keep the buffer per class.")

    assert_either_way(got, want, judge)


@exercise(
    "3.3a",
    points=1,
    hint="Give the buffer a fixed size, or cut it after every write: memory is finite.",
    needs=(test_chains_go_on_from_the_buffer,),
)
def test_buffer_is_bounded(run, labels, no_labels):
    """The buffer stops growing."""
    got, want = run(chains_over_calls, CALLS, no_labels, SIZE)

    def judge(got, want):
        # One buffer per class and one for chains without a class, and the batch at hand.
        room = ((CLASSES + 1) * SIZE + 3 * len(labels)) * math.prod(SHAPE)
        if not isinstance(got["held"], int) or got["held"] > room:
            fail("The buffer grows with every call: keep at most `cbuffer_size` chains.")

    assert_either_way(got, want, judge)


### END HIDDEN TESTS


@probe
def travelled(history):
    """How far the chains moved from the first to the last entry; undefined (NaN) for those near the image's range."""
    return torch.where(history[0].abs() < 0.7, history[-1] - history[0], torch.nan)


def follow(moves, slopes):
    """Whether moves run along the slopes or against them, however far: for checks that ask for something else."""
    near = slopes.abs() < 0.03  # elsewhere the gradient is clamped
    if moves.shape != slopes.shape:
        return False
    return bool(torch.corrcoef(torch.stack([moves[near], slopes[near]]))[0, 1].abs() > 0.8)


@probe
def gradient_at(student, slopes, labels, start):
    """The gradient that the sampler uses: asked for directly, and from how far the chains of each class move."""
    model = Slope(slopes)

    def sampler():
        return student.ex_main.MCMCSampler(model, SHAPE, len(labels), CLASSES, cbuffer_size=8)

    def direct():
        with torch.enable_grad():
            return sampler().gradient(start.clone(), labels).detach()

    def moved():
        return sampler().synthesize_samples(labels, steps=1, step_size=10) / 10

    def on_the_way():  # whatever the start
        return travelled(sampler().synthesize_samples(labels, steps=2, step_size=4, return_img_per_step=True)) / 4

    def mean(chains):
        classes = torch.stack([chains[labels == label].nanmean(0) for label in range(CLASSES)])
        return {"value": classes[labels], "has_method": hasattr(sampler(), "gradient")}

    return ways(
        direct=lambda: {"value": direct(), "has_method": True},
        on_the_way=lambda: mean(on_the_way()),
        moved=lambda: mean(moved()),
    )


def judge_gradient(got, want, slopes, labels):
    value, unclamped = got["value"], slopes[labels]
    clamped = unclamped.clamp(-0.03, 0.03)
    if value.shape == clamped.shape and not got["has_method"]:
        # A sampler in one piece: how far the chains move, and which way, is asked for in 3.3c.
        near = unclamped.abs() < 0.03
        factor = (value * clamped)[near].nanmean() / clamped[near].square().mean()
        value = value / factor if factor.abs() > 0.1 else value
    # Twelve chains per class leave 0.011 / 3.5 / 10 = 0.0003 of noise in a mean; seven of these are allowed.
    assert_close(
        value,
        clamped,
        rtol=0,
        atol=0.0022,
        mistakes={
            "The gradient is not clamped to ±0.03.": unclamped,
            "The gradient is not clamped to ±0.03; images that move too far are clipped.": unclamped.clamp(-0.1, 0.1),
            "This is the gradient of the energy E = -f; here the gradient of f is asked for.": -clamped,
            "The label is ignored: the energy must be that of each chain's class.": slopes[-1:]
            .clamp(-0.03, 0.03)
            .expand_as(clamped),
            "The gradient is divided by the batch size: sum f over the batch before differentiating.": (
                unclamped / len(labels)
            ),
        },
    )


@exercise(
    "3.3b",
    points=1,
    public=True,
    hint="Differentiate Σ f with respect to the images, of each chain's class, and clamp to ±0.03.",
)
def test_gradient_at_the_images(run, slopes, labels, start):
    """The chains follow the clamped gradient of f at the images, for each chain's class."""
    got, want = run(gradient_at, slopes, labels, start)
    assert_either_way(got, want, lambda got, want: judge_gradient(got, want, slopes, labels))


@probe
def side_effects(student, slopes, labels, start, training):
    """What sampling leaves behind in the network, in train or eval mode, outside or inside no_grad; how it moved."""

    def sample(isolated):
        model = Slope(slopes).train(training)
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
                "labels": torch.stack(model.labels_seen[-3:]).float(),
                "gradients_on": all(model.gradients_on),
                "detached": not chains.requires_grad,
                "requires_grad": model.w.requires_grad,
                "parameter_gradient": model.w.grad is not None,
                "eval_mode": not any(model.in_training),
                "training": model.training,
                "grad_mode": torch.is_grad_enabled() == training,
            }

    return ways(isolated=lambda: sample(True), whole=lambda: sample(False))


### BEGIN HIDDEN TESTS
@exercise(
    "3.3b",
    points=1,
    hint="Sampling leaves the network as it was: requires_grad, .grad, train/eval mode, global grad mode.",
)
def test_network_is_given_back(run, slopes, labels, start):
    """Sampling freezes the network and gives it back exactly as it was; the samples carry no graph."""
    for training in (True, False):
        got, want = run(side_effects, slopes, labels, start, training)
        assert_either_way(got, want, lambda got, want: judge_side_effects(got, want, slopes))


### END HIDDEN TESTS


def judge_side_effects(got, want, slopes):
    sentences = {
        "gradients_on": "Gradients at the images are off while sampling: sampling must work inside torch.no_grad too.",
        "detached": "The samples still carry their graph: detach them before they are returned.",
        "requires_grad": "The network's parameters are not given back: requires_grad is another than before sampling.",
        "parameter_gradient": "Sampling leaves gradients in the network's parameters: freeze them meanwhile.",
        "eval_mode": "The network is in train mode while it samples: switch it to eval mode meanwhile.",
        "training": "The network is not given back in the mode (train or eval) that it was in.",
        "grad_mode": "The global grad mode is another than before sampling.",
    }
    for name, sentence in sentences.items():
        if got[name] != want[name]:
            fail(sentence)
    ignored = {"The labels never reach the network.": -torch.ones_like(want["labels"])}
    assert_close(got["labels"], want["labels"], mistakes=ignored)
    if not follow(got["moves"], slopes[:-1]):
        fail("The network is left as it was, but the chains do not follow its gradient.")


@probe
def chains_after(student, slopes, start, steps, step_size, history, isolated):
    """Chains after some steps: from 0 along the given gradient (isolated), or of the whole sampler from its start."""
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
    """How far chains move in all steps; on the way: from the first step to the last, whatever the start."""
    settings = student, slopes, start, steps, step_size

    def on_the_way():
        history = chains_after(*settings, True, False)["chains"]
        return {"chains": travelled(history) * steps / (steps - 1)}

    return ways(
        isolated=lambda: chains_after(*settings, False, True),
        on_the_way=on_the_way,
        whole=lambda: chains_after(*settings, False, False),
    )


@exercise("3.3c", points=1, public=True, hint="x + step_size · gradient of f + noise, clipped to [-1, 1].")
def test_chains_move_uphill(run, slopes, start):
    """A step moves the chains by step_size times the gradient, towards higher f."""
    got, want = run(moves_of, slopes, start, 3, 4.0)
    near = slopes[-1].abs() < 0.03  # elsewhere the gradient is clamped, which is asked for in 3.3b
    slope = slopes[-1][near]
    path = 3 * 4 * slope
    twice = (2 * slope).clamp(-0.03, 0.03)

    def judge(got, want):
        if got["chains"].shape != want["chains"].shape:
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        # 36 chains leave 0.014 / 6 = 0.0023 of noise in a mean; six of these are allowed.
        assert_close(
            got["chains"].nanmean(0)[near],
            path,
            rtol=0,
            atol=0.015,
            mistakes={
                "The chains do not move: does an operation without an underscore lose its result?": 0 * path,
                "The chains move downhill in f: likelihood must rise, energy must fall.": -path,
                "The chains are clipped to [0, 1]; images lie in [-1, 1].": path.clamp(0, 1),
                "`step_size` is ignored.": path * 10 / 4,
                "The step is half as long: move by step_size times the gradient.": path / 2,
                "The gradients of the steps add up: set x.grad to zero after each.": (
                    4 * (slope + twice + (slope + twice).clamp(-0.03, 0.03))
                ),
            },
        )

    assert_either_way(got, want, judge)


### BEGIN HIDDEN TESTS
@exercise("3.3c", points=0.5, hint="Clip the images to [-1, 1] after every step.")
def test_chains_stay_in_the_image_range(run, slopes, start):
    """The chains never leave [-1, 1]."""
    got, want = run(steps_from, slopes, start, 9, 10.0, False)

    def judge(got, want):
        chains = got["chains"]
        if chains.shape != want["chains"].shape:
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        if not chains.abs().max() < 1.0001:
            fail("The chains leave the image range: clip to [-1, 1] after every step.")
        if not follow(chains.mean(0), slopes[-1]):
            fail("The chains stay in the range, but they do not follow the gradient.")

    assert_either_way(got, want, judge)


@exercise("3.3c", points=1, hint="Every step adds Gaussian noise with standard deviation 0.005.")
def test_noise_has_its_spread(run, slopes, start):
    """Every step adds noise with standard deviation 0.005."""
    got, want = run(moves_of, 0 * slopes, start, 64, 10.0)

    def judge(got, want):
        if got["chains"].shape != want["chains"].shape:
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        moves = got["chains"][~got["chains"].isnan()]
        if abs(moves.mean().item()) > 0.02:
            fail("The noise has a mean: draw it from a Gaussian around 0 (randn), not from [0, 1] (rand).")
        # 64 steps: 8 · 0.005 = 0.04, and 0.0412 with a start from N(0, 0.01²).
        spread = moves.std().item()
        if spread < 0.0115:
            fail("There is no noise in the steps: is the result of an operation without an underscore lost?")
        if not 0.036 < spread < 0.046:
            fail("The noise of a step has the wrong spread: its standard deviation is 0.005.")

    assert_either_way(got, want, judge)


### END HIDDEN TESTS


@exercise(
    "3.3c",
    points=0.5,
    public=True,
    hint="Collect a copy of the chains after each step and stack them: (steps, B, C, H, W).",
)
def test_every_step_can_be_returned(run, slopes, start):
    """`return_img_per_step` returns the chains after every step, (steps, B, C, H, W)."""
    got, want = run(steps_from, slopes, start, 4, 4.0, True)

    def judge(got, want):
        chains = got["chains"]
        if chains.shape != want["chains"].shape:
            raise Mismatch("The history must have the shape (steps, B, C, H, W).")
        if (chains[1:] - chains[:-1]).abs().flatten(1).mean(1).min() < 1e-4:
            fail("Some steps of the history are equal: keep a copy (clone) of the chains, they are changed in place.")
        if chains[0].abs().mean() < chains[1].abs().mean() / 3:
            fail("The history begins with the start: keep the chains after each step, not before it.")
        if not all(follow(moves, slopes[-1]) for moves in (chains[1:] - chains[:-1]).mean(1)):
            fail("The entries of the history do not follow the gradient from step to step.")

    assert_either_way(got, want, judge)
