"""The loop that answers one probe after another beside the student's code, in the sandbox or on a student's machine.

It holds no answers: a student's program that tampers with it can only change what is said about itself.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ebmcourse.checking.observation import MAX_BYTES, Encoder, copied, decode
from ebmcourse.checking.probe import Missing, Student, reset_world

_LENGTH = struct.Struct("<Q")


def write_frame(stream: IO[bytes], payload: bytes) -> None:
    """Send one message: its length in eight bytes, then itself."""
    stream.write(_LENGTH.pack(len(payload)) + payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Receive one message; None at the end of the stream. Raises ValueError for one that is too large or cut off."""
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size or (size := _LENGTH.unpack(head)[0]) > MAX_BYTES:
        raise ValueError("a message is malformed or too large")
    payload = stream.read(size)
    if len(payload) < size:
        raise ValueError("a message was cut off")
    return payload


def serve(reader: IO[bytes], writer: IO[bytes], folder: Path) -> None:
    """Answer requests about the submission in `folder` until the stream ends, see `answer`."""
    student = Student(folder)
    namespaces: dict[str, dict[str, Any]] = {}

    def is_own_file(file: str) -> bool:
        return Path(file).parent == folder

    while (frame := read_frame(reader)) is not None:
        write_frame(writer, answer(decode(frame), student, namespaces, is_own_file))


def answer(
    request: dict[str, Any], student: Any, namespaces: dict[str, dict[str, Any]], is_own_file: Callable[[str], bool]
) -> bytes:
    """Run the probes that are asked for beside `student`, one after the other, and return the encoded reply.

    A request is the observation ``{"ticket", "source", "values", "questions": [{"probe", "inputs", "seed"}, …]}``.
    Inputs are indices into the values, of which every question gets copies of its own. The reply is ``{"ticket",
    "answers"}`` with one answer to each question, ``{"value", "seconds"}`` or ``{"error", "seconds"}``. An error says
    what kind, and in which line of the submission; the ticket says to which request the reply belongs.
    `namespaces` keeps what each source of probes defines from one request to the next; `is_own_file` says whether a
    file name of a traceback is the submission's.
    """
    reply = Encoder()
    answers = []
    for question in request["questions"]:
        inputs = [copied(request["values"][place]) for place in question["inputs"]]
        reset_world(question["seed"])
        begin = time.perf_counter()
        try:
            probe = _namespace(request["source"], namespaces)[question["probe"]]
            value = probe(student, *inputs)
            seconds = time.perf_counter() - begin
            answers.append({"value": reply.add(value), "seconds": seconds})
        except BaseException as error:  # SystemExit, pytest's outcomes and whatever else a submission raises
            answers.append({"error": describe(error, is_own_file), "seconds": time.perf_counter() - begin})
    return reply.finish({"ticket": request["ticket"], "answers": answers})


def _namespace(source: str, namespaces: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if source not in namespaces:
        namespaces[source] = {"__name__": "probes"}
        exec(compile(source, "<probe>", "exec"), namespaces[source])
    return namespaces[source]


def describe(error: BaseException, is_own_file: Callable[[str], bool]) -> dict[str, Any]:
    """Say what went wrong: kind, name of the builtin exception, message, file not found, places from outer to inner."""
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno))
    places = [[Path(file).name, line or 0] for file, line in lines if is_own_file(file)]
    missing = f"{error.name}.py" if isinstance(error, ModuleNotFoundError) else ""
    return {
        "kind": _kind(error),
        "type": next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == "builtins"),
        "message": str(error)[:500],
        "missing": str(error) if isinstance(error, Missing) else missing,
        "places": places[-16:],
    }


def _kind(error: BaseException) -> str:
    if isinstance(error, NotImplementedError) and str(error).startswith("Exercise"):  # torch raises such errors too
        return "todo"
    if isinstance(error, Missing):
        return "missing"
    if isinstance(error, MemoryError) or re.search("allocate memory|out of memory|bad_alloc", str(error)):
        return "memory"
    return "error"


def main() -> None:
    """``python -m ebmcourse.checking.runner FOLDER MODULE…``: serve on standard input and output.

    The first message is answered when the modules have been imported, those that are there. The submission's own
    prints go to standard error, so that they cannot mix with the replies.
    """
    import os

    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for module in sys.argv[2:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
        write_frame(writer, read_frame(reader) or b"")
        serve(reader, writer, Path(sys.argv[1]).resolve())


if __name__ == "__main__":
    main()
