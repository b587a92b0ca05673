"""The energy function: a shallow convolutional network f(x) = -E(x).

The network returns the *negative* energy: likely images have large values. Its K outputs f(x)[y], the logits,
define three models:

* EBM (K = 1): f(x) is the single output.
* Unconditional JEM: f(x) = log Σ_y exp f(x)[y], the logsumexp of the logits.
* Conditional JEM: f(x, y) = f(x)[y], the logit of class y.

Reference: Grathwohl et al., "Your classifier is secretly an energy based model and you should treat it like
one", ICLR 2020, section 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Swish(nn.Module):
    """x · sigmoid(x). It is smooth, and so is the gradient with respect to the image, which the sampler follows."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


class ShallowCNN(nn.Module):
    """Five strided convolutions and a linear layer.

    hidden_features: the number of channels after the first convolution.
    num_classes: the number of outputs K.
    kwargs: ignored, so that this network can be replaced by one with more options.
    """

    def __init__(self, hidden_features: int = 32, num_classes: int = 42, **kwargs) -> None:
        super().__init__()
        width = hidden_features
        # The images shrink from 56×56 to 30×30, 15×15, 8×8, 4×4 and 2×2.
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
        # Convolutions take about a quarter less time in this memory layout.
        self.to(memory_format=torch.channels_last)

    def get_logits(self, x: Tensor) -> Tensor:
        """Return the logits f(x)[y] of all K classes: x (B, 1, H, W) -> (B, K)."""
        features = self.cnn_layers(x)  # (B, C, h, w)
        pooled = F.adaptive_avg_pool2d(features, 1).flatten(1)  # (B, C)
        return self.head(pooled)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the negative energy f = -E of each image, shape (B,).

        x: images (B, 1, H, W).
        y: class numbers (B,), int64, for f(x, y), or None for f(x).
        """
        logits = self.get_logits(x)
        if y is None:
            return torch.logsumexp(logits, dim=1)
        return logits.gather(1, y[:, None]).squeeze(1)
