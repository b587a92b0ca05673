"""A small class-conditional energy-based model of the digits of scikit-learn."""

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ebmcourse.sampling import FastSampler


def digits():
    """Return 1,797 images (N, 1, 8, 8) in [-1, 1] and their classes (N,)."""
    data = load_digits()
    return torch.from_numpy(data.images).float()[:, None] / 8 - 1, torch.from_numpy(data.target)


class DigitEnergy(pl.LightningModule):
    """Trained as `jem` is, with chains of 10 steps. `fault(self)` runs before each training step."""

    def __init__(self, fault=lambda module: None):
        super().__init__()
        self.save_hyperparameters({"lmbd": 0.2})
        self.cnn = DigitNetwork()
        self.sampler = FastSampler(self.cnn, (1, 8, 8), 32, 10, 16, torch.float32)
        self.fault = fault

    def forward(self, x):
        return self.cnn(x)

    def training_step(self, batch, batch_idx):
        self.fault(self)
        x, y = batch
        chains = self.sampler.synthesize_samples(y, steps=10)
        f_data, f_chains = self.cnn(x, y), self.cnn(chains, y)
        loss_pyx = nn.functional.cross_entropy(self.cnn.layers(x), y)
        self.log_dict({"gap": f_chains.mean() - f_data.mean(), "loss_pyx": loss_pyx})
        squares = f_data.square().mean() + f_chains.square().mean()
        return loss_pyx + self.hparams.lmbd * (f_chains.mean() - f_data.mean() + 0.1 * squares)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3, betas=(0.0, 0.999))

    def on_save_checkpoint(self, checkpoint):
        checkpoint["buffer"] = self.sampler.buffer.clone()

    def on_load_checkpoint(self, checkpoint):
        self.sampler.buffer = checkpoint["buffer"]


class DigitNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        first, second = nn.Conv2d(1, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.layers = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), nn.Flatten(), nn.Linear(128, 10))

    def forward(self, x, y=None):
        logits = self.layers(x)
        return logits.logsumexp(dim=1) if y is None else logits.gather(1, y[:, None]).squeeze(1)


def train(module, callbacks, **limits):
    """Train on all digits; `limits` are options of the `Trainer`, such as `max_steps`."""
    loader = DataLoader(TensorDataset(*digits()), 32, shuffle=True, drop_last=True)
    options = {"logger": False, "enable_progress_bar": False, "gradient_clip_val": 5}
    pl.Trainer(callbacks=callbacks, **options | limits).fit(module, loader)
