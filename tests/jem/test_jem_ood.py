"""OOD scores and metrics."""

import itertools

import ex_ood
import numpy as np
import pytest
import torch
from ex_model import ShallowCNN
from hypothesis import given
from hypothesis import strategies as st


def numeric_gradient(function, x, width=1e-3):
    gradient = torch.zeros_like(x)
    for index in itertools.product(*map(range, x.shape)):
        step = torch.zeros_like(x)
        step[index] = width
        gradient[index] = (function(x + step) - function(x - step)) / (2 * width)
    return gradient


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 2])], ids=["unconditional", "conditional"])
def test_grad_norm_is_the_norm_of_the_gradient_at_the_image(labels):
    model = ShallowCNN(hidden_features=2, num_classes=3).double()
    x = torch.randn(2, 1, 5, 6, dtype=torch.double)
    with torch.no_grad():
        norm = ex_ood.grad_norm(model, x, labels)
        gradients = numeric_gradient(lambda z: model(z, labels).sum(), x)
    torch.testing.assert_close(norm, gradients.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-8)
    assert not norm.requires_grad and not x.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scores_are_larger_for_outliers():
    model, x, y = (
        ShallowCNN(hidden_features=2, num_classes=3),
        torch.randn(4, 1, 16, 16),
        torch.tensor([0, 1, 2, 1]),
    )
    logits = model.get_logits(x).detach()
    torch.testing.assert_close(ex_ood.score_fn(model, x), -logits.logsumexp(dim=1))
    torch.testing.assert_close(ex_ood.score_fn(model, x, y), -logits[range(4), y])
    torch.testing.assert_close(ex_ood.score_fn(model, x, score="py"), -logits.softmax(dim=1).max(dim=1).values)
    torch.testing.assert_close(ex_ood.score_fn(model, x, score="mass"), ex_ood.grad_norm(model, x))
    with pytest.raises(ValueError, match="px, py, mass"):
        ex_ood.score_fn(model, x, score="energy")


few_values = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=25)


@given(few_values, few_values)
def test_ood_metrics_match_their_definitions(inside, outside):
    metrics = ex_ood.ood_metrics(inside, torch.tensor(outside))
    wins = np.mean([(o > i) + 0.5 * (o == i) for o in outside for i in inside])
    assert metrics["auroc"] == pytest.approx(wins)
    thresholds = [t for t in outside if np.mean(np.array(outside) >= t) >= 0.95]
    assert metrics["fpr95"] == pytest.approx(min(np.mean(np.array(inside) >= t) for t in thresholds))
    area, found = 0.0, 0.0
    for threshold in sorted(set(inside + outside), reverse=True):
        hits, false_alarms = sum(o >= threshold for o in outside), sum(i >= threshold for i in inside)
        area += (hits / len(outside) - found) * hits / (hits + false_alarms)
        found = hits / len(outside)
    assert metrics["aupr"] == pytest.approx(area)


def test_histograms_have_common_bins_and_the_threshold_is_a_quantile():
    groups = {"test": torch.randn(200).numpy(), "ood": torch.randn(50).numpy() + 3}
    edges, densities = ex_ood.score_histogram(groups, bins=20)
    assert len(edges) == 21 and edges[0] == min(map(np.min, groups.values())) and edges[-1] == groups["ood"].max()
    for name, density in densities.items():
        counts = [((groups[name] >= a) & (groups[name] < b)).sum() for a, b in itertools.pairwise(edges)]
        counts[-1] += (groups[name] == edges[-1]).sum()
        np.testing.assert_allclose(density * np.diff(edges) * len(groups[name]), counts, atol=1e-4)
    threshold = ex_ood.energy_threshold(groups["test"], 0.9)
    assert isinstance(threshold, float) and (groups["test"] <= threshold).mean() == pytest.approx(0.9, abs=1 / 200)
