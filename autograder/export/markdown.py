"""A student's markdown with nothing in it that a browser would run or fetch.

nbgrader turns the markdown of a notebook into HTML as it is, scripts included, on pages where the instructor is logged
in. Markdown is not parsed here, since another parser would read it otherwise: wherever HTML, a link with another
scheme, or a picture from elsewhere could begin, a space is put between, and no parser sees a beginning.
"""

from __future__ import annotations

import re
from collections.abc import Container

# A tag, a comment or a declaration begins with `<` and one of these at once; with a space between, it is text.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# The target of a link comes directly after `](`, or stands elsewhere as [name]: target.
_LINK = re.compile(r"\]\((?!(?:https?://|mailto:|#)[^\s<>\\&]*\))")
_DEFINITION = re.compile(r"\]:")
# A picture comes with the cell; one that does not would stop nbgrader, or be fetched from elsewhere.
_PICTURE = re.compile(r"(!\[[^\[\]\n]*\]\(attachment:([A-Za-z0-9._-]+)\))")
# Commands by which formulas make links and styles.
_FORMULA = re.compile(r"\\(?=(?:href|url|style|class|cssId|require|unicode|includegraphics)\b)", re.IGNORECASE)


def harmless(text: str, pictures: Container[str] = ()) -> str:
    """The markdown `text` without HTML, links other than to the web, and pictures other than its own, by name."""
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
