"""The SGLD sampler and its replay buffer."""

import ex_main
import pytest
import torch
from ex_main import MCMCSampler
from torch import nn

SHAPE = (1, 6, 5)


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


def test_a_step_follows_the_clamped_gradient_within_the_image_range(monkeypatch):
    monkeypatch.setattr(ex_main, "NOISE_STD", 0.0)
    sampler = MCMCSampler(Attractor([0.011, 5.0]), SHAPE, 4, 2)
    starts, _ = sampler.initial_chains(torch.tensor([0, 1, 1]))
    gradient = sampler.gradient(starts, torch.tensor([0, 1, 1]))
    before = starts.clone()
    moved = sampler.update(starts, gradient, 10)
    torch.testing.assert_close(starts, before)
    expected = starts + 10 * (torch.tensor([0.011, 5, 5])[:, None, None, None] - starts).clamp(-0.03, 0.03)
    torch.testing.assert_close(moved, expected.clamp(-1, 1))
    assert sampler.synthesize_samples(torch.ones(3, dtype=torch.long), steps=9).amax() == 1


def test_noise_and_new_chains_have_the_standard_deviations_of_the_exercise():
    flat = Attractor([0.0])
    flat.forward = lambda x, y=None: 0 * x.flatten(1).sum(dim=1)
    starts = MCMCSampler(flat, (1, 20, 20), 200, 1, cbuffer_size=1000).synthesize_samples(steps=0)
    # 80,000 numbers: the standard deviation of their spread is 0.25 %
    assert starts.std().item() == pytest.approx(0.01, rel=0.02)
    moved = MCMCSampler(flat, (1, 20, 20), 200, 1).synthesize_samples(steps=16)
    assert moved.std().item() == pytest.approx((0.01**2 + 16 * 0.005**2) ** 0.5, rel=0.02)


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 1])], ids=["unconditional", "conditional"])
def test_samples_are_detached_and_every_step_can_be_returned(labels):
    sampler = MCMCSampler(Attractor([0.5, -0.5]), SHAPE, 3, 2)
    x = sampler.synthesize_samples(labels, steps=4)
    assert x.shape == (3, *SHAPE) and not x.requires_grad and x.grad_fn is None
    steps = sampler.synthesize_samples(labels, steps=4, step_size=1, return_img_per_step=True)
    assert steps.shape == (4, 3, *SHAPE) and not steps.requires_grad
    jumps = steps.diff(dim=0).abs().amax()
    assert 0.005 < jumps < 0.03 + 6 * 0.005  # one clamped step of size 1 and noise below six deviations
    assert sampler.model.targets.grad is None


@pytest.mark.parametrize("fails", [False, True])
def test_sampling_freezes_the_network_and_restores_it(fails):
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


def test_most_chains_continue_chains_of_a_buffer_of_constant_size():
    sampler = MCMCSampler(Attractor([1.0]), (1, 1, 1), 500, 1, cbuffer_size=300)
    for _ in range(4):
        sampler.synthesize_samples(steps=5)
    size = sampler.buffer["chains"].shape
    starts = sampler.synthesize_samples(steps=0).flatten()
    assert sampler.buffer["chains"].shape == size and size[1] == 300
    fresh = (starts < 0.5).float().mean().item()
    # Each slot has been used about seven times and contains 1. The tolerance is four standard deviations of a share of
    # 500 chains.
    assert fresh == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 500) ** 0.5)


def test_chains_continue_chains_of_their_own_class():
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


def test_a_chain_with_nan_is_not_continued():
    sampler = MCMCSampler(Attractor([1.0]), SHAPE, 8, 1, cbuffer_size=2)
    for _ in range(4):
        x, place = sampler.initial_chains(None)
        assert x.isfinite().all()
        sampler.store(torch.full_like(x, torch.nan), place)
