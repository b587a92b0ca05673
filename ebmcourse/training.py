"""What trainings share: callbacks against divergence and for watching, `fit`, options, augmentation."""

import argparse
import copy
import inspect
import logging
import math
import sys
import warnings
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor
from torch.utils.data import DataLoader

from ebmcourse import plots


def to_plain(value: Any) -> Any:
    """Tensors on the CPU, numbers, text, lists and dicts: all that a `weights_only` checkpoint may hold."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | deque):
        return [to_plain(item) for item in value]
    return value


class LastCheckpoint(Callback):
    """Keeps one checkpoint: written after every epoch and when training is interrupted.

    The file is replaced in one step, so that there is a whole one at any moment. There is no "best" one on
    purpose: no number measured during the training of an energy-based model ranks its samples.
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


class DivergenceRollback(Callback):
    """Goes back to the last healthy state when training diverges, and goes on with a lower learning rate.

    Training counts as diverged when the loss is not finite, or when the running mean of the logged number
    `monitor` over about `window` steps leaves [low, high]. Every `window` healthy steps the module (with what
    its `on_save_checkpoint` adds, such as a replay buffer) and the optimisers are remembered. A state is
    trusted only after another healthy window: the steps just before a divergence already belong to it.

    After `max_rollbacks` the next divergence ends the training, with the last healthy state.
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
        what_now = (
            "ending here: start again with a lower learning rate, more sampling steps or a larger penalty"
            if trainer.should_stop
            else f"going on with a learning rate lower by {self.lr_factor:g}"
        )
        print(
            f"Step {trainer.global_step}: training diverged. Back at the last healthy state, {what_now}.",
            file=sys.stderr,
        )


class SamplePictures(Callback):
    """Draws images after every epoch, into the TensorBoard log and as `epoch_000.png`, … into a folder.

    `draw(module)` returns images (N, 1, H, W) in [-1, 1].
    """

    def __init__(self, draw: Callable[[Any], Tensor], folder: Path) -> None:
        self.draw, self.folder = draw, folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figure = plots.sample_sheet(self.draw(pl_module))
        plots.save(figure, self.folder / f"epoch_{trainer.current_epoch:03d}.png")
        if trainer.logger is not None and hasattr(trainer.logger, "experiment"):
            trainer.logger.experiment.add_figure("samples", figure, trainer.global_step)


class Progress(Callback):
    """One progress bar over the whole training, with the time left and the numbers logged with
    `prog_bar=True`.

    Where the output is no terminal (a log file), one line after every epoch instead.
    """

    def __init__(self) -> None:
        self.bar: Bar | None = None

    @staticmethod
    def numbers(trainer: pl.Trainer) -> str:
        values = trainer.progress_bar_metrics.items()
        return "  ".join(f"{name} {value:.3g}" for name, value in values if isinstance(value, float))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        times = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False)
        self.bar = Bar(*columns, *times, TextColumn("{task.fields[numbers]}"), speed_estimate_period=120)
        if not self.bar.console.is_terminal:
            self.bar = None
            return
        total = trainer.estimated_stepping_batches
        self.task = self.bar.add_task("training", total=total, completed=trainer.global_step, numbers="")
        self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.bar is not None:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            numbers = self.numbers(trainer)
            self.bar.update(self.task, completed=trainer.global_step, description=epoch, numbers=numbers)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is None:
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {self.numbers(trainer)}", flush=True)

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.stop()


def fit(
    module: pl.LightningModule,
    train_loader: DataLoader,
    val_loader: DataLoader,
    out: Path,
    epochs: int,
    resume: Path | None = None,
    callbacks: Sequence[Callback] = (),
    **trainer_options: Any,
) -> Path:
    """Train on the best device for `epochs` in all; returns the path of the checkpoint, OUT/last.ckpt.

    `resume` is a checkpoint to go on from. The TensorBoard log lies in OUT/tensorboard. Ctrl-C writes the
    checkpoint, says how to go on, and exits with 130.
    """
    for name in "pytorch_lightning", "lightning_fabric":
        logging.getLogger(name).setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module=name)
    last = LastCheckpoint(out / "last.ckpt")
    trainer = pl.Trainer(
        max_epochs=epochs,
        devices=1,
        logger=TensorBoardLogger(out, name="", version="tensorboard"),
        callbacks=[last, *callbacks, Progress()],
        inference_mode=False,  # sampling needs gradients at the images, in validation too
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        **trainer_options,
    )
    try:
        trainer.fit(module, train_loader, val_loader, ckpt_path=resume)
    except SystemExit:
        if trainer.interrupted and last.path.exists():
            print(f"Interrupted. Go on with the same command and --resume {last.path}", file=sys.stderr)
        raise SystemExit(130) from None
    return last.path


def add_options(
    parser: argparse._ActionsContainer, function: Callable, without: Collection[str] = (), **changed: Any
) -> list[str]:
    """An option --NAME for every parameter of `function` that has a default, except those named in `without`.

    It has the type of the parameter's annotation, and is on/off for bool. `changed` sets other defaults, also
    for parameters behind **kwargs. Returns the names.
    """
    parameters = inspect.signature(function).parameters.values()
    options = {p.name: (p.annotation, p.default) for p in parameters if p.default is not p.empty}
    options |= {name: (type(value), value) for name, value in changed.items()}
    names = [name for name in options if name not in without]
    for name in names:
        kind, default = options[name]
        how = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        parser.add_argument(f"--{name}", default=default, help="default: %(default)s", **how)
    return names


def random_affine(x: Tensor, degrees: float = 5, scale: float = 0.05, shift: float = 1) -> Tensor:
    """Images (B, C, H, W), each turned by up to ±`degrees`, scaled by up to ±`scale` and shifted by up to
    ±`shift` pixels.

    What comes in from outside repeats the border.
    """
    angle, zoom, dx, dy = (2 * torch.rand(4, len(x), 1, device=x.device) - 1).unbind()
    angle, zoom = torch.deg2rad(degrees * angle), 1 + scale * zoom
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    dx, dy = 2 * shift / x.shape[-1] * dx, 2 * shift / x.shape[-2] * dy
    affine = torch.stack([torch.cat([cos, -sin, dx], dim=1), torch.cat([sin, cos, dy], dim=1)], dim=1)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
