"""The running mean of the weights."""

import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ebmcourse.training import BestCheckpoint, DivergenceRollback, WeightAverage, fit

LOADER = DataLoader(TensorDataset(torch.zeros(6, 1)), batch_size=2)  # three steps per epoch


class Counting(pl.LightningModule):
    """Its weight is the number of steps; in step `bad`, the loss is NaN and the weight becomes NaN once."""

    def __init__(self, bad: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.bad = bad

    def forward(self, x):
        return self.weight * x.sum(1)

    def training_step(self, batch, batch_idx):
        step = self.global_step + 1
        self.log("gap", 0.0)
        factor = math.nan if step == self.bad else -1.0
        self.bad = 0 if step == self.bad else self.bad
        return factor * self.weight.sum()

    def on_save_checkpoint(self, checkpoint):
        checkpoint["chains"] = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def mean_of(weights, decay):
    """The mean by its formula, after the weights 0, then `weights`."""
    mean = 0.0
    for n, weight in enumerate(weights, 1):
        factor = min(decay, (1 + n) / (10 + n))
        mean = factor * mean + (1 - factor) * weight
    return mean


@pytest.mark.parametrize("decay", [0.3, 0.995])
def test_the_mean_is_that_of_the_formula_and_the_best_checkpoint_contains_it(decay, tmp_path):
    module, seen = Counting(), []
    best = BestCheckpoint(tmp_path / "best.ckpt", lambda module: seen.append(module.weight.item()) or -len(seen))
    fit(module, LOADER, LOADER, out=tmp_path, epochs=2, callbacks=[WeightAverage(decay), best], limit_val_batches=0)
    assert seen == pytest.approx([mean_of(range(1, 4), decay), mean_of(range(1, 7), decay)])
    assert module.weight.item() == 6
    saved = {name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["state_dict"] for name in ("best", "last")}
    assert saved["best"]["weight"].item() == pytest.approx(seen[1]) and saved["last"]["weight"].item() == 6


def test_a_continued_training_continues_the_mean(tmp_path):
    for epochs in (1, 2):
        average = WeightAverage()
        resume = tmp_path / "last.ckpt" if epochs == 2 else None
        fit(Counting(), LOADER, LOADER, tmp_path, epochs, resume, callbacks=[average], limit_val_batches=0)
    assert average.mean["weight"].item() == pytest.approx(mean_of(range(1, 7), 0.995))


def test_after_a_rollback_the_mean_starts_again(tmp_path):
    average = WeightAverage()
    callbacks = [average, DivergenceRollback("gap", window=2)]
    fit(Counting(bad=4), LOADER, LOADER, out=tmp_path, epochs=2, callbacks=callbacks, limit_val_batches=0)
    # Step 4 restored the weights before step 1, as states are kept every two steps; the rate is then 0.5.
    assert average.mean["weight"].item() == pytest.approx(mean_of([0.5, 1], 0.995))
