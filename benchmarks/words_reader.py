"""The reference reader: from word images to text with energies and Viterbi paths.

A small network gives each 32 x 18 window 27 energies. Training aligns the letters of a word with its windows along
the path of least energy, and lowers the energies on that path relative to all others. The exercise does the same in a
simpler form; docs/words.md lists what this reader adds and how well it reads.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import torch
from torch import Tensor, nn

from ebmcourse.data.fonts import ANONYMOUS_PRO, font_path
from ebmcourse.data.words import ALPHABET_SIZE, BETWEEN, Batch, CustomWordsDataset, collate_fn, window_counts
from ebmcourse.lattice import Alignment, Trie, lexicon_decode, viterbi


class WindowNet(nn.Module):
    """Energies of every 32 x 18 window, 4 pixels apart: (B, 32, W) -> (B, L, 27).

    Three convolutions without padding, whose receptive field is one window: a wide image gives the same energies
    as its windows one by one.
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 96)):
        super().__init__()
        first, second, third = channels
        self.features = nn.Sequential(
            nn.Conv2d(1, first, (6, 4), stride=(2, 2), bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, (4, 3), stride=(2, 1), bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Conv2d(second, third, (6, 6), stride=(1, 2), bias=False),
            nn.BatchNorm2d(third),
            nn.ReLU(),
        )
        self.energies = nn.Linear(third, ALPHABET_SIZE)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images[:, None])
        energies: Tensor = self.energies(features.squeeze(2).transpose(1, 2))
        return energies


def blanked(letters: Tensor, blank: int = BETWEEN) -> Tensor:
    """The labels of the lattice: (B, N) letters -> (B, 2N + 1), with a blank before, between and after them."""
    labels = torch.full((letters.shape[0], 2 * letters.shape[1] + 1), blank)
    labels[:, 1::2] = letters
    return labels


def best_paths(energies: Tensor, counts: Tensor, letters: Tensor, lengths: Tensor, blank: int = BETWEEN) -> Alignment:
    """The path of least energy of each word through _c_a_t_, where the first and the last blank are optional.

    energies: (B, L, C); counts: (B,) true numbers of windows; letters: (B, N); lengths: (B,) true numbers of letters
    raises ValueError: a word has fewer windows than letters and blanks between them
    """
    return viterbi(energies, blanked(letters, blank), counts, 2 * lengths + 1, optional_first=True, optional_last=True)


def path_loss(energies: Tensor, counts: Tensor, letters: Tensor, lengths: Tensor, blank: int = BETWEEN) -> Tensor:
    """Mean over all valid windows of the cross-entropy −log p(label of the best path | window), p ∝ exp(−E)."""
    labels = best_paths(energies.detach(), counts, letters, lengths, blank).labels
    return nn.functional.cross_entropy(-energies.transpose(1, 2), labels)


MIDDLE = 17
"""The row in the middle of small letters."""
STRETCHES_ACROSS, STRETCHES_DOWN = (0.87, 1.0, 1.15, 1.3), (0.87, 1.0, 1.15)
SHIFTS = (-3.0, -1.5, 0.0, 1.5)
"""The changes that `read_any_font` tries. Fonts sit too low in the image more often than too high."""


class Reader:
    """A trained network, with the margin in pixels and the horizontal stretch that its input images need."""

    def __init__(self, net: nn.Module, margin: int, stretch: float = 1):
        self.net = net.eval()
        self.margin = margin
        self.stretch = stretch

    @torch.no_grad()
    def energies(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 32, W) and their true widths (B,) -> energies (B, L, 27) and numbers of windows (B,)."""
        padded, counts = with_margin(*stretched(images, widths, self.stretch), self.margin)
        return self.net(padded), counts

    def read(self, images: Tensor, widths: Tensor) -> list[str]:
        """The texts: the class of least energy in each window, repetitions merged, blanks dropped."""
        energies, counts = self.energies(images, widths)
        return [collapse(row[:count]) for row, count in zip(energies.argmin(2).tolist(), counts, strict=True)]

    def read_any_font(self, images: Tensor, widths: Tensor) -> list[str]:
        """Like `read`, but for letters of unknown size and position, over which the energy is minimised too.

        Each word is read under all combinations of STRETCHES_ACROSS, STRETCHES_DOWN and SHIFTS. The reading with the
        most certain windows is returned: the one with the least mean of min −log p(class | window) over the windows.
        """
        best = torch.full((len(images),), torch.inf)
        texts = [""] * len(images)
        for across, down, shift in product(STRETCHES_ACROSS, STRETCHES_DOWN, SHIFTS):
            change = (torch.full((len(images),), value) for value in (across, down, shift, 0.0))
            energies, counts = self.energies(*warp(images, widths, *change))
            least, classes = (-energies).log_softmax(2).neg().min(2)
            valid = torch.arange(energies.shape[1]) < counts[:, None]
            doubt = (least * valid).sum(1) / counts
            for index in (doubt < best).nonzero().flatten().tolist():
                texts[index] = collapse(classes[index, : counts[index]].tolist())
            best = torch.minimum(best, doubt)
        return texts

    def read_words(self, images: Tensor, widths: Tensor, lexicon: Trie) -> list[str]:
        """The word of the lexicon whose best path has the least energy. The search is exact."""
        energies, counts = self.energies(images, widths)
        return lexicon_decode(energies, lexicon, counts, BETWEEN, may_join=False).words


def stretched(images: Tensor, widths: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """The images stretched horizontally, so that letters get more windows, and their true widths."""
    if factor == 1:
        return images, widths
    width = math.ceil(images.shape[2] * factor)
    wider = nn.functional.interpolate(images[:, None], (images.shape[1], width), mode="bilinear").squeeze(1)
    return wider, (widths * (width / images.shape[2])).ceil().long().clamp(max=width)


def warp(
    images: Tensor, widths: Tensor, across: Tensor, down: Tensor, shift: Tensor, slant: Tensor
) -> tuple[Tensor, Tensor]:
    """Words (B, 32, W) of true widths (B,), each stretched, moved down and slanted by its own amount (B,).

    Stretching keeps the middle row of the letters in place. Returns images (B, 32, W') and their true widths (B,).
    """
    height, width = images.shape[1:]
    across, down, shift, slant = (values[:, None, None] for values in (across, down, shift, slant))
    new_widths = (widths * across.flatten()).ceil().long()
    # For row y and column x of the new image: the coordinates of that point in the old one.
    y = torch.arange(height)[None, :, None] - MIDDLE - shift
    x = torch.arange(int(new_widths.max()))[None, None, :] / across + slant * y
    y = (y / down + MIDDLE).expand_as(x)
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    return nn.functional.grid_sample(images[:, None], grid, align_corners=False).squeeze(1), new_widths


def with_margin(images: Tensor, widths: Tensor, margin: int) -> tuple[Tensor, Tensor]:
    """Images with `margin` empty columns on both sides, and their new numbers of windows (B,)."""
    return nn.functional.pad(images, (margin, margin)), window_counts(widths + 2 * margin)


def collapse(classes: list[int], alphabet: Sequence[str] = ascii_lowercase) -> str:
    """The text of a sequence of classes: merge repetitions, then drop the blank, whose class follows the alphabet."""
    return "".join(alphabet[label] for label, _ in groupby(classes) if label != len(alphabet))


@dataclass(frozen=True)
class Recipe:
    """How to train.

    steps, batch: number of optimizer steps, and words per step
    rate, weight_decay: of AdamW
    warm_up, decay: fractions of the steps in which the learning rate rises to `rate`, and falls to zero at the end
    margin: empty columns on both sides of each word
    lengths: smallest and largest number of letters; all lengths are equally likely
    conditions: (jitter, noise, weight); a condition is drawn with probability proportional to its weight
    fonts: shipped faces or font files, each equally likely
    keep: whether a word may be used for training
    distorted: give each word its own stretch, slant, height and stroke weight, to generalise to unseen fonts
    stretch: widen all words by this factor, in training and in reading, so that narrow letters get enough windows
    channels: of the three convolutions
    """

    steps: int = 1500
    batch: int = 32
    rate: float = 5e-3
    warm_up: float = 0.03
    decay: float = 0.5
    weight_decay: float = 0.01
    margin: int = 8
    lengths: tuple[int, int] = (1, 8)
    conditions: tuple[tuple[bool, bool, float], ...] = (
        (False, False, 1),
        (True, False, 1),
        (False, True, 2),
        (True, True, 3),
    )
    fonts: tuple[str | Path, ...] = (ANONYMOUS_PRO,)
    keep: Callable[[str], bool] = bool
    distorted: bool = False
    stretch: float = 1
    channels: tuple[int, int, int] = (16, 32, 96)

    def factor(self, step: int) -> float:
        """The learning rate at a step, as a fraction of `rate`."""
        done = step / self.steps
        return min(1, (step + 1) / max(1, self.warm_up * self.steps), (1 - done) / self.decay)


POOL = 16
"""Number of batches that are drawn together and sorted by length, so that a batch has little padding."""


def batches(recipe: Recipe, seed: int) -> Iterator[Batch]:
    """Endless training batches; the words of a batch have nearly the same length."""
    rng = np.random.default_rng(seed)
    words = CustomWordsDataset(1, custom_fonts_path=[font_path(str(font)) for font in recipe.fonts], seed=seed)
    weights = np.array([weight for _, _, weight in recipe.conditions])
    while True:
        pool: list[str] = []
        while len(pool) < POOL * recipe.batch:
            length = rng.integers(recipe.lengths[0], recipe.lengths[1] + 1)
            text = "".join(ascii_lowercase[letter] for letter in rng.integers(26, size=length))
            if recipe.keep(text):
                pool.append(text)
        pool.sort(key=len)
        for begin in rng.permutation(POOL) * recipe.batch:
            texts = pool[begin : begin + recipe.batch]
            chosen = rng.choice(len(weights), len(texts), p=weights / weights.sum())
            conditions = [recipe.conditions[index][:2] for index in chosen]
            yield collate_fn(
                [
                    (words.draw_text(text, jitter=jitter, noise=noise), text)
                    for text, (jitter, noise) in zip(texts, conditions, strict=True)
                ]
            )


STRETCH_ACROSS, STRETCH_DOWN = (0.74, 1.28), (0.78, 1.28)
SHIFT, SLANT = (-4.0, 5.0), (-0.15, 0.3)
BLUR, GAIN, DARKEN = (0.0, 1.0), (1.0, 2.7), (0.0, 0.3)
"""The ranges of `distort`, about as wide as the differences between fonts."""


def distort(images: Tensor, widths: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The same words with other shapes of letters, as if in other fonts or by other hands.

    Each word is stretched in both directions, slanted and moved up or down by random amounts of its own. Its strokes
    become thinner or bolder: they are blurred, multiplied and darkened.

    images: (B, 32, W), widths: (B,) true widths
    returns: images (B, 32, W') and their true widths (B,)
    """

    def draw(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, len(images)).astype(np.float32))

    across, down = (draw(*(math.log(end) for end in ends)).exp() for ends in (STRETCH_ACROSS, STRETCH_DOWN))
    moved, new_widths = warp(images, widths, across, down, draw(*SHIFT), draw(*SLANT))
    blurred = nn.functional.avg_pool2d(moved, 3, stride=1, padding=1)
    mix, gain, darken = (draw(*ends)[:, None, None] for ends in (BLUR, GAIN, DARKEN))
    return (moved.lerp(blurred, mix) * gain - darken).clamp(0, 1), new_widths


def train(
    recipe: Recipe,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
    start: Reader | None = None,
) -> Reader:
    """Train a reader with Viterbi paths alone, from random weights or from those of `start`, which does not change.

    progress: called as progress(step, loss) after every step
    seed: determines words, images and initial weights; the state of torch's global generator is kept
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = WindowNet(recipe.channels) if start is None else copy.deepcopy(start.net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.factor)
    net.train()
    rng = np.random.default_rng([seed, 1])
    for step, batch in zip(range(recipe.steps), batches(recipe, seed), strict=False):
        images, widths = batch.images, batch.widths
        if recipe.distorted:
            images, widths = distort(images, widths, rng)
        images, counts = with_margin(*stretched(images, widths, recipe.stretch), recipe.margin)
        loss = path_loss(net(images), counts, batch.letters, batch.lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step, loss.item())
    return Reader(net, recipe.margin, recipe.stretch)
