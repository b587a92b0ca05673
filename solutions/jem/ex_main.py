"""Joint energy-based model (JEM) of printed glyphs: sampler, model, training, generation, OOD detection.

Start with `python ex_main.py train --preset smoke`. The commands `evaluate`, `generate` and `ood` use the model that
it saves in runs/jem.
"""

import argparse
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ex_cli
import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from ex_data import OOD_SPLITS, InputError, TransformTensorDataset, class_names, get_datasets
from ex_model import ShallowCNN
from ex_ood import SCORES, energy_threshold, ood_metrics, score_fn, score_histogram
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAveragePrecision

from ebmcourse import plots
from ebmcourse.sampling import FastSampler, langevin
from ebmcourse.training import (
    BestCheckpoint,
    DivergenceRollback,
    SamplePictures,
    WeightAverage,
    fit,
    random_affine,
    sample_quality,
    to_plain,
)

IMG_RANGE = (-1.0, 1.0)
START_STD = 0.01  # new chains start from N(0, START_STD²)
FRESH_SHARE = 0.05  # fraction of the chains that start from noise; the others continue chains of the buffer
NOISE_STD = 0.005  # standard deviation of the noise in one SGLD step
GRADIENT_CLAMP = 0.03  # the gradient with respect to a pixel is clamped to ±GRADIENT_CLAMP
STEP_SIZE = 10.0
LOST_GAP = -2.0  # below this mean f(chains) - mean f(data), the sampler can no longer follow the model

Batch = Sequence[Tensor]  # images x (B, C, H, W) and labels y (B,)


class MCMCSampler:
    """Draws images from the model by stochastic gradient Langevin dynamics (SGLD) with a replay buffer.

    One step, with f = -E:

        x ← clip(x + step_size · clamp(∂f(x)/∂x) + noise)

    model: a module that is called as `model(x)` or `model(x, y)` -> f (B,), with positional arguments.
    img_shape: the shape (C, H, W) of an image.
    sample_size: the number of chains if no labels are given.
    num_classes: the number of classes K.
    cbuffer_size: the largest number of chains per class in the buffer.

    References: Welling and Teh, "Bayesian learning via stochastic gradient Langevin dynamics", ICML 2011, for SGLD;
    Du and Mordatch, "Implicit generation and modeling with energy-based models", NeurIPS 2019, for the buffer.
    """

    def __init__(
        self, model: nn.Module, img_shape: tuple, sample_size: int, num_classes: int, cbuffer_size: int = 256
    ) -> None:
        self.model = model
        self.img_shape = tuple(img_shape)
        self.sample_size = sample_size
        self.num_classes = num_classes
        self.cbuffer_size = cbuffer_size
        # The chains that are kept between calls: a tensor, or a list, deque or dict of tensors. This attribute is
        # saved in checkpoints.
        self.buffer = None

    @property
    def device(self) -> torch.device:
        """The device of the model; the CPU if the model has no parameters."""
        return next(self.model.parameters(), torch.empty(0)).device

    def initial_chains(self, clabel: Tensor | None) -> tuple[Tensor, object]:
        """Return the initial images of the chains and their place in the buffer.

        clabel: the classes (B,) of the chains on the model's device, or None for B = `sample_size` chains without a
        class.
        Returns (x, place): x (B, C, H, W) on the model's device, and any object that tells `store` where to write them.
        """
        ### BEGIN SOLUTION 3.3a
        # TODO Return the initial images (B, C, H, W) of the chains, and their place in the buffer.
        # A fraction FRESH_SHARE (5 %) of the chains, on average, starts from Gaussian noise with mean 0 and standard
        # deviation START_STD: decide for each chain, or choose this share of them in each call. The others continue a
        # random chain of the buffer; if `clabel` is given, a chain of the same class. Several chains may continue the
        # same one. While the buffer has no such chain, or if the chosen place is empty, start from noise. Choose the
        # data structure of self.buffer: it has room for cbuffer_size chains per class, and for cbuffer_size chains
        # without a class, in a place of their own.
        if self.buffer is None:
            # Row y is for the chains of class y, the last row for chains without a class.
            slots = (self.num_classes + 1, self.cbuffer_size)
            self.buffer = {
                "chains": torch.zeros(*slots, *self.img_shape),
                "filled": torch.zeros(slots, dtype=torch.bool),
            }
        self.buffer = {name: tensor.to(self.device) for name, tensor in self.buffer.items()}
        rows = clabel
        if rows is None:
            rows = torch.full((self.sample_size,), self.num_classes, device=self.device)
        columns = torch.randint(self.cbuffer_size, rows.shape, device=self.device)
        kept = self.buffer["chains"][rows, columns]  # (B, C, H, W)
        fresh = START_STD * torch.randn_like(kept)
        starts_fresh = torch.rand(rows.shape, device=self.device) < FRESH_SHARE  # (B,)
        starts_fresh |= ~self.buffer["filled"][rows, columns]
        return torch.where(starts_fresh[:, None, None, None], fresh, kept), (rows, columns)
        ### END SOLUTION

    def store(self, x: Tensor, place: object) -> None:
        """Write the chains x (B, C, H, W) to the buffer; `place` comes from `initial_chains`."""
        ### BEGIN SOLUTION 3.3a
        # TODO Write copies of the chains to the buffer. If it is full, they replace chains of earlier calls, the oldest
        # or any others. Some chains of the same call may replace each other.
        self.buffer["chains"][place] = x
        self.buffer["filled"][place] = x.isfinite().flatten(1).all(dim=1)  # chains that diverged are not used again
        ### END SOLUTION

    @contextmanager
    def sampling_mode(self) -> Iterator[None]:
        """A context manager in which gradients are computed with respect to the images only.

        In the `with` block, no parameter requires a gradient, the network is in eval mode, and gradients are enabled,
        even if the caller uses `torch.no_grad()`. On exit, the previous state is restored.
        """
        ### BEGIN SOLUTION 3.3b
        # TODO Freeze the network, yield, and restore the previous state, also after an exception.
        # Use try, yield and finally. Note that parameters and submodules can have different states.
        requires_grad = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        training = [(module, module.training) for module in self.model.modules()]
        try:
            self.model.eval().requires_grad_(False)
            with torch.enable_grad():
                yield
        finally:
            for parameter, flag in requires_grad:
                parameter.requires_grad_(flag)
            for module, mode in training:
                module.training = mode
        ### END SOLUTION

    def gradient(self, x: Tensor, clabel: Tensor | None) -> Tensor:
        """Return ∂f/∂x for each image, clamped to ±GRADIENT_CLAMP: x (B, C, H, W) -> (B, C, H, W), detached.

        clabel: the classes (B,) for f(x, y), or None for f(x).
        """
        ### BEGIN SOLUTION 3.3b
        # TODO Return the clamped gradient of f = -E with respect to the images, shape (B, C, H, W).
        # Compute f with self.model, sum it over the batch, and differentiate the sum with respect to x.
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.model(x, clabel).sum(), x)
        return gradient.clamp(-GRADIENT_CLAMP, GRADIENT_CLAMP)
        ### END SOLUTION

    def update(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        """Return the chains after one SGLD step: (B, C, H, W) in IMG_RANGE, detached.

        x: the chains (B, C, H, W) before the step, which may be changed in place. gradient: the result of `gradient`
        for x. Both are detached.
        """
        ### BEGIN SOLUTION 3.3c
        # TODO Return the chains after one step towards higher f, with noise, clipped to IMG_RANGE.
        # Add step_size times the gradient, and Gaussian noise with standard deviation NOISE_STD.
        noise = NOISE_STD * torch.randn_like(x)
        return (x + step_size * gradient + noise).clamp(*IMG_RANGE)
        ### END SOLUTION

    def synthesize_samples(
        self,
        clabel: Tensor | None = None,
        steps: int = 60,
        step_size: float = STEP_SIZE,
        return_img_per_step: bool = False,
    ) -> Tensor:
        """Run `steps` SGLD steps and write the chains to the buffer.

        clabel: the classes (B,) of the chains, or None for `sample_size` chains without a class.
        Returns the chains after the last step, (B, C, H, W), or after each step, (steps, B, C, H, W), if
        `return_img_per_step` is set; detached, on the model's device.
        """
        labels = None if clabel is None else clabel.to(self.device)
        x, place = self.initial_chains(labels)
        history = []
        with self.sampling_mode():
            for _ in range(steps):
                x = self.update(x, self.gradient(x, labels), step_size)
                if return_img_per_step:
                    history.append(x.clone())  # a copy, because `update` may work in place
        self.store(x, place)
        return torch.stack(history) if return_img_per_step else x


class JEM(pl.LightningModule):
    """Joint energy-based model: one network for log q(x, y) = log q(y|x) + log q(x).

    img_shape: the shape (C, H, W) of an image.
    batch_size: the number of chains without a class that are sampled in one training step.
    num_classes: the number of classes K.
    cbuffer_size: the largest number of chains per class in the replay buffer.
    ccond_sample: sample chains of the classes of the batch from f(x, y), instead of chains without a class from f(x).
    alpha: the weight of the L2 term in the loss of log q(x).
    lmbd: the weight of the loss of log q(x) relative to the loss of log q(y|x).
    lr, lr_stepsize, lr_gamma: the learning rate; it is multiplied by `lr_gamma` every `lr_stepsize` epochs.
    m_in, m_out, hinge: if `hinge` > 0, it is the weight of a penalty on f < m_in for data and f > m_out for chains.
    steps: the number of SGLD steps per training step.
    step_size, step_size_decay: the step size of SGLD, which is multiplied by the factor `step_size_decay` every epoch.
    warmup_epochs: the number of epochs in which only the classifier is trained, with an L2 penalty on f(x, y).
    augment: rotate, scale and shift the images of the classifier's loss by small random amounts.
    MODEL_args: further arguments of the network.

    Reference: Grathwohl et al., "Your classifier is secretly an energy based model and you should treat it like
    one", ICLR 2020, section 4.
    """

    def __init__(
        self,
        img_shape: tuple,
        batch_size: int,
        num_classes: int = 42,
        cbuffer_size: int = 256,
        ccond_sample: bool = False,
        alpha: float = 0.1,
        lmbd: float = 0.1,
        lr: float = 1e-4,
        lr_stepsize: int = 1,
        lr_gamma: float = 0.97,
        m_in: float = 0,
        m_out: float = -10,
        steps: int = 60,
        step_size: float = STEP_SIZE,
        step_size_decay: float = 1.0,
        hinge: float = 0.0,
        warmup_epochs: int = 0,
        augment: bool = False,
        **MODEL_args,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.saved_epoch = 0
        self.cnn = ShallowCNN(num_classes=num_classes, **MODEL_args)
        self.sampler = MCMCSampler(self.cnn, img_shape, batch_size, num_classes, cbuffer_size)
        self.average_precision = MulticlassAveragePrecision(max(num_classes, 2))  # an EBM has one class

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return f = -E of each image, shape (B,).

        x: images (B, C, H, W). labels: classes (B,) for f(x, y), or None for f(x).
        Raises ValueError for a label -1: unlabelled images have no class-conditional energy.
        """
        if labels is not None and bool((labels < 0).any()):
            raise ValueError("y = -1 means unlabelled: omit the labels to compute the unconditional energy.")
        return self.cnn(x, labels)

    def get_logits(self, x: Tensor) -> Tensor:
        """Return the logits f(x)[y] of all K classes: x (B, C, H, W) -> (B, K)."""
        return self.cnn.get_logits(x)

    @property
    def step_size(self) -> float:
        """The step size of SGLD in the current epoch; for a trained model, in the epoch of its checkpoint."""
        epoch = max(self.current_epoch, self.saved_epoch)
        return self.hparams.step_size * self.hparams.step_size_decay**epoch

    def configure_optimizers(self) -> tuple[list, list]:
        # No momentum (β1 = 0), because the chains, and with them the loss, change in each step.
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr, betas=(0.0, 0.999))
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, self.hparams.lr_stepsize, self.hparams.lr_gamma)
        return [optimizer], [scheduler]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Add noise to the training images, as in the chains: noise must not distinguish chains from data."""
        x, y = batch
        if self.training:
            x = (x + NOISE_STD * torch.randn_like(x)).clamp(*IMG_RANGE)
        return [x, y]

    def px_step(self, batch: Batch, ccond_sample: bool = True) -> Tensor:
        """Return the loss of log q(x), a scalar: contrastive divergence plus `alpha` times an L2 term.

        batch: images x (B, C, H, W) and labels y (B,). ccond_sample: use f(x, y) with the labels instead of f(x).
        Reference for the L2 term: Du and Mordatch, NeurIPS 2019.
        """
        x, y = batch
        ### BEGIN SOLUTION 3.4a
        # TODO Compute f_data (B,), f_chains (B,), and from these the scalar `loss`.
        # Sample chains with self.sampler: self.hparams.steps steps with the step size self.step_size. If ccond_sample
        # is set, use the labels y for the chains and for both energies; otherwise use no labels. f_data and f_chains
        # are the values of self.cnn for x and for the chains. The contrastive term is a difference of their means:
        # minimising it must increase f for data and decrease f for chains. Add alpha times the L2 term, which is the
        # mean of f² over the data plus the mean of f² over the chains.
        labels = y if ccond_sample else None
        chains = self.sampler.synthesize_samples(labels, steps=self.hparams.steps, step_size=self.step_size)
        f_data, f_chains = self.cnn(x, labels), self.cnn(chains, labels)
        contrastive = f_chains.mean() - f_data.mean()
        loss = contrastive + self.hparams.alpha * (f_data.square().mean() + f_chains.square().mean())
        ### END SOLUTION
        # Near 0, chains and data are equally likely. Far below 0, the sampler can no longer follow the model.
        self.log("gap", f_chains.mean() - f_data.mean(), prog_bar=True)
        return loss + self.hparams.hinge * self.margins(f_data, f_chains)

    def margins(self, f_data: Tensor, f_chains: Tensor) -> Tensor:
        """Return a squared hinge penalty, a scalar, on f_data (B,) below m_in and f_chains (B,) above m_out.

        Reference: Liu et al., "Energy-based out-of-distribution detection", NeurIPS 2020, who write it for E = -f.
        """
        too_unlikely, too_likely = F.relu(self.hparams.m_in - f_data), F.relu(f_chains - self.hparams.m_out)
        return (too_unlikely**2).mean() + (too_likely**2).mean()

    def pyx_step(self, batch: Batch) -> Tensor:
        """Return the loss of log q(y|x), a scalar: the mean cross-entropy of the classifier.

        batch: images x (B, C, H, W) and labels y (B,).
        """
        x, y = batch
        if self.training and self.hparams.augment:
            x = random_affine(x)
        ### BEGIN SOLUTION 3.4b
        # TODO Return the mean cross-entropy of the logits of x and the labels y, a scalar.
        return F.cross_entropy(self.cnn.get_logits(x), y)
        ### END SOLUTION

    def warmup_step(self, batch: Batch) -> Tensor:
        """Return the loss of the warm-up, a scalar: the loss of the classifier plus an L2 penalty on f(x, y).

        After the warm-up, the gradients with respect to the images already lead the chains towards the classes.
        """
        x, y = batch
        loss = self.pyx_step(batch)
        self.log("loss_pyx", loss, prog_bar=True)
        return loss + self.hparams.lmbd * self.hparams.alpha * (self.cnn(x, y) ** 2).mean()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, a scalar: the loss of log q(y|x) plus `lmbd` times the loss of log q(x)."""
        if self.current_epoch < self.hparams.warmup_epochs:
            return self.warmup_step(batch)
        ### BEGIN SOLUTION 3.4c
        # TODO Return the joint loss, pyx_step plus self.hparams.lmbd times px_step, a scalar.
        # Pass the hyperparameter ccond_sample to px_step. Log both losses with self.log, with any names.
        loss_pyx = self.pyx_step(batch)
        loss_px = self.px_step(batch, ccond_sample=self.hparams.ccond_sample)
        self.log_dict({"loss_pyx": loss_pyx, "loss_px": loss_px}, prog_bar=True)
        return loss_pyx + self.hparams.lmbd * loss_px
        ### END SOLUTION

    def validation_step(self, batch: Batch, batch_idx: int, dataset_idx: int | None = None) -> None:
        """Log `val_contrastive_divergence` and `val_MulticlassAveragePrecision`."""
        x, y = batch
        ### BEGIN SOLUTION 3.4c
        # TODO Log "val_contrastive_divergence" and "val_MulticlassAveragePrecision" with self.log.
        # The first is mean f(chains) - mean f(x), with chains as in training. Sampling takes time, so it is enough to
        # compute it for the first batch (batch_idx == 0), but you may do so for every batch. The second is
        # self.average_precision, which you update with the logits and labels of each batch.
        self.average_precision.update(self.cnn.get_logits(x), y)
        self.log("val_MulticlassAveragePrecision", self.average_precision, prog_bar=True)
        if batch_idx == 0:
            labels = y if self.hparams.ccond_sample else None
            chains = self.sampler.synthesize_samples(labels, steps=self.hparams.steps, step_size=self.step_size)
            divergence = self.cnn(chains, labels).mean() - self.cnn(x, labels).mean()
            self.log("val_contrastive_divergence", divergence)
        ### END SOLUTION

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the replay buffer to a checkpoint."""
        checkpoint["sampler_buffer"] = to_plain(self.sampler.buffer)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Restore the epoch and the replay buffer. A deque, which is a list in a checkpoint, becomes a deque again."""
        self.saved_epoch = checkpoint.get("epoch", self.saved_epoch)
        buffer = checkpoint["sampler_buffer"]
        if isinstance(self.sampler.buffer, deque):
            buffer = deque(buffer, self.sampler.buffer.maxlen)
        self.sampler.buffer = buffer


def load_model(ckpt_path: str | Path) -> JEM:
    """Load a trained model from a checkpoint, on the best available device, in eval mode.

    Raises InputError if the file does not exist or is not a checkpoint of this model.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = JEM.load_from_checkpoint(ckpt_path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"There is no checkpoint {ckpt_path}: train a model, or use --ckpt_path.") from None
    except (pickle.UnpicklingError, OSError, EOFError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{ckpt_path} is not a checkpoint of this model ({type(error).__name__}: {reason}).") from None
    return model.eval()


def per_image(model: JEM, dataset: TransformTensorDataset, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `function` to all N images of a dataset, in batches on the model's device; returns (N, …) on the CPU."""
    return torch.cat([function(x.to(model.device)).cpu() for x, _ in DataLoader(dataset, batch_size=256)])


def draw_chains(model: JEM) -> Tensor:
    """Continue chains of the training: one per class, or `batch_size` chains without a class; (N, C, H, W)."""
    labels = torch.arange(model.hparams.num_classes) if model.hparams.ccond_sample else None
    return model.sampler.synthesize_samples(labels, model.hparams.steps, model.step_size).cpu()


@torch.no_grad()
def measure_quality(model: JEM, val: TransformTensorDataset, steps: int = 60) -> float:
    """Return the sample quality of new chains plus the error rate of the classifier on val images; 0 is best.

    It decides which checkpoint is kept as the best one. All models are measured with the same random numbers.
    """
    images, y = (tensor.to(model.device) for tensor in val.tensors)
    classes = torch.arange(model.hparams.num_classes, device=model.device)
    labels = classes.repeat(-(-80 // len(classes)))  # at least 80 chains
    real = torch.cat([images[y == label][:10] for label in y.unique()])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        starts = START_STD * torch.randn(len(labels), *model.hparams.img_shape, device=model.device)
        chains = langevin(model.cnn, starts, labels if model.hparams.ccond_sample else None, steps, model.step_size)
    predicted = torch.cat([model.get_logits(x).argmax(dim=1) for x in images.split(256)])
    return sample_quality(chains, starts, real) + (predicted != y).float().mean().item()


def run_training(args: argparse.Namespace) -> Path:
    """Train a model, or continue the training of the checkpoint `args.resume`; returns the path of the last checkpoint.

    The best checkpoint by `measure_quality` is best.ckpt. When the training diverges, `DivergenceRollback` restores an
    earlier state.
    Raises InputError if the data or the checkpoint cannot be read, or have different numbers of classes.
    """
    pl.seed_everything(args.seed, verbose=False)
    data = get_datasets(args.data_dir)
    num_classes = 1 + max(int(data[split].tensors[1].max()) for split in ("train", "val", "test"))
    if args.resume:
        previous = load_model(args.resume)
        model = JEM(**previous.hparams)
        if model.hparams.num_classes != num_classes:
            raise InputError(f"{args.resume} has {model.hparams.num_classes} classes, {args.data_dir} {num_classes}.")
    else:
        model = JEM(tuple(data["train"][0][0].shape), num_classes=num_classes, **args.hyperparameters)
    own = model.sampler
    fast = FastSampler(model.cnn, own.img_shape, own.sample_size, num_classes, own.cbuffer_size)
    if args.fast_sampler or (args.resume and fast.has_format(previous.sampler.buffer)):
        model.sampler = fast
    letters = class_names(args.data_dir, num_classes) if model.hparams.ccond_sample else None
    return fit(
        model,
        DataLoader(data["train"], model.hparams.batch_size, shuffle=True),
        DataLoader(data["val"], model.hparams.batch_size),
        out=args.out,
        epochs=args.epochs,
        resume=args.resume,
        callbacks=[
            DivergenceRollback("gap", low=LOST_GAP, classifier="loss_pyx", energy_weight="lmbd"),
            SamplePictures(draw_chains, args.out / "samples", letters),
            WeightAverage(),
            BestCheckpoint(args.out / "best.ckpt", lambda model: measure_quality(model, data["val"])),
        ],
        limit_train_batches=args.train_batches,
        gradient_clip_val=args.clip,
        precision=args.precision,
    )


def run_evaluation(args: argparse.Namespace, ckpt_path: str | Path) -> dict[str, float]:
    """Print and return the `accuracy` and the macro `average_precision` of the classifier on the test images.

    Raises InputError if the data or the checkpoint cannot be read, or if the data have more classes.
    """
    model = load_model(ckpt_path)
    test = get_datasets(args.data_dir)["test"]
    labels = test.tensors[1]
    if labels.max() >= model.hparams.num_classes:
        raise InputError(f"{ckpt_path} has {model.hparams.num_classes} classes, {args.data_dir} has more.")
    with torch.no_grad():
        logits = per_image(model, test, model.get_logits)
    accuracy = (logits.argmax(dim=1) == labels).float().mean().item()
    average_precision = MulticlassAveragePrecision(model.hparams.num_classes)(logits, labels).item()
    print(f"test accuracy {accuracy:.2%}   average precision {average_precision:.3f}")
    return {"accuracy": accuracy, "average_precision": average_precision}


def generate_images(model: JEM, labels: Tensor | None, count: int, steps: int) -> Tensor:
    """Generate `count` images from noise and return the images after each step, (steps, count, C, H, W).

    labels: the classes (count,) of the images, or None. The buffer of model.sampler is not changed.
    """
    ### BEGIN SOLUTION 3.5a
    # TODO Return `count` chains that start from Gaussian noise, after each step: (steps, count, C, H, W).
    # The buffer of model.sampler contains chains of the training. A new MCMCSampler has an empty buffer.
    # The step size is model.step_size.
    shape, num_classes = model.hparams.img_shape, model.hparams.num_classes
    sampler = MCMCSampler(model.cnn, shape, count, num_classes, cbuffer_size=1)
    return sampler.synthesize_samples(labels, steps, model.step_size, return_img_per_step=True)
    ### END SOLUTION


def draw_generation(
    chains: Tensor, titles: list | None = None, rows: int = 6, columns: int = 9
) -> tuple[Figure, Figure]:
    """Draw two figures of chains (steps, count, C, H, W).

    The first figure shows up to `rows` chains after up to `columns` different steps, including the last step. The
    second one shows all images after the last step, with their titles. titles: a title for each chain.
    """
    ### BEGIN SOLUTION 3.5b
    # TODO Return two figures: some chains at several steps up to the last one, and all images after the last step.
    # Use plots.generation_strip and plots.sample_sheet. Images change most in the first steps, so more of these are of
    # interest, but you may choose any steps.
    shown = np.unique(np.geomspace(len(chains), 1, columns).round().astype(int))
    strip = plots.generation_strip(chains[shown - 1, :rows].cpu(), shown, titles and titles[:rows])
    return strip, plots.sample_sheet(chains[-1].cpu(), titles)
    ### END SOLUTION


def run_generation(args: argparse.Namespace, ckpt_path: str | Path, conditional: bool = False) -> Tensor:
    """Generate images from noise, (count, C, H, W), and write the figures generation.png and samples.png."""
    pl.seed_everything(args.seed, verbose=False)
    model = load_model(ckpt_path)
    labels = torch.arange(args.count) % model.hparams.num_classes if conditional else None
    chains = generate_images(model, labels, args.count, args.mixing)
    letters = class_names(args.data_dir, model.hparams.num_classes)
    strip, sheet = draw_generation(chains, None if labels is None else [letters[label] for label in labels])
    for figure, name in (strip, "generation.png"), (sheet, "samples.png"):
        print(f"wrote {plots.save(figure, args.out / name)}")
    return chains[-1].cpu()


def run_ood_analysis(args: argparse.Namespace, ckpt_path: str | Path) -> dict[str, dict[str, dict[str, float]]]:
    """Measure how well each score separates the OOD sets from the test images.

    Prints the metrics, writes the figures ood_histogram.png and ood_roc.png, and returns the metrics as
    score -> OOD set -> name -> value. All scores are unconditional, because OOD images have no class. The threshold in
    the histogram is computed from the validation images.
    """
    model = load_model(ckpt_path)
    data = get_datasets(args.data_dir)
    results, groups = {}, {}
    print("score  OOD set    AUROC    AUPR   FPR95")
    for name in SCORES:
        scores = {
            split: per_image(model, data[split], lambda x, name=name: score_fn(model, x, score=name)).numpy()  # (N,)
            for split in ("val", "test", *OOD_SPLITS)
        }
        held_out, in_distribution = scores.pop("val"), scores["test"]
        results[name] = {split: ood_metrics(in_distribution, scores[split]) for split in OOD_SPLITS}
        for split, metrics in results[name].items():
            print(f"{name:5}  {split:7} {metrics['auroc']:8.3f}{metrics['aupr']:8.3f}{metrics['fpr95']:8.3f}")
            groups[f"{name}, {split}"] = in_distribution, scores[split]
        if name == args.score:
            histogram = plots.score_histogram(*score_histogram(scores), energy_threshold(held_out), f"score {name}")
    for figure, file in (histogram, "ood_histogram.png"), (plots.roc_curves(groups), "ood_roc.png"):
        print(f"wrote {plots.save(figure, args.out / file)}")
    return results


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; see `python ex_main.py --help` and `python ex_main.py train --help`."""
    return ex_cli.parse_args(argv)


def main() -> None:
    args = parse_args()
    if args.command == "train":
        print(f"wrote {run_training(args)}")
    elif args.command == "evaluate":
        run_evaluation(args, args.ckpt_path)
    elif args.command == "generate":
        run_generation(args, args.ckpt_path, args.conditional)
    else:
        run_ood_analysis(args, args.ckpt_path)


if __name__ == "__main__":
    ex_cli.run(main)
