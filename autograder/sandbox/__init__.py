"""Confinement of submissions: a sandbox with a warm process, which forks a container for every submission.

Runs in the grader, and never beside student code: `outside`, `visible`, `syscalls`, `cgroup`, `limits`, `selftest`.
Runs in the sandbox: `inside`, which the grader never imports, and the functions of `selftest_inside`.
Runs on both sides: `huge_pages`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autograder.sandbox.outside import Sandbox, SandboxProcess

__all__ = ["Sandbox", "SandboxProcess", "Unavailable"]


class Unavailable(Exception):
    """This machine cannot confine submissions; the message says what to do."""


def __getattr__(name: str) -> Any:
    """Import torch, which the others need, only where one of them is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from autograder.sandbox import outside

    return getattr(outside, name)
