"""The callback that restores an earlier state: what it restores, the faults that it must detect, and no false alarm."""

import pytest
import pytorch_lightning as pl
import torch
from digit_energy import DigitEnergy, digits, train
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ebmcourse.training import DivergenceRollback, fit


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


HEALTHY = {"loss": 1.0, "gap": 0.0, "classifier": 0.5, "energy": 1.0, "gradient": 1.0}


class SignDescent(torch.optim.SGD):
    """Steps by the learning rate, whatever the norm of the gradient is."""

    def step(self, closure):
        loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad.sign_()
        super().step()
        return loss


class Slope(pl.LightningModule):
    """A model with one weight, which decreases by the learning rate in each step.

    `logged[step]` are values that replace the healthy ones in this step.
    """

    def __init__(self, faults):
        super().__init__()
        self.save_hyperparameters({"lmbd": 0.2})
        self.weight = nn.Parameter(torch.zeros(1))
        self.chains, self.seen, self.faults = "fresh", 0, faults

    def training_step(self, batch, batch_idx):
        self.seen += 1
        self.chains = self.seen
        self.now = HEALTHY | self.faults.get(self.seen, {})
        self.log_dict({name: self.now[name] for name in ("gap", "classifier")})
        return self.weight.sum() * self.now["loss"] * self.now["gradient"]

    def forward(self, x):
        return x + self.now["energy"]

    def configure_optimizers(self):
        optimizer = SignDescent(self.parameters(), lr=1.0)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9), "interval": "epoch"}]

    def on_save_checkpoint(self, checkpoint):
        checkpoint["chains"] = self.chains

    def on_load_checkpoint(self, checkpoint):
        self.chains = checkpoint["chains"]


def slope_callback(**options):
    limits = {"low": -5, "classifier": "classifier", "energy_weight": "lmbd"}
    return DivergenceRollback("gap", window=3, **limits | options)


def fit_slope(faults, steps=12, **options):
    module, callback = Slope(faults), slope_callback(**options)
    trainer = pl.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[callback],
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.zeros(steps)), batch_size=1))
    return module, callback, trainer


# The fault in step 8, the reason, the chains in the restored state, and the factor of the weight of the energy.
FAULTS = [
    ({"loss": torch.nan}, "the loss is nan", 3, 1),
    ({"gradient": torch.inf}, "the loss is", 3, 1),
    ({"energy": torch.inf}, "|f| of a training image is inf", 3, 1),
    ({"energy": 1e4}, "|f| of a training image is 1e+04, above 500", 3, 1),
    ({"gap": -1e3}, "gap is -333 on average, below -5", "fresh", 1),
    ({"gradient": 1e3}, "the norm of the gradient is 334 on average, above 100", 3, 0.5),
    ({"classifier": 1e2}, "classifier rose from 0.5 to 33.7", 3, 0.5),
]


@pytest.mark.parametrize("fault, reason, chains, factor", FAULTS)
def test_divergence_restores_the_second_newest_state_and_halves_the_learning_rate(
    fault, reason, chains, factor, capsys
):
    module, callback, trainer = fit_slope({8: fault})
    # There are copies of steps 3 and 6. Step 8 diverges and restores step 3; four steps of 0.5 follow.
    assert [step for step, _ in callback.events] == [8] and reason in callback.events[0][1]
    printed = capsys.readouterr().err
    assert "Step 8: training diverged" in printed and reason in printed
    assert module.weight.item() == pytest.approx(-3 - 4 * 0.5)
    assert trainer.lr_scheduler_configs[0].scheduler.base_lrs == [0.5]
    assert callback.states[0]["chains"] == chains
    assert module.hparams.lmbd == 0.2 * factor


def test_the_scheduler_is_restored_and_its_rates_are_halved():
    module, callback = Slope({8: {"loss": torch.nan}}), slope_callback()
    trainer = pl.Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=[callback]
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.zeros(5)), batch_size=1))
    # Step 8 is in the second epoch, where the rate is 0.9, and restores step 3 of the first one. Two epochs end later.
    (config,) = trainer.lr_scheduler_configs
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5 * 0.9 * 0.9**2)
    assert config.scheduler.last_epoch == 2 and config.scheduler.base_lrs == [0.5]


def test_the_chains_start_again_if_the_same_state_is_restored_twice():
    _, callback, _ = fit_slope({step: {"loss": torch.nan} for step in (8, 10)})
    assert callback.rollbacks == 2 and callback.states[0]["chains"] == "fresh"


def test_a_state_near_a_limit_is_not_restored():
    sliding = {step: {"gap": -4.0} for step in range(5, 11)} | {11: {"gap": -1e3}}
    _, callback, _ = fit_slope(sliding, steps=14)
    assert callback.events[0][0] == 11 and callback.states[0]["state_dict"]["weight"] == 0  # that of the start


def test_new_chains_have_two_windows_to_reach_the_data():
    behind = {8: {"gap": -1e3}} | {step: {"gap": -1e3} for step in range(9, 15)}
    _, callback, _ = fit_slope(behind, steps=24)
    assert callback.rollbacks == 1
    _, callback, _ = fit_slope(behind | {step: {"gap": -1e3} for step in range(15, 18)}, steps=24)
    assert callback.rollbacks == 2


def test_training_ends_with_a_healthy_state_after_too_many_divergences(capsys):
    faults = {step: {"loss": torch.nan} for step in range(8, 40)}
    module, callback, trainer = fit_slope(faults, steps=40, max_rollbacks=2)
    assert trainer.global_step == 10 and callback.rollbacks == 3 and callback.gave_up == "the loss is nan"
    assert module.weight.item() == -3 and capsys.readouterr().err.count("\n") == 3


def test_fit_exits_with_code_1_and_one_sentence_when_training_diverges_too_often(tmp_path, capsys):
    module = Slope({step: {"loss": torch.nan} for step in range(8, 40)})
    loader = DataLoader(TensorDataset(torch.zeros(20)), batch_size=1)
    with pytest.raises(SystemExit) as stop:
        fit(module, loader, None, tmp_path, epochs=1, callbacks=[slope_callback(max_rollbacks=1)])
    last = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1 and last.startswith("Training ended after 2 divergences. Start again")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["weight"].item() == -3


def fit_digits(fault=lambda module: None, steps=120, seed=0):
    torch.manual_seed(seed)
    module = DigitEnergy(fault)
    options = {"low": -2, "high": 5, "classifier": "loss_pyx", "energy_weight": "lmbd", "window": 15}
    callback = DivergenceRollback("gap", max_rollbacks=2, **options)
    train(module, [callback], max_steps=steps, enable_checkpointing=False)
    images, y = digits()
    correct = module.cnn.layers(images).argmax(dim=1) == y
    return module, callback, correct.float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_healthy_runs_raise_no_alarm(seed):
    _, callback, accuracy = fit_digits(seed=seed)
    assert callback.events == [] and accuracy > 0.85


def once(step, action):
    """A fault in one step; `action` is called with the module."""

    def fault(module):
        if module.global_step == step and not hasattr(module, "done"):
            module.done = True
            with torch.no_grad():
                action(module)

    return fault


def poison(module):
    next(module.cnn.parameters()).view(-1)[0] = torch.nan


def inflate(module):
    for parameter in module.cnn.parameters():
        parameter *= 10


@pytest.mark.slow
@pytest.mark.parametrize("action", [poison, inflate])
def test_a_network_that_breaks_is_restored_at_once_and_learns_on(action):
    module, callback, accuracy = fit_digits(once(60, action))
    assert callback.events[0][0] == 61 and callback.rollbacks == 1
    assert accuracy > 0.7 and all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.slow
def test_a_sampler_that_cannot_move_is_detected_by_the_gap_although_the_loss_looks_good():
    def stop(module):
        if module.global_step >= 60:
            module.sampler.synthesize_samples = lambda labels, steps: torch.zeros(len(labels), 1, 8, 8)

    _, callback, accuracy = fit_digits(stop, steps=500)
    assert callback.gave_up and accuracy > 0.7
    assert all(reason.startswith("gap is ") for _, reason in callback.events)
