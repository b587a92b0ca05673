"""8: what divergence looks like. The series are drawn so that each rule decides some of them."""

import numpy as np
import torch

from ebmcourse.checking import assert_close, exercise, inputs, probe

NAMES = ("not finite", "blow up", "sampler lost", "healthy")
LOW, HIGH, WINDOW = -1.5, 1.25, 10


def series(rng, level, count=30, noise=0.3):
    """Gaps with exactly this mean over the last ten steps."""
    drawn = rng.normal(0, noise, count)
    drawn[-WINDOW:] += level - drawn[-WINDOW:].mean()
    return drawn.tolist()


def exact(rng, level):
    """Gaps whose mean over the last ten steps is this level without rounding: multiples of 1/8."""
    drawn = rng.integers(-4, 5, 30) / 8
    drawn[-1] += WINDOW * level - drawn[-WINDOW:].sum()
    return drawn.tolist()


@inputs
def trainings(rng):
    """Lists of losses and gaps; the codes are the right names, by their index."""
    healthy = rng.normal(0, 0.1, 30).tolist()
    cases = [(healthy, series(rng, level), code) for level, code in ((0, 3), (-2, 2), (2, 1), (-1.3, 3), (1.0, 3))]
    for bad in (float("nan"), float("inf"), -float("inf")):
        cases.append(([*healthy[:-1], bad], series(rng, 0), 0))
    order = rng.permutation(len(cases))
    return [cases[number] for number in order]


@inputs
def hard(rng):
    """The same, where only a part of the rules is right."""
    healthy = rng.normal(0, 0.1, 30).tolist()
    early = [float("nan") if step == 4 else loss for step, loss in enumerate(healthy)]
    outlier = series(rng, 0)
    outlier[-1], outlier[-2] = outlier[-1] - 9, outlier[-2] + 9
    cases = [
        (early, series(rng, 0), 0),  # long ago
        (early, series(rng, -3), 0),  # comes first
        (healthy[:9], [-4.0 - x for x in healthy[:9]], 3),  # too few steps
        (healthy[:10], [-4.0 - x for x in healthy[:10]], 2),  # just enough
        (healthy, outlier, 3),  # single steps
        (healthy, [-5.0] * 20 + series(rng, 0)[20:], 3),  # it was lost, and has recovered
        (healthy, [5.0] * 20 + series(rng, -2)[20:], 2),
        ([80.0 + loss for loss in healthy], series(rng, 0), 3),  # a large loss alone says nothing
        (healthy[:3], healthy[:3], 3),
        (early[:6], healthy[:6], 0),  # not finite, in few steps
        (healthy, exact(rng, HIGH), 3),  # at the bounds
        (healthy, exact(rng, LOW), 3),
    ]
    order = rng.permutation(len(cases))
    return [cases[number] for number in order]


@probe
def names_of(student, trainings):
    """The index of the name of each training, or -1."""
    diagnose, names = student.deep_energy.diagnose, NAMES
    found = [diagnose(losses, gaps, low=LOW, high=HIGH, window=WINDOW) for losses, gaps, _ in trainings]
    return torch.tensor([names.index(name) if name in names else -1 for name in found])


def said(trainings, rule):
    return torch.tensor([rule(losses, gaps) for losses, gaps, _ in trainings])


def rule(*, low=LOW, high=HIGH, window=WINDOW, finite=True, mean=np.mean, whole=False, values="gaps", at=()):
    """The rules of the exercise, with a mistake."""

    def diagnose(losses, gaps):
        if finite and not np.isfinite(losses).all():
            return 0
        series = gaps if values == "gaps" else losses
        if len(series) < window:
            return 3
        level = mean(series if whole else series[-window:])
        if level in at:
            return 1 if level == high else 2
        return 1 if level > high else 2 if level < low else 3

    return diagnose


def last_only(losses, gaps):
    return 0 if not np.isfinite(losses[-1]) else rule(finite=False)(losses, gaps)


def mistakes_of(trainings):
    def swapped(losses, gaps):
        return {1: 2, 2: 1}.get(rule()(losses, gaps), rule()(losses, gaps))

    def only_nan(losses, gaps):
        return 0 if np.isnan(losses).any() else rule(finite=False)(losses, gaps)

    def late(losses, gaps):
        found = rule(finite=False)(losses, gaps)
        return found if found != 3 else rule()(losses, gaps)

    rules = {
        "The names are swapped: a large negative difference means that the sampler is lost.": swapped,
        "Only the last loss is looked at. Any loss that is not finite counts.": last_only,
        "Losses that are not finite are not found. Use math.isfinite.": rule(finite=False),
        "Infinite losses are not found. Use math.isfinite, not math.isnan.": only_nan,
        "Losses that are not finite come first, whatever the differences are.": late,
        "Single steps decide. Use the mean over the window.": rule(mean=lambda x: x[-1]),
        "The smallest value of the window decides. Use the mean.": rule(mean=np.min),
        "The largest value of the window decides. Use the mean.": rule(mean=np.max),
        "The mean is that of all steps. Use the last `window` steps.": rule(whole=True),
        "The mean is that of the first steps. Use the last `window` steps.": rule(
            whole=True, mean=lambda x: np.mean(x[:WINDOW])
        ),
        "`window` is ignored: it is always 50.": rule(window=50),
        "With fewer steps than `window`, it is too early to tell.": lambda losses, gaps: rule(
            window=min(WINDOW, len(gaps))
        )(losses, gaps),
        "With exactly `window` steps, the mean can be computed.": rule(
            window=WINDOW + 1, mean=lambda x: np.mean(x[-10:])
        ),
        "With few steps, losses that are not finite are not found. Look for them first.": lambda losses, gaps: (
            rule()(losses, gaps) if len(gaps) >= WINDOW else 3
        ),
        "A mean of exactly `high` counts as a blow up. It must be above `high`.": rule(at=(HIGH,)),
        "A mean of exactly `low` counts as a lost sampler. It must be below `low`.": rule(at=(LOW,)),
        "A mean that equals a bound counts as beyond it. It must be above `high` or below `low`.": rule(at=(HIGH, LOW)),
        "`low` and `high` are ignored: they are always -2 and 2.": rule(low=-2.0, high=2.0),
        "A blow up is never found.": rule(high=1e9),
        "A lost sampler is never found.": rule(low=-1e9),
        "The losses are compared with the bounds. Use the differences.": rule(values="losses"),
        "All trainings are healthy.": lambda losses, gaps: 3,
    }
    return {sentence: said(trainings, wrong) for sentence, wrong in rules.items()}


@exercise(
    "8a", points=1, public=True, hint="Look at all losses first, then at the mean of the last `window` differences."
)
def test_signs_of_divergence(run, trainings):
    """`diagnose` tells losses that are not finite, a blow up and a lost sampler from a healthy training."""
    got, want = run(names_of, trainings)
    assert_close(got, want, mistakes=lambda: mistakes_of(trainings))
