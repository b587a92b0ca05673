"""Where a check's inputs and the reference's observations come from: live, or recorded for the student's machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ebmcourse.checking.observation import decode, encode
from ebmcourse.checking.observer import Call
from ebmcourse.checking.probe import Student, probe_source, reset_world

Make = Callable[[np.random.Generator], Any]
PUBLIC_SEED = "public"


def derive(seed: str, name: str) -> int:
    """A number of 63 bits that depends on the seed and the name only."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little") >> 1


class Answers(Protocol):
    """The trusted half of every question."""

    seed: str

    def draw(self, name: str, make: Make) -> Any:
        """The inputs called `name`."""

    def want(self, key: str, call: Call) -> Any:
        """The reference's observation for the call `key`."""


class Live:
    """Inputs drawn from `seed`; observations of the reference solution in `folder`, made once for each call."""

    def __init__(self, seed: str, folder: Path) -> None:
        self.seed = seed
        self.inputs: dict[str, Any] = {}
        self.observations: dict[str, Any] = {}
        self._reference = Student(folder)

    def draw(self, name: str, make: Make) -> Any:
        if name not in self.inputs:
            self.inputs[name] = make(np.random.default_rng(derive(self.seed, name)))
        return self.inputs[name]

    def want(self, key: str, call: Call) -> Any:
        if key not in self.observations:
            namespace: dict[str, Any] = {"__name__": "probes"}
            source = probe_source(call.file, call.probe)
            exec(compile(source, f"<probes of {call.file.name}>", "exec"), namespace)
            reset_world(call.seed)
            arguments = decode(encode(list(call.inputs)))  # a copy: the reference may change it in place
            self.observations[key] = decode(encode(namespace[call.probe](self._reference, *arguments)))
        return self.observations[key]


class Recorded:
    """What `Live` answered with the public seed when the assignment was released."""

    seed = PUBLIC_SEED

    def __init__(self, file: Path) -> None:
        record = decode(file.read_bytes())
        self._inputs = record["inputs"]
        self._observations = record["observations"]

    def draw(self, name: str, make: Make) -> Any:
        return self._inputs[name]

    def want(self, key: str, call: Call) -> Any:
        return self._observations[key]


def record(live: Live) -> bytes:
    """All that `live` was asked for, in the form that `Recorded` reads."""
    return encode(
        {"inputs": dict(sorted(live.inputs.items())), "observations": dict(sorted(live.observations.items()))}
    )
