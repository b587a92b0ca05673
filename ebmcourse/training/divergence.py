"""Recovery from divergence."""

import copy
import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from ebmcourse.training.averaging import average_of


@dataclass(frozen=True)
class Divergence:
    """Why training has diverged, and what has to change besides the learning rate."""

    reason: str
    restart_chains: bool = False
    lower_weight: bool = False


class DivergenceRollback(Callback):
    """When training diverges, restores an earlier state and continues with a lower learning rate.

    Training has diverged when one of the following holds:

    * the loss or the norm of its gradient is not finite
    * |f| of a training image, computed as `module(x)`, is above `max_energy` or not finite
    * the norm of the gradient before clipping is above `max_gradient`, on average over `window` steps
    * the logged value `monitor` is outside [low, high], on average over `window` steps. It should be the mean of
      f(chains) minus the mean of f(data). If it remains low, the sampler no longer finds images that the network
      considers likely, although the loss looks good.
    * the logged value `classifier`, a loss, is more than `max_rise` above its smallest average over `window` steps

    Every `window` steps without divergence, the callback keeps a copy of the module (including what its
    `on_save_checkpoint` adds, such as a replay buffer), the optimizers and the schedulers, unless the average of
    `monitor` is nearer to a limit than to 0. It restores the second newest copy, because the steps just before a
    divergence are often part of it.

    All learning rates are then multiplied by `lr_factor`. If the classifier's loss or the gradient has grown, so is the
    hyperparameter `energy_weight`, the weight of the energy's loss. The chains start again from noise if `monitor` was
    outside its range, or if the same state is restored again; for two windows, `monitor` does not count then, because
    new chains are far from the data.

    After `max_rollbacks` rollbacks, the next divergence restores the state and ends the training; `gave_up` is then the
    reason. `events` lists the step and the reason of each divergence.
    """

    def __init__(
        self,
        monitor: str,
        low: float = -math.inf,
        high: float = math.inf,
        classifier: str | None = None,
        max_rise: float = 1.5,
        max_gradient: float = 100.0,
        max_energy: float = 500.0,
        energy_weight: str | None = None,
        window: int = 50,
        lr_factor: float = 0.5,
        max_rollbacks: int = 5,
    ) -> None:
        self.monitor, self.low, self.high = monitor, low, high
        self.classifier, self.max_rise = classifier, max_rise
        self.max_gradient, self.max_energy, self.energy_weight = max_gradient, max_energy, energy_weight
        self.window, self.lr_factor, self.max_rollbacks = window, lr_factor, max_rollbacks
        self.rollbacks = 0
        self.events: list[tuple[int, str]] = []
        self.gave_up: str | None = None
        self.states: deque[dict[str, Any]] = deque(maxlen=2)
        self.fresh_chains: dict[str, Any] = {}
        self.forget()

    def forget(self) -> None:
        """Start new averages."""
        self.healthy_steps = self.waiting = 0
        self.gradients: deque[float] = deque(maxlen=self.window)
        self.gaps: deque[float] = deque(maxlen=self.window)
        self.losses: deque[float] = deque(maxlen=self.window)
        self.best_loss = math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"rollbacks": self.rollbacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rollbacks = state_dict["rollbacks"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # A checkpoint is loaded later, so these are chains that have not started.
        pl_module.on_save_checkpoint(self.fresh_chains)
        self.fresh_chains = copy.deepcopy(self.fresh_chains)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.remember(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        self.gradients.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name, values in (self.monitor, self.gaps), (self.classifier, self.losses):
            if name in trainer.callback_metrics and not (values is self.gaps and self.waiting):
                values.append(float(trainer.callback_metrics[name]))
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if divergence := self.find_divergence(float(loss), largest_energy(pl_module, batch)):
            self.roll_back(trainer, pl_module, divergence)
            return
        self.healthy_steps += 1
        self.waiting = max(self.waiting - 1, 0)
        if self.healthy_steps % self.window == 0 and self.is_sound():
            self.remember(trainer, pl_module)

    def find_divergence(self, loss: float, energy: float) -> Divergence | None:
        """Return what is wrong after a step with this loss and this largest |f| of a training image, if anything is."""
        gradient = self.gradients[-1] if self.gradients else 0.0
        for name, value in ("loss", loss), ("norm of the gradient", gradient), ("|f| of a training image", energy):
            if not math.isfinite(value):
                return Divergence(f"the {name} is {value}")
        if energy > self.max_energy:
            return Divergence(f"|f| of a training image is {energy:.3g}, above {self.max_energy:g}")
        if (average := self.mean(self.gaps)) is not None and not self.low <= average <= self.high:
            limits = f"{self.low:g}" if average < self.low else f"{self.high:g}"
            side = "below" if average < self.low else "above"
            return Divergence(f"{self.monitor} is {average:.3g} on average, {side} {limits}", restart_chains=True)
        if (average := self.mean(self.gradients)) is not None and average > self.max_gradient:
            reason = f"the norm of the gradient is {average:.3g} on average, above {self.max_gradient:g}"
            return Divergence(reason, lower_weight=True)
        if (average := self.mean(self.losses)) is not None:
            self.best_loss = min(self.best_loss, average)
            if average > self.best_loss + self.max_rise:
                reason = f"{self.classifier} rose from {self.best_loss:.3g} to {average:.3g}"
                return Divergence(reason, lower_weight=True)
        return None

    def is_sound(self) -> bool:
        """Tell whether the average of `monitor`, where it is known, is nearer to 0 than to a limit."""
        average = self.mean(self.gaps)
        return not self.waiting and (average is None or self.low / 2 <= average <= self.high / 2)

    def mean(self, values: deque[float]) -> float | None:
        """The average over the last `window` steps, or None if there were fewer."""
        return fmean(values) if len(values) == self.window else None

    def remember(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        state: dict[str, Any] = {"state_dict": pl_module.state_dict()}
        pl_module.on_save_checkpoint(state)
        state["optimizers"] = [optimizer.state_dict() for optimizer in trainer.optimizers]
        state["schedulers"] = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        self.states.append(copy.deepcopy(state))

    def roll_back(self, trainer: pl.Trainer, pl_module: pl.LightningModule, divergence: Divergence) -> None:
        state = copy.deepcopy(self.states[0])
        pl_module.load_state_dict(state["state_dict"])
        is_fresh = divergence.restart_chains or state.get("restored", False)
        if is_fresh:
            state |= copy.deepcopy(self.fresh_chains)
        pl_module.on_load_checkpoint(state)
        for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(saved)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = min(rate, group["lr"]) * self.lr_factor
        for config, saved in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
            rates = config.scheduler.base_lrs
            config.scheduler.load_state_dict(saved)
            config.scheduler.base_lrs = [rate * self.lr_factor for rate in rates]
        if average := average_of(trainer):
            average.restart(pl_module)
        if divergence.lower_weight and self.energy_weight:
            pl_module.hparams[self.energy_weight] *= self.lr_factor
        self.states.clear()
        self.forget()
        self.waiting = 2 * self.window if is_fresh else 0
        self.remember(trainer, pl_module)
        self.states[0]["restored"] = True
        self.rollbacks += 1
        self.report(trainer, divergence.reason)

    def report(self, trainer: pl.Trainer, reason: str) -> None:
        self.events.append((trainer.global_step, reason))
        if trainer.logger is not None:
            trainer.logger.log_metrics({"rollbacks": self.rollbacks}, trainer.global_step)
        message = f"Step {trainer.global_step}: training diverged, because {reason}. An earlier state was restored"
        if self.rollbacks > self.max_rollbacks:
            self.gave_up, trainer.should_stop = reason, True
            print(f"{message}.", file=sys.stderr)
        else:
            print(f"{message}, and the learning rate was multiplied by {self.lr_factor:g}.", file=sys.stderr)


@torch.no_grad()
def largest_energy(module: pl.LightningModule, batch: Sequence[Tensor]) -> float:
    """Return the largest |f| of the images of a batch (x, …), where f is `module(x)`."""
    return float(module(batch[0]).abs().max())
