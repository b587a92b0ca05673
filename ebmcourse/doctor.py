"""Checks that a machine has everything for the course, and says how to install what is missing."""

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REINSTALL = "pip install --force-reinstall torch torchvision"  # in one command, so that both come from the same source


@dataclass(frozen=True)
class Finding:
    """One requirement; `remedy` is a command or advice that fixes a problem, and None if there is no problem."""

    what: str
    remedy: str | None = None


def examine() -> Iterator[Finding]:
    """Check Python, the packages, the GPU and the disk."""
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    yield Finding(f"Python {version}", "Install Python 3.11 or newer." if old else None)
    yield from _packages()
    yield _torch()
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding(f"{free:.0f} GiB free on this disk", None if free > 2 else "Free some space: 2 GiB are needed.")


def _packages() -> Iterator[Finding]:
    try:
        requirements = importlib.metadata.requires("ebmcourse") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "the package ebmcourse is not installed", "pip install -r requirements.txt    (in the folder of the course)"
        )
        return
    for requirement in requirements:
        requirement, _, marker = requirement.partition(";")
        if "extra ==" in marker and "notebook" not in marker:  # requirements.txt installs the extra `notebook`
            continue
        name, minimum = re.match(r"([\w.-]+)(?:>=([\w.]+))?", requirement).groups()  # type: ignore[union-attr]
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(f"{name} is missing", f'pip install "{requirement}"')
            continue
        if minimum and _numbers(found) < _numbers(minimum):
            yield Finding(f"{name} {found} is too old", f'pip install --upgrade "{requirement}"')
        else:
            yield Finding(f"{name} {found}")


def _torch() -> Finding:
    """Import torch and torchvision: versions that were not built for each other fail only when both are imported."""
    try:
        import torch
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        return Finding(f"torch and torchvision do not work together ({reason})", REINSTALL)
    if torch.cuda.is_available():
        return Finding(f"GPU: {torch.cuda.get_device_name(0)}")
    return Finding(f"no GPU, {os.cpu_count()} CPU cores: use the preset `cpu`, because `full` needs a GPU")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
