"""The reference of the assignment `deep_energy`: gradients, sampler, buffer, loss, scores."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autograder import assignment
from autograder.release.programs import reference_program
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.untrusted.student import Student

SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def program() -> ModuleType:
    with laid_out(reference_program(assignment.load("deep_energy"))) as folder:
        return Student(folder).deep_energy


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Parabola(nn.Module):
    """f(x) = -½‖x - top‖², which pulls each pixel to `top`."""

    def __init__(self, top: float):
        super().__init__()
        self.top = nn.Parameter(torch.tensor(top))

    def forward(self, x):
        return -0.5 * (x - self.top).square().flatten(1).sum(1)


def test_gradients_of_the_network_with_respect_to_images(program):
    network = program.CNNModel(hidden_features=4).double()
    for parameter in network.parameters():
        parameter.data *= 3  # otherwise f hardly depends on the image
    images = torch.rand(2, *SHAPE, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(network, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(network, images, fast_mode=True)


def test_the_energy_of_an_image_does_not_depend_on_the_batch(program):
    network, images = program.CNNModel(), torch.rand(5, *SHAPE)
    together, alone = network(images), torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone)
    assert program.CNNModel(out_dim=3)(images).shape == (5, 3)


def test_image_gradients_are_finite_differences(program):
    network = program.CNNModel(hidden_features=4).double()
    images = torch.rand(3, *SHAPE, dtype=torch.float64)
    direction = torch.randn_like(images)
    with program.frozen(network):
        gradient = program.image_gradient(network, images)
    assert gradient.abs().max() < program.GRADIENT_CLAMP
    step = 1e-4 * direction
    slope = (network(images + step) - network(images - step)) / 2e-4
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), slope, rtol=1e-4, atol=1e-7)


def test_chains_reach_the_maximum_and_stay_in_the_range(program):
    for top, expected in ((0.3, 0.3), (5.0, 1.0), (-5.0, -1.0)):
        images = program.generate_samples(Parabola(top), program.uniform_images(4, (1, 5, 6)), 90, 1.0)
        assert images.abs().max() <= 1
        # With steps of size 1, noise of standard deviation 0.005 remains.
        assert (images - expected).abs().max() < 0.03


def test_the_noise_of_a_step_has_its_standard_deviation(program):
    flat = Parabola(0.0)
    flat.forward = lambda x: 0 * x.flatten(1).sum(1)
    start = torch.zeros(50, 1, 20, 20)
    with program.frozen(flat):
        moved = program.langevin_step(flat, start, 10.0)
    assert moved.std().item() == pytest.approx(program.NOISE_STD, rel=0.03)  # 20,000 numbers
    assert start.abs().max() == 0


@pytest.mark.parametrize("enabled", [True, False])
def test_sampling_restores_the_network_after_an_exception(program, enabled):
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 1)).train()
    network[0].requires_grad_(False)
    network[2].eval()
    broken = nn.Sequential(nn.Flatten(), network, nn.Unflatten(1, (7, 7))).train()  # fails at its end
    network[2].eval()
    with torch.set_grad_enabled(enabled):
        with pytest.raises(RuntimeError):
            program.generate_samples(broken, torch.rand(2, 1, 2, 2))
        assert torch.is_grad_enabled() is enabled
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, False, True, True]
    assert [part.training for part in network] == [True, True, False]


def test_samples_are_detached_and_all_steps_can_be_returned(program):
    start = program.uniform_images(3, (1, 4, 4))
    before = start.clone()
    history = program.generate_samples(Parabola(0.5), start, 5, 1.0, return_img_per_step=True)
    assert history.shape == (5, 3, 1, 4, 4) and not history.requires_grad
    assert torch.equal(start, before)
    jumps = torch.cat([start[None], history]).diff(dim=0).abs()
    assert 0.02 < jumps.max() < program.GRADIENT_CLAMP + 6 * program.NOISE_STD


def test_the_buffer_is_bounded_and_chains_continue(program):
    sampler = program.Sampler(Parabola(0.0), (1, 3, 3), sample_size=40, max_len=100)
    assert len(sampler.examples) == 40
    for call in range(1, 8):
        samples = sampler.sample_new_exmps(steps=1, step_size=0.0)
        assert samples.shape == (40, 1, 3, 3)
        assert len(sampler.examples) == min(40 * (call + 1), 100)
        torch.testing.assert_close(sampler.examples[:40], samples)
    known = sampler.examples
    starts = torch.cat([sampler.start_images() for _ in range(50)])
    near = torch.cdist(starts.flatten(1), known.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").min(1).values
    fresh = starts[near > 1e-6]
    # 2,000 chains: 5 % ± 0.5 % (standard deviation)
    assert 0.03 < len(fresh) / len(starts) < 0.07
    assert fresh.abs().max() <= 1 and abs(fresh.mean()) < 0.06 and fresh.std().item() == pytest.approx(0.577, abs=0.04)


def test_a_buffer_smaller_than_the_batch(program):
    sampler = program.Sampler(Parabola(0.0), (1, 3, 3), sample_size=10, max_len=4)
    for _ in range(3):
        assert sampler.sample_new_exmps(steps=1).shape == (10, 1, 3, 3)
        assert len(sampler.examples) == 4


def test_the_loss_is_zero_where_samples_equal_data_and_grows_with_the_gap(program):
    model = program.DeepEnergyModel(SHAPE, 4, alpha=0.25)
    f = torch.randn(6)
    contrastive, regularisation = model.loss_terms(f, f)
    assert contrastive == 0 and regularisation.item() == pytest.approx(0.5 * f.square().mean().item())
    # The sum of both terms is least, -1/α in the contrastive divergence, where f is 1/(2α) and -1/(2α).
    real, fake = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([real, fake], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        sum(model.loss_terms(real, fake)).backward()
        optimizer.step()
    assert (fake - real).item() == pytest.approx(-1 / 0.25, rel=1e-3)


def test_a_batch_may_be_smaller_than_the_number_of_samples(program):
    model = program.DeepEnergyModel(SHAPE, 8, steps=1, hidden_features=4)
    logged = {}
    model.log_dict = logged.update
    images = program.uniform_images(3, SHAPE)
    before = images.clone()
    loss = model.training_step((images, torch.zeros(3)), 0)
    assert torch.equal(images, before)
    assert loss.item() == pytest.approx(
        (logged["loss_contrastive_divergence"] + logged["loss_regularization"]).item(), abs=1e-6
    )
    assert logged["metrics_avg_real"].item() == pytest.approx(model(images).mean().item(), abs=1e-3)


@pytest.mark.parametrize("count, vis_steps", [(256, 8), (23, 4), (6, 6), (9, 5)])
def test_frames_are_the_first_and_every_nth(program, count, vis_steps):
    frames, steps = program.pick_frames(torch.arange(1, count + 1)[:, None, None, None, None], vis_steps)
    assert frames.flatten().tolist() == steps
    assert steps[0] == 1 and len(set(steps)) == len(steps)
    n = count // vis_steps
    assert set(steps) - {1} == set(range(n, count + 1, n)) - {1}
    if (count, vis_steps) == (256, 8):
        assert steps == [1, 32, 64, 96, 128, 160, 192, 224, 256]


def test_scores_are_energies_on_any_batch_size(program):
    model = program.CNNModel(hidden_features=4).train()
    images = program.uniform_images(11, SHAPE)
    scores = [program.outlier_score(model, images, batch_size) for batch_size in (1, 4, 11, 100)]
    for each in scores:
        torch.testing.assert_close(each, -model(images).detach())
    assert model.training


def test_changes_of_images(program):
    images = program.uniform_images(2, (1, 6, 8))
    found = program.changed(images, torch.zeros_like(images))
    assert torch.equal(found["noise"], images)
    assert torch.equal(program.changed(found["flipped"], images)["flipped"], images)
    shrunk = found["shrunk"]
    assert torch.equal(shrunk[:, :, 3:, 4:], images[:, :, ::2, ::2]) and (shrunk == -1).sum() >= 2 * 36


def test_auroc_equals_the_share_of_pairs(program):
    inside, outside = torch.randint(0, 9, (40,)).float(), torch.randint(3, 12, (25,)).float()
    pairs = outside[None] - inside[:, None]
    share = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean().item()
    assert program.auroc(inside, outside) == pytest.approx(share)
    assert program.auroc(outside, inside) == pytest.approx(1 - share)


@pytest.mark.parametrize(
    "losses, gaps, expected",
    [
        ([0.0] * 60, [0.0] * 60, "healthy"),
        ([0.0] * 60, [-3.0] * 60, "sampler lost"),
        ([0.0] * 60, [3.0] * 60, "blow up"),
        ([math.nan, *[0.0] * 59], [-3.0] * 60, "not finite"),
        ([0.0] * 49, [-3.0] * 49, "healthy"),
        ([0.0] * 90, [-3.0] * 40 + [0.0] * 50, "healthy"),
    ],
)
def test_diagnoses(program, losses, gaps, expected):
    assert program.diagnose(losses, gaps) == expected


def test_data_of_scikit_learn(program):
    for split, count in (("train", 1200), ("test", 597)):
        images = program.load_images("digits", split)
        assert images.shape == (count, *SHAPE) and images.dtype == torch.float32
        assert images.min() == -1 and 0.9 < images.max() <= 1
    letters = program.other_images()["letters"]
    assert letters.shape == (416, *SHAPE) and letters.min() == -1 and letters.max() <= 1


def test_the_callbacks_run_in_lightning(program, tmp_path):
    """A real `Trainer` calls the callbacks in the epochs 0, 2, 4; TensorBoard and the folder have what they record."""
    model = program.DeepEnergyModel(SHAPE, 4, steps=2, hidden_features=4)
    data = DataLoader(TensorDataset(program.uniform_images(6, SHAPE), torch.zeros(6)), 4)
    trainer = pl.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=TensorBoardLogger(tmp_path, name="", version="log"),
        callbacks=[
            program.GenerateCallback(batch_size=2, vis_steps=2, num_steps=4, every_n_epochs=2),
            program.SamplerCallback(num_imgs=5, every_n_epochs=2),
            program.OutlierCallback(batch_size=8),
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, data, data)
    assert model.cnn.training
    names = [f"{name}_{epoch:03d}.png" for name in ("generation", "sampler") for epoch in (0, 2, 4)]
    assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == names
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    assert set(events.Tags()["images"]) == {"generation", "sampler"}
    assert [event.step for event in events.Images("generation")] == [0, 2, 4]
    scalars = {"loss", "loss_regularization", "loss_contrastive_divergence", "metrics_avg_real", "metrics_avg_fake"}
    assert scalars | {"rand_out", "val_contrastive_divergence"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("rand_out")) == 5


def test_the_buffer_is_in_the_checkpoint(program, tmp_path):
    model = program.DeepEnergyModel(SHAPE, 4, steps=1, hidden_features=4)
    model.sampler.sample_new_exmps(steps=1)
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    other = program.DeepEnergyModel(SHAPE, 4, steps=1, hidden_features=4)
    other.on_load_checkpoint(checkpoint)
    torch.testing.assert_close(other.sampler.examples, model.sampler.examples)
