"""Reading data directories."""

from pathlib import Path

import ex_data
import numpy as np
import pytest
import torch
from ex_data import InputError, get_datasets, minmax
from jem_samples import draw_glyphs, write_data


def test_images_are_converted_to_squares_between_minus_one_and_one(tmp_path):
    data = get_datasets(write_data(tmp_path / "data", count=12))
    assert list(data) == ["train", "val", "test", "ood_ta", "ood_tb"] and len(data["ood_ta"]) == 6
    x, y = data["train"][5]
    assert x.shape == (1, 56, 56) and x.dtype == torch.float32 and x.min() == -1 and x.max() == 1 and y == 1
    assert x[0, 12, 20] == -1  # ink stays dark
    assert data["ood_tb"][0][1] == -1
    doubled = ex_data.TransformTensorDataset(torch.ones(2, 3), transform=lambda x: 2 * x)
    assert doubled[1][0].tolist() == [2, 2, 2] and doubled[1][1] == -1


REAL_GLYPHS = Path(__file__).parents[3] / "shared" / "data" / "GLYPHS"


@pytest.mark.skipif(
    not REAL_GLYPHS.is_dir(),
    reason="needs the real glyphs in ../shared/data/GLYPHS, outside the repository",
)
def test_real_glyphs_are_read_without_changes():
    data = get_datasets(REAL_GLYPHS)
    assert [len(dataset) for dataset in data.values()] == [11319, 2426, 2426, 988, 1500]
    with (REAL_GLYPHS / "val.npy").open("rb") as file:
        images, labels = np.load(file), np.load(file)
    x, y = data["val"][100]
    np.testing.assert_allclose((x[0] + 1) / 2, images[100] / 255, atol=1e-6)  # these use the whole range of grey
    assert y == labels[100]


@pytest.mark.parametrize("height, width", [(20, 60), (60, 20), (7, 8)])
def test_images_that_are_not_square_are_padded(height, width):
    image = np.full((1, height, width), 240, dtype=np.uint8)
    image[:, 1:-1, 1:-1] = 10  # ink up to one pixel from every edge
    x = ex_data.to_network_input(image)[0, 0]
    assert x.shape == (56, 56)
    rows, columns = (x < 0).any(dim=1).nonzero(), (x < 0).any(dim=0).nonzero()
    scale = 56 / max(height, width)
    for found, length in (rows, height), (columns, width):
        extent = (found.max() - found.min() + 1).item()
        assert extent == pytest.approx((length - 2) * scale, abs=2.5)
        assert found.float().mean().item() == pytest.approx(27.5, abs=1 + scale / 2)
    assert x[0, 0] == x[-1, -1] == 1  # the padding has the tone of the paper


def test_minmax_rescales_each_image_and_accepts_a_constant_one():
    x = torch.stack([torch.arange(4.0).view(2, 2), torch.full((2, 2), 7.0), -torch.arange(4.0).view(2, 2)])
    stretched = minmax(x)
    assert stretched[0].flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert stretched[1].unique().tolist() == [0.5]
    torch.testing.assert_close(stretched[2], stretched[0].flip(0, 1))
    torch.testing.assert_close(minmax(x[0]), stretched[0])


def save_arrays(path, *arrays):
    with path.open("wb") as file:
        for array in arrays:
            np.save(file, array, allow_pickle=True)


IMAGES, LABELS = draw_glyphs(np.random.default_rng(0), 2, 8)
BAD_FILES = {
    "missing": (lambda path: path.unlink(), "train.npy is missing"),
    "no labels": (lambda path: save_arrays(path, IMAGES), "images and then the labels"),
    "not numpy": (lambda path: path.write_text("hello"), "cannot be read"),
    "pickled objects": (lambda path: save_arrays(path, np.array([{}]), LABELS), "cannot be read"),
    "colour images": (
        lambda path: save_arrays(path, IMAGES[..., None], LABELS),
        r"the shape \(N, height, width\), not",
    ),
    "no images": (lambda path: save_arrays(path, IMAGES[:0], LABELS[:0]), r"the shape \(N, height, width\), not"),
    "complex images": (lambda path: save_arrays(path, IMAGES * 1j, LABELS), "grey values"),
    "NaN": (lambda path: save_arrays(path, IMAGES * np.nan, LABELS), "grey values"),
    "float labels": (lambda path: save_arrays(path, IMAGES, LABELS * 1.0), "class numbers"),
    "too few labels": (lambda path: save_arrays(path, IMAGES, LABELS[:-1]), "class numbers"),
    "negative labels": (lambda path: save_arrays(path, IMAGES, LABELS - 1), "class numbers"),
}


@pytest.mark.parametrize("spoil, message", BAD_FILES.values(), ids=BAD_FILES)
def test_a_wrong_data_file_is_reported_in_one_sentence(spoil, message, tmp_path):
    folder = write_data(tmp_path / "data", count=8)
    spoil(folder / "train.npy")
    with pytest.raises(InputError, match=message) as error:
        get_datasets(folder)
    assert "train.npy" in str(error.value) and "\n" not in str(error.value)
