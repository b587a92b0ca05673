"""What is shown during training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column
from torch import Tensor

from ebmcourse import plots


class SamplePictures(Callback):
    """Draws images after every epoch, into the TensorBoard log and as `epoch_000.png`, … in `folder`.

    `draw(module)` returns the images, (N, 1, H, W) in [-1, 1]; `titles` are their N titles, if there are any.
    """

    def __init__(self, draw: Callable[[Any], Tensor], folder: Path, titles: Sequence[str] | None = None) -> None:
        self.draw, self.folder, self.titles = draw, folder, titles

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figure = plots.sample_sheet(self.draw(pl_module), self.titles)
        plots.save(figure, self.folder / f"epoch_{trainer.current_epoch:03d}.png")
        if isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.experiment.add_figure("samples", figure, trainer.global_step)


class Progress(ProgressBar):
    """One progress bar for the whole training, with the time left and the values logged with `prog_bar=True`.

    If the output is not a terminal (a log file, for example), it prints one line after every epoch instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bar: Bar | None = None
        self.is_enabled = True

    def enable(self) -> None:
        self.is_enabled = True

    def disable(self) -> None:
        self.is_enabled = False

    def numbers(self, trainer: pl.Trainer) -> str:
        # Those of the validation last: they change once in an epoch, and their names are long.
        values = sorted(trainer.progress_bar_metrics.items(), key=lambda item: item[0].startswith("val_"))
        return "  ".join(f"{name} {value:.3g}" for name, value in values if isinstance(value, float))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        columns = TextColumn("{task.description}"), BarColumn(bar_width=10), MofNCompleteColumn()
        times = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False)
        # In a narrow terminal, only the values are cut off.
        numbers = TextColumn("{task.fields[numbers]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
        bar = Bar(*columns, *times, numbers, expand=True, speed_estimate_period=120)
        if self.is_enabled and bar.console.is_terminal:
            total = trainer.estimated_stepping_batches
            self.task = bar.add_task("training", total=total, completed=trainer.global_step, numbers="")
            self.bar = bar
            self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar is not None:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            numbers = self.numbers(trainer)
            self.bar.update(self.task, completed=trainer.global_step, description=epoch, numbers=numbers)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is None and self.is_enabled:
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {self.numbers(trainer)}", flush=True)

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.stop()
