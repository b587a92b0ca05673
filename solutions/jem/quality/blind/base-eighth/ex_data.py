"""The glyph images: reads a data directory and converts every image to 1×56×56 in [-1, 1].

A data directory contains `train.npy`, `val.npy` and `test.npy`, each with two arrays that were written by two
calls of `np.save` to one file: the images X (N, H, W) and the labels y (N,). `ood_ta.npy` and `ood_tb.npy`
contain images only: other letters (A), and digits, punctuation and ornaments (B). `classes.json`, which may be missing,
contains the letter of each class.
"""

import json
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
    """A path, a file or an option that the user gave is wrong. The message says what to do."""


class TransformTensorDataset(Dataset):
    """A dataset of pairs (x, y) from tensors of equal length; y is -1 if there are no labels.

    Use `TransformTensorDataset(images)` or `TransformTensorDataset(images, labels)`. `transform` is applied to
    an image each time it is accessed. Raises ValueError for other arguments.
    """

    def __init__(self, *tensors: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        if len(tensors) not in (1, 2) or any(len(tensor) != len(tensors[0]) for tensor in tensors):
            raise ValueError("TransformTensorDataset takes images, or images and one label per image.")
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
    """Rescale each image (…, H, W) to the range [0, 1]; a constant image becomes 0.5."""
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)  # (…, 1, 1)
    contrast = high - low
    stretched = (x - low) / torch.where(contrast > 0, contrast, 1.0)
    return torch.where(contrast > 0, stretched, 0.5)


def pad_to_square(x: Tensor) -> Tensor:
    """Pad images (N, H, W) to squares (N, S, S), S = max(H, W), with the glyph in the middle.

    The padding has the colour of the paper, which is estimated as the median of the image's border.
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
    """Convert grey images (N, H, W) of any size and range to (N, 1, 56, 56), float32 in [-1, 1]."""
    x = pad_to_square(minmax(torch.from_numpy(images.astype(np.float32))))[:, None]
    if x.shape[-1] != IMG_SIZE:
        x = F.interpolate(x, size=(IMG_SIZE, IMG_SIZE), mode="bilinear", antialias=True).clamp(0, 1)
    return 2 * x - 1


def read_arrays(path: Path, count: int) -> list[np.ndarray]:
    """Read the first `count` arrays of a file that `np.save` wrote; raises InputError if that fails."""
    try:
        with path.open("rb") as file:
            return [np.load(file, allow_pickle=False) for _ in range(count)]
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the data directory must contain {path.name}.") from None
    except (ValueError, EOFError, OSError) as error:
        what = "the images and then the labels" if count == 2 else "the images"
        raise InputError(f"{path} cannot be read ({error}): it must contain {what}, written with np.save.") from None


def read_split(data_dir: Path, split: str) -> TransformTensorDataset:
    """Read and check one file of the data directory."""
    path = data_dir / f"{split}.npy"
    images, *labels = read_arrays(path, 2 if split in LABELLED_SPLITS else 1)
    if images.ndim != 3 or 0 in images.shape:
        raise InputError(f"{path}: the images must have the shape (N, height, width), not {images.shape}.")
    if images.dtype.kind not in "uif" or not np.isfinite(images).all():
        raise InputError(f"{path}: the images must be finite grey values, for example uint8, not {images.dtype}.")
    for y in labels:
        if y.dtype.kind not in "ui" or y.shape != images.shape[:1] or y.min() < 0:
            raise InputError(
                f"{path}: the labels must be {len(images)} class numbers 0, 1, …, not {y.dtype} of shape {y.shape}."
            )
    return TransformTensorDataset(to_network_input(images), *(torch.from_numpy(y.astype(np.int64)) for y in labels))


def get_datasets(data_dir: str | Path) -> dict[str, TransformTensorDataset]:
    """Read the five datasets `train`, `val`, `test`, `ood_ta` and `ood_tb` of a data directory.

    Each item is a pair (x, y): x is an image (1, 56, 56) in [-1, 1], y its class number, or -1 in the OOD sets.
    Raises InputError if the directory or a file is missing, or if a file does not have the format described above.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise InputError(
            f"There is no data directory {data_dir}: create it with `ebmcourse data glyphs --out {data_dir}`, "
            "or use --data_dir for a directory of your own."
        )
    return {split: read_split(data_dir, split) for split in LABELLED_SPLITS + OOD_SPLITS}


def class_names(data_dir: str | Path, num_classes: int) -> list[str]:
    """Return the letters of the classes from `classes.json`, or their numbers if there is no such file."""
    try:
        entries = json.loads((Path(data_dir) / "classes.json").read_text("utf-8"))["classes"]
        letters = [entry["letter"] for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        letters = []
    return letters if len(letters) == num_classes else [str(number) for number in range(num_classes)]
