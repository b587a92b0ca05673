"""Recovery from divergence."""

import copy
import math
import sys
from collections import deque
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class DivergenceRollback(Callback):
    """When training diverges, restores an earlier state and continues with a lower learning rate.

    Training has diverged when the loss is not finite, or when the mean of the logged value `monitor` over the last
    `window` steps is outside [low, high]. Every `window` steps without divergence, the callback keeps a copy of the
    module (including what its `on_save_checkpoint` adds, such as a replay buffer) and of the optimizers. It restores
    the second newest copy, because the steps just before a divergence are often part of it.

    After `max_rollbacks` rollbacks, the next divergence restores the state and ends the training.
    """

    def __init__(
        self,
        monitor: str,
        low: float = -math.inf,
        high: float = math.inf,
        window: int = 50,
        lr_factor: float = 0.5,
        max_rollbacks: int = 5,
    ) -> None:
        self.monitor, self.low, self.high = monitor, low, high
        self.window, self.lr_factor, self.max_rollbacks = window, lr_factor, max_rollbacks
        self.rollbacks = 0
        self.values: deque[float] = deque(maxlen=window)
        self.healthy_steps = 0
        self.states: deque[dict[str, Any]] = deque(maxlen=2)

    def state_dict(self) -> dict[str, Any]:
        return {"rollbacks": self.rollbacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rollbacks = state_dict["rollbacks"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.remember(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.monitor in trainer.callback_metrics:
            self.values.append(float(trainer.callback_metrics[self.monitor]))
        if self.is_healthy(float(outputs["loss"])):
            self.healthy_steps += 1
            if self.healthy_steps % self.window == 0:
                self.remember(trainer, pl_module)
        else:
            self.roll_back(trainer, pl_module)

    def is_healthy(self, loss: float) -> bool:
        in_range = len(self.values) < self.window or self.low <= fmean(self.values) <= self.high
        return math.isfinite(loss) and in_range

    def remember(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        state: dict[str, Any] = {"state_dict": pl_module.state_dict()}
        pl_module.on_save_checkpoint(state)
        state["optimizers"] = [optimizer.state_dict() for optimizer in trainer.optimizers]
        self.states.append(copy.deepcopy(state))

    def roll_back(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        state = copy.deepcopy(self.states[0])
        pl_module.load_state_dict(state["state_dict"])
        pl_module.on_load_checkpoint(state)
        for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
            lr = optimizer.param_groups[0]["lr"]
            optimizer.load_state_dict(saved)
            for group in optimizer.param_groups:
                group["lr"] = min(lr, group["lr"]) * self.lr_factor
        for config in trainer.lr_scheduler_configs:
            config.scheduler.base_lrs = [lr * self.lr_factor for lr in config.scheduler.base_lrs]
        self.states.clear()
        self.values.clear()
        self.healthy_steps = 0
        self.remember(trainer, pl_module)
        self.rollbacks += 1
        trainer.should_stop = self.rollbacks > self.max_rollbacks
        next_step = (
            "Training ends here: start again with a lower learning rate, more sampling steps or a larger penalty."
            if trainer.should_stop
            else f"Training continues with the learning rate multiplied by {self.lr_factor:g}."
        )
        print(
            f"Step {trainer.global_step}: training diverged, and an earlier state was restored. {next_step}",
            file=sys.stderr,
        )
