"""A small model and a small data set."""

import ex_data
import numpy as np
from ex_main import JEM


def small_jem(**options):
    options = {"hidden_features": 2, "cbuffer_size": 3, "steps": 2, "lmbd": 0.3, "alpha": 0.2} | options
    return JEM((1, 16, 16), batch_size=4, num_classes=3, **options)


def draw_glyphs(rng, classes, count, height=56, width=56):
    """Dark strokes on light paper; the class decides where they stand."""
    y = np.arange(count) % classes
    x = rng.integers(200, 256, (count, height, width), dtype=np.uint8)
    for image, c in zip(x, y, strict=True):
        image[5 + 5 * c : 10 + 5 * c, 8:-8] = 20
        image[8:-8, 10 + 4 * c : 14 + 4 * c] = 20
    return x, y.astype(np.int64)


def write_data(folder, classes=4, count=64, **shape):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split in ex_data.LABELLED_SPLITS:
        with (folder / f"{split}.npy").open("wb") as file:
            for array in draw_glyphs(rng, classes, count, **shape):
                np.save(file, array)
    for split in ex_data.OOD_SPLITS:
        np.save(folder / f"{split}.npy", 255 - draw_glyphs(rng, classes, count // 2, **shape)[0])
    return folder
