"""Cells and rows of the CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from autograder.text import number

Row = Sequence[str | float | None]


def csv_bytes(rows: Iterable[Row]) -> bytes:
    """UTF-8, comma-separated, rows end in a newline; numbers have at most two decimals, None is empty."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    # Undecodable file names hold lone surrogates, which have no UTF-8 form.
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return number(value)
    # A spreadsheet would run text that begins like a formula.
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
