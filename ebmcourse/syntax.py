"""Syntax errors, found without running or importing anything: the fastest of all checks."""

from __future__ import annotations

import ast
from pathlib import Path

from rich.console import Console
from rich.text import Text


def first_error(folder: Path) -> SyntaxError | None:
    """The first syntax error in the Python files of an assignment's `folder`, in the order of their names."""
    if not (folder / "checks").is_dir():
        return None
    for path in sorted(folder.glob("*.py")):
        source = path.read_text("utf-8", errors="replace")
        try:
            ast.parse(source, path.name)
        except SyntaxError as error:
            if error.filename is None:  # Python gives no position for null bytes
                error.filename, error.lineno = path.name, source[: source.find("\0")].count("\n") + 1
            return error
    return None


def show(out: Console, error: SyntaxError) -> None:
    """Show the error as Python does."""
    out.print(Text.assemble(("✗ ", "red"), (f"{error.filename}, line {error.lineno}: {error.msg}", "bold")))
    if error.text:
        line = error.text.rstrip("\n").replace("\t", " ")
        indent = len(line) - len(line.lstrip())
        out.print(f"    {line.lstrip()}", markup=False, soft_wrap=True)
        out.print(" " * (4 + max(0, (error.offset or 1) - 1 - indent)) + "^", style="red", soft_wrap=True)
    out.print("Fix this first: no check can run until Python can read the file.")
