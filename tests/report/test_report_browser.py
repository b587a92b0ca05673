"""The pages in a real browser: no code of a student runs, nothing is requested, all text is readable."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from hostile import HOSTILE, REQUESTS, hostile_results, hostile_submission
from report_sample import sample_class, write_class

from autograder.drawings import Drawn, Picture, write_drawings
from autograder.report import write_report
from autograder.results import write_result

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the pages with"),
]

DESKTOP, PHONE = 1200, 390
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="  # a PNG

# [contrast (WCAG 2), text] of every visible text and its background, lowest contrast first.
CONTRASTS = """(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const [r, g, b] = channels(colour).map(c => linear(c / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return colour;
    }
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const text = texts.currentNode.data.trim();
    const style = getComputedStyle(element);
    const shown = element.checkVisibility() && (channels(style.color)[3] ?? 1) > 0;  // transparent: for screen readers
    if (!text || !shown || element.closest('title')) continue;
    const pair = [element.namespaceURI.endsWith('svg') ? style.fill : style.color, ground(element)].map(luminance);
    found.push([(Math.max(...pair) + .05) / (Math.min(...pair) + .05), text]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The list of assignments, the page of a class, and one feedback page."""
    folder = write_class(tmp_path_factory.mktemp("results"), *sample_class())
    picture = Picture("Yours", 1, 1, PIXEL, [[0, 0], [1, 1]])
    write_drawings(folder, "jem", "s007", [Drawn("4b", "Your path.", [picture])])
    write_report(folder)
    return [folder / "index.html", folder / "jem/index.html", folder / "jem/feedback/s007.html"]


@pytest.fixture(scope="module")
def hostile_pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    for result in hostile_results():
        write_result(folder / "results", result)
    hostile_submission(folder / "submitted/s001/jem")
    return write_report(folder / "results", folder / "submitted")


def requests(browser: Browser) -> list[str]:
    """The requests of the open page, except for itself and inlined data."""
    asked = [
        event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in asked[1:] if not url.startswith("data:")]


def complaints(browser: Browser) -> list[str]:
    """The browser's log, which reports violations of the security policy, for example."""
    return [event["params"]["entry"]["text"] for event in browser.events if event["method"] == "Log.entryAdded"]


def has_run(browser: Browser) -> bool:
    return bool(browser.value("window.ran === 1 || document.title === 'ran'"))


def test_the_attack_works_on_an_unprotected_page(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "control.html"
    refreshing = HOSTILE.index("<meta")
    page.write_text(f"<p>{HOSTILE[:refreshing]}".replace("\x00", ""), encoding="utf-8")
    browser.open(page.as_uri())
    assert has_run(browser)
    assert f"{REQUESTS}i" in requests(browser) and f"{REQUESTS}s" in requests(browser)


def test_no_code_of_a_student_runs_and_nothing_is_requested(browser: Browser, hostile_pages: list[Path]) -> None:
    assert len(hostile_pages) == 5
    for page in hostile_pages:
        browser.open(page.as_uri())
        browser.value("document.querySelectorAll('a').forEach(link => link.dispatchEvent(new MouseEvent('mouseover')))")
        assert not has_run(browser), page
        assert requests(browser) == [] and complaints(browser) == [], page
        assert browser.value("document.querySelectorAll('main').length") == 1


def test_the_policy_alone_stops_markup_that_is_not_escaped(browser: Browser, pages: list[Path], tmp_path: Path) -> None:
    slipped = tmp_path / "slipped.html"
    refreshing = HOSTILE.index("<meta")  # a policy cannot forbid leaving the page
    content = pages[-1].read_text("utf-8").replace("<main>", f"<main><p>{HOSTILE[:refreshing]}".replace("\x00", ""))
    slipped.write_text(content, encoding="utf-8")
    browser.open(slipped.as_uri())
    assert browser.value("document.querySelectorAll('script').length") > 0
    assert not has_run(browser)
    # Chromium reports a request before its policy blocks it, so each request must have been blocked.
    stopped = [
        event["params"].get("blockedReason") for event in browser.events if event["method"] == "Network.loadingFailed"
    ]
    assert stopped and set(stopped) == {"csp"} and len(stopped) == len(requests(browser))


def test_pages_make_no_requests(browser: Browser, pages: list[Path]) -> None:
    for page in pages:
        browser.open(page.as_uri())
        assert requests(browser) == [] and complaints(browser) == []


@pytest.mark.parametrize("width", [320, PHONE, 800, DESKTOP])
def test_no_page_is_wider_than_the_screen(
    browser: Browser, pages: list[Path], hostile_pages: list[Path], width: int
) -> None:
    for page in pages + hostile_pages:
        browser.look(width=width, phone=width < 600)
        browser.open(page.as_uri())
        assert browser.value("document.documentElement.scrollWidth") <= width, page


@pytest.mark.parametrize(("width", "dark"), product([PHONE, DESKTOP], [False, True]))
def test_all_text_is_readable(browser: Browser, pages: list[Path], width: int, dark: bool) -> None:
    grounds = set()
    for page in pages:
        browser.look(width=width, dark=dark, phone=width < 600)
        browser.open(page.as_uri())
        contrasts = browser.value(CONTRASTS)
        assert len(contrasts) >= 10 and contrasts[0][0] >= 4.5, (page, contrasts[:3])
        grounds.add(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ({"rgb(21, 23, 27)"} if dark else {"rgb(250, 248, 244)"})


def test_mail_addresses_as_ids_leave_the_gradebook_readable_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    results, _ = sample_class(3)
    ids = ["s001.of-a-long-name@students.mathematics.example.org", "s002@example.org", "s003"]
    for n in range(6):
        for result, student in zip(results, ids, strict=True):
            write_result(tmp_path, replace(result, assignment=f"sheet_{n}", student=student, flags=[]))
    write_report(tmp_path, names={ids[1]: "A long name " * 10})
    browser.look(width=PHONE, phone=True)
    browser.open((tmp_path / "index.html").as_uri())
    assert browser.value("document.querySelector('.scroll').scrollWidth") > PHONE  # six sheets
    boxes = """[...document.querySelectorAll(".gradebook tbody tr")].map(row => {
      const [who, mark] = [".who", "td a"].map(part => row.querySelector(part).getBoundingClientRect());
      return [who.left, who.right, mark.top - who.bottom];
    })"""
    for scrolled in (0, 200):
        browser.value(f"document.querySelector('.scroll').scrollLeft = {scrolled}")
        for left, right, between in browser.value(boxes):
            assert left >= 0 and right <= PHONE and -4 < between < 12
    heights = browser.value("[...document.querySelectorAll('.gradebook tbody tr')].map(row => row.offsetHeight)")
    assert max(heights) < 75


def test_the_gradebook_can_be_sorted_by_every_column(browser: Browser, tmp_path: Path) -> None:
    results, timings = sample_class()
    write_class(tmp_path, results, timings)
    for result in results[:4]:
        write_result(tmp_path, replace(result, assignment="other"))
    for student in ("t20", "t3"):
        write_result(tmp_path, replace(results[0], student=student, score=0.0))
    write_report(tmp_path)
    browser.look(width=DESKTOP)
    browser.open((tmp_path / "index.html").as_uri())

    def click(column: int) -> list[tuple[str, str]]:
        """Click on the title of a column; return the students and the values of the column, from top to bottom."""
        browser.value(f"document.querySelectorAll('.gradebook thead button')[{column}].click()")
        row = f"row => [row.cells[0].innerText, row.cells[{column}].dataset.value]"
        return [
            tuple(row) for row in browser.value(f"[...document.querySelectorAll('.gradebook tbody tr')].map({row})")
        ]

    by_name = [*(result.student for result in results), "t3", "t20"]
    for column in (1, 2, 3, 4):
        down, up = click(column), click(column)
        for rows, sign in ((down, -1), (up, 1)):
            values = [float(value) for _, value in rows if value]
            assert values == sorted(values, key=lambda value: sign * value)
            assert [value for _, value in rows[len(values) :]] == [""] * (len(rows) - len(values))
            assert {name for name, _ in rows} == {*by_name} and len(rows) == len(by_name)
    assert [name for name, _ in click(0)] == by_name and [name for name, _ in click(0)] == by_name[::-1]
    assert complaints(browser) == []


def test_the_printed_page_is_light_even_in_dark_mode(browser: Browser, pages: list[Path]) -> None:
    browser.look(width=DESKTOP, dark=True)
    browser.open(pages[1].as_uri())
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    browser.call("Emulation.setEmulatedMedia", media="print", features=[scheme])
    ink = browser.value("getComputedStyle(document.querySelector('h1')).color")
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
    assert ink == "rgb(32, 36, 43)"


def test_the_pictures_of_the_documentation_can_be_made(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "docs" / "make_report_pictures.py"
    runpy.run_path(str(script))["main"](tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {path.name for path in (script.parent / "images" / "report").iterdir()}
    assert max(sizes.values()) < 200_000
