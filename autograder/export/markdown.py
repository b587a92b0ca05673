"""Makes a student's markdown safe: a browser runs and loads nothing from it.

nbgrader converts the markdown of a notebook to HTML without removing scripts, on pages where the instructor is logged
in. Markdown is not parsed here, because parsers differ. Instead, a space is inserted wherever HTML, a link with an
unusual scheme, or an external picture could begin, so that no parser recognizes it.
"""

from __future__ import annotations

import re
from collections.abc import Container

# A tag, comment or declaration begins with `<` and one of these characters; with a space between them, it is text.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# The target of a link follows `](`, or is defined elsewhere as [name]: target.
_LINK = re.compile(r"\]\((?!(?:https?://|mailto:|#)[^\s<>\\&]*\))")
_DEFINITION = re.compile(r"\]:")
# A picture must be an attachment of the cell: nbgrader stops at a missing one, and a browser loads an external one.
_PICTURE = re.compile(r"(!\[[^\[\]\n]*\]\(attachment:([A-Za-z0-9._-]+)\))")
# Commands that create links and styles in formulas.
_FORMULA = re.compile(r"\\(?=(?:href|url|style|class|cssId|require|unicode|includegraphics)\b)", re.IGNORECASE)


def harmless(text: str, pictures: Container[str] = ()) -> str:
    """Return the markdown `text` without HTML, links to other schemes, and pictures that are not in `pictures`."""
    text = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    text = _TAG.sub("< ", _FORMULA.sub(r"\\,", text))
    made, end = "", 0
    for picture in _PICTURE.finditer(text):
        if picture[2] in pictures:
            made += _without_links(text[end : picture.start()]) + picture[1]
            end = picture.end()
    return made + _without_links(text[end:])


def _without_links(text: str) -> str:
    return _DEFINITION.sub("] :", _LINK.sub("] (", text.replace("![", "! [")))
