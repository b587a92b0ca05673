"""Word images: random letters a-z drawn with a font, as the assignment `structured_prediction` reads them.

An image is float32 (32, W) in [0, 1], bright ink on black, by default with W = 18 pixels per letter. A network
reads it in windows of 32 x 18 pixels, 4 pixels apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageFont
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ebmcourse.data.fonts import ANONYMOUS_PRO, HUMOR_SANS, PATRICK_HAND, font_path

ALPHABET_SIZE = 27
"""Energies per window: the letters a-z, then BETWEEN."""
BETWEEN = 26
"""The class of a window between two letters, or outside of the word."""

HEIGHT = 32
WINDOW = 18
STRIDE = 4
FONT_SIZE = 20
TOP = 5
"""Row at which a font's box begins; higher for a font that would otherwise reach below the image."""
FARTHEST = 7
"""Largest jitter in pixels."""
NOISE = 0.1
"""Share of pixels that noise fills with ink."""
HANDWRITING = (PATRICK_HAND, HUMOR_SANS)

_SUFFIXES = {".ttf", ".otf", ".woff"}
Length = TypeVar("Length", int, Tensor)


class SimpleWordsDataset(IterableDataset):
    """Random words drawn with one font: yields (image (32, W) float32, text).

    max_length, min_length: numbers of letters; without min_length all words have max_length letters, else
        all lengths between the two (both included) are equally likely
    len: words in one pass
    jitter: start the text 0 to 7 pixels to the right, as far as there is room
    noise: ink every pixel with probability 0.1
    font: a font file (default: Anonymous Pro, in which every letter is 11 pixels wide)
    seed: objects with the same seed yield the same words and images; without one, a seed is drawn from torch's
        generator, which `torch.manual_seed` sets

    Every pass over one object yields new words. The workers of a DataLoader divide the words of a pass among
    themselves and get its random state from the loader: give the loader a seeded `generator` to make words
    repeatable. A pixel half covered by ink is half as bright.

    raises ValueError: lengths or a seed out of range, a file that is not a font
    raises FileNotFoundError: a font that does not exist
    """

    def __init__(
        self,
        max_length: int,
        len: int = 100,
        jitter: bool = False,
        noise: bool = False,
        *,
        min_length: int | None = None,
        font: str | Path | None = None,
        seed: int | None = None,
    ):
        self.min_length = max_length if min_length is None else min_length
        if not 1 <= self.min_length <= max_length:
            raise ValueError(
                f"words must have at least one letter and at most max_length, got {self.min_length}..{max_length}"
            )
        if len < 0:
            raise ValueError(f"a pass cannot have {len} words: give a len of 0 or more")
        if seed is not None and seed < 0:
            raise ValueError(f"the seed must be 0 or more, not {seed}")
        self.max_length = max_length
        self.len = len
        self.jitter = jitter
        self.noise = noise
        self.seed = int(torch.randint(2**62, ())) if seed is None else seed
        self.fonts = [str(font_path(ANONYMOUS_PRO) if font is None else font)]
        _typeface(self.fonts[0])
        self._passes = 0
        self._single = np.random.default_rng(np.random.SeedSequence(self.seed))

    def __len__(self) -> int:
        return self.len

    def __iter__(self) -> Iterator[tuple[Tensor, str]]:
        worker = get_worker_info()
        key, words = [self._passes], self.len
        if worker is not None:  # a worker has a copy of the dataset that does not count earlier passes
            key += [worker.seed - worker.id, worker.id]
            words = len(range(worker.id, self.len, worker.num_workers))
        self._passes += 1
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
        counts = rng.integers(self.min_length, self.max_length + 1, size=words)
        letters = rng.integers(ord("a"), ord("z") + 1, size=(words, self.max_length), dtype=np.uint8)
        for row, count in zip(letters, counts, strict=True):
            text = row[:count].tobytes().decode()
            yield self._draw(text, None, self.jitter, self.noise, rng), text

    def draw_text(self, text: str, length: int | None = None, jitter: bool = False, noise: bool = False) -> Tensor:
        """Draw letters a-z in size 20 at (0, 5): float32 (32, length).

        length: pixels, by default 18 per letter, or more where the font needs more
        raises ValueError: an empty text, another character than a-z, a length that would clip the text
        """
        return self._draw(text, length, jitter, noise, self._single)

    def _draw(self, text: str, length: int | None, jitter: bool, noise: bool, rng: np.random.Generator) -> Tensor:
        fonts = self.fonts
        face = _typeface(fonts[rng.integers(len(fonts))] if len(fonts) > 1 else fonts[0])
        pieces, needed = face.set(text)
        if length is None:
            length = max(WINDOW * len(text), needed)
        if length < needed:
            raise ValueError(f"{text!r} is {needed} pixels wide and does not fit into {length}: give a larger length")
        start = int(rng.integers(min(FARTHEST, length - needed) + 1)) if jitter else 0
        image = _ink(pieces, length, start).astype(np.float32)
        image /= 255
        if noise:
            np.maximum(image, rng.random(image.shape, np.float32) < NOISE, out=image)
        return torch.from_numpy(image)


class CustomWordsDataset(SimpleWordsDataset):
    """Random words, each drawn with one of several fonts, chosen at random; otherwise as `SimpleWordsDataset`.

    custom_fonts_path: a folder of .ttf, .otf or .woff files (searched with its subfolders), a font file, or
        a list of font files; by default the handwriting of the course: Patrick Hand, and Humor Sans, whose
        letters are capitals
    raises FileNotFoundError: the folder does not exist or holds no fonts
    """

    def __init__(
        self,
        max_length: int,
        len: int = 100,
        jitter: bool = False,
        noise: bool = False,
        custom_fonts_path: str | Path | Sequence[str | Path] | None = None,
        *,
        min_length: int | None = None,
        seed: int | None = None,
    ):
        super().__init__(max_length, len, jitter, noise, min_length=min_length, seed=seed)
        self.fonts = _font_files(custom_fonts_path)
        for font in self.fonts:
            _typeface(font)


class Batch(NamedTuple):
    """A batch of words of different lengths, padded.

    images:  (B, 32, W) float32, padded with black on the right
    widths:  (B,) int64, true widths in pixels
    letters: (B, N) int64, 0..25 for a-z, padded with BETWEEN
    lengths: (B,) int64, true numbers of letters
    texts:   B strings
    """

    images: Tensor
    widths: Tensor
    letters: Tensor
    lengths: Tensor
    texts: list[str]


def collate_fn(samples: Sequence[tuple[Tensor, str]]) -> Batch:
    """Combine words into a batch with their true widths and lengths; for `DataLoader(…, collate_fn=collate_fn)`.

    raises ValueError: an empty batch, a text that is not one or more letters a-z
    """
    if not samples:
        raise ValueError("the batch is empty: give at least one word")
    texts = [text for _, text in samples]
    widths = [image.shape[1] for image, _ in samples]
    images = torch.zeros(len(samples), HEIGHT, max(WINDOW, *widths))
    letters = np.full((len(samples), max(map(len, texts))), BETWEEN, np.int64)
    for index, (image, text) in enumerate(samples):
        images[index, :, : widths[index]] = image
        letters[index, : len(text)] = _codes(text)
    lengths = torch.tensor([len(text) for text in texts])
    return Batch(images, torch.tensor(widths), torch.from_numpy(letters), lengths, texts)


def simple_collate_fn(samples: Sequence[tuple[Tensor, str]]) -> tuple[Tensor, Tensor]:
    """Combine images of one letter: (images (B, 32, W), letters (B,) int64). ValueError for longer words."""
    batch = collate_fn(samples)
    if batch.letters.shape[1] > 1:
        longest = max(batch.texts, key=len)
        raise ValueError(f"simple_collate_fn takes images of one letter, but {longest!r} has more: use collate_fn")
    return batch.images, batch.letters[:, 0]


def window_counts(widths: Length) -> Length:
    """The number of windows inside an image of that width: (width − 18) // 4 + 1, for a number or a tensor."""
    return (widths - WINDOW) // STRIDE + 1


class _Piece(NamedTuple):
    """A letter's mask (h, w) uint8 and where its upper left pixel lies in the image."""

    mask: NDArray[np.uint8]
    x: int
    y: int


class _Typeface:
    """A font at size 20: the mask of every letter, drawn once, and how far the pen moves between two letters."""

    def __init__(self, path: str):
        try:
            # The other layout engine, raqm, is not installed everywhere, and spaces letters differently.
            font = ImageFont.truetype(path, FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
        except OSError as error:
            if Path(path).is_file():
                raise ValueError(f"{path} is not a readable font: give a .ttf, .otf or .woff file") from error
            raise FileNotFoundError(f"there is no font file {path}: give the path of a font file") from error
        self.letters = {}
        for letter in ascii_lowercase:
            drawn, (left, top) = font.getmask2(letter, "L")
            mask = np.frombuffer(bytes(drawn), np.uint8).reshape(drawn.size[::-1])
            if not mask.any():
                raise ValueError(f"the font {path} draws nothing for {letter!r}: use a font with the letters a-z")
            rows, columns = np.nonzero(mask)
            y, x = int(rows.min()), int(columns.min())
            self.letters[letter] = _Piece(mask[y : rows.max() + 1, x : columns.max() + 1], left + x, top + y)
        lowest = max(piece.y + len(piece.mask) for piece in self.letters.values())
        self.top = min(TOP, HEIGHT - lowest)
        if self.top + min(piece.y for piece in self.letters.values()) < 0:
            raise ValueError(f"the letters of the font {path} are higher than {HEIGHT} pixels: use another font")
        self.advance = {  # in whole pixels, kerning included
            first + second: round(font.getlength(first + second) - font.getlength(second))
            for first in ascii_lowercase
            for second in ascii_lowercase
        }

    def set(self, text: str) -> tuple[list[_Piece], int]:
        """The letters at their positions, and the pixels from the pen's start to the right edge of the ink.

        Raises ValueError unless the text is one or more letters a-z.
        """
        if not text:
            raise ValueError("there is no text to draw: give at least one letter")
        pieces, pen, width, before = [], 0, 0, ""
        for letter in text:
            if letter not in self.letters:
                raise ValueError(f"only the letters a-z can be drawn, but {text!r} has {letter!r}")
            pen += self.advance[before + letter] if before else 0
            mask, left, top = self.letters[letter]
            pieces.append(_Piece(mask, pen + left, self.top + top))
            width = max(width, pen + left + mask.shape[1])
            before = letter
        return pieces, width


def _ink(pieces: list[_Piece], length: int, start: int) -> NDArray[np.uint8]:
    """Draw into an image (32, length) that is wide enough, exactly as Pillow draws the whole text."""
    image = np.zeros((HEIGHT, length), np.uint8)
    inked = 0
    for mask, x, y in pieces:
        x += start
        if x < 0:  # the part of a letter to the left of the image is cut off
            mask, x = mask[:, -x:], 0
        place = image[y : y + len(mask), x : x + mask.shape[1]]
        if x < inked:  # the boxes of two letters overlap: combine their ink, rounded as in Pillow
            free = place * (255 - mask.astype(np.uint16)) + 128
            place[:] = mask + ((free + (free >> 8)) >> 8)
        else:
            place[:] = mask
        inked = max(inked, x + mask.shape[1])
    return image


@cache
def _typeface(path: str) -> _Typeface:
    return _Typeface(path)


def _font_files(where: str | Path | Sequence[str | Path] | None) -> list[str]:
    if where is None:
        return [str(font_path(face)) for face in HANDWRITING]
    if isinstance(where, str | Path):
        if Path(where).is_file():
            return [str(where)]
        if not Path(where).is_dir():
            raise FileNotFoundError(f"there is no font folder {where}: give a folder of fonts, or a font file")
        found: Iterable[Path] = sorted(path for path in Path(where).rglob("*") if path.suffix.lower() in _SUFFIXES)
        message = f"the folder {where} has no .ttf, .otf or .woff file: put a font into it"
    else:
        found, message = map(Path, where), "the list of fonts is empty: give at least one font file"
    files = list(map(str, found))
    if not files:
        raise FileNotFoundError(message)
    return files


def _codes(text: str) -> NDArray[np.int64]:
    if not text.isascii() or not text.islower() or not text.isalpha():
        raise ValueError(f"only the letters a-z have a class, but {text!r} has other characters")
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64) - ord("a")
