"""The fonts of the course, in a checkout and in the installed wheel.

A face is named by its path below the font folder, for example ``gotico-antiqua/Spira-ProtoRoman110R.otf``.
Origin, licence and checksum of every file: ``fonts/README.md``.
"""

from functools import cache
from pathlib import Path

from fontTools.ttLib import TTFont

ANONYMOUS_PRO = "anonymous-pro/AnonymousPro-Regular.ttf"
HUMOR_SANS = "humor-sans/Humor-Sans.ttf"
PATRICK_HAND = "patrick-hand/patrick-hand-latin-400-normal.woff"

EARLY_PRINT = (
    "gotico-antiqua/Fust-Schoeffer-Durandus-GoticoAntiqua118G.otf",
    "gotico-antiqua/Hamlet-Cicero12.otf",
    "gotico-antiqua/Hamlet-Tertia18.otf",
    "gotico-antiqua/Jessen-Cicero12.otf",
    "gotico-antiqua/Jessen-Mittel14.otf",
    "gotico-antiqua/Parix-Hybrid111R.otf",
    "gotico-antiqua/Ptolemy-GreatPrimer18.otf",
    "gotico-antiqua/Rot-ProtoRoman102R.otf",
    "gotico-antiqua/Rusch-GoticoAntiqua100G.otf",
    "gotico-antiqua/Rusch-R-Bizarre-ProtoRoman103R.otf",
    "gotico-antiqua/SouffletVert-Hybrid106R.otf",
    "gotico-antiqua/Spira-ProtoRoman110R.otf",
    "gotico-antiqua/Sweynheim-Pannartz-ProtoRoman115R.otf",
    "gotico-antiqua/Sweynheim-Pannartz-Subiaco-ProtoRoman120R.otf",
    "gotico-antiqua/Zainer-GoticoAntiqua96G.otf",
    "blankenburg/Blankenburg_UNZ1A.ttf",
    "im-fell-english/im-fell-english-latin-400-normal.woff",
    "im-fell-english/im-fell-english-latin-400-italic.woff",
    "unifraktur-maguntia/unifrakturmaguntia-latin-400-normal.woff",
)
"""Text faces after types of 1459 to 1700, and their revivals."""

INITIALS = "gotico-antiqua/Zainer-Initials45mm.otf"
"""Large decorated capitals, used at the beginning of a chapter."""

_IN_THE_WHEEL = Path(__file__).parent / "_fonts"
_IN_THE_CHECKOUT = Path(__file__).parents[2] / "fonts"


def fonts_dir() -> Path:
    """The folder that holds the fonts: inside the wheel, or ``fonts/`` of the checkout.

    Raises FileNotFoundError when neither exists: the installation is broken.
    """
    for folder in (_IN_THE_WHEEL, _IN_THE_CHECKOUT):
        if (folder / "README.md").is_file():
            return folder
    raise FileNotFoundError("the course's fonts are missing: install the package `ebmcourse` again")


def font_path(face: str) -> Path:
    """The file of a face. Raises FileNotFoundError when there is no such face."""
    path = fonts_dir() / face
    if not path.is_file():
        raise FileNotFoundError(f"no font {face!r} in {path.parent.parent}: see its README.md for the list")
    return path


@cache
def characters(face: str) -> frozenset[str]:
    """The characters that the face's own character map has a glyph for, so never the .notdef box."""
    with TTFont(font_path(face), lazy=True) as font:
        return frozenset(map(chr, font.getBestCmap()))
