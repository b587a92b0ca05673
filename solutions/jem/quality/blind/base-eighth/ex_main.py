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
        # Here: a dict, class -> tensor of chains (n, C, H, W). Chains without a class have the key num_classes.
        self.buffer = {}

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
        count = self.sample_size if clabel is None else len(clabel)
        keys = [self.num_classes] * count if clabel is None else clabel.tolist()
        x = START_STD * torch.randn(count, *self.img_shape, device=self.device)
        fresh = torch.rand(count) < FRESH_SHARE
        for i, key in enumerate(keys):
            if key in self.buffer and not fresh[i]:
                old = self.buffer[key]
                j = torch.randint(len(old), (1,)).item()
                x[i] = old[j].to(self.device)
        return x, keys

    def store(self, x: Tensor, place: object) -> None:
        """Write the chains x (B, C, H, W) to the buffer; `place` comes from `initial_chains`."""
        x = x.detach()
        for key in set(place):
            rows = [i for i, k in enumerate(place) if k == key]
            chains = x[rows].clone()
            if key in self.buffer:
                chains = torch.cat([self.buffer[key].to(chains.device), chains])
            self.buffer[key] = chains[-self.cbuffer_size :]

    @contextmanager
    def sampling_mode(self) -> Iterator[None]:
        """A context manager in which gradients are computed with respect to the images only.

        In the `with` block, no parameter requires a gradient, the network is in eval mode, and gradients are enabled,
        even if the caller uses `torch.no_grad()`. On exit, the previous state is restored.
        """
        params = list(self.model.parameters())
        modules = list(self.model.modules())
        grad_flags = [p.requires_grad for p in params]
        train_flags = [m.training for m in modules]
        try:
            self.model.eval()
            for p in params:
                p.requires_grad_(False)
            with torch.enable_grad():
                yield
        finally:
            for p, flag in zip(params, grad_flags):
                p.requires_grad_(flag)
            for m, flag in zip(modules, train_flags):
                m.training = flag

    def gradient(self, x: Tensor, clabel: Tensor | None) -> Tensor:
        """Return ∂f/∂x for each image, clamped to ±GRADIENT_CLAMP: x (B, C, H, W) -> (B, C, H, W), detached.

        clabel: the classes (B,) for f(x, y), or None for f(x).
        """
        x = x.detach().clone().requires_grad_(True)
        f = self.model(x) if clabel is None else self.model(x, clabel)
        grad = torch.autograd.grad(f.sum(), x)[0]
        return grad.clamp(-GRADIENT_CLAMP, GRADIENT_CLAMP)

    def update(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        """Return the chains after one SGLD step: (B, C, H, W) in IMG_RANGE, detached.

        x: the chains (B, C, H, W) before the step, which may be changed in place. gradient: the result of `gradient`
        for x. Both are detached.
        """
        noise = NOISE_STD * torch.randn_like(x)
        x = x + step_size * gradient + noise
        return x.clamp(*IMG_RANGE)

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
        """The step size of SGLD in the current epoch."""
        return self.hparams.step_size * self.hparams.step_size_decay**self.current_epoch

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
        labels = y if ccond_sample else None
        chains = self.sampler.synthesize_samples(labels, steps=self.hparams.steps, step_size=self.step_size)
        f_data = self.cnn(x, labels)
        f_chains = self.cnn(chains, labels)
        contrastive = f_chains.mean() - f_data.mean()
        l2 = (f_data**2).mean() + (f_chains**2).mean()
        loss = contrastive + self.hparams.alpha * l2
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
        logits = self.get_logits(x)
        return F.cross_entropy(logits, y)

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
        loss_pyx = self.pyx_step(batch)
        loss_px = self.px_step(batch, self.hparams.ccond_sample)
        self.log("loss_pyx", loss_pyx, prog_bar=True)
        self.log("loss_px", loss_px)
        return loss_pyx + self.hparams.lmbd * loss_px

    def validation_step(self, batch: Batch, batch_idx: int, dataset_idx: int | None = None) -> None:
        """Log `val_contrastive_divergence` and `val_MulticlassAveragePrecision`."""
        x, y = batch
        if batch_idx == 0:
            classes = y if self.hparams.ccond_sample else None
            samples = self.sampler.synthesize_samples(classes, steps=self.hparams.steps, step_size=self.step_size)
            divergence = self.cnn(samples, classes).mean() - self.cnn(x, classes).mean()
            self.log("val_contrastive_divergence", divergence)
        self.average_precision.update(self.get_logits(x), y)
        self.log("val_MulticlassAveragePrecision", self.average_precision)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the replay buffer to a checkpoint."""
        checkpoint["sampler_buffer"] = to_plain(self.sampler.buffer)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Restore the replay buffer. A deque, which a checkpoint contains as a list, becomes a deque again."""
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
    sampler = MCMCSampler(model.cnn, model.hparams.img_shape, count, model.hparams.num_classes)
    return sampler.synthesize_samples(labels, steps, model.step_size, return_img_per_step=True)


def draw_generation(
    chains: Tensor, titles: list | None = None, rows: int = 6, columns: int = 9
) -> tuple[Figure, Figure]:
    """Draw two figures of chains (steps, count, C, H, W).

    The first figure shows up to `rows` chains after up to `columns` different steps, including the last step. The
    second one shows all images after the last step, with their titles. titles: a title for each chain.
    """
    last = len(chains)
    numbers = np.unique(np.geomspace(1, last, columns).round().astype(int))  # more of the first steps
    frames = chains[torch.from_numpy(numbers - 1)][:, :rows].cpu()
    strip = plots.generation_strip(frames, numbers.tolist(), None if titles is None else titles[:rows])
    sheet = plots.sample_sheet(chains[-1].cpu(), titles)
    return strip, sheet


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
