"""Drawings: what a student's functions do on a public example, shown on the feedback page; worth no points.

A drawing is a function of ``run`` alone, so that no hidden input is within its reach: what it shows, it makes itself::

    @drawing("4b", "The path that your `find_path` takes (dark is low energy), beside one of the right kind.")
    def path_through_a_table(run):
        table = torch.from_numpy(np.random.default_rng(0).standard_normal((9, 4)))
        got, want = run(best_path, table)
        return [Panel("Yours", table, got), Panel("The right kind", table, want)]
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Run = Callable[..., tuple[Any, Any]]


@dataclass(frozen=True)
class Panel:
    """One picture of a drawing.

    `image` is an array or tensor of shape (rows, columns), drawn from black (the least value) to white, or uint8 of
    shape (rows, columns) or (rows, columns, 3), drawn as it is. `path`, if any, is a list of points (row, column) that
    is drawn over it. Both may be what a student's function returned: a drawing with anything else in them is left out.
    """

    title: str
    image: Any
    path: Any = None


@dataclass(frozen=True)
class Drawing:
    """A drawing of the exercise `part`: its caption, and the function that makes the panels."""

    part: str
    caption: str
    make: Callable[[Run], list[Panel]]


def drawing(part: str, caption: str) -> Callable[[Callable[[Run], list[Panel]]], Callable[[Run], list[Panel]]]:
    """Make a function in a file of checks a drawing. It calls ``got, want = run(probe, *inputs)`` as checks do."""

    def mark(make: Callable[[Run], list[Panel]]) -> Callable[[Run], list[Panel]]:
        make.drawing = Drawing(part, caption, make)  # type: ignore[attr-defined]
        return make

    return mark
