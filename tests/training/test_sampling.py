"""The fast sampler draws the same chains as the readable one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ebmcourse.sampling import GRADIENT_CLAMP, NOISE_STD, BlockConv, FastSampler, frozen_copy, langevin


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Network(nn.Module):
    """The network of `jem` in small, with a steep energy, so that some gradients are clamped."""

    def __init__(self, classes=3, kernel=5, padding=4):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, kernel, stride=2, padding=padding),
            nn.SiLU(),
            nn.Dropout(0.5),  # has no effect in eval mode, in which chains are drawn
            nn.Conv2d(4, 8, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, classes),
        )

    def forward(self, x, y=None):
        logits = 30 * self.layers(x)
        return logits.logsumexp(dim=1) if y is None else logits.gather(1, y[:, None]).squeeze(1)


def readable(model, x, labels, steps, step_size):
    """The loop that the assignments describe, step by step."""
    model.eval()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        f = model(x) if labels is None else model(x, labels)
        (gradient,) = torch.autograd.grad(f.sum(), x)
        gradient = gradient.clamp(-GRADIENT_CLAMP, GRADIENT_CLAMP)
        x = (x.detach() + step_size * gradient + NOISE_STD * torch.randn_like(x)).clamp(-1, 1)
    return x


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 5),
    size=st.tuples(st.integers(5, 14), st.integers(5, 14)),
    steps=st.integers(0, 6),
    step_size=st.sampled_from([1.0, 10.0]),
    conditional=st.booleans(),
    kernel=st.integers(2, 5),
    padding=st.sampled_from([1, 2, 4]),
)
def test_chains_in_float32_are_those_of_the_readable_loop(
    seed, batch, size, steps, step_size, conditional, kernel, padding
):
    torch.manual_seed(seed)
    model = Network(kernel=kernel, padding=padding)
    x = 2 * torch.rand(batch, 1, *size) - 1
    labels = torch.randint(3, (batch,)) if conditional else None
    torch.manual_seed(seed)
    fast = langevin(model, x, labels, steps, step_size, torch.float32)
    torch.manual_seed(seed)
    torch.testing.assert_close(fast, readable(model, x, labels, steps, step_size), atol=2e-5, rtol=0)


def test_chains_in_bfloat16_stay_close_to_those_in_float32():
    model, x = Network(), 2 * torch.rand(16, 1, 56, 56) - 1
    chains = {}
    for dtype in torch.float32, torch.bfloat16:
        torch.manual_seed(1)
        chains[dtype] = langevin(model, x, None, 20, dtype=dtype)
    moved = (chains[torch.float32] - x).square().mean()
    assert chains[torch.bfloat16].dtype == torch.float32
    assert (chains[torch.bfloat16] - chains[torch.float32]).square().mean() < 0.01 * moved


@pytest.mark.parametrize("kernel, padding, size", [(5, 4, (56, 28)), (3, 2, (8, 10)), (4, 0, (6, 6)), (2, 2, (4, 8))])
def test_the_convolution_of_blocks_is_the_convolution(kernel, padding, size):
    conv, x = nn.Conv2d(1, 6, kernel, stride=2, padding=padding), torch.randn(3, 1, *size)
    assert BlockConv.can_replace(conv)
    torch.testing.assert_close(BlockConv(conv)(x), conv(x), atol=1e-5, rtol=0)


def test_other_convolutions_are_not_replaced():
    others = [
        nn.Conv2d(2, 6, 5, stride=2, padding=4),
        nn.Conv2d(1, 6, 5, stride=1, padding=4),
        nn.Conv2d(1, 6, 5, stride=2, padding=1),
        nn.Conv2d(1, 6, 5, stride=2, padding=4, dilation=2),
        nn.Conv2d(1, 6, 5, stride=2, padding=4, padding_mode="reflect"),
        nn.Conv2d(1, 6, 5, padding="same"),
    ]
    assert not any(BlockConv.can_replace(conv) for conv in others)
    odd = frozen_copy(Network(), (1, 7, 8))
    assert not any(isinstance(module, BlockConv) for module in odd.modules())


@torch.no_grad()  # as in validation
def test_the_model_is_not_changed_and_the_chains_are_detached():
    model = Network().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sampler = FastSampler(model, (1, 8, 8), 4, 3, 2)
    chains = sampler.synthesize_samples(torch.tensor([0, 1, 2]), steps=3, return_img_per_step=True)
    assert chains.shape == (3, 3, 1, 8, 8) and not chains.requires_grad and chains.abs().max() <= 1
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert sampler.synthesize_samples(steps=2).shape == (4, 1, 8, 8)


def test_chains_are_kept_by_class_and_about_5_percent_start_fresh():
    sampler = FastSampler(Network(), (1, 8, 8), 4000, 3, 50)
    for row in range(4):
        sampler.buffer[row] = 0.2 * row
    labels = torch.arange(4000) % 3
    chains = sampler.synthesize_samples(labels, steps=0)
    kept = (chains - 0.2 * labels[:, None, None, None]).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 0.035 < 1 - kept[labels > 0].float().mean() < 0.065
    assert torch.equal(sampler.buffer[3], torch.full((50, 1, 8, 8), 0.2 * 3))
    assert (sampler.synthesize_samples(steps=0) == 0.2 * 3).float().mean() > 0.9


def test_a_chain_that_diverges_is_replaced_by_a_fresh_one():
    model = Network()
    with torch.no_grad():
        model.layers[-1].bias.fill_(torch.nan)
        model.layers[-1].weight.fill_(torch.nan)
    sampler = FastSampler(model, (1, 8, 8), 20, 0, 4)
    assert sampler.synthesize_samples(steps=1).isnan().any()
    assert sampler.buffer.isfinite().all() and 0 < sampler.buffer.std() < 0.02
