"""Text and numbers for pages, tables and exports, also where students may have chosen the text.

Everything that a page shows passes through `visible`: it writes control characters, direction overrides, zero-width
letters and stacks of accents as ⟨U+202E⟩, so that no name can look like another one and no text can reorder or cover
its line. Escaping of markup is left to jinja.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from markupsafe import Markup, escape

MAX_CHARACTERS = 2000

# Controls, format characters, surrogates, private use, unassigned; line and paragraph separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_COMBINING = {"Mn", "Me"}
_MAX_COMBINING = 3
_CODE = re.compile(r"`([^`\n]+)`")


def visible(text: str, limit: int = MAX_CHARACTERS) -> str:
    """`text` with unseen characters spelt out, and cut after `limit` characters. Keeps newlines and tabs."""
    text = text.replace("\r\n", "\n")
    cut = len(text) - limit
    if cut > 0:
        text = text[:limit]
    shown = []
    combining = 0
    for character in text:
        category = unicodedata.category(character)
        combining = combining + 1 if category in _COMBINING else 0
        unseen = category in _UNSEEN and character not in "\n\t"
        shown.append(f"⟨U+{ord(character):04X}⟩" if unseen or combining > _MAX_COMBINING else character)
    whole = "".join(shown)
    return f"{whole} … ({cut} more characters)" if cut > 0 else whole


def on_one_line(text: str, limit: int = MAX_CHARACTERS) -> str:
    """`visible`, with every run of white space as one blank."""
    return " ".join(visible(text, limit).split())


def listed(names: Sequence[str], most: int) -> str:
    """`names` on one line, each at most 80 letters long, and after `most` of them the number of the others."""
    shown = ", ".join(on_one_line(name, limit=80) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def prose(text: str) -> Markup:
    """HTML of plain text whose `backticks` mark code; newlines stay, empty lines at most one at a time."""
    shown = re.sub(r"\n\s*\n", "\n\n", visible(text).strip())
    pieces = _CODE.split(shown)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if n % 2 else escape(piece) for n, piece in enumerate(pieces)
    )


def number(value: float) -> str:
    """Points or a score with at most two decimals: 2, 1.5, 0.33."""
    return f"{round(value, 2) + 0.0:.12g}"


def percent(share: float) -> str:
    """A share in [0, 1] as whole per cent. 100 % and 0 % are said only of all and none."""
    whole = round(100 * share)
    if whole == 100 and share < 1:
        whole = 99
    if whole == 0 and share > 0:
        whole = 1
    return f"{whole} %"


def seconds(value: float) -> str:
    """A wall time that a person can read: 40 ms, 1.3 s, 2 min 5 s."""
    if value < 0.9995:
        return f"{1000 * value:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"
