"""The energy function: a shallow convolutional network f(x) = -E(x).

The network returns the *negative* energy: large values are likely images. With K outputs f(x)[y] it is read
in three ways:

* EBM (K = 1): the single output is f(x);
* unconditional JEM: f(x) = log Σ_y exp f(x)[y], the negative free energy over the classes;
* conditional JEM: f(x, y) = f(x)[y], the logit of class y.

Reference: Grathwohl et al., "Your classifier is secretly an energy based model and you should treat it like
one", ICLR 2020.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Swish(nn.Module):
    """x · sigmoid(x): smooth, so that the gradient at the image, which the sampler follows, has no jumps."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


class ShallowCNN(nn.Module):
    """Five strided convolutions, 56×56 -> 30 -> 15 -> 8 -> 4 -> 2, and a linear head.

    `hidden_features` is the width of the first layer; further keywords are accepted and unused, so that
    networks with other options can take this one's place.
    """

    def __init__(self, hidden_features: int = 32, num_classes: int = 42, **kwargs) -> None:
        super().__init__()
        width = hidden_features
        self.cnn_layers = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=5, stride=2, padding=4),
            Swish(),
            nn.Conv2d(width, 2 * width, kernel_size=3, stride=2, padding=1),
            Swish(),
            nn.Conv2d(2 * width, 4 * width, kernel_size=3, stride=2, padding=1),
            Swish(),
            nn.Conv2d(4 * width, 4 * width, kernel_size=3, stride=2, padding=1),
            Swish(),
            nn.Conv2d(4 * width, 4 * width, kernel_size=3, stride=2, padding=1),
            Swish(),
        )
        self.head = nn.Linear(4 * width, num_classes)
        # The sampler spends nearly all the time of a training; convolutions are a quarter faster in this
        # layout.
        self.to(memory_format=torch.channels_last)

    def get_logits(self, x: Tensor) -> Tensor:
        """The K raw class scores f(x)[y] of every image: x (B, 1, H, W) -> (B, K)."""
        features = self.cnn_layers(x)
        pooled = F.adaptive_avg_pool2d(features, 1).flatten(1)
        return self.head(pooled)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The negative energy f = -E of every image: (B,).

        x: images (B, 1, H, W). y: class numbers (B,), int64, or None for the unconditional energy.
        """
        logits = self.get_logits(x)
        if y is None:
            return logits.logsumexp(dim=1)
        return logits.gather(1, y[:, None]).squeeze(1)
