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
        self.buffer = None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters(), torch.empty(0)).device

    def initial_chains(self, clabel: Tensor | None) -> tuple[Tensor, object]:
        """Where the chains start: (x (B, C, H, W) on the model's device, place).

        `place` is whatever `store` needs to know to write these chains back. B is len(clabel), or
        `sample_size`.
        """
        ### BEGIN SOLUTION 3.3a
        # TODO Return the start (B, C, H, W) of every chain, and the place in the buffer where it belongs.
        # About 5 % (FRESH_SHARE) start fresh from a Gaussian with mean 0 and standard deviation START_STD;
        # the others go on from a random chain of the buffer, of their own class where `clabel` (B,) is given.
        # Where the buffer has no such chain yet, start fresh. Choose the data structure self.buffer: at most
        # cbuffer_size chains per class, and a place of its own for chains without a class.
        if self.buffer is None:
            # Row c holds the chains of class c, the last row those without a class; NaN marks an empty slot.
            self.buffer = torch.full((self.num_classes + 1, self.cbuffer_size, *self.img_shape), torch.nan)
        self.buffer = self.buffer.to(self.device)
        rows = clabel
        if rows is None:
            rows = torch.full((self.sample_size,), self.num_classes, device=self.device)
        columns = torch.randint(self.cbuffer_size, rows.shape, device=self.device)
        kept = self.buffer[rows, columns]
        fresh = START_STD * torch.randn_like(kept)
        starts_fresh = torch.rand(rows.shape, device=self.device) < FRESH_SHARE
        starts_fresh |= kept.flatten(1).isnan().any(dim=1)
        return torch.where(starts_fresh[:, None, None, None], fresh, kept), (rows, columns)
        ### END SOLUTION

    def store(self, x: Tensor, place: object) -> None:
        """Write the chains x (B, C, H, W) back to the buffer, which keeps its size."""
        ### BEGIN SOLUTION 3.3a
        # TODO Put the chains into the buffer; drop old ones where it would grow beyond its size.
        self.buffer[place] = x
        ### END SOLUTION

    @contextmanager
    def sampling_mode(self) -> Iterator[None]:
        """`with self.sampling_mode():` freezes the network: only the images get gradients inside."""
        ### BEGIN SOLUTION 3.3b
        # TODO Freeze the network, yield, and then give everything back exactly as it was, even after an
        # error. Inside: no parameter requires a gradient, the network is in eval mode, and gradients are
        # enabled (the caller may be inside torch.no_grad). Use try … yield … finally.
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
        """∂f/∂x at every image, clamped to ±GRADIENT_CLAMP: x (B, C, H, W) -> (B, C, H, W), detached."""
        ### BEGIN SOLUTION 3.3b
        # TODO Return the clamped gradient of f = -E with respect to the images, shape (B, C, H, W).
        # Evaluate self.model on x (and clabel), sum over the batch, and differentiate with respect to x.
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.model(x, clabel).sum(), x)
        return gradient.clamp(-GRADIENT_CLAMP, GRADIENT_CLAMP)
        ### END SOLUTION

    def update(self, x: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        """The chains after one SGLD step: (B, C, H, W), detached, inside IMG_RANGE."""
        ### BEGIN SOLUTION 3.3c
        # TODO Return x after one step towards higher likelihood, with noise, inside IMG_RANGE.
        # Move by step_size times the gradient of f, add Gaussian noise with standard deviation NOISE_STD, and
        # clip.
        return x.add_(gradient, alpha=step_size).add_(torch.randn_like(x), alpha=NOISE_STD).clamp_(*IMG_RANGE)
        ### END SOLUTION

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
        ### BEGIN SOLUTION 3.4a
        # TODO Compute f_data (B,), f_chains (B,), and from them the scalar `loss`.
        # Draw chains with the sampler, self.hparams.steps steps of size self.step_size: of the classes y if
        # ccond_sample, else without labels. f_data and f_chains are self.cnn's values (with the same labels)
        # of x and of the chains. Gradient descent on the loss must make data more likely and chains less
        # likely: the contrastive term is the difference of the two means. Add alpha times the L2 term: mean
        # of f² over the data plus mean of f² over the chains.
        labels = y if ccond_sample else None
        chains = self.sampler.synthesize_samples(labels, steps=self.hparams.steps, step_size=self.step_size)
        f_data, f_chains = self.cnn(x, labels), self.cnn(chains, labels)
        contrastive = f_chains.mean() - f_data.mean()
        loss = contrastive + self.hparams.alpha * (f_data.square().mean() + f_chains.square().mean())
        ### END SOLUTION
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
        ### BEGIN SOLUTION 3.4b
        # TODO Return the cross-entropy between the network's logits of x and the classes y, a scalar.
        return F.cross_entropy(self.cnn.get_logits(x), y)
        ### END SOLUTION

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
        ### BEGIN SOLUTION 3.4c
        # TODO Return the joint loss: pyx_step plus self.hparams.lmbd times px_step, a scalar.
        # Whether the chains are class-conditional is the hyperparameter ccond_sample. Log the parts with
        # self.log.
        loss_pyx = self.pyx_step(batch)
        loss_px = self.px_step(batch, ccond_sample=self.hparams.ccond_sample)
        self.log_dict({"loss_pyx": loss_pyx, "loss_px": loss_px}, prog_bar=True)
        return loss_pyx + self.hparams.lmbd * loss_px
        ### END SOLUTION

    def validation_step(self, batch: list, batch_idx: int, dataset_idx: int | None = None) -> None:
        """Logs `val_contrastive_divergence` and `val_MulticlassAveragePrecision`."""
        x, y = batch
        ### BEGIN SOLUTION 3.4c
        # TODO Log "val_contrastive_divergence" and "val_MulticlassAveragePrecision" with self.log.
        # The first is mean f(chains) - mean f(x), as in training; sampling takes time, so the first batch
        # (batch_idx == 0) is enough. The second is self.average_precision, updated with every batch's logits
        # and y.
        self.average_precision.update(self.cnn.get_logits(x), y)
        self.log("val_MulticlassAveragePrecision", self.average_precision, prog_bar=True)
        if batch_idx == 0:
            labels = y if self.hparams.ccond_sample else None
            chains = self.sampler.synthesize_samples(labels, steps=self.hparams.steps, step_size=self.step_size)
            divergence = self.cnn(chains, labels).mean() - self.cnn(x, labels).mean()
            self.log("val_contrastive_divergence", divergence)
        ### END SOLUTION

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
    ### BEGIN SOLUTION 3.5a
    # TODO Return `count` long chains from Gaussian noise, with every step: (steps, count, C, H, W).
    # The buffer of model.sampler holds chains that ran during the whole training; a new MCMCSampler has none yet.
    shape, num_classes = model.hparams.img_shape, model.hparams.num_classes
    sampler = MCMCSampler(model.cnn, shape, count, num_classes, cbuffer_size=1)
    return sampler.synthesize_samples(labels, steps=steps, return_img_per_step=True)
    ### END SOLUTION


def draw_generation(
    chains: Tensor, titles: list | None = None, rows: int = 6, columns: int = 9
) -> tuple[Figure, Figure]:
    """From chains (steps, count, C, H, W): some chains over the steps, and a sheet of all last images."""
    ### BEGIN SOLUTION 3.5b
    # TODO Return two figures: some chains from their first to their last step, and all images after the last step.
    # See plots.generation_strip and plots.sample_sheet. Most happens early: show more of the first steps.
    shown = np.unique(np.geomspace(1, len(chains), columns).round().astype(int))
    strip = plots.generation_strip(chains[shown - 1, :rows].cpu(), shown, titles and titles[:rows])
    return strip, plots.sample_sheet(chains[-1].cpu(), titles)
    ### END SOLUTION


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
