"""Runs nbgrader's commands without importing nbgrader, which takes seconds, for each of them.

A process imports it once, and every command runs in a fork of that process. As a program, this file is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile


def nbgrader(*arguments: str, cwd: Path, env: dict[str, str], ok: bool = True) -> str:
    """Run `nbgrader ARGUMENTS` in a folder with additional environment variables; return all its output."""
    path = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]  # nbgrader calls alembic
    with TemporaryFile() as output:
        request = {"arguments": arguments, "cwd": str(cwd), "env": {**os.environ, "PATH": path, **env}}
        process = _forking()
        assert process.stdin and process.stdout
        request["output"] = f"/proc/{os.getpid()}/fd/{output.fileno()}"
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        output.seek(0)
        said = output.read().decode()
    assert (code == 0) == ok, said
    return said


@cache
def _forking() -> subprocess.Popen[str]:
    """The process that imports nbgrader; it ends with this one, which closes its standard input."""
    command = [sys.executable, __file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _serve() -> None:
    import nbgrader.apps  # noqa: F401
    from nbgrader.apps.nbgraderapp import main

    for line in sys.stdin:
        request = json.loads(line)
        if not (child := os.fork()):
            _become(request)
            try:
                main()
            except SystemExit as end:
                os._exit(_flushed(end.code if isinstance(end.code, int) else end.code is not None))
            except BaseException:
                traceback.print_exc()
                os._exit(_flushed(1))
            os._exit(_flushed(0))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(request: dict) -> None:
    """Take the arguments, the folder, the environment and the output of a command."""
    sys.argv = ["nbgrader", *request["arguments"]]
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    descriptor = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _flushed(code: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code)


if __name__ == "__main__":
    _serve()
