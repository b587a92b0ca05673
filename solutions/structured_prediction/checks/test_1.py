"""1: the network that looks at an image through windows of 32 × 18 pixels, 4 pixels apart.

Any architecture is right, so the checks judge what all right networks have in common: which pixels an output sees.
"""

import numpy as np
import torch

from ebmcourse.checking import exercise, fail, inputs, probe

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
def energies_of(student, images):
    """The energies of all images by a network in eval mode, and of each window of the last images cut out."""
    model = student.structured_prediction.SimpleNet().eval()
    with torch.no_grad():
        whole = [model(batch.clone()) for batch in images]
        last = images[-1]
        starts = range(0, last.shape[3] - 17, 4)
        alone = [model(last[:, :, :, start : start + 18].clone()) for start in starts]
        turned = model(last.flip(0))
    return {"whole": whole, "alone": alone, "turned": turned}


def judge_size(energies):
    """Fail for energies that no new network has: those of common initial weights are less than 10."""
    if not energies.abs().max() < 1e4:
        fail("The energies of a new network are very large, infinite or NaN.")


def judge_shapes(got, images):
    for energies, batch, kinds in zip(got["whole"], images["batches"], images["kinds"], strict=True):
        if not isinstance(energies, torch.Tensor) or energies.dim() != 3:
            fail("The energies must have three axes, (B, L, 27), even for an image with a single window.")
        frames = (batch.shape[3] - 18) // 4 + 1
        if energies.shape == (len(batch), 27, frames) and frames != 27:
            fail("The axes of windows and classes are swapped: (B, L, 27) is expected.")
        if energies.shape[0] != len(batch) or energies.shape[2] != 27:
            fail("The shape is wrong: (B, L, 27) is expected, for 26 letters and the blank.")
        if energies.shape[1] != frames:
            fail("The number of windows is wrong: they are 18 columns wide, 4 apart, and entirely inside the image.")
        judge_size(energies)
        differences = (energies[:, None] - energies[None]).abs().amax((2, 3))
        equal = torch.tensor(kinds)[:, None] == torch.tensor(kinds)
        if differences[~equal].min() < 1e-6:
            fail("Different images have the same energies.")
        if differences[equal].max() > 1e-4:
            fail("Equal images have different energies, although the network is in eval mode.")
    if got["turned"].shape != got["whole"][-1].shape or (got["turned"] - got["whole"][-1].flip(0)).abs().max() > 1e-4:
        fail("A second call with the same images gives different energies, although the network is in eval mode.")


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
    # The order of summation depends on the width: differences of 3e-7 were measured for energies of about 1.
    if (whole[:, :1] - alone[:, :1]).abs().max() < 1e-4 < (whole - alone).abs().max():
        fail("Only the first window gives the same energies when it is cut out: the windows must be 4 columns apart.")
    if (whole[:, 1:-1] - alone[:, 1:-1]).abs().max() < 1e-4 < (whole - alone).abs().max():
        fail("The windows at the borders give other energies when they are cut out: use no padding.")
    if (whole - alone).abs().max() > 1e-4:
        fail("A window depends on pixels outside it: is there padding, or an operation over the whole image?")


@probe
def reactions(student, spots):
    """The energies of the images with one window, of the first alone, and of a second network with the same weights."""
    module = student.structured_prediction
    model, twin = module.SimpleNet().eval(), module.SimpleNet().eval()
    with torch.no_grad():
        energies, single = model(spots.clone()), model(spots[:1].clone())
        twin(spots.clone())  # lazy layers get their shapes
        twin.load_state_dict(model.state_dict())
        return {"energies": energies, "single": single, "twin": twin(spots.clone())}


### BEGIN HIDDEN TESTS
def in_order(energies, spots):
    """The energies (40, 1, 27) of the images by their numbers: (2, 20, 27)."""
    return energies[torch.tensor(spots["order"]).argsort()].view(2, 20, 27)


@exercise(
    "1a",
    points=0.5,
    needs=(test_energies_for_every_window,),
    hint="Each of the 18 columns of a window must influence its energies.",
)
def test_windows_see_all_their_columns(run, spots):
    """The energies of a window depend on all of its 18 columns, but not on other images of the batch."""
    got, want = run(reactions, spots["images"])
    if got["energies"].shape != want["energies"].shape or not got["energies"].isfinite().all():
        fail("The energies of images with one window must have the shape (B, 1, 27).")
    if got["single"].shape != want["single"].shape:
        fail("The energies of a single image have lost an axis: they must have the shape (1, L, 27).")
    if (got["energies"][:1] - got["single"]).abs().max() > 1e-4:
        fail("The energies of an image depend on the other images of the batch, even in eval mode.")
    judge_size(got["energies"])
    energies = in_order(got["energies"], spots)
    if (energies[:, 1] - energies[:, 0]).abs().max() > 1e-4:
        fail("Equal images have different energies, although the network is in eval mode.")
    change = (energies[:, 2:] - energies[:, :1]).abs().amax((0, 2))
    if change.max() < 1e-7:
        fail("The energies do not depend on the image.")
    if change.min() < 1e-7:
        fail("The energies do not depend on some columns of the window: it must be 18 columns wide.")
    if got["twin"].shape != want["twin"].shape or (got["energies"] - got["twin"]).abs().max() > 1e-4:
        fail(
            "Not all weights are parameters of the network, so they cannot be trained: "
            "assign each layer to an attribute, or use nn.Sequential or nn.ModuleList."
        )


@exercise(
    "1a",
    points=0.5,
    needs=(test_energies_for_every_window,),
    hint="Energies are arbitrary real numbers: use no softmax or other function after the last layer.",
)
def test_energies_are_raw(run, spots):
    """The energies are the raw output of the last layer, without a softmax or another function."""
    got, want = run(reactions, spots["images"])
    energies = got["energies"]
    if energies.shape != want["energies"].shape or not energies.std() > 1e-6:
        fail("The energies of images with one window must have the shape (B, 1, 27), and must differ.")
    single = got["single"].flatten()
    if single.shape != (27,) or (energies[0, 0] - single).abs().max() > 0.5 * energies.std():
        fail("A second call with the same image gives different energies, although the network is in eval mode.")
    judge_size(energies)
    pairs = in_order(energies, spots)
    if (pairs[:, 1] - pairs[:, 0]).abs().mean() > 0.1 * (pairs[1, 0] - pairs[0, 0]).abs().mean():
        fail("Equal images have different energies, although the network is in eval mode.")
    for sign in (1, -1):
        if (energies * sign).exp().sum(2).sub(1).abs().max() < 1e-3:
            fail("These are log-probabilities: remove the log_softmax, energies are raw numbers.")
        if (energies * sign).sum(2).sub(1).abs().max() < 1e-3:
            fail("These are probabilities: remove the softmax, energies are raw numbers.")
    # A ReLU gives many zeros, which are the smallest or largest value. Outputs of one sign alone are not wrong.
    if (energies == 0).float().mean() > 0.1 and (energies.min() == 0 or energies.max() == 0):
        fail("There is a ReLU after the last layer: remove it, energies may be negative.")
    if energies.abs().max() <= 1 and (energies >= 0).all():
        fail("All energies are between 0 and 1: remove the sigmoid.")


### END HIDDEN TESTS
