"""Figures of the course. Every function takes arrays or CPU tensors and returns a matplotlib Figure; `save`
writes it.

Images are (H, W) or (1, H, W) grey values in [-1, 1], black to white.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import auc, roc_curve

# Okabe and Ito's palette, which also the colour-blind can distinguish; the first colour is for in-distribution data.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#666666"


def save(figure: Figure, path: Path | str) -> Path:
    """Write the figure as PNG, without a version or a date, so that equal figures give equal files; returns the path.

    Folders that do not exist are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    return path


def as_images(images: ArrayLike) -> np.ndarray:
    """Images (N, 1, H, W) or (N, H, W), array or CPU tensor, as float32 (N, H, W)."""
    array = np.asarray(images, dtype=np.float32)
    return array[:, 0] if array.ndim == 4 else array


def show(axes: Axes, image: np.ndarray) -> None:
    """Draw one image (H, W) into the axes, without ticks."""
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="#CCCCCC", linewidth=0.5)


def clean(axes: Axes, **labels: str) -> None:
    """Set the labels (`xlabel`, `ylabel`, `title`) and remove the frame at the top and on the right."""
    axes.set(**labels)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY)


def sample_sheet(images: ArrayLike, titles: Sequence[object] | None = None, columns: int | None = None) -> Figure:
    """A sheet of images (N, H, W) in rows, each below its title.

    columns: by default, nearly as many as rows, with few empty places in the last row
    """
    array = as_images(images)
    if columns is None:
        side = math.ceil(len(array) ** 0.5)
        columns = min(
            range(side, 2 * side), key=lambda count: -len(array) % count
        )  # the fewest empty places in the last row
    rows = -(-len(array) // columns)
    cell = 0.75 if titles is None else 0.92
    figure = Figure(figsize=(0.75 * columns + 0.2, cell * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(array) :]:
        axes.set_axis_off()
    for index, (axes, image) in enumerate(zip(grid, array, strict=False)):
        show(axes, image)
        if titles is not None:
            axes.set_title(str(titles[index]), fontsize=8, color=GREY, pad=2)
    return figure


def generation_strip(frames: ArrayLike, steps: Sequence[int], titles: Sequence[object] | None = None) -> Figure:
    """How samples develop: frames (S, N, H, W) of N chains at S steps, one row per chain, from left to right."""
    array = np.asarray(frames, dtype=np.float32)
    array = array[:, :, 0] if array.ndim == 5 else array
    columns, rows = array.shape[:2]
    figure = Figure(figsize=(0.85 * columns + 0.4, 0.85 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for column, step in enumerate(steps):
        grid[0, column].set_title(f"step {step}" if column == 0 else str(step), fontsize=9, color=GREY)
        for row in range(rows):
            show(grid[row, column], array[column, row])
    for row in range(rows if titles is not None else 0):
        grid[row, 0].set_ylabel(str(titles[row]), rotation=0, ha="right", va="center", color=GREY)  # type: ignore[index]
    return figure


def score_histogram(
    edges: ArrayLike, densities: Mapping[str, ArrayLike], threshold: float | None = None, label: str = "score"
) -> Figure:
    """Densities (bins,) of several groups over common bin edges (bins + 1,), and a threshold as a dashed line.

    The first group is the in-distribution data. `label` names the score, which is larger for outliers.
    """
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, density), colour in zip(densities.items(), COLOURS, strict=False):
        values = np.asarray(density)
        axes.stairs(values, np.asarray(edges), fill=True, color=colour, alpha=0.25)
        axes.stairs(values, np.asarray(edges), color=colour, linewidth=1.4, label=name)
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
        top = axes.get_xaxis_transform()
        axes.text(threshold, 1.01, f"threshold {threshold:.3g}", transform=top, ha="center", va="bottom", fontsize=9)
    clean(axes, xlabel=label, ylabel="density")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def roc_curves(groups: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """ROC curves, with the areas under them in the legend.

    groups: name -> (scores of in-distribution images, scores of OOD images); larger = more outlying
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#CCCCCC", linewidth=1, linestyle="--")
    for (name, (negatives, positives)), colour in zip(groups.items(), COLOURS, strict=False):
        values = np.concatenate([negatives, positives])
        fpr, tpr, _ = roc_curve(np.arange(len(values)) >= len(np.asarray(negatives)), values)
        axes.plot(fpr, tpr, color=colour, linewidth=1.6, label=f"{name}  {auc(fpr, tpr):.3f}")
    clean(axes, xlabel="in-distribution images classified as OOD", ylabel="OOD images found")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), title="area under the curve")
    return figure
