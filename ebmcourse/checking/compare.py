"""Comparison of a student's observation with the reference's, and the words for what differs.

What a judgement says may reach the student, and the student's values may have been chosen to carry hidden inputs
out. So a reason is made of fixed sentences and never repeats a value of either side.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from ebmcourse.checking.form import NOT_FINITE, expected, first, shape_difference, unsound
from ebmcourse.checking.outcome import DIFFERENT_NUMBERS


class Mismatch(AssertionError):
    """The student's observation is not the expected one.

    `reason` says in what way; `diagnosis`, where a known mistake gives exactly the student's value, names it.
    """

    def __init__(self, reason: str, diagnosis: str | None = None) -> None:
        super().__init__(diagnosis or reason)
        self.reason = reason
        self.diagnosis = diagnosis


def fail(diagnosis: str) -> None:
    """Fail the check with the name of the mistake."""
    raise Mismatch(diagnosis, diagnosis)


def assert_close(
    got: Any,
    want: Any,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    mistakes: dict[str, Any] | Callable[[], dict[str, Any]] | None = None,
) -> None:
    """Raise `Mismatch` unless `got` has the structure, the shapes and, up to the tolerance, the numbers of `want`.

    `mistakes` maps the description of a wrong answer to its value: the first that equals `got` is the diagnosis.
    Where these values take time, let `mistakes` be a function that makes them: it is called for wrong answers only.
    The defaults are about ten times what float32 and another order of summation change in these assignments.
    """
    reason = difference(got, want, rtol, atol)
    if reason is None:
        return
    if not _diagnosing.get():
        raise Mismatch(reason)
    known = mistakes() if callable(mistakes) else mistakes or {}
    is_numbers = isinstance(want, torch.Tensor) and want.is_floating_point()
    usual = {f"{name}.": change(want) for name, change in _USUAL_MISTAKES.items() if is_numbers}
    for name, wrong in {**known, **usual}.items():
        if difference(got, wrong, rtol, atol) is None and difference(wrong, want, rtol, atol) is not None:
            raise Mismatch(reason, name)
    raise Mismatch(reason)


@contextmanager
def without_diagnoses() -> Iterator[None]:
    """Let `assert_close` not look for known mistakes, which takes long, where only the verdict is of interest."""
    token = _diagnosing.set(False)
    try:
        yield
    finally:
        _diagnosing.reset(token)


_diagnosing = ContextVar("_diagnosing", default=True)


def assert_either_way(got: Any, want: Any, judge: Callable[[Any, Any], None]) -> None:
    """Pass where `judge` accepts one of several ways to the same observation: dicts of way -> observation or None.

    This is how one mistake costs once: a program is observed as a whole and also with stand-ins in the place of what
    other exercises ask for. Where no way passes, the first mismatch with a diagnosis counts, or else the first one.
    """
    mismatches = []
    for way in want:
        if got[way] is None or want[way] is None:
            continue
        try:
            judge(got[way], want[way])
            if reason := unsound(got[way], want[way]):
                raise Mismatch(reason)
            return
        except Mismatch as mismatch:
            mismatches.append(mismatch)
    mismatches.append(Mismatch("Nothing could be observed."))
    raise next((mismatch for mismatch in mismatches if mismatch.diagnosis), mismatches[0])


def difference(got: Any, want: Any, rtol: float, atol: float) -> str | None:
    """What is different between two observations, in one sentence; None where they agree up to the tolerance."""
    if isinstance(want, torch.Tensor):
        return _tensor_difference(got, want, rtol, atol)
    if isinstance(want, dict):
        if type(got) is not type(want) or got.keys() != want.keys():
            return "The value has another structure than expected."
        return first(difference(got[key], want[key], rtol, atol) for key in want)
    if isinstance(want, list):
        if not isinstance(got, list):
            return "The value has another structure than expected."
        if len(got) != len(want):
            return f"There are too {'few' if len(got) < len(want) else 'many'} items."
        return first(difference(a, b, rtol, atol) for a, b in zip(got, want, strict=True))
    if isinstance(want, float):
        if isinstance(got, torch.Tensor) and got.numel() == 1:
            got = got.item()
        if not isinstance(got, int | float):
            return expected("a number", got)
        if got == want:
            return None
        return _tensor_difference(torch.tensor(float(got)), torch.tensor(want), rtol, atol)
    return None if type(got) is type(want) and got == want else "The value is another one than expected."


def _tensor_difference(got: Any, want: torch.Tensor, rtol: float, atol: float) -> str | None:
    if not isinstance(got, torch.Tensor):
        return expected("a tensor", got)
    if reason := shape_difference(got, want):
        return reason
    got, want = got.double(), want.double()
    # Right values are most often equal, which takes a tenth of the time to find out.
    if got.equal(want) or torch.allclose(got, want, rtol=rtol, atol=atol, equal_nan=True):
        return None
    return NOT_FINITE if want.isfinite().all() and not got.isfinite().all() else DIFFERENT_NUMBERS


def _of_many(want: torch.Tensor, reduce: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The reduced value of several ones; a single value without its axis is neither a mean nor a sum."""
    return reduce(want) if want.numel() > 1 else want


_USUAL_MISTAKES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "The sign is wrong: these are the negated values": lambda want: -want,
    "There is an axis of size 1 too many at the end: squeeze it": lambda want: want.unsqueeze(-1),
    "The axes are transposed": lambda want: want.mT if want.dim() >= 2 else want,
    "These are the exponentials of the values": torch.exp,
    "This is the mean of all values; one value per item is expected": lambda want: _of_many(want, torch.mean),
    "This is the sum of all values; one value per item is expected": lambda want: _of_many(want, torch.sum),
}
