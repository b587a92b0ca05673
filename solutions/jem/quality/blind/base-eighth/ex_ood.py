"""Scores for the detection of out-of-distribution (OOD) images, and metrics for these scores.

All scores have the same orientation: a score is *larger for outliers*, and OOD is the positive class.
`model` is a module that is called as `model(x)` or `model(x, y)` -> f = -E (B,), with positional arguments, and has
`model.get_logits(x)` -> logits (B, K).

Reference for the scores: Grathwohl et al., "Your classifier is secretly an energy based model and you should
treat it like one", ICLR 2020, section 5.3.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor, nn

SCORES = ("px", "py", "mass")

# (N,), one number per image. The functions below accept lists, arrays and tensors.
Scores = Sequence[float] | np.ndarray | Tensor


def to_numpy(scores: Scores) -> np.ndarray:
    """Lists, arrays and tensors become float64 arrays."""
    if torch.is_tensor(scores):
        scores = scores.detach().cpu().double().numpy()
    return np.asarray(scores, dtype=np.float64)


def grad_norm(model: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Return ‖∂ log q(x) / ∂x‖₂ of each image: x (B, C, H, W) -> (B,), detached.

    This equals ‖∂f(x)/∂x‖₂, because the partition function does not depend on x. With labels y (B,), f(x, y) is used.
    The function works inside `torch.no_grad()`. After the call, the parameters, their gradients and requires_grad, and
    the mode of each module, train or eval, are as before, and so is x.
    """
    x = x.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        value = model(x) if y is None else model(x, y)
        grad = torch.autograd.grad(value.sum(), x)[0]
    return grad.flatten(1).norm(dim=1)


def score_fn(model: nn.Module, x: Tensor, y: Tensor | None = None, score: str = "px") -> Tensor:
    """Return the OOD score of each image, larger for outliers: x (B, C, H, W) -> (B,), detached.

    * `px`: the energy E(x) = -f(x), or E(x, y) = -f(x, y) if labels y (B,) are given.
    * `py`: -max_y q(y|x), the negative confidence of the classifier, whether labels are given or not.
    * `mass`: ‖∂ log q(x)/∂x‖₂, or ‖∂ log q(x, y)/∂x‖₂ if labels are given, the result of `grad_norm`. It is the
      negative of the approximate mass score of Grathwohl et al. (2020). The density should change little around
      typical images. How well this score works depends on the model.

    After the call, the mode of each module of the network, train or eval, is as before, and so is x.
    Raises ValueError for another name, and for a label -1: unlabelled images have no class-conditional energy.
    """
    if score not in SCORES:
        raise ValueError(f"Unknown score {score!r}: use one of {', '.join(SCORES)}.")
    if y is not None and bool((y < 0).any()):
        raise ValueError("y = -1 means unlabelled: omit y to compute the unconditional score.")
    if score == "mass":
        return grad_norm(model, x, y)
    with torch.no_grad():
        if score == "py":
            probs = model.get_logits(x).softmax(dim=1)
            return -probs.max(dim=1).values
        f = model(x) if y is None else model(x, y)
        return -f


def score_histogram(scores: Mapping[str, Scores], bins: int = 60) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Compute histograms of several groups of scores with common bins, for one figure.

    scores: the scores (N,) of each group, by the name of the group.
    Returns the bin edges (bins + 1,), from the smallest to the largest score of all groups, and the density (bins,)
    of each group. A density integrates to 1, so groups of different sizes can be compared.
    """
    groups = {name: to_numpy(values) for name, values in scores.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(groups.values())), bins=bins)
    densities = {name: np.histogram(values, bins=edges, density=True)[0] for name, values in groups.items()}
    return edges, densities


def energy_threshold(scores_id: Scores, quantile: float = 0.95) -> float:
    """Return the threshold above which an image is classified as OOD: the `quantile` of in-distribution scores.

    scores_id: the scores (N,) of held-out in-distribution (validation) images. OOD images are not used, because they
    are not known in advance. quantile: from 0 to 1; for 1, the threshold is the largest score. All usual definitions of
    a quantile between two scores are accepted.
    """
    return float(np.quantile(to_numpy(scores_id), quantile))


def ood_metrics(scores_id: Scores, scores_ood: Scores) -> dict[str, float]:
    """Measure how well a score separates OOD images (positive, label 1) from in-distribution images (label 0).

    scores_id: (N,); scores_ood: (M,). No threshold has to be chosen for these metrics:

    * `auroc`: the area under the ROC curve. It is the probability that an OOD image has a higher score than an
      in-distribution image, where ties count one half.
    * `aupr`: the average precision, with OOD as the positive class.
    * `fpr95`: the false positive rate at the largest threshold that detects at least 95 % of the OOD images.
      An image is detected if its score is at or above the threshold.
    """
    inside, outside = to_numpy(scores_id), to_numpy(scores_ood)
    labels = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    scores = np.concatenate([inside, outside])
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    fpr95 = fpr[tpr >= 0.95][0]
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "aupr": float(average_precision_score(labels, scores)),
        "fpr95": float(fpr95),
    }
