"""Joint energy-based model (JEM) of printed glyphs: sampler, model, training, generation, OOD detection.

Start with `python ex_main.py train --preset smoke`; `evaluate`, `generate` and `ood` read what it leaves in
runs/jem.
"""

import argparse
import pickle
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ex_cli
import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from ex_data import OOD_SPLITS, InputError, TransformTensorDataset, get_datasets
from ex_model import ShallowCNN
from ex_ood import SCORES, energy_threshold, ood_metrics, score_fn, score_histogram
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAveragePrecision

from ebmcourse import plots
from ebmcourse.training import DivergenceRollback, SamplePictures, fit, random_affine, to_plain

IMG_RANGE = (-1.0, 1.0)
START_STD = 0.01  # a fresh chain starts from N(0, START_STD²)
FRESH_SHARE = 0.05  # of the chains start fresh, the others go on from the buffer
NOISE_STD = 0.005  # of the noise of one SGLD step
GRADIENT_CLAMP = 0.03
STEP_SIZE = 10.0
LOST_GAP = -2.0  # mean f(chains) - f(data) below which the sampler can no longer follow the model


class MCMCSampler:
    """Draws images from the model by stochastic gradient Langevin dynamics (SGLD) with a replay buffer.

        x ← clip(x + step_size · clamp(∂f(x)/∂x) + noise),   f = -E

    model: a module with `model(x, y=None)` -> f (B,). img_shape: (C, H, W). sample_size: the number of chains
    where no labels are given. cbuffer_size: the greatest number of chains that the buffer keeps per class.
    """

    def __init__(
        self, model: nn.Module, img_shape: tuple, sample_size: int, num_classes: int, cbuffer_size: int = 256
    ) -> None:
        self.model = model
        self.img_shape = tuple(img_shape)
        self.sample_size = sample_size
        self.num_classes = num_classes
        self.cbuffer_size = cbuffer_size
        # The chains that live across calls. Checkpoints save and restore whatever stands here: a tensor, or a
        # list, deque or dict of tensors.
        # Here: one list of chains per class, and a last one for the chains without a class.
        self.buffer = [[] for _ in range(num_classes + 1)]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters(), torch.empty(0)).device

    def initial_chains(self, clabel: Tensor | None) -> tuple[Tensor, object]:
        """Where the chains start: (x (B, C, H, W) on the model's device, place).

        `place` is whatever `store` needs to know to write these chains back. B is len(clabel), or
        `sample_size`.
        """
        slots = [self.num_classes] * self.sample_size if clabel is None else clabel.tolist()
        x = START_STD * torch.randn(len(slots), *self.img_shape, device=self.device)
        for index, slot in enumerate(slots):
            kept = self.buffer[slot]
            if kept and torch.rand(()).item() >= FRESH_SHARE:
                chosen = int(torch.randint(len(kept), ()))
                x[index] = kept[chosen].to(x.device)
        return x, slots

    def store(self, x: Tensor, place: object) -> None:
        """Write the chains x (B, C, H, W) back to the buffer, which keeps its size."""
        for chain, slot in zip(x.detach().cpu(), place, strict=True):
            kept = self.buffer[slot]
            kept.append(chain.clone())
            del kept[: -self.cbuffer_size]

    @contextmanager
    def sampling_mode(self) -> Iterator[None]:
        """`with self.sampling_mode():` freezes the network: only the images get gradients inside."""
        parameters = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            self.model.eval()
            for parameter, _ in parameters:
                parameter.requires_grad_(False)
            with torch.enable_grad():
                yield
        finally:
            for parameter, required in parameters:
                parameter.requires_grad_(required)
            for module, training in modes:
                module.training = training

    def gradient(self, x: Tensor, clabel: Tensor | None) -> Tensor:
        """∂f/∂x at every image, clamped to ±GRADIENT_CLAMP: x (B, C, H, W) -> (B, C, H, W), detached."""
        images = x.detach().clone().requires_grad_()
        f = self.model(images, clabel).sum()
        (gradient,) = torch.autograd.grad(f, images)
        return gradient.clamp(-GRADIENT_CLAMP, GRADIENT_CLAMP)

    def update(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        """The chains after one SGLD step: (B, C, H, W), detached, inside IMG_RANGE."""
        noise = NOISE_STD * torch.randn_like(x)
        return (x + step_size * gradient + noise).clamp(*IMG_RANGE).detach()

    def synthesize_samples(
        self,
        clabel: Tensor | None = None,
        steps: int = 60,
        step_size: float = STEP_SIZE,
        return_img_per_step: bool = False,
    ) -> Tensor:
        """Run `steps` SGLD steps and put the chains back into the buffer.

        clabel: the class of every chain (B,), or None for `sample_size` chains without a class. Returns the
        chains (B, C, H, W) after the last step or, with `return_img_per_step`, after every step (steps, B, C,
        H, W); detached, on the model's device.
        """
        labels = None if clabel is None else clabel.to(self.device)
        x, place = self.initial_chains(labels)
        history = []
        with self.sampling_mode():
            for _ in range(steps):
                x = self.update(x, self.gradient(x, labels), step_size)
                if return_img_per_step:
                    history.append(x.clone())
        self.store(x, place)
        return torch.stack(history) if return_img_per_step else x


class JEM(pl.LightningModule):
    """One network as classifier and energy: log q(x, y) = log q(y|x) + log q(x).

    alpha: weight of the L2 term on the energies. lmbd: weight of the log q(x) branch beside the classifier's.
    ccond_sample: chains follow f(x)[y] of the classes of the batch instead of log Σ_y exp f(x)[y].
    steps: SGLD steps per training step; their size is 10 · step_size_decay ** epoch.
    m_in, m_out: where `hinge` > 0, that weight times a squared hinge asks for f ≥ m_in on data and f ≤ m_out
    on chains. warmup_epochs: classifier only, with its energies already kept small. augment: small affine
    changes, classifier only. Other keywords go to the network.
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
        self.average_precision = MulticlassAveragePrecision(num_classes)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """f = -E of the images (B, C, H, W), unconditional or of the classes `labels` (B,): (B,)."""
        if labels is not None and bool((labels < 0).any()):
            raise ValueError("y = -1 means unlabelled: leave the labels out to get the unconditional energy.")
        return self.cnn(x, labels)

    def get_logits(self, x: Tensor) -> Tensor:
        return self.cnn.get_logits(x)

    @property
    def step_size(self) -> float:
        return STEP_SIZE * self.hparams.step_size_decay**self.current_epoch

    def configure_optimizers(self) -> tuple[list, list]:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr, betas=(0.0, 0.999))
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, self.hparams.lr_stepsize, self.hparams.lr_gamma)
        return [optimizer], [scheduler]

    def on_after_batch_transfer(self, batch: list, dataloader_idx: int) -> list:
        """Data get the noise that chains have, or the network would tell the two apart by it."""
        x, y = batch
        if self.training:
            x = (x + NOISE_STD * torch.randn_like(x)).clamp(*IMG_RANGE)
        return [x, y]

    def px_step(self, batch: list, ccond_sample: bool = True) -> Tensor:
        """The loss of log q(x), a scalar: contrastive divergence and L2 term. batch: x (B, …), y (B,)."""
        x, y = batch
        labels = y if ccond_sample else None
        chains = self.sampler.synthesize_samples(labels, self.hparams.steps, self.step_size)
        f_data = self.cnn(x, labels)
        f_chains = self.cnn(chains, labels)
        contrast = f_chains.mean() - f_data.mean()
        penalty = (f_data**2).mean() + (f_chains**2).mean()
        loss = contrast + self.hparams.alpha * penalty
        # Near 0 chains are as likely as data; sliding far below, the sampler can no longer follow.
        self.log("gap", f_chains.mean() - f_data.mean(), prog_bar=True)
        return loss + self.hparams.hinge * self.margins(f_data, f_chains)

    def margins(self, f_data: Tensor, f_chains: Tensor) -> Tensor:
        """Squared hinge on f on the wrong side of m_in and m_out (Liu et al., 2020, there for E = -f)."""
        too_unlikely, too_likely = F.relu(self.hparams.m_in - f_data), F.relu(f_chains - self.hparams.m_out)
        return (too_unlikely**2).mean() + (too_likely**2).mean()

    def pyx_step(self, batch: list) -> Tensor:
        """The loss of log q(y|x), a scalar: cross-entropy of the classifier. batch: x (B, …), y (B,)."""
        x, y = batch
        if self.training and self.hparams.augment:
            x = random_affine(x)
        return F.cross_entropy(self.get_logits(x), y)

    def warmup_step(self, batch: list) -> Tensor:
        """The classifier first, its energies already small: it gives the chains a landscape to follow."""
        x, y = batch
        loss = self.pyx_step(batch)
        self.log("loss_pyx", loss, prog_bar=True)
        return loss + self.hparams.lmbd * self.hparams.alpha * (self.cnn(x, y) ** 2).mean()

    def training_step(self, batch: list, batch_idx: int) -> Tensor:
        """The loss of one batch: -log q(y|x) - lmbd · log q(x), a scalar."""
        if self.current_epoch < self.hparams.warmup_epochs:
            return self.warmup_step(batch)
        loss_pyx = self.pyx_step(batch)
        loss_px = self.px_step(batch, self.hparams.ccond_sample)
        self.log("loss_pyx", loss_pyx, prog_bar=True)
        self.log("loss_px", loss_px, prog_bar=True)
        return loss_pyx + self.hparams.lmbd * loss_px

    def validation_step(self, batch: list, batch_idx: int, dataset_idx: int | None = None) -> None:
        """Logs `val_contrastive_divergence` and `val_MulticlassAveragePrecision`."""
        x, y = batch
        if batch_idx == 0:
            labels = y if self.hparams.ccond_sample else None
            samples = self.sampler.synthesize_samples(labels, self.hparams.steps, self.step_size)
            with torch.no_grad():
                divergence = self.cnn(samples, labels).mean() - self.cnn(x, labels).mean()
            self.log("val_contrastive_divergence", divergence)
        with torch.no_grad():
            logits = self.get_logits(x)
        self.average_precision.update(logits, y)
        self.log("val_MulticlassAveragePrecision", self.average_precision)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["sampler_buffer"] = to_plain(getattr(self.sampler, "buffer", None))

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        buffer = checkpoint["sampler_buffer"]
        if isinstance(getattr(self.sampler, "buffer", None), deque):
            buffer = deque(buffer, self.sampler.buffer.maxlen)
        self.sampler.buffer = buffer


def load_model(ckpt_path: str | Path) -> JEM:
    """The trained model of a checkpoint, on the best device; InputError where the file is not one."""
    try:
        checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
        model = JEM(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
        model.on_load_checkpoint(checkpoint)
    except FileNotFoundError:
        raise InputError(f"There is no checkpoint {ckpt_path}: train first, or name one with --ckpt_path.") from None
    except (pickle.UnpicklingError, OSError, EOFError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{ckpt_path} is not a checkpoint of this model ({type(error).__name__}: {reason}).") from None
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def per_image(model: JEM, dataset: TransformTensorDataset, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function(x)` of all images, in batches on the model's device; the result on the CPU."""
    return torch.cat([function(x.to(model.device)).cpu() for x, _ in DataLoader(dataset, batch_size=256)])


def draw_chains(model: JEM) -> Tensor:
    """The chains of the training, one per class if they have classes, a few steps on."""
    labels = torch.arange(model.hparams.num_classes) if model.hparams.ccond_sample else None
    return model.sampler.synthesize_samples(labels, model.hparams.steps, model.step_size).cpu()


def run_training(args: argparse.Namespace) -> Path:
    """Train, or go on from the checkpoint `args.resume`; returns the path of the last checkpoint."""
    pl.seed_everything(args.seed, verbose=False)
    data = get_datasets(args.data_dir)
    num_classes = 1 + max(int(data[split].tensors[1].max()) for split in ("train", "val", "test"))
    if args.resume:
        model = load_model(args.resume)
        if model.hparams.num_classes != num_classes:
            raise InputError(f"{args.resume} has {model.hparams.num_classes} classes, {args.data_dir} {num_classes}.")
    else:
        model = JEM(tuple(data["train"][0][0].shape), num_classes=num_classes, **args.hyperparameters)
    return fit(
        model,
        DataLoader(data["train"], model.hparams.batch_size, shuffle=True),
        DataLoader(data["val"], model.hparams.batch_size),
        out=args.out,
        epochs=args.epochs,
        resume=args.resume,
        callbacks=[DivergenceRollback("gap", low=LOST_GAP), SamplePictures(draw_chains, args.out / "samples")],
        limit_train_batches=args.train_batches,
        gradient_clip_val=args.clip,
        precision=args.precision,
    )


def run_evaluation(args: argparse.Namespace, ckpt_path: str | Path) -> dict[str, float]:
    """The classifier on the test images: prints and returns `accuracy` and (macro) `average_precision`."""
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
    """`count` new images, every step of them: (steps, count, C, H, W). labels: (count,), or None."""
    settings = model.hparams
    sampler = MCMCSampler(model.cnn, settings.img_shape, count, settings.num_classes, settings.cbuffer_size)
    return sampler.synthesize_samples(labels, steps, model.step_size, return_img_per_step=True)


def draw_generation(
    chains: Tensor, titles: list | None = None, rows: int = 6, columns: int = 9
) -> tuple[Figure, Figure]:
    """From chains (steps, count, C, H, W): some chains over the steps, and a sheet of all last images."""
    chains = chains.detach().cpu()
    total = len(chains)
    shown = np.unique(np.geomspace(total, 1, columns).round().astype(int))
    names = None if titles is None else titles[:rows]
    strip = plots.generation_strip(chains[shown - 1, :rows], shown.tolist(), names)
    sheet = plots.sample_sheet(chains[-1], titles)
    return strip, sheet


def run_generation(args: argparse.Namespace, ckpt_path: str | Path, conditional: bool = False) -> Tensor:
    """New images from Gaussian noise, (count, C, H, W); writes generation.png and samples.png."""
    pl.seed_everything(args.seed, verbose=False)
    model = load_model(ckpt_path)
    labels = torch.arange(args.count) % model.hparams.num_classes if conditional else None
    chains = generate_images(model, labels, args.count, args.mixing)
    strip, sheet = draw_generation(chains, None if labels is None else labels.tolist())
    for figure, name in (strip, "generation.png"), (sheet, "samples.png"):
        print(f"wrote {plots.save(figure, args.out / name)}")
    return chains[-1].cpu()


def run_ood_analysis(args: argparse.Namespace, ckpt_path: str | Path) -> dict[str, dict[str, dict[str, float]]]:
    """How well each score tells the OOD sets from the test images: prints, returns score -> set -> metrics.

    Scores are unconditional: an OOD image has no class. The histogram's threshold comes from the val images.
    """
    model = load_model(ckpt_path)
    data = get_datasets(args.data_dir)
    results, groups = {}, {}
    print("score  OOD set    AUROC    AUPR   FPR95")
    for name in SCORES:
        scores = {
            split: per_image(model, data[split], lambda x, name=name: score_fn(model, x, score=name)).numpy()
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
    """The command line: see `python ex_main.py --help`, and `python ex_main.py train --help`."""
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
