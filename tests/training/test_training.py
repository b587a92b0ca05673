"""Callbacks and augmentation that the assignments share."""

import io
import re
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from ebmcourse.training import Progress, SamplePictures, display, random_affine


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_augmentation_stays_within_its_limits():
    x = torch.rand(8, 1, 56, 56) * 2 - 1
    assert random_affine(x).shape == x.shape and random_affine(x).abs().max() <= 1
    torch.testing.assert_close(random_affine(x, degrees=0, scale=0, shift=0), x, atol=1e-4, rtol=0)
    ramp = torch.linspace(-1, 1, 56).expand(64, 1, 56, 56)
    shifts = (random_affine(ramp, degrees=0, scale=0, shift=2) - ramp)[:, 0, 28, 28] / (2 / 55)
    assert 1 < shifts.abs().max() <= 2.01


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_keeps_its_counters_in_a_narrow_terminal(width, monkeypatch):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(
        display, "Bar", lambda *columns, make=display.Bar, **about: make(*columns, console=console, **about)
    )
    values = {"loss_pyx": 1.98, "val_MulticlassAveragePrecision": 0.736, "gap": 2.27, "loss_px": 0.123}
    steps = {"estimated_stepping_batches": 21_240, "global_step": 15_000, "current_epoch": 41, "max_epochs": 60}
    trainer = SimpleNamespace(progress_bar_metrics=values, **steps)
    progress = Progress()
    progress.on_train_start(trainer, None)
    progress.on_train_batch_end(trainer, None, None, None, 0)
    progress.stop()
    line = [part for part in re.split(r"[\r\n]|\x1b\[[0-9?]*[A-Za-z]", out.getvalue()) if part.strip()][-1]
    assert len(line) <= width and line.startswith("epoch 42/60 ") and " 15000/21240 0:00:00 left " in line
    assert width < 80 or "gap 2.27" in line


def test_sample_pictures_have_the_titles_that_are_given(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(display.plots, "save", lambda figure, path: made.append((figure, path)))
    pictures = SamplePictures(lambda module: torch.zeros(3, 1, 8, 8), tmp_path, ["A", "ſ", "ß"])
    pictures.on_train_epoch_end(SimpleNamespace(current_epoch=2, logger=None), None)
    ((figure, path),) = made
    assert path == tmp_path / "epoch_002.png"
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["A", "ſ", "ß"]
