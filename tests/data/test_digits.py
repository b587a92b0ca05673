"""MNIST read from its archives, and damaged archives refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from ebmcourse.data.digits import mnist, read_idx

REAL = Path(__file__).parents[3] / "shared" / "data"


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 7), ("t10k", 3)):
        raw = tmp_path / "MNIST" / "raw"
        write_idx(raw / f"{prefix}-images-idx3-ubyte.gz", rng.integers(0, 256, (n, 28, 28), np.uint8))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte.gz", np.arange(n, dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize(("split", "n"), [("train", 7), ("test", 3)])
def test_images_and_labels_come_back(root, split, n):
    x, y = mnist(root, split)
    assert (x.dtype, x.shape) == (np.uint8, (n, 28, 28))
    assert (y.dtype, y.tolist()) == (np.int64, list(range(n)))
    assert x.flags.writeable, "torch.from_numpy warns about read-only memory"


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 28, 28)])
def test_idx_round_trip(tmp_path, shape):
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / "a.gz", array)
    assert np.array_equal(read_idx(tmp_path / "a.gz"), array)


def test_missing_archive_says_where_it_belongs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz is missing.*data/README\.md"):
        mnist(tmp_path, "train")


def test_unknown_split_is_refused(root):
    with pytest.raises(ValueError, match="'val'"):
        mnist(root, "val")


def test_labels_of_another_length_are_refused(root):
    write_idx(root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz", np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="do not match"):
        mnist(root, "test")


@pytest.mark.parametrize("keep", [0, 5, 20, -1])
def test_truncated_archive_is_refused(root, keep):
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="fetch it again"):
        read_idx(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\x00",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",
        b"\0\0\x08\x01\0\0\0\x05abc",
        b"<html>",
    ],
)
def test_archive_with_other_content_is_refused(tmp_path, content):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match="fetch it again"):
        read_idx(path)


@pytest.mark.skipif(not (REAL / "MNIST").is_dir(), reason="needs MNIST in ../shared/data/MNIST")
def test_the_real_mnist():
    x, y = mnist(REAL, "test")
    assert x.shape == (10_000, 28, 28)
    assert np.bincount(y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert x[:, 0].mean() < 1 < x[:, 14].mean(), "bright digits in the middle, black above"
