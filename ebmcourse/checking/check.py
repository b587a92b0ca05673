"""The two decorators of a check's judgement: `exercise` for the check itself, `inputs` for its inputs."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest


@dataclass(frozen=True)
class Check:
    """What a check is worth and what the student reads about it."""

    id: str
    part: str
    title: str
    points: float
    public: bool
    hint: str
    seconds: float
    needs: tuple[str, ...]


def exercise(
    part: str,
    *,
    points: float,
    hint: str,
    public: bool = False,
    seconds: float = 10.0,
    needs: tuple[Callable[..., None], ...] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a pytest function a check of the exercise `part`, worth `points`.

    The first line of its docstring is the title that the student reads. `hint` is shown when the check fails. Only
    `public` checks are released, with recorded observations. Each call of the probe may take `seconds`. The check is
    skipped while a check in `needs` has not passed.
    """

    def mark(judgement: Callable[..., None]) -> Callable[..., None]:
        slug = re.sub("^test_", "", judgement.__name__).replace("_", "-")
        title = (judgement.__doc__ or slug).strip().splitlines()[0]
        needed = tuple(other.check.id for other in needs)  # type: ignore[attr-defined]
        judgement.check = Check(  # type: ignore[attr-defined]
            f"{part}/{slug}", part, title, float(points), public, hint, seconds, needed
        )
        return judgement

    return mark


def inputs(make: Callable[..., Any]) -> Any:
    """Make ``name(rng)`` a pytest fixture of that name: inputs drawn from the seed, or the recorded ones on replay.

    Further parameters are other inputs. A function whose body is hidden is released with what it has made.
    """

    def fixture(draw: Callable[[str, Callable[..., Any]], Any], **others: Any) -> Any:
        return draw(f"{make.__module__}.{make.__name__}", partial(make, **others))

    _, *others = inspect.signature(make).parameters.values()
    draw, _ = inspect.signature(fixture).parameters.values()
    fixture.__signature__ = inspect.Signature([draw, *others])  # type: ignore[attr-defined]
    return pytest.fixture(scope="session", name=make.__name__)(fixture)
