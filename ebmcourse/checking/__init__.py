"""Checks: probes that observe a program, and judgements that compare it with the reference.

What the author of a check needs::

    from ebmcourse.checking import assert_close, exercise, fail, inputs, probe

Names are imported at their first use: a command that only reads results does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ebmcourse.checking.check import exercise, inputs
    from ebmcourse.checking.compare import Mismatch, assert_close, assert_either_way, difference, fail
    from ebmcourse.checking.drawings import Panel, drawing
    from ebmcourse.checking.probes import probe
    from ebmcourse.checking.untrusted.student import require, ways

__all__ = [
    "Mismatch",
    "Panel",
    "assert_close",
    "assert_either_way",
    "difference",
    "drawing",
    "exercise",
    "fail",
    "inputs",
    "probe",
    "require",
    "ways",
]

_MODULES = {
    "check": ("exercise", "inputs"),
    "compare": ("Mismatch", "assert_close", "assert_either_way", "difference", "fail"),
    "drawings": ("Panel", "drawing"),
    "probes": ("probe",),
    "untrusted.student": ("require", "ways"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
