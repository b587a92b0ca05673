"""The glyph images: reading the data directory and bringing every image to 1×56×56 in [-1, 1].

A data directory holds `train.npy`, `val.npy` and `test.npy`, each with two arrays saved one after the other:
the images X (N, H, W) and the labels y (N,). `ood_ta.npy` and `ood_tb.npy` hold images only: other letters
(A), and digits, punctuation and ornaments (B).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

IMG_SIZE = 56
UNLABELLED = -1

LABELLED_SPLITS = ("train", "val", "test")
OOD_SPLITS = ("ood_ta", "ood_tb")


class InputError(ValueError):
    """A mistake in what the user gave: a path, a file, an option. The message says what to do."""


class TransformTensorDataset(Dataset):
    """Tensors of equal length as a dataset of pairs (x, y), where y is -1 if there are no labels.

    `TransformTensorDataset(images)` or `TransformTensorDataset(images, labels)`; `transform` is applied to
    each image when it is fetched.
    """

    def __init__(self, *tensors: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        if len(tensors) not in (1, 2) or any(len(tensor) != len(tensors[0]) for tensor in tensors):
            raise ValueError("TransformTensorDataset takes images, or images and as many labels.")
        self.tensors = tensors
        self.transform = transform

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | int]:
        x = self.tensors[0][index]
        if self.transform is not None:
            x = self.transform(x)
        y = self.tensors[1][index] if len(self.tensors) == 2 else UNLABELLED
        return x, y


def minmax(x: Tensor) -> Tensor:
    """Stretch each image (…, H, W) to [0, 1]; an image of one single tone has no contrast and becomes 0.5."""
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    contrast = high - low
    stretched = (x - low) / torch.where(contrast > 0, contrast, 1.0)
    return torch.where(contrast > 0, stretched, 0.5)


def pad_to_square(x: Tensor) -> Tensor:
    """Widen images (N, H, W) to squares without cutting: the glyph stays in the middle of more of its own
    paper.

    The tone of the paper is the median of the image's border.
    """
    height, width = x.shape[-2:]
    if height == width:
        return x
    border = torch.cat([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], dim=1)
    size = max(height, width)
    square = border.median(dim=1).values[:, None, None].repeat(1, size, size)
    top, left = (size - height) // 2, (size - width) // 2
    square[:, top : top + height, left : left + width] = x
    return square


def to_network_input(images: np.ndarray) -> Tensor:
    """Raw grey images (N, H, W) of any size -> (N, 1, 56, 56) float32 in [-1, 1]."""
    x = pad_to_square(minmax(torch.from_numpy(images.astype(np.float32))))[:, None]
    if x.shape[-1] != IMG_SIZE:
        x = F.interpolate(x, size=(IMG_SIZE, IMG_SIZE), mode="bilinear", antialias=True).clamp(0, 1)
    return 2 * x - 1


def read_arrays(path: Path, count: int) -> list[np.ndarray]:
    """The first `count` arrays that `np.save` wrote into one file."""
    try:
        with path.open("rb") as file:
            return [np.load(file, allow_pickle=False) for _ in range(count)]
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the data directory must hold {path.name}.") from None
    except (ValueError, EOFError, OSError) as error:
        what = "the images and then the labels" if count == 2 else "the images"
        raise InputError(f"{path} cannot be read ({error}): it must hold {what}, written with np.save.") from None


def read_split(data_dir: Path, split: str) -> TransformTensorDataset:
    path = data_dir / f"{split}.npy"
    images, *labels = read_arrays(path, 2 if split in LABELLED_SPLITS else 1)
    if images.ndim != 3 or 0 in images.shape:
        raise InputError(f"{path}: the images have the shape {images.shape}, expected (N, height, width).")
    if images.dtype.kind not in "uif" or not np.isfinite(images).all():
        raise InputError(f"{path}: the images are {images.dtype}, expected finite grey values such as uint8.")
    for y in labels:
        if y.dtype.kind not in "ui" or y.shape != images.shape[:1] or y.min() < 0:
            raise InputError(
                f"{path}: the labels are {y.dtype} of shape {y.shape}, expected {len(images)} class numbers 0, 1, …"
            )
    return TransformTensorDataset(to_network_input(images), *(torch.from_numpy(y.astype(np.int64)) for y in labels))


def get_datasets(data_dir: str | Path) -> dict[str, TransformTensorDataset]:
    """The five datasets `train`, `val`, `test`, `ood_ta` and `ood_tb` of a data directory.

    Each item is (x, y): x (1, 56, 56) in [-1, 1]; y the class number, -1 in the OOD sets.
    Raises InputError where the directory is missing or a file is not as described above.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise InputError(
            f"There is no data directory {data_dir}: draw the glyphs with "
            f"`ebmcourse data glyphs --out {data_dir}`, or name your own directory with --data_dir."
        )
    return {split: read_split(data_dir, split) for split in LABELLED_SPLITS + OOD_SPLITS}
