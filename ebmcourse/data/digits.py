"""MNIST from its four official archives in a folder ``MNIST/raw``, where torchvision puts them."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def mnist(root: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Handwritten digits: X uint8 (N, 28, 28), bright ink on black, and y int64 (N,).

    ``root`` is the folder that holds ``MNIST/raw``; ``split`` is "train" (N = 60,000) or "test" (10,000).
    Raises FileNotFoundError when an archive is missing, ValueError when one is damaged, and for another split.
    """
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise ValueError(f"unknown split {split!r} of MNIST: choose train or test")
    raw = root / "MNIST" / "raw"
    images = read_idx(raw / f"{prefixes[split]}-images-idx3-ubyte.gz")
    labels = read_idx(raw / f"{prefixes[split]}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"{raw}: {images.shape} images do not match {labels.shape} labels: fetch the archives again")
    return images, labels.astype(np.int64)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of a gzipped IDX file of unsigned bytes.

    The format, from the description of MNIST: two zero bytes, the type (8: unsigned byte), the number of
    dimensions, then every dimension as a big-endian 32-bit integer, then the bytes, last index fastest.
    Raises FileNotFoundError when there is no such file, ValueError when it is not in this format.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} is missing: put MNIST's four .gz archives into that folder, as data/README.md says"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip archive: fetch it again") from error
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4")) if len(content) >= start else ()
    if not shape or len(content) - start != np.prod(shape):
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
