"""Running a training."""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from ebmcourse.training.checkpoints import LastCheckpoint
from ebmcourse.training.display import Progress
from ebmcourse.training.divergence import DivergenceRollback


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
    """Train until `epochs` epochs are complete, on the best available device.

    `resume` is a checkpoint to continue from; its epochs count. Further keywords go to `pytorch_lightning.Trainer`.
    Writes a TensorBoard log to OUT/tensorboard and returns the path of the checkpoint, OUT/last.ckpt. When the
    training is interrupted (Ctrl-C), it saves the checkpoint, prints how to continue, and exits with code 130. If
    `resume` has all epochs already, it says so and exits with code 0. When `DivergenceRollback` gives up, it exits
    with code 1, and the checkpoint contains the last healthy state.
    """
    for name in "pytorch_lightning", "lightning_fabric":
        logging.getLogger(name).setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module=name)
    last = LastCheckpoint(out / "last.ckpt")
    trainer = pl.Trainer(
        max_epochs=epochs,
        devices=1,
        logger=TensorBoardLogger(out, name="", version="tensorboard"),
        callbacks=[*callbacks, last, Progress()],
        inference_mode=False,  # the sampler needs gradients with respect to the images during validation, too
        enable_model_summary=False,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        **trainer_options,
    )
    try:
        trainer.fit(module, train_loader, val_loader, ckpt_path=resume, weights_only=True)
    except SystemExit:
        if trainer.interrupted:
            saved = f"To continue, add --resume {last.path} to the same command."
            nothing = "Nothing was saved, because no step was complete."
            print(f"Interrupted. {saved if last.is_saved else nothing}", file=sys.stderr)
        raise SystemExit(130) from None
    for callback in callbacks:
        if isinstance(callback, DivergenceRollback) and callback.gave_up:
            advice = "Start again with a lower learning rate, more sampling steps or a smaller weight of the energy."
            print(f"Training ended after {callback.rollbacks} divergences. {advice}", file=sys.stderr)
            raise SystemExit(1)
    if resume and not last.is_saved:
        done = f"{resume} already contains {trainer.current_epoch} epochs, so there is nothing left to train."
        print(f"{done} To train longer, add --epochs with a larger number.", file=sys.stderr)
        raise SystemExit(0)
    return last.path
