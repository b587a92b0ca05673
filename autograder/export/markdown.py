"""Makes a student's markdown safe: a browser runs and loads nothing from it.

nbgrader converts the markdown of a notebook to HTML without removing scripts, on pages where the instructor is logged
in. Markdown is not parsed here, because parsers differ. Instead, a space is inserted wherever HTML, a link with an
unusual scheme, or an external picture could begin, so that no parser recognizes it.
"""

import re
from collections.abc import Container

# A tag, comment or declaration begins with `<` and one of these characters; with a space between them, it is text.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# The target of a link follows `](`, or is defined elsewhere as [name]: target.
_LINK = re.compile(r"\]\((?!(?:https?://|mailto:|#)[^\s<>\\&]*\))")
_DEFINITION = re.compile(r"\]:")
# A picture must be an attachment of the cell: nbgrader stops at a missing one, and a browser loads an external one.
_PICTURE = re.compile(r"(!\[[^\[\]\n]*\]\(attachment:([A-Za-z0-9._-]+)\))")
# Commands of MathJax and its extensions that can do more than show a formula. A name ends before what is no letter.
_COMMANDS = (
    "href url style class cssId data mmlToken bbox enclose includegraphics "  # links, attributes, styles and pictures
    "unicode char U toggle mathtip texttip "  # any character in any font; what reacts to the mouse
    "require setOptions mathtoolsset "  # other extensions and settings, for the whole page
    "def gdef let global newcommand renewcommand providecommand newenvironment renewenvironment definecolor "
    "DeclareMathOperator DeclarePairedDelimiters? DeclarePairedDelimitersX(?:PP)? Newextarrow "  # loops, for the page
    "rule Rule Space raise lower moveleft moveright"  # what covers the page
)
_FORMULA = re.compile(rf"\\(?=(?:{'|'.join(_COMMANDS.split())})(?![A-Za-z]))")


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
