"""1: the network that looks at an image through windows of 32 × 18 pixels, 4 apart.

Networks of any make are right, so they are judged by what all of them have in common: which pixels an output sees.
"""

import numpy as np
import torch

from ebmcourse.checking import exercise, fail, inputs, probe

WIDTHS = (18, 21, 22, 54, 67)


@inputs
def images(rng):
    """One batch of three images for every width."""
    return [torch.from_numpy(rng.random((3, 1, 32, width)).astype(np.float32)) for width in WIDTHS]


@inputs
def spots(rng):
    """Two images of one window, and 18 of each in which one column is another."""
    plain = rng.random((2, 1, 1, 32, 18)).astype(np.float32)
    changed = np.repeat(plain, 18, axis=1)
    for column in range(18):
        changed[:, column, :, :, column] = rng.random((2, 1, 32))
    return torch.from_numpy(np.concatenate([plain, changed], axis=1).reshape(38, 1, 32, 18))


@probe
def energies_of(student, images):
    """Energies of all images by a network in eval mode, and of every window of the last ones cut out."""
    model = student.structured_prediction.SimpleNet().eval()
    with torch.no_grad():
        whole = [model(batch.clone()) for batch in images]
        last = images[-1]
        starts = range(0, last.shape[3] - 17, 4)
        alone = [model(last[:, :, :, start : start + 18].clone()) for start in starts]
        turned = model(last.flip(0))
    return {"whole": whole, "alone": alone, "turned": turned}


def judge_shapes(got, images):
    for energies, batch in zip(got["whole"], images, strict=True):
        if not isinstance(energies, torch.Tensor) or energies.dim() != 3:
            fail("The energies must have three axes, (B, L, 27), also for an image with a single window.")
        frames = (batch.shape[3] - 18) // 4 + 1
        if energies.shape == (len(batch), 27, frames) and frames != 27:
            fail("The axes of windows and classes are the wrong way round: (B, L, 27) is expected.")
        if energies.shape[0] != len(batch) or energies.shape[2] != 27:
            fail("The shape is wrong: (B, L, 27) is expected, with 26 letters and the blank.")
        if energies.shape[1] != frames:
            fail("The number of windows is wrong: they are 18 columns wide, 4 apart, and lie wholly inside the image.")
        if not energies.isfinite().all():
            fail("There are infinite or undefined (NaN) energies.")
        if (energies[1:] - energies[:-1]).abs().amax((1, 2)).min() < 1e-6:
            fail("The energies are the same for different images.")
    if got["turned"].shape != got["whole"][-1].shape or (got["turned"] - got["whole"][-1].flip(0)).abs().max() > 1e-4:
        fail("Asked again, the network gives other energies to the same images.")


@exercise(
    "1a",
    points=1,
    public=True,
    hint="An image of width W has L = (W - 18) // 4 + 1 windows, and each of them 27 energies: (B, L, 27).",
)
def test_energies_for_every_window(run, images):
    """`SimpleNet` gives 27 energies for every window of a batch of images, (B, L, 27)."""
    got, _ = run(energies_of, images)
    judge_shapes(got, images)


@exercise(
    "1a",
    points=1,
    public=True,
    hint="The energies of window i are those of the columns 4i … 4i + 17 alone: no padding, nothing from beside it.",
)
def test_windows_see_their_own_columns(run, images):
    """The energies of a window depend on its own 18 columns and on nothing else."""
    got, _ = run(energies_of, images)
    judge_shapes(got, images)
    whole, alone = got["whole"][-1], got["alone"]
    if len(alone) != whole.shape[1] or any(energies.shape != (3, 1, 27) for energies in alone):
        fail("A window that is cut out must give energies of shape (B, 1, 27).")
    alone = torch.cat(alone, dim=1)
    if (whole[:, 1:] - whole[:, :-1]).abs().amax((0, 2)).min() < 1e-6:
        fail("All windows of an image have the same energies.")
    # Convolutions over another width add up in another order: 3e-7 was measured for energies of the size 1.
    if (whole[:, :1] - alone[:, :1]).abs().max() < 1e-4 < (whole - alone).abs().max():
        fail("Only the first window is as it is alone: the windows are not 4 columns apart, or see their neighbours.")
    if (whole[:, 1:-1] - alone[:, 1:-1]).abs().max() < 1e-4 < (whole - alone).abs().max():
        fail("The windows at the borders are other ones: use no padding.")
    if (whole - alone).abs().max() > 1e-4:
        fail("A window sees pixels that are not its own: is there padding, or is something shared along the image?")


@probe
def reactions(student, spots):
    """The energies of one window and how they change with each of its columns, in a large and in a small batch."""
    model = student.structured_prediction.SimpleNet().eval()
    with torch.no_grad():
        return {"energies": model(spots.clone()), "fewer": model(spots[:19].clone())}
