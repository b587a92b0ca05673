"""Time functions against each other, and print the comparison."""

from collections.abc import Callable
from time import perf_counter


def milliseconds(*functions: Callable[[], object], seconds: float = 1.0) -> list[float]:
    """The least time of one call of each function, measured in turns over about `seconds` for each.

    In turns, so that a busy machine hits all of them, each long enough to be warm; the least, because noise
    only ever adds.
    """
    turns = 10
    least = [float("inf")] * len(functions)
    for _ in range(turns):
        for index, function in enumerate(functions):
            function()
            end = perf_counter() + seconds / turns
            while (start := perf_counter()) < end:
                function()
                least[index] = min(least[index], perf_counter() - start)
    return [1e3 * time for time in least]


def row(case: str, ours_ms: float, peer: str, peer_ms: float) -> dict:
    """One line of the comparison; ratio is our time over the peer's, so below 1 we are faster."""
    return {"case": case, "ours_ms": ours_ms, "peer": peer, "peer_ms": peer_ms, "ratio": ours_ms / peer_ms}


def print_table(title: str, rows: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column("case")
    table.add_column("ours, ms", justify="right")
    table.add_column("peer")
    table.add_column("peer, ms", justify="right")
    table.add_column("ours / peer", justify="right")
    for entry in rows:
        numbers = [f"{entry[key]:.4g}" for key in ("ours_ms", "peer_ms", "ratio")]
        table.add_row(entry["case"], numbers[0], entry["peer"], numbers[1], numbers[2])
    Console().print(table)
