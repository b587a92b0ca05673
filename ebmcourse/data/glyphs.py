"""The glyph set: 16,171 pictures of early printed letters in 42 classes, and outliers of two kinds.

Files in the folder (the format of the assignment ``jem``):

* ``train.npy``, ``val.npy``, ``test.npy``: X uint8 (N, 56, 56), then y int64 (N,), two arrays in one file;
* ``ood_ta.npy``: X only, letters of the same faces that are not among the 42;
* ``ood_tb.npy``: X only, digits, punctuation, ligatures, scribal signs and decorated initials;
* ``classes.json``: index, letter and counts of each class, and what the two sets of outliers hold.
"""

import json
import os
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ebmcourse.data.fonts import ANONYMOUS_PRO, EARLY_PRINT, INITIALS, characters, font_path
from ebmcourse.data.press import SIDE, impression, sort

_PER_10_000 = """
    A40 B43 D42 E29 F22 G43 H22 K19 L18 M17 N17 P19 Q2 R13 T7 U7
    a526 b155 d470 e1679 f155 g286 h465 i730 k91 l339 m208 n1054 o258 p56 r720 s210 t537 u425 v78 w126 y17
    ß37 ä28 ö22 ü37 ſ367
"""
FREQUENCY = {entry[0]: int(entry[1:]) for entry in _PER_10_000.split()}
"""The 42 classes in the order of their index, and their counts in 10,000 letters of German print."""

CLASSES = "".join(FREQUENCY)

# Pictures do not keep the size of a letter, so O, S, V and W would look like o, s, v and w; and in many faces I looks
# like l, or Y like y. These six are neither classes nor outliers, because they cannot be told apart.
OTHER_LETTERS = "CJXZcjqxzÄÖÜ"

# 0 and 1 are missing because old-style figures draw them as o and I.
OTHER_SIGNS = "23456789!?:;&()-/[]«»§¶†‡✝ꝙꝯꝰꝵﬀﬁﬅ"
INITIAL = "initial"

LOOKALIKES = {
    "blankenburg/Blankenburg_UNZ1A.ttf": "([",
    "gotico-antiqua/Sweynheim-Pannartz-ProtoRoman115R.otf": "s",
}
"""Characters that are not taken from a face, because it draws them like its long s."""

NEIGHBOURS = frozenset("aeimnorstu")
"""Letters that may be next to a picture's letter, or show through from the back of the page."""


class Size(NamedTuple):
    """Numbers of pictures."""

    train: int
    val: int
    test: int
    ood_ta: int
    ood_tb: int


SIZES = {
    "full": Size(train=11_319, val=2_426, test=2_426, ood_ta=2_000, ood_tb=2_000),
    "small": Size(train=2_940, val=630, test=630, ood_ta=420, ood_tb=420),
}


def generate(out: Path, size: str = "full", seed: int = 0, progress: Callable[[int, int], None] | None = None) -> None:
    """Draw the glyph set into the folder ``out``.

    ``size`` is a key of SIZES; ``progress(done, total)`` is called after every picture. The same seed
    gives the same bytes: every picture has its own random stream, given by seed, file and position. Files
    are written to a temporary folder and then moved, so that an interrupted run does not change an older set.

    Raises ValueError for an unknown size or a negative seed, OSError when ``out`` cannot be written.
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r} of the glyph set: choose one of {', '.join(SIZES)}")
    if seed < 0:
        raise ValueError(f"the seed of the glyph set must be 0 or more, not {seed}")
    composition = _composition(SIZES[size])
    total, done = sum(SIZES[size]), 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=out) as aside:
            for part, (name, wanted) in enumerate(composition.items()):
                pictures, labels = _draw(wanted, seed, part, tick)
                with open(Path(aside, f"{name}.npy"), "wb") as file:
                    np.save(file, pictures)
                    if not name.startswith("ood"):
                        np.save(file, labels)
            text = json.dumps(_description(composition), ensure_ascii=False, indent=1) + "\n"
            Path(aside, "classes.json").write_text(text, encoding="utf-8")
            for finished in sorted(Path(aside).iterdir()):
                os.replace(finished, out / finished.name)
    except OSError as error:
        raise OSError(f"cannot write the glyph set to {out}: {error.strerror or error}") from error


def apportion(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Divide ``total`` in proportion to positive weights, in whole numbers.

    The method of largest remainders: every share is its exact value rounded up or down. Ties go to the first.
    """
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    shares = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: shares[name] - exact[name])
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def _composition(size: Size) -> dict[str, dict[str, int]]:
    """For every file: how many pictures of each label, stratified to within one picture a class."""
    # The fourth root reduces the range of frequencies from 2 to 1679; the minimum keeps rare letters from being tiny
    # classes.
    weights = {letter: max(frequency, 20) ** 0.25 for letter, frequency in FREQUENCY.items()}
    whole = apportion(size.train + size.val + size.test, weights)
    val, test = apportion(size.val, whole), apportion(size.test, whole)
    return {
        "train": {letter: whole[letter] - val[letter] - test[letter] for letter in whole},
        "val": val,
        "test": test,
        "ood_ta": apportion(size.ood_ta, {label: 5 + len(_sorts(label)) for label in OTHER_LETTERS}),
        "ood_tb": apportion(size.ood_tb, {label: 5 + len(_sorts(label)) for label in (*OTHER_SIGNS, INITIAL)}),
    }


@cache
def _sorts(label: str) -> tuple[tuple[str, str], ...]:
    """The sorts (face, character) that print a label."""
    if label == INITIAL:
        return tuple((INITIALS, letter) for letter in sorted(characters(INITIALS)) if letter.isalpha())
    return tuple(
        (face, label) for face in EARLY_PRINT if label in characters(face) and label not in LOOKALIKES.get(face, "")
    )


def _draw(
    wanted: Mapping[str, int], seed: int, part: int, tick: Callable[[], None]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The pictures (N, SIDE, SIDE) of one file, shuffled, and for each the position (N,) of its label."""
    labels = list(wanted)
    in_order = np.repeat(np.arange(len(labels), dtype=np.int64), list(wanted.values()))
    y = _stream(seed, part).permutation(in_order)
    pictures = np.empty((len(y), SIDE, SIDE), np.uint8)
    for i, k in enumerate(y):
        rng = _stream(seed, part, i)
        choice = _sorts(labels[k])
        face, character = choice[rng.integers(len(choice))]
        nearby = sorted(characters(face) & NEIGHBOURS) or [character]
        neighbour = nearby[rng.integers(len(nearby))]
        pictures[i] = impression(sort(face, character), sort(face, neighbour), rng)
        tick()
    return pictures, y


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _description(composition: Mapping[str, Mapping[str, int]]) -> dict[str, list[dict[str, Any]]]:
    """The content of ``classes.json``."""

    def name(label: str) -> str:
        return "DECORATED INITIAL" if label == INITIAL else unicodedata.name(label)

    description: dict[str, list[dict[str, Any]]] = {"classes": []}
    for index, letter in enumerate(CLASSES):
        entry = {"index": index, "letter": letter, "codepoint": f"U+{ord(letter):04X}", "name": name(letter)}
        counts = {split: composition[split][letter] for split in ("train", "val", "test")}
        description["classes"].append(entry | counts)
    for ood in ("ood_ta", "ood_tb"):
        description[ood] = [{"text": t, "name": name(t), "count": n} for t, n in composition[ood].items()]
    return description


def contact_sheet(folder: Path, png: Path) -> None:
    """Draw samples of the glyph set in ``folder`` into one picture.

    It shows ten training pictures of each class next to its letter, in three columns, and rows of the outliers
    below. Any set in the format above works. Raises FileNotFoundError when a file of the set is missing.
    """
    try:
        with open(folder / "train.npy", "rb") as file:
            x, y = np.load(file), np.load(file)
        outliers = {name: np.load(folder / f"{name}.npy") for name in ("ood_ta", "ood_tb")}
        classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))["classes"]
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise FileNotFoundError(
            f"no glyph set in {folder} ({missing} is missing): make one with `ebmcourse data glyphs`"
        ) from error

    columns, samples, ood_rows = 3, 10, 3
    cell, margin, gutter, heading = SIDE + 2, 10, 44, 34
    block = gutter + samples * cell + margin
    rows = -(-len(classes) // columns)
    height = (rows + len(outliers) * ood_rows) * cell + (1 + len(outliers)) * heading + margin
    sheet = Image.new("L", (columns * block, height), 255)
    pen = ImageDraw.Draw(sheet)
    large, small = (ImageFont.truetype(font_path(ANONYMOUS_PRO), points) for points in (32, 18))

    def paste(pictures: NDArray[np.uint8], left: int, top: int) -> None:
        for i, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left + i * cell, top))

    pen.text((margin, margin), f"{len(classes)} classes", 60, small)
    for k, entry in enumerate(classes):
        left, top = k // rows * block, heading + k % rows * cell
        pen.text((left + gutter / 2, top + SIDE / 2), entry["letter"], 0, large, anchor="mm")
        paste(x[y == k][:samples], left + gutter, top)
    top = heading + rows * cell
    across = (sheet.width - 2 * margin) // cell
    titles = {"ood_ta": "Outliers A: other letters", "ood_tb": "Outliers B: signs and ornaments"}
    for name, title in titles.items():
        pen.text((margin, top + margin), title, 60, small)
        top += heading
        for r in range(ood_rows):
            paste(outliers[name][r * across : (r + 1) * across], margin, top + r * cell)
        top += ood_rows * cell
    png.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(32).save(png, optimize=True)
