"""CSV files as people and platforms save them: commas, semicolons or tabs; UTF-8, Windows-1252 or “Unicode text”.

The place of each cell in the text is kept, so that some cells can be changed while every other byte of the file stays
the same.
"""

import codecs
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_BOM = "\ufeff"


@dataclass(frozen=True)
class Cell:
    """The value of a cell, and its place in the text."""

    value: str
    start: int
    end: int


@dataclass(frozen=True)
class Table:
    """A CSV file; the first of its lines is the header, and its values have no blanks around them."""

    text: str
    encoding: str
    separator: str
    lines: list[list[Cell]]

    @property
    def header(self) -> list[str]:
        return [cell.value for cell in self.lines[0]] if self.lines else []

    def rows(self) -> list[tuple[int, dict[str, str]]]:
        """Return the rows that have any value, with their numbers (the header is row 1); empty cells are left out."""
        rows = []
        for number, line in enumerate(self.lines[1:], start=2):
            values = {name: cell.value for name, cell in zip(self.header, line, strict=False) if name and cell.value}
            if values:
                rows.append((number, values))
        return rows

    def filled(self, values: Mapping[tuple[int, int], str]) -> bytes:
        """Return the file with new values in some cells, by number of the row and position of the column.

        The new values must not contain quotes or line breaks. Those with a separator are quoted.
        """
        text = self.text
        for (number, column), value in sorted(values.items(), reverse=True):
            line = self.lines[number - 1]
            value = f'"{value}"' if self.separator in value else value
            if column < len(line):
                start, end = line[column].start, line[column].end
            else:
                start = end = line[-1].end
                value = self.separator * (column - len(line) + 1) + value
            text = text[:start] + value + text[end:]
        return text.encode(self.encoding)


def read_table(path: Path) -> Table:
    """Read a CSV file; raises ValueError if there is no such file or it is not text."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    text, encoding = _decoded(path)
    first = text.partition("\n")[0].strip()
    separator = max(",;\t", key=lambda mark: len(next(iter(_lines(first, mark)), [])))
    return Table(text, encoding, separator, _lines(text, separator))


def _lines(text: str, separator: str) -> list[list[Cell]]:
    cell = re.compile(rf'(?:"(?:[^"]|"")*")?[^{separator}\r\n]*')
    end_of_line = re.compile(r"\r\n|\r|\n")
    lines: list[list[Cell]] = []
    at = len(_BOM) if text.startswith(_BOM) else 0
    while at < len(text):
        line: list[Cell] = []
        while True:
            match = cell.match(text, at)
            assert match  # the pattern matches an empty text
            line.append(Cell(_value(match[0]), at, match.end()))
            at = match.end()
            if not text.startswith(separator, at):
                break
            at += 1
        lines.append(line)
        if end := end_of_line.match(text, at):
            at = end.end()
    return lines


def _value(written: str) -> str:
    if written.startswith('"') and (end := written.rfind('"')) > 0:
        written = written[1:end].replace('""', '"') + written[end + 1 :]
    return written.strip()


def _decoded(path: Path) -> tuple[str, str]:
    """Return the text, in which a byte order mark is the first character, and its encoding."""
    data = path.read_bytes()
    encodings: tuple[str, ...] = ("utf-8", "cp1252")
    if data.startswith(codecs.BOM_UTF16_LE):
        encodings = ("utf-16-le",)
    elif data.startswith(codecs.BOM_UTF16_BE):
        encodings = ("utf-16-be",)
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            return data.decode(encoding), encoding
    raise ValueError(f"{path} is not a table of text: save it as “CSV UTF-8”.")
