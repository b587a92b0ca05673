"""Values that wrong programs return, for the diagnoses of several checks. They are computed from what was observed."""

import torch

NEARLY = (
    "The values are not exact: they differ from the right ones by less than 2 % of their range. "
    "They should not be rounded or limited, and no small number should be added."
)


def nearest(got, *candidates):
    """The candidate that is nearest to `got`: for one mistake that can be made in several ways."""

    def distance(candidate):
        one, other = (torch.as_tensor(value).double() for value in (got, candidate))
        is_same_shape = one.shape == other.shape
        return (one - other).abs().nan_to_num(torch.inf).max().item() if is_same_shape else torch.inf

    return min(candidates, key=distance)


def multiple(got, want):
    """`want` times the factor that brings it nearest to `got`; `want` itself where equality would prove nothing.

    Negated values are no multiple here: there is a better name for them.
    """
    if got.shape != want.shape or want.numel() < 4 or not got.isfinite().all():
        return want
    if want.std() < 0.02 * want.abs().max():
        return want
    factor = (got * want).sum() / want.square().sum()
    return want * factor if factor.abs() > 0.01 and (factor.abs() - 1).abs() > 0.01 else want


def limited(got, want):
    """`want` clamped to the range of `got`; `want` itself where equality would prove nothing."""
    if got.shape != want.shape or ((got > got.min()) & (got < got.max())).sum() < 4:
        return want
    return want.clamp(got.min(), got.max())


def nearly(got, want):
    """`got` if it differs from `want` by less than 2 % of the range of `want`; `want` itself otherwise."""
    return proven(got.shape == want.shape and (got - want).abs().max() < 0.02 * (want.max() - want.min()), got, want)


def proven(condition, got, want):
    """The wrong value `got` where a condition proves the mistake, or else `want`, which is no mistake."""
    return got if condition and torch.as_tensor(got).isfinite().all() else want
