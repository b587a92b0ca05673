"""Forged replies: what the judge says when a submission sends numbers that it did not compute.

The observations of the reference are taken for those of a submission. One value after the other, every branch, and the
whole are replaced: by undefined numbers, by zeros, by noise, by what everybody knows. Then the check is judged, without
a sandbox: no check that depends on the value may pass, exceed its time, or end in an internal error. What survives must
be explained in ``quality/forged.toml`` of the assignment::

    [[explained]]
    check = "3.3a/buffer-is-bounded"       # patterns as in file names
    leaf = "#0.*.held"
    kind = "ones"
    reason = "Any number below the bound is right."

A leaf is called by the number of the call in its check and the way to it. Of several ways to observe the same, one at a
time is forged and the others are left out.
"""

import math
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

import torch

from autograder.assignment import Assignment
from autograder.grade import seed
from autograder.quality.cases import explanations
from autograder.release.programs import reference_program
from ebmcourse.checking.compare import difference, without_diagnoses
from ebmcourse.checking.judge import Judge, collect
from ebmcourse.checking.observation import Ways, encode
from ebmcourse.checking.observer import Call, NoObservation
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.reference import PUBLIC_SEED, LiveReference, derive

HUGE = 10**6  # items or numbers
REFUSED_ANYWHERE = {"nan", "inf", "-inf", "type", "huge"}  # no judgement is needed to refuse these
KINDS = (*sorted(REFUSED_ANYWHERE), "zeros", "ones", "noise", "public", "other", "empty", "large")

_KEYS = {"check": "a check", "leaf": "a leaf", "kind": "a kind"}

Path = tuple[str | int, ...]


class Same(Exception):
    """There is no value of this kind, or it is the right one."""


@dataclass(frozen=True)
class Survivor:
    """A forged reply that should have been refused, or a pattern of an explanation that matches none."""

    check: str
    leaf: str
    kind: str
    what: str = "passes"


@dataclass
class Forged:
    """The result of the measurement."""

    total: int = 0
    explained: int = 0
    survivors: list[Survivor] = field(default_factory=list)  # those without an explanation
    unused: list[str] = field(default_factory=list)  # explanations that explain nothing

    @property
    def killed(self) -> int:
        return self.total - self.explained - len(self.survivors)

    @property
    def complaints(self) -> list[str]:
        """What is wrong, one line for each check, leaf and outcome."""

        def where(survivor: Survivor) -> tuple[str, str, str]:
            return survivor.check, survivor.leaf, survivor.what

        lines = []
        for (check, leaf, what), group in groupby(self.survivors, where):
            lines.append(f"{check}: {leaf} {what} as {', '.join(survivor.kind for survivor in group)}")
        return lines + [f"forged.toml explains what does not happen: {about}" for about in self.unused]


def measure_forged(
    assignment: Assignment,
    *,
    known_seed: int = 0,
    only: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Forged:
    """Judge forged replies to all calls of the checks whose ``forged/id`` contains `only`."""
    if not any(only in f"forged/{check.id}" for check in collect(assignment.checks)):
        return Forged()
    with laid_out(reference_program(assignment)) as folder, without_diagnoses():
        public = LiveReference(PUBLIC_SEED, folder)
        assert Judge(assignment.checks, public).of_reference
        reference = LiveReference(seed.given(known_seed).value, folder)
        judge = Judge(assignment.checks, reference)
        judge.of_reference  # noqa: B018 (makes the calls)
        rights = {call: reference.observations[key] for key, call in judge.calls.items()}
        keys = [key for key in judge.calls if only in f"forged/{key.partition('#')[0]}"]
        found: list[Survivor] = []
        total = 0
        ignored: dict[tuple[str, str], list[bool]] = {}  # probe and leaf -> whether each check ignores the leaf
        for number, key in enumerate(keys):
            forger = _Forger(judge, key, rights, public.observations.get(key))
            found += forger.survivors
            total += forger.total
            call = judge.calls[key]
            for leaf, is_ignored in forger.ignored.items():
                ignored.setdefault((f"{call.file.stem}.{call.probe}", leaf), []).append(is_ignored)
            progress(number + 1, len(keys))
    if not only:
        found += [
            Survivor(f"all checks of {probe}", leaf, "anything") for (probe, leaf), by in ignored.items() if all(by)
        ]
    return _explained(assignment, found, total, all_checks=not only)


def _explained(assignment: Assignment, found: list[Survivor], total: int, *, all_checks: bool) -> Forged:
    entries = explanations(assignment.quality / "forged.toml", "explained", _KEYS)
    result, used = Forged(total), set()
    for survivor in found:
        matching = [number for number, entry in enumerate(entries) if _matches(entry, survivor)]
        used.update(matching)
        if matching:
            result.explained += 1
        else:
            result.survivors.append(survivor)
    if all_checks:
        result.unused = [
            f"{entry['check']}, {entry['leaf']}, {entry['kind']}"
            for number, entry in enumerate(entries)
            if number not in used
        ]
    return result


def _matches(entry: dict[str, str], survivor: Survivor) -> bool:
    names = ("check", "leaf", "kind")
    return survivor.what == "passes" and all(fnmatchcase(getattr(survivor, name), entry[name]) for name in names)


class _Observer:
    """In the place of an observer: gives the reference's observations, and a forged one for one call."""

    def __init__(self, rights: dict[Call, Any], call: Call, forged: Any) -> None:
        self.flags: list[str] = []
        self._rights, self._call, self._forged = rights, call, forged

    def observe(self, call: Call) -> Any:
        if call not in self._rights:  # is only made where another one was not right
            raise NoObservation("failed", "Another way is left out.")
        return self._forged if call is self._call else self._rights[call]


class _Forger:
    """Judges all forged replies to one call of one check."""

    def __init__(self, judge: Judge, key: str, rights: dict[Call, Any], public: Any) -> None:
        self.survivors: list[Survivor] = []
        self.ignored: dict[str, bool] = {}
        self.total = 0
        self._judge, self._rights, self._public = judge, rights, public
        self._check, self._number = key.split("#")
        self._call = judge.calls[key]
        self._judged: dict[bytes, str | None] = {}
        self._reported: set[bytes] = set()
        self._passed: dict[str, set[Path]] = {}  # kind -> leaves that pass
        right = rights[self._call]
        ways = [way for way in right if right[way] is not None] if isinstance(right, Ways) else [None]
        for way in ways:
            alone = Ways({name: right[name] if name == way else None for name in right}) if way else right
            if self._verdict(alone) == "passes":  # else this way is not enough to pass
                self._forge_all(alone, () if way is None else (way,))

    def _forge_all(self, right: Any, root: Path) -> None:
        """Forge every leaf and branch below `root`. A branch that holds only what the check ignores is left out."""
        whole = _at(right, root)
        leaves = list(_leaves(whole, root))
        read = {leaf for leaf in leaves if self._forge(right, leaf, leaves, may_be_ignored=leaf != root)}
        self.ignored |= {self._name(leaf): leaf not in read for leaf in leaves if leaf != root}
        for branch in _branches(whole, root):
            below = {leaf for leaf in read if leaf[: len(branch)] == branch}
            if branch == root or below:
                self._forge(right, branch, leaves, below=below)

    def _forge(
        self,
        right: Any,
        path: Path,
        leaves: list[Path],
        *,
        may_be_ignored: bool = False,
        below: AbstractSet[Path] = frozenset(),
    ) -> bool:
        """Judge all kinds of forgery of one leaf or branch; return whether the check depends on it.

        That a branch passes is no news where all leaves in it that the check depends on, `below`, pass alone.
        """
        name = self._name(path)
        found: list[tuple[bytes, Survivor]] = []
        depends = not may_be_ignored
        for kind in KINDS:
            try:
                value = self._value(kind, right, path, leaves)
            except Same:
                continue
            forged = _put(right, path, value)
            data = encode(forged) if kind != "huge" else name.encode()
            if data not in self._judged:
                self._judged[data] = self._verdict(forged)
                self.total += 1
            verdict = self._judged[data]
            depends |= verdict != "passes" and kind not in REFUSED_ANYWHERE
            if verdict == "passes":
                self._passed.setdefault(kind, set()).add(path)
            if verdict is not None and not (below and below <= self._passed.get(kind, set())):
                found.append((data, Survivor(self._check, name, kind, verdict)))
        for data, survivor in found:
            if data not in self._reported and (depends or survivor.what != "passes"):
                self._reported.add(data)
                self.survivors.append(survivor)
        return depends

    def _verdict(self, forged: Any) -> str | None:
        """What is wrong with the judgement of a forged reply; None where it is refused."""
        observer = _Observer(self._rights, self._call, Ways(forged) if isinstance(forged, Ways) else forged)
        begin = time.process_time()
        outcome = self._judge.outcome(self._check, observer)
        if time.process_time() - begin > self._call.seconds:
            return "takes too long"
        if self._judge.internal_errors.pop(self._check, None):
            return "ends in an internal error"
        return "passes" if outcome.passed else None

    def _name(self, path: Path) -> str:
        return ".".join([f"#{self._number}", *map(str, path)])

    def _value(self, kind: str, right: Any, path: Path, leaves: list[Path]) -> Any:
        """The value of this kind in the place of what is at `path`. Raises `Same`."""
        here = _at(right, path)
        if kind in ("type", "empty", "huge") or path in leaves:
            value = self._leaf(kind, right, path, leaves)
        else:
            below = [leaf for leaf in leaves if leaf[: len(path)] == path]
            value, changed = here, False
            for leaf in below:
                try:
                    value = _put(value, leaf[len(path) :], self._leaf(kind, right, leaf, leaves))
                    changed = True
                except Same:
                    continue
            if not changed:
                raise Same
        if kind not in ("type", "huge") and difference(value, here, 1e-4, 1e-5) is None:
            raise Same
        return value

    def _leaf(self, kind: str, right: Any, path: Path, leaves: list[Path]) -> Any:
        here = _at(right, path)
        if kind == "public":
            try:
                return _at(self._public, path)
            except (KeyError, IndexError, TypeError):
                raise Same from None
        if kind == "other":
            others = [_at(right, leaf) for leaf in leaves if leaf != path]
            alike = [other for other in others if _look(other) == _look(here)]
            found = alike or [other for other in others if type(other) is type(here)]
            if not found:
                raise Same
            return found[0]
        generator = torch.Generator().manual_seed(derive("forged", f"{self._check} {self._name(path)}"))
        return _forged(kind, here, generator)


def _forged(kind: str, value: Any, generator: torch.Generator) -> Any:
    """A value of this kind in the place of `value`."""
    if kind == "type":
        return 1.0 if isinstance(value, str) else "text"
    if kind == "empty":
        return _EMPTY[type(value)] if type(value) in _EMPTY else _same()
    if isinstance(value, torch.Tensor):
        return _forged_tensor(kind, value, generator)
    if kind == "huge":
        return torch.zeros(HUGE) if not isinstance(value, list) else [0.0] * HUGE
    if isinstance(value, list):
        if not value or isinstance(value[0], str):
            return [_forged(kind, item, generator) for item in value] or _same()
        items = zip(value, _forged_tensor(kind, torch.tensor(value), generator).tolist(), strict=True)
        return [type(item)(number) if math.isfinite(number) else number for item, number in items]
    if isinstance(value, str):
        return value[::-1] if kind == "noise" else _same()
    if value is None or (isinstance(value, bool) and kind not in ("zeros", "ones")):
        return _same()
    number = _forged_tensor(
        kind, torch.tensor(value, dtype=None if isinstance(value, bool) else torch.float64), generator
    )
    return type(value)(number.item()) if math.isfinite(number.item()) else number.item()


def _forged_tensor(kind: str, value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if kind in ("nan", "inf", "-inf"):
        return torch.full(value.shape, float(kind))
    if kind == "huge":
        return torch.zeros(HUGE)
    if kind in ("zeros", "ones"):
        return torch.full_like(value, kind == "ones")
    if kind == "large":
        return value * 10**6 if value.dtype is not torch.bool else _same()
    if value.numel() == 0:
        return _same()
    if value.dtype is torch.bool:
        return torch.rand(value.shape, generator=generator) < 0.5
    if not value.is_floating_point():
        low, high = int(value.min()), int(value.max())
        return torch.randint(low, high + 2, value.shape, generator=generator, dtype=value.dtype)
    known = value[value.isfinite()].double()
    spread = known.std() if known.numel() > 1 else known.abs().sum() + 1
    mean = known.mean() if known.numel() else torch.zeros(())
    noise = mean + spread * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return torch.where(value.isfinite(), noise.to(value.dtype), value)


_EMPTY: dict[type, Any] = {str: "", list: [], dict: {}, torch.Tensor: torch.zeros(0)}


def _same() -> Any:
    raise Same


def _look(value: Any) -> tuple[Any, ...]:
    return (type(value), value.shape, value.dtype) if isinstance(value, torch.Tensor) else (type(value),)


def _is_leaf(value: Any) -> bool:
    """Whether a value is forged in one piece: a list of numbers is, as a tensor would be."""
    if isinstance(value, list):
        return not any(isinstance(item, dict | list | torch.Tensor) for item in value)
    return not isinstance(value, dict)


def _children(value: Any) -> list[tuple[str | int, Any]]:
    return list(value.items() if isinstance(value, dict) else enumerate(value))


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    if _is_leaf(value):
        yield path
    else:
        for key, item in _children(value):
            yield from _leaves(item, (*path, key))


def _branches(value: Any, path: Path) -> Iterator[Path]:
    """The dicts and lists, from the outermost to the innermost."""
    if not _is_leaf(value):
        yield path
        for key, item in _children(value):
            yield from _branches(item, (*path, key))


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _put(value: Any, path: Path, new: Any) -> Any:
    """A copy of `value` with another value at `path`."""
    if not path:
        return new
    copy: Any = list(value) if isinstance(value, list) else type(value)(value)
    copy[path[0]] = _put(value[path[0]], path[1:], new)
    return copy
