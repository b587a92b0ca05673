"""Callbacks and augmentation that the assignments share."""

import io
import re
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ebmcourse.training import DivergenceRollback, Progress, SamplePictures, display, random_affine


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Slope(pl.LightningModule):
    """A model with one weight, which decreases by the learning rate in each step.

    `bad_steps["loss"]` are the steps in which the loss is NaN, `bad_steps["gap"]` those in which the gap is very low.
    """

    def __init__(self, bad_steps):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.extra, self.seen, self.bad_steps = 0, 0, bad_steps

    def training_step(self, batch, batch_idx):
        self.seen += 1
        self.extra = self.seen
        self.log("gap", -float(self.seen in self.bad_steps.get("gap", ())) * 1e3)
        return self.weight.sum() * (torch.nan if self.seen in self.bad_steps.get("loss", ()) else 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["extra"] = self.extra

    def on_load_checkpoint(self, checkpoint):
        self.extra = checkpoint["extra"]


def fit_slope(bad_steps, steps=12, **options):
    module, callback = Slope(bad_steps), DivergenceRollback("gap", low=-5, window=3, **options)
    trainer = pl.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[callback],
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.zeros(steps)), batch_size=1))
    return module, callback, trainer


@pytest.mark.parametrize("kind, step", [("loss", 8), ("gap", 8)])
def test_divergence_restores_the_second_newest_state_and_halves_the_learning_rate(kind, step, capsys):
    module, callback, trainer = fit_slope({kind: [step]})
    # There are copies of steps 3 and 6. Step 8 diverges and restores step 3; four steps of 0.5 follow.
    assert callback.rollbacks == 1 and "Step 8: training diverged" in capsys.readouterr().err
    assert module.weight.item() == pytest.approx(-3 - 4 * 0.5)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5
    assert callback.states[0]["extra"] == 3


def test_training_ends_with_a_healthy_state_after_too_many_divergences(capsys):
    module, callback, trainer = fit_slope({"loss": range(8, 40)}, steps=40, max_rollbacks=2)
    assert trainer.global_step == 10 and callback.rollbacks == 3
    assert module.weight.item() == -3 and "lower learning rate" in capsys.readouterr().err


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
