"""Checks: probes that observe a program, and judgements that compare it with the reference.

What a check's author needs::

    from ebmcourse.checking import assert_close, exercise, fail, inputs, probe
"""

from ebmcourse.checking.compare import Mismatch, assert_close, assert_either_way, difference, fail
from ebmcourse.checking.drawing import Panel, drawing
from ebmcourse.checking.exercise import exercise, inputs
from ebmcourse.checking.probe import probe, ways

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
    "ways",
]
