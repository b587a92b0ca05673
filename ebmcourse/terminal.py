"""Printing on terminals whose encoding lacks some characters, such as cp1252 on Windows or ascii in the C locale."""

import codecs
import sys
from io import TextIOWrapper

_SIMILAR = {"✓": "+", "✗": "x", "…": "...", "−": "-", "–": "-", "—": "-", "→": "->", "≤": "<=", "≥": ">=", "·": "."}


def _similar(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_SIMILAR.get(character, "?") for character in error.object[error.start : error.end]), error.end


def replace_unknown_characters() -> None:
    """Let standard output and standard error replace the characters that their encoding lacks."""
    codecs.register_error("similar", _similar)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a test or a notebook may have put another object here
            stream.reconfigure(errors="similar")
