"""Training on drawn lines, testing on real ones: the character error rate on 200 lines of German print, 1800 to 1899.

`python -m benchmarks.fraktur_lines` trains with Viterbi paths like the reference reader of words, reads the lines of
shared/data/fraktur_lines beside the repository, and writes build/fraktur_lines.json and a figure. No real line is
used for training. The lines of ten books are the development set; all others are read once, at the end.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import sys
import time
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from benchmarks.drawn_lines import GRAPHEMES, HEIGHT, Line, draw_line
from benchmarks.words import edit_distance, error_rate
from benchmarks.words_reader import collapse, path_loss
from ebmcourse.plots import COLOURS, GREY, save

DATA = Path(__file__).parents[2] / "shared" / "data" / "fraktur_lines"
BLANK = len(GRAPHEMES)
FIELD, STRIDE, MARGIN = 22, 2, 11
"""Windows are FIELD pixels wide and STRIDE pixels apart; lines get a margin of half a window on both sides."""


class LineNet(nn.Module):
    """Energies of each window of HEIGHT x FIELD pixels, STRIDE apart: (B, HEIGHT, W) -> (B, L, BLANK + 1)."""

    def __init__(self, channels: tuple[int, int, int] = (24, 48, 128)):
        super().__init__()
        first, second, third = channels
        self.layers = nn.Sequential(
            nn.Conv2d(1, first, 6, stride=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, (4, 3), stride=(2, 1), bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Conv2d(second, third, (6, 7), bias=False),
            nn.BatchNorm2d(third),
            nn.ReLU(),
            nn.Conv2d(third, third, 1, bias=False),
            nn.BatchNorm2d(third),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(third, BLANK + 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        energies: Tensor = self.layers(images[:, None]).squeeze(2).transpose(1, 2)
        return energies


def windows(widths: Tensor) -> Tensor:
    return (widths + 2 * MARGIN - FIELD) // STRIDE + 1


def padded(images: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Lines (HEIGHT, W) of different widths as a batch (B, HEIGHT, W + 2 MARGIN), and numbers of windows (B,)."""
    widths = torch.tensor([image.shape[1] for image in images])
    batch = torch.zeros(len(images), HEIGHT, int(widths.max()) + 2 * MARGIN)
    for row, image in zip(batch, images, strict=True):
        row[:, MARGIN : MARGIN + image.shape[1]] = torch.from_numpy(image)
    return batch, windows(widths)


def train(lines: list[Line], steps: int, seed: int, batch: int = 16, rate: float = 3e-3) -> LineNet:
    """Minimise the mean cross-entropy along the paths of least energy with AdamW, warm-up and linear decay."""
    torch.manual_seed(seed)
    net = LineNet().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1, (t + 1) / 100, 1.6 * (1 - t / steps)))
    rng = np.random.default_rng(seed)
    order: list[int] = []
    running, begin = 0.0, time.process_time()
    for step in range(steps):
        if len(order) < batch:
            order = list(rng.permutation(len(lines)))
        chosen = [lines[order.pop()] for _ in range(batch)]
        images, counts = padded([line.image for line in chosen])
        images = torch.roll(images, tuple(rng.integers(-1, 2, 2)), (1, 2))
        lengths = torch.tensor([len(line.classes) for line in chosen])
        classes = torch.zeros(batch, int(lengths.max()), dtype=torch.long)
        for row, line in zip(classes, chosen, strict=True):
            row[: len(line.classes)] = torch.tensor(line.classes)
        loss = path_loss(net(images), counts, classes, lengths, BLANK)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        running += (loss.item() - running) * (0.02 if step > 50 else 0.2)
        if step % 100 == 0:
            print(f"step {step}, loss {running:.3f}, {time.process_time() - begin:.0f} s processor time", flush=True)
    return net.eval()


@torch.no_grad()
def read(net: LineNet, image: np.ndarray) -> str:
    images, _ = padded([image])
    return collapse(net(images)[0].argmin(1).tolist(), GRAPHEMES).strip()


class RealLine(NamedTuple):
    name: str
    text: str
    image: np.ndarray


def real_lines(folder: Path = DATA) -> list[RealLine]:
    """The lines as input of the network: bright ink, HEIGHT rows, contrast stretched."""
    lines = []
    for file in sorted(folder.glob("*.png")):
        grey = Image.open(file).convert("L")
        grey = grey.resize((round(grey.width * HEIGHT / grey.height), HEIGHT), Image.Resampling.BOX)
        ink = 1 - np.asarray(grey, np.float32) / 255
        low, high = np.quantile(ink, [0.3, 0.99])
        text = unicodedata.normalize("NFC", file.with_suffix(".txt").read_text("utf-8").strip())
        lines.append(RealLine(file.stem, text, np.clip((ink - low) / (high - low), 0, 1).astype(np.float32)))
    return lines


def development(lines: list[RealLine]) -> set[str]:
    """The names of the lines of the development set: ten books, chosen by the SHA-256 of their names."""
    books = {line.name.rpartition("_")[0] for line in lines}
    chosen = sorted(books, key=lambda book: hashlib.sha256(book.encode()).hexdigest())[:10]
    return {line.name for line in lines if line.name.rpartition("_")[0] in chosen}


def normalised(text: str) -> str:
    """The text in modern spelling of signs: round s, umlauts, one kind of hyphen and of quotation marks."""
    for old, new in {"aͤ": "ä", "oͤ": "ö", "uͤ": "ü", "ſ": "s", "⸗": "-", "—": "-", "’": "'"}.items():
        text = text.replace(old, new)
    return " ".join("".join('"' if sign in "„”“»«" else sign for sign in text).split())


class Reading(NamedTuple):
    """One line, what was read, and the number of wrong characters in both ways of comparing."""

    line: RealLine
    text: str
    errors: int
    errors_normalised: int


def readings(net: LineNet, lines: list[RealLine]) -> list[Reading]:
    found = []
    for line in lines:
        text = read(net, line.image)
        plain = edit_distance(normalised(text), normalised(line.text))
        found.append(Reading(line, text, edit_distance(text, line.text), plain))
    return found


def rates(found: list[Reading]) -> dict[str, tuple[float, float, float]]:
    """The percentage of wrong characters, with the 95 % interval by the bootstrap over lines."""
    return {
        "as transcribed": error_rate([r.errors for r in found], [len(r.line.text) for r in found]),
        "normalised": error_rate([r.errors_normalised for r in found], [len(normalised(r.line.text)) for r in found]),
    }


def confusions(found: list[Reading], most: int = 12) -> list[tuple[str, int]]:
    """The most frequent errors, as "transcription→reading" with "∅" for nothing."""
    errors: Counter[str] = Counter()
    for reading in found:
        matcher = difflib.SequenceMatcher(None, reading.line.text, reading.text, autojunk=False)
        for kind, a, b, c, d in matcher.get_opcodes():
            if kind != "equal":
                errors[f"{reading.line.text[a:b] or '∅'}→{reading.text[c:d] or '∅'}"] += 1
    return errors.most_common(most)


def picture(found: list[Reading]) -> Figure:
    """Six lines from the best to the worst: the line, the reading (orange), the transcription (grey)."""
    ranked = sorted(found, key=lambda r: r.errors / len(r.line.text))
    chosen = [ranked[round(part * (len(ranked) - 1))] for part in (0.05, 0.25, 0.45, 0.65, 0.85, 0.95)]
    shown = str.maketrans({"ͤ": "ᵉ", "⸗": "="})  # the figure's font lacks these characters
    width = max(reading.line.image.shape[1] for reading in chosen)
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    for axes, reading in zip(figure.subplots(len(chosen), 1), chosen, strict=True):
        axes.imshow(1 - reading.line.image, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
        axes.set(xlim=(0, width), ylim=(76, -2))
        axes.set_axis_off()
        rate = 100 * reading.errors / len(reading.line.text)
        texts = ((45, reading.text, COLOURS[1]), (64, f"{reading.line.text}   ({rate:.0f} %)", GREY))
        for y, text, colour in texts:
            axes.text(0, y, text.translate(shown), fontsize=10, color=colour, va="center")
    return figure


def measure(drawn: int = 3000, steps: int = 700, seed: int = 0) -> tuple[LineNet, list[Line], float]:
    """Train on drawn lines: the network, other drawn lines for testing, and seconds of processor time."""
    begin = time.process_time()
    rng = np.random.default_rng(seed + 1)
    net = train([draw_line(rng) for _ in range(drawn)], steps, seed)
    seconds = time.process_time() - begin
    return net, [draw_line(np.random.default_rng([seed + 2, index])) for index in range(150)], seconds


def drawn_rate(net: LineNet, lines: list[Line]) -> tuple[float, float, float]:
    """The character error rate on drawn lines, computed as for real ones."""
    texts = ["".join(GRAPHEMES[index] for index in line.classes) for line in lines]
    errors = [edit_distance(read(net, line.image), text) for line, text in zip(lines, texts, strict=True)]
    return error_rate(errors, [len(text) for text in texts])


def run(quick: bool = False) -> list[dict]:
    """Rows with the error rates; none where the real lines are missing."""
    if not DATA.is_dir():
        print(f"fraktur_lines: there is no folder {DATA}, so nothing is measured", file=sys.stderr)
        return []
    net, unseen, seconds = measure(200, 40) if quick else measure()
    real = real_lines()
    found = readings(net, [line for line in real if line.name not in development(real)])
    rows = [{"case": "training on drawn lines, processor time", "ours_ms": 1e3 * seconds}]
    for name, (rate, low, high) in {"drawn lines": drawn_rate(net, unseen), **rates(found)}.items():
        rows.append({"case": f"wrong characters, {name}", "value": f"{rate:.1f} % ({low:.1f} to {high:.1f})"})
    return rows


def main() -> None:
    """Train, read, print the results, write build/fraktur_lines.json and, if asked for, the figure."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--picture", type=Path, metavar="PNG", help="also draw the figure of docs/fraktur_lines.md")
    given = options.parse_args()
    if not DATA.is_dir():
        sys.exit(f"there is no folder {DATA}: put the lines there, see docs/fraktur_lines.md")
    net, unseen, seconds = measure()
    real = real_lines()
    tuned = development(real)
    parts: dict[str, list[Reading]] = {"test": [], "development": []}
    for reading in readings(net, real):
        parts["development" if reading.line.name in tuned else "test"].append(reading)
    print(f"{seconds:.0f} s processor time; unseen drawn lines: {drawn_rate(net, unseen)}")
    for part, found in parts.items():
        print(part, len(found), "lines,", sum(len(r.line.text) for r in found), "characters:", rates(found))
    print(confusions(parts["test"]))
    file = Path("build") / "fraktur_lines.json"
    file.parent.mkdir(exist_ok=True)
    content = {
        part: [{"line": r.line.name, "text": r.line.text, "read": r.text, "errors": r.errors} for r in found]
        for part, found in parts.items()
    }
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
    if given.picture:
        save(picture(parts["test"]), given.picture)


if __name__ == "__main__":
    main()
