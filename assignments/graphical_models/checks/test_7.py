"""7: the variational free energy."""

import math

import numpy as np
import torch
from calls import SINGLE, SMALLEST, judge_calls, judge_cases, judge_finite, like, scalar, unchanged
from stand_ins import number

from ebmcourse.checking import assert_close, exercise, fail, inputs, probe, require


@inputs
def energies(rng):
    return torch.from_numpy(rng.standard_normal((4, 5)))


@inputs
def q(rng):
    """Distributions (4, 5)."""
    return torch.from_numpy(rng.dirichlet(np.ones(5) * 2, 4))


@inputs
def sparse(rng):
    """Distributions (4, 5) with zeros in them."""
    drawn = rng.dirichlet(np.ones(5) * 2, 4) * (rng.permuted(np.tile([0, 0, 1, 1, 1], (4, 1)), axis=1))
    return torch.from_numpy(drawn / drawn.sum(1, keepdims=True))


@inputs
def beta(rng):
    return float(rng.choice([0.5, 2.0]) * rng.uniform(0.8, 1.2))


@inputs
def high(rng):
    """Energies in the thousands, of one sign in some rows and of the other in others."""
    signs = rng.permutation([-1, 1, 1, -1])[:, None]
    return torch.from_numpy(3000.0 * signs + rng.standard_normal((4, 5)))


@probe
def bounds_of(student, energies, q, beta):
    return student.graphical_models.variational_free_energy(energies.clone(), q.clone(), beta)


@probe
def gibbs_of(student, energies, beta):
    return student.graphical_models.gibbs(energies.clone(), beta)


@inputs
def wrong_bounds(_, energies, q, beta):
    """The results of known mistakes of `variational_free_energy`."""


@inputs
def wrong_gibbs(_, energies, beta):
    """The results of known mistakes of `gibbs`."""


@exercise("7a", points=0.75, public=True, hint="⟨E⟩ - H/β with H = -Σ q log q: the factor q occurs twice.")
def test_bound_of_every_row(run, energies, q, beta, wrong_bounds):
    """`variational_free_energy` is the average energy minus the entropy divided by β."""
    got, want = run(bounds_of, energies, q, beta)
    assert_close(got, want, mistakes=wrong_bounds)


@exercise("7a", points=0.25, public=True, hint="exp(-β E), divided by the sum over the row.")
def test_gibbs_distribution(run, energies, beta, wrong_gibbs):
    """`gibbs` returns exp(-β E) / Z of each row."""
    got, want = run(gibbs_of, energies, beta)
    assert_close(got, want, mistakes=wrong_gibbs)


@inputs
def normal(rng):
    """A normal distribution, noise, and the matrix of a quadratic energy."""
    root = rng.standard_normal((3, 3))
    return {
        "mean": torch.from_numpy(rng.standard_normal(3)),
        "log_std": torch.from_numpy(rng.uniform(-1, 0.7, 3)),
        "noise": torch.from_numpy(rng.standard_normal((7, 3))),
        "matrix": torch.from_numpy(root @ root.T),
    }


@probe
def quadratic(matrix):
    """The energy zᵀ A z of each row."""

    def energy(z):
        require(isinstance(z, torch.Tensor) and z.dim() == 2, "The energy takes all samples at once, shape (S, D).")
        return ((z @ matrix) * z).sum(1)

    return energy


@probe
def sampled(student, case, beta):
    """The bound, and its gradients with respect to mean and log_std."""
    mean, log_std = case["mean"].clone().requires_grad_(), case["log_std"].clone().requires_grad_()
    energy = quadratic(case["matrix"])
    bound = student.graphical_models.sampled_bound
    value, again = (number(bound(energy, mean, log_std, case["noise"].clone(), beta)) for _ in range(2))
    require(isinstance(value, torch.Tensor) and value.requires_grad, "The bound must be a tensor with a gradient.")
    require(
        torch.equal(value, again),
        "Two calls with the same arguments give different bounds: use the given noise, and change nothing in place.",
    )
    slopes = torch.autograd.grad(value.sum(), [mean, log_std], allow_unused=True)
    require(
        slopes[0] is not None,
        "The bound has no gradient for the mean: it flows through the samples, mean + std · noise.",
    )
    require(slopes[1] is not None, "The bound has no gradient for log_std.")
    return {"bound": value.detach(), "mean": slopes[0], "log_std": slopes[1]}


@inputs
def wrong_samples(_, normal, beta):
    """The bounds of known mistakes of `sampled_bound`."""


@exercise("7b", points=0.75, public=True, hint="z = mean + exp(log_std) · noise; H = Σ (log_std + ½ log(2πe)).")
def test_bound_by_sampling(run, normal, beta, wrong_samples):
    """`sampled_bound` is the mean energy of the samples minus the entropy divided by β."""
    got, want = run(sampled, normal, beta)
    assert_close(got["bound"], want["bound"], mistakes=wrong_samples)
    # Without reparameterisation, the gradients lack the part that comes from the samples.
    assert_close(
        {"mean": got["mean"], "log_std": got["log_std"]},
        {"mean": want["mean"], "log_std": want["log_std"]},
        mistakes={
            "No gradient flows through the samples: do not detach them.": {
                "mean": torch.zeros(3).double(),
                "log_std": torch.full((3,), -1 / beta).double(),
            }
        },
    )
