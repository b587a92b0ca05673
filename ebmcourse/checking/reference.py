"""Where a check's inputs and the reference's observations come from: live, or recorded for the student's machine."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ebmcourse.checking.observation import decode, encode
from ebmcourse.checking.observer import Call
from ebmcourse.checking.probes import probe_source
from ebmcourse.checking.untrusted.student import Student, reset_state

Make = Callable[[np.random.Generator], Any]
PUBLIC_SEED = "public"


def derive(seed: str, name: str) -> int:
    """A number of 63 bits that depends on the seed and the name only."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") >> 1


class Reference(Protocol):
    """The trusted side of every call: its inputs, and the observation that is expected."""

    seed: str

    def draw(self, name: str, make: Make) -> Any:
        """The inputs called `name`."""

    def observation(self, key: str, call: Call) -> Any:
        """What the probe of the call `key` observes of the reference."""


class LiveReference:
    """Inputs drawn from `seed`; observations of the solution in `folder`, made once for each call.

    `drawn` are inputs that another reference with this seed has drawn.
    """

    def __init__(self, seed: str, folder: Path, drawn: dict[str, Any] | None = None) -> None:
        self.seed = seed
        self.inputs: dict[str, Any] = {}
        self.observations: dict[str, Any] = {}
        self._drawn = drawn or {}
        self._solution = Student(folder)

    def draw(self, name: str, make: Make) -> Any:
        if name not in self.inputs:
            known = name in self._drawn
            self.inputs[name] = self._drawn[name] if known else make(np.random.default_rng(derive(self.seed, name)))
        return self.inputs[name]

    def observation(self, key: str, call: Call) -> Any:
        if key not in self.observations:
            namespace: dict[str, Any] = {"__name__": "probes"}
            source = probe_source(call.file, call.probe)
            exec(compile(source, f"<probes of {call.file.name}>", "exec"), namespace)
            reset_state(call.seed)
            arguments = decode(encode(list(call.inputs)))  # a copy: the solution may change it in place
            self.observations[key] = decode(encode(namespace[call.probe](self._solution, *arguments)))
        return self.observations[key]


class RecordedReference:
    """What a `LiveReference` with the public seed gave when the assignment was released.

    `files` maps each part to the names of the files with its checks. Raises OSError where there is no recording, and
    ValueError where it is damaged.
    """

    seed = PUBLIC_SEED

    def __init__(self, file: Path) -> None:
        recorded = decode(file.read_bytes())
        try:
            self._inputs, self._observations = recorded["inputs"], recorded["observations"]
            self.files: dict[str, list[str]] = recorded["files"]
        except (KeyError, TypeError) as error:
            raise ValueError("these bytes are not a recording") from error

    def draw(self, name: str, make: Make) -> Any:
        return self._inputs[name]

    def observation(self, key: str, call: Call) -> Any:
        return self._observations[key]


def record(live: LiveReference, files: dict[str, list[str]]) -> bytes:
    """All inputs and observations that `live` has made, in the form that `RecordedReference` reads."""
    return encode(
        {
            "files": files,
            "inputs": dict(sorted(live.inputs.items())),
            "observations": dict(sorted(live.observations.items())),
        }
    )
