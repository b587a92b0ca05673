"""Checkpoints."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor


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


class LastCheckpoint(Checkpoint):
    """Saves a checkpoint to `path` after every epoch, and when Ctrl-C or SIGTERM interrupts the training.

    The new file replaces the old one in a single step, so the file is complete at any time. There is no "best"
    checkpoint: no number that is logged during the training of an energy-based model measures how good its samples
    are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, trainer: pl.Trainer) -> None:
        unfinished = self.path.with_suffix(".unfinished")
        trainer.save_checkpoint(unfinished)
        unfinished.replace(self.path)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and trainer.global_step > 0:
            self.save(trainer)
