"""JEM: losses, hyperparameters and checkpoints."""

from collections import deque

import ex_main
import ex_ood
import pytest
import pytorch_lightning as pl
import torch
from ex_main import JEM
from jem_samples import small_jem
from torch.utils.data import DataLoader, TensorDataset


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


def test_the_training_step_adds_both_losses_and_the_warm_up_does_not_sample(monkeypatch):
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
        chains = jem.sampler.buffer["chains"][jem.sampler.buffer["filled"]]
    assert set(logged) == {"val_contrastive_divergence", "val_MulticlassAveragePrecision"}
    assert chains.shape[0] in (3, 4)
    assert logged["val_contrastive_divergence"].isfinite()
    assert 0 < logged["val_MulticlassAveragePrecision"].compute() <= 1


def test_training_increases_f_of_data_relative_to_chains():
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


def test_hyperparameters_are_passed_to_the_network_and_the_optimizer():
    jem = small_jem(lr=0.5, lr_stepsize=2, lr_gamma=0.1)
    assert jem.cnn.head.out_features == 3 and jem.cnn.cnn_layers[0].out_channels == 2
    (optimizer,), (scheduler,) = jem.configure_optimizers()
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05])


def test_a_trained_model_has_the_step_size_of_its_checkpoint():
    jem, checkpoint = small_jem(step_size=8.0, step_size_decay=1.5), {}
    jem.on_save_checkpoint(checkpoint)
    jem.on_load_checkpoint(checkpoint | {"epoch": 2})
    assert jem.step_size == 18
    jem.on_load_checkpoint(checkpoint)  # as `DivergenceRollback` does
    assert jem.step_size == 18


@pytest.mark.parametrize("kind", ["tensor", "list", "dict", "deque"])
def test_a_checkpoint_contains_the_chains_in_any_container_and_no_code(kind, tmp_path):
    jem = small_jem()
    chains = torch.randn(3, 1, 6, 5)
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
