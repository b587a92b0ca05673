"""Scores for out-of-distribution (OOD) images, and how well they separate.

One orientation everywhere: a score is *larger for outliers*, and OOD is the positive class.
A `model` here is anything with `model(x, y=None)` -> f = -E (B,) and `model.get_logits(x)` -> (B, K).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor, nn

SCORES = ("px", "py", "mass")

Scores = Sequence[float] | np.ndarray | Tensor  # (N,), one number per image


def to_array(scores: Scores) -> np.ndarray:
    """Scores of any kind as float64 on the CPU."""
    if isinstance(scores, Tensor):
        scores = scores.detach().cpu().numpy()
    return np.asarray(scores, dtype=np.float64)


def grad_norm(model: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    """‖∂ log p(x) / ∂x‖₂ of every image: x (B, C, H, W) -> (B,), detached, ≥ 0.

    The partition function does not depend on x, so this is also ‖∂f(x)/∂x‖₂. Leaves no gradients in the
    parameters, and works inside `torch.no_grad()`.
    """
    images = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        f = model(images, y).sum()
        (gradient,) = torch.autograd.grad(f, images)
    return gradient.flatten(1).norm(dim=1).detach()


def score_fn(model: nn.Module, x: Tensor, y: Tensor | None = None, score: str = "px") -> Tensor:
    """The OOD score of every image, larger = more outlying: x (B, C, H, W) -> (B,), detached.

    * `px`: the energy E(x) = -f(x), or E(x, y) where labels are given;
    * `py`: -max_y p(y|x), the negative confidence of the classifier;
    * `mass`: ‖∂ log p(x)/∂x‖₂, the approximate mass score of Grathwohl et al. (2020) with the sign turned
    round: an image in a typical region has a flat neighbourhood. How well it separates differs from model to
    model.

    Raises ValueError for another score, and for y = -1: unlabelled images have no class-conditional energy.
    """
    if score not in SCORES:
        raise ValueError(f"There is no score {score!r}: choose one of {', '.join(SCORES)}.")
    if y is not None and bool((y < 0).any()):
        raise ValueError("y = -1 means unlabelled: leave y out to get the unconditional score.")
    if score == "px":
        return -model(x, y).detach()
    if score == "py":
        confidence = model.get_logits(x).softmax(dim=1).max(dim=1).values
        return -confidence.detach()
    return grad_norm(model, x, y)


def score_histogram(scores: Mapping[str, Scores], bins: int = 60) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Histograms of several groups of scores over common bins, to be drawn into one figure.

    scores: name of the group -> its scores. Returns the bin edges (bins + 1,), from the smallest to the
    largest score of all groups, and for every group its density (bins,), which integrates to 1, so that
    groups of different size compare.
    """
    values = {name: to_array(group) for name, group in scores.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    densities = {name: np.histogram(group, edges, density=True)[0] for name, group in values.items()}
    return edges, densities


def energy_threshold(scores_id: Scores, quantile: float = 0.95) -> float:
    """The threshold that accepts the share `quantile` of the in-distribution scores: images above it are
    taken for OOD.

    It is chosen without any OOD image, on held-out in-distribution (validation) scores.
    """
    return float(np.quantile(to_array(scores_id), quantile))


def ood_metrics(scores_id: Scores, scores_ood: Scores) -> dict[str, float]:
    """How well a score tells OOD images (label 1, positive) from in-distribution ones (label 0), free of a
    threshold.

    * `auroc`: the probability that an OOD image scores higher than an in-distribution image, ties counted
    half;
    * `aupr`: the average precision, with OOD as the positive class;
    * `fpr95`: the smallest share of in-distribution images that score at or above a threshold which at least
    95 % of the OOD images reach.
    """
    negatives, positives = to_array(scores_id), to_array(scores_ood)
    scores = np.concatenate([negatives, positives])
    labels = np.concatenate([np.zeros(len(negatives)), np.ones(len(positives))])
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "aupr": float(average_precision_score(labels, scores)),
        "fpr95": float(fpr[tpr >= 0.95].min()),
    }
