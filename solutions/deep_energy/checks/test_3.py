"""3: the replay buffer. Each image is different, so what comes back tells where it is from."""

from contextlib import contextmanager, suppress

import numpy as np
import torch
from stand_ins import replaced
from torch import nn

from ebmcourse.checking import Mismatch, assert_either_way, exercise, fail, inputs, probe, require, ways

SHAPE = (1, 5, 4)
CALLS = 20


def grey(rng, count):
    """Different images."""
    return torch.from_numpy(rng.uniform(-0.6, 0.6, (count, *SHAPE)).astype(np.float32))


@inputs
def many(rng):
    return grey(rng, 60)


@inputs
def few(rng):
    return grey(rng, 3)


@inputs
def batches(rng):
    """Samples of six calls, 4 each."""
    return grey(rng, 24).reshape(6, 4, *SHAPE)


@probe
class Still(nn.Module):
    """f = 0: chains of this model stay where they are, up to the noise."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.w * x.flatten(1).sum(1)


@probe
@contextmanager
def with_samples(module, sampler, samples):
    """Let the sampler's chains end at `samples(start)` instead of running Langevin dynamics."""

    def generate_samples(model, images, *args, **kwargs):
        return samples(images)

    own = vars(type(sampler)).get("generate_samples")
    type(sampler).generate_samples = staticmethod(generate_samples)
    try:
        with replaced(module, generate_samples=generate_samples):
            yield
    finally:
        if own is None:
            del type(sampler).generate_samples
        else:
            type(sampler).generate_samples = own


@probe
def fill(sampler, images):
    """Put these images into the buffer, as a list if the sampler keeps a list."""
    own = sampler.examples
    sampler.examples = images.clone() if isinstance(own, torch.Tensor) else type(own)(images.clone().split(1))


@probe
def held(sampler):
    """The images in the buffer, (N, C, H, W)."""
    own = sampler.examples
    if isinstance(own, torch.Tensor):
        return own
    return torch.cat([image.reshape(1, *SHAPE) for image in own])


@probe
def starts(student, buffer, count, calls):
    """What the chains of several calls start from, and the buffer after these images were changed in place."""
    module = student.deep_energy

    def attempt(direct):
        sampler = module.Sampler(Still(), SHAPE, count, max_len=100)
        seen, kept = [], []

        def look(images):
            seen.append(images.detach().clone())
            images.detach().fill_(0.9)
            kept.append(held(sampler).detach().clone())
            return images

        for _ in range(calls):
            fill(sampler, buffer)
            if direct:
                look(sampler.start_images())
            else:
                with with_samples(module, sampler, look):
                    sampler.sample_new_exmps(steps=1)
        return {"starts": torch.stack(seen), "held": kept}

    return ways(direct=lambda: attempt(True), whole=lambda: attempt(False))


@probe
def starts_on_the_device(student, buffer, count, calls):
    """`starts`, of a sampler whose chains must start on the device of the model.

    The device `meta` exists on every machine. Its tensors have no values, so a sampler may also fail there.
    """
    module, devices = student.deep_energy, []

    def look(images):
        devices.append(images.device.type)
        return images

    with suppress(Exception):
        sampler = module.Sampler(Still().to("meta"), SHAPE, count, max_len=100)
        with with_samples(module, sampler, look):
            sampler.sample_new_exmps(steps=1)
    require("cpu" not in devices, "The start images are not on the device of the model. Move them there.")
    try:
        return starts(student, buffer, count, calls)
    except Exception:  # another call has shown that larger buffers work
        require(False, "It fails if the buffer has fewer images than there are chains. Choose with replacement.")


def distances(one, other):
    """The distances between all rows of (N, D) and (M, D), exact for equal rows; leading axes are kept."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


class Starts:
    """Start images (calls, B, C, H, W) compared with the images of the buffer."""

    def __init__(self, way, right, buffer):
        if way["starts"].shape != right["starts"].shape:
            raise Mismatch("There must be `sample_size` start images of the shape (C, H, W).")
        images, known = way["starts"].float().flatten(2), buffer.flatten(1)
        if not images.isfinite().all():
            fail("The start images contain infinite values or NaN.")
        near, self.origin = distances(images, known).min(2)
        self.is_fresh = near > 1e-4
        self.fresh = images[self.is_fresh]
        self.share = self.is_fresh.float().mean().item()
        same_pixels = ((images - known[self.origin]).abs() < 1e-6).sum(2)
        if (same_pixels[self.is_fresh] >= 3).any():
            fail("Some start images are partly noise and partly an image of the buffer. Decide once for each image.")


def judge_share(starts):
    all_or_none = starts.is_fresh.all(1) | ~starts.is_fresh.any(1)
    if all_or_none.all() and 0 < starts.share < 1:
        fail("In each call, all chains start from noise or none does. Decide for each chain.")
    if starts.share == 1:
        fail("No chain starts from an image of self.examples, but about 95 % should.")
    if starts.share > 0.9:
        fail("Few chains start from images of self.examples, but 95 % should. Check the comparison with FRESH_SHARE.")
    if starts.share < 0.01:
        fail("Almost no chain starts from noise, but each one should with the probability FRESH_SHARE.")
    # For 20 × 36 chains: 5 % ± 0.8 % (standard deviation). A fixed number of 1 to 4 of 36 chains also passes.
    if starts.share > 0.12:
        fail("The share of chains that start from noise is wrong. It should be about 5 %.")


@exercise("3a", points=1, public=True, hint="With probability FRESH_SHARE noise, otherwise an image of self.examples.")
def test_chains_continue_images_of_the_buffer(run, many):
    """Most chains start from random images of the buffer, and about 5 % from noise."""
    got, want = run(starts, many, 36, CALLS)

    def judge(way, right):
        found = Starts(way, right, many)
        judge_share(found)
        origin = [call[~fresh] for call, fresh in zip(found.origin, found.is_fresh, strict=True)]
        if min(len(each.unique()) for each in origin if len(each) > 12) < 8:
            fail("Many chains of a call continue the same image. Choose an image for each chain.")
        if all(torch.equal(each, origin[0]) for each in origin):
            fail("In each call, the same images are continued. Choose them at random.")
        if len(torch.cat(origin).unique()) < 40:
            fail("Only some images of the buffer are continued. Choose among all of self.examples.")

    assert_either_way(got, want, judge)


@exercise("3a", points=0.5, public=True, hint="The noise of new chains is uniform in [-1, 1]: uniform_images.")
def test_new_chains_are_uniform_noise(run, many):
    """New chains start from noise that is uniform in [-1, 1], different in each pixel and each chain."""
    got, want = run(starts, many, 36, CALLS)

    def judge(way, right):
        found = Starts(way, right, many)
        fresh = found.fresh
        if found.share > 0.9:
            judge_share(found)
        if len(fresh) < 8:
            fail("Too few chains start from noise to look at it. About 5 % should.")
        if fresh.std(1).max() < 1e-4:
            fail("All pixels of a new chain have the same value. Draw noise for each pixel.")
        if len(fresh.unique(dim=0)) < len(fresh):
            fail("Several new chains start from the same noise. Draw noise for each chain.")
        if fresh.abs().max() > 1:
            fail("The noise leaves the range [-1, 1]. It is uniform in this range: uniform_images.")
        if fresh.min() > -1e-6:
            fail("The noise has no negative values, as in [0, 1]. It should be uniform in [-1, 1]: 2 · rand - 1.")
        # About 700 numbers: mean 0 ± 0.022, standard deviation 0.577 ± 0.01.
        if fresh.std() < 0.45:
            fail("The noise is too weak. It should be uniform in [-1, 1].")
        if abs(fresh.mean()) > 0.2 or fresh.std() > 0.7:
            fail("The noise of new chains should be uniform in [-1, 1].")

    assert_either_way(got, want, judge)


### BEGIN HIDDEN TESTS
@exercise("3a", points=0.5, hint="Choose with replacement, and return copies on the device of self.model.")
def test_small_buffers(run, few, many):
    """A buffer may have fewer images than chains, and keeps them; chains start on the device of the model."""

    def judge_copies(way, buffer):
        if len(way["held"]) != CALLS or any(held.shape != buffer.shape for held in way["held"]):
            raise Mismatch("The buffer could not be observed.")
        for held in way["held"]:
            if distances(buffer.flatten(1), held.flatten(1)).min(1).values.max() > 1e-4:
                if ((held - 0.9).abs() < 1e-6).flatten(1).all(1).any():
                    fail("The buffer changes if the start images are changed in place. Return copies.")
                fail("The images in the buffer are not the same afterwards. Do not write into self.examples.")

    got, want = run(starts, many, 36, CALLS)
    assert_either_way(got, want, lambda way, right: judge_copies(way, many))
    # Of 360 chains, 18 are fresh; that 3 or fewer are, which fails, has the probability 2e-5.
    got, want = run(starts_on_the_device, few, 18, CALLS)

    def judge(way, right):
        found = Starts(way, right, few)
        judge_share(found)
        chosen = found.origin[~found.is_fresh].unique().tolist()
        if chosen == [0, 1]:
            fail("The last image of the buffer is never continued. The upper bound of randint is exclusive.")
        if len(chosen) < 3:
            fail("Only some images of the buffer are continued. Choose among all of self.examples.")
        judge_copies(way, few)

    assert_either_way(got, want, judge)


### END HIDDEN TESTS


@probe
def stored(student, batches, max_len, changes):
    """The buffer after each call; `changes`: the samples are changed in place later, and are part of a graph."""
    module = student.deep_energy

    def prepare(batch):
        return (1 * batch.clone().requires_grad_()) if changes else batch.clone()

    def attempt(direct):
        sampler = module.Sampler(Still(), SHAPE, batches.shape[1], max_len=max_len)
        seen, attached = [], []
        for batch in batches:
            samples = prepare(batch)
            if direct:
                sampler.store(samples)
            else:
                with with_samples(module, sampler, lambda start, samples=samples: samples):
                    sampler.sample_new_exmps(steps=1)
            attached.append(held(sampler).requires_grad)
            if changes:
                samples.detach().fill_(0.9)
            seen.append(held(sampler).detach().clone())
        return {"held": seen, "attached": attached}

    return ways(direct=lambda: attempt(True), whole=lambda: attempt(False))


def found_in(held, batches):
    """For each image of the buffer, (call, place) of the sample that it is, or None."""
    samples = batches.flatten(0, 1).flatten(1)
    near, index = distances(held.float().flatten(1), samples).min(1)
    return [
        divmod(place, batches.shape[1]) if distance < 1e-4 else None
        for place, distance in zip(index.tolist(), near.tolist(), strict=True)
    ]


def judge_buffer(way, batches, max_len):
    if len(way["held"]) != len(batches):
        raise Mismatch("The buffer could not be observed.")
    if any(held.dim() != 4 or held.shape[1:] != SHAPE for held in way["held"]):
        raise Mismatch("The images in the buffer must have the shape (C, H, W).")
    size = batches.shape[1]
    for call, held in enumerate(way["held"]):
        places = found_in(held, batches)
        kept = [place for place in places if place is not None]
        expected = min(max_len, size * (call + 1))
        newest = sum(place[0] == call for place in kept)
        # At first, there are min(size, max_len) images of noise.
        is_cut = len(held) < max_len <= min(size, max_len) + size * (call + 1)
        if not kept and max_len <= size:
            fail("No new sample is in the buffer. They come first, and of the images in all, `max_len` are kept.")
        if not kept:
            fail("The samples are not in the buffer. Write them to self.examples.")
        if len(held) > max_len:
            fail("The buffer has more than `max_len` images. Drop the oldest ones.")
        if newest == len(kept) == min(size, max_len) < expected:
            fail("Only the samples of the last call are in the buffer. Keep the earlier images behind them.")
        if is_cut and (newest < min(size, max_len) or len(kept) < expected):
            fail("The buffer has fewer than `max_len` images, although there are more. Drop only what exceeds it.")
        if newest < min(size, max_len):
            fail("The buffer does not have all new samples. If it is full, they replace the oldest ones.")
        if any(place[0] > call for place in kept):
            fail("The buffer has samples of later calls.")
        if len(set(kept)) < len(kept):
            fail("Some samples are in the buffer twice.")
        if len(kept) < expected:
            fail(
                "Samples of earlier calls are missing in the buffer. Drop only the oldest ones, and only if it is full."
            )
        if max_len >= size and any(call - each[0] >= -(-max_len // size) for each in kept):
            fail("The buffer has old samples, although newer ones were dropped. Drop the oldest ones.")
        ages = [call - place[0] if place else call + 1 for place in places]
        if ages != sorted(ages):
            fail("The order of the images in the buffer is wrong: the newest ones come first.")


@exercise("3b", points=1, public=True, hint="self.examples: the new images, then the old ones, cut off after max_len.")
def test_buffer_keeps_the_newest_samples(run, batches):
    """The buffer has the newest samples of all calls, at most `max_len` of them."""
    for max_len in (12, 100):
        got, want = run(stored, batches, max_len, False)
        assert_either_way(got, want, lambda way, right, max_len=max_len: judge_buffer(way, batches, max_len))


### BEGIN HIDDEN TESTS
@exercise("3b", points=0.5, hint="Store detached copies. torch.cat makes copies.")
def test_buffer_has_copies(run, batches):
    """The buffer has detached copies of the samples."""
    got, want = run(stored, batches, 10, True)

    def judge(way, right):
        if any((held > 0.89).flatten(1).all(1).any() for held in way["held"] if held.dim() == 4):
            fail("The buffer changes if the samples are changed in place later. Store copies.")
        judge_buffer(way, batches, 10)
        if way["attached"] != right["attached"]:
            fail("The images in the buffer require gradients. Store detached copies.")

    assert_either_way(got, want, judge)


@exercise("3b", points=0.5, hint="Cut off after max_len in the end, so that the bound holds for large batches, too.")
def test_buffer_smaller_than_a_batch(run, batches):
    """If `max_len` is smaller than the number of samples, the bound still holds."""
    got, want = run(stored, batches, 3, False)
    assert_either_way(got, want, lambda way, right: judge_buffer(way, batches, 3))


### END HIDDEN TESTS
