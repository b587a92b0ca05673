"""The progress of all commands: a bar on a terminal, and a line now and then in a log file."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

MAX_SILENCE = 60.0  # seconds


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on standard error how many items are finished, from the first call of ``show(done, total)`` on.

    On a terminal, this is a bar with the remaining time. Elsewhere, a line is printed for each quarter of the items,
    and earlier if the last line is a minute old. A mistake that is found before the first call draws no bar.
    """
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=not console.is_interactive)
    last, printed = -1, 0.0

    def show(done: int, total: int) -> None:
        nonlocal last, printed
        if not bar.tasks:
            bar.start()
            bar.add_task(what, total=total, completed=done)
        bar.update(bar.tasks[0].id, completed=done, total=total)
        quarter, now = 4 * done // max(total, 1), time.monotonic()
        if bar.disable and (quarter != last or now > printed + MAX_SILENCE):
            last, printed = quarter, now
            console.print(f"{what}: {done} of {total}", markup=False, soft_wrap=True)

    try:
        yield show
    finally:
        bar.stop()
