"""The course's secret seed: hidden inputs are drawn from it, so that they cannot be known in advance."""

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Seed:
    """`value` is what inputs are drawn from; `label` is the number that result files may show."""

    value: str
    label: int


def given(number: int) -> Seed:
    """A seed that everybody may know: for tests, demonstrations and the measurement of the checks."""
    return Seed(str(number), number)


def secret() -> Seed:
    """The seed of this course, from the file that `seed_file` names; made at the first use."""
    file = seed_file()
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(32) + "\n")
    value = file.read_text().strip()
    if not value:
        raise ValueError(f"The seed file {file} is empty: delete it, and a new seed is made.")
    return Seed(value, int.from_bytes(hashlib.sha256(value.encode()).digest()[:4], "big"))


def seed_file() -> Path:
    """``$EBM_COURSE_SEED_FILE``, or ``ebmcourse/seed`` in the user's configuration folder: never in the repository."""
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(os.environ.get("EBM_COURSE_SEED_FILE") or configuration / "ebmcourse" / "seed")
