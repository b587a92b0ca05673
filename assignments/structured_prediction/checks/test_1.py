"""1: the network that looks at an image through windows of 32 × 18 pixels, 4 pixels apart.

Any architecture is right, so the checks judge what all right networks have in common: which pixels an output sees.
"""

import numpy as np
import torch

from ebmcourse.checking import exercise, fail, inputs, probe, require

WIDTHS = (18, 21, 22, 54, 67)


@inputs
def images(rng):
    """For each width, eight images of which some are equal, and which of four different ones each is."""
    kinds = [rng.permutation(np.repeat(np.arange(4), 2)) for _ in WIDTHS]
    different = [rng.random((4, 1, 32, width)).astype(np.float32) for width in WIDTHS]
    batches = [torch.from_numpy(images[numbers]) for images, numbers in zip(different, kinds, strict=True)]
    return {"batches": batches, "kinds": [numbers.tolist() for numbers in kinds]}


@inputs
def spots(rng):
    """Images of one window, in random order: two images, each twice, and 18 copies of each that differ in one column.

    order: the numbers of the images, where 20 j and 20 j + 1 are the same one and 20 j + 2 + k differs in column k
    """
    images = rng.random((2, 1, 1, 32, 18)).astype(np.float32).repeat(20, axis=1)
    for column in range(18):
        images[:, 2 + column, :, :, column] = rng.random((2, 1, 32))
    order = rng.permutation(40)
    return {"images": torch.from_numpy(images.reshape(40, 1, 32, 18)[order]), "order": order.tolist()}


@probe
def runs(model, images):
    """Whether the model takes these images."""
    try:
        model(images.clone())
    except Exception:
        return False
    return True


@probe
def explain_stop(model, images, error):
    """Say why the model stopped with this error for some of the images, as far as this is known."""
    message, (single, odd, *wider) = str(error), [runs(model, batch) for batch in images]
    too_small = any(
        text in message
        for text in (
            "Kernel size can't be greater than",
            "Output size is too small",
            "maximum size for tensor at dimension",
        )
    )
    require(
        not too_small or any(wider),
        "A layer or an `unfold` takes more rows or columns than an image of one letter has, and the model stops for "
        "wider images, too: a window has 32 rows and 18 columns. Is each size given for the right axis?",
    )
    require(
        not too_small,
        "An image of 32 × 18 pixels, which is one window, is too small for a layer: all layers together see a window "
        "of this size.",
    )
    require(
        "Expected more than 1 spatial element" not in message,
        "A normalisation takes the mean over the windows of an image, and stops where there is only one: a window must "
        "not depend on the others.",
    )
    require(
        single or not wider[-1],
        "The network stops for images with a single window, though not for wider ones: does an operation such as "
        "`squeeze()` without an axis remove the axis of the windows, too?",
    )
    require(
        not single or any(wider),
        "The network stops for images with several windows, though not for a single one: keep an axis for the windows, "
        "and apply the last layers to the features of each.",
    )
    require(
        odd or not (single and wider[0]),
        "The network stops where columns are left over on the right, as in an image of 21 columns: they belong to no "
        "window.",
    )


@probe
def energies_of(student, images):
    """The energies by a network in eval mode.

    whole: of all images
    again: of the last images by a second call
    turned: of the last images in the reverse order
    alone, wide: of each window of the last images cut out, without and with the neighbouring windows
    even: of images that look the same in every window
    """
    model = student.structured_prediction.SimpleNet().eval()
    last = images[-1].clone()
    starts = range(0, last.shape[3] - 17, 4)
    with torch.no_grad():
        try:
            whole = [model(batch.clone()) for batch in images]
        except NotImplementedError:
            raise
        except Exception as error:
            explain_stop(model, images, error)
            raise
        again = model(last.clone())
        alone = [model(last[:, :, :, start : start + 18].clone()) for start in starts]
        wide = [model(last[:, :, :, start - 4 : start + 22].clone()) for start in starts[1:-1]]
        turned = model(last.flip(0).clone())
        even = model(last[:, :, :, :4].repeat(1, 1, 1, len(starts) + 4)[:, :, :, : last.shape[3]])
    return {"whole": whole, "again": again, "turned": turned, "alone": alone, "wide": wide, "even": even}


def judge_size(energies):
    """Fail for energies that no new network has: those of common initial weights are less than 10."""
    if not energies.abs().max() < 1e4:
        fail("The energies of a new network are very large, infinite or NaN.")


def judge_kinds(energies, kinds):
    """Fail unless those images have equal energies that are of the same kind."""
    judge_size(energies)
    differences = (energies[:, None] - energies[None]).abs().amax((2, 3))
    equal = torch.tensor(kinds)[:, None] == torch.tensor(kinds)
    if differences[~equal].min() < 1e-6:
        fail("Different images have the same energies.")
    if differences[equal].max() > 1e-4:
        fail("Equal images have different energies, although the network is in eval mode.")


def judge_numbers(got, batches):
    """Fail unless the number of windows is right for every width."""
    windows = [energies.shape[1] for energies in got["whole"]]
    widths = [batch.shape[3] for batch in batches]
    right = [(width - 18) // 4 + 1 for width in widths]
    if windows == right:
        return
    if set(windows) == {1}:
        fail("There is one row of energies for the whole image: each window has its own.")
    if any(windows == [(width - 18) // stride + 1 for width in widths] for stride in range(1, 50)):
        fail("The windows are not 4 columns apart: use the stride 4 along the width.")
    if all(a >= b for a, b in zip(windows, right, strict=True)):
        fail("There are too many windows: a window is 18 columns wide and entirely inside the image, without padding.")
    if all(a <= b for a, b in zip(windows, right, strict=True)):
        fail("There are too few windows: a window is 18 columns wide, and the next one is 4 columns further on.")
    fail("The number of windows is wrong: they are 18 columns wide, 4 apart, and entirely inside the image.")


def judge_repeated(energies, again, kinds):
    """Fail unless two calls with the same images have the same energies."""
    judge_size(energies)
    if again.shape == energies.shape and (again - energies).abs().max() <= 1e-4:
        return
    equal = torch.tensor(kinds)[:, None] == torch.tensor(kinds)
    if (energies[:, None] - energies[None]).abs().amax((2, 3))[equal].max() > 1e-4:
        fail(
            "Equal images have different energies, and other ones in each call, although the network is in eval mode: "
            "does a dropout act there, too? `F.dropout` needs `training=self.training`."
        )
    fail(
        "Two calls with the same images give different energies, although the network is in eval mode: nothing may "
        "change from call to call. Is a layer created in `forward`? Create all layers in `__init__`."
    )


def judge_shapes(got, images):
    for energies, batch in zip(got["whole"], images["batches"], strict=True):
        if not isinstance(energies, torch.Tensor) or energies.dim() != 3:
            fail("The energies must have three axes, (B, L, 27), even for an image with a single window.")
        frames = (batch.shape[3] - 18) // 4 + 1
        if energies.shape == (len(batch), 27, frames) and frames != 27:
            fail("The axes of windows and classes are swapped: (B, L, 27) is expected.")
        if energies.shape == (frames, len(batch), 27) and frames != len(batch):
            fail("The axes of images and windows are swapped: (B, L, 27) is expected.")
        if energies.shape[2] == 26:
            fail("There are 26 energies for each window: BETWEEN has one, too, which makes 27.")
        if energies.shape[0] != len(batch) or energies.shape[2] != 27:
            fail("The shape is wrong: (B, L, 27) is expected, for 26 letters and the blank.")
    judge_numbers(got, images["batches"])
    judge_repeated(got["whole"][-1], got["again"], images["kinds"][-1])
    if any((got["whole"][0] == number).all() and not (got["whole"][-1] == number).all() for number in (0, 1)):
        fail("All energies of an image with a single window are equal: is there a softmax or a mean over the windows?")
    for energies, kinds in zip(got["whole"], images["kinds"], strict=True):
        judge_kinds(energies, kinds)
    if got["turned"].shape != got["whole"][-1].shape or (got["turned"] - got["whole"][-1].flip(0)).abs().max() > 1e-4:
        fail("The same images in another order have different energies, although the network is in eval mode.")


@exercise(
    "1a",
    points=1,
    public=True,
    hint="An image of width W has L = (W - 18) // 4 + 1 windows with 27 energies each: the shape is (B, L, 27).",
)
def test_energies_for_every_window(run, images):
    """`SimpleNet` returns 27 energies for every window of a batch of images, shape (B, L, 27)."""
    got, _ = run(energies_of, images["batches"])
    judge_shapes(got, images)


@exercise(
    "1a",
    points=1,
    public=True,
    hint="The energies of window i depend on the columns 4i … 4i + 17 only: use no padding, and do not mix windows.",
)
def test_windows_see_their_own_columns(run, images):
    """The energies of a window depend on its own 18 columns only."""
    got, _ = run(energies_of, images["batches"])
    judge_shapes(got, images)
    whole, alone = got["whole"][-1], got["alone"]
    if len(alone) != whole.shape[1] or any(energies.shape != (8, 1, 27) for energies in alone):
        fail("The energies of images with one window must have the shape (B, 1, 27).")
    alone = torch.cat(alone, dim=1)
    if (whole[:, 1:] - whole[:, :-1]).abs().amax((0, 2)).min() < 1e-6:
        fail("Different windows of an image have the same energies.")
    wide, even = got["wide"], got["even"]
    if len(wide) != whole.shape[1] - 2 or any(energies.shape != (8, 3, 27) for energies in wide):
        fail("The energies of images with three windows must have the shape (B, 3, 27).")
    if even.shape != whole.shape:
        fail("The shape is wrong: (B, L, 27) is expected, for 26 letters and the blank.")
    judge_kinds(even, images["kinds"][-1])
    # The order of summation depends on the width: differences of 3e-7 were measured for energies of about 1.
    if (even[:, 2:-2] - even[:, 2:3]).abs().max() > 1e-4:
        fail(
            "Windows that show the same have different energies: does a `reshape` stand where axes must be swapped "
            "with `transpose`, or does the place of a window or the window before it enter?"
        )
    if (whole.flip(1) - alone).abs().max() < 1e-4 < (whole - alone).abs().max():
        fail("The windows are in the reverse order: window 0 is the leftmost one.")
    same = ((whole - alone).abs().amax((0, 2)) < 1e-4).tolist()
    if same[0] and not any(same[1:]):
        fail(
            "Only the first window gives the same energies when it is cut out: window i must begin at column 4i, and "
            "depend on nothing outside."
        )
    if all(same[1:-1]) and not all(same):
        where = "last window gives" if same[0] else "first window gives" if same[-1] else "windows at both borders give"
        fail(
            f"Only the {where} other energies when cut out: window i consists of the columns 4i … 4i + 17 there, too, "
            "without padding."
        )
    among_neighbours = torch.cat([energies[:, 1:2] for energies in wide], dim=1)
    if (whole[:, 1:-1] - among_neighbours).abs().max() > 1e-4:
        fail(
            "A window depends on pixels far outside it, on other images or on the width of its image: is there a mean, "
            "a normalisation or another operation over the whole image or batch?"
        )
    if (whole - alone).abs().max() > 1e-4:
        fail(
            "A window depends on the columns next to it: all layers together may see its 18 columns only, without "
            "padding, and layers after the windows must act on each window alone."
        )


@probe
def reactions(student, spots):
    """The energies of the images with one window, by networks in eval mode.

    energies, single: of all images, and of the first alone
    given: the images after a call
    twin: by a second network with the same weights
    frozen: by this network where all weights that get no gradient are changed
    large: by this network where all weights are 30 times as large
    """
    module = student.structured_prediction
    model, twin = module.SimpleNet().eval(), module.SimpleNet().eval()
    with torch.no_grad():
        energies = model(spots.clone())
        try:
            single = model(spots[:1].clone())
        except Exception as error:
            require(
                "Expected more than 1 value per channel" not in str(error),
                "The network stops for a single image with a single window, although it is in eval mode: a "
                "normalisation takes the mean over the batch there, too. Use running statistics in eval mode.",
            )
            require(
                False,
                "The network stops for a single image with a single window, though not for several images: does an "
                "operation such as `squeeze()` without an axis remove the axis of the batch?",
            )
        twin(spots.clone())  # lazy layers get their shapes
        twin.load_state_dict(model.state_dict())
        found = {"energies": energies, "single": single, "twin": twin(spots.clone()), "given": spots.clone()}
        model(found["given"])
    twin.zero_grad()
    value = twin(spots.clone()).square().sum()
    if value.requires_grad:
        value.backward()
    with torch.no_grad():
        for weights in twin.parameters():
            if weights.grad is None and weights.is_floating_point():
                weights.add_(1)
        found["frozen"] = twin(spots.clone())
        twin.load_state_dict(model.state_dict())
        for weights in twin.parameters():
            weights.mul_(30)
        return found | {"large": twin(spots.clone()).nan_to_num()}
