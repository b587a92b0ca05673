"""Text from students is made visible and safe."""

from __future__ import annotations

import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.text import listed, number, on_one_line, percent, prose, seconds, visible

hostile = st.text() | st.text("`<>&\"'\u202e\u200b\x00\x07\x1b\u0301ab\n")


class Seen(HTMLParser):
    """The tags and the text of an HTML fragment, as a browser reads it."""

    def __init__(self, fragment: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.feed(fragment)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert attrs == []

    def handle_data(self, data: str) -> None:
        self.text += data


@given(hostile)
def test_no_invisible_character_is_left(text: str) -> None:
    for character in visible(text):
        assert character in "\n\t" or unicodedata.category(character)[0] not in "C"


@given(st.text("abc äß日本語 αβγ 🙂.,-<>&'\"\n\t"))
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert visible(text) == text


@given(hostile)
def test_one_line_is_one_line(text: str) -> None:
    assert len(on_one_line(text).splitlines()) <= 1


@given(hostile)
def test_prose_shows_all_text_and_only_elements_for_code_and_breaks(text: str) -> None:
    seen = Seen(str(prose(text)))
    assert set(seen.tags) <= {"code", "wbr"}
    without = str.maketrans("", "", "`")
    assert "".join(seen.text.translate(without).split()) == "".join(visible(text).translate(without).split())


def test_backticks_become_code() -> None:
    assert str(prose("use `f = -E` & `x < y`")) == "use <code>f = -E</code> &amp; <code>x &lt; y</code>"
    assert str(prose("a lone ` stays")) == "a lone ` stays"


def test_long_words_can_be_broken_between_their_parts() -> None:
    assert str(prose("`get_logits` in ex_model.py")) == "<code>get_logits</code> in ex_model.py"
    name = "5b/variational_free_energy_of_the_gibbs_distribution"
    pieces = "5b/", "variational_", "free_", "energy_", "of_", "the_", "gibbs_", "distribution"
    assert str(prose(f"{name} and `{name}`")) == "{0} and <code>{0}</code>".format("<wbr>".join(pieces))


def test_invisible_characters_are_replaced_by_their_codes() -> None:
    assert visible("s001\u202egnp.") == "s001⟨U+202E⟩gnp."
    assert visible("\x1b[31m") == "⟨U+001B⟩[31m"
    assert visible("a" + "\u0301" * 5).count("⟨U+0301⟩") == 2


def test_long_text_is_cut_with_a_note() -> None:
    assert visible("x" * 50, limit=10) == "xxxxxxxxxx … (40 more characters)"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.0, "2"), (1.5, "1.5"), (1 / 3, "0.33"), (0.1 + 0.2, "0.3"), (-0.001, "0"), (123456.0, "123456")],
)
def test_points(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(("share", "shown"), [(0, "0 %"), (1, "100 %"), (0.999, "99 %"), (0.001, "1 %"), (0.5, "50 %")])
def test_only_exactly_all_and_none_are_100_and_0_percent(share: float, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.04, "40 ms"), (0.9999, "1.0 s"), (1.26, "1.3 s"), (59.97, "1 min 0 s"), (125.4, "2 min 5 s")],
)
def test_wall_times(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_the_rest_of_a_long_list_is_counted() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b\nc", "d"], 2) == "a, b c and 1 more"
    assert listed([], 2) == ""
