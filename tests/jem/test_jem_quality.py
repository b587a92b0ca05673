"""The measures and tables of `benchmarks.jem_quality`."""

import gzip

import pytest
import torch
from ex_ood import ood_metrics
from jem_samples import small_jem

from benchmarks import jem_quality


def test_idx_files_are_read(tmp_path):
    path = tmp_path / "two-images.gz"
    sizes = b"".join(size.to_bytes(4, "big") for size in (2, 1, 3))
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + sizes + bytes(range(6))))
    assert jem_quality.read_idx(path).tolist() == [[[0, 1, 2]], [[3, 4, 5]]]


def test_the_fixed_score_adds_energy_and_entropy_in_units_of_the_validation_images():
    on_val = jem_quality.scores_of(3 * torch.randn(500, 4))
    fixed = jem_quality.with_fixed_score(on_val, on_val)
    score = fixed["z(energy) + z(entropy)"]
    assert score.mean().abs() < 1e-5 and list(fixed) == ["z(energy) + z(entropy)", "energy", "max softmax"]
    # Small logits mean a high energy and a high entropy, and so a large score.
    unsure = jem_quality.with_fixed_score(jem_quality.scores_of(0.1 * torch.randn(100, 4)), on_val)
    assert all(ood_metrics(inside, unsure[name])["auroc"] > 0.8 for name, inside in fixed.items())


def test_a_perfect_classifier_has_no_error_and_is_calibrated():
    y = torch.arange(50) % 3
    measured = jem_quality.classification(100 * torch.eye(3)[y], y)
    assert measured == {"accuracy": 1, "ece": pytest.approx(0, abs=1e-6)}


def test_chains_are_those_of_the_same_run_after_more_steps(monkeypatch):
    monkeypatch.setattr(jem_quality, "CHAIN_STEPS", (0, 3, 5))
    model, labels = small_jem(ccond_sample=True), torch.tensor([0, 1, 2])
    chains, again = (jem_quality.draw_samples(model, labels, seed=1) for _ in range(2))
    assert list(chains) == [0, 3, 5] and 0.2 < chains[0].std() < 0.4
    assert all(torch.equal(chains[steps], again[steps]) for steps in chains)
    assert not torch.equal(chains[3], chains[5])


def test_the_tables_replace_those_between_the_marks_and_show_the_spread_of_the_seeds():
    metrics = {"auroc": 0.9, "aupr": 0.8, "fpr95": 0.3}
    sample = {"agreement": 0.9, "frechet": 1.5, "diversity": 0.7}
    run = {"data": "mnist", "model": "conditional", "epochs": 9, "cpu_seconds": 100.0, "divergences": 0}
    run |= {"ece": 0.01, "detection": {"energy": {"noise": metrics}}, "samples": {"K = 60": sample}}
    results = [run | {"seed": seed, "accuracy": accuracy} for seed, accuracy in enumerate((0.98, 0.99))]
    page = f"before\n{jem_quality.START}\nold\n{jem_quality.END}\nafter\n"
    new = jem_quality.with_tables(page, results)
    assert "| conditional | 2 | 9 | 100 ± 0 | 98.50 ± 0.71 | 0.010 ± 0.000 | 0 |" in new
    assert "| conditional | K = 60 | 90.0 ± 0.0 | 1.50 ± 0.00 | 0.70 ± 0.00 |" in new
    assert new.startswith("before\n") and new.endswith("\nafter\n") and "old" not in new
    assert jem_quality.with_tables(new, results) == new
