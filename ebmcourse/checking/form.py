"""The form of an observation: which values a judgement may be given, and which ones may pass.

A submission chooses what it sends. So before a judgement looks at an observation, it must have the structure of the
reference's and be of similar size: then no judgement takes much longer than for the reference. And whatever a judgement
says, undefined and infinite values cannot pass where the reference has none.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Any

import torch

from ebmcourse.checking.observation import Size, Ways, encoded_size

# A wrong answer may be larger than the right one: (B, B) instead of (B,), a table with a row for every step.
FACTOR = 8
MORE_NUMBERS = 4096
MORE_ITEMS = 64
MORE_CHARACTERS = 1000
MORE_BYTES = Size(tree=2**14, total=2**16)  # for one call; an error takes less than 4096 bytes


def largest_answer(want: Any) -> Size:
    """The size in bytes that the answer to a call may have if the reference's observation is `want`."""
    size = encoded_size(want)
    return Size(FACTOR * size.tree + MORE_BYTES.tree, FACTOR * size.total + MORE_BYTES.total)


def misfit(got: Any, want: Any) -> str | None:
    """Why a judgement cannot look at an observation; None where it can.

    It has no dict, list or tensor where the reference's has one, or it is `TOO_LARGE`: it holds far more numbers, items
    or characters. Shapes, lengths of lists and numbers may differ. Of several ways to the same observation (`Ways`),
    those that do not fit are taken out, as if they had not been observed, unless none fits or one is too large.
    """
    if isinstance(want, torch.Tensor):
        if not isinstance(got, torch.Tensor):
            return expected("a tensor", got)
        return TOO_LARGE if got.numel() > FACTOR * want.numel() + MORE_NUMBERS else None
    if isinstance(want, Ways):
        if not isinstance(got, Ways) or got.keys() != want.keys():
            return "The value has another structure than expected."
        misfits = {way: misfit(got[way], _model(want, way)) for way in got if got[way] is not None}
        if misfits and all(misfits.values()):
            return next(iter(misfits.values()))
        got.update({way: None for way, reason in misfits.items() if reason})
        return TOO_LARGE if TOO_LARGE in misfits.values() else None if misfits else "Nothing could be observed."
    if isinstance(want, dict):
        if type(got) is not dict or got.keys() != want.keys():
            return "The value has another structure than expected."
        return first(misfit(got[key], want[key]) for key in want)
    if isinstance(want, list):
        if not isinstance(got, list):
            return expected("a list", got)
        if len(got) > FACTOR * len(want) + MORE_ITEMS:
            return TOO_LARGE
        return first(misfit(item, model) for item, model in _paired(got, want))
    if isinstance(got, dict | list):
        return expected(_kind_of(want), got)
    if isinstance(got, torch.Tensor):
        return TOO_LARGE if got.numel() > FACTOR + MORE_NUMBERS else None
    if isinstance(got, str):
        return TOO_LARGE if len(got) > FACTOR * len(want if isinstance(want, str) else "") + MORE_CHARACTERS else None
    return None


def unsound(got: Any, want: Any) -> str | None:
    """Why an observation that fits cannot pass, whatever the judgement says; None where it can.

    A number or text must be one where the reference's is, and must be finite unless the reference's is not.
    """
    if isinstance(want, Ways):
        reason = None
        for way in got:
            if got[way] is not None:
                found = unsound(got[way], _model(want, way))
                if found is None:
                    return None
                reason = reason or found
        return reason
    if isinstance(want, dict):
        return first(unsound(got[key], want[key]) for key in want)
    if isinstance(want, list):
        return first(unsound(item, model) for item, model in _paired(got, want))
    if isinstance(want, torch.Tensor):
        return None if _is_finite(got) or _may_be_infinite(got, want) else NOT_FINITE
    if want is None:
        return None
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.item()
    if isinstance(want, bool | str):
        return None if type(got) is type(want) else expected(_kind_of(want), got)
    if not isinstance(got, int | float) or isinstance(got, bool):
        return expected(_kind_of(want), got)
    return NOT_FINITE if math.isfinite(want) and not math.isfinite(got) else None


def other_shape(got: Any, want: Any) -> str | None:
    """How an observation that fits differs in shapes, types of numbers or lengths of lists; None where it does not.

    This is what is wrong where a judgement stops with an exception.
    """
    if isinstance(want, Ways):
        return first(other_shape(got[way], _model(want, way)) for way in got if got[way] is not None)
    if isinstance(want, dict):
        return first(other_shape(got[key], want[key]) for key in want)
    if isinstance(want, list):
        if len(got) != len(want):
            return f"There are too {'few' if len(got) < len(want) else 'many'} items."
        return first(map(other_shape, got, want))
    if not isinstance(want, torch.Tensor):
        return None
    return shape_difference(got, want) or ("The numbers have another dtype." if got.dtype is not want.dtype else None)


def shape_difference(got: torch.Tensor, want: torch.Tensor) -> str | None:
    """How the shapes of two tensors differ, in one sentence; None where they are equal."""
    if got.dim() != want.dim():
        return f"The shape is wrong: {_dimensions(got)} instead of {_dimensions(want)}."
    if got.shape != want.shape:
        wrong = [str(axis) for axis in range(want.dim()) if got.shape[axis] != want.shape[axis]]
        return f"The shape is wrong: the size of axis {', '.join(wrong)} (counted from 0) differs."
    return None


TOO_LARGE = "The value is much larger than expected."
NOT_FINITE = "There are infinite or undefined (NaN) values."


def _is_finite(got: torch.Tensor) -> bool:
    """Whether all numbers are finite; a finite sum, which is faster to get, proves it."""
    if not got.is_floating_point():
        return True
    return math.isfinite(got.sum().item()) or bool(got.isfinite().all())


def _may_be_infinite(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Whether the reference allows for the numbers that are not finite.

    Where it has infinite numbers itself, comparisons tell whether an infinity is at a wrong place; they may not tell
    what is undefined (NaN).
    """
    if got.shape != want.shape:
        return False
    is_finite = want.isfinite()
    return not bool(is_finite.all()) and not bool((got.isnan() & is_finite).any())


def first(reasons: Iterable[str | None]) -> str | None:
    """The first of several reasons that there is; None where there is none."""
    return next((reason for reason in reasons if reason), None)


def _paired(got: list[Any], want: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each item with the reference's; where there are more items, these with the reference's last one."""
    return zip(got, chain(want, repeat(want[-1] if want else None)), strict=False)


def _model(wanted: dict[str, Any], key: str) -> Any:
    """What `wanted` has under this key; another of several ways where the reference was not observed in this one."""
    if isinstance(wanted, Ways) and wanted.get(key) is None:
        return next((value for value in wanted.values() if value is not None), None)
    return wanted.get(key)


def _dimensions(value: torch.Tensor) -> str:
    return "a scalar" if value.dim() == 0 else f"{value.dim()} axis" if value.dim() == 1 else f"{value.dim()} axes"


def expected(kind: str, got: Any) -> str:
    """The sentence for a student who returns `got` where something of this kind is expected."""
    advice = " Is a `return` missing?" if got is None else ""
    return f"{kind[0].upper()}{kind[1:]} is expected, not {_kind_of(got)}.{advice}"


def _kind_of(value: Any) -> str:
    """What a value is, in words for a student."""
    if value is None:
        return "nothing (None)"
    kinds = {
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list or tuple",
        torch.Tensor: "a tensor",
    }
    return kinds.get(type(value), "a dictionary" if isinstance(value, dict) else "some other object")
