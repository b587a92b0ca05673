"""A running mean of the weights."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn


class WeightAverage(Callback):
    """Keeps an exponential moving average of the parameters, which draws better images than the last parameters do.

    The steps of the parameters are noisy, because the chains are; the average changes slowly. After step n, with w the
    parameters,

        mean ← d · mean + (1 - d) · w,    d = min(decay, (1 + n) / (10 + n))

    so that the first parameters do not count for long. `BestCheckpoint` measures and saves the model with the mean.
    `DivergenceRollback` lets it start again from the parameters that it restores. Checkpoints contain it.

    Reference: Yazıcı et al., "The unusual effectiveness of averaging in GAN training", ICLR 2019.
    """

    def __init__(self, decay: float = 0.995) -> None:
        self.decay, self.steps = decay, 0
        self.mean: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.mean = state_dict["steps"], state_dict["mean"]

    def restart(self, module: nn.Module) -> None:
        """Start again from the parameters of the module."""
        self.steps = 0
        self.mean = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.mean:  # from a checkpoint
            self.mean = {name: mean.to(pl_module.device) for name, mean in self.mean.items()}
        else:
            self.restart(pl_module)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, parameter in pl_module.named_parameters():
            self.mean[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def used_by(self, module: nn.Module) -> Iterator[None]:
        """Give the module the mean as its parameters, and afterwards its own ones again."""
        own = {name: parameter.data for name, parameter in module.named_parameters()}
        for name, parameter in module.named_parameters():
            parameter.data = self.mean[name].clone()
        try:
            yield
        finally:
            for name, parameter in module.named_parameters():
                parameter.data = own[name]


def average_of(trainer: pl.Trainer) -> WeightAverage | None:
    """Return the callback of the trainer that keeps a mean of the weights, if there is one."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, WeightAverage)), None)


def averaged(trainer: pl.Trainer, module: nn.Module) -> AbstractContextManager[None]:
    """Give the module the mean of its weights, if a callback of the trainer keeps it."""
    average = average_of(trainer)
    return average.used_by(module) if average else nullcontext()
