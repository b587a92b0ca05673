"""Checkpoints."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from ebmcourse.training.averaging import averaged


def to_plain(value: Any) -> Any:
    """A copy of nested containers with tensors on the CPU, as a checkpoint for `weights_only=True` may hold it.

    Mappings become dicts; lists, tuples and deques become lists. Other values stay as they are.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | deque):
        return [to_plain(item) for item in value]
    return value


def save_complete(trainer: pl.Trainer, path: Path) -> None:
    """Save a checkpoint in a single step, so that the file is complete at any time."""
    unfinished = path.with_suffix(".unfinished")
    trainer.save_checkpoint(unfinished)
    unfinished.replace(path)


class LastCheckpoint(Checkpoint):
    """Saves a checkpoint to `path` after every epoch, and when Ctrl-C or SIGTERM interrupts the training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_saved = False  # by this training: an earlier one may have left a file

    def save(self, trainer: pl.Trainer) -> None:
        save_complete(trainer, self.path)
        self.is_saved = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and trainer.global_step > 0:
            self.save(trainer)


class BestCheckpoint(Checkpoint):
    """Saves a checkpoint to `path` after each epoch in which `measure(module)` is lower than in all epochs before.

    `measure` must not depend on the scale of the energies, as `sample_quality` does not. The contrastive divergence, a
    common criterion, compares chains and data by the network that is being trained, and is close to 0 before this
    network has learned anything. The measured value is logged under `name`. With the callback `WeightAverage`, it is
    the mean of the weights that is measured and saved.
    """

    def __init__(self, path: Path, measure: Callable[[Any], float], name: str = "val_quality") -> None:
        self.path, self.measure, self.name = path, measure, name
        self.best, self.epoch = math.inf, -1

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.epoch = state_dict["best"], state_dict["epoch"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with averaged(trainer, pl_module):
            value = self.measure(pl_module)
            pl_module.log(self.name, value)
            if value < self.best:
                self.best, self.epoch = value, trainer.current_epoch
                save_complete(trainer, self.path)
