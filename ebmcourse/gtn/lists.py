"""Calls of a function for each item of a list: one after the other, see docs/engine.md for why."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def broadcast(*lists: Any) -> Iterator[tuple[Any, ...]]:
    """The arguments of each call: lists item by item; a single value, or a list of one, is used in every call.

    ValueError where two lists have different lengths.
    """
    length = max((len(x) for x in lists if isinstance(x, list | tuple)), default=1)
    columns = []
    for x in lists:
        column = list(x) if isinstance(x, list | tuple) else [x]
        if len(column) not in (1, length):
            raise ValueError(f"Lists of {length} and {len(column)} graphs do not match: give equal lengths.")
        columns.append(column * length if len(column) == 1 else column)
    yield from zip(*columns, strict=True)


def over_lists(function: Callable) -> Callable:
    """`function`, which then also takes lists of graphs and returns the list of its results."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], (list, tuple)):
            return [function(*row, **kwargs) for row in broadcast(*args)]
        return function(*args, **kwargs)

    return wrapper


def parallel_for(function: Callable[[int], object], items: Iterable[int]) -> None:
    """Call `function` on each item, in order and in this thread, under the name that gtn has for it.

    An exception ends the loop and reaches the caller.
    """
    for item in items:
        function(item)
