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


### BEGIN HIDDEN TESTS
def bounds_by_mistakes(energies, q, beta):
    """The results of known mistakes of `variational_free_energy`."""
    average, entropy = (q * energies).sum(1), -torch.xlogy(q, q).sum(1)
    return {
        "The entropy lacks its factor q, as in the lecture notes.": average + q.log().sum(1) / beta,
        "The sign of the entropy is wrong: it is subtracted.": average + entropy / beta,
        "The entropy is multiplied by β: divide it.": average - beta * entropy,
        "β has no effect.": average - entropy,
        "The entropy is missing.": average,
        "The average is not weighted by q.": energies.mean(1) - entropy / beta,
        "The average energy is divided by the number of states: it is the sum of q E.": (
            (q * energies).mean(1) - entropy / beta
        ),
        "The entropy is divided by the number of states: it is a sum.": average - entropy / q.shape[1] / beta,
        "Both terms are divided by the number of states: they are sums.": (average - entropy / beta) / q.shape[1],
        "The sums run over the rows: each row has one number.": (q * energies + torch.xlogy(q, q) / beta).sum(0),
    }


def gibbs_by_mistakes(energies, beta):
    """The results of known mistakes of `gibbs`."""
    return {
        "High energies are likely: the sign in the exponent is wrong.": (beta * energies).softmax(1),
        "β has no effect.": (-energies).softmax(1),
        "The energies are divided by β: multiply.": (-energies / beta).softmax(1),
        "The rows are not normalised: divide by the sum over the states.": (-beta * energies).exp(),
        "The columns add up to 1, not the rows.": (-beta * energies).softmax(0),
    }


### END HIDDEN TESTS


@inputs
def wrong_bounds(_, energies, q, beta):
    """The results of known mistakes of `variational_free_energy`."""
    ### BEGIN HIDDEN TESTS
    return bounds_by_mistakes(energies, q, beta)
    ### END HIDDEN TESTS


@inputs
def wrong_gibbs(_, energies, beta):
    """The results of known mistakes of `gibbs`."""
    ### BEGIN HIDDEN TESTS
    return gibbs_by_mistakes(energies, beta)
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@exercise("7a", points=0.25, hint="0 · log 0 counts as 0: torch.xlogy.")
def test_impossible_states(run, energies, sparse, beta):
    """States with q = 0 add nothing to the bound."""
    got, want = run(bounds_of, energies, sparse, beta)
    kept = (sparse > 0).all(0)
    dropped = (sparse * energies + torch.xlogy(sparse, sparse) / beta)[:, kept].sum(1)
    if got.shape == want.shape and got.isnan().any():
        fail("The bound is undefined (NaN) where q is 0: 0 · log 0 counts as 0, see torch.xlogy.")
    missing = {"A state with q = 0 in one row is missing in all rows: mind each row by itself.": dropped}
    assert_close(got, want, mistakes=lambda: missing | bounds_by_mistakes(energies, sparse, beta))


@exercise("7a", points=0.25, hint="Use torch.softmax: exponentials of energies in the hundreds overflow.")
def test_gibbs_of_large_energies(run, high, beta):
    """`gibbs` is right for energies in the hundreds."""
    got, want = run(gibbs_of, high, beta)
    judge_finite(
        got, want, "There are infinite or undefined (NaN) values: exponentials overflow, torch.softmax does not."
    )
    assert_close(got, want, mistakes=lambda: gibbs_by_mistakes(high, beta))


@inputs
def tables(rng):
    """Energies and distributions: of a single state, of float32, and two of the same shape, the first of them twice."""

    def drawn(rows, count):
        q = rng.dirichlet(np.ones(count), rows)
        q[:, 1:2] = 0
        energies = rng.standard_normal((rows, count))
        return {"energies": torch.from_numpy(energies), "q": torch.from_numpy(q / q.sum(1, keepdims=True))}

    first, second = drawn(3, 7), drawn(3, 7)
    single = {name: item.float() for name, item in second.items()}
    return {"smallest": drawn(1, 1), "single": single, "first": first, "second": second, "again": first}


@probe
def bounds_of_several(student, tables, beta):
    seen = {}
    for name, case in tables.items():
        with unchanged(case["energies"], case["q"]):
            found = student.graphical_models.variational_free_energy(case["energies"], case["q"], beta)
        seen[name] = like(found, case["q"])
    return seen


@probe
def gibbs_of_several(student, tables, beta):
    seen = {}
    for name, case in tables.items():
        with unchanged(case["energies"]):
            seen[name] = like(student.graphical_models.gibbs(case["energies"], beta), case["energies"])
    return seen


SEVERAL = {"single": SINGLE, "smallest": SMALLEST}


@exercise(
    "7a",
    points=0.25,
    needs=(test_bound_of_every_row, test_impossible_states),
    hint="Any number of rows and states, also one; the result is like the energies.",
)
def test_bounds_of_several_tables(run, tables):
    """The bound is right for other sizes, for float32, for an integer β, and call after call."""
    got, want = run(bounds_of_several, tables, 2)
    judge_calls(got, want)
    judge_cases(got, want, SEVERAL)


@exercise(
    "7a",
    points=0.25,
    needs=(test_gibbs_distribution,),
    hint="Any number of rows and states, also one; the result is like the energies.",
)
def test_gibbs_of_several_tables(run, tables):
    """`gibbs` is right for other sizes, for float32, for an integer β, and call after call."""
    got, want = run(gibbs_of_several, tables, 3)
    judge_calls(got, want)
    judge_cases(got, want, SEVERAL)


### END HIDDEN TESTS


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
    ### BEGIN HIDDEN TESTS
    mean, log_std, noise = normal["mean"], normal["log_std"], normal["noise"]
    energy = quadratic(normal["matrix"])
    average = energy(mean + log_std.exp() * noise).mean()
    entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
    return {
        "The noise is multiplied by log_std: take its exponential.": energy(mean + log_std * noise).mean()
        - entropy / beta,
        "The noise is multiplied by the variance: multiply by the standard deviation.": energy(
            mean + (2 * log_std).exp() * noise
        ).mean()
        - entropy / beta,
        "log_std is taken as the log of the variance: it is that of the standard deviation.": energy(
            mean + (0.5 * log_std).exp() * noise
        ).mean()
        - entropy / beta,
        "The entropy is estimated from the samples: it is exact without them.": average
        - (log_std + 0.5 * math.log(2 * math.pi) + 0.5 * noise.square()).sum(1).mean() / beta,
        "This is the sum over the samples: take the mean.": energy(mean + log_std.exp() * noise).sum() - entropy / beta,
        "The sign of the entropy is wrong: it is subtracted.": average + entropy / beta,
        "The entropy is multiplied by β: divide it.": average - beta * entropy,
        "β has no effect.": average - entropy,
        "The entropy is the mean over the components: it is their sum.": average - entropy / len(mean) / beta,
        "The entropy is missing.": average,
        "The entropy lacks its constant, ½ log(2πe) for each component.": average - log_std.sum() / beta,
        "The constant of the entropy is added once: each component has one.": average
        - (log_std.sum() + 0.5 * math.log(2 * math.pi * math.e)) / beta,
        "The entropy of one component is ½ log(2πe) + log σ, not ½ log(2π) + log σ.": average
        - (log_std + 0.5 * math.log(2 * math.pi)).sum() / beta,
    }
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@inputs
def normals(rng):
    """One sample of one component, float32, and two cases of the same shape, the first of them twice."""

    def drawn(samples, count):
        return {
            "mean": torch.from_numpy(rng.standard_normal(count)),
            "log_std": torch.from_numpy(rng.uniform(-1, 0.7, count)),
            "noise": torch.from_numpy(rng.standard_normal((samples, count))),
        }

    first, second = drawn(4, 2), drawn(4, 2)
    single = {name: item.float() for name, item in second.items()}
    return {"smallest": drawn(1, 1), "single": single, "first": first, "second": second, "again": first}


@probe
def quartic(z):
    """The energy Σ z⁴ - z of each row."""
    return (z**4 - z).sum(1)


@probe
def several_bounds(student, normals, beta):
    seen = {}
    for name, case in normals.items():
        mean, log_std, noise = case["mean"], case["log_std"], case["noise"]
        with unchanged(mean, log_std, noise):
            seen[name] = like(scalar(student.graphical_models.sampled_bound(quartic, mean, log_std, noise, beta)), mean)
    return seen


@exercise(
    "7b",
    points=0.25,
    needs=(test_bound_by_sampling,),
    hint="Any number of samples and components, also one; the result has the shape ().",
)
def test_bounds_of_several_normals(run, normals):
    """`sampled_bound` is right for another energy, for other sizes, for float32, and call after call."""
    got, want = run(several_bounds, normals, 2)
    first = "The bound is wrong for another energy, other sizes or an integer β."
    judge_calls(got, want, sizes=first)
    judge_cases(got, want, SEVERAL)


### END HIDDEN TESTS
