"""3.3: the sampler.

Chains are random, so the checks use statistics: a chain that continues another one contains its noise pattern, means
over many chains show where they move, and standard deviations show how much noise they contain.
"""

import math
from collections import Counter
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from stand_ins import Slope, held, isolate
from torch import nn
from wrong_values import multiple, nearest, proven

from ebmcourse.checking import (
    Mismatch,
    assert_close,
    assert_either_way,
    difference,
    exercise,
    fail,
    inputs,
    probe,
    require,
    ways,
)

SHAPE = (1, 16, 9)
TWO_CHANNELS = (2, 8, 9)  # as many pixels
CLASSES = 3
CALLS, MORE_CALLS = 15, 17
LARGE = 7, 12  # of these calls, those for 36 chains without a class before calls for FEW
SIZE = 80  # of a buffer, more than twice the 36 chains of a call
FEW = 4  # chains of a call without labels
FULL = 5  # number of calls for MANY chains after which almost all places are filled
MANY = 300  # chains of a call in which the share of new chains is counted
BELOW_20 = 19  # chains of a call of which 5 % are less than one
FILLED = 6  # number of calls after which almost all places of the buffers are filled
RESTORED = 10  # the call before which a new sampler gets the buffer, as after loading a checkpoint
CHANGED = 0.9  # the value of returned chains that are changed in place
CURVATURE = 0.02
UNKNOWN = 9.0  # in the place of a move that is not known
NOT_RANDOM = (
    "The chains of a call continue the chains of the same places of the buffer as those of an earlier call. "
    "Choose a random chain of the buffer for each of them."
)
SAME_CHAIN = (
    "The chains of a call continue the same chain, or the same few. "
    "Choose for each of them a random chain of the buffer, which keeps up to `cbuffer_size` different ones."
)
ALMOST_EMPTY = (
    "The buffer keeps only one chain, or a few. Add the chains of each call to those that are there, "
    "up to `cbuffer_size`, and choose a random one for each chain."
)
CHANGED_LATER = "The buffer changes if the returned chains are changed in place later. Write copies of the chains."
NOT_PROPORTIONAL = (
    "The chains do not move in proportion to the gradient, or so far that they reach the limits of the image range. "
    "Add step_size · gradient as it is."
)
SHARED_BY_PIXELS = "All pixels of an image get the same noise. Use torch.randn_like(x)."
SHARED_BY_LINES = "Rows, columns or channels of an image get the same noise. Use torch.randn_like(x)."
STILL = (
    "The chains do not follow the gradient. Add step_size · gradient and use the result: x.add(…) does not change x."
)


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
def no_classes(rng):
    """For each call, the classes of the chains: -1 for chains without a class."""
    return -torch.ones(CALLS, 36, dtype=torch.int64)


@inputs
def alternating(rng):
    """Calls with labels and calls for 12 chains without a class in turn; -2 fills the rows. Class 2 comes late.

    There are 30 labels, but in one call only 6, and in one call a single one.
    """
    rows = np.full((CALLS, 36), -2)
    for call in range(CALLS):
        if call % 2:
            rows[call, :12] = -1
        else:
            count = {8: 6, 12: 1}.get(call, 30)
            rows[call, :count] = rng.permutation(np.arange(count) % (CLASSES if call > 1 else 2))
    return torch.from_numpy(rows)


@inputs
def many_labels(rng):
    return torch.from_numpy(rng.permutation(np.arange(MANY) % CLASSES))


@inputs
def paces(rng):
    """How far a step moves the chains of each class, and those without a class."""
    return torch.from_numpy(rng.permutation(np.array([0.1, 0.16, 0.23, 0.29])).astype(np.float32))


@inputs
def few_and_many(rng):
    """A call for FEW chains without a class, then calls with 36 labels 0 or 6 labels 0; -2 fills the rows.

    Then, twice, a call for 36 chains without a class and four calls for FEW. There is a single chain of class 1 in the
    second call, and then a call which continues it.
    """
    rows = np.full((MORE_CALLS, 36), -2)
    rows[0, :FEW] = rows[7:, :FEW] = rows[list(LARGE)] = -1
    for call in range(1, 7):
        rows[call, : 6 if call in (3, 5) else 36] = 0
    rows[1, 0] = rows[3, 6:12] = 1
    return torch.from_numpy(rows)


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
    return torch.from_numpy((0.02 * rng.standard_normal((MORE_CALLS, 36, *SHAPE))).astype(np.float16))


@probe
def moved_by(noise, x, *args, **kwargs):
    """A stand-in for `update`."""
    require(x.dim() == 4, "The initial images must have the shape (B, C, H, W), also for a single chain.")
    return x + noise[: len(x)]


@probe
def needs_size(sampler, labels):
    """Whether calls with labels work only if `sample_size` is their number. Other errors may be random."""
    size, found = sampler.sample_size, {}
    for _ in range(5):
        for tried in (size, len(labels)):
            sampler.sample_size = tried
            try:
                sampler.synthesize_samples(labels.clone(), steps=1)
                found.setdefault(tried, set()).add(True)
            except Exception:
                found.setdefault(tried, set()).add(False)
    return size != len(labels) and found == {size: {False}, len(labels): {True}}


@probe
def chains_over_calls(student, classes, size, drift, noise, others, history, is_changed):
    """The chains of successive calls, one for each noise, and the size of the sampler's tensors afterwards.

    classes: those of the chains in each call. The first calls, `others` of them, are made by another sampler. In the
    call `history`, there are two steps, and all are returned. is_changed: change the result of each call in place. If
    `sampler.buffer` is empty, the size is 0. Before the call RESTORED, a new sampler gets the buffer, and also where a
    call is for another number of chains without a class than before.
    """
    noise = noise.float()
    model = Slope(drift.expand(CLASSES + 1, *drift.shape).clone())
    sizes = (classes == -1).sum(1).tolist()

    def sampler(isolated, sample_size):
        sampler = student.ex_main.MCMCSampler(model, tuple(drift.shape), sample_size, CLASSES, cbuffer_size=size)
        return isolate(sampler, None, keep=("initial_chains", "store")) if isolated else sampler

    def sample(sampler, labels, is_history):
        if is_history:
            try:
                return sampler.synthesize_samples(steps=2, return_img_per_step=True)[-1]
            except Exception:  # is checked in 3.3c
                return sampler.synthesize_samples(steps=2)
        if labels.min() < 0:
            return sampler.synthesize_samples(steps=1)
        try:
            chains = sampler.synthesize_samples(labels, steps=1)
            is_whole = len(chains) == len(labels)
        except (RuntimeError, IndexError, ValueError):
            if not needs_size(sampler, labels):
                raise
            is_whole = False
        require(is_whole, "With labels, there is one chain per label. `sample_size` is only for calls without labels.")
        return chains

    def attempt(isolated):
        count = next((count for count in sizes if count), 0)
        samplers = [sampler(isolated, count), sampler(isolated, count)]
        seen = []
        for call in range(len(noise)):
            is_other = sizes[call] not in (0, count)
            count = sizes[call] or count
            if (is_other or call == RESTORED) and held(getattr(samplers[0], "buffer", None)):
                buffer, samplers[0] = samplers[0].buffer, sampler(isolated, count)
                samplers[0].buffer = buffer
            if is_other:
                samplers[0].sample_size = count  # also if the buffer is kept elsewhere
            chosen = samplers[call < others]
            if isolated:
                chosen.update = partial(moved_by, noise[call])
            labels = classes[call]
            given = labels[labels > -2]
            try:
                chains = sample(chosen, given, call == history)
            except IndexError:
                require(
                    not is_other,
                    "A sampler with another `sample_size` cannot use the buffer. "
                    "It has room for `cbuffer_size` chains, whatever `sample_size` is.",
                )
                raise
            require(given.equal(labels[labels > -2]), "The given labels are changed in place. Use a copy of them.")
            require(chains.dtype == torch.float32, "The chains do not have the type float32, as the network has.")
            seen.append(chains.half())  # half precision, to send less
            if is_changed:
                chains.detach().fill_(CHANGED)
        is_saved = held(getattr(samplers[0], "buffer", None)) > 0
        return {"chains": torch.cat(seen), "held": held(samplers[0]) if is_saved else 0}

    return ways(isolated=lambda: attempt(True), whole=lambda: attempt(False))


@probe
def first_chains(student, classes, size, drift, noise):
    """`chains_over_calls` with a first call of another sampler; new chains must be on the device of the model.

    The device `meta` exists on every machine. Its tensors have no values, so a sampler may also fail there.
    """
    model = Slope(drift.expand(CLASSES + 1, *drift.shape).clone()).to("meta")
    shape = tuple(drift.shape)
    try:
        start, _ = student.ex_main.MCMCSampler(model, shape, 4, CLASSES, cbuffer_size=size).initial_chains(None)
        device = start.device
    except Exception:
        device = model.w.device
    require(device == model.w.device, "The initial chains are not on the device of the model. Create them there.")
    seen = chains_over_calls(student, classes, size, drift, noise, 1, -1, False)
    for way in filter(None, seen.values()):
        del way["held"]
    return seen


@probe
def chains_of_classes(student, classes, size, drift, noise):
    """`chains_over_calls`; before that, `store` gets the place of the last but one call of `initial_chains`.

    A student's program need not have these methods, so they may also fail.
    """
    model = Slope(drift.expand(CLASSES + 1, *SHAPE).clone())

    def is_moved(first, last):
        sampler = student.ex_main.MCMCSampler(model, SHAPE, FEW, CLASSES, cbuffer_size=size)
        labels = [torch.full((36,), label) for label in (first, last)]
        places = [sampler.initial_chains(each.clone())[1] for each in labels]
        sampler.store(torch.full((36, *SHAPE), 0.5), places[0])
        starts = [sampler.initial_chains(each.clone())[0].mean((1, 2, 3)) for each in labels]
        return bool(starts[0].max() < 0.1 < starts[1].max())

    try:
        are_moved = is_moved(0, 1) and is_moved(1, 0)
    except Exception:
        are_moved = False
    require(
        not are_moved,
        "`store` writes chains to the places of the last call of `initial_chains`. Use its argument `place`.",
    )
    return chains_over_calls(student, classes, size, drift, noise, 0, -1, False)


def spreads(rows):
    """The standard deviation of each row: (N, D) -> (N,). `std` takes ten times as long."""
    return (rows - rows.mean(1, keepdim=True)).norm(dim=1) / math.sqrt(rows.shape[1] - 1)


class Calls:
    """The chains of successive calls, (N, pixels); of each chain, (N,): its call, its number there and its class.

    noise: what was added to the chains in each call, or None for the whole sampler.
    """

    def __init__(self, got, want, classes, drift, noise):
        if got["chains"].shape != want["chains"].shape:
            if got["chains"].shape[1:] == want["chains"].shape[1:]:
                fail("The number of chains is wrong: without labels, there are `sample_size` chains in each call.")
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        self.chains, self.shape = got["chains"].float().flatten(1), drift.shape
        if not self.chains.sum().isfinite():
            fail("The chains contain infinite values or NaN.")
        there = classes > -2
        self.call, self.classes = there.nonzero()[:, 0], classes[there]
        self.number = torch.arange(len(self.call)) - torch.searchsorted(self.call, self.call)
        self.drift, self.isolated = drift.flatten(), noise is not None
        self.held = got.get("held", 0)
        if noise is not None:  # with the given noise subtracted, a chain is equal to the one that it continues
            given = noise[: len(classes)].float().flatten(2)[there]
            uncertainty = 3 * self.chains.std() * given.norm()
            if (self.chains * given).sum() + uncertainty < given.square().sum():
                raise Mismatch("The sampler does not call `update`.")
            self.starts = self.chains - given
            patterns, limit = self.chains, 0.6
        else:  # independent patterns of 144 pixels have a correlation of 0 ± 0.08, continued ones of about 0.9
            direction = F.normalize(self.drift, dim=0)
            self.starts = patterns = self.chains - (self.chains @ direction)[:, None] * direction
            limit = 0.5
        self.patterns = patterns
        starts, patterns = (F.normalize(each - each.mean(1, keepdim=True), dim=1) for each in (self.starts, patterns))
        # The index of the earlier chain that each chain continues: the one with the most similar pattern; or -1.
        self.origin = torch.full((len(starts),), -1)
        self.ends = there.sum(1).cumsum(0).tolist()  # of the chains of each call, which follow those of the last one
        for first, end in pairwise(self.ends):
            best, index = (starts[first:end] @ patterns[:first].T).max(1)
            self.origin[first:end] = torch.where(best > limit, index, -1)
        self.is_similar = self.origin >= 0
        if self.isolated:  # with other noise than the given one, 0.02, chains do not continue each other
            is_near = spreads(self.starts - self.chains[self.origin]) < 0.015
            self.is_similar &= ~is_near
            self.origin = torch.where(is_near, self.origin, -1)

    def among(self, first, last=None):
        """The chains of the calls from `first` up to `last`, not included, or to the end."""
        return slice(self.ends[first - 1] if first else 0, self.ends[last - 1] if last else None)

    def judge_fresh(self, first, last=None):
        """Check that the chains which continue no other one start from noise of the right size."""
        chosen = self.among(first, last)
        spread = spreads(self.starts[chosen])  # of new chains: 0.01, and 0.0112 with the noise of a step
        is_changed = (self.isolated & self.is_similar[chosen]) | (spread > 0.02) | (spread < 0.008)
        if is_changed[self.origin[chosen] < 0].float().mean() > 0.2:
            fail(
                "Many chains start neither from noise with standard deviation 0.01 nor exactly from an earlier chain. "
                "New chains start from N(0, 0.01²), the others from exact copies of the chains in the buffer."
            )

    def still(self):
        """Which chains start without noise. In the whole sampler, they contain that of a step, 0.005."""
        return (self.origin < 0) & (self.starts.square().mean(1).sqrt() < (5e-5 if self.isolated else 0.0056))

    def judge_empty(self):
        """Check that no chain starts without noise, as from a place of the buffer that was never filled."""
        still = self.still()
        if still.sum() > 2 and still[self.among(0, 1)].float().mean() < 0.2:  # otherwise all new chains are so
            fail(
                "Some chains start without noise, for example from empty places of the buffer that contain 0. "
                "Start from N(0, 0.01²) where no chain is continued, also if the chosen place is empty."
            )

    def fresh(self, first, last=None):
        """The fraction of the chains in these calls that start from noise."""
        return (self.origin[self.among(first, last)] < 0).float().mean().item()

    def judge_groups(self, first):
        """Check that chains of all classes, and those without a class, are continued, if chains of others are."""
        there = self.call >= first
        shares = {
            label: (self.origin[there & (self.classes == label)] < 0).float().mean().item()
            for label in self.classes[there].unique().tolist()
        }
        new = {label for label, share in shares.items() if share > 0.9}
        others = shares.keys() - new
        if not new or not others:
            return
        group = "Of some classes"
        if min(new) >= 0 > max(others):
            group = "With labels"
        elif max(new) < 0:
            group = "Without labels"
        fail(
            f"{group}, almost all chains start from noise; others do not. "
            "Check how these chains are written to the buffer and read from it."
        )

    def are_changed(self):
        """Which chains start from a chain that was changed in place: all its values are CHANGED."""
        return ((self.chains.mean(1) - CHANGED).abs() < 0.03) & (spreads(self.chains) < 0.03)

    def ages(self, first):
        """How many calls ago the chains that these calls continue were made."""
        chosen = (self.call >= first) & (self.origin >= 0)
        return self.call[chosen] - self.call[self.origin[chosen]]

    def per_call(self, first):
        """The fraction of the chains that start from noise, for each call from this one."""
        return [self.fresh(call, call + 1) for call in range(first, len(self.ends))]

    def added(self):
        """By how much a continued chain differs from the chain of the buffer: the median of standard deviations.

        For the whole sampler, this contains the noise of a step, 0.005.
        """
        continued = self.origin >= 0
        changes = self.starts[continued] - self.patterns[self.origin[continued]]
        return spreads(changes).median().item() if continued.any() else 0.0

    def kept(self, least, calls=None):
        """The largest number of chains that one of the calls continues, each of them at least `least` times."""
        found = []
        for call in calls or range(1, len(self.ends)):
            origins = Counter(self.origin[self.among(call, call + 1)].tolist())
            found.append(sum(count >= least for origin, count in origins.items() if origin >= 0))
        return max(found)

    def judge_choices(self, least):
        """Check that the chains of one class continue several different chains in one call."""
        chains = zip(self.call.tolist(), self.classes.tolist(), self.origin.tolist(), strict=True)
        choices = {(call, label, origin) for call, label, origin in chains if origin >= 0}
        if max(Counter((call, label) for call, label, _ in choices).values(), default=0) < least:
            is_empty = isinstance(self.held, int) and 0 < self.held <= 4 * (CLASSES + 1) * math.prod(self.shape)
            fail(ALMOST_EMPTY if is_empty else SAME_CHAIN)

    def of_one_call(self):
        """How many chains of one call and class are continued later: the mean over those of which any are."""
        origins = self.origin[self.origin >= 0].unique()
        groups = set(zip(self.call[origins].tolist(), self.classes[origins].tolist(), strict=True))
        return len(origins) / max(len(groups), 1)

    def repeated(self, first):
        """How many chains continue one with the same number, and as old, as the chain in their place some calls before.

        It is the largest fraction for 1 to 4 calls before; calls before `first` do not count.
        """
        continued = ((self.origin >= 0) & (self.call >= first)).nonzero().flatten()
        call, number, origins = self.call[continued], self.number[continued], self.origin[continued]
        seen = torch.full((2, len(self.ends), int(self.number.max()) + 1), -1)  # of each place: age and number, or -1
        seen[:, call, number] = torch.stack([call - self.call[origins], self.number[origins]])
        shares = [0.0]
        for lag in range(1, 5):
            now, before = seen[:, lag:], seen[:, :-lag]
            same = (now == before).all(0)[(now[0] >= 0) & (before[0] >= 0)]
            if len(same) > 20:
                shares.append(same.float().mean().item())
        return max(shares)

    def forgotten(self):
        """The number of places in a call whose chains are never continued; 0 if these are the first ones.

        The first chains of a call are lost if there is less room than for a call, which is another mistake.
        """
        continued = self.number[self.origin[self.origin >= 0]].unique()
        count = int(self.number.max()) + 1
        are_last = continued.equal(torch.arange(count - len(continued), count))
        return 0 if are_last else count - len(continued)

    def continued_later(self, chosen):
        """How many of the chosen chains are continued later, and how many of them there are, without the last call."""
        numbers = (chosen & (self.call < self.call.max())).nonzero().flatten()
        return torch.isin(numbers, self.origin).sum().item(), len(numbers)

    def follows_drift(self):
        """Whether the mean of the moves has the direction of the hidden gradient, with any factor and sign."""
        continued = self.origin >= 0
        moves = self.chains[continued] - self.chains[self.origin[continued]] if continued.any() else self.chains
        return bool(torch.corrcoef(torch.stack([moves.mean(0), self.drift]))[0, 1].abs() > 0.5)


def judge_calls(got, want, classes, drift, noise, judge):
    """Accept the observation of the whole sampler or that of its methods, if `judge` accepts it: see `Calls`."""

    def judge_way(way, want_way):
        calls = Calls(way, want_way, classes, drift, noise if want_way is want["isolated"] else None)
        judge(way, calls)
        if not calls.isolated and calls.chains.abs().max() > 1.01:
            fail("The chains leave the image range.")
        if not calls.isolated and not calls.follows_drift():
            fail("The chains do not follow the gradient of the network.")

    assert_either_way(got, want, judge_way)


@exercise("3.3a", points=1, public=True, hint="New chains are Gaussian noise with mean 0 and standard deviation 0.01.")
def test_first_chains_are_small_noise(run, no_classes, drift, noise):
    """While the buffer is empty, all chains start from N(0, 0.01²)."""
    classes = no_classes[:2]  # the first call is that of another sampler
    drift, noise = drift.view(TWO_CHANNELS), noise[:2].view(2, 36, *TWO_CHANNELS)
    got, want = run(first_chains, classes, 64, drift, noise)

    def judge(got, calls):
        starts = calls.starts[calls.among(1, 2)]
        spread = starts.std().item()
        if spread > 0.4 or abs(starts.mean().item()) > 0.4:
            fail("The initial values of the chains are too large, or far from 0. New chains start from N(0, 0.01²).")
        if calls.still()[calls.among(1, 2)].float().mean() > 0.2:
            fail("All or many chains start almost without noise. New chains start from N(0, 0.01²).")
        if (starts - starts.mean(1, keepdim=True)).std() < spread / 2:
            fail("All pixels of a chain start from the same value. Draw noise for each pixel.")
        if (starts - starts.mean(0)).std() < spread / 2:
            fail("All chains start from the same noise. Draw noise for each chain.")
        if shared_along(starts.unflatten(1, calls.shape)):
            fail("Rows, columns or channels of a chain start from the same noise. Draw noise for each pixel.")
        others = calls.starts[calls.among(0, 1)]
        is_same = (starts - others).std() < spread  # it is √2 · spread for independent noise
        if calls.fresh(1) < 0.9 and (calls.isolated or not is_same):
            fail("A new sampler continues chains of another one. Keep the buffer in `self`, which each sampler has.")
        if is_same:
            fail("The initial noise is the same in two calls of `initial_chains`. Draw new noise in each call.")
        if abs(starts.mean().item()) > max(0.002, 0.1 * spread):  # that of wide noise is 0.014 · spread
            fail("The mean of the initial noise is not 0. Use START_STD · randn, as it is.")
        # The kurtosis is 3 for Gaussian and 1.8 for uniform noise; 5,184 numbers estimate it within 0.07. In the whole
        # sampler, the noise of a step makes it 2.2 for uniform noise.
        kurtosis = starts.pow(4).mean() / starts.square().mean().square()
        if not 2.55 < kurtosis < 3.7:
            fail("The initial noise is not Gaussian. Use START_STD · randn, as it is.")
        # 5,184 numbers estimate the spread within 1 %. The chains of the whole sampler contain the noise of a step,
        # 0.0112 in total, or of two steps. With other noise than the given one, the spread would be 0.02 or more.
        largest = 0.0115 if calls.isolated else 0.016
        if spread <= 0.0085:
            fail("The initial noise is too small. It should have the standard deviation 0.01, which is START_STD.")
        if not spread < largest:
            fail("The initial noise is too large. It should have the standard deviation 0.01, which is START_STD.")

    judge_calls(got, want, classes, drift, noise, judge)


def shared_along(noise):
    """Whether noise (B, C, H, W) is the same along the channels, rows or columns."""
    return any(
        (noise - noise.mean(axis, keepdim=True)).std() < noise.std() / 2 for axis in (1, 2, 3) if noise.shape[axis] > 1
    )


def judge_persistence(calls):
    """Check that most chains continue others and about 5 % start from noise."""
    fresh, count = calls.fresh(FILLED), len(calls.call[calls.among(FILLED)])
    # Of 324 chains, 5 % ± 1.2 % (standard deviation) start from noise, and more while some places are empty. Fewer
    # chains do not show that none does. `judge_share` estimates the share with more chains.
    most = 0.16 if count > 300 else 0.2
    calls.judge_empty()
    is_all_or_none = {0.0, 1.0} == set(calls.per_call(FILLED))
    is_restored_fresh = calls.fresh(RESTORED, RESTORED + 1) > 0.9 and calls.fresh(FILLED, RESTORED) < 0.5
    if is_restored_fresh and not is_all_or_none:
        fail(
            "A new sampler with the buffer of another one, as after loading a checkpoint, starts from noise. "
            "Keep everything that the buffer needs in `self.buffer`, which is saved."
        )
    if fresh > most:
        calls.judge_fresh(FILLED)
    if fresh > 0.99:
        number = "No" if fresh == 1 else "Almost no"
        fail(
            f"{number} chain continues one of an earlier call. "
            "Check that the chains after the last step are written to the buffer, and that chains are read from it."
        )
    calls.judge_groups(FILLED)
    if 0.92 < fresh < 0.975:
        fail("Most chains start from noise, but only about 5 % should. Check the comparison with FRESH_SHARE.")
    if fresh > 0.9:
        fail("Most chains start from noise, but only about 5 % should. Continue chains of the buffer.")
    if is_all_or_none:
        fail("In a call, all chains start from noise, or none. Choose for each chain separately.")
    if count > 300 and max(calls.per_call(FILLED)) > 0.9:  # in each call, there are 36 chains
        fail(
            "In some calls, almost all chains start from noise. About 5 % of each call should: "
            "decide for each chain, write all chains to the buffer, and never empty it."
        )
    if fresh < 0.012 and count > 300:
        fail(
            "In the calls of this test, almost no chain starts from noise. "
            "About 5 % should: decide for each chain, not once for a whole call."
        )
    if fresh > most:
        fail(
            "Too many chains start from noise. About 5 % should: check FRESH_SHARE, "
            "that all chains are written to the buffer, and that its filled places are chosen."
        )
    calls.judge_choices(4 if count > 300 else 2)
    if calls.repeated(FILLED) > 0.5:
        fail(NOT_RANDOM)


@exercise(
    "3.3a",
    points=1,
    public=True,
    hint="Most chains continue chains of the buffer, which is kept between calls. About 5 % start from noise.",
)
def test_chains_continue_from_the_buffer(run, no_classes, drift, noise):
    """Most chains continue random chains of earlier calls, and about 5 % start from noise."""
    got, want = run(chains_over_calls, no_classes, SIZE, drift, noise[:CALLS], 0, -1, False)

    def judge(got, calls):
        judge_persistence(calls)
        # After one call, 23 or more of the 80 places are filled, so about 12 of 36 chains continue others.
        if calls.fresh(1, 2) > 0.95:
            calls.judge_fresh(1, 2)
            fail(
                "Almost no chain of the second call continues one of the first. Write the chains of the first call, "
                "and use the chains of the buffer as soon as there are some, not only when it is full."
            )
        if (calls.ages(FILLED) == 1).float().mean() < 0.02:
            late = calls.origin[(calls.call >= FILLED) & (calls.origin >= 0)]
            if (calls.call[late] <= 2).float().mean() > 0.9:
                fail(
                    "Later calls continue only chains of the first calls. "
                    "If the buffer is full, new chains replace older ones, and may then be chosen."
                )
            fail("Almost no chain of the previous call is continued. New chains replace older ones and may be chosen.")
        # A chain that is written is continued with a probability of 0.5 or more, and at least 13 start from noise.
        later, number = calls.continued_later((calls.origin < 0) & (calls.call > 0))
        if number > 8 and later == 0:
            fail(
                "In the calls of this test, chains that start from noise are not continued, "
                "except those of the first call. Write all chains to the buffer."
            )
        # A chain is continued with a probability of 0.5 or more, so 13 chains at the same place with 0.9999.
        if calls.forgotten() > 5:
            fail(
                "In the calls of this test, the chains at some places of the batch are not continued. "
                "Write all of them to the buffer, and choose from all of them."
            )
        # The given noise is subtracted up to half precision, 0.0001. The whole sampler has 0.0050, with initial noise
        # 0.0112. Rounding to 256 values adds 0.0023, so the whole sampler has 0.0055.
        added = calls.added()
        if 0.001 < added < 0.003 if calls.isolated else 0.0053 < added < 0.006:
            fail("Continued chains are slightly changed, for example rounded. Write exact copies to the buffer.")
        if added > 0.003 if calls.isolated else 0.0095 < added < 0.0125:
            fail(
                "Continued chains are changed before the first step or when they are written, for example by noise. "
                "Start exactly from the chain of the earlier call."
            )

    judge_calls(got, want, no_classes, drift, noise, judge)


### BEGIN HIDDEN TESTS
@probe
def starts_of_many(student, classes, paces, calls):
    """The means of many chains after one step, (2, calls, B): with the given labels, and without labels.

    A step moves each chain by the pace of its class, so new chains are there then, and others at least twice as far. In
    each call, there are as many chains of a class, or without a class, as the buffer has places for them. `few` has the
    means of later calls with some of the labels, (16, BELOW_20).
    """
    shape = 1, 8, 8
    model = Slope((paces / 10)[:, None, None, None].repeat(1, *shape))

    def attempt(isolated):
        def means(labels):
            if isolated:
                way = paces[labels] if labels is not None else paces[-1:].expand(len(classes))
                sampler.update = partial(moved_by, way[:, None, None, None])
            return sampler.synthesize_samples(labels, steps=1).flatten(1).mean(1)

        seen, few = [], []
        for labels, size in ((classes, len(classes) // CLASSES), (None, len(classes))):
            sampler = student.ex_main.MCMCSampler(model, shape, len(classes), CLASSES, cbuffer_size=size)
            if isolated:
                isolate(sampler, None, keep=("initial_chains", "store"))
            seen += [means(labels) for _ in range(calls)]
            if labels is not None:
                few += [means(labels[:BELOW_20]) for _ in range(16)]
        return {"values": torch.stack(seen).view(2, calls, -1), "few": torch.stack(few)}

    return ways(whole=lambda: attempt(False), isolated=lambda: attempt(True))


def judge_share(got, want, classes, paces):
    """Check the share of the chains that start from noise: overall, without labels, with labels and in each class."""
    values = got["values"]
    if values.shape != want["values"].shape:
        raise Mismatch("The chains must have the shape (B, C, H, W).")
    own_paces = torch.stack([paces[classes], paces[-1:].expand(len(classes))])[:, None]
    # The standard deviation is 0.002, and 0.013 if the initial noise is ten times too large, which is checked above.
    is_new, is_old = (values / own_paces - 1).abs() < 0.45, values > 1.55 * own_paces
    if not is_new[:, 0].all():
        fail(
            "In the first call, some chains do not start from N(0, 0.01²), or move by other steps. "
            "No chain was stored before, so all of them should be new."
        )
    if not (is_new | is_old).all():
        fail(
            "Some chains start neither from N(0, 0.01²) nor from a chain that an earlier call has stored, "
            "or move by other steps."
        )
    labelled, free = is_new[:, FULL:].float()  # before, more chains are new
    for label in range(CLASSES):
        shares = labelled[:, classes == label].mean(1)
        if shares.max() > 0.9 > labelled.mean():
            is_whole = ((shares > 0.9) | (shares < 0.01)).all()
            fail(
                "All chains of a class start from noise, or none. Decide for each chain separately."
                if is_whole and shares.min() < 0.01
                else "In some calls, almost all chains of a class start from noise. About 5 % of them should."
            )
    groups = {"With labels": labelled, "Without labels": free}
    of_classes = [("With the labels of one class", labelled[:, classes == label]) for label in range(CLASSES)]
    for name, group in [*groups.items(), *of_classes]:
        if group.mean() < 0.012:
            fail(
                f"{name}, almost no chain starts from noise in the calls of this test. "
                "About 5 % should: decide for each chain, not once for a whole call."
            )
    # Of 2,400 chains, 5.3 ± 0.5 % start from noise, as some places are still empty.
    for name, group in groups.items():
        if not 0.033 < group.mean() < 0.077:
            number = "too few" if group.mean() < 0.05 else "too many"
            fail(f"{name}, {number} chains start from noise. On average, FRESH_SHARE (5 %) of them should.")
    few, own_paces = got["few"], paces[classes[:BELOW_20]]
    if few.shape != want["few"].shape:
        raise Mismatch("The chains must have the shape (B, C, H, W).")
    is_new, is_old = (few / own_paces - 1).abs() < 0.45, few > 1.55 * own_paces
    if not (is_new | is_old).all():
        raise Mismatch("Some chains of smaller calls start neither from N(0, 0.01²) nor from the buffer.")
    if is_old.all():  # of 304 chains; for a right sampler, this has a probability of 2e-7
        fail(
            f"Of {BELOW_20} chains in a call, none ever starts from noise. "
            "Decide for each chain whether it does, instead of rounding their number."
        )


@exercise(
    "3.3a", points=1, hint="With labels, a chain continues a chain of its own class. Keep a buffer for each class."
)
def test_buffer_is_kept_per_class(run, alternating, many_labels, paces, drift, noise):
    """With labels, chains continue chains of their own class; without labels, chains without a class."""
    got, want = run(chains_of_classes, alternating, 12, drift, noise[:CALLS])

    def judge(got, calls):
        continued = calls.origin >= 0
        now, before = calls.classes[continued], calls.classes[calls.origin[continued]]
        other = now != before
        if len(now[other & (before == -1)].unique()) > 1:
            fail(
                "Chains of several classes continue chains without a class, so they are mixed. "
                "Keep a buffer for each class, and one for chains without a class."
            )
        if (other & (now >= 0) & (before >= 0)).any():
            fail(
                "Some chains continue chains of another class. "
                "Write each chain to the buffer of its own class, and continue only chains of this buffer."
            )
        if (other & (now >= 0)).any() and (other & (now < 0)).any():
            fail("Chains without a class and chains of a class continue each other. Keep them in buffers of their own.")
        if (other & (now >= 0)).any():
            fail("Chains of a class continue chains without a class. Keep these in a buffer of their own.")
        if other.any():
            fail("Chains without a class continue chains of a class. Keep them in a buffer of their own.")
        judge_persistence(calls)
        if calls.of_one_call() < 2:
            fail(
                "Of several chains of one class in a call, hardly more than one is continued later. Write all of them."
            )

    judge_calls(got, want, alternating, drift, noise, judge)
    got, want = run(starts_of_many, many_labels, paces, FULL + 8)
    assert_either_way(got, want, partial(judge_share, classes=many_labels, paces=paces))


@exercise(
    "3.3a",
    points=1,
    hint="Keep at most `cbuffer_size` chains per class, for example in a tensor of fixed size.",
    needs=(test_chains_continue_from_the_buffer,),
)
def test_buffer_is_bounded(run, no_classes, few_and_many, drift, noise):
    """The buffer keeps copies of `cbuffer_size` chains per class, and not more."""
    size, classes = 3, no_classes[:8]
    got, want = run(chains_over_calls, classes, size, drift, noise[:8], 0, 6, True)

    def judge(got, calls):
        if calls.are_changed().float().mean() > 0.2:
            fail(CHANGED_LATER)
        if got["held"] == 0:
            fail("The chains are not in `self.buffer`, so they are not saved in checkpoints. Keep them there.")
        # Buffers for each class and for chains without a class, and a few copies of the batch.
        limit = ((CLASSES + 1) * size + 3 * 36) * math.prod(SHAPE)
        if not isinstance(got["held"], int) or got["held"] > limit:
            fail("The sampler keeps many more chains than it may. Keep at most `cbuffer_size` chains per class.")
        kept = calls.kept(1 if calls.isolated else 3)  # a few origins are wrong for the whole sampler
        if kept > size or calls.kept(2) > size + 2:  # of 36 places, 9 are chosen twice or more
            fail(
                "Chains without a class continue more than `cbuffer_size` different chains. "
                "Keep at most as many of them, in a place of their own."
            )
        ages = calls.ages(2)
        last = ages[-(calls.origin[calls.among(7)] >= 0).sum() :]  # of the call after that which returns every step
        if (last > 1).float().mean() > 0.5 > (ages > 1).float().mean():
            fail("A call that returns every step does not write its chains to the buffer.")
        if kept < size or got["held"] < size * math.prod(SHAPE):
            fail(
                "Fewer than `cbuffer_size` different chains are kept or continued. "
                "Keep as many for each class, and choose any of them."
            )

    judge_calls(got, want, classes, drift, noise, judge)

    def judge_few(got, calls):
        if calls.are_changed().sum() > 1:
            fail(CHANGED_LATER)
        # A call for 36 chains continues about 16 of 20 chains. The limits allow for wrong origins of the whole sampler.
        many = (2, 4, 6)  # calls with 36 labels
        if calls.kept(1, many) < 2:
            fail("Chains of a class are hardly continued. Write them to the buffer of their class.")
        if calls.kept(1, many) <= FEW:
            fail(
                "A call continues at most as many different chains of a class as `sample_size`. "
                "Keep up to `cbuffer_size` of them, and choose any."
            )
        if calls.kept(1, many) < 12:
            fail(
                "Only some of the chains of a class are kept or continued. "
                "Keep up to `cbuffer_size` of them, and choose any."
            )
        if calls.kept(1, (4, 6)) < 11:  # after calls for 6 chains
            fail(
                "After a call for fewer chains of a class, only a few different chains of it are continued. "
                "Keep those of earlier calls as long as there is room for them, and choose any."
            )
        if calls.kept(1, many) > 24:
            fail("Chains of a class continue more than `cbuffer_size` different chains. Keep at most as many of each.")
        if calls.repeated(4) > 0.5:
            fail(NOT_RANDOM)
        # Of the chains of a call for 36 without a class, the next four calls for FEW continue about 8 or more.
        following = [calls.origin[calls.among(first + 1, first + 5)].unique() for first in LARGE]
        numbers = [
            int((calls.call[origins[origins >= 0]] == first).sum())
            for origins, first in zip(following, LARGE, strict=True)
        ]
        if max(numbers) <= FEW:
            fail(
                "Of many chains without a class, later calls continue at most as many as their `sample_size`. "
                "Keep up to `cbuffer_size` of them, from several calls, and choose any."
            )

    got, want = run(chains_over_calls, few_and_many, 20, drift, noise, 0, -1, True)
    judge_calls(got, want, few_and_many, drift, noise, judge_few)


### END HIDDEN TESTS


@probe
def travelled(history):
    """The change of each pixel from the first to the last entry; NaN for pixels near the limits of the image range."""
    return torch.where(history[0].abs() < 0.7, history[-1] - history[0], torch.nan)


def judge_spread(moves, limit):
    """Check that chains with the same gradient make similar moves (B, C, H, W)."""
    if (moves - moves.mean(0)).std() > limit:
        fail(
            "Chains with the same gradient move apart much more than they should. "
            "The standard deviation of the noise of a step should be NOISE_STD, 0.005."
        )


def known(moves):
    """The moves (B, C, H, W) with NaN where they are unknown; some are known for almost all pixels."""
    moves = torch.where(moves == UNKNOWN, torch.nan, moves)
    if moves.isnan().all(0).float().mean() > 0.1:
        fail("Most initial values lie near the limits of the image range. New chains start from N(0, 0.01²).")
    return moves


def follow(moves, slopes):
    """Whether the moves are proportional to the slopes, with any factor and sign, for checks about something else.

    In the image range [-1, 1], no pixel can move by more than 2.
    """
    near = slopes.abs() < 0.03  # other pixels are clamped
    if moves.shape != slopes.shape or not moves.abs().max() < 2.01:
        return False
    return bool(torch.corrcoef(torch.stack([moves[near], slopes[near]]))[0, 1].abs() > 0.8)


@probe
class Unnamed(Slope):
    """A network whose arguments have no names: samplers call all networks with positional arguments.

    The gradient of f at x is slopes[y] + curvature · x.
    """

    def __init__(self, slopes, curvature=0.0):
        super().__init__(slopes)
        self.curvature = curvature

    def forward(self, *arguments, **named):
        require(not named, "Call the network with positional arguments, `model(x)` or `model(x, y)`, not by name.")
        return super().forward(*arguments) + self.curvature / 2 * arguments[0].square().flatten(1).sum(1)


@probe
def gradient_at(student, slopes, labels, start):
    """The gradient that the sampler uses: the result of `gradient`, and how far the chains of each class move.

    `curved` is the result of `gradient` for a network that is not linear.
    """

    def sampler(curvature=0.0):
        model = Unnamed(slopes, curvature).requires_grad_(False)  # as it is while chains are sampled
        return student.ex_main.MCMCSampler(model, tuple(slopes.shape[1:]), len(labels), CLASSES, cbuffer_size=64)

    def direct():
        x, own = start.clone(), sampler()
        value = own.gradient(x, labels)
        seen = {"value": value.detach().clone(), "graph": value.requires_grad}
        seen["again"] = own.gradient(x, labels).detach()
        return seen | {"curved": sampler(CURVATURE).gradient(start.clone(), labels).detach()}

    def moved():  # two steps, because at the initial images f is 0
        return sampler().synthesize_samples(labels, steps=2, step_size=5) / 10

    def on_the_way():  # independent of the initial images
        return travelled(sampler().synthesize_samples(labels, steps=2, step_size=4, return_img_per_step=True)) / 4

    def mean(chains):
        classes = torch.stack([chains[labels == label].nanmean(0) for label in range(CLASSES)]).nan_to_num(UNKNOWN)
        return {"value": classes[labels], "has_method": hasattr(sampler(), "gradient")}

    return ways(
        direct=direct,
        on_the_way=lambda: mean(on_the_way()),
        moved=lambda: mean(moved()),
    )


def images_without(value, right):
    """Whether some images have the right gradient, and the others have none."""
    is_zero = value.flatten(1).abs().amax(1) == 0
    is_right = (value - right).flatten(1).abs().amax(1) < 0.0022
    return bool(is_zero.any() and is_right.any() and (is_zero | is_right).all())


def judge_gradient(got, want, slopes, labels, start):
    value, unclamped = got["value"], slopes[labels]
    clamped = unclamped.clamp(-0.03, 0.03)
    if value.shape == clamped.shape:
        value = known(value)
        value = torch.where(value.isnan(), clamped, value)
    if value.shape == clamped.shape and not got.get("has_method", True):
        # Without a method `gradient`, only the moves are known. Their length and sign are checked in 3.3c.
        near = unclamped.abs() < 0.03
        factor = (value * clamped)[near].nanmean() / clamped[near].square().mean()
        value = value / factor if factor.abs() > 0.1 else value

    larger = "The gradient is not clamped to ±0.03: some values are larger. Use GRADIENT_CLAMP."

    def wrong():
        f, others = (unclamped * start).sum((1, 2, 3), keepdim=True), slopes[-1:].expand_as(clamped)
        is_small = (unclamped * start).sum((1, 2, 3), keepdim=True).abs() < 0.03
        ignored = "The labels are ignored. Pass them to the network."
        if not labels.any():
            ignored = "Labels that are all 0 are ignored. Test `clabel is None` instead of the value of the labels."
        return {
            "The gradient is 0. Differentiate f with respect to the images.": 0 * clamped,
            larger: unclamped,
            "The gradient is clamped on one side only. Clamp it to ±0.03.": nearest(
                value, unclamped.clamp(max=0.03), unclamped.clamp(min=-0.03)
            ),
            "Values of one sign are set to 0. Clamp the gradient to ±0.03.": nearest(
                value, clamped.clamp(min=0), clamped.clamp(max=0)
            ),
            "Large values of the gradient are set to 0. Clamp them to ±0.03.": unclamped * (unclamped.abs() < 0.03),
            "The output f of the network is clamped. Clamp its gradient instead.": unclamped * is_small,
            "Only the sign of the gradient is used. Clamp its values to ±0.03.": 0.03 * unclamped.sign(),
            "The sign is wrong: this is the gradient of the energy E. Compute the gradient of f = -E.": nearest(
                value, -clamped, -unclamped
            ),
            ignored: slopes[-1:].clamp(-0.03, 0.03).expand_as(clamped),
            "The gradient is divided by the batch size. Differentiate the sum of f over the batch, not the mean.": (
                unclamped / len(labels)
            ),
            "These are absolute values. The gradient has a sign.": clamped.abs(),
            "This is the gradient of log q(y|x). Differentiate f(x, y) alone.": (unclamped - others).clamp(-0.03, 0.03),
            "This is the gradient of f(x, y) + f(x). Differentiate f(x, y) alone.": (unclamped + others).clamp(
                -0.03, 0.03
            ),
            "This is the gradient of exp(f). Differentiate f itself.": (f.exp() * unclamped).clamp(-0.03, 0.03),
            "This is the gradient of f². Differentiate f itself.": (2 * f * unclamped).clamp(-0.03, 0.03),
            "The labels are in another order. Use the label of each image.": slopes[labels.flip(0)].clamp(-0.03, 0.03),
            "All images get the gradient for the same class. Use each image's own label.": nearest(
                value, *(slope.clamp(-0.03, 0.03).expand_as(clamped) for slope in slopes[:-1])
            ),
            (
                "The gradient is limited by a smooth function such as tanh. "
                "Clamp it, so that smaller values do not change."
            ): 0.03 * (unclamped / 0.03).tanh(),
            "The gradient is averaged over the channels. Return one value for each pixel and channel.": (
                unclamped.mean(1, keepdim=True).clamp(-0.03, 0.03).expand_as(clamped)
            ),
            "Only some images have a gradient. Differentiate the sum of f over the batch.": proven(
                value.shape == clamped.shape and images_without(value, clamped), value, clamped
            ),
        }

    def fitted():
        largest = value.abs().max().item()
        factors = (value * unclamped).flatten(1).sum(1) / unclamped.square().flatten(1).sum(1)
        limits = unclamped.clamp(-largest, largest)
        return {
            larger: limits if largest > 0.03 else clamped,
            "The gradient is clamped to less than ±0.03. Use GRADIENT_CLAMP.": limits if largest < 0.03 else clamped,
            "The clamped gradient is multiplied by a number. Return it as it is.": multiple(value, clamped),
            "The gradient of each image is scaled, for example to a norm. Clamp each value to ±0.03.": (
                unclamped * factors[:, None, None, None]
            ),
        }

    def mistakes():  # several of them may be nearer to the value than the tolerance below: the nearest comes first
        if value.shape != clamped.shape:
            return wrong()
        noise = 0.0022 if "has_method" in got else 1e-5
        known = dict(sorted(wrong().items(), key=lambda item: (value - item[1]).abs().mean()))
        return {name: each for name, each in {**known, **fitted()}.items() if (value - each).abs().max() < noise}

    # The noise in the mean of twelve chains is 0.011 / 3.5 / 10 = 0.0003; the tolerance is seven times that.
    assert_close(
        value,
        clamped,
        rtol=0,
        atol=0.0022,
        mistakes=mistakes,
    )


@exercise(
    "3.3b",
    points=1,
    public=True,
    hint="Differentiate the sum of f(x, y) with respect to the images, and clamp the gradient to ±0.03.",
)
def test_gradient_at_the_images(run, slopes, labels, start):
    """The chains follow the clamped gradient of f(x, y) with respect to the images."""
    for classes, shape in ((labels, SHAPE), (0 * labels, TWO_CHANNELS)):
        slopes, start = slopes.view(-1, *shape), start.view(-1, *shape)
        got, want = run(gradient_at, slopes, classes, start)
        judge = partial(judge_gradient, slopes=slopes, labels=classes, start=start)
        assert_either_way(got, want, judge)
        direct = got["direct"]
        if direct and want["direct"] and difference(direct["value"], want["direct"]["value"], 0, 1e-5) is None:
            if difference(direct["curved"], want["direct"]["curved"], 0, 1e-5):
                fail("The gradient is not that at the given images. Differentiate f at x itself.")
            if direct["graph"] is not False:
                fail("The gradient is not detached. Detach it, and do not use create_graph.")
            if difference(direct["again"], direct["value"], 0, 1e-5):
                fail(
                    "A second call with the same images returns another gradient. Use a copy of x, or set x.grad to 0."
                )


@probe
def after_error(sampler, model):
    """The state of the network and the modes of its part after an exception in the context manager, if there is one."""
    model.part.train(not model.training)
    model.part[0].train(model.training)
    is_enabled = torch.is_grad_enabled()
    for error in (RuntimeError, ZeroDivisionError):
        is_hidden = False
        try:
            with sampler.sampling_mode():
                raise error
            is_hidden = True
        except (error, AttributeError, TypeError):
            state = [parameter.requires_grad for parameter in model.parameters()]
            state += [model.training, torch.is_grad_enabled() == is_enabled]
        require(
            not is_hidden, "`sampling_mode` hides an exception in the `with` block. Use `finally` without `except`."
        )
    return state, [module.training for module in model.part.modules()]


@probe
def side_effects(student, slopes, labels, start, training):
    """How sampling changes the network, in train mode with gradients or in eval mode without, and the moves."""

    def sample(isolated):
        model = Slope(slopes)
        model.w.grad = torch.tensor(0.5)  # of a loss, for example
        model.other = nn.Parameter(torch.ones(()))
        model.part = nn.Sequential(nn.Linear(1, 1))
        model.train(not training)
        sampler = student.ex_main.MCMCSampler(model, SHAPE, len(labels), CLASSES, cbuffer_size=64)
        # The state changes after the sampler was created.
        model.train(training).other.requires_grad_(False)
        model.part.train(not training)[0].train(training).weight.requires_grad_(False)
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
            requires_grad = [parameter.requires_grad for parameter in model.parameters()]
            mode, is_restored = model.training, torch.is_grad_enabled() == training
            torch.set_grad_enabled(training)
            parts_before = [module.training for module in model.part.modules()]
            after, parts = after_error(sampler, model)
            return {
                "moves": torch.stack([way[labels == label].mean(0) for label in range(CLASSES)]),
                "gradients_on": all(model.gradients_on),
                "detached": not chains.requires_grad,
                "requires_grad": requires_grad,
                "parameter_gradient": 0.0 if model.w.grad is None else model.w.grad.item(),
                "eval_mode": not any(model.in_training),
                "training": mode,
                "grad_mode": is_restored,
                "frozen": all(model.is_frozen),
                "all_frozen": all(model.all_frozen),
                "after_error": after,
                "parts": parts,
                "parts_without_error": parts_before,
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
    observed = [run(side_effects, slopes, labels, start, training) for training in (False, True)]
    with_gradients = [way["gradients_on"] for way in observed[1][0].values() if way]
    for got, want in observed:
        judge = partial(judge_side_effects, slopes=slopes, is_on=any(with_gradients))
        assert_either_way(got, want, judge)
    for got, want in observed:
        assert_either_way(got, want, judge_parts)


### END HIDDEN TESTS


def judge_parts(got, want):
    if got["parts"] != want["parts"]:
        if got["parts_without_error"] == want["parts_without_error"]:
            fail("After an exception while sampling, the mode of a submodule is not restored. Use try and finally.")
        fail(
            "After sampling, the mode of a submodule is not restored. Store the mode of each module, also nested ones."
        )


def judge_side_effects(got, want, slopes, is_on):
    """is_on: whether gradients are computed where they are enabled outside of the sampler."""
    is_frozen = any(
        before and not after for before, after in zip(want["requires_grad"], got["requires_grad"], strict=False)
    )
    mode = "stays in eval mode. Store its mode before you call eval()"
    if got["training"] is True:
        mode = "is in train mode, although it was in eval mode before. Store its mode"
    is_deleted = got["parameter_gradient"] == 0
    sentences = {
        "gradients_on": (
            "Sampling does not work inside torch.no_grad(). Use torch.enable_grad()."
            if is_on
            else "The network is called without gradients, or for images that require none. Enable both."
        ),
        "detached": (
            "The samples are not detached. `gradient` should use a detached copy of x and return a detached tensor, "
            "and so should `update`."
        ),
        "requires_grad": "After sampling, requires_grad of the parameters is not restored. "
        + (
            "Parameters stay frozen. Store requires_grad before you freeze them, and restore it."
            if is_frozen
            else "Parameters that were frozen before are not frozen any more. Restore requires_grad of each of them."
        ),
        "parameter_gradient": (
            "Sampling deletes .grad of the parameters. Keep the gradients from before: use no zero_grad."
            if is_deleted
            else "Sampling changes .grad of the parameters. Set requires_grad to False while sampling."
        ),
        "eval_mode": "The network or a part of it is in train mode during sampling. Switch it to eval mode.",
        "training": f"After sampling, the mode of the network is not restored: it {mode}, and restore it afterwards.",
        "grad_mode": "After sampling, the grad mode is not restored. Use `with torch.enable_grad()`.",
        "frozen": "The parameters require gradients during sampling. Set requires_grad to False.",
        "all_frozen": "The parameters of some layers require gradients during sampling. Freeze those of all modules.",
        "after_error": (
            "After an exception while sampling, the network or the grad mode is not restored. Use try and finally."
        ),
    }
    for name, sentence in sentences.items():
        if got[name] != want[name]:
            fail(sentence)
    if follow(got["moves"], slopes[-1:].expand_as(slopes[:-1])):
        fail("The labels are ignored. Pass them to the network.")
    if not follow(got["moves"], slopes[:-1]):
        fail("The chains do not move in proportion to the gradient of f(x, y), each with its own label.")


@probe
def chains_after(student, slopes, start, steps, step_size, history, isolated):
    """The chains after some steps: with a given gradient and start (isolated), or of the whole sampler."""
    shape = tuple(slopes.shape[1:])
    sampler = student.ex_main.MCMCSampler(Slope(slopes), shape, len(start), CLASSES, cbuffer_size=64)
    if isolated:
        isolate(sampler, torch.zeros_like(start), keep=("update",), gradient=slopes[-1:].clamp(-0.03, 0.03))
    chains = sampler.synthesize_samples(steps=steps, step_size=step_size, return_img_per_step=history)
    return {"chains": chains}


@probe
def steps_from(student, slopes, start, steps, step_size, history):
    def attempt(isolated):
        seen = chains_after(student, slopes, start, steps, step_size, history, isolated)
        require(
            history or seen["chains"].dtype == torch.float32,
            "After a step, the chains do not have the type float32, as the network has.",
        )
        return seen

    return ways(isolated=lambda: attempt(True), whole=lambda: attempt(False))


@probe
def moves_of(student, slopes, start, steps, step_size):
    """How far the chains move in all steps; `on_the_way` is independent of the initial images.

    `mixed` tells whether `update` moves the images by the gradients of others.
    """
    settings = student, slopes, start, steps, step_size
    labels = torch.arange(len(start)) % CLASSES
    try:
        sampler = student.ex_main.MCMCSampler(
            Slope(slopes), tuple(slopes.shape[1:]), len(start), CLASSES, cbuffer_size=64
        )
        gradient = slopes[labels].clamp(-0.01, 0.01)
        rest = sampler.update(0 * start, gradient.clone(), 10.0) - 10 * gradient
        # The means over the images of a class contain little noise, and their errors have the mean 0.
        of_classes = torch.stack([rest[labels == label].mean(0) for label in range(CLASSES)])
        is_mixed = of_classes.mean(0).abs().max() < 0.01 < 0.05 < of_classes.abs().max()
    except Exception:  # a student's program need not have this method
        is_mixed = False
    require(not is_mixed, "An image is moved by the gradients of other images. Use for each image its own gradient.")

    def on_the_way():
        history = chains_after(*settings, True, False)["chains"]
        return {"chains": (travelled(history) * steps / (steps - 1)).nan_to_num(UNKNOWN)}

    return ways(
        isolated=lambda: chains_after(*settings, False, True),
        on_the_way=on_the_way,
        whole=lambda: chains_after(*settings, False, False),
    )


@exercise("3.3c", points=1, public=True, hint="Return x + step_size · gradient + noise, clipped to [-1, 1].")
def test_chains_move_uphill(run, slopes, start):
    """A step moves the chains by `step_size` times the gradient, towards higher f."""
    size = 6.0
    got, want = run(moves_of, slopes, start, 3, size)
    near = slopes[-1].abs() < 0.03  # other pixels are clamped, which is checked in 3.3b
    slope = slopes[-1][near]
    path = 3 * size * slope
    twice = (2 * slope).clamp(-0.03, 0.03)

    def judge(got, want):
        if got["chains"].shape != want["chains"].shape:
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        chains = known(got["chains"])
        mean = chains.nanmean(0)[near]
        noise = (chains - chains.nanmean(0)).nan_to_num()
        # The same noise in all chains: they are equal, and what they differ by from the path is not proportional to it.
        rest = (mean - path) - (mean - path) @ path / path.square().sum() * path
        are_equal = noise.abs().max() < 1e-4 and rest.std() > 0.7 * (mean - path).std()
        # The noise in the mean of 36 chains is 0.014 / 6 = 0.0023; the tolerance is six times that.
        assert_close(
            mean,
            path,
            rtol=0,
            atol=0.015,
            mistakes=lambda: {
                STILL: 0 * path,
                "The chains move towards lower f. Add the gradient of f, or subtract the gradient of E.": -path,
                "Negative values become 0, as if the chains were clipped to [0, 1]. The image range is [-1, 1].": (
                    path.clamp(0, 1)
                ),
                "The steps are as long as for `step_size` = 10, as if it were ignored. Multiply the gradient by it.": (
                    path * 10 / size
                ),
                "The step is only half as long. Multiply the gradient by `step_size`.": path / 2,
                (
                    "Each value moves by ±0.03 in a step, as if the step were clamped. "
                    "Only the gradient is clamped, before it is multiplied by `step_size`."
                ): (3 * (size * slope).clamp(-0.03, 0.03)),
                "All chains get the same noise. Use torch.randn_like(x).": (
                    mean if are_equal and (mean - path).abs().max() < 0.06 else path
                ),
                "The gradients of all steps are added. Set x.grad to zero after each step.": (
                    size * (slope + twice + (slope + twice).clamp(-0.03, 0.03))
                ),
                "The gradient is not multiplied by `step_size`.": path / size,
                "The gradient is multiplied by the square root of `step_size`. Multiply it by `step_size`.": (
                    path / size**0.5
                ),
                "Only the sign of the gradient is used. Add step_size · gradient.": 3 * size * 0.03 * slope.sign(),
                "The noise of a step is too large. Its standard deviation should be 0.005, whatever `step_size` is.": (
                    proven(noise.std() > 0.025 and (mean - path).abs().max() < noise.std(), mean, path)
                ),
                "The chains move as far as in a single step. Add the step to x.": path / 3,
                (
                    "The chains move too far or not far enough. "
                    "Each step should add step_size · gradient to x, and nothing else but noise."
                ): multiple(mean, path),
                "The chains reach the limits of the image range in three steps. The step is step_size · gradient.": (
                    proven(mean.shape == path.shape and mean.abs().max() > 0.9, mean, path)
                ),
                "The steps are not proportional to the gradient. Add step_size · gradient as it is.": proven(
                    mean.shape == path.shape and (mean - multiple(mean, path)).abs().max() > 0.05, mean, path
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
        if 1.0001 < chains.abs().max() < 1.03:
            fail("The chains leave the image range by about as much as the noise. Clip them after the noise is added.")
        if not chains.abs().max() < 1.0001:
            if chains.max() < 1.0001 or chains.min() > -1.0001:
                fail("The chains leave the image range at one of its limits only. Clip them at both, to [-1, 1].")
            fail(
                "The chains leave the image range. Clip them to [-1, 1]. x.clamp(…) does not change x: use the result."
            )
        if not follow(chains.mean(0), slopes[-1]):
            judge_spread(chains, 0.2)  # it is 0.02 after nine steps
            fail(NOT_PROPORTIONAL)
        # With noise, pixels have the same value only where they are clipped.
        for limit in (chains.max(), chains.min()):
            if limit.abs() < 0.98 and (chains == limit).float().mean() > 0.02:
                fail("The chains are clipped to other limits than [-1, 1]. Use IMG_RANGE.")
        # Pixels with a large gradient leave the range in each of the last steps, even if a step is half as long. Pixels
        # with a small one show how far the chains move; they stay inside the range.
        far, close = slopes[-1].abs() > 0.03, slopes[-1].abs() < 0.011
        moved = (chains.mean(0)[close] / slopes[-1][close]).abs().mean()
        if (chains[:, far].abs() > 0.9999).float().mean() < 0.5:
            if (chains.flatten(1).abs().amax(1) > 0.9999).all():
                fail(
                    "Of the values that leave the image range, only the largest of an image becomes its limit. "
                    "Clip each value, and do not rescale the images."
                )
            if 0.03 * moved > 1.15 or chains.abs().max() > 0.9999:
                fail(
                    "Pixels with a large gradient do not stay at the limits of the image range. "
                    "Clip each value to [-1, 1], and leave the others as they are."
                )

    assert_either_way(got, want, judge)


@exercise("3.3c", points=1, hint="Add Gaussian noise with mean 0 and standard deviation 0.005 in each step.")
def test_noise_has_the_right_spread(run, slopes, start):
    """Each step adds noise with standard deviation 0.005."""
    quiet = 0.002 * slopes.view(-1, *TWO_CHANNELS)  # the moves in 64 steps do not reach the limits of the image range
    got, want = run(moves_of, quiet, start.view(-1, *TWO_CHANNELS), 64, 10.0)

    # The spread of 64 steps; where it is large, the limits of the image range make it smaller.
    wrong_noise = {
        "The noise is the same in each step, or about 8 times too large. Draw new noise with NOISE_STD.": 0.32,
        "The noise of a step is about `step_size` times too large. Its standard deviation should be NOISE_STD.": 0.38,
        "The noise of a step is about √step_size times too large. Its standard deviation should be NOISE_STD.": 0.126,
        "The noise of a step is about √(2 · step_size) times too large. It should have NOISE_STD.": 0.179,
        "The noise of a step is about twice as large as it should be. It should have NOISE_STD, not START_STD.": 0.08,
        "The standard deviation of the noise is about √NOISE_STD. It should be NOISE_STD itself.": 0.52,
    }

    def other_noise(spread):
        size = "small" if spread < 0.04 else "large"
        return f"The noise of a step is too {size}. Its standard deviation should be NOISE_STD, 0.005."

    def judge(got, want):
        if got["chains"].shape != want["chains"].shape:
            raise Mismatch("The chains must have the shape (B, C, H, W).")
        chains = known(got["chains"])
        mean = chains.nanmean(0)
        factor = (mean * quiet[-1]).nansum() / quiet[-1].square().sum()
        noise = chains - factor * quiet[-1]
        noise = noise[~noise.isnan()]
        lowest, highest = chains.nan_to_num().min(), chains.nan_to_num().max()
        if (lowest > -1e-6) != (highest < 1e-6):  # both, if all values are 0
            fail("All values of the chains have the same sign. The image range is [-1, 1].")
        offset, uneven = noise.mean().item(), (mean - factor * quiet[-1]).nan_to_num().std()
        if abs(offset) > max(0.02, 0.1 * noise.std().item()) and uneven < abs(offset):
            fail("The mean of what is added to step_size · gradient is not 0. Use NOISE_STD · randn, as it is.")
        if uneven > 0.05 and uneven > (chains - mean).nan_to_num().std() / 4:  # a sixth for a mean over 36 chains
            fail(NOT_PROPORTIONAL)
        # The standard deviation of 64 steps is 8 · 0.005 = 0.04, or 0.0412 with a start from N(0, 0.01²).
        spread = noise.std().item()
        if spread < 1e-4:
            fail("The steps contain no noise. Check that the noise is used: x.add(…) does not change x.")
        if spread < 0.0115:
            fail("The steps contain no or too little noise. Its standard deviation should be NOISE_STD, 0.005.")
        within = chains - factor * quiet[-1]
        if (within - within.nanmean((1, 2, 3), keepdim=True)).nan_to_num().std() < spread / 2:
            fail(SHARED_BY_PIXELS)
        if shared_along(within.nan_to_num()):
            fail(SHARED_BY_LINES)
        if not 0.036 < spread < 0.046:
            fail(next((name for name, its in wrong_noise.items() if abs(spread / its - 1) < 0.08), other_noise(spread)))
        if not follow(mean, quiet[-1]):
            fail(NOT_PROPORTIONAL)

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
        moves = chains[1:] - chains[:-1]
        if chains[-1].abs().mean() < 0.02:  # four steps are 0.3
            fail(STILL)
        if moves.abs().flatten(1).mean(1).min() < 1e-4:
            fail("Some steps are equal. If the chains are changed in place, store a copy (clone) after each step.")
        if chains[0].abs().mean() < chains[1].abs().mean() / 3:
            fail("The first entry is the chains before the first step. Store the chains after each step.")
        if not all(follow(move, slopes[-1]) for move in moves.mean(1)):
            judge_spread(moves[0], 0.05)  # it is 0.005
            fail(NOT_PROPORTIONAL)
        # The kurtosis is 3 for Gaussian and 1.8 for uniform noise; 15,552 numbers estimate it within 0.04.
        noise = moves - moves.mean(1, keepdim=True)
        is_shared = (noise - noise.mean((2, 3, 4), keepdim=True)).std() < noise.std() / 2
        are_lines_shared = shared_along(noise.flatten(0, 1))
        noise = noise[:, (chains.abs() < 0.9).all(0) & (chains > chains.min()).all(0)]  # pixels that are not clipped
        if noise.std() < 0.001:  # is checked above
            return
        kurtosis = noise.pow(4).mean() / noise.square().mean().square()
        if not 2.5 < kurtosis < 3.7 and (is_shared or are_lines_shared):  # too few numbers to estimate it
            fail(SHARED_BY_PIXELS if is_shared else SHARED_BY_LINES)
        if kurtosis < 2.5:
            fail("The noise is not Gaussian: large values are missing. Use torch.randn_like(x).")
        if kurtosis > 3.7:
            fail(
                "The noise is not Gaussian with one standard deviation: there are too many large values. "
                "Use NOISE_STD · torch.randn_like(x)."
            )

    assert_either_way(got, want, judge)
