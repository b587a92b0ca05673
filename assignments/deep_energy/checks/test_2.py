"""2: Langevin dynamics. Chains are random, so the checks use means over many chains and the spread around them."""

from contextlib import contextmanager

import numpy as np
import torch
from stand_ins import Hill, OnMeta, marked, replaced
from torch import nn

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

SHAPE = (1, 6, 9)
CLAMP, NOISE = 0.03, 0.005


@inputs
def flags(rng):
    """States of 6 parameters and 5 modules: both values occur among each of them."""
    return torch.from_numpy(np.concatenate([rng.permutation([1, 1, 0, 0, 1, 0]), [1], rng.permutation([0, 1, 0, 1])]))


@inputs
def marks(rng):
    return torch.from_numpy(rng.uniform(1, 2, 24).astype(np.float32))


@probe
def built(flags):
    """A network of four linear layers, three of them with parameters, whose states are given by flags (11,)."""
    return in_states(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1))), flags)


@probe
def in_states(model, flags):
    """The model, whose parameters and modules are now in these states."""
    for parameter, flag in zip(model.parameters(), flags[:6].tolist(), strict=True):
        parameter.requires_grad_(bool(flag))
    for module, flag in zip(model.modules(), flags[6:].tolist(), strict=True):
        module.training = bool(flag)
    return model


@probe
def state(model):
    """requires_grad of the parameters, the modes of the modules, and whether gradients are enabled."""
    flags = [parameter.requires_grad for parameter in model.parameters()]
    return flags + [module.training for module in model.modules()] + [torch.is_grad_enabled()]


@probe
def states(student, flags, marks, enabled):
    """The marked states inside `frozen` and afterwards: of two uses in a row, of nested ones, after two exceptions.

    In the second use, all states differ from those in the first.
    """
    module = student.deep_energy
    model = built(flags)
    marks, seen = marks[:12], {}
    with torch.set_grad_enabled(enabled):
        for name, now in ("first", flags), ("second", 1 - flags):
            in_states(model, now)
            with module.frozen(model):
                seen[name] = marked(marks, state(model))
            seen[f"after {name}"] = marked(marks, state(model))
        model = built(flags)
        with module.frozen(model):
            with module.frozen(model):
                pass
            seen["between"] = marked(marks, state(model))
        seen["after nested"] = marked(marks, state(model))
        caught = []
        for name, kind in ("error", ZeroDivisionError), ("Ctrl-C", KeyboardInterrupt):
            model = built(flags)
            caught.append(False)
            try:
                with module.frozen(model):
                    raise kind
            except kind:
                caught[-1] = True
            seen[f"after {name}"] = marked(marks, state(model))
        seen["caught"] = marked(marks[:2], caught)
    return seen


def wrong_states(got, want):
    """Which of the marked states are not the expected ones."""
    if got.shape != want.shape:
        raise Mismatch("The state could not be observed.")
    return (got / want - 1).abs() > 0.1


def judge_inside(got, want, name, enabled, where="In the block"):
    inside = wrong_states(got[name], want[name])
    if inside[:6].any():
        fail(f"{where}, some parameters still require gradients. Set requires_grad of all of them to False.")
    if inside[6:11].any():
        fail(f"{where}, some modules are in train mode. Use model.eval().")
    if inside[11]:
        caller = "" if enabled else " if the caller uses torch.no_grad()"
        fail(f"{where}, gradients are not enabled{caller}. Use torch.enable_grad().")
    assert_close(got[name], want[name])


def judge_after(got, want, marks, name, where):
    wrong = wrong_states(got[name], want[name])
    is_set = got[name] / marks[:12] > 1.5
    if wrong[:6].any():
        if is_set[:6].all():
            fail(f"{where}, all parameters require gradients, also those that did not before. Store the state of each.")
        if not is_set[:6].any():
            fail(f"{where}, no parameter requires gradients. Restore requires_grad of those that did before.")
        fail(
            f"{where}, requires_grad of some parameters is not the one from before. Store the state of each parameter."
        )
    if wrong[6:11].any():
        if not is_set[6:11].any():
            fail(f"{where}, all modules are in eval mode. Restore the mode that each had before model.eval().")
        if is_set[6:11].all():
            fail(f"{where}, all modules are in train mode, also those that were not. Store the mode of each module.")
        fail(f"{where}, the mode of some module is not the one from before. Store the mode of each of model.modules().")
    if wrong[11]:
        fail(f"{where}, the grad mode is not restored. Use `with torch.enable_grad():`.")
    assert_close(got[name], want[name])


@exercise(
    "2a", points=1, public=True, hint="Set requires_grad to False, use eval() and torch.enable_grad(), and yield."
)
def test_state_in_the_block(run, flags, marks):
    """In the block, no parameter requires gradients, all modules are in eval mode, and gradients are enabled."""
    for enabled in (True, False):
        got, want = run(states, flags, marks, enabled)
        judge_inside(got, want, "first", enabled)
        judge_inside(got, want, "second", enabled, "In a second block")


@exercise("2a", points=0.5, public=True, hint="Store requires_grad of each parameter and the mode of each module.")
def test_state_after_the_block(run, flags, marks):
    """After the block, parameters, modules and grad mode are as before."""
    for enabled in (True, False):
        got, want = run(states, flags, marks, enabled)
        judge_inside(got, want, "first", enabled)  # without which there is nothing to restore
        judge_after(got, want, marks, "after first", "After the block")
        if wrong_states(got["after second"], want["after second"]).any():
            fail("After a second block, the state is not the one from before this block. Store it at each entry.")
        if wrong_states(got["between"], want["between"]).any():
            fail("After the inner one of two nested blocks, the state is not that in which this block was entered.")
        if wrong_states(got["after nested"], want["after nested"]).any():
            fail("After two nested blocks, the state from before is not restored. Keep it in local variables.")
        for name in ("after second", "between", "after nested"):
            assert_close(got[name], want[name])


@inputs
def steep(rng):
    """The slopes of f, so that about half of the gradients exceed the clamp."""
    return torch.from_numpy(rng.uniform(0.03, 0.06, SHAPE).astype(np.float32))


@inputs
def top(rng):
    return torch.from_numpy(rng.uniform(-0.4, 0.4, SHAPE).astype(np.float32))


@inputs
def start(rng):
    """Images of which each is different, as many as no other axis has."""
    return torch.from_numpy(rng.uniform(-1, 1, (5, *SHAPE)).astype(np.float32))


@probe
def gradients(student, steep, top, start):
    """The gradient at the images and, in a second call, at the same ones; the images afterwards, and what they are.

    one: the gradient at a single image
    """
    model = Hill(steep, top).eval().requires_grad_(False)
    images, gradient = start.clone(), student.deep_energy.image_gradient
    value = gradient(model, images)
    require(isinstance(value, torch.Tensor), "`image_gradient` returns a tensor.")
    attached = value.requires_grad
    value = value.detach().clone()
    again = gradient(model, images).detach()
    state = [attached, images.requires_grad, images.grad is not None]
    return {
        "value": value,
        "again": again,
        "one": gradient(model, start[:1].clone()).detach(),
        "images": images.detach(),
        "state": marked(start.flatten()[:3], state),
    }


@probe
def gradient_in_a_graph(student, steep, top, start):
    """The gradient at images that are part of a graph."""
    model = Hill(steep, top).eval().requires_grad_(False)
    try:
        return student.deep_energy.image_gradient(model, 1 * start.clone().requires_grad_()).detach()
    except Exception:
        require(False, "The gradient fails for images that require gradients. Detach them before they are copied.")


def judge_gradient(value, steep, top, start):
    slope = steep * (top - start)
    right = slope.clamp(-CLAMP, CLAMP)
    norms = slope.flatten(1).norm(dim=1)[:, None, None, None]
    f = -0.5 * (steep * (start - top).square()).flatten(1).sum(1)[:, None, None, None]
    assert_close(
        value,
        right,
        rtol=1e-3,
        mistakes={
            "The gradient is not clamped to ±0.03.": slope,
            "The gradient has no lower bound. Clamp it to ±0.03.": slope.clamp(max=CLAMP),
            "The gradient has no upper bound. Clamp it to ±0.03.": slope.clamp(min=-CLAMP),
            "The sign is wrong: this is the gradient of the energy E. Compute the gradient of f = -E.": -right,
            "The sign is wrong, and the gradient is not clamped to ±0.03.": -slope,
            "The gradient is divided by the batch size. Differentiate the sum of f, not the mean.": (
                (slope / len(start)).clamp(-CLAMP, CLAMP)
            ),
            "The clamped gradient is divided by the batch size.": right / len(start),
            "The gradient is scaled to a norm. Clamp each value to ±0.03.": slope * CLAMP / norms.clamp(min=CLAMP),
            "The gradient of the batch is scaled to a norm. Clamp each value to ±0.03.": slope * CLAMP / slope.norm(),
            "The gradient of each image is scaled to the norm 0.03. Clamp each value to ±0.03.": slope * CLAMP / norms,
            "The largest value of the gradient is scaled to 0.03. Clamp each value to ±0.03.": (
                slope * CLAMP / slope.abs().max()
            ),
            "The gradient is multiplied by 0.03. Clamp it to ±0.03.": slope * CLAMP,
            "This is the sign of the gradient. Clamp the gradient to ±0.03.": CLAMP * slope.sign(),
            "The output f of the network is clamped. Clamp its gradient instead.": slope * (f.abs() < CLAMP),
            "The gradient is clamped to [0, 0.03]. Clamp it to ±0.03.": slope.clamp(0, CLAMP),
            "These are the absolute values of the gradient.": right.abs(),
            "The gradient is that of exp(f).": (f.exp() * slope).clamp(-CLAMP, CLAMP),
            "The gradient is squashed by tanh. Clamp it to ±0.03.": CLAMP * torch.tanh(slope / CLAMP),
            "The gradient is clamped to ±0.005, which is the noise. Clamp it to ±0.03.": slope.clamp(-NOISE, NOISE),
            "The gradient is that of the first image only. Sum f over the batch.": torch.cat(
                [right[:1], 0 * right[1:]]
            ),
            "The gradients of all images are added. Each image has its own gradient.": (
                slope.sum(0, keepdim=True).clamp(-CLAMP, CLAMP).expand_as(slope)
            ),
        },
    )


@exercise("2b", points=1, public=True, hint="torch.autograd.grad of the sum of f with respect to the images, clamped.")
def test_gradient_of_f(run, steep, top, start):
    """`image_gradient` returns ∂f/∂x of each image, clamped to ±0.03."""
    got, _ = run(gradients, steep, top, start)
    judge_gradient(got["value"], steep, top, start)
    judge_gradient(got["one"], steep, top, start[:1])


CHAINS = 48
STEP = 6.0  # with which no two of the wrong steps below are nearly equal


@inputs
def slopes(rng):
    """The result of the stand-in for `image_gradient`, within the clamp."""
    return torch.from_numpy((rng.uniform(0.008, 0.029, SHAPE) * rng.choice([-1, 1], SHAPE)).astype(np.float32))


@inputs
def middle(rng):
    """An image from which a step of 6 does not leave the range; all chains start there."""
    return torch.from_numpy(rng.uniform(-0.8, 0.8, SHAPE).astype(np.float32))


@inputs
def border(rng):
    """An image near both ends of the range."""
    return torch.from_numpy((rng.choice([-1, 1], SHAPE) * rng.uniform(0.93, 1.0, SHAPE)).astype(np.float32))


@probe
class Fixed(nn.Module):
    """f(x) = Σ slopes · x, whose gradient is the same everywhere. It records the images of each call."""

    def __init__(self, slopes):
        super().__init__()
        self.register_buffer("slopes", slopes)
        self.images = []

    def forward(self, x):
        self.images.append(x.detach().clone())
        return (self.slopes * x).flatten(1).sum(1)


@probe
def steps(student, slopes, middle, step_size):
    """The images after one step from the same image in all chains, and what was given, afterwards.

    The given images are part of a graph. `at`: the images at which the gradient was taken. again: the images after
    another step from the same image
    """
    module = student.deep_energy

    def attempt(isolated):
        images = 1 * middle.expand(CHAINS, *middle.shape).clone().requires_grad_()
        model = Fixed(slopes)

        def given(model, x):
            model(x)  # records the images
            return slopes.expand_as(x).clone()

        with replaced(module, **({"image_gradient": given} if isolated else {})), torch.enable_grad():
            result = module.langevin_step(model, images, step_size)
            at = model.images[-1] if model.images else torch.zeros(0)
            again = module.langevin_step(model, middle.expand(CHAINS, *middle.shape).clone(), step_size)
        return {
            "result": result.detach(),
            "at": at,
            "images": images.detach(),
            "attached": result.requires_grad,
            "again": again.detach(),
        }

    return ways(isolated=lambda: attempt(True), whole=lambda: attempt(False))


@probe
def steps_on_the_device(student, slopes, middle, step_size):
    """`steps`, of a function whose noise must be on the device of the images."""
    module, model = student.deep_energy, OnMeta()
    images = middle.expand(CHAINS, *middle.shape).to("meta")
    with replaced(module, image_gradient=lambda model, x: torch.zeros_like(x)):
        require(
            not model.misses(lambda: module.langevin_step(model, images, step_size)),
            "The noise is not on the device of the images. Use torch.randn_like(images).",
        )
    return steps(student, slopes, middle, step_size)


def judged(got, want, judge):
    """Apply `judge` to each way until it accepts one; the chains must have the right shape."""

    def judge_way(way, right):
        if way["result"].shape != right["result"].shape:
            raise Mismatch("The images must keep their shape (B, C, H, W).")
        if not way["result"].isfinite().all():
            fail("The images contain infinite values or NaN.")
        judge(way)

    assert_either_way(got, want, judge_way)


def judge_factor(result, images, slopes, size):
    """Name the factor where the images move by a wrong multiple of the gradient."""
    move = result.mean(0) - images
    factor = ((move * slopes).sum() / slopes.square().sum()).item()
    # With the right noise, the factor is measured within 0.005. The noise may be some times stronger.
    most = max(0.005, 5 * spread_of(result) / CHAINS**0.5)
    if most > 0.03 or abs(factor - size) < 0.1 or (move - factor * slopes).abs().max() > most:
        return
    if factor < -0.1:
        fail("The images move towards lower f. Add the gradient of f, or subtract that of E.")
    for wrong, sentence in (
        (0, "The images do not move. Check that the result of the step is used: x.add(…) does not change x."),
        (10, "`step_size` is ignored: it is always 10. Multiply the gradient by it."),
        (1, "The step is not multiplied by `step_size`."),
        (1 / size, "The gradient is divided by `step_size`. Multiply it."),
        (size / 2, "The step is only half as long. Multiply the gradient by `step_size`."),
        (size**0.5, "The step is multiplied by √step_size. Multiply it by `step_size`."),
        (size**2, "The step is multiplied by step_size². Multiply it by `step_size`."),
    ):
        if abs(factor - wrong) < 0.08:
            fail(sentence)
    fail("The images move by another multiple of the gradient than `step_size`.")


def wrong_steps(images, slopes, size):
    """Where the images are without noise, for wrong steps that are not nearly equal."""
    move = size * slopes
    return {
        "The images hardly move. Add the gradient, multiplied by `step_size`.": images,
        "`step_size` is ignored: it is always 10. Multiply the gradient by it.": (images + 10 * slopes).clamp(-1, 1),
        "The step is not multiplied by `step_size`.": (images + slopes).clamp(-1, 1),
        "The step is multiplied by step_size². Multiply it by `step_size`.": (images + size * move).clamp(-1, 1),
        "The images move towards lower f. Add the gradient of f, or subtract that of E.": (images - move).clamp(-1, 1),
        "The step is only half as long. Multiply the gradient by `step_size`.": (images + move / 2).clamp(-1, 1),
        "The step is twice as long. Multiply the gradient by `step_size`.": (images + 2 * move).clamp(-1, 1),
        "The images are clipped to [0, 1]. Their range is [-1, 1].": (images + move).clamp(0, 1),
        "The images are clipped to [0, 1], also before the step. Their range is [-1, 1].": (
            (images.clamp(0, 1) + move).clamp(0, 1)
        ),
        "The images are clipped to ±0.5. Their range is [-1, 1].": (images + move).clamp(-0.5, 0.5),
        "The step is clamped to ±0.03. Only the gradient is.": (images + move.clamp(-CLAMP, CLAMP)).clamp(-1, 1),
        "This is the step alone. Add it to the images.": move,
    }


def judge_shared(way):
    """Name noise that is the same in all chains, and another one in the next step."""
    if (way["result"].std(0) < 1e-4).all() and difference(way["again"], way["result"], 0, 1e-4):
        fail("All images get the same noise. Use torch.randn_like(images).")


def spread_of(result):
    """The standard deviation of the noise: of a pixel in all chains."""
    return (result - result.mean(0)).square().mean().sqrt().item()


@exercise("2c", points=1, public=True, hint="Add step_size · image_gradient(model, images), and clip to IMG_RANGE.")
def test_steps_go_uphill(run, slopes, middle):
    """A step moves the images by `step_size` times the gradient, towards higher f."""
    got, want = run(steps, slopes, middle, STEP)

    def judge(way):
        mean, right = way["result"].mean(0), middle + STEP * slopes
        # The noise in the mean of 48 chains is 0.005 / √48 = 0.0007, the tolerance seven times that.
        if difference(mean, right, 0, 0.005):
            judge_shared(way)
            judge_factor(way["result"], middle, slopes, STEP)
            if spread_of(way["result"]) > 2 * NOISE:
                fail("The noise is so strong that it hides the step: its standard deviation should be 0.005.")
        assert_close(mean, right, rtol=0, atol=0.005, mistakes=wrong_steps(middle, slopes, STEP))

    judged(got, want, judge)


def judge_spread(noise):
    """Look at the distribution of noise whose mean is 0, and name what is known about it."""
    spread = noise.square().mean().sqrt().item()
    # 48 × 54 numbers estimate the spread within 1.4 %, and the fourth moment, which is 3 for Gaussian noise and 1.8
    # for uniform noise, within 0.1.
    if spread > 0.3:
        fail("The noise is far too strong. Multiply it by NOISE_STD.")
    if (noise / spread).pow(4).mean() < 2.4:
        fail("The noise is uniform. Use randn, not rand.")
    if abs(spread / NOISE - 1) < 0.1:
        return
    for wrong, sentence in (
        (NOISE**0.5, "The noise has the variance 0.005, but this is to be its standard deviation."),
        (NOISE**2, "The noise has the standard deviation 0.005². Use NOISE_STD."),
        (NOISE * STEP, "The noise is multiplied by `step_size`. Its standard deviation is always NOISE_STD."),
        (NOISE * STEP**0.5, "The noise is multiplied by √step_size. Its standard deviation is always NOISE_STD."),
        (NOISE * (2 * STEP) ** 0.5, "The noise is multiplied by √(2 · step_size). Use NOISE_STD alone."),
        (NOISE * 2**0.5, "The noise is √2 times as strong as it should be. Add it only once."),
        (NOISE * 2, "The noise is twice as strong as it should be: its standard deviation is NOISE_STD."),
        (NOISE / 2, "The noise is half as strong as it should be: its standard deviation is NOISE_STD."),
    ):
        if abs(spread / wrong - 1) < 0.05:
            fail(sentence)
    fail(f"The noise is too {'strong' if spread > NOISE else 'weak'}. Its standard deviation is 0.005.")


@exercise("2c", points=0.5, public=True, hint="Add NOISE_STD · torch.randn_like(images) before the gradient step.")
def test_steps_are_noisy(run, slopes, middle):
    """A step adds Gaussian noise with standard deviation 0.005 to each pixel, which is new in each step."""
    got, want = run(steps, slopes, middle, STEP)

    def judge(way):
        result = way["result"]
        noise = result - result.mean(0)
        judge_shared(way)
        if (result.std(0) < 1e-4).all():
            fail("There is no noise in the result. Check that it is added: x.add(…) does not change x.")
        if (noise.flatten(1).std(1) < spread_of(result) / 3).all():
            fail("All pixels of an image get the same noise. Use torch.randn_like(images).")
        if spread_of(result) < 0.3:  # otherwise clipping hides the step
            move = result.mean(0) - middle
            alike = torch.corrcoef(torch.stack([move.flatten(), slopes.flatten()]))[0, 1].abs()
            if move.abs().max() > 0.5 or alike < 0.5:  # by any factor and sign: see the check above
                fail("The images do not move along the gradient of f, so that nothing can be said about the noise.")
        judge_spread(noise)
        if not difference(way["again"], result, 0, 1e-5):
            fail("Each step gets the same noise. Do not set the seed of the random numbers.")
        # The difference of two means has a standard deviation of 0.001.
        again = way["again"]
        if difference(again.mean(0), result.mean(0), 0, 0.007) or not 0.9 < spread_of(again) / spread_of(result) < 1.1:
            fail("A second step from the same images has another mean or another spread than the first.")
        # Where no image is clipped, the gradient must be taken at the image with its noise. The mean of the noise is
        # 0 ± 0.0007.
        at = way["at"]
        if at.shape != result.shape:
            raise Mismatch("The gradient must be taken at the images of all chains, (B, C, H, W).")
        inside = (result.abs() < 1 - 1e-6).all(0)
        if (at.std(0) < 1e-4).all():
            fail("The gradient is not taken at the images with noise. Add the noise first.")
        if difference((at - middle)[:, inside], noise[:, inside], 0, 0.004):
            fail("The gradient is taken at images with other noise than that of the result. Draw it once.")

    judged(got, want, judge)


STEPS = 7
SIZE = 6.0  # of a step, other than the default


@probe
def chains(student, start, slopes, count, step_size, history, enabled, marks):
    """The result of `generate_samples`: with stand-ins for `langevin_step` and `frozen`, and as a whole.

    again: of a second call. state: marked; whether the steps were taken in `frozen`, or the network's states during
    and after sampling
    """
    module = student.deep_energy

    def sample(model, images):
        options, other = {"step_size": step_size, "return_img_per_step": history}, images.clone()
        with torch.set_grad_enabled(enabled):
            result = module.generate_samples(model, images, count, **options)
            again = module.generate_samples(model, other, count, **options)
        require(
            isinstance(result, torch.Tensor) and isinstance(again, torch.Tensor),
            "`generate_samples` returns a tensor. Use torch.stack for the images after each step.",
        )
        values = {"result": result.detach(), "again": again.detach(), "images": images.detach()}
        return values | {"attached": result.requires_grad}

    def isolated():
        inside, models, steps = [False], [], []

        @contextmanager
        def frozen(model):
            inside[0] = True
            try:
                yield
            finally:
                inside[0] = False

        def langevin_step(model, images, step_size):
            models.append(model)
            steps.append(inside[0])
            return 0.8 * images + 0.02 * step_size * slopes

        model = Hill(slopes, slopes)
        with replaced(module, frozen=frozen, langevin_step=langevin_step):
            seen = sample(model, start.clone())
        is_right = [all(steps), all(each is model for each in models), not inside[0]]
        return seen | {"state": marked(marks[:3], is_right)}

    def whole():
        model = Hill(0 * slopes + 0.03, slopes).train()
        model.part.eval()
        seen = sample(model, start.clone())
        during = [all(column) for column in zip(*model.calls, strict=True)]
        after = [model.w.requires_grad, not model.other.requires_grad, model.training, not model.part.training]
        clean = [model.w.grad is None, torch.is_grad_enabled()]
        return seen | {"state": marked(marks[:10], [*during, *after, *clean])}

    return ways(isolated=isolated, whole=whole)


def path_of(start, slopes, count, step_size, isolated):
    """The images after each step, (steps, B, C, H, W), without noise."""
    images, path = start, []
    for _ in range(count):
        if isolated:
            images = 0.8 * images + 0.02 * step_size * slopes
        else:
            images = (images + step_size * (0.03 * (slopes - images)).clamp(-CLAMP, CLAMP)).clamp(-1, 1)
        path.append(images)
    return torch.stack(path)


def judge_chains(got, want, start, slopes, history, count=STEPS, more=lambda got, want: None):
    def judge(way, right):
        isolated = right is want["isolated"]
        *path, after = path_of(start, slopes, count + 1, SIZE, isolated)
        path = torch.stack(path)
        value = path if history else path[-1]
        other = path_of(start, slopes, count, 10.0, isolated)
        with_start, many = torch.cat([start[None], path]), path_of(start, slopes, 60, SIZE, isolated)
        # The noise of seven steps has the standard deviation 0.009, the tolerance is seven times that.
        atol = 1e-4 if isolated else 0.06
        if history and count == 1 and not difference(way["result"], path[0], 0, atol):
            fail("For a single step, the axis of the steps is missing.")
        assert_close(
            way["result"],
            value,
            rtol=0,
            atol=atol,
            mistakes={
                "The images did not move.": start,
                "The first entry is the initial images. Return the images after each step.": with_start[:-1],
                "The initial images are among the steps. Return the images after each step only.": with_start,
                "The order of the steps is reversed. The first entry is the images after the first step.": path.flip(0),
                "All entries are the images after the last step. Append a copy after each step.": (
                    path[-1:].expand_as(path)
                ),
                "All steps are returned, although `return_img_per_step` is not set.": path,
                "Only the last step is returned, although `return_img_per_step` is set.": path[-1],
                "There is one step too few.": path[:-1] if history else with_start[-2],
                "There is one step too many.": torch.cat([path, after[None]]) if history else after,
                "`steps` is ignored: 60 steps are made.": many if history else many[-1],
                "The result is that of a single step. Use the result of each step for the next one.": path[0],
                "Each step starts from the initial images. Use the result of a step for the next one.": (
                    path[:1].expand_as(path)
                ),
                "`step_size` is not passed on to `langevin_step`.": other if history else other[-1],
                "The axis of the chains comes first. The result has the shape (steps, B, C, H, W).": (
                    path.transpose(0, 1)
                ),
                "The steps are joined along the axis of the chains. Use torch.stack: (steps, B, C, H, W).": (
                    path.flatten(0, 1)
                ),
            },
        )
        if difference(way["again"], value, 0, atol):
            fail("A second call returns something else than the first. Keep no images from one call to the next.")
        more(way, right)

    assert_either_way(got, want, judge)


@exercise("2d", points=1, public=True, hint="Call langevin_step `steps` times, each time on the last result.")
def test_chains_of_many_steps(run, start, slopes, marks):
    """`generate_samples` returns the images after the last step, or after each step, also if there is only one."""
    for history in (False, True):
        got, want = run(chains, start, slopes, STEPS, SIZE, history, True, marks)
        judge_chains(got, want, start, slopes, history)
        got, want = run(chains, start[:1], slopes, 1, SIZE, history, True, marks)
        judge_chains(got, want, start[:1], slopes, history, count=1)
