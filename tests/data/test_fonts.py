"""The fonts: their origin and licence, and where they are found."""

import hashlib
import re

import pytest

from ebmcourse.data import fonts, press

SHIPPED = (*fonts.EARLY_PRINT, fonts.INITIALS, fonts.ANONYMOUS_PRO, fonts.HUMOR_SANS, fonts.PATRICK_HAND)


def table_of_origin() -> dict[str, tuple[str, str]]:
    """File -> (licence, sha256), from the table in fonts/README.md."""
    text = (fonts.fonts_dir() / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([^|]+) \| [^|]+ \| `([0-9a-f]{64})` \|$", text, re.MULTILINE)
    return {file: (licence, digest) for file, licence, digest in rows}


def test_table_of_origin_lists_every_font_file_and_no_other():
    files = {p.relative_to(fonts.fonts_dir()).as_posix() for p in fonts.fonts_dir().glob("*/*")}
    assert {file for file in files if not file.endswith("OFL.txt")} == set(table_of_origin()) == set(SHIPPED)


@pytest.mark.parametrize("face", SHIPPED)
def test_font_is_unchanged_and_under_the_open_font_license(face):
    path = fonts.font_path(face)
    assert table_of_origin()[face] == ("OFL 1.1", hashlib.sha256(path.read_bytes()).hexdigest())
    licence = (path.parent / "OFL.txt").read_text(encoding="utf-8")
    assert licence.startswith("Copyright") and "SIL OPEN FONT LICENSE Version 1.1" in licence
    assert "DISCLAIMER" in licence, "the licence text must be whole"


def test_fonts_stay_small_enough_for_a_wheel():
    assert sum(p.stat().st_size for p in fonts.fonts_dir().rglob("*")) < 6_000_000


def test_installed_wheel_uses_the_fonts_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "README.md").touch()
    monkeypatch.setattr(fonts, "_IN_THE_WHEEL", tmp_path)
    assert fonts.fonts_dir() == tmp_path


def test_missing_fonts_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "_IN_THE_WHEEL", tmp_path / "nowhere")
    monkeypatch.setattr(fonts, "_IN_THE_CHECKOUT", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="install the package"):
        fonts.fonts_dir()


def test_unknown_face_is_named():
    with pytest.raises(FileNotFoundError, match=re.escape("no-such/face.otf")):
        fonts.font_path("no-such/face.otf")


@pytest.mark.parametrize("face", SHIPPED)
def test_characters_have_glyphs_and_private_use_holes_have_none(face):
    letters = sorted(c for c in fonts.characters(face) if c.isalpha() and c.isascii())
    assert len(letters) >= 23, "every face has most letters"
    assert all(press.sort(face, letter).getbbox() for letter in letters)
    assert "\uf8fe" not in fonts.characters(face)
