"""The figures of docs/words.md, from the results of `words`."""

from __future__ import annotations

import statistics
from pathlib import Path
from string import ascii_lowercase

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import words, words_reader
from ebmcourse.data.fonts import ANONYMOUS_PRO, HUMOR_SANS, PATRICK_HAND
from ebmcourse.data.words import STRIDE, WINDOW, SimpleWordsDataset
from ebmcourse.plots import COLOURS, GREY, clean, save


def draw_all(measured: words.Measured, folder: Path) -> None:
    save(conditions(measured.one_font[0].reader), folder / "conditions.png")
    save(path(measured.one_font[0].reader, "hello"), folder / "path.png")
    save(accuracies(measured.quality), folder / "accuracy.png")
    save(fonts(measured.many_fonts[0].reader, measured.with_handwriting[0].reader), folder / "fonts.png")


def _show(axes: Axes, image: torch.Tensor) -> None:
    axes.imshow(1 - image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="#CCCCCC", linewidth=0.5)


def _title(axes: Axes, word: str, text: str) -> None:
    right = word == text
    axes.set_title(text or "(nothing)", fontsize=8, color=GREY if right else COLOURS[1], pad=2)


def conditions(read: words.Reader) -> Figure:
    """Held-out words under the four conditions; above each word its reading, in orange where it is wrong."""
    lengths = (2, 4, 6, 8)
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    grid = figure.subplots(len(words.CONDITIONS), len(lengths), width_ratios=lengths, squeeze=False)
    for row, (name, (jitter, noise)) in zip(grid, words.CONDITIONS.items(), strict=True):
        row[0].set_ylabel(name.replace(" and ", "\nand "), fontsize=8, color=GREY)
        for axes, length in zip(row, lengths, strict=True):
            batch = words.draw(words.test_words(length, 1, 77), ANONYMOUS_PRO, jitter, noise, length)
            _show(axes, batch.images[0])
            _title(axes, batch.texts[0], read.read(batch.images, batch.widths)[0])
    return figure


def path(read: words.Reader, word: str) -> Figure:
    """The energies of all windows of a word, and the path of least energy through its letters and gaps."""
    image = SimpleWordsDataset(1).draw_text(word)[None]
    letters = torch.tensor([[ord(letter) - ord("a") for letter in word]])
    energies, counts = read.energies(image, torch.tensor([image.shape[2]]))
    found = words_reader.best_paths(energies, counts, letters, torch.tensor([len(word)]))
    windows = int(counts[0])
    padded, _ = words_reader.with_margin(image, torch.tensor([image.shape[2]]), read.margin)
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(1, 4))
    _show(above, padded[0])
    for label, x in zip(found.labels[0].tolist(), range(windows), strict=True):
        name = "_" if label == 26 else ascii_lowercase[label]
        above.text(x * STRIDE + WINDOW / 2 - 0.5, -3, name, ha="center", fontsize=8, color=COLOURS[1])
    shown = below.imshow(energies[0].T, aspect="auto", cmap="viridis", interpolation="nearest")
    below.plot(range(windows), found.labels[0], "o-", color=COLOURS[1], markersize=3.5, linewidth=1)
    below.set_yticks(range(27), [*ascii_lowercase, "between"], fontsize=6)
    clean(below, xlabel="window, 4 pixels apart", ylabel="class")
    figure.colorbar(shown, ax=below, label="energy, low = likely", pad=0.01)
    return figure


def accuracies(quality: dict[str, list[words.Accuracy]]) -> Figure:
    """The percentage of words read by length, mean over the seeds, for the four conditions."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, results), colour, marker in zip(quality.items(), COLOURS, "osD^", strict=False):
        means = [statistics.mean(values) for values in zip(*(result.by_length for result in results), strict=True)]
        axes.plot(words.LENGTHS, means, marker=marker, markersize=4, color=colour, label=name)
    axes.axhline(98, color=GREY, linewidth=0.8, linestyle=":")
    axes.annotate("goal for every length", (1, 98), (0, 3), textcoords="offset points", fontsize=7, color=GREY)
    axes.set_ylim(97.5, 100.1)
    clean(axes, xlabel="letters", ylabel="words read, %")
    axes.legend(frameon=False, fontsize=8)
    return figure


def fonts(without: words.Reader, with_handwriting: words.Reader) -> Figure:
    """Held-out words in fonts that were not trained on, and handwriting again after training on it."""
    rows = (
        ("not trained on", ANONYMOUS_PRO, without),
        ("not trained on", PATRICK_HAND, without),
        ("trained on", PATRICK_HAND, with_handwriting),
        ("not trained on", HUMOR_SANS, without),
        ("trained on", HUMOR_SANS, with_handwriting),
    )
    figure = Figure(figsize=(8, 4), layout="constrained")
    grid = figure.subplots(len(rows), 4, squeeze=False)
    for row, (name, font, read) in zip(grid, rows, strict=True):
        row[0].set_ylabel(name, fontsize=7, color=GREY)
        batch = words.draw(words.test_words(6, 4, 78), font, True, False, 0)
        texts = (read.read if name == "trained on" else read.read_any_font)(batch.images, batch.widths)
        for axes, image, word, text in zip(row, batch.images, batch.texts, texts, strict=True):
            _show(axes, image)
            _title(axes, word, text)
    return figure
