"""3.5: generation."""

import numpy as np
import torch
from stand_ins import Slope, held, jem, ways

from ebmcourse.checking import Mismatch, assert_close, assert_either_way, exercise, fail, inputs, probe

STEPS, COUNT = 18, 5


@inputs
def labels(rng):
    return torch.from_numpy(rng.permutation(np.array([0, 1, 2, 0, 1])))


@inputs
def levels(rng):
    """The brightness of every image of every step: all different, in no order, and not symmetric about 0."""
    steps = rng.permutation(np.linspace(-0.9, 0.889, STEPS * COUNT)).reshape(STEPS, COUNT)
    return torch.from_numpy(steps.astype(np.float32))


@inputs
def slopes(rng):
    """The gradient of every class's energy, and of the unconditional one, within the clamp of the sampler."""
    signs = rng.choice([-1, 1], (4, 1, 8, 8))
    return torch.from_numpy((signs * rng.uniform(0.01, 0.025, signs.shape)).astype(np.float32))


@probe
class TracedSampler:
    """Its chains tell where they started, for which class, and how many steps they made.

    They start at 0, or at 0.5 once there is a buffer, and follow the slope of their class without noise.
    """

    def __init__(self, model, img_shape, sample_size, num_classes, cbuffer_size=256):
        self.model, self.img_shape = model, tuple(img_shape)
        self.sample_size, self.num_classes, self.cbuffer_size = sample_size, num_classes, cbuffer_size
        self.buffer = None

    def synthesize_samples(self, clabel=None, steps=60, step_size=10, return_img_per_step=False):
        slopes = next(buffer for name, buffer in self.model.named_buffers() if name.endswith("slopes"))
        start = 0.5 if held(self.buffer) else 0.0
        classes = torch.full((self.sample_size,), -1) if clabel is None else clabel
        chains = start + step_size * torch.arange(1, steps + 1)[:, None, None, None, None] * slopes[classes]
        self.buffer = chains[-1].clone()
        return chains if return_img_per_step else chains[-1]


@probe
def generated(student, labels, slopes, conditional):
    """The history that `generate_images` returns for a model whose sampler has been training."""
    module, labels = student.ex_main, labels if conditional else None

    def attempt(sampler_class):
        own = module.MCMCSampler
        model = jem(student, Slope(slopes))
        model.sampler = sampler_class(model.cnn, (1, 8, 8), COUNT, 3, 8)
        for _ in range(8):
            model.sampler.synthesize_samples(labels, steps=2)
        module.MCMCSampler = sampler_class
        try:
            return {"chains": module.generate_images(model, labels, COUNT, 3).detach()}
        finally:
            module.MCMCSampler = own

    return ways(whole=lambda: attempt(student.ex_main.MCMCSampler), isolated=lambda: attempt(TracedSampler))


def judge_generation(got, want, slopes):
    """`slopes` (1 or count, C, H, W) is what the chains must follow, step by step, from near 0."""
    if got["chains"].shape != want["chains"].shape:
        raise Mismatch("The history must have the shape (steps, count, C, H, W), one entry per step.")
    number = torch.arange(1, 4)[:, None, None, None, None]
    path = 10 * number * slopes + torch.zeros_like(want["chains"])
    # Steps and start leave 0.014 of noise; nine of these are allowed. One step further is 0.1 or more.
    assert_close(
        got["chains"],
        path,
        rtol=0,
        atol=0.13,
        mistakes={
            "Generation goes on from the training buffer; new images start from Gaussian noise.": path + 0.5,
            "The history runs backwards: the first entry is the chains after the first step.": path.flip(0),
        },
    )


@exercise(
    "3.5a",
    points=1,
    public=True,
    hint="Start a new sampler, whose buffer is empty, and return the chains after every step.",
)
def test_generation_starts_from_noise(run, labels, slopes):
    """New images grow from noise, not from the training buffer, and every step is returned."""
    got, want = run(generated, labels, slopes, False)
    assert_either_way(got, want, lambda got, want: judge_generation(got, want, slopes[-1:]))


### BEGIN HIDDEN TESTS
@exercise("3.5a", points=1, hint="Pass the labels on to the sampler.")
def test_generation_of_given_classes(run, labels, slopes):
    """With labels, every image is generated for its class."""
    got, want = run(generated, labels, slopes, True)

    def judge(got, want):
        if got["chains"].shape == want["chains"].shape and (got["chains"][-1] - 30 * slopes[-1]).abs().max() < 0.13:
            fail("The labels are not passed to the sampler.")
        judge_generation(got, want, slopes[labels])

    assert_either_way(got, want, judge)


### END HIDDEN TESTS


@probe
def shown(student, levels, labels):
    """The tones that the two figures show in at least 16 pixels: fewer are borders between pictures."""
    chains = levels[:, :, None, None, None].expand(-1, -1, 1, 8, 8).clone()
    student.ex_main.draw_generation(chains.clone(), rows=1, columns=3)  # without titles
    tones = []
    for figure in student.ex_main.draw_generation(chains, labels.tolist()):
        pictures = [np.asarray(image.get_array(), dtype=float) for axes in figure.axes for image in axes.get_images()]
        pixels = [picture[..., 0].ravel() if picture.ndim == 3 else picture.ravel() for picture in pictures]
        found, counts = np.unique(np.round(np.concatenate([np.zeros(0), *pixels]), 4), return_counts=True)
        tones.append(torch.from_numpy(found[counts >= 16]))
    return {"strip": tones[0], "sheet": tones[1]}


def seen(tones, levels):
    """Which of `levels` (steps, count) appear among the tones of a figure: a mask (steps, count).

    The figure may show the images as they are, as 0 … 1, as 0 … 255, or ink for paper: the scale that explains most.
    """
    masks = []
    for scale, offset in ((1.0, 0.0), (0.5, 0.5), (127.5, 127.5), (-1.0, 0.0), (-0.5, 0.5)):
        distance = (scale * levels.double().flatten()[:, None] + offset - tones.double()[None, :]).abs()
        masks.append((distance < 0.006 * abs(scale)).any(1).view_as(levels))
    return max(masks, key=torch.Tensor.sum)


@exercise(
    "3.5b",
    points=1,
    public=True,
    seconds=20,
    hint="One figure with some chains at several steps, one with all images after the last step.",
)
def test_pictures_of_the_generation(run, levels, labels):
    """One figure shows chains from first to last step, the other all finished images."""
    got, _ = run(shown, levels, labels)
    strip, sheet = seen(got["strip"], levels), seen(got["sheet"], levels)
    if not sheet[-1].all():
        fail("The sheet does not show all images after the last step.")
    if strip.any(1).sum() < 3:
        fail("The strip does not show chains at several steps.")
    if not strip[-1].any():
        fail("The strip does not reach the last step.")
