"""The reference reader of words: its accuracy, its training time, and the speed of its parts compared with peers.

`python -m benchmarks.words` trains with three seeds, prints the tables of docs/words.md and writes them to
build/words.md. With `--pictures FOLDER` it also draws the figures of that page.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from torch import nn

from benchmarks import words_reader as reader
from benchmarks.timing import milliseconds, row
from benchmarks.viterbi import nested_loops, problem
from benchmarks.words_reader import Reader, Recipe
from ebmcourse.data.fonts import ANONYMOUS_PRO, EARLY_PRINT, HUMOR_SANS, PATRICK_HAND, font_path
from ebmcourse.data.words import ALPHABET_SIZE, Batch, SimpleWordsDataset, collate_fn
from ebmcourse.lattice import Trie, viterbi

SEEDS = 3
LENGTHS = range(1, 9)
CONDITIONS = {
    "clean": (False, False),
    "jitter": (True, False),
    "noise 0.1": (False, True),
    "jitter and noise": (True, True),
}

_FROM_MATPLOTLIB = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Oblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol"),
    *("STIXGeneralItalic", "STIXGeneralBolIta", "cmr10", "cmb10", "cmti10", "cmmi10", "cmss10", "cmtt10"),
)
PRINT = (
    *(f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf" for name in _FROM_MATPLOTLIB),
    *(face for face in EARLY_PRINT if "Hamlet" in face or "Jessen" in face or "english" in face),
)
"""Fonts for training, from matplotlib and from early print, without Anonymous Pro and handwriting."""
HANDWRITING = (PATRICK_HAND, HUMOR_SANS)


def share(text: str) -> int:
    """The share of a word, 0 to 7, by a checksum: TESTED for testing only, TUNED for tuning, the others for training.

    Words of one letter belong to every share, because there are only 26.
    """
    return zlib.crc32(text.encode()) % 8


TESTED, TUNED = 4, 0


def keep(text: str) -> bool:
    return len(text) == 1 or share(text) not in (TESTED, TUNED)


ONE_FONT = Recipe(keep=keep)
MANY_FONTS = replace(
    ONE_FONT, steps=2000, fonts=PRINT, conditions=((False, False, 1), (True, False, 1)), distorted=True
)
FURTHER = replace(MANY_FONTS, steps=400, rate=2e-3, fonts=(*PRINT, *4 * HANDWRITING), distorted=False, stretch=1.3)
"""Further training after MANY_FONTS, one quarter of it on handwriting, whose narrow letters need the stretch."""


def test_words(length: int, count: int, seed: int) -> list[str]:
    """Held-out words. Those of one letter are all letters in turn; those of two letters may repeat."""
    if length == 1:
        return [ascii_lowercase[index % 26] for index in range(count)]
    rng = random.Random(1000 * seed + length)
    words: list[str] = []
    while len(words) < count:
        text = "".join(rng.choices(ascii_lowercase, k=length))
        if share(text) == TESTED:
            words.append(text)
    return words


def draw(texts: Iterable[str], font: str, jitter: bool, noise: bool, seed: int) -> Batch:
    words = SimpleWordsDataset(1, font=font_path(font), seed=seed)
    return collate_fn([(words.draw_text(text, jitter=jitter, noise=noise), text) for text in texts])


class Accuracy(NamedTuple):
    """The percentage of words read correctly, by length, and the errors as (word, reading)."""

    by_length: list[float]
    errors: list[tuple[str, str]]

    @property
    def mean(self) -> float:
        return statistics.mean(self.by_length)


def accuracy(read: Reader, jitter: bool, noise: bool, count: int, seed: int) -> Accuracy:
    by_length, errors = [], []
    for length in LENGTHS:
        batch = draw(test_words(length, count, seed), ANONYMOUS_PRO, jitter, noise, 10_000 + seed)
        pairs = list(zip(batch.texts, read.read(batch.images, batch.widths), strict=True))
        by_length.append(100 * statistics.mean(word == text for word, text in pairs))
        errors += [pair for pair in pairs if pair[0] != pair[1]]
    return Accuracy(by_length, errors)


def edit_distance(ours: str, theirs: str) -> int:
    """The least number of insertions, deletions and substitutions (Levenshtein, 1966)."""
    before = list(range(len(theirs) + 1))
    for i, ours_i in enumerate(ours, 1):
        now = [i]
        for j, theirs_j in enumerate(theirs, 1):
            now.append(min(before[j] + 1, now[-1] + 1, before[j - 1] + (ours_i != theirs_j)))
        before = now
    return before[-1]


def error_rate(errors: list[int], letters: list[int], seed: int = 0) -> tuple[float, float, float]:
    """The percentage of wrong letters, and its 95 % interval by the bootstrap over words."""
    wrong, all_of = np.array(errors), np.array(letters)
    drawn = np.random.default_rng(seed).integers(len(wrong), size=(2000, len(wrong)))
    low, high = np.quantile(100 * wrong[drawn].sum(1) / all_of[drawn].sum(1), [0.025, 0.975])
    return 100 * wrong.sum() / all_of.sum(), float(low), float(high)


def letter_errors(read: Reader, font: str, count: int, seed: int, known: bool) -> tuple[list[int], list[int]]:
    """The numbers of wrong letters and of letters in each of `count` words per length, with jitter.

    known: whether the font was trained on, so that its size and position need not be searched for
    """
    texts = [text for length in LENGTHS for text in test_words(length, count, seed)]
    batch = draw(texts, font, True, False, 20_000 + seed)
    found = (read.read if known else read.read_any_font)(batch.images, batch.widths)
    return [edit_distance(word, text) for word, text in zip(found, texts, strict=True)], [len(text) for text in texts]


class ExerciseNet(nn.Module):
    """The network of the exercise, a perceptron with one hidden layer on each window: (B, 32, W) -> (B, L, 27)."""

    def __init__(self):
        super().__init__()
        self.look = nn.Conv2d(1, 256, (32, 18), stride=(1, 4))
        self.judge = nn.Linear(256, ALPHABET_SIZE)

    def forward(self, images):
        return self.judge(self.look(images[:, None]).relu().squeeze(2).transpose(1, 2))


def epoch(net: nn.Module, margin: int, batch: int = 32, naive: bool = False) -> float:
    """Seconds of one Viterbi epoch over 2,500 new two-letter words: drawing, network, paths, AdamW steps.

    margin: empty columns on both sides
    naive: search the path of each word on its own, with nested loops as in the original homework
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    words = SimpleWordsDataset(2, 2500, seed=0)
    loader = torch.utils.data.DataLoader(words, batch, collate_fn=collate_fn)
    begin = time.perf_counter()
    for images, widths, letters, lengths, _ in loader:
        padded, counts = reader.with_margin(images, widths, margin)
        energies = net(padded)
        if naive:
            labels = reader.blanked(letters)
            _, paths = nested_loops(energies.detach(), labels)
            loss = nn.functional.cross_entropy(-energies.transpose(1, 2), labels.gather(1, paths))
        else:
            loss = reader.path_loss(energies, counts, letters, lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


class Trained(NamedTuple):
    """A reader and the seconds of its training: wall-clock time, and processor time over all cores."""

    reader: Reader
    wall: float
    processor: float


def train(recipe: Recipe, seed: int, start: Reader | None = None) -> Trained:
    wall, processor = time.perf_counter(), time.process_time()
    trained = reader.train(recipe, seed, start=start)
    return Trained(trained, time.perf_counter() - wall, time.process_time() - processor)


def quality(readers: list[Trained], count: int) -> dict[str, list[Accuracy]]:
    """The accuracy of each reader under each condition."""
    return {
        name: [accuracy(trained.reader, jitter, noise, count, seed) for seed, trained in enumerate(readers)]
        for name, (jitter, noise) in CONDITIONS.items()
    }


def font_errors(readers: list[Trained], font: str, count: int, known: bool) -> tuple[float, float, float]:
    """The letter error rate of one font with its interval, over the words of all readers."""
    errors, letters = [], []
    for seed, trained in enumerate(readers):
        wrong, whole = letter_errors(trained.reader, font, count, seed, known)
        errors += wrong
        letters += whole
    return error_rate(errors, letters)


def lexicon_row(read: Reader, size: int, seconds: float) -> dict:
    """The time to read an image as one of `size` words, network included, against scoring each word on its own.

    Both must give the same word for each of 40 noisy images.
    """
    rng = random.Random(0)
    found: set[str] = set()
    while len(found) < size:
        found.add("".join(rng.choices(ascii_lowercase, k=rng.randint(2, 8))))
    lexicon = sorted(found)
    trie = Trie(lexicon)
    letters = torch.zeros(size, 8, dtype=torch.long)
    for codes, word in zip(letters, lexicon, strict=True):
        codes[: len(word)] = torch.tensor([ord(letter) - ord("a") for letter in word])
    lengths = torch.tensor([len(word) for word in lexicon])
    batch = draw(rng.sample(lexicon, 40), ANONYMOUS_PRO, True, True, 0)
    images = [(batch.images[i : i + 1, :, :width], batch.widths[i : i + 1]) for i, width in enumerate(batch.widths)]

    def score_all(image: torch.Tensor, width: torch.Tensor) -> str:
        energies, counts = read.energies(image, width)
        fits = (2 * lengths - 1 <= counts).nonzero().squeeze(1)
        every = energies.expand(len(fits), -1, -1)
        best = reader.best_paths(every, counts.expand(len(fits)), letters[fits], lengths[fits])
        return lexicon[int(fits[best.energy.argmin()])]

    ours, theirs = ([f(*image) for image in images] for f in (lambda *i: read.read_words(*i, trie)[0], score_all))
    assert ours == theirs, "decoding with the lexicon must be exact"
    longest = max(images, key=lambda image: int(image[1]))
    own, peer = milliseconds(lambda: read.read_words(*longest, trie), lambda: score_all(*longest), seconds=seconds)
    return row(f"reading an image as one of {size:,} words, network included", own, "scoring each word", peer)


def find_path_row(seconds: float) -> dict:
    """The time for a batch of paths, (B, L, T) = (32, 20, 10), against nested loops that find the same paths."""
    energies, targets = problem(32)
    found, (least, paths) = viterbi(energies, targets), nested_loops(energies, targets)
    torch.testing.assert_close(found.energy, least)
    assert torch.equal(found.path, paths)
    ours, peer = milliseconds(
        lambda: viterbi(energies, targets), lambda: nested_loops(energies, targets), seconds=seconds
    )
    return row("best paths, B=32, L=20, T=10", ours, "nested loops on torch scalars", peer)


def epoch_rows(repeats: int) -> list[dict]:
    rows = []
    networks = {
        "the exercise's network": (ExerciseNet, 0),
        "the reader's, with margins": (reader.WindowNet, ONE_FONT.margin),
    }
    for name, (make, margin) in networks.items():
        epoch(make(), margin)  # warm
        ours = min(epoch(make(), margin) for _ in range(repeats))
        naive = epoch(make(), margin, naive=True)
        case = f"Viterbi epoch, 2,500 words of two letters, {name}"
        rows.append(row(case, 1e3 * ours, "the same, nested loops", 1e3 * naive))
    return rows


class Measured(NamedTuple):
    """All results; lists have one entry per seed.

    quality: the accuracies by condition
    fonts: error rate and interval by font
    speed: rows of the benchmark's table
    """

    one_font: list[Trained]
    many_fonts: list[Trained]
    with_handwriting: list[Trained]
    quality: dict[str, list[Accuracy]]
    fonts: dict[str, tuple[float, float, float]]
    speed: list[dict]


def measure(seeds: int = SEEDS, quick: bool = False) -> Measured:
    """Train, read and time, on one thread: on a machine with other load, two threads are slower.

    quick: train only as long as is needed to see that everything runs
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(seeds, quick)
    finally:
        torch.set_num_threads(threads)


def _measure(seeds: int, quick: bool) -> Measured:
    count, seconds = (20, 0.2) if quick else (300, 2.0)
    one, many, further = (replace(r, steps=20) if quick else r for r in (ONE_FONT, MANY_FONTS, FURTHER))
    readers, print_readers = ([train(recipe, seed) for seed in range(seeds)] for recipe in (one, many))
    hand_readers = [train(further, seed, known.reader) for seed, known in enumerate(print_readers)]
    speed = [*epoch_rows(1 if quick else 5), find_path_row(seconds), lexicon_row(readers[0].reader, 5000, seconds)]
    fonts = {
        name: font_errors(group, font, count // 6, known)
        for name, group, font, known in (
            ("Anonymous Pro (monospaced), not trained on", print_readers, ANONYMOUS_PRO, False),
            ("Patrick Hand (handwriting), not trained on", print_readers, PATRICK_HAND, False),
            ("Patrick Hand, trained on", hand_readers, PATRICK_HAND, True),
            ("Humor Sans (capitals), not trained on", print_readers, HUMOR_SANS, False),
            ("Humor Sans, trained on", hand_readers, HUMOR_SANS, True),
            ("Patrick Hand, by the readers of Anonymous Pro", readers, PATRICK_HAND, False),
        )
    }
    return Measured(readers, print_readers, hand_readers, quality(readers, count), fonts, speed)


def tables(measured: Measured) -> str:
    """The tables of docs/words.md."""
    lines = ["| condition | words read | worst seed | worst length | errors |", "|---|---|---|---|---|"]
    for name, results in measured.quality.items():
        by_length = [statistics.mean(values) for values in zip(*(result.by_length for result in results), strict=True)]
        worst = min(LENGTHS, key=lambda length: by_length[length - 1])
        errors = ", ".join(f"{word}→{text}" for word, text in [e for result in results for e in result.errors][:4])
        lines.append(
            f"| {name} | {statistics.mean(result.mean for result in results):.2f} % "
            f"| {min(result.mean for result in results):.2f} % | {by_length[worst - 1]:.1f} % at {worst} | {errors} |"
        )
    lines += ["", "| readers | wall-clock seconds | processor seconds |", "|---|---|---|"]
    groups = {
        "one font": measured.one_font,
        "many fonts": measured.many_fonts,
        "many fonts, then also handwriting": measured.with_handwriting,
    }
    for name, group in groups.items():
        spans = [
            f"{min(times):.0f} to {max(times):.0f}" for times in ([t.wall for t in group], [t.processor for t in group])
        ]
        lines.append(f"| {name} | {' | '.join(spans)} |")
    lines += ["", "| font | letter error rate | 95 % interval |", "|---|---|---|"]
    for name, (rate, low, high) in measured.fonts.items():
        lines.append(f"| {name} | {rate:.2f} % | {low:.2f} to {high:.2f} % |")
    lines += ["", "| part | ours, ms | peer | its ms | ratio |", "|---|---|---|---|---|"]
    for entry in measured.speed:
        lines.append(
            f"| {entry['case']} | {entry['ours_ms']:.3g} | {entry['peer']} | {entry['peer_ms']:.3g} "
            f"| {entry['ratio']:.2g} |"
        )
    return "\n".join(lines) + "\n"


def run(quick: bool = False) -> list[dict]:
    """All rows; results that are not times are in `value`. Takes about ten minutes on two idle cores."""
    measured = measure(1 if quick else SEEDS, quick)
    rows = list(measured.speed)
    seconds = [trained.wall for trained in measured.one_font]
    rows.append({"case": "training of the reader of one font", "ours_ms": 1e3 * statistics.mean(seconds)})
    for name, results in measured.quality.items():
        value = f"{statistics.mean(result.mean for result in results):.2f} %"
        rows.append({"case": f"words read, 1 to 8 letters, {name}", "value": value})
    for name, (rate, low, high) in measured.fonts.items():
        rows.append({"case": f"letter errors, {name}", "value": f"{rate:.2f} % ({low:.2f} to {high:.2f})"})
    return rows


def main() -> None:
    """Measure, print the tables, write build/words.md."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=SEEDS, help="number of readers of each kind (default: 3)")
    options.add_argument("--quick", action="store_true", help="only check that everything runs")
    options.add_argument("--pictures", type=Path, metavar="FOLDER", help="also draw the figures of docs/words.md")
    given = options.parse_args()
    measured = measure(given.seeds, given.quick)
    file = Path("build") / "words.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(tables(measured), "utf-8")
    print(tables(measured))
    if given.pictures:
        from benchmarks.words_pictures import draw_all

        draw_all(measured, given.pictures)


if __name__ == "__main__":
    main()
