"""8: what divergence looks like. The series are drawn so that each rule decides some of them."""

import numpy as np
import torch

from ebmcourse.checking import assert_close, exercise, fail, inputs, probe

NAMES = ("not finite", "blow up", "sampler lost", "healthy")
LOW, HIGH, WINDOW = -1.5, 1.25, 10
LOST = "If the mean over the last `window` differences is below `low`, the sampler is lost."
BLOWN_UP = "If the mean over the last `window` differences is above `high`, the network blows up."
HEALTHY = "If the mean over the last `window` differences is between `low` and `high`, the training is healthy."
ONLY_LAST = "Only the last `window` differences count."
NOT_SINGLE = "Single steps do not decide: the mean over the last `window` steps does."
LARGE = "A large loss alone says nothing: look at the differences."
NOT_FINITE = "A training with a loss that is NaN or infinite is not finite."


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


def with_outliers(rng, place):
    """Gaps with the mean 0, of which one at this place is far below, and the one before far above."""
    drawn = series(rng, 0)
    drawn[place], drawn[place - 1] = drawn[place] - 9, drawn[place - 1] + 9
    return drawn


def with_one_high(rng):
    """Gaps with the mean 2 and a median near 0."""
    drawn = series(rng, 0)
    drawn[-4] += 2 * WINDOW
    return drawn


def shuffled(rng, cases):
    order = rng.permutation(len(cases))
    return [cases[number] for number in order]


@inputs
def trainings(rng):
    """Lists of losses and gaps, and what must hold for each of them."""
    healthy = rng.normal(0, 0.1, 30).tolist()
    levels = ((0, HEALTHY), (-6, LOST), (-1.75, LOST), (6, BLOWN_UP), (1.6, BLOWN_UP), (-1.3, HEALTHY), (1.0, HEALTHY))
    cases = [(healthy, series(rng, level), sentence) for level, sentence in levels]
    for early in ([-5.0] * 20, [5.0] * 20, [0.0] * 10 + [8.0] * 10):  # it was diverging, and has recovered
        cases.append((healthy, early + series(rng, 0)[20:], ONLY_LAST))
    cases.append((2 * healthy, [9.0] * 10 + [0.0] * 40 + series(rng, 0)[20:], ONLY_LAST))
    cases.append((2 * healthy, [0.0] * 50 + series(rng, 3)[20:], ONLY_LAST))
    cases += [(healthy, with_outliers(rng, place), NOT_SINGLE) for place in (-1, -5)]
    cases.append(([80.0 + loss for loss in healthy], series(rng, 0), LARGE))
    for bad in (float("nan"), float("inf"), -float("inf")):
        cases.append(([*healthy[:-1], bad], series(rng, 0), NOT_FINITE))
    cases.append(([float("nan")] * 30, series(rng, 0), NOT_FINITE))
    return shuffled(rng, cases)


@inputs
def hard(rng):
    """The same, where only a part of the rules is right."""
    healthy = rng.normal(0, 0.1, 30).tolist()
    early = [float("nan") if step == 4 else loss for step, loss in enumerate(healthy)]
    few = "With fewer steps than `window`, the training is healthy, unless a loss is not finite."
    bound = "A mean that equals `low` or `high` is healthy: it must be below or above."
    return shuffled(
        rng,
        [
            (early, series(rng, 0), "Any loss that is not finite counts, also long ago."),
            (
                [-float("inf") if step == 7 else loss for step, loss in enumerate(healthy)],
                series(rng, 0),
                "Any loss that is not finite counts, also long ago.",
            ),
            (early, series(rng, -3), "A loss that is not finite comes first, whatever the differences are."),
            (healthy[:9], [-4.0 - x for x in healthy[:9]], few),
            (healthy[:10], [-4.0 - x for x in healthy[:10]], "With exactly `window` steps, the mean can be computed."),
            (healthy, with_outliers(rng, -1), NOT_SINGLE),
            (healthy, with_outliers(rng, -5), NOT_SINGLE),
            (healthy, with_one_high(rng), "The mean counts, also where most of the last differences are small."),
            (healthy, [-5.0] * 20 + series(rng, 0)[20:], ONLY_LAST),
            (healthy, [5.0] * 20 + series(rng, -3)[20:], ONLY_LAST),
            (healthy, [0.0] * 10 + [8.0] * 10 + series(rng, 0)[20:], ONLY_LAST),
            (2 * healthy, [9.0] * 10 + [0.0] * 40 + series(rng, 0)[20:], ONLY_LAST),
            (2 * healthy, [0.0] * 50 + series(rng, 3)[20:], ONLY_LAST),
            (2 * healthy, [-3.0 + x for x in 2 * healthy], LOST),
            (healthy, series(rng, 1), HEALTHY),
            (healthy, series(rng, -1.4), HEALTHY),
            ([80.0 + loss for loss in healthy], series(rng, 0), LARGE),
            ([*healthy[:-1], float("inf")], series(rng, 0), NOT_FINITE),
            ([float("inf")] * 30, series(rng, 0), NOT_FINITE),
            (healthy[:3], healthy[:3], few),
            (early[:6], healthy[:6], few),
            (healthy, exact(rng, HIGH), bound),
            (healthy, exact(rng, LOW), bound),
        ],
    )


@probe
def names_of(student, trainings):
    """The index of the name of each training, or -1."""
    diagnose, names = student.deep_energy.diagnose, NAMES
    found = [diagnose(losses, gaps, low=LOW, high=HIGH, window=WINDOW) for losses, gaps in trainings]
    return torch.tensor([names.index(name) if name in names else -1 for name in found])


### BEGIN HIDDEN TESTS
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


def looked_at(losses_of):
    """The rules, where only some losses are looked at."""
    return lambda losses, gaps: 0 if not np.isfinite(losses_of(losses)).all() else rule(finite=False)(losses, gaps)


def mistakes_of(trainings):
    def swapped(losses, gaps):
        return {1: 2, 2: 1}.get(rule()(losses, gaps), rule()(losses, gaps))

    def only_nan(losses, gaps):
        return 0 if np.isnan(losses).any() else rule(finite=False)(losses, gaps)

    def only_infinite(losses, gaps):
        return 0 if np.isinf(losses).any() else rule(finite=False)(losses, gaps)

    def only_all(losses, gaps):
        return rule(finite=False)(losses, gaps) if np.isfinite(losses).any() else 0

    def late(losses, gaps):
        found = rule(finite=False)(losses, gaps)
        return found if found != 3 else rule()(losses, gaps)

    rules = {
        "The names are swapped: a large negative difference means that the sampler is lost.": swapped,
        "Only the last loss is looked at. Any loss that is not finite counts.": looked_at(lambda losses: losses[-1:]),
        "Only the losses of the last `window` steps are looked at. Any loss that is not finite counts.": looked_at(
            lambda losses: losses[-WINDOW:]
        ),
        "Losses that are not finite are not found. Use math.isfinite.": rule(finite=False),
        "Losses that are not finite count only if all are. A single one is enough.": only_all,
        "Infinite losses are not found. Use math.isfinite, not math.isnan.": only_nan,
        "A loss of NaN is not found. Use math.isfinite, not math.isinf.": only_infinite,
        "Losses that are not finite come first, whatever the differences are.": late,
        "Single steps decide. Use the mean over the window.": rule(mean=lambda x: x[-1]),
        "The smallest value of the window decides. Use the mean.": rule(mean=np.min),
        "The largest value of the window decides. Use the mean.": rule(mean=np.max),
        "The median of the window decides. Use the mean.": rule(mean=np.median),
        "The sum over the window decides. Use the mean.": rule(mean=np.sum),
        "The absolute values decide, so that the sign is lost. Use the mean of the differences.": rule(
            mean=lambda x: np.mean(np.abs(x))
        ),
        "The mean is that of all steps. Use the last `window` steps.": rule(whole=True),
        "The mean is that of the first steps. Use the last `window` steps.": rule(
            whole=True, mean=lambda x: np.mean(x[:WINDOW])
        ),
        "`window` is ignored: it is always 50.": rule(window=50),
        "The mean is that of the last 50 steps. Use the last `window` steps.": rule(
            whole=True, mean=lambda x: np.mean(x[-50:])
        ),
        "The sum of the last steps is divided by 50. Use the mean over `window` steps.": rule(
            whole=True, mean=lambda x: np.sum(x[-50:]) / 50
        ),
        "The number of steps is compared with 50. Compare it with `window`.": lambda losses, gaps: (
            rule()(losses, gaps) if len(gaps) >= 50 else rule(window=50)(losses, gaps)
        ),
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
        "`low` is ignored: it is always -2.": rule(low=-2.0),
        "`high` is ignored: it is always 2.": rule(high=2.0),
        "A blow up is never found.": rule(high=1e9),
        "A lost sampler is never found.": rule(low=-1e9),
        "The losses are compared with the bounds. Use the differences.": rule(values="losses"),
        "All trainings are healthy.": lambda losses, gaps: 3,
    }
    return {sentence: said(trainings, wrong) for sentence, wrong in rules.items()}


### END HIDDEN TESTS


@inputs
def wrong_names(_, trainings):
    """What known mistakes of `diagnose` say."""
    ### BEGIN HIDDEN TESTS
    return mistakes_of(trainings)
    ### END HIDDEN TESTS


def judge_names(run, trainings, mistakes):
    """Compare the names, and say which mistake explains all wrong ones or, if none or several do, what must hold."""
    got, want = run(names_of, [(losses, gaps) for losses, gaps, _ in trainings])
    if got.shape == want.shape and not torch.equal(got, want):
        if (got == -1).any():
            fail("Another text is returned than the four of the exercise.")
        known = [sentence for sentence, wrong in mistakes.items() if torch.equal(got, wrong)]
        if len(known) == 1:
            fail(known[0])
        fail(trainings[int((got != want).int().argmax())][2])
    assert_close(got, want)


@exercise(
    "8a", points=1, public=True, hint="Look at all losses first, then at the mean of the last `window` differences."
)
def test_signs_of_divergence(run, trainings, wrong_names):
    """`diagnose` tells losses that are not finite, a blow up and a lost sampler from a healthy training."""
    judge_names(run, trainings, wrong_names)


### BEGIN HIDDEN TESTS
@exercise("8a", points=0.5, hint="Only the mean over the last `window` steps counts, and only if there are so many.")
def test_rules_of_the_diagnosis(run, hard):
    """The order of the rules, the window, and its length matter."""
    judge_names(run, hard, mistakes_of(hard))


### END HIDDEN TESTS
