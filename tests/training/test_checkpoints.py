"""The criterion of the best checkpoint, and the measures of samples."""

import pytest
import pytorch_lightning as pl
import torch
from digit_energy import DigitEnergy, digits, train
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ebmcourse.sampling import langevin
from ebmcourse.training import BestCheckpoint, diversity, fit, frechet_distance, sample_quality


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_the_frechet_distance_of_gaussians_is_that_of_the_formula():
    scale, shift = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.3, 0.0, -1.0])
    a = torch.randn(200_000, 3)
    b = torch.randn(200_000, 3) * scale + shift
    # For diagonal covariances: the squared distance of the means plus that of the standard deviations.
    expected = shift.square().sum() + (1 - scale).square().sum()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), abs=0.03)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a[:50], b[:60]) == pytest.approx(frechet_distance(b[:60], a[:50]))


def test_the_frechet_distance_is_defined_for_fewer_samples_than_features():
    assert frechet_distance(torch.randn(5, 20), torch.randn(7, 20)) > 0


def test_diversity_is_the_mean_distance_within_a_class():
    features = torch.tensor([[0.0], [2.0], [10.0], [11.0], [13.0], [99.0]])
    classes = torch.tensor([0, 0, 1, 1, 1, 2])  # of class 2, there is no pair
    assert diversity(features, classes) == pytest.approx((2 + (1 + 3 + 2) / 3) / 2)


def test_sample_quality_is_1_for_the_starts_and_falls_as_the_chains_approach_the_data():
    real, starts = torch.rand(300, 1, 16, 16), 0.01 * torch.randn(300, 1, 16, 16)
    more = torch.rand(300, 1, 16, 16)
    values = [sample_quality((1 - share) * starts + share * more, starts, real) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert values[0] == 1 and sorted(values, reverse=True) == values and values[-1] < 0.02
    collapsed = more[:1].expand(300, -1, -1, -1)
    assert sample_quality(collapsed, starts, real) > 3 * values[-1]


class Painter(pl.LightningModule):
    """A model whose chains approach the data until epoch 3 and then turn into stripes.

    As in a real training, its contrastive divergence is smallest in epoch 0, where the network hardly tells chains from
    data, and its size grows from epoch to epoch.
    """

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.divergences = []

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.divergences.append(abs(-0.01 - 0.2 * self.current_epoch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def chains(self):
        share = min(self.current_epoch, 3) / 3
        chains = (1 - share) * STARTS + share * DATA.flip(0)
        chains[:, :, ::2] = 1 if self.current_epoch > 3 else chains[:, :, ::2]
        return chains


DATA, STARTS = torch.rand(100, 1, 8, 8), 0.01 * torch.randn(100, 1, 8, 8)


def test_the_best_checkpoint_is_not_that_of_epoch_0_where_the_contrastive_divergence_is_smallest(tmp_path):
    module = Painter()
    best = BestCheckpoint(tmp_path / "best.ckpt", lambda model: sample_quality(model.chains(), STARTS, DATA))
    loader = DataLoader(TensorDataset(torch.zeros(2)), batch_size=1)
    options = {"logger": False, "enable_progress_bar": False, "num_sanity_val_steps": 0, "limit_val_batches": 1}
    pl.Trainer(max_epochs=6, callbacks=[best], **options).fit(module, loader, loader)
    assert module.divergences.index(min(module.divergences)) == 0
    checkpoint = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert best.epoch == checkpoint["epoch"] == 3
    assert checkpoint["callbacks"]["BestCheckpoint"]["best"] == best.best < 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


@pytest.mark.slow
def test_the_best_checkpoint_of_a_short_training_is_not_that_of_epoch_0(tmp_path):
    images, labels = digits()[0], torch.arange(200) % 10
    module, starts, values = DigitEnergy(), 0.01 * torch.randn(200, 1, 8, 8), []

    def measure(module):
        chains = langevin(module.cnn, starts, labels, 30, dtype=torch.float32)
        values.append(sample_quality(chains, starts, images))
        return values[-1]

    best = BestCheckpoint(tmp_path / "best.ckpt", measure)
    train(module, [best], max_epochs=5)
    assert best.epoch > 0 and values[best.epoch] == best.best < 0.8 * values[0]


class Interrupted(Painter):
    def training_step(self, batch, batch_idx):
        raise KeyboardInterrupt


LOADER = DataLoader(TensorDataset(torch.zeros(2)))


def test_fit_says_that_all_epochs_are_complete_and_names_no_file_that_it_did_not_write(tmp_path, capsys):
    checkpoint = fit(Painter(), LOADER, None, tmp_path / "first", epochs=2)
    with pytest.raises(SystemExit) as stop:
        fit(Painter(), LOADER, None, tmp_path / "second", epochs=2, resume=checkpoint)
    err = capsys.readouterr().err
    assert stop.value.code == 0 and f"{checkpoint} already contains 2 epochs" in err and "--epochs" in err
    assert not (tmp_path / "second/last.ckpt").exists()


def test_an_interrupt_before_the_first_step_does_not_offer_the_checkpoint_of_an_earlier_training(tmp_path, capsys):
    fit(Painter(), LOADER, None, tmp_path, epochs=1)
    with pytest.raises(SystemExit) as stop:
        fit(Interrupted(), LOADER, None, tmp_path, epochs=1)
    err = capsys.readouterr().err
    assert stop.value.code == 130 and "--resume" not in err and "Nothing was saved" in err
