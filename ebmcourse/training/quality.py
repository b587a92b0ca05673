"""How good the samples of a model are, measured without the model."""

import torch
import torch.nn.functional as F
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the Fréchet distance of two Gaussian distributions that are fitted to features (N, D) and (M, D).

    It is ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), and 0 for equal distributions.

    Reference: Dowson and Landau, "The Fréchet distance between multivariate normal distributions", Journal of
    Multivariate Analysis 12, 1982; used for images by Heusel et al., NeurIPS 2017.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(a.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # The eigenvalues of Σ_a Σ_b are those of the symmetric matrix Σ_a^½ Σ_b Σ_a^½.
    product = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * product)


def coarse(images: Tensor, size: int = 8) -> Tensor:
    """Return the grey values of images (N, 1, H, W), averaged over size × size blocks: (N, size²)."""
    return F.adaptive_avg_pool2d(images, size).flatten(1)


def diversity(features: Tensor, y: Tensor) -> float:
    """Return the mean distance of two samples of the same class: features (N, D), classes y (N,)."""
    distances = []
    for label in y.unique():
        of_class = features[y == label]
        if (count := len(of_class)) > 1:
            distances.append(torch.cdist(of_class, of_class).sum() / (count * (count - 1)))
    return float(torch.stack(distances).mean())


def sample_quality(chains: Tensor, starts: Tensor, real: Tensor) -> float:
    """Return how far chains are from real images, relative to their starts: 1 is no better than the starts, 0 is best.

    It is a ratio of Fréchet distances of coarse images. No network takes part, so the value is comparable between
    epochs and between models.

    chains, starts, real: (N, 1, H, W), (N, 1, H, W) and (M, 1, H, W), with the same proportions of the classes.
    """
    target = coarse(real)
    return frechet_distance(coarse(chains), target) / frechet_distance(coarse(starts), target)
