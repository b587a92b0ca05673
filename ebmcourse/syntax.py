"""The text of Python files, and their syntax errors, found without running or importing anything."""

import ast
import codecs
import io
import re
import tokenize
from pathlib import Path

from rich.console import Console
from rich.text import Text

# Those of text editors. Others take quadratic time to decode (punycode), or are no encodings of text.
_ENCODINGS = re.compile(
    r"utf-8(-sig)?|ascii|iso8859-\d+|cp\d+|koi8-[rtu]|mac-\w+|gb2312|gbk|gb18030|big5(hkscs)?|shift_jis\w*|euc_\w+"
)
_COOKIE = re.compile(r"^([ \t\f]*#.*?coding[:=][ \t]*)[-\w.]+", re.MULTILINE)


def python_text(content: bytes) -> str:
    """The text of a Python file, decoded as Python does it: a byte order mark or a comment may name the encoding.

    The text can be written as UTF-8: such a comment then says so. Raises ValueError, completing “it is …”.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        name = codecs.lookup(encoding).name
        if not _ENCODINGS.fullmatch(name):
            raise ValueError
        text = content.decode(encoding)
    except (SyntaxError, ValueError, LookupError):
        raise ValueError("not UTF-8 text: save it with the encoding UTF-8") from None
    return text if name.startswith("utf-8") else _COOKIE.sub(r"\1utf-8", text, count=1)


def first_error(folder: Path) -> SyntaxError | None:
    """The first syntax error in the Python files of `folder`, in the order of their names."""
    for path in sorted(folder.glob("*.py")):
        content, source = path.read_bytes(), ""
        try:
            source = python_text(content)
            ast.parse(source, path.name)
        except SyntaxError as error:
            if error.filename is None:  # Python gives no position for null bytes
                error.filename, error.lineno = path.name, source[: source.find("\0")].count("\n") + 1
            return error
        except ValueError as error:
            return SyntaxError(f"the file is {error}", (path.name, _undecodable_line(content), None, None))
    return None


def _undecodable_line(content: bytes) -> int:
    """The number of the first line that is not UTF-8; 1 if all are, because then the encoding named is wrong."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    return 1


def show(out: Console, error: SyntaxError) -> None:
    """Show the error as Python does."""
    out.print(Text.assemble(("✗ ", "red"), (f"{error.filename}, line {error.lineno}: {error.msg}", "bold")))
    if error.text:
        line = error.text.rstrip("\n").replace("\t", " ")
        indent = len(line) - len(line.lstrip())
        out.print(f"    {line.lstrip()}", markup=False, soft_wrap=True)
        out.print(" " * (4 + max(0, (error.offset or 1) - 1 - indent)) + "^", style="red", soft_wrap=True)
    out.print("Fix this first: no check can run until Python can read the file.")
