"""Cells and rows of the CSV files."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

from autograder.text import number, without_controls

Row = Sequence[str | float | None]

FORMULA_CHARACTERS = "=+@＝＋－＠-"  # in this order, a character class of regular expressions

# A spreadsheet may begin a cell here, and would run it: it skips blanks and quotes before the character of a formula.
# A program that separates columns by semicolons or tabs, such as Excel with German settings, ignores quotes within a
# column, so each of these, and each line break, can begin a cell. A comma in a text cannot: it is always quoted.
_IGNORED = r'(?:[^\S\t\r\n]|")*'
_FORMULA = re.compile(rf"(?:\A|(?<=[;\t\n]))(?:(?={_IGNORED}[\t{FORMULA_CHARACTERS}])|(?<!\n)(?={_IGNORED}\r))")
# The csv module does not quote a lone carriage return, which ends a row where the file is read.
_LONE_RETURN = re.compile(r"\r(?!\n)")


def csv_bytes(rows: Iterable[Row]) -> bytes:
    """Return the rows as comma-separated UTF-8.

    Rows end in a newline, numbers have at most two decimals, and None is an empty cell. Characters that control a
    terminal or the direction of text are replaced by their codes. No text can run as a formula, whether the file is
    opened with commas, semicolons or tabs as separators.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue().encode("utf-8")


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return number(value)
    return _FORMULA.sub("'", without_controls(_LONE_RETURN.sub("\n", value)))
