"""A printing press and a scanner: from a clean letter shape to the picture of an old impression.

The stages follow real printing. A *sort* (a piece of type) is set with a small slant, rotation and offset. It
is inked: the ink spreads or is too thin, so that edges become ragged and fine strokes break. It is printed on
paper that has a tone, fibres, specks and the shadow of the text on its back. Then it is scanned, at a spatial
resolution that differs from picture to picture, some in two tones, and enlarged to the common size.

Ink and paper are arrays of FINE x FINE cells; lengths are in cells unless they are called pixels.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont
from scipy.ndimage import gaussian_filter

from ebmcourse.data.fonts import INITIALS, font_path

Plane = NDArray[np.float32]

SIDE = 56
"""Height and width of a finished picture in pixels."""
BOX = 48
"""Side in pixels of the square into which a letter is fitted. Its proportions are kept, its size is not."""
FINE = 84
COARSEST = 18
"""The smallest height and width of a scan in pixels, before it is enlarged to SIDE."""

_SORT = 96
_MARGIN = 4
_FIT = BOX / SIDE * FINE / _SORT


@cache
def sort(face: str, character: str) -> Image.Image:
    """The clean shape of a character: mode "F", 1 is ink, longer side _SORT, with an empty margin.

    Raises ValueError where the face draws nothing for the character.
    """
    font = ImageFont.truetype(font_path(face), 2 * _SORT, layout_engine=ImageFont.Layout.BASIC)
    mask = font.getmask(character)
    glyph = Image.frombytes("L", mask.size, bytes(mask))
    box = glyph.getbbox()
    if box is None:
        raise ValueError(f"{face} draws nothing for {character!r}")
    glyph = glyph.crop(box)
    scale = _SORT / max(glyph.size)
    glyph = glyph.resize([max(1, round(side * scale)) for side in glyph.size], Image.Resampling.BOX)
    shape = np.pad(np.asarray(glyph, np.float32) / 255, _MARGIN)
    if face == INITIALS:  # large woodcuts: at the size of a letter, their fine lines would disappear in printing
        shape **= np.float32(0.4)
    return Image.fromarray(shape)


def impression(letter: Image.Image, neighbour: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Print and scan a sort once: (SIDE, SIDE), dark ink on light paper.

    ``neighbour`` is another sort: sometimes a sliver of it is next to the letter, sometimes it shows through
    from the back of the page. The result depends only on the arguments and the state of ``rng``.
    """
    ink = _ink(_compose(letter, neighbour, rng), rng)
    leaf = _paper(neighbour, rng)
    black = rng.uniform(10, 60)
    return _scan(leaf - (leaf - black) * ink, rng)


def _compose(letter: Image.Image, neighbour: Image.Image, rng: np.random.Generator) -> Plane:
    """Put the sort into the frame: (FINE, FINE), 1 where type touches the paper."""
    size = _FIT * rng.uniform(0.93, 1.03)
    stretch = rng.uniform(0.95, 1.05)
    slant, turn = rng.normal(0, 0.045), rng.normal(0, 0.035)
    matrix = size * np.array([[1, -turn], [turn, 1]]) @ np.array([[stretch, slant], [0, 1 / stretch]])
    offset = rng.normal(0, 1.3, 2)
    shape = _place(letter, matrix, offset)
    if rng.random() < 0.08:
        gap = (letter.width + neighbour.width) / 2 - 2 * _MARGIN + rng.uniform(2, 8)
        beside = _place(neighbour, matrix, offset + matrix @ (rng.choice((-1, 1)) * gap, 0))
        reach = size * (letter.width / 2 - _MARGIN) + rng.uniform(3, 7)
        from_centre = np.abs(np.arange(FINE) + 0.5 - FINE / 2 - offset[0])
        shape = np.maximum(shape, beside * (from_centre < reach))
    return shape


def _place(piece: Image.Image, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Plane:
    """The piece under x -> matrix (x - centre of the piece) + centre of the frame + offset."""
    inverse = np.linalg.inv(matrix)
    shift = np.array(piece.size) / 2 - inverse @ (FINE / 2 + offset)
    coefficients = (*inverse[0], shift[0], *inverse[1], shift[1])
    return np.asarray(piece.transform((FINE, FINE), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC))


def _cloud(cells: int, rng: np.random.Generator) -> Plane:
    """Smooth noise of about unit variance, (FINE, FINE), with features of FINE / cells."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(coarse.resize((FINE, FINE), Image.Resampling.BICUBIC))


def _ink(shape: Plane, rng: np.random.Generator) -> Plane:
    """The density of ink in [0, 1]: the shape blurred, disturbed, and cut at a threshold set by pressure."""
    wet = gaussian_filter(shape, rng.uniform(0.9, 2.0), truncate=3)
    wet = wet + rng.uniform(0.04, 0.12) * _cloud(28, rng) + rng.uniform(0.02, 0.08) * _cloud(10, rng)
    spread = rng.triangular(-0.15, 0.08, 0.32)
    threshold = 0.5 - spread + 0.05 * _cloud(3, rng)
    if rng.random() < 0.35:  # too little ink in places, where the finest strokes break first
        threshold = threshold + rng.uniform(0.1, 0.35) * np.clip(_cloud(5, rng), 0, None)
    if rng.random() < 0.08:
        threshold = threshold + _scratch(rng)
    ink = np.clip((wet - threshold) / 0.16 + 0.5, 0, 1)
    mottle = rng.uniform(0, 0.35) * np.clip(_cloud(24, rng) + 0.2, 0, 1)
    return ink * (1 - mottle)


def _scratch(rng: np.random.Generator) -> Plane:
    """1 on a straight line, 2 to 4 wide, through the middle part of the frame."""
    normal = rng.standard_normal(2)
    normal /= np.hypot(*normal)
    y, x = np.mgrid[:FINE, :FINE] - FINE / 2
    distance = np.abs(normal[0] * x + normal[1] * y - rng.uniform(-15, 15))
    return (distance < rng.uniform(1, 2)).astype(np.float32)


def _paper(behind: Image.Image, rng: np.random.Generator) -> Plane:
    """The grey values of the empty page, 0 to 255."""
    tone = min(max(rng.normal(236, 9), 205), 252)
    leaf = tone + rng.uniform(0, 6) * _cloud(3, rng) + rng.uniform(1, 5) * _cloud(42, rng)
    if rng.random() < 0.2:  # the back of the page shows through, mirrored
        ghost = _place(behind, np.diag([-_FIT, _FIT]), rng.normal(0, 20, 2))
        leaf -= rng.uniform(8, 25) * gaussian_filter(ghost, 2.5, truncate=3)
    for _ in range(rng.poisson(0.4)):  # specks
        x, y = rng.integers(0, FINE - 3, 2)
        leaf[y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] -= rng.uniform(40, 150)
    return leaf


def _scan(page: Plane, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sample the page with COARSEST to SIDE pixels a side, in greys or two tones, and enlarge it to SIDE."""
    pixels = round(COARSEST * (SIDE / COARSEST) ** rng.random())
    page = np.asarray(Image.fromarray(page).resize((pixels, pixels), Image.Resampling.BOX))
    page = page + rng.uniform(1, 6) * rng.standard_normal(page.shape, np.float32)
    if rng.random() < 0.4:
        page = np.where(page > rng.uniform(120, 165), np.float32(255), np.float32(0))
    picture = Image.fromarray(page).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(picture) + 0.5, 0, 255).astype(np.uint8)
