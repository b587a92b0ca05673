"""The quality of the models of `jem`: classification, detection of outliers, and samples; trained on one thread.

`python -m benchmarks.jem_quality glyphs --model conditional --seeds 0 1` trains what is missing, measures it, adds the
results to benchmarks/jem_quality.json, and writes the tables of docs/results.md. Every run is kept in build/jem, and an
interrupted one continues. `--epochs` measures a run after fewer epochs. Without arguments, only the tables are written.

Settings were chosen on the validation images only. The score that detects outliers was fixed in advance: z(energy) +
z(entropy of the classifier), each standardised on the validation images.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import multiclass_calibration_error

from ebmcourse import plots
from ebmcourse.sampling import FastSampler, langevin, native_dtype
from ebmcourse.training import BestCheckpoint, DivergenceRollback, WeightAverage, diversity, fit, frechet_distance

sys.path.insert(0, str(Path(__file__).parents[1] / "solutions" / "jem"))
import ex_cli
import ex_main
from ex_data import TransformTensorDataset, get_datasets
from ex_ood import ood_metrics

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE, RUNS = ROOT / "benchmarks" / "jem_quality.json", ROOT / "docs" / "results.md", ROOT / "build" / "jem"
SHARED = ROOT.parent / "shared" / "data"

JUDGE_SEED = 99
"""The cross-entropy network with this seed is the independent classifier that looks at the samples."""

CHAIN_STEPS = (0, 60, 512)
SAMPLE_STD = 0.3
"""The standard deviation of the noise from which the measured chains start.

From noise with START_STD, as in the training, the chains of a class are nearly equal, and so are their samples.
"""

# What differs from the preset `cpu`.
MODELS = {
    "cross-entropy": {"lmbd": 0.0, "ccond_sample": False, "warmup_epochs": 1000},
    "EBM": {"num_classes": 1, "ccond_sample": False, "warmup_epochs": 0, "cbuffer_size": 256},
    "unconditional": {"ccond_sample": False, "cbuffer_size": 256},
    "conditional": {},
}
WITH_BEST = ("unconditional", "conditional")
"""The models of which the best checkpoint is measured; of the others, the last one."""

SETTINGS = {
    "glyphs": {},
    "embedded": {},
    "mnist": {"epochs": 3, "warmup_epochs": 2, "lr_stepsize": 2, "step_size": 3.0, "step_size_decay": 1.0},
}
TITLES = {"glyphs": "Real glyphs", "embedded": "Embedded glyphs", "mnist": "MNIST, 28×28"}


def read_idx(path: Path) -> Tensor:
    """Read a compressed IDX file of bytes."""
    with gzip.open(path) as file:
        data = file.read()
    sizes = np.frombuffer(data, ">i4", data[3], offset=4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes).copy())


def scaled(images: Tensor) -> Tensor:
    """Convert bytes (N, H, W) to (N, 1, H, W) in [-1, 1]."""
    return images[:, None].float() / 127.5 - 1


def load(name: str) -> tuple[dict[str, TransformTensorDataset], dict[str, Tensor]]:
    """Return the splits `train`, `val` and `test`, and the OOD sets by name."""
    if name == "mnist":
        images, labels = (
            [read_idx(SHARED / "MNIST" / "raw" / f"{part}-{kind}-ubyte.gz") for part in ("train", "t10k")]
            for kind in ("images-idx3", "labels-idx1")
        )
        parts = {"train": slice(0, 55_000), "val": slice(55_000, None)}
        data = {
            split: TransformTensorDataset(scaled(images[0][part]), labels[0][part].long())
            for split, part in parts.items()
        }
        data["test"] = TransformTensorDataset(scaled(images[1]), labels[1].long())
        files = {"KMNIST": "kmnist_test", "notMNIST": "notmnist_t10k", "Omniglot": "omniglot_small1"}
        ood = {
            title: scaled(torch.from_numpy(np.load(next((SHARED / "ood").glob(f"{file}*.npz")))["images"]))
            for title, file in files.items()
        }
    else:
        data = get_datasets(SHARED / "GLYPHS" if name == "glyphs" else ROOT / "data" / "glyphs")
        ood = {"OOD A": data.pop("ood_ta").tensors[0], "OOD B": data.pop("ood_tb").tensors[0]}
    noise = torch.Generator().manual_seed(0)
    ood["noise"] = 2 * torch.rand(2000, *data["train"][0][0].shape, generator=noise) - 1
    return data, ood


def folder(name: str, model: str, seed: int) -> Path:
    return RUNS / name / f"{model}-{seed}"


class Clock(Callback):
    """Keeps the CPU time of a training in its checkpoints, so that it includes the time before an interruption."""

    def __init__(self) -> None:
        self.before, self.start = 0.0, time.process_time()

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.before + time.process_time() - self.start}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.before = state_dict["seconds"]


def history(checkpoint: Path) -> dict:
    """Return what a checkpoint says about its training; the CPU time is None if it is not known."""
    if not checkpoint.exists():
        return {"epochs": 0}
    saved = torch.load(checkpoint, weights_only=True)
    callbacks = saved["callbacks"]
    return {
        "epochs": saved["loops"]["fit_loop"]["epoch_progress"]["total"]["processed"],
        "steps": saved["global_step"],
        "best_epoch": callbacks.get("BestCheckpoint", {}).get("epoch"),
        "divergences": callbacks["DivergenceRollback"]["rollbacks"],
        "cpu_seconds": callbacks.get("Clock", {}).get("seconds"),
    }


def train(
    name: str, model: str, seed: int, data: dict[str, TransformTensorDataset], epochs: int | None = None
) -> ex_main.JEM:
    """Train a model as `ex_main.run_training` does, or continue an interrupted run, or load a finished one."""
    options = ex_cli.PRESETS["cpu"] | SETTINGS[name] | MODELS[model]
    epochs = epochs or options["epochs"]
    out = folder(name, model, seed)
    last = out / "last.ckpt"
    if history(last)["epochs"] < epochs:
        torch.manual_seed(seed)
        hyperparameters = {
            key: value
            for key, value in options.items()
            if key not in ("epochs", "train_batches", "fast_sampler", "num_classes", "precision", "clip")
        }
        classes = options.get("num_classes", 1 + int(data["train"].tensors[1].max()))
        shape = tuple(data["train"][0][0].shape)
        batch = hyperparameters.setdefault("batch_size", 32)
        module = ex_main.JEM(shape, num_classes=classes, **hyperparameters)
        module.sampler = FastSampler(module.cnn, shape, batch, classes, module.hparams.cbuffer_size)
        train_set = data["train"]
        if classes == 1:
            train_set = TransformTensorDataset(train_set.tensors[0], torch.zeros_like(train_set.tensors[1]))
        rollback = DivergenceRollback("gap", low=ex_main.LOST_GAP, classifier="loss_pyx", energy_weight="lmbd")
        best = BestCheckpoint(out / "best.ckpt", lambda trained: ex_main.measure_quality(trained, data["val"]))
        fit(
            module,
            DataLoader(train_set, batch, shuffle=True),
            DataLoader(data["val"], 256),
            out=out,
            epochs=epochs,
            resume=last if last.exists() else None,
            callbacks=[rollback, Clock(), WeightAverage(), best] if model in WITH_BEST else [rollback, Clock()],
            limit_train_batches=options.get("train_batches"),
            limit_val_batches=0 if classes == 1 else None,
            gradient_clip_val=options["clip"],
            precision="bf16-mixed" if native_dtype(torch.device("cpu")) == torch.bfloat16 else "32-true",
        )
    return ex_main.load_model(out / ("best.ckpt" if model in WITH_BEST else "last.ckpt"))


@torch.no_grad()
def logits_of(model: ex_main.JEM, images: Tensor) -> Tensor:
    return torch.cat([model.get_logits(x) for x in images.split(256)])


def scores_of(logits: Tensor) -> dict[str, Tensor]:
    """Return the scores of images with these logits, (N,) each; larger for outliers."""
    log_probabilities = logits.log_softmax(dim=1)
    scores = {"energy": -logits.logsumexp(dim=1), "max softmax": -log_probabilities.amax(dim=1).exp()}
    return scores | {"entropy": -(log_probabilities.exp() * log_probabilities).sum(dim=1)}


def with_fixed_score(scores: dict[str, Tensor], on_val: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace the entropy by the score that was fixed in advance, z(energy) + z(entropy)."""
    z = {name: (scores[name] - on_val[name].mean()) / on_val[name].std() for name in ("energy", "entropy")}
    return {"z(energy) + z(entropy)": z["energy"] + z["entropy"]} | {
        name: scores[name] for name in ("energy", "max softmax")
    }


def classification(logits: Tensor, y: Tensor) -> dict[str, float]:
    accuracy = (logits.argmax(dim=1) == y).float().mean().item()
    ece = multiclass_calibration_error(logits.softmax(dim=1), y, num_classes=logits.shape[1], n_bins=15)
    return {"accuracy": accuracy, "ece": ece.item()}


def detection(model: ex_main.JEM, data: dict[str, TransformTensorDataset], ood: dict[str, Tensor]) -> dict:
    """Return score -> OOD set -> metrics."""
    held_out = scores_of(logits_of(model, data["val"].tensors[0]))
    inside = with_fixed_score(scores_of(logits_of(model, data["test"].tensors[0])), held_out)
    outside = {name: with_fixed_score(scores_of(logits_of(model, x)), held_out) for name, x in ood.items()}
    if model.hparams.num_classes == 1:  # the entropy of one class is 0
        inside = {"energy": inside["energy"]}
    return {
        score: {name: ood_metrics(values, scores[score]) for name, scores in outside.items()}
        for score, values in inside.items()
    }


@torch.no_grad()
def features_of(judge: ex_main.JEM, images: Tensor) -> Tensor:
    """Return the last features of the classifier, (N, D)."""
    return torch.cat([judge.cnn.cnn_layers(x).mean(dim=(2, 3)) for x in images.split(256)])


def sample_measures(judge: ex_main.JEM, images: Tensor, y: Tensor, test: TransformTensorDataset) -> dict[str, float]:
    """Compare images with the test images in the features of an independent classifier.

    The diversity is relative to real images of the same classes. `agreement` is the part of the images that this
    classifier assigns to the classes from which they were drawn.
    """
    of_real, real_y = features_of(judge, test.tensors[0]), test.tensors[1]
    ours = features_of(judge, images)
    agreement = (logits_of(judge, images).argmax(dim=1) == y).float().mean().item()
    relative = diversity(ours, y) / diversity(of_real, real_y)
    return {"agreement": agreement, "frechet": frechet_distance(ours, of_real), "diversity": relative}


def draw_samples(model: ex_main.JEM, labels: Tensor, seed: int) -> dict[int, Tensor]:
    """Draw chains from Gaussian starts; returns them after each number of steps of CHAIN_STEPS."""
    torch.manual_seed(seed)
    x = SAMPLE_STD * torch.randn(len(labels), *model.hparams.img_shape)
    asked = labels if model.hparams.ccond_sample else None
    chains, done = {}, 0
    for steps in CHAIN_STEPS:
        x = langevin(model.cnn, x, asked, steps - done, model.step_size)
        chains[steps], done = x, steps
    return chains


def samples(model: ex_main.JEM, judge: ex_main.JEM, test: TransformTensorDataset, count: int, out: Path) -> dict:
    """Measure chains of `count` images per class, and as many real images as a control; draws a sheet."""
    labels = torch.arange(judge.hparams.num_classes).repeat(count)
    chains = draw_samples(model, labels, seed=1)
    if not model.hparams.ccond_sample:  # there is no class to agree with
        labels = logits_of(judge, chains[CHAIN_STEPS[-1]]).argmax(dim=1)
    results = {f"K = {steps}": sample_measures(judge, x, labels, test) for steps, x in chains.items()}
    shown = 2 * judge.hparams.num_classes if judge.hparams.num_classes > 20 else 60
    for steps, x in chains.items():
        plots.save(plots.sample_sheet(x[:shown]), out / f"samples_{steps}.png")
    pick = torch.cat([(test.tensors[1] == label).nonzero()[:count, 0] for label in range(judge.hparams.num_classes)])
    return results | {"real": sample_measures(judge, test.tensors[0][pick], test.tensors[1][pick], test)}


def measure(name: str, model: str, seed: int, count: int, epochs: int | None = None) -> dict:
    """Train and measure one model."""
    data, ood = load(name)
    trained = train(name, model, seed, data, epochs)
    out = folder(name, model, seed)
    result = {"data": name, "model": model, "seed": seed} | history(out / "last.ckpt")
    if model != "EBM":
        test = data["test"]
        result |= classification(logits_of(trained, test.tensors[0]), test.tensors[1])
    result["detection"] = detection(trained, data, ood)
    if model != "cross-entropy":
        judge = train(name, "cross-entropy", JUDGE_SEED, data, epochs)
        result["samples"] = samples(trained, judge, data["test"], count, out)
    return result


def spread(values: Iterable[float], factor: float = 1, digits: int = 3) -> str:
    """Format the mean, and with several seeds the standard deviation."""
    values = [factor * value for value in values]
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def tables(results: list[dict]) -> str:
    """The tables of docs/results.md."""
    lines = []
    for name in TITLES:
        groups = defaultdict(list)
        for result in results:
            if result["data"] == name:
                groups[result["model"]].append(result)
        if not groups:
            continue
        sets = list(next(iter(groups.values()))[0]["detection"]["energy"])
        lines += [
            f"#### {TITLES[name]}",
            "",
            "| model | seeds | epochs | CPU time [s] | accuracy [%] | ECE | divergences |",
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        for model, group in groups.items():
            known = "accuracy" in group[0]
            accuracy = spread((r["accuracy"] for r in group), 100, 2) if known else "–"
            ece = spread(r["ece"] for r in group) if known else "–"
            times = [r["cpu_seconds"] for r in group]
            seconds = "–" if None in times else spread(times, digits=0)
            epochs = " and ".join(str(count) for count in sorted({r["epochs"] for r in group}))
            failures = sum(r["divergences"] for r in group)
            lines.append(f"| {model} | {len(group)} | {epochs} | {seconds} | {accuracy} | {ece} | {failures} |")
        lines += ["", f"| model | score | {' | '.join(f'{s}: AUROC, AUPR, FPR95' for s in sets)} |"]
        lines += ["|---|---|" + "---|" * len(sets)]
        for model, group in groups.items():
            for score in group[0]["detection"]:
                cells = [
                    ", ".join(spread(r["detection"][score][s][m] for r in group) for m in ("auroc", "aupr", "fpr95"))
                    for s in sets
                ]
                lines.append(f"| {model} | {score} | {' | '.join(cells)} |")
        lines += ["", "| model | images | agreement [%] | Fréchet distance | diversity |", "|---|---|---|---|---|"]
        for model, group in groups.items():
            for kind in group[0].get("samples", ()):
                rows = [r["samples"][kind] for r in group]
                agreement = spread((row["agreement"] for row in rows), 100, 1)
                distances = [spread((row[key] for row in rows), digits=2) for key in ("frechet", "diversity")]
                lines.append(f"| {model} | {kind} | {agreement} | {' | '.join(distances)} |")
        lines.append("")
    return "\n".join(lines)


START, END = "### Tables of the models of `jem`\n", "## Grading\n"


def with_tables(page: str, results: list[dict]) -> str:
    """Return the page with new tables between the two headings."""
    before, rest = page.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n{tables(results)}\n{END}{after}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", nargs="?", choices=SETTINGS, help="data set")
    options.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS), help="models (default: all)")
    options.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds (default: 0)")
    options.add_argument("--count", type=int, default=10, help="chains per class that are measured (default: 10)")
    options.add_argument("--epochs", type=int, help="number of epochs (default: those of the settings)")
    given = options.parse_args()
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []
    for model in given.model if given.data else ():
        for seed in given.seeds:
            new = measure(given.data, model, seed, given.count, given.epochs)
            key = new["data"], new["model"], new["seed"]
            results = [r for r in results if (r["data"], r["model"], r["seed"]) != key] + [new]
            results.sort(key=lambda r: (list(SETTINGS).index(r["data"]), list(MODELS).index(r["model"]), r["seed"]))
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    PAGE.write_text(with_tables(PAGE.read_text("utf-8"), results), "utf-8", newline="\n")


if __name__ == "__main__":
    main()
