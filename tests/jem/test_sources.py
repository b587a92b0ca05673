"""The reference solution of `jem`, its given code, and the command line that students use."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ebmcourse import plots
from ebmcourse.training import DivergenceRollback, random_affine

sys.path.insert(0, str(Path(__file__).parents[2] / "solutions" / "jem"))

import ex_cli
import ex_data
import ex_main
import ex_ood
from ex_data import InputError, get_datasets, minmax
from ex_main import JEM, MCMCSampler
from ex_model import ShallowCNN

SHAPE = (1, 6, 5)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_the_network_reads_its_logits_in_three_ways():
    x, y = torch.randn(3, 1, 28, 40), torch.tensor([4, 0, 2])
    model = ShallowCNN(hidden_features=4, num_classes=5, unknown_option=1)
    logits = model.get_logits(x)
    assert logits.shape == (3, 5)
    torch.testing.assert_close(model(x), logits.exp().sum(dim=1).log())
    torch.testing.assert_close(model(x, y), torch.stack([logits[0, 4], logits[1, 0], logits[2, 2]]))
    ebm = ShallowCNN(hidden_features=4, num_classes=1)
    torch.testing.assert_close(ebm(x), ebm.get_logits(x)[:, 0])


def test_the_network_has_the_size_of_the_exercise():
    channels = [
        (layer.in_channels, layer.out_channels) for layer in ShallowCNN().cnn_layers if hasattr(layer, "stride")
    ]
    assert channels == [(1, 32), (32, 64), (64, 128), (128, 128), (128, 128)]
    assert ShallowCNN().cnn_layers(torch.zeros(1, 1, 56, 56)).shape == (1, 128, 2, 2)


class Attractor(nn.Module):
    """f(x, y) = -½‖x - target[y]‖²: gradients pull every pixel to the target of the class."""

    def __init__(self, targets):
        super().__init__()
        self.targets = nn.Parameter(torch.tensor(targets))
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.inside = nn.Dropout().eval()
        self.seen = []

    def forward(self, x, y=None):
        self.seen.append((self.targets.requires_grad, self.training, self.inside.training, torch.is_grad_enabled()))
        target = self.targets[-1] if y is None else self.targets[y][:, None, None, None]
        return -0.5 * (x - target).square().flatten(1).sum(dim=1)


def test_one_step_climbs_the_clamped_gradient_inside_the_image_range(monkeypatch):
    monkeypatch.setattr(ex_main, "NOISE_STD", 0.0)
    sampler = MCMCSampler(Attractor([0.011, 5.0]), SHAPE, 4, 2)
    starts, _ = sampler.initial_chains(torch.tensor([0, 1, 1]))
    gradient = sampler.gradient(starts, torch.tensor([0, 1, 1]))
    moved = sampler.update(starts.clone(), gradient, 10)
    expected = starts + 10 * (torch.tensor([0.011, 5, 5])[:, None, None, None] - starts).clamp(-0.03, 0.03)
    torch.testing.assert_close(moved, expected.clamp(-1, 1))
    assert sampler.synthesize_samples(torch.ones(3, dtype=torch.long), steps=9).amax() == 1


def test_noise_and_fresh_chains_have_the_spread_of_the_exercise():
    flat = Attractor([0.0])
    flat.forward = lambda x, y=None: 0 * x.flatten(1).sum(dim=1)
    starts = MCMCSampler(flat, (1, 20, 20), 200, 1, cbuffer_size=1000).synthesize_samples(steps=0)
    # 80,000 numbers: the standard deviation of their spread is 0.25 %
    assert starts.std().item() == pytest.approx(0.01, rel=0.02)
    moved = MCMCSampler(flat, (1, 20, 20), 200, 1).synthesize_samples(steps=16)
    assert moved.std().item() == pytest.approx((0.01**2 + 16 * 0.005**2) ** 0.5, rel=0.02)


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 1])], ids=["unconditional", "conditional"])
def test_samples_are_detached_and_every_step_can_be_seen(labels):
    sampler = MCMCSampler(Attractor([0.5, -0.5]), SHAPE, 3, 2)
    x = sampler.synthesize_samples(labels, steps=4)
    assert x.shape == (3, *SHAPE) and not x.requires_grad and x.grad_fn is None
    steps = sampler.synthesize_samples(labels, steps=4, step_size=1, return_img_per_step=True)
    assert steps.shape == (4, 3, *SHAPE) and not steps.requires_grad
    jumps = steps.diff(dim=0).abs().amax()
    assert 0.005 < jumps < 0.03 + 6 * 0.005  # one clamped step of size 1 and noise below six deviations
    assert sampler.model.targets.grad is None


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_frozen_while_sampling_and_given_back_as_it_was(fails):
    model = Attractor([0.5])
    model.train()
    model.inside.eval()
    sampler = MCMCSampler(model, SHAPE, 2, 1)
    if fails:
        model.inside.register_forward_hook(lambda *_: 1 / 0)
        forward = model.forward
        model.forward = lambda x, y=None: forward(x, y) + model.inside(x).sum()
    with torch.no_grad():
        if fails:
            with pytest.raises(ZeroDivisionError):
                sampler.synthesize_samples(steps=2)
        else:
            sampler.synthesize_samples(steps=2)
        assert not torch.is_grad_enabled()
    assert set(model.seen) == {(False, False, False, True)}
    assert model.training and not model.inside.training
    assert model.targets.requires_grad and not model.frozen.requires_grad


def test_the_buffer_lives_across_calls_keeps_its_size_and_lets_few_chains_start_fresh():
    sampler = MCMCSampler(Attractor([1.0]), (1, 1, 1), 500, 1, cbuffer_size=300)
    for _ in range(4):
        sampler.synthesize_samples(steps=5)
    size = sampler.buffer.shape
    starts = sampler.synthesize_samples(steps=0).flatten()
    assert sampler.buffer.shape == size and sampler.buffer.shape[1] == 300
    fresh = (starts < 0.5).float().mean().item()
    # Every slot has been drawn about seven times and stands at 1; four standard deviations of a share of 500
    assert fresh == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 500) ** 0.5)


def test_chains_go_on_from_chains_of_their_own_class():
    sampler = MCMCSampler(Attractor([1.0, -1.0, 0.4]), (1, 2, 2), 50, 2, cbuffer_size=8)
    labels = torch.arange(100) % 2
    for _ in range(3):
        sampler.synthesize_samples(labels, steps=10)
        sampler.synthesize_samples(steps=10)
    starts = sampler.synthesize_samples(labels, steps=0).mean(dim=(1, 2, 3))
    assert starts[labels == 0].min() > -0.1 and starts[labels == 0].median() > 0.9
    assert starts[labels == 1].max() < 0.1 and starts[labels == 1].median() < -0.9
    # Steps of 0.3 overshoot a target inside the range by up to 0.3
    assert sampler.synthesize_samples(steps=0).median().item() == pytest.approx(0.4, abs=0.35)


def test_a_chain_that_became_nan_starts_afresh():
    sampler = MCMCSampler(Attractor([1.0]), SHAPE, 8, 1, cbuffer_size=2)
    sampler.synthesize_samples(steps=1)
    sampler.buffer.fill_(torch.nan)
    assert sampler.synthesize_samples(steps=1).isfinite().all()


def small_jem(**options):
    options = {"hidden_features": 2, "cbuffer_size": 3, "steps": 2, "lmbd": 0.3, "alpha": 0.2} | options
    return JEM((1, 16, 16), batch_size=4, num_classes=3, **options)


class StandIn:
    """Answers a call, or `synthesize_samples`, with given values, and remembers what it was asked."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def __call__(self, x, y=None):
        self.asked.append(y)
        return self.answers["chains" if x.mean() > 5 else "data"]

    def synthesize_samples(self, clabel=None, **how):
        self.asked.append((clabel, how))
        return torch.full((2, 1, 16, 16), 9.0)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("hinge", [0.0, 0.7])
def test_px_step_is_contrastive_divergence_with_l2_and_optional_hinge(conditional, hinge, monkeypatch):
    jem = small_jem(hinge=hinge, m_in=1, m_out=-4, step_size_decay=0.5)
    batch = torch.zeros(2, 1, 16, 16), torch.tensor([2, 0])
    cnn = StandIn(data=torch.tensor([1.0, -3.0]), chains=torch.tensor([5.0, -5.0]))
    jem._modules["cnn"], jem.sampler = cnn, StandIn()
    monkeypatch.setattr(JEM, "current_epoch", 2)
    monkeypatch.setattr(jem, "log", lambda *_, **__: None)
    contrastive, l2 = 0 - (-1), (1 + 9) / 2 + (25 + 25) / 2
    margins = (0 + 4**2) / 2 + (9**2 + 0) / 2
    assert jem.px_step(batch, conditional).item() == pytest.approx(contrastive + 0.2 * l2 + hinge * margins)
    ((clabel, how),) = jem.sampler.asked
    assert how == {"steps": 2, "step_size": 2.5}
    assert (clabel is batch[1]) == conditional and all((y is batch[1]) == conditional for y in cnn.asked)


def test_the_step_joins_both_losses_and_the_warm_start_leaves_sampling_out(monkeypatch):
    jem, batch = (
        small_jem(ccond_sample=True, warmup_epochs=1),
        (torch.randn(4, 1, 16, 16), torch.tensor([0, 1, 2, 1])),
    )
    monkeypatch.setattr(jem, "log", lambda *_, **__: None)
    monkeypatch.setattr(jem, "log_dict", lambda *_, **__: None)
    cross_entropy = -jem.cnn.get_logits(batch[0]).log_softmax(dim=1)[range(4), batch[1]].mean()
    penalty = jem.cnn(*batch).square().mean()
    torch.testing.assert_close(jem.training_step(batch, 0), cross_entropy + 0.3 * 0.2 * penalty)
    assert jem.sampler.buffer is None
    monkeypatch.setattr(JEM, "current_epoch", 1)
    asked = []
    monkeypatch.setattr(jem, "px_step", lambda batch, ccond_sample: asked.append(ccond_sample) or torch.tensor(7.0))
    torch.testing.assert_close(jem.training_step(batch, 0), cross_entropy + 0.3 * 7)
    assert asked == [True]


def test_validation_logs_the_names_of_the_interface(monkeypatch):
    jem, logged = small_jem(ccond_sample=True).eval(), {}
    monkeypatch.setattr(jem, "log", lambda name, value, **_: logged.update({name: value}))
    batch = torch.randn(4, 1, 16, 16), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        jem.validation_step(batch, 0)
        chains = jem.sampler.buffer[jem.sampler.buffer.isfinite().flatten(2).all(dim=2)]
    assert set(logged) == {"val_contrastive_divergence", "val_MulticlassAveragePrecision"}
    assert chains.shape[0] in (3, 4)
    assert logged["val_contrastive_divergence"].isfinite()
    assert 0 < logged["val_MulticlassAveragePrecision"].compute() <= 1


def test_training_raises_data_above_chains():
    """The loss has the right sign, and parameters still learn after the sampler has frozen them."""
    jem = small_jem(ccond_sample=False, hidden_features=8)
    batch = torch.randn(4, 1, 16, 16).sign(), torch.tensor([0, 1, 2, 1])
    chains = jem.sampler.synthesize_samples(steps=20)
    (optimizer,), _ = jem.configure_optimizers()
    assert optimizer.defaults["betas"][0] == 0

    def gap():
        return (jem(batch[0]).mean() - jem(chains).mean()).item()

    before = gap()
    for _ in range(50):
        optimizer.zero_grad()
        jem.px_step(batch, ccond_sample=False).backward()
        optimizer.step()
    assert gap() > before


def test_unlabelled_images_have_no_class_conditional_energy():
    jem, x, y = small_jem(), torch.randn(2, 1, 16, 16), torch.tensor([1, -1])
    with pytest.raises(ValueError, match="unlabelled"):
        jem(x, y)
    for score in ex_ood.SCORES:
        with pytest.raises(ValueError, match="unlabelled"):
            ex_ood.score_fn(jem, x, y, score)


def test_hyperparameters_reach_network_and_optimiser():
    jem = small_jem(lr=0.5, lr_stepsize=2, lr_gamma=0.1)
    assert jem.cnn.head.out_features == 3 and jem.cnn.cnn_layers[0].out_channels == 2
    (optimizer,), (scheduler,) = jem.configure_optimizers()
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05])


@pytest.mark.parametrize("kind", ["tensor", "list", "dict", "deque"])
def test_a_checkpoint_holds_the_chains_whatever_keeps_them_and_no_code(kind, tmp_path):
    jem = small_jem()
    chains = torch.randn(3, *SHAPE)
    buffers = {"tensor": chains, "list": list(chains), "dict": {0: chains}, "deque": deque(chains, maxlen=3)}
    jem.sampler.buffer = buffers[kind]
    trainer = pl.Trainer(max_epochs=0, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    loader = DataLoader(TensorDataset(torch.randn(4, 1, 16, 16), torch.arange(4) % 3), batch_size=4)
    trainer.fit(jem, loader)
    trainer.save_checkpoint(tmp_path / "jem.ckpt")
    torch.load(tmp_path / "jem.ckpt", weights_only=True)
    resumed = ex_main.load_model(tmp_path / "jem.ckpt")
    torch.testing.assert_close(resumed.cnn.state_dict(), jem.cnn.state_dict())
    assert dict(resumed.hparams) == dict(jem.hparams)
    found = resumed.sampler.buffer
    torch.testing.assert_close(
        torch.stack(list(found)) if kind in ("list", "deque") else found,
        buffers[kind] if kind in ("tensor", "dict") else chains,
    )

    resumed.sampler.buffer = deque(maxlen=3)
    checkpoint: dict = {}
    jem.on_save_checkpoint(checkpoint)
    if kind == "deque":
        resumed.on_load_checkpoint(checkpoint)
        assert isinstance(resumed.sampler.buffer, deque) and resumed.sampler.buffer.maxlen == 3


def numeric_gradient(function, x, width=1e-3):
    gradient = torch.zeros_like(x)
    for index in itertools.product(*map(range, x.shape)):
        step = torch.zeros_like(x)
        step[index] = width
        gradient[index] = (function(x + step) - function(x - step)) / (2 * width)
    return gradient


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 2])], ids=["unconditional", "conditional"])
def test_grad_norm_is_the_norm_of_the_gradient_at_the_image(labels):
    model = ShallowCNN(hidden_features=2, num_classes=3).double()
    x = torch.randn(2, 1, 5, 6, dtype=torch.double)
    with torch.no_grad():
        norm = ex_ood.grad_norm(model, x, labels)
        gradients = numeric_gradient(lambda z: model(z, labels).sum(), x)
    torch.testing.assert_close(norm, gradients.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-8)
    assert not norm.requires_grad and not x.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scores_are_larger_for_outliers():
    model, x, y = (
        ShallowCNN(hidden_features=2, num_classes=3),
        torch.randn(4, 1, 16, 16),
        torch.tensor([0, 1, 2, 1]),
    )
    logits = model.get_logits(x).detach()
    torch.testing.assert_close(ex_ood.score_fn(model, x), -logits.logsumexp(dim=1))
    torch.testing.assert_close(ex_ood.score_fn(model, x, y), -logits[range(4), y])
    torch.testing.assert_close(ex_ood.score_fn(model, x, score="py"), -logits.softmax(dim=1).max(dim=1).values)
    torch.testing.assert_close(ex_ood.score_fn(model, x, score="mass"), ex_ood.grad_norm(model, x))
    with pytest.raises(ValueError, match="px, py, mass"):
        ex_ood.score_fn(model, x, score="energy")


few_values = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=25)


@settings(deadline=None)
@given(few_values, few_values)
def test_ood_metrics_are_what_they_say(inside, outside):
    metrics = ex_ood.ood_metrics(inside, torch.tensor(outside))
    wins = np.mean([(o > i) + 0.5 * (o == i) for o in outside for i in inside])
    assert metrics["auroc"] == pytest.approx(wins)
    thresholds = [t for t in outside if np.mean(np.array(outside) >= t) >= 0.95]
    assert metrics["fpr95"] == pytest.approx(min(np.mean(np.array(inside) >= t) for t in thresholds))
    area, found = 0.0, 0.0
    for threshold in sorted(set(inside + outside), reverse=True):
        hits, false_alarms = sum(o >= threshold for o in outside), sum(i >= threshold for i in inside)
        area += (hits / len(outside) - found) * hits / (hits + false_alarms)
        found = hits / len(outside)
    assert metrics["aupr"] == pytest.approx(area)


def test_histograms_share_their_bins_and_the_threshold_accepts_its_share():
    groups = {"test": torch.randn(200).numpy(), "ood": torch.randn(50).numpy() + 3}
    edges, densities = ex_ood.score_histogram(groups, bins=20)
    assert len(edges) == 21 and edges[0] == min(map(np.min, groups.values())) and edges[-1] == groups["ood"].max()
    for name, density in densities.items():
        counts = [((groups[name] >= a) & (groups[name] < b)).sum() for a, b in itertools.pairwise(edges)]
        counts[-1] += (groups[name] == edges[-1]).sum()
        np.testing.assert_allclose(density * np.diff(edges) * len(groups[name]), counts, atol=1e-4)
    threshold = ex_ood.energy_threshold(groups["test"], 0.9)
    assert isinstance(threshold, float) and (groups["test"] <= threshold).mean() == pytest.approx(0.9, abs=1 / 200)


def draw_glyphs(rng, classes, count, height=56, width=56):
    """Dark strokes on light paper; the class decides where they stand."""
    y = np.arange(count) % classes
    x = rng.integers(200, 256, (count, height, width), dtype=np.uint8)
    for image, c in zip(x, y, strict=True):
        image[5 + 5 * c : 10 + 5 * c, 8:-8] = 20
        image[8:-8, 10 + 4 * c : 14 + 4 * c] = 20
    return x, y.astype(np.int64)


def write_data(folder, classes=4, count=64, **shape):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split in ex_data.LABELLED_SPLITS:
        with (folder / f"{split}.npy").open("wb") as file:
            for array in draw_glyphs(rng, classes, count, **shape):
                np.save(file, array)
    for split in ex_data.OOD_SPLITS:
        np.save(folder / f"{split}.npy", 255 - draw_glyphs(rng, classes, count // 2, **shape)[0])
    return folder


def test_data_become_squares_between_minus_one_and_one(tmp_path):
    data = get_datasets(write_data(tmp_path / "data", count=12))
    assert list(data) == ["train", "val", "test", "ood_ta", "ood_tb"] and len(data["ood_ta"]) == 6
    x, y = data["train"][5]
    assert x.shape == (1, 56, 56) and x.dtype == torch.float32 and x.min() == -1 and x.max() == 1 and y == 1
    assert x[0, 12, 20] == -1  # ink stays dark
    assert data["ood_tb"][0][1] == -1
    doubled = ex_data.TransformTensorDataset(torch.ones(2, 3), transform=lambda x: 2 * x)
    assert doubled[1][0].tolist() == [2, 2, 2] and doubled[1][1] == -1


REAL_GLYPHS = Path(__file__).parents[3] / "shared" / "data" / "GLYPHS"


@pytest.mark.skipif(
    not REAL_GLYPHS.is_dir(), reason="the real glyphs lie beside the repository, in ../shared/data/GLYPHS"
)
def test_real_glyphs_arrive_as_in_the_files():
    data = get_datasets(REAL_GLYPHS)
    assert [len(dataset) for dataset in data.values()] == [11319, 2426, 2426, 988, 1500]
    with (REAL_GLYPHS / "val.npy").open("rb") as file:
        images, labels = np.load(file), np.load(file)
    x, y = data["val"][100]
    np.testing.assert_allclose((x[0] + 1) / 2, images[100] / 255, atol=1e-6)  # these use the whole range of grey
    assert y == labels[100]


@pytest.mark.parametrize("height, width", [(20, 60), (60, 20), (7, 8)])
def test_images_that_are_not_square_are_not_cut(height, width):
    image = np.full((1, height, width), 240, dtype=np.uint8)
    image[:, 1:-1, 1:-1] = 10  # ink up to one pixel from every edge
    x = ex_data.to_network_input(image)[0, 0]
    assert x.shape == (56, 56)
    rows, columns = (x < 0).any(dim=1).nonzero(), (x < 0).any(dim=0).nonzero()
    scale = 56 / max(height, width)
    for found, length in (rows, height), (columns, width):
        extent = (found.max() - found.min() + 1).item()
        assert extent == pytest.approx((length - 2) * scale, abs=2.5)
        assert found.float().mean().item() == pytest.approx(27.5, abs=1 + scale / 2)
    assert x[0, 0] == x[-1, -1] == 1  # the padding has the tone of the paper


def test_minmax_stretches_each_image_and_survives_a_constant_one():
    x = torch.stack([torch.arange(4.0).view(2, 2), torch.full((2, 2), 7.0), -torch.arange(4.0).view(2, 2)])
    stretched = minmax(x)
    assert stretched[0].flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert stretched[1].unique().tolist() == [0.5]
    torch.testing.assert_close(stretched[2], stretched[0].flip(0, 1))
    torch.testing.assert_close(minmax(x[0]), stretched[0])


def save_arrays(path, *arrays):
    with path.open("wb") as file:
        for array in arrays:
            np.save(file, array, allow_pickle=True)


IMAGES, LABELS = draw_glyphs(np.random.default_rng(0), 2, 8)
BAD_FILES = {
    "missing": (lambda path: path.unlink(), "train.npy is missing"),
    "no labels": (lambda path: save_arrays(path, IMAGES), "images and then the labels"),
    "not numpy": (lambda path: path.write_text("hello"), "cannot be read"),
    "pickled objects": (lambda path: save_arrays(path, np.array([{}]), LABELS), "cannot be read"),
    "colour images": (
        lambda path: save_arrays(path, IMAGES[..., None], LABELS),
        r"expected \(N, height, width\)",
    ),
    "no images": (lambda path: save_arrays(path, IMAGES[:0], LABELS[:0]), r"expected \(N, height, width\)"),
    "complex images": (lambda path: save_arrays(path, IMAGES * 1j, LABELS), "grey values"),
    "NaN": (lambda path: save_arrays(path, IMAGES * np.nan, LABELS), "grey values"),
    "float labels": (lambda path: save_arrays(path, IMAGES, LABELS * 1.0), "class numbers"),
    "too few labels": (lambda path: save_arrays(path, IMAGES, LABELS[:-1]), "class numbers"),
    "negative labels": (lambda path: save_arrays(path, IMAGES, LABELS - 1), "class numbers"),
}


@pytest.mark.parametrize("spoil, message", BAD_FILES.values(), ids=BAD_FILES)
def test_a_wrong_data_file_is_named_in_one_sentence(spoil, message, tmp_path):
    folder = write_data(tmp_path / "data", count=8)
    spoil(folder / "train.npy")
    with pytest.raises(InputError, match=message) as error:
        get_datasets(folder)
    assert "train.npy" in str(error.value) and "\n" not in str(error.value)


def test_options_have_the_types_of_the_hyperparameters():
    args = ex_main.parse_args(["train", "--preset", "smoke", "--alpha", "0.25", "--no-ccond_sample", "--m_out", "-3.5"])
    options = args.hyperparameters
    assert options["alpha"] == 0.25 and options["ccond_sample"] is False and options["m_out"] == -3.5
    assert options["steps"] == ex_cli.PRESETS["smoke"]["steps"] and "num_classes" not in options
    assert ex_main.parse_args(["train", "--preset", "smoke", "--steps", "7"]).hyperparameters["steps"] == 7
    assert ex_main.parse_args(["ood", "--out", "there"]).ckpt_path == Path("there/last.ckpt")
    for preset in ex_cli.PRESETS:
        JEM((1, 8, 8), num_classes=2, **ex_main.parse_args(["train", "--preset", preset]).hyperparameters)


def run_in_process(monkeypatch, capsys, *argv):
    monkeypatch.setattr(sys, "argv", ["ex_main.py", *map(str, argv)])
    with pytest.raises(SystemExit) as stop:
        ex_cli.run(ex_main.main)
    return stop.value.code, capsys.readouterr().err


def test_mistakes_of_the_user_are_told_in_one_sentence(tmp_path, monkeypatch, capsys):
    data = write_data(tmp_path / "data", count=8)
    (tmp_path / "text.ckpt").write_text("hello")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    torch.save(
        {
            "hyper_parameters": dict(small_jem().hparams),
            "state_dict": small_jem(hidden_features=3).state_dict(),
        },
        tmp_path / "wide.ckpt",
    )
    trained = {"hyper_parameters": dict(small_jem().hparams), "state_dict": small_jem().state_dict()}
    torch.save(trained | {"sampler_buffer": None}, tmp_path / "three.ckpt")
    cases = [
        (["evaluate", "--data_dir", data, "--ckpt_path", tmp_path / "three.ckpt"], "has 3 classes"),
        (["train", "--data_dir", data, "--resume", tmp_path / "three.ckpt"], "has 3 classes"),
        (["train", "--data_dir", tmp_path / "nowhere"], "no data directory"),
        (["evaluate", "--data_dir", data, "--ckpt_path", tmp_path / "none.ckpt"], "no checkpoint"),
        (
            ["evaluate", "--data_dir", data, "--ckpt_path", tmp_path / "text.ckpt"],
            "is not a checkpoint of this model",
        ),
        (
            ["ood", "--data_dir", data, "--ckpt_path", tmp_path / "other.ckpt"],
            "is not a checkpoint of this model",
        ),
        (["generate", "--ckpt_path", tmp_path / "wide.ckpt"], "is not a checkpoint of this model"),
        (["train", "--data_dir", data, "--resume", tmp_path / "none.ckpt"], "no checkpoint"),
    ]
    for argv, message in cases:
        code, err = run_in_process(monkeypatch, capsys, *argv)
        assert code == 2 and message in err and err.count("\n") == 1, (argv, err)
    for argv in ["train", "--alpha", "much"], ["generate", "--count", 0], ["train", "--preset", "huge"], ["fly"]:
        code, err = run_in_process(monkeypatch, capsys, *argv)
        assert code == 2 and argv[-2 if len(argv) > 2 else -1] in err


class Slope(pl.LightningModule):
    """A weight that training moves; the loss becomes NaN at chosen steps."""

    def __init__(self, bad_steps):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.extra, self.seen, self.bad_steps = 0, 0, bad_steps

    def training_step(self, batch, batch_idx):
        self.seen += 1
        self.extra = self.seen
        self.log("gap", -float(self.seen in self.bad_steps.get("gap", ())) * 1e3)
        return self.weight.sum() * (torch.nan if self.seen in self.bad_steps.get("loss", ()) else 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["extra"] = self.extra

    def on_load_checkpoint(self, checkpoint):
        self.extra = checkpoint["extra"]


def fit_slope(bad_steps, steps=12, **options):
    module, callback = Slope(bad_steps), DivergenceRollback("gap", low=-5, window=3, **options)
    trainer = pl.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[callback],
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.zeros(steps)), batch_size=1))
    return module, callback, trainer


@pytest.mark.parametrize("kind, step", [("loss", 8), ("gap", 8)])
def test_divergence_goes_back_to_a_trusted_state_at_half_the_rate(kind, step, capsys):
    module, callback, trainer = fit_slope({kind: [step]})
    # Remembered after steps 3 and 6; at step 8 only the state of step 3 is trusted. Four steps of ½ follow.
    assert callback.rollbacks == 1 and "Step 8: training diverged" in capsys.readouterr().err
    assert module.weight.item() == pytest.approx(-3 - 4 * 0.5)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5
    assert callback.states[0]["extra"] == 3


def test_training_that_diverges_again_and_again_ends_with_the_last_healthy_state(capsys):
    module, callback, trainer = fit_slope({"loss": range(8, 40)}, steps=40, max_rollbacks=2)
    assert trainer.global_step == 10 and callback.rollbacks == 3
    assert module.weight.item() == -3 and "lower learning rate" in capsys.readouterr().err


def test_augmentation_moves_little_and_keeps_the_range():
    x = torch.rand(8, 1, 56, 56) * 2 - 1
    assert random_affine(x).shape == x.shape and random_affine(x).abs().max() <= 1
    torch.testing.assert_close(random_affine(x, degrees=0, scale=0, shift=0), x, atol=1e-4, rtol=0)
    ramp = torch.linspace(-1, 1, 56).expand(64, 1, 56, 56)
    shifts = (random_affine(ramp, degrees=0, scale=0, shift=2) - ramp)[:, 0, 28, 28] / (2 / 55)
    assert 1 < shifts.abs().max() <= 2.01


def draw_all():
    return {
        "sheet": plots.sample_sheet(torch.zeros(5, 1, 8, 8), titles=list("abcde")),
        "strip": plots.generation_strip(np.zeros((3, 2, 1, 8, 8)), [1, 10, 60], titles=["x", "y"]),
        "histogram": plots.score_histogram([0, 1, 2], {"test": [0.5, 0.5], "ood": [0, 1]}, threshold=1.5),
        "roc": plots.roc_curves({"px": ([0.0, 1.0], [2.0, 3.0])}),
    }


def test_figures_show_what_they_are_given_in_the_same_bytes(tmp_path):
    figures = draw_all()
    assert [axes.get_title() for axes in figures["sheet"].axes if axes.images] == list("abcde")
    assert len(figures["strip"].axes) == 6 and figures["strip"].axes[0].get_ylabel() == "x"
    assert figures["roc"].axes[0].get_legend_handles_labels()[1] == ["px  1.000"]
    for name, figure in draw_all().items():
        first = plots.save(figures[name], tmp_path / "new folder" / f"{name}.png")
        assert first.read_bytes() == plots.save(figure, tmp_path / f"{name}.png").read_bytes()


def command(*argv, cwd):
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, ex_main.__file__, *map(str, argv)],
        cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Where a script runs the tests in the background, the shell lets all of them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finish(*argv, cwd):
    process = command(*argv, cwd=cwd)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_the_smoke_preset_runs_from_training_to_figures(tmp_path):
    data = ["--data_dir", write_data(tmp_path / "data", classes=4, count=320)]
    assert "last.ckpt" in finish("train", "--preset", "smoke", *data, cwd=tmp_path)
    accuracy = float(finish("evaluate", *data, cwd=tmp_path).split("accuracy ")[1].split("%")[0])
    assert accuracy > 90  # four classes of strokes that do not overlap
    table = finish("ood", *data, cwd=tmp_path)
    assert all(score in table for score in ex_ood.SCORES)
    finish("generate", "--conditional", "--count", 8, "--mixing", 12, cwd=tmp_path)
    finish("generate", "--count", 3, "--mixing", 5, "--out", "runs/jem", cwd=tmp_path)
    written = {str(path.relative_to(tmp_path / "runs/jem")) for path in (tmp_path / "runs/jem").rglob("*.png")}
    pictures = {f"samples/epoch_{epoch:03d}.png" for epoch in range(ex_cli.PRESETS["smoke"]["epochs"])}
    assert written == {"generation.png", "samples.png", "ood_histogram.png", "ood_roc.png"} | pictures
    assert list((tmp_path / "runs/jem/tensorboard").glob("events.*"))


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_training_goes_on_from(tmp_path):
    data = write_data(tmp_path / "data", classes=2, count=64)
    argv = ["train", "--preset", "smoke", "--data_dir", data, "--hidden_features", 2]
    process = command(*argv, "--epochs", 10_000, cwd=tmp_path)
    checkpoint = tmp_path / "runs/jem/last.ckpt"
    for _ in range(1200):
        if checkpoint.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume runs/jem/last.ckpt" in err and "Traceback" not in err
    before = torch.load(checkpoint, weights_only=True)
    epochs = before["epoch"] + 3
    out = finish(*argv, "--epochs", epochs, "--resume", checkpoint, cwd=tmp_path)
    after = torch.load(checkpoint, weights_only=True)
    assert f"epoch {epochs}/{epochs}" in out and after["global_step"] > before["global_step"]
    assert after["sampler_buffer"].shape == before["sampler_buffer"].shape
