"""Images of amounts, as a check reader sees them: real handwritten digits, strung together, often touching.

The digits are scikit-learn's bundled ones: 8 × 8 pixels, from the UCI collection "Optical Recognition of Handwritten
Digits" (Alpaydin and Kaynak, 1998), so nothing is downloaded. An image is (8, W) in [0, 1], bright ink on black.

An amount has three to five digits. The first is not 0, and the last is 0 or 5: prices are rounded to five cents.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ebmcourse import gtn

Split = Literal["train", "test"]
HEIGHT, WIDTH = 8, 8  # of a digit
NARROWEST, WIDEST = 2, 10  # columns between two cuts that may hold a digit
TYPICAL_WIDTH = 6  # columns of ink of a digit, on average
TRAIN_DIGITS = 1200  # of 1797


class Check(NamedTuple):
    """An image (8, W) and the digits that were drawn, from left to right."""

    image: Tensor
    digits: list[int]


@cache
def digits(split: Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The digits of one part: images (N, 8, 8) in [0, 1] and their classes (N,). The parts have none in common."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    chosen = order[:TRAIN_DIGITS] if split == "train" else order[TRAIN_DIGITS:]
    return (images[chosen] / 16).reshape(-1, HEIGHT, WIDTH).astype(np.float32), classes[chosen].astype(np.int64)


def draw_checks(count: int, seed: int, split: Split = "train", *, touching: bool = True) -> list[Check]:
    """Checks with random amounts; neighbours overlap by up to two columns if `touching`, else they are apart."""
    rng = np.random.default_rng(seed)
    return [_draw(rng, split, touching) for _ in range(count)]


def _draw(rng: np.random.Generator, split: Split, touching: bool) -> Check:
    images, classes = digits(split)
    length = int(rng.integers(3, 6))
    amount = [int(rng.integers(1, 10)), *rng.integers(0, 10, length - 2).tolist(), int(rng.choice([0, 5]))]
    strip = np.zeros((HEIGHT, length * (WIDTH + 3)), np.float32)
    end, width = 0, WIDTH
    for place, digit in enumerate(amount):
        image = images[rng.choice(np.flatnonzero(classes == digit))]
        inked = np.flatnonzero(image.any(axis=0))
        image = image[:, inked[0] : inked[-1] + 1]
        gap = int(rng.integers(-2, 2)) if touching else int(rng.integers(1, 3))
        gap = max(gap, 4 - min(width, image.shape[1]))  # leaves each digit two columns of its own
        width = image.shape[1]
        start = end + gap if place else 1
        end = start + width
        strip[:, start:end] = np.maximum(strip[:, start:end], image)
    return Check(torch.from_numpy(strip[:, : end + 1]), amount)


def cut_hypotheses(image: Tensor) -> list[int]:
    """Columns at which the image (8, W) may be cut: its first and last ink, the middle of every gap, and every column
    within the ink. A cut at column c is left of it.
    """
    inked = [bool(column) for column in (image > 0).any(dim=0)]
    first, last = inked.index(True), len(inked) - inked[::-1].index(True)
    cuts, empty = [first], first
    for column in range(first + 1, last):
        if inked[column - 1] and inked[column]:
            cuts.append(column)
        elif inked[column - 1]:
            empty = column
        elif inked[column]:
            cuts.append((empty + column) // 2)
    return [*cuts, last]


def fixed_cuts(image: Tensor) -> list[int]:
    """One way to cut the image (8, W) by a rule: at every gap, and pieces wider than a digit into equal parts."""
    inside = cut_hypotheses(image)
    ink = (image > 0).any(dim=0)
    gaps = [cut for cut in inside[1:-1] if not (ink[cut - 1] and ink[cut])]
    borders = [inside[0], *gaps, inside[-1]]
    cuts = [borders[0]]
    for begin, end in pairwise(borders):
        parts = max(1, round((end - begin) / TYPICAL_WIDTH))
        cuts += [begin + round((end - begin) * part / parts) for part in range(1, parts + 1)]
    return cuts


def crops(image: Tensor, pieces: Sequence[tuple[int, int]]) -> Tensor:
    """The parts of the image between columns (begin, end), trimmed to their ink and centred: (S, 8, 8).

    What is wider than eight columns is cut off on both sides.
    """
    found = torch.zeros(len(pieces), HEIGHT, WIDTH)
    for crop, (begin, end) in zip(found, pieces, strict=True):
        piece = image[:, begin:end]
        inked = piece.any(dim=0).nonzero().flatten()
        if len(inked):
            piece = piece[:, inked[0] : inked[-1] + 1]
        extra = max(0, piece.shape[1] - WIDTH)
        piece = piece[:, extra // 2 : extra // 2 + WIDTH]
        start = (WIDTH - piece.shape[1]) // 2
        crop[:, start : start + piece.shape[1]] = piece
    return found


def amount_grammar() -> gtn.Graph:
    """The acceptor of all amounts: three to five digits, the first not 0, the last 0 or 5."""
    graph = gtn.Graph(calc_grad=False)
    start = graph.add_node(start=True)
    inner = [graph.add_node() for _ in range(4)]
    end = graph.add_node(accept=True)
    for digit in range(10):
        if digit:
            graph.add_arc(start, inner[0], digit)
        for before, after in pairwise(inner):
            graph.add_arc(before, after, digit)
    for node in inner[1:]:
        for digit in (0, 5):
            graph.add_arc(node, end, digit)
    return graph
