"""The figures of the course."""

import numpy as np
import torch

from ebmcourse import plots


def draw_all():
    return {
        "sheet": plots.sample_sheet(torch.zeros(5, 1, 8, 8), titles=list("abcde")),
        "strip": plots.generation_strip(np.zeros((3, 2, 1, 8, 8)), [1, 10, 60], titles=["x", "y"]),
        "histogram": plots.score_histogram([0, 1, 2], {"test": [0.5, 0.5], "ood": [0, 1]}, threshold=1.5),
        "roc": plots.roc_curves({"px": ([0.0, 1.0], [2.0, 3.0])}),
    }


def test_figures_show_their_data_and_are_reproducible_byte_by_byte(tmp_path):
    figures = draw_all()
    assert [axes.get_title() for axes in figures["sheet"].axes if axes.images] == list("abcde")
    assert len(figures["strip"].axes) == 6 and figures["strip"].axes[0].get_ylabel() == "x"
    assert figures["roc"].axes[0].get_legend_handles_labels()[1] == ["px  1.000"]
    for name, figure in draw_all().items():
        first = plots.save(figures[name], tmp_path / "new folder" / f"{name}.png")
        assert first.read_bytes() == plots.save(figure, tmp_path / f"{name}.png").read_bytes()
