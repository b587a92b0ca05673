"""Lines of German print, drawn with the course's fonts: the training data of `fraktur_lines`.

Letters are set one by one, with Fraktur ligatures and a long s. Spacing and ink vary as in letterpress print, and the
lines are scaled to the height at which real lines are read.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont
from scipy.ndimage import gaussian_filter

from ebmcourse.data.fonts import EARLY_PRINT, characters, font_path

Plane = NDArray[np.float32]

HEIGHT = 32
"""Rows of a line as the network gets it."""

UMLAUTS = {"aͤ": "a", "oͤ": "o", "uͤ": "u"}
"""Older umlauts: a vowel with a small e above it."""
GRAPHEMES = (
    *" abcdefghijklmnopqrstuvwxyzſßäöü",
    *UMLAUTS,
    *"ABCDEFGHJKLMNOPQRSTUVWXYZÄÖÜ",  # Fraktur has one letter for I and J; transcriptions write J
    *"0123456789.,;:!?()-⸗„”«»—'&",
)
"""The classes of the reader, in the order of their indices; the blank comes after them."""

_FACES = {
    "unifraktur-maguntia/unifrakturmaguntia-latin-400-normal.woff": 0.70,
    "blankenburg/Blankenburg_UNZ1A.ttf": 0.05,
    "gotico-antiqua/Jessen-Cicero12.otf": 0.03,
    "gotico-antiqua/Jessen-Mittel14.otf": 0.03,
    "gotico-antiqua/Hamlet-Tertia18.otf": 0.03,
    "im-fell-english/im-fell-english-latin-400-normal.woff": 0.11,
    "im-fell-english/im-fell-english-latin-400-italic.woff": 0.05,
}
"""Faces and their probabilities. Most books of the 19th century are set in Fraktur, some in Antiqua; the other faces
keep the reader from relying on a single design."""
assert set(_FACES) <= set(EARLY_PRINT)
_FRAKTUR = "unifraktur-maguntia/unifrakturmaguntia-latin-400-normal.woff"
_LIGATURES = ("ch", "ck", "tz", "ll", "ff", "tt", "ft")

_AROUND = (("(", ")"), ("„", "”"), ("»", "«"), ("„", ""), ("", "”"), ("", ")"), ("&", ""))

_SIZE = 60
_BASE, _CANVAS = 72, 104  # the row of the baseline, and the number of rows of the sheet

_WORDS = """
der die das den dem des ein eine einer eines einem einen und oder aber doch sondern denn weil wenn daß ob als wie wo
ich du er sie es wir ihr man sich mich dich uns euch ihm ihn ihnen mein dein sein unser euer kein keine nicht nichts
nur noch schon auch sehr so zu zur zum von vom vor für über unter mit ohne gegen durch aus bei nach seit an am auf im
in ins um bis hier dort da dann nun jetzt immer nie oft wieder ist sind war waren sei wäre hat haben hatte hatten wird
werden wurde worden kann können konnte muß müssen mußte soll sollen will wollen darf dürfen mag mögen läßt lassen
Haus Häuser Mann Männer Frau Frauen Kind Kinder Vater Mutter Bruder Schwester König Königin Kaiser Fürst Graf Herr
Volk Völker Land Länder Stadt Städte Dorf Straße Brücke Fluß Flüsse Berg Wald Wälder Baum Bäume Blume Garten Feld Acker
Wasser Feuer Luft Erde Himmel Sonne Mond Stern Licht Tag Nacht Jahr Jahre Monat Woche Stunde Zeit Ewigkeit Leben Tod
Geist Seele Herz Hand Hände Fuß Füße Auge Augen Mund Kopf Leib Blut Kraft Kräfte Macht Gewalt Recht Gesetz Freiheit
Wahrheit Schönheit Weisheit Wissenschaft Kunst Künste Natur Geschichte Sprache Wort Worte Buch Bücher Schrift Brief
Satz Sätze Gedanke Gedanken Begriff Urtheil Theil Theile Verhältniß Verhältnisse Zustand Bewegung Erscheinung Wirkung
Ursache Gegenstand Gesellschaft Gemeinde Kirche Staat Krieg Frieden Schlacht Heer Soldat Feind Freund Gesandter Rath
Jugend Alter Quelle Qual bequem Hypothese Styl Cyklus Charakter Christ Capitel Classe Xaver Axe Text Yacht York
groß größer klein alt jung neu gut besser schlecht schön hoch tief lang kurz weit nah schnell langsam stark schwach
weiß schwarz roth grün blau warm kalt hell dunkel reich arm wahr falsch ganz halb viel wenig einzig allein gemein
gehen ging gegangen kommen kam stehen stand sehen sah hören sprechen sprach schreiben schrieb lesen las wissen wußte
denken dachte fragen fragte antworten nehmen nahm geben gab finden fand halten hielt tragen führen ziehen zog setzen
sitzen saß liegen lag bringen brachte machen thun that arbeiten leiden lieben hassen hoffen fürchten glauben dienen
besonders vielmehr endlich plötzlich wirklich möglich natürlich bloß gewiß ungefähr welcher welche welches dieser
diese dieses jener jede jedes alle alles beide einige mehrere zwei drei vier fünf sechs sieben acht neun zehn hundert
tausend erste zweite dritte letzte Ausdruck Einfluß Entschluß Hoffnung Verfassung Regierung Herrschaft Wirthschaft
Jahrhundert Jahrgang Juden Jesus Johann Joseph Italien Rom Paris Wien Berlin Sachsen Preußen Oesterreich Ungarn Baiern
zwischen Zweck Zweifel Zwang zusammen zuweilen Kreuz Kranz Katze Hitze Schatz Platz nützlich schätzen setzte Blick
Glück Stück Rückkehr drückte zurück Brocken Decke Schiff Stoff Treffen hoffte schaffen Affe Offizier Wette Mitte Bette
Hütte Blätter Wetter Wille Stelle Fülle fallen Quelle Pflicht Pfeil Kampf Kopf empfangen Opfer Phantasie Philosoph
"""


class Line(NamedTuple):
    """image: (HEIGHT, W) float32, bright ink; classes: the index in GRAPHEMES of each sign, left to right."""

    image: Plane
    classes: list[int]


def draw_line(rng: np.random.Generator, letters: int = 24) -> Line:
    """A line of about `letters` signs in a random face, with random printing effects."""
    face = str(rng.choice(list(_FACES), p=list(_FACES.values())))
    text = _sentence(rng, face, letters)
    sheet, classes = _set(text, face, rng)
    ink = _press(sheet, rng)
    image = _scan(ink, rng)
    return Line(image, classes)


def _sentence(rng: np.random.Generator, face: str, letters: int) -> list[str]:
    """The graphemes of a random text, without those that the face lacks."""
    words, length = [], 0
    old_umlauts = rng.random() < 0.4
    dense = rng.random() < 0.15  # some lines with many capitals and marks, so that rare ones are learnt too
    while length < letters:
        word = _word(rng, dense)
        if rng.random() < 0.02:
            word = word.upper()
        words.append(word)
        length += len(word) + 1
    signs: list[str] = []
    for word in words:
        graphemes = _graphemes(word, old_umlauts, face)
        if graphemes:
            signs += [" ", *graphemes] if signs else graphemes
    return signs or ["n"]


def _word(rng: np.random.Generator, dense: bool) -> str:
    chance = rng.random()
    if chance < (0.3 if dense else 0.05):
        word = "".join(rng.choice(list("0123456789"), size=rng.integers(1, 5)))
    elif chance < (0.6 if dense else 0.15):
        letters = [sign for sign in GRAPHEMES if sign.isalpha() and len(sign) == 1 and sign != "ſ"]
        word = "".join(rng.choice(letters, size=rng.integers(1, 5)))
    else:
        word = str(rng.choice(_WORDS.split()))
        if rng.random() < 0.1:
            word = word[0].upper() + word[1:]
    chance = rng.random()
    if chance < (0.6 if dense else 0.2):
        word += str(rng.choice(list(".,,,.;:!?-⸗'—")))
    elif chance < (0.8 if dense else 0.24):
        before, after = _AROUND[rng.integers(len(_AROUND))]
        word = before + word + after
    return word


def _graphemes(word: str, old_umlauts: bool, face: str) -> list[str]:
    """The signs of a word: long s inside words, one kind of umlauts, J for I, without signs that the face lacks."""
    signs = []
    for place, sign in enumerate(word):
        inside = place + 1 < len(word) and word[place + 1].isalpha()
        if sign == "s" and inside:
            sign = "ſ"
        elif sign == "I":
            sign = "J"
        elif sign in "äöü" and old_umlauts:
            sign = {"ä": "aͤ", "ö": "oͤ", "ü": "uͤ"}[sign]
        elif sign in "-⸗":
            sign = "⸗" if face == _FRAKTUR else "-"
        if all(part in characters(face) for part in _drawn_as(sign)):
            signs.append(sign)
    return signs


def _drawn_as(sign: str) -> str:
    return {"ſ": "f", "⸗": "-", **UMLAUTS}.get(sign, sign)


@cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_path(face), _SIZE)


@cache
def _piece(face: str, cluster: str) -> tuple[Plane, int, int, float]:
    """A sign or ligature: its mask, the offsets of its left and top from the pen position, and its advance."""
    font = _font(face)
    text = "".join(_drawn_as(sign) for sign in ([cluster] if cluster in UMLAUTS else cluster))
    mask, (left, top) = font.getmask2(text, "L", anchor="ls")
    plane = np.frombuffer(bytes(mask), np.uint8).reshape(mask.size[::-1]).astype(np.float32) / 255
    if cluster == "ſ":
        _, x_top, _, _ = font.getbbox("x", anchor="ls")
        plane = _without_bar(plane, x_top - top, -top)
    if cluster in UMLAUTS:
        plane, top = _with_small_e(plane, top, face)
    return plane, left, top, font.getlength(text)


def _without_bar(plane: Plane, x_top: int, base: int) -> Plane:
    """A long s, made from an f by removing the right half of its bar.

    x_top, base: the rows of the x-height and of the baseline
    """
    plane = plane.copy()
    height = base - x_top
    stem = plane[x_top + height // 3 : base - height // 4]
    right = int(np.nonzero(stem.max(axis=0) > 0.5)[0].max())
    plane[x_top - height // 6 : x_top + height // 3, right + 1 :] = 0
    return plane


def _with_small_e(plane: Plane, top: int, face: str) -> tuple[Plane, int]:
    """A vowel with a small e above it."""
    e, _, _, _ = _piece(face, "e")
    small = np.asarray(Image.fromarray(e[np.any(e, axis=1)]).resize((12, 12), Image.Resampling.BOX))
    room = 13
    taller = np.pad(plane, ((room, 0), (0, max(0, 12 - plane.shape[1]))))
    x = (taller.shape[1] - 12) // 2
    taller[:12, x : x + 12] = np.maximum(taller[:12, x : x + 12], small)
    return taller, top - room


def _set(text: list[str], face: str, rng: np.random.Generator) -> tuple[Plane, list[int]]:
    """Set the signs on a sheet (_CANVAS, W), with ligatures where the face has them; also returns their classes."""
    spaced = rng.random() < 0.08  # emphasis in Fraktur: spaced letters, with no ligatures except ch, ck, tz
    tracking = rng.uniform(5, 12) if spaced else rng.normal(0.5, 1.2)
    gap = rng.uniform(14, 38)
    clusters: list[str] = []
    for sign in text:
        pair = clusters[-1] + sign if clusters else ""
        if face == _FRAKTUR and pair in _LIGATURES and (not spaced or pair in ("ch", "ck", "tz")):
            clusters[-1] = pair
        else:
            clusters.append(sign)
    pen, placed = 8.0, []
    for cluster in clusters:
        if cluster == " ":
            pen += gap * rng.uniform(0.85, 1.15)
            continue
        plane, left, top, advance = _piece(face, cluster)
        placed.append((plane, round(pen) + left, _BASE + top + round(rng.normal(0, 0.5))))
        pen += advance + tracking
    sheet = np.zeros((_CANVAS, int(pen) + 48), np.float32)
    for plane, x, y in placed:
        x, y = max(x, 0), max(y, 0)
        space = sheet[y : y + plane.shape[0], x : x + plane.shape[1]]
        np.maximum(space, plane[: space.shape[0], : space.shape[1]], out=space)
    return sheet, [GRAPHEMES.index(sign) for sign in text]


def _press(sheet: Plane, rng: np.random.Generator) -> Plane:
    """Ink that spreads or runs thin: blur, add noise, and apply a random threshold."""
    wet = gaussian_filter(sheet, rng.uniform(0.8, 2.2), truncate=3)
    wet += rng.uniform(0, 0.12) * _cloud(sheet.shape, 3, rng) + rng.uniform(0, 0.08) * _cloud(sheet.shape, 9, rng)
    threshold = rng.triangular(0.2, 0.38, 0.6)
    return np.clip((wet - threshold) / 0.2 + 0.5, 0, 1)


def _cloud(shape: tuple[int, ...], grain: int, rng: np.random.Generator) -> Plane:
    """Noise of about unit variance with features of `grain` cells."""
    coarse = rng.standard_normal((shape[0] // grain + 1, shape[1] // grain + 1), np.float32)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def _scan(ink: Plane, rng: np.random.Generator) -> Plane:
    """Cut the line out and scale it to HEIGHT rows, with random size, position, slant, and parts of other lines."""
    down = rng.uniform(12.3, 16.5) / 31  # pixels of the x-height in the result / on the sheet
    across = down * rng.uniform(0.85, 1.12)
    base, slant = rng.uniform(22, 26.5), rng.normal(0, 0.03)
    width = round(ink.shape[1] * across)
    matrix = (1 / across, slant / down, -slant * base / down, 0, 1 / down, _BASE - base / down)
    blurred = gaussian_filter(
        ink, 0.35 / down, truncate=3
    )  # a pixel of the scan averages over several pixels of the sheet
    image = Image.fromarray(blurred)
    line = np.array(image.transform((width, HEIGHT), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
    for rows in (slice(0, rng.integers(1, 4)), slice(HEIGHT - rng.integers(1, 4), HEIGHT)):
        if rng.random() < 0.15:  # parts of the lines above and below
            line[rows] = np.maximum(line[rows], _cloud(line[rows].shape, 4, rng) > 0.7)
    for _ in range(rng.poisson(1.0)):
        x, y, size = rng.integers(width), rng.integers(HEIGHT), rng.integers(1, 3)
        line[y : y + size, x : x + size] = rng.uniform(0.3, 1)
    line = line * rng.uniform(0.8, 1) + rng.uniform(0, 0.06) * rng.standard_normal(line.shape, np.float32)
    return np.clip(line, 0, 1).astype(np.float32)
