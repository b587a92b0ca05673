"""2: Langevin dynamics. Chains are random, so the checks use means over many chains and the spread around them."""

from contextlib import contextmanager

import numpy as np
import torch
from stand_ins import Hill, marked, replaced
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
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1)))
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
    """The marked states inside `frozen` and afterwards, of two uses in a row, and after two kinds of exceptions."""
    module = student.deep_energy
    model = built(flags)
    marks, seen = marks[:12], {}
    with torch.set_grad_enabled(enabled):
        for name in ("first", "second"):
            with module.frozen(model):
                seen[name] = marked(marks, state(model))
            seen[f"after {name}"] = marked(marks, state(model))
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


def judge_inside(got, want, name):
    inside = wrong_states(got[name], want[name])
    if inside[:6].any():
        fail("In the block, some parameters still require gradients. Set requires_grad of all of them to False.")
    if inside[6:11].any():
        fail("In the block, some modules are in train mode. Use model.eval().")
    if inside[11]:
        fail("In the block, gradients are not enabled if the caller uses torch.no_grad(). Use torch.enable_grad().")
    assert_close(got[name], want[name])


def judge_after(got, want, name, where):
    wrong = wrong_states(got[name], want[name])
    if wrong[:6].any():
        fail(
            f"{where}, requires_grad of some parameters is not the one from before. Store the state of each parameter."
        )
    if wrong[6]:
        fail(f"{where}, the mode of the model is not the one from before.")
    if wrong[7:11].any():
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
        judge_inside(got, want, "first")
        judge_inside(got, want, "second")


@exercise("2a", points=0.5, public=True, hint="Store requires_grad of each parameter and the mode of each module.")
def test_state_after_the_block(run, flags, marks):
    """After the block, parameters, modules and grad mode are as before."""
    for enabled in (True, False):
        got, want = run(states, flags, marks, enabled)
        judge_inside(got, want, "first")  # without which there is nothing to restore
        judge_after(got, want, "after first", "After the block")
        judge_after(got, want, "after second", "After a second block")


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
    """The gradient at the images and, in a second call, at the same ones; the images afterwards, and what they are."""
    model = Hill(steep, top).eval().requires_grad_(False)
    images, gradient = start.clone(), student.deep_energy.image_gradient
    value = gradient(model, images)
    attached = value.requires_grad
    value = value.detach().clone()
    again = gradient(model, images).detach()
    state = [attached, images.requires_grad, images.grad is not None]
    return {"value": value, "again": again, "images": images.detach(), "state": marked(start.flatten()[:3], state)}


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
            "The gradient is not clamped. Clamp it to ±0.03.": slope,
            "The gradient is clamped on one side only. Clamp it to ±0.03.": slope.clamp(max=CLAMP),
            "The gradient is clamped on one side only: clamp it to ±0.03.": slope.clamp(min=-CLAMP),
            "The sign is wrong: this is the gradient of the energy E. Compute the gradient of f = -E.": -right,
            "The gradient is divided by the batch size. Differentiate the sum of f, not the mean.": (
                (slope / len(start)).clamp(-CLAMP, CLAMP)
            ),
            "The clamped gradient is divided by the batch size.": right / len(start),
            "The gradient is scaled to a norm. Clamp each value to ±0.03.": slope * CLAMP / norms.clamp(min=CLAMP),
            "The gradient of each image is scaled to the norm 0.03. Clamp each value to ±0.03.": slope * CLAMP / norms,
            "This is the sign of the gradient. Clamp the gradient to ±0.03.": CLAMP * slope.sign(),
            "The output f of the network is clamped. Clamp its gradient instead.": slope * (f.abs() < CLAMP),
            "The gradient is clamped to [0, 0.03]. Clamp it to ±0.03.": slope.clamp(0, CLAMP),
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


CHAINS = 48
STEP = 4.0


@inputs
def slopes(rng):
    """The result of the stand-in for `image_gradient`, within the clamp."""
    return torch.from_numpy((rng.uniform(0.008, 0.029, SHAPE) * rng.choice([-1, 1], SHAPE)).astype(np.float32))


@inputs
def middle(rng):
    """An image from which a step of 4 does not leave the range; all chains start there."""
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

    The given images are part of a graph. `at`: the images at which the gradient was taken
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
        return {"result": result.detach(), "at": at, "images": images.detach(), "attached": result.requires_grad}

    return ways(isolated=lambda: attempt(True), whole=lambda: attempt(False))


def judged(got, want, judge):
    """Apply `judge` to each way until it accepts one; the chains must have the right shape."""

    def judge_way(way, right):
        if way["result"].shape != right["result"].shape:
            raise Mismatch("The images must keep their shape (B, C, H, W).")
        if not way["result"].isfinite().all():
            fail("The images contain infinite values or NaN.")
        judge(way)

    assert_either_way(got, want, judge_way)


@exercise("2c", points=1, public=True, hint="Add step_size · image_gradient(model, images), and clip to IMG_RANGE.")
def test_steps_go_uphill(run, slopes, middle):
    """A step moves the images by `step_size` times the gradient, towards higher f."""
    got, want = run(steps, slopes, middle, STEP)
    move = STEP * slopes

    def judge(way):
        mean = way["result"].mean(0)
        # The noise in the mean of 48 chains is 0.005 / √48 = 0.0007, the tolerance seven times that.
        assert_close(
            mean - middle,
            move,
            rtol=0,
            atol=0.005,
            mistakes={
                "The images do not move. Check that the result of the step is used: x.add(…) does not change x.": (
                    0 * move
                ),
                "The images move towards lower f. Add the gradient of f, or subtract that of E.": -move,
                "`step_size` is ignored. Multiply the gradient by it.": (middle + 10 * slopes).clamp(-1, 1) - middle,
                "The step is not multiplied by `step_size`.": slopes,
                "The gradient is divided by `step_size`. Multiply it.": slopes / STEP,
                "The step is only half as long. Multiply the gradient by `step_size`.": move / 2,
                "The gradient is added twice.": (middle + 2 * move).clamp(-1, 1) - middle,
                "The step is multiplied by √step_size. Multiply it by `step_size`.": STEP**0.5 * slopes,
                "The images are clipped to [0, 1]. Their range is [-1, 1].": (middle + move).clamp(0, 1) - middle,
                "The step is clamped to ±0.03. Only the gradient is.": move.clamp(-CLAMP, CLAMP),
                "The images are clipped to ±0.5. Their range is [-1, 1].": (middle + move).clamp(-0.5, 0.5) - middle,
                "This is the step alone. Add it to the images.": move - middle,
            },
        )

    judged(got, want, judge)


@exercise("2c", points=0.5, public=True, hint="Add NOISE_STD · torch.randn_like(images) before the gradient step.")
def test_steps_are_noisy(run, slopes, middle):
    """A step adds Gaussian noise with standard deviation 0.005 to each pixel."""
    got, want = run(steps, slopes, middle, STEP)

    def judge(way):
        result = way["result"]
        move = result.mean(0) - middle
        if move.abs().max() > 0.5 or torch.corrcoef(torch.stack([move.flatten(), slopes.flatten()]))[0, 1].abs() < 0.5:
            fail("The images do not follow the gradient of f.")  # by any factor and sign: see the check above
        spread = (result - result.mean(0)).square().mean().sqrt().item()
        if (result.std(0) < 1e-4).all():
            offset = result[0] - middle - STEP * slopes
            if 0.002 < offset.std() < 0.02:
                fail("All images get the same noise. Use torch.randn_like(images).")
            fail("There is no noise. Check that it is added: x.add(…) does not change x.")
        if ((result - result.mean(0)).flatten(1).std(1) < spread / 3).all():
            fail("All pixels of an image get the same noise. Use torch.randn_like(images).")
        # 48 × 54 numbers estimate the spread within 1.4 %.
        for wrong, sentence in (
            (NOISE**0.5, "The noise has the variance 0.005, but this is to be its standard deviation."),
            (NOISE**2, "The noise has the standard deviation 0.005². Use NOISE_STD."),
            (NOISE * STEP, "The noise is multiplied by `step_size`."),
            (NOISE * STEP**0.5, "The noise is multiplied by √step_size. Its standard deviation is always NOISE_STD."),
            (NOISE * 2**0.5, "The noise is added twice."),
            (1.0, "The noise is not multiplied by NOISE_STD."),
            (NOISE / 12**0.5, "The noise is uniform. Use randn, not rand."),
            (NOISE / 3**0.5, "The noise is uniform. Use randn, not rand."),
        ):
            if abs(spread / wrong - 1) < 0.1:
                fail(sentence)
        if not 0.9 < spread / NOISE < 1.1:
            fail("The noise must have the standard deviation 0.005.")
        scaled = (result - result.mean(0)) / spread
        # The fourth moment is 3 for Gaussian noise, within 0.1, and 1.8 for uniform noise.
        if scaled.pow(4).mean() < 2.4:
            fail("The noise is uniform. Use randn, not rand.")
        if scaled.mean(0).abs().max() > 1e-3:
            fail("The noise has another mean than 0.")
        # The mean of the noise, by which these two differ, is 0 ± 0.0007.
        if difference(way["at"], middle + result - result.mean(0), 0, 0.004):
            fail("The gradient is not taken at the images with noise. Add the noise first.")

    judged(got, want, judge)


STEPS = 7
SIZE = 6.0  # of a step, other than the default


@probe
def chains(student, start, slopes, step_size, history, enabled, marks):
    """The result of `generate_samples`: with stand-ins for `langevin_step` and `frozen`, and as a whole.

    state: marked; whether the steps were taken in `frozen`, or the network's states during and after sampling
    """
    module = student.deep_energy

    def sample(model, images, options):
        with torch.set_grad_enabled(enabled):
            result = module.generate_samples(model, images, STEPS, **options)
        return {"result": result.detach(), "attached": result.requires_grad, "images": images.detach()}

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
            seen = sample(model, start.clone(), {"step_size": step_size, "return_img_per_step": history})
        is_right = [all(steps), all(each is model for each in models), not inside[0]]
        return seen | {"state": marked(marks[:3], is_right)}

    def whole():
        model = Hill(0 * slopes + 0.03, slopes).train()
        model.part.eval()
        seen = sample(model, start.clone(), {"step_size": step_size, "return_img_per_step": history})
        during = [all(column) for column in zip(*model.calls, strict=True)]
        after = [model.w.requires_grad, not model.other.requires_grad, model.training, not model.part.training]
        clean = [model.w.grad is None, torch.is_grad_enabled()]
        return seen | {"state": marked(marks[:10], [*during, *after, *clean])}

    return ways(isolated=isolated, whole=whole)


def path_of(start, slopes, step_size, isolated):
    """The images after each step, (steps, B, C, H, W), without noise."""
    images, path = start, []
    for _ in range(STEPS):
        if isolated:
            images = 0.8 * images + 0.02 * step_size * slopes
        else:
            images = (images + step_size * (0.03 * (slopes - images)).clamp(-CLAMP, CLAMP)).clamp(-1, 1)
        path.append(images)
    return torch.stack(path)


def judge_chains(got, want, start, slopes, step_size, history, more=lambda got, want: None):
    def judge(way, right):
        isolated = right is want["isolated"]
        path = path_of(start, slopes, step_size, isolated)
        value = path if history else path[-1]
        other = path_of(start, slopes, 10.0, isolated)
        with_start = torch.cat([start[None], path])
        # The noise of seven steps has the standard deviation 0.009, the tolerance is seven times that.
        assert_close(
            way["result"],
            value,
            rtol=0,
            atol=1e-4 if isolated else 0.06,
            mistakes={
                "The first entry is the initial images. Return the images after each step.": with_start[:-1],
                "The initial images are among the steps. Return the images after each step only.": with_start,
                "The order of the steps is reversed. The first entry is the images after the first step.": path.flip(0),
                "All entries are the images after the last step. Append a copy after each step.": (
                    path[-1:].expand_as(path)
                ),
                "All steps are returned, although `return_img_per_step` is not set.": path,
                "Only the last step is returned, although `return_img_per_step` is set.": path[-1],
                "There is one step too few.": path[:-1] if history else path[-2],
                "Only one step is made. Use the result of a step for the next one.": path[0],
                "Each step starts from the initial images. Use the result of a step for the next one.": (
                    path[:1].expand_as(path)
                ),
                "`step_size` is not passed on to `langevin_step`.": other if history else other[-1],
                "The images did not move.": start,
                "The axis of the chains comes first. The result has the shape (steps, B, C, H, W).": (
                    path.transpose(0, 1)
                ),
            },
        )
        more(way, right)

    assert_either_way(got, want, judge)


@exercise("2d", points=1, public=True, hint="Call langevin_step `steps` times, each time on the last result.")
def test_chains_of_many_steps(run, start, slopes, marks):
    """`generate_samples` returns the images after the last step, or after each step."""
    for history in (False, True):
        got, want = run(chains, start, slopes, SIZE, history, True, marks)
        judge_chains(got, want, start, slopes, SIZE, history)
