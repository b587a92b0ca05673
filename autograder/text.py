"""Formats text and numbers for pages, tables and exports; the text may come from students.

Everything that a page shows passes through `visible`. It replaces control characters, direction overrides, zero-width
characters and stacked accents by their codes, such as ⟨U+202E⟩, so that no name can look like another one and no text
can reorder or cover its line. Jinja escapes the markup.
"""

import re
import unicodedata
from collections.abc import Sequence

from markupsafe import Markup, escape

MAX_CHARACTERS = 2000

# Controls, format characters, surrogates, private use, unassigned; line and paragraph separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_COMBINING = {"Mn", "Me"}
_MAX_COMBINING = 3
# Controls, lone surrogates, and what is not shown or changes the direction of the text around it. Joiners are not among
# them: they belong to the spelling of some languages.
_CONTROLS = re.compile(
    r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_CODE = re.compile(r"`([^`\n]+)`")
_LONG_WORD = re.compile(r"(\S{30,})")
_BREAK = re.compile(r"(?<=[/_.,(=])(?=[^/_.,(=])")  # browsers themselves break a word only after a hyphen


def visible(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return `text` with invisible characters replaced by their codes, cut after `limit` characters.

    Newlines and tabs are kept.
    """
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
        shown.append(_code(character) if unseen or combining > _MAX_COMBINING else character)
    whole = "".join(shown)
    return f"{whole} … ({cut} more characters)" if cut > 0 else whole


def without_controls(text: str) -> str:
    """Return `text` for other programs, which has only its controls and directions replaced by their codes.

    Tabs and line breaks are kept, and so are the letters, joiners and accents of all languages.
    """
    return _CONTROLS.sub(lambda found: _code(found[0]), text)


def _code(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"


def on_one_line(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return `visible` text in which every run of white space is one blank."""
    return " ".join(visible(text, limit).split())


def listed(names: Sequence[str], most: int) -> str:
    """Return the first `most` names on one line, each cut after 80 characters, and the number of the others."""
    shown = ", ".join(on_one_line(name, limit=80) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def prose(text: str) -> Markup:
    """Return plain text as HTML: `backticks` mark code, newlines are kept, and several empty lines become one.

    On a narrow screen, long words such as the ids of checks can be broken between their parts.
    """
    shown = re.sub(r"\n\s*\n", "\n\n", visible(text).strip())
    pieces = _CODE.split(shown)
    return Markup("").join(
        Markup("<code>{}</code>").format(_breakable(piece)) if n % 2 else _breakable(piece)
        for n, piece in enumerate(pieces)
    )


def _breakable(text: str) -> Markup:
    pieces = (_BREAK.split(piece) if n % 2 else [piece] for n, piece in enumerate(_LONG_WORD.split(text)))
    return Markup("").join(Markup("<wbr>").join(map(escape, piece)) for piece in pieces)


def number(value: float) -> str:
    """Format points or a score with at most two decimals: 2, 1.5, 0.33."""
    return f"{round(value, 2) + 0.0:.12g}"


def percent(share: float) -> str:
    """Format a fraction in [0, 1] as a whole percentage; only exactly 1 and 0 become 100 % and 0 %."""
    whole = round(100 * share)
    return f"{min(max(whole, 1), 99) if 0 < share < 1 else whole} %"


def seconds(value: float) -> str:
    """Format a wall time: 40 ms, 1.3 s, 2 min 5 s."""
    if value < 0.9995:
        return f"{1000 * value:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"
