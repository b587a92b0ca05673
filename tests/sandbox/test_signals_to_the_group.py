"""A submission cannot signal what is in its group of processes: the sandbox, and the next submission's container."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from autograder.sandbox.outside import Sandbox, SandboxProcess
from ebmcourse.checking import probe
from ebmcourse.checking.observer import Call, Observer


@probe
def stop_the_group(student: Any) -> Any:
    import os
    import signal

    os.kill(0, signal.SIGSTOP)
    os.kill(0, signal.SIGKILL)  # neither of them reaches the first process of a container from inside
    return os.getpgrp()


@pytest.mark.usefixtures("needs_sandbox")
def test_a_stopped_group_holds_up_nobody() -> None:
    with Sandbox() as sandbox:
        for _ in range(3):
            begin = time.monotonic()
            process = SandboxProcess(sandbox, {})
            observer = Observer(process, {}, {}, messages=False, budget=60)
            assert observer.observe(Call("test", Path(__file__), "stop_the_group", (), 0, 10.0)) == 1
            process.close()
            assert time.monotonic() - begin < 30
