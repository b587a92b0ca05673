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


def grad_norm(model: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    """‖∂ log p(x) / ∂x‖₂ of every image: x (B, C, H, W) -> (B,), detached, ≥ 0.

    The partition function does not depend on x, so this is also ‖∂f(x)/∂x‖₂. Leaves no gradients in the
    parameters, and works inside `torch.no_grad()`.
    """
    # TODO (3.6a): Return the Euclidean norm of the gradient of f at every image, shape (B,).
    # Sum f over the batch, differentiate with respect to (a copy of) x, and take the norm over all pixels of
    # one image.
    raise NotImplementedError("Exercise 3.6a: Return the Euclidean norm of the gradient of f at every image, shape (B,).")


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
    # TODO (3.6a): Return the score named by `score` for every image, shape (B,), detached; larger = more outlying.
    # Mind the signs: the network returns f = -E.
    raise NotImplementedError("Exercise 3.6a: Return the score named by `score` for every image, shape (B,), detached; larger = more outlying.")


def score_histogram(scores: Mapping[str, Scores], bins: int = 60) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Histograms of several groups of scores over common bins, to be drawn into one figure.

    scores: name of the group -> its scores. Returns the bin edges (bins + 1,), from the smallest to the
    largest score of all groups, and for every group its density (bins,), which integrates to 1, so that
    groups of different size compare.
    """
    # TODO (3.6b): Return common bin edges (bins + 1,) and the density (bins,) of every group over these bins.
    # See numpy.histogram_bin_edges and numpy.histogram.
    raise NotImplementedError("Exercise 3.6b: Return common bin edges (bins + 1,) and the density (bins,) of every group over these bins.")


def energy_threshold(scores_id: Scores, quantile: float = 0.95) -> float:
    """The threshold that accepts the share `quantile` of the in-distribution scores: images above it are
    taken for OOD.

    It is chosen without any OOD image, on held-out in-distribution (validation) scores.
    """
    # TODO (3.6b): Return the `quantile` of the in-distribution scores, a float.
    raise NotImplementedError("Exercise 3.6b: Return the `quantile` of the in-distribution scores, a float.")


def ood_metrics(scores_id: Scores, scores_ood: Scores) -> dict[str, float]:
    """How well a score tells OOD images (label 1, positive) from in-distribution ones (label 0), free of a
    threshold.

    * `auroc`: the probability that an OOD image scores higher than an in-distribution image, ties counted
    half;
    * `aupr`: the average precision, with OOD as the positive class;
    * `fpr95`: the smallest share of in-distribution images that score at or above a threshold which at least
    95 % of the OOD images reach.
    """
    # TODO (3.6c): Return a dict with the keys "auroc", "aupr" and "fpr95", each a float in [0, 1].
    # Give the in-distribution scores the label 0 and the OOD scores the label 1, and rank by the *score*: a
    # prediction cut at a threshold has lost the ranking. sklearn.metrics and torchmetrics both have what is
    # needed.
    raise NotImplementedError("Exercise 3.6c: Return a dict with the keys \"auroc\", \"aupr\" and \"fpr95\", each a float in [0, 1].")
