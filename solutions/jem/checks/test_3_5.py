"""3.5: generation."""

import math
from collections import deque
from functools import partial

import numpy as np
import torch
from matplotlib.text import Text
from stand_ins import Slope, held, jem
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

STEPS, COUNT = 18, 5  # of the figures
FEW = 3  # steps, for a figure with more columns
MARK = 0.96  # the value of the corner of each image at the top left: two of eight rows and four of eight columns
RANGES = (1.0, 0.0), (0.5, 0.5), (127.5, 127.5), (-1.0, 0.0), (-0.5, 0.5)  # factors and offsets of values in figures
SHAPE = (1, 6, 4)
TRAINED = 6  # steps of the hyperparameters
LATER_STEP = 6.0  # the step size in the second epoch; in the first one, it is 10
GENERATED = 70  # images; a solution may generate them in portions


@inputs
def labels(rng):
    return torch.from_numpy(rng.integers(10, 100, COUNT))


@inputs
def classes(rng):
    """The classes of the generated images; the first three images are not of the classes 0, 1, 2 in this order."""
    return torch.from_numpy(np.concatenate([[1, 0], rng.integers(0, 3, GENERATED - 2)]))


@inputs
def levels(rng):
    """The value of each image after each step: all different, in random order, and not symmetric about 0.

    None of them is near -1, 0 or 1, which figures may have between their images.
    """
    half = STEPS * COUNT // 2
    steps = np.concatenate([np.linspace(-0.9, -0.03, half), np.linspace(0.037, 0.889, half)])
    steps = rng.permutation(steps).reshape(STEPS, COUNT)
    return torch.from_numpy(steps.astype(np.float32))


@inputs
def slopes(rng):
    """The gradients of f(x, y) for each class, and of f(x). They do not exceed the clamp."""
    signs = rng.choice([-1, 1], (4, *SHAPE))
    return torch.from_numpy((signs * rng.uniform(0.01, 0.025, signs.shape)).astype(np.float32))


@probe
class TracedSampler:
    """A sampler without noise, whose chains show their start, their class and their number of steps.

    They start at 0, or at 0.5 if there is a buffer, and follow the slope of their class.
    """

    def __init__(self, model, img_shape, sample_size, num_classes, cbuffer_size=256):
        require(isinstance(num_classes, int), "The sampler needs the number of classes, `model.hparams.num_classes`.")
        require(isinstance(cbuffer_size, int) and cbuffer_size > 0, "`cbuffer_size` must be a positive number.")
        self.model, self.img_shape = model, tuple(img_shape)
        self.sample_size, self.num_classes, self.cbuffer_size = sample_size, num_classes, cbuffer_size
        self.buffer = None

    def synthesize_samples(self, clabel=None, steps=60, step_size=10, return_img_per_step=False):
        slopes = next(buffer for name, buffer in self.model.named_buffers() if name.endswith("slopes"))
        require(self.img_shape == SHAPE, "The images must have the shape `model.hparams.img_shape`.")
        start = 0.5 if held(self.buffer) else 0.0
        classes = torch.full((self.sample_size,), -1) if clabel is None else clabel
        chains = start + step_size * torch.arange(1, steps + 1)[:, None, None, None, None] * slopes[classes]
        self.buffer = chains[-1].clone()
        return chains if return_img_per_step else chains[-1]


@probe
def total(value, depth=0):
    """The sum of the absolute values in all tensors and arrays that can be reached from `value`."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return torch.as_tensor(value).detach().double().nan_to_num().abs().sum().item()
    if depth > 5:
        return 0.0
    items = list(value.values()) if isinstance(value, dict) else []
    items += value if isinstance(value, list | tuple | set | deque) else []
    items += vars(value).values() if hasattr(value, "__dict__") else []
    return sum(total(item, depth + 1) for item in items)


@probe
def generated(student, labels, slopes, conditional, count):
    """The result of `generate_images`, called twice, for a model whose sampler has chains in its buffer.

    The model with labels is in its second epoch, with the step size LATER_STEP; the other has the default, 10.

    `kept` tells whether this buffer has the same contents afterwards, and `size` how the sampler's number of chains has
    changed.
    """
    module, labels = student.ex_main, labels[:count] if conditional else None

    def attempt(sampler_class):
        own = module.MCMCSampler
        epoch = dict(epoch=1, step_size_decay=LATER_STEP / 10) if conditional else {}
        model = jem(student, Slope(slopes), shape=SHAPE, steps=TRAINED, **epoch)
        model.sampler = sampler_class(model.cnn, SHAPE, count + 1, 3, 8)
        model.cnn.slopes = -slopes  # so the chains in the buffer have moved in the opposite direction
        for _ in range(8):
            model.sampler.synthesize_samples(labels, steps=2)
        model.cnn.slopes = slopes
        before = total(getattr(model.sampler, "buffer", None))
        module.MCMCSampler = sampler_class
        try:
            module.generate_images(model, labels, count, 3)
            chains = module.generate_images(model, labels, count, 3)
            require(torch.is_tensor(chains), "`generate_images` returns one tensor, (steps, count, C, H, W).")
            chains = chains.detach()
            if chains.dim() == 5:  # one more tells that there are too many, which is judged in 3.3a
                chains = chains[:, : count + 1]
            are_many = chains.dim() == 5 and len(chains) > 24 and chains.shape[1] == count
            require(not are_many, "There are many more entries than `steps`. Pass it to the sampler.")
            after = total(getattr(model.sampler, "buffer", None))
            size = getattr(model.sampler, "sample_size", count + 1) - count - 1
            return {"chains": chains, "kept": math.isclose(before, after), "size": size}
        finally:
            module.MCMCSampler = own

    return ways(whole=lambda: attempt(student.ex_main.MCMCSampler), isolated=lambda: attempt(TracedSampler))


def judge_shape(shape, right):
    """Say in what the shape of the generated images is wrong."""
    names = "(steps, count, C, H, W)"
    if right[1] == 1 and shape in (right[:1] + right[2:], [size for size in right if size > 1]):
        fail(f"For one image, an axis is missing. The result must have the shape {names}: do not use squeeze().")
    if shape == right[1:]:
        fail(f"The axis of the steps is missing. The result must have the shape {names}, with the images of all steps.")
    if shape == [right[1], right[0], *right[2:]]:
        fail(f"The first two axes are exchanged. The result must have the shape {names}.")
    if shape == [TRAINED, *right[1:]]:
        fail(f"There are as many steps as in training. The result must have the shape {names}: use `steps`.")
    if shape[1:] == right[1:]:
        fail(f"The number of steps is wrong. The result must have the shape {names}: the images after each step.")
    if shape[:1] + shape[2:] == right[:1] + right[2:]:
        fail(f"There are not `count` images. The result must have the shape {names}: pass `count` to the sampler.")
    raise Mismatch(f"The result must have the shape {names}.")


def judge_starts(starts, directions):
    """Say why images (count, pixels) do not start near 0. Traced chains start at 0 or, with a buffer, at 0.5.

    directions: the signs of the gradients. Chains of the training have moved in the opposite direction.
    """
    # Most of them are at the limit of the image range, or three steps away from it.
    if ((starts * directions).mean(1) < -0.3).float().mean() > 0.3:
        fail(
            "Images continue chains of the training, from the buffer of `model.sampler` or a copy of it. "
            "Start with an empty buffer."
        )
    is_continued = (starts - 0.5).abs().amax(1) < 1e-4
    if is_continued.all():
        fail("The chains continue others from a buffer. New images start from noise, also in a second call.")
    if (is_continued | (starts.abs().amax(1) < 1e-4)).all():
        fail(
            "Some chains continue others of the same call from a buffer. "
            "Use a new sampler for each portion of the images, or generate all of them at once."
        )
    raise Mismatch("Some chains do not start from noise with standard deviation 0.01, or continue other chains.")


def judge_generation(got, want, slopes, classes, step=10):
    """Check that the chains start near 0 and follow the slopes of their classes in each step of this size."""
    if got["chains"].shape != want["chains"].shape:
        judge_shape(list(got["chains"].shape), list(want["chains"].shape))
    # The standard deviation of the noise is 0.014; the tolerance is nine times that. One more step is at least 0.1.
    noise = 0.13
    number = torch.arange(1, 4)[:, None, None, None, None]
    path = step * number * slopes[classes]
    if difference(got["chains"], path - path[:1], 0, noise) is None:
        fail("The first entry is the initial noise. Return the images after each step.")
    moves, right = (chains[1:] - chains[:1] for chains in (got["chains"], path))
    if (moves - right).abs().max() < noise < (got["chains"] - path).abs().max():
        judge_starts((got["chains"] - path)[0].flatten(1), slopes[classes].sign().flatten(1))

    def mistakes():
        replaced = (
            "Some images are generated for another class than their label. Pass the labels to the sampler as they are."
        )
        if classes.max() < 0:
            replaced = "Without labels, some images are generated for a class. Pass None to the sampler."
        of_other_class = torch.stack(
            [(got["chains"] - step * number * slope).abs().amax((0, 2, 3, 4)) < noise for slope in slopes]
        ).any(0)
        ignored = "The labels are not passed to the sampler."
        if not classes.any():
            ignored = "Labels that are all 0 are ignored. Test `labels is None` instead of the value of the labels."
        return {
            "The order of the steps is reversed. The first entry is the images after the first step.": path.flip(0),
            "The sampler is called once per step, so chains are interrupted. Call it once with all steps.": (
                path[:1] + 0.5 * (number > 1)
            ),
            ignored: step * number * slopes[-1:].expand_as(path[0]),
            "All images are generated for the class 0. Pass the given labels, or None.": (
                step * number * slopes[0 * classes]
            ),
            replaced: proven(bool(of_other_class.all()), got["chains"], path),
            "The values of the images are converted or clipped to [0, 1]. Return the chains as they are.": nearest(
                got["chains"], (path + 1) / 2, path.clamp(0, 1)
            ),
            "All entries contain the images of one step. Return those after each step.": nearest(
                got["chains"], path[-1:].expand_as(path), path[:1].expand_as(path)
            ),
            "The step size is 10, as in the first epoch. Pass model.step_size, which depends on the epoch.": (
                path * 10 / step
            ),
            "The images move too far or not far enough in a step. Its size is model.step_size.": (
                multiple(got["chains"], path)
            ),
        }

    assert_close(got["chains"], path, rtol=0, atol=noise, mistakes=mistakes)
    if got["kept"] is not True:
        fail("The chains in the buffer of `model.sampler` are lost or changed. Use only the buffer of a new sampler.")
    if got["size"] != 0:
        fail("`sample_size` of `model.sampler` is changed. Use a new sampler, or restore it.")


@exercise(
    "3.5a",
    points=1,
    public=True,
    hint="Create a new sampler, whose buffer is empty, and return the chains after each step.",
)
def test_generation_starts_from_noise(run, classes, slopes):
    """Generated images start from noise, and the images after each step are returned."""
    for count in (GENERATED, 1):
        got, want = run(generated, classes, slopes, False, count)
        none = torch.full((count,), -1)
        assert_either_way(got, want, lambda got, want, none=none: judge_generation(got, want, slopes, none))


### BEGIN HIDDEN TESTS
@exercise("3.5a", points=1, hint="Pass the labels to the sampler.")
def test_generation_of_given_classes(run, classes, slopes):
    """With labels, each image is generated for its class."""
    for given in (classes, 0 * classes[:2]):
        got, want = run(generated, given, slopes, True, len(given))
        judge = partial(judge_generation, slopes=slopes, classes=given, step=LATER_STEP)
        assert_either_way(got, want, judge)


### END HIDDEN TESTS


@probe
def pixels(figure):
    """All pixels of the images in a figure: values (N,) of one channel, and positions (N, 2) in the figure."""
    numbers, places = [np.zeros(0)], [np.zeros((0, 2))]
    for axes in figure.axes:
        for image in axes.get_images():
            grey = np.asarray(image.get_array(), dtype=float)
            grey = grey[..., 0] if grey.ndim == 3 else grey
            left, right, bottom, top = image.get_extent()
            top, bottom = (top, bottom) if image.origin == "upper" else (bottom, top)  # of the array
            x, y = (
                first + (np.arange(size) + 0.5) / size * (last - first)
                for first, last, size in ((left, right, grey.shape[1]), (top, bottom, grey.shape[0]))
            )
            numbers.append(grey.ravel())
            places.append(axes.transData.transform(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)))
    places = figure.transFigure.inverted().transform(np.concatenate(places))
    return {"numbers": np.concatenate(numbers).astype(np.float32), "places": places}


@probe
def titles(figure):
    """All texts of a figure that contain something, one per line, and their positions (N, 2) in the figure."""
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    places = [
        figure.transFigure.inverted().transform(text.get_transform().transform(text.get_position())) for text in texts
    ]
    return {
        "texts": "\n".join(" ".join(text.get_text().split()) for text in texts),
        "places": np.array(places).reshape(-1, 2),
    }


@probe
def shown(student, levels, labels):
    """The pixels of the two figures for some chains, and the chains afterwards."""
    chains = levels[:, :, None, None, None].expand(-1, -1, 1, 8, 8).clone()
    chains[..., :2, :4] = MARK
    names = [f"class {label}" for label in labels.tolist()]
    draw = student.ex_main.draw_generation

    def works(count, titles=None, **options):
        try:
            draw(chains[:, :count].clone(), titles, **options)
        except Exception:
            return False
        return True

    strip, sheet = draw(chains, names, rows=2, columns=5)
    if not works(1, names[:1], rows=7):
        fewer = works(2, names[:2], rows=7, columns=2) or not works(2, names[:2], rows=2, columns=2)
        require(fewer, "`draw_generation` fails if there are fewer chains than `rows`.")
        require(works(1, names[:1]), "`draw_generation` fails for a single image.")
    # Fewer steps than columns, of which not all can be repeated equally often; and more images than rows · columns.
    try:
        few, whole = draw(chains[-FEW:].clone(), None, rows=1, columns=4)
    except Exception:
        require(works(2, rows=2, columns=2), "`draw_generation` fails without titles. `titles` may be None.")
        require(works(COUNT, names, rows=1, columns=4), "`draw_generation` fails if there is a single row.")
        require(False, "`draw_generation` fails if there are fewer steps than `columns`.")
    return {
        "strip": pixels(strip),
        "sheet": pixels(sheet),
        "few": pixels(few),
        "whole": pixels(whole),
        "titles": titles(sheet),
        "chains": chains[:, :, 0, -1, -1],
    }


def tiles(figure, levels, expected=frozenset()):
    """Find the images of `levels` (steps, count) in a figure: (step, chain) -> centre and size of the image.

    An image is found if at least 16 pixels have its value; fewer may be borders between images. The figure may show
    values in [-1, 1], [0, 1] or [0, 255], or inverted values. The range that is used is the one with which most of
    the expected images, and then most images, are found.
    """
    numbers, places = figure["numbers"].numpy(), figure["places"].double().numpy()
    order = np.argsort(levels.flatten().numpy())
    tones = levels.flatten().numpy()[order]
    best = {}
    for scale, offset in RANGES:
        asked = (numbers - offset) / scale
        nearest = np.searchsorted((tones[1:] + tones[:-1]) / 2, asked)
        is_tone = np.abs(asked - tones[nearest]) < 0.006
        nearest, its = nearest[is_tone], places[is_tone]
        counts = np.bincount(nearest, minlength=len(tones))
        if (counts >= 16).sum() < len(expected):
            continue
        sums = [[np.bincount(nearest, axis**power, len(tones)) for axis in its.T] for power in (1, 2)]
        middles, squares = np.array(sums).swapaxes(1, 2) / np.maximum(counts, 1)[:, None]
        sizes = np.sqrt(np.maximum(12 * (squares - middles**2), 0))  # the width of a uniform distribution
        found = {
            divmod(int(order[tone]), levels.shape[1]): (middles[tone], sizes[tone])
            for tone in np.flatnonzero(counts >= 16)
        }
        best = max(best, found, key=lambda each: (len(each.keys() & expected), len(each)))
    return best


def are_upright(figure, images):
    """Whether the marked corner is at the top left of all these images (centre and size) of a figure."""
    numbers, places = figure["numbers"].numpy(), figure["places"].double().numpy()

    def is_upright(marked, middle, size):
        offsets = (marked - middle) / size
        offsets = offsets[(np.abs(offsets) < 0.6).all(1)]
        # The pixels of the rest have their centre at (0.04, -0.05), and the marked ones at (-0.25, 0.375).
        return len(offsets) >= 4 and np.abs(offsets.mean(0) - [-0.29, 0.43]).max() < 0.1

    for scale, offset in RANGES:
        marked = places[np.abs((numbers - offset) / scale - MARK) < 0.01]
        if all(is_upright(marked, *image) for image in images):
            return True
    return False


def lie_apart(places):
    """Whether no two of these images overlap."""
    middles, sizes = (np.array(part) for part in zip(*places, strict=True))
    is_beside = np.abs(middles[:, None] - middles) > 0.4 * (sizes[:, None] + sizes)
    return bool((is_beside.any(2) | np.eye(len(middles), dtype=bool)).all())


def are_swapped(titles, names, places):
    """Whether there is one text for each image, and some of them stand at the places of others.

    titles: texts and their positions. names, places: the right text, and the centre and size, of each image. A text may
    stand above or below its image, or in it.
    """
    texts = titles["texts"].split("\n")
    if len(texts) != len(titles["places"]):
        raise Mismatch("There should be one position for each text.")
    if sorted(filter(names.__contains__, texts)) != sorted(names):
        return False
    middles, sizes = (np.array(part) for part in zip(*places, strict=True))
    found = [(text, place) for text, place in zip(texts, titles["places"].numpy(), strict=True) if text in names]

    def are_near(shift):
        """Whether each text is nearest to an image with this text, if texts are shifted by a part of the height."""
        offsets = (np.array([place for _, place in found])[:, None] - middles) / sizes - [0, shift]
        return all(names[image] == text for (text, _), image in zip(found, (offsets**2).sum(2).argmin(1), strict=True))

    return not any(are_near(shift) for shift in (0.5, -0.5, 0))


def runs_on(places):
    """Whether there are at least three images in reading order: in rows from the left, or in columns from the top."""
    middles, sizes = (np.array(part) for part in zip(*places, strict=True))
    cells = np.round((middles - middles[0]) / sizes.mean(0) * [1, -1]).tolist()  # y grows upwards
    return len(cells) >= 3 and any(sorted(cells, key=lambda cell: cell[::way]) == cells for way in (1, -1))


@exercise(
    "3.5b",
    points=1,
    public=True,
    seconds=20,
    hint="The first figure shows some chains at several steps, the second one all images after the last step.",
)
def test_pictures_of_the_generation(run, levels, labels):
    """One figure shows chains from the first to the last step, the other one all generated images."""
    got, want = run(shown, levels, labels)
    if difference(got["chains"], want["chains"], 0, 1e-6):
        fail("The given chains are changed. Use a copy of them.")
    places = torch.cat([got[figure]["places"] for figure in ("strip", "sheet", "few", "whole")])
    if ((places < -0.5) | (places > 1.5)).any():  # fractions of the figure
        fail("Images lie outside the figure.")
    last = [(STEPS - 1, chain) for chain in range(COUNT)]
    strip, sheet = tiles(got["strip"], levels), tiles(got["sheet"], levels, set(last))
    if set(last) <= tiles(got["strip"], levels, set(last)).keys() <= set(last) and len({step for step, _ in sheet}) > 2:
        fail("The figures are exchanged. Return the steps first, and the sheet of all images second.")
    if not sheet.keys() >= set(last):
        fail("The second figure does not show all images after the last step, with their values as they are.")
    shown_last = {(FEW - 1, chain) for chain in range(COUNT)}
    whole = tiles(got["whole"], levels[-FEW:], shown_last)
    if not whole.keys() >= shown_last:
        fail(
            "If there are more than rows · columns images, the second figure does not show all of them. "
            "`rows` and `columns` are only for the first figure."
        )
    if not strip:
        fail("The first figure shows no image of the chains as it is.")
    if len({step for step, _ in strip}) == 2 and len({chain for _, chain in strip}) == COUNT:
        fail(
            "The first figure shows `columns` chains after `rows` steps, so these are exchanged. "
            "It shows up to `rows` chains after up to `columns` steps."
        )
    if len({step for step, _ in strip}) < 3:
        fail("The first figure shows chains at one or two steps only. Show them at up to `columns` different steps.")
    if len({step for step, _ in strip}) > 5:
        fail("The first figure shows more steps than `columns`.")
    if len({chain for _, chain in strip}) < 2:
        fail("The first figure shows only one chain. It should show as many as `rows` says, if there are so many.")
    if len({chain for _, chain in strip}) > 2:
        fail("The first figure shows more chains than `rows`.")
    if strip.keys().isdisjoint(last):
        fail("The first figure does not show the last step.")
    drawn = strip.values(), [sheet[tile] for tile in last], [whole[tile] for tile in sorted(shown_last)]
    if not all(lie_apart(images) for images in drawn):
        fail("Images overlap in a figure.")
    if not are_upright(got["strip"], strip.values()) or not are_upright(got["sheet"], [sheet[tile] for tile in last]):
        fail("Images in a figure are upside down, mirrored or transposed. Draw them as they are.")
    if not any(
        runs_on([strip[tile] for tile in sorted(strip) if tile[1] == chain]) for _, chain in strip.keys() & last
    ):
        fail("In the first figure, the steps of a chain are not in order. Show each chain in a row or a column.")
    if any(got["titles"]["texts"].count(f"class {label}") != labels.tolist().count(label) for label in labels.tolist()):
        fail("The second figure does not show the titles, each once. Pass `titles` to plots.sample_sheet.")
    if are_swapped(got["titles"], [f"class {label}" for label in labels.tolist()], [sheet[tile] for tile in last]):
        fail("In the second figure, titles belong to other images. Pass `titles` as they are.")
    few = tiles(got["few"], levels[-FEW:])
    if few.keys().isdisjoint((FEW - 1, chain) for chain in range(COUNT)):
        fail("The first figure does not show the last step if there are fewer steps than `columns`.")
    if len({step for step, _ in few}) < 2:
        fail("The first figure shows only one step if there are fewer steps than `columns`.")
    if len({chain for _, chain in few}) > 1:
        fail("The first figure shows more chains than `rows` if there are fewer steps than `columns`.")
    areas = [size.prod() for _, size in few.values()]
    # The pixels of an image that is repeated lie in a larger area, which may contain other images.
    if max(areas) > 1.5 * min(areas) or not lie_apart(few.values()):
        fail("The first figure repeats steps if there are fewer steps than `columns`. Show different steps.")
