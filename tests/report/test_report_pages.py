"""The pages: complete, reproducible, self-contained, accessible, and safe for any text of a student."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections import Counter
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from hostile import RUNS, hostile_results
from report_sample import sample_class, write_class

from autograder.report import write_report
from autograder.report.pages import class_page
from autograder.results import Result, write_result
from ebmcourse.checking.outcome import STATUSES

ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "aside"),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "div",
        "span",
        "a",
        "b",
        "strong",
        "bdi",
        "wbr",
    ),
    *("nav", "code", "figure", "figcaption", "img", "table", "thead", "tbody", "tfoot", "tr", "th", "td"),
    *("details", "summary", "button", "script"),
    *("svg", "symbol", "use", "circle", "rect", "path", "text"),
}
VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """A page as a browser would read it: its elements, attributes and text, and whether they nest."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.style = ""
        self.script = ""
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        elif self.open and self.open[-1] == "script":
            self.script += data
        else:
            self.text += data

    def all(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.elements if attribute in attrs]


def report_on(folder: Path, results: list[Result]) -> dict[str, Page]:
    for result in results:
        write_result(folder, result)
    return {str(path.relative_to(folder)): Page(path.read_text("utf-8")) for path in write_report(folder)}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_class(tmp_path_factory.mktemp("results"), *sample_class())
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def pages(sample: Path) -> dict[str, Page]:
    return {str(path.relative_to(sample)): Page(path.read_text("utf-8")) for path in sample.rglob("*.html")}


def test_there_is_a_page_for_each_student_each_class_and_the_course(sample: Path, pages: dict[str, Page]) -> None:
    students = {f"jem/feedback/{result.student}.html" for result in sample_class()[0]}
    assert set(pages) == {"index.html", "jem/index.html"} | students
    assert {str(path.relative_to(sample)) for path in write_report(sample)} == set(pages)


def test_the_same_results_give_the_same_bytes(sample: Path) -> None:
    before = {path: path.read_bytes() for path in write_report(sample)}
    assert {path: path.read_bytes() for path in write_report(sample)} == before


@pytest.mark.slow
def test_every_link_has_a_target(sample: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        for href in page.all("href"):
            file, _, fragment = unquote(href).partition("#")
            target = (sample / name).parent / file if file else sample / name
            assert target.is_file(), f"{name} links to {href}"
            if fragment:
                assert fragment in Page(target.read_text("utf-8")).all("id"), f"{name} links to {href}"


def test_pages_need_no_other_files(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert not [src for src in page.all("src") if not src.startswith("data:image/png;base64,")]
        assert not re.search(r"url\(|@import|https?:", page.style)
        assert all(not href.startswith(("http", "//")) for href in page.all("href"))


def sha256(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_the_one_style_sheet_and_in_the_gradebook_one_script(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        (policy,) = [
            attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv") == "Content-Security-Policy"
        ]
        rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
        assert rules.pop("style-src") == sha256(page.style) and rules.pop("img-src") == "data:"
        if name == "index.html":
            assert rules.pop("script-src") == sha256(page.script)
        assert set(rules) == {"default-src", "base-uri", "form-action"} and set(rules.values()) == {"'none'"}
        assert [tag for tag, _ in page.elements].count("script") == (name == "index.html")


def test_headings_do_not_skip_a_level_and_ids_are_unique(pages: dict[str, Page]) -> None:
    for page in pages.values():
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert max(Counter(page.all("id")).values()) == 1


def test_table_headers_have_a_scope(pages: dict[str, Page]) -> None:
    scopes = Counter(attrs.get("scope") for page in pages.values() for tag, attrs in page.elements if tag == "th")
    assert set(scopes) == {"row", "col"} and min(scopes.values()) > 5


def test_no_status_is_shown_by_colour_alone(pages: dict[str, Page]) -> None:
    """In words on the feedback; in the map by height, by an outline, and in the text of its link."""
    results = sample_class()[0]
    kinds = {check.status: check.word for result in results for check in result.checks}
    assert kinds.keys() == set(STATUSES), "the sample shows every status"
    for result in results:
        text = pages[f"jem/feedback/{result.student}.html"].text
        assert all(check.word.capitalize() in text for check in result.checks)
    page = pages["jem/index.html"]
    shapes = {
        attrs["class"]: attrs["height"]
        for tag, attrs in page.elements
        if tag == "rect" and attrs.get("class", "").startswith("c-")
    }
    outlined = re.search(r"((?:\.c-\w+,? ?)+)\{[^}]*stroke:", page.style)
    assert outlined and set(re.findall(r"\.(c-\w+)", outlined[1])) == {"c-error", "c-timeout", "c-memory"}
    assert len({shapes["c-passed"], shapes["c-failed"], shapes["c-skipped"]}) == 3
    assert all(f": {word}" in page.text for kind, word in kinds.items() if kind != "passed")


def test_feedback_shows_the_diagnosis_and_hint_of_each_mistake(pages: dict[str, Page]) -> None:
    for result in sample_class()[0]:
        text = pages[f"jem/feedback/{result.student}.html"].text
        for check in result.checks:
            assert check.title.replace("`", "") in text
            if check.status not in ("passed", "skipped"):
                assert check.hint.replace("`", "") in text
                assert (check.diagnosis or "").replace("`", "") in text


def test_one_mistake_is_explained_once(tmp_path: Path) -> None:
    result = sample_class(1)[0][0]
    crash = "Your program stopped with NameError in ex_model.py, line 3: `import toch`."
    checks = [replace(check, status="error", points=0.0, diagnosis=crash) for check in result.checks]
    page = report_on(tmp_path, [replace(result, score=0.0, checks=checks)])["jem/feedback/s001.html"]
    assert page.text.count("import toch") == 1 and "25 checks crashed" in page.text
    assert all(check.hint.replace("`", "") in page.text for check in checks)


def test_a_skipped_check_names_the_title_of_what_it_waits_for(tmp_path: Path) -> None:
    result = sample_class(1)[0][0]
    first, second = result.checks[1:3]
    checks = [
        replace(first, status="failed", points=0.0),
        replace(second, status="skipped", points=0.0, diagnosis=f"Skipped until `{first.id}` passes."),
    ]
    text = " ".join(report_on(tmp_path, [replace(result, checks=checks)])["jem/feedback/s001.html"].text.split())
    assert f"It needs {first.title.replace('`', '')}, which has to pass first." in text
    assert first.id not in text


def test_feedback_shows_neither_other_students_nor_the_seed(tmp_path: Path) -> None:
    results = [replace(result, seed=918273645) for result in sample_class()[0]]
    for name, page in report_on(tmp_path, results).items():
        assert "918273645" not in page.text + str(page.elements)
        if "feedback" in name:
            assert not re.search(r"s\d\d\d", page.text.replace(Path(name).stem, ""))


def test_the_status_is_shown_in_words(pages: dict[str, Page]) -> None:
    text = pages["jem/feedback/s005.html"].text
    for word in ("Passed", "Failed", "Not run", "public", "hidden"):
        assert word in text


def test_every_page_says_if_grading_was_unconfined(tmp_path: Path) -> None:
    results = [replace(result, confined=False) for result in sample_class(3)[0]]
    assert all("without the sandbox" in page.text for page in report_on(tmp_path, results).values())


def test_confined_grading_is_not_mentioned(pages: dict[str, Page]) -> None:
    assert not any("without the sandbox" in page.text for page in pages.values())


def test_a_total_that_is_not_the_sum_is_explained(tmp_path: Path) -> None:
    result = sample_class(1)[0][0]
    page = report_on(tmp_path, [replace(result, score=result.score - 3)])[f"jem/feedback/{result.student}.html"]
    assert f"The checks give {result.score:g}\xa0points; the total was changed afterwards." in page.text


def test_the_deduction_for_lateness_is_shown_and_counts(tmp_path: Path) -> None:
    (tmp_path / "course/solutions/jem").mkdir(parents=True)
    late = '[late]\npolicy = "percent"\nper_day = 10\n'
    (tmp_path / "course/course.toml").write_text(f"{late}[assignments.jem]\ndue = 2026-11-30T12:00:00\n")
    results = sample_class(2)[0]
    for result, day in zip(results, ("30", "29"), strict=True):
        write_result(tmp_path / "results", result)
        folder = tmp_path / "submitted" / result.student / "jem"
        folder.mkdir(parents=True)
        (folder / "timestamp.txt").write_text(f"2026-11-{day} 20:00:00 UTC")
    write_report(tmp_path / "results", tmp_path / "submitted", tmp_path / "course")
    slow, prompt = (
        Page((tmp_path / f"results/jem/feedback/{who}.html").read_text("utf-8")) for who in ("s001", "s002")
    )
    reached = results[0].score
    assert f"{0.9 * reached:g} of" in slow.text and f"The checks give {reached:g}" in slow.text
    assert f"Handed in 1 day late. {0.1 * reached:g} points deducted." in slow.text
    assert "late" not in prompt.text
    overview = Page((tmp_path / "results/jem/index.html").read_text("utf-8")).text
    assert "1 submission was late" in overview and f"1 day late: −{0.1 * reached:g}" in overview


def test_results_of_several_versions_of_the_checks_are_noticed(tmp_path: Path) -> None:
    results = sample_class(3)[0]
    page = report_on(tmp_path, [*results[:2], replace(results[2], checks_sha256="0" * 64)])["jem/index.html"]
    assert "1 result comes from another version of the checks" in page.text


def test_a_result_without_checks_has_a_page(tmp_path: Path) -> None:
    empty = Result("jem", "s001", 0.0, 0.0, "", "", 0)
    pages = report_on(tmp_path, [empty])
    assert "No check was run" in pages["jem/feedback/s001.html"].text


def test_full_marks_have_a_page_without_advice(pages: dict[str, Page]) -> None:
    full = next(result for result in sample_class()[0] if result.fraction == 1)
    text = pages[f"jem/feedback/{full.student}.html"].text
    assert "All 25 checks passed" in text and "What to fix" not in text


def test_own_figures_are_shown(sample: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s001" / "jem"
    folder.mkdir(parents=True)
    content = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
    )
    (folder / "histogram.png").write_bytes(content)
    copy = tmp_path / "results"
    shutil.copytree(sample, copy)
    write_report(copy, tmp_path)
    page = Page((copy / "jem/feedback/s001.html").read_text("utf-8"))
    assert page.all("src") == ["data:image/png;base64," + base64.b64encode(content).decode()]
    assert "histogram.png" in page.text


def test_the_error_for_missing_or_damaged_results_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="autograder grade"):
        write_report(tmp_path)
    (tmp_path / "jem").mkdir()
    (tmp_path / "jem" / "s001.json").write_text("{")
    with pytest.raises(ValueError, match=r"s001\.json"):
        write_report(tmp_path)


def test_hostile_text_adds_no_element_and_no_attribute(tmp_path: Path) -> None:
    pages = report_on(tmp_path / "hostile", hostile_results())
    harmless = report_on(tmp_path / "harmless", sample_class()[0])
    known = {attribute for page in harmless.values() for _, attrs in page.elements for attribute in attrs}
    for page in pages.values():
        assert {tag for tag, _ in page.elements} <= ELEMENTS
        assert {attribute for _, attrs in page.elements for attribute in attrs} <= known
        assert not any(href.lower().startswith("javascript:") for href in page.all("href"))
        assert not set(page.text) & set("\u202e\u202c\x1b\x00")
        assert "49" not in page.text
    feedback = pages["jem/feedback/s001.html"]
    assert RUNS in feedback.text and "⟨U+202E⟩" in feedback.text


def test_hostile_names_stay_in_their_folder_and_are_linked(tmp_path: Path) -> None:
    pages = report_on(tmp_path, hostile_results())
    name = hostile_results()[1].student
    assert f"jem/feedback/{name}.html" in pages
    assert f"feedback/{name}.html" in [unquote(href) for href in pages["jem/index.html"].all("href")]


def luminance(colour: str) -> float:
    channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """WCAG 2: https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_are_readable(pages: dict[str, Page], scheme: int) -> None:
    block = re.findall(r":root \{([^}]*--paper[^}]*)\}", pages["index.html"].style)[scheme]
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for ground in ("paper", "surface", "sunken"):
        for ink in ("ink", "muted", "accent"):
            assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    for ground in ("paper", "surface"):
        for ink in ("pass", "fail", "warn", "skip"):
            assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    for tint, inks in {"tint-fail": ("ink", "muted"), "tint-warn": ("ink", "muted", "warn")}.items():
        for ink in inks:
            assert contrast(colour[ink], colour[tint]) >= 4.5, (ink, tint)
    for area in ("area-pass", "area-fail", "area-mark"):
        assert contrast(colour[area], colour["paper"]) >= 3, area


def course(folder: Path, *assignments: str) -> Path:
    """A course in which these assignments have a title, two written questions, and a deadline."""
    rules = '[late]\npolicy = "percent"\nper_day = 10\n'
    for name in assignments:
        home = folder / "solutions" / name
        home.mkdir(parents=True)
        (home / "assignment.toml").write_text(
            f'title = "All about {name}"\nfiles = ["ex.py"]\n[parts]\n"1" = "One"\n[limits]\nseconds = 60\n'
        )
        cells = [
            '# %% [markdown] nbgrader={"grade_id": "answer-3-1a", "grade": true, "solution": true, "points": 2}',
            '# %% nbgrader={"grade_id": "test-3-2a", "grade": true, "locked": true}',
            '# %% [markdown] nbgrader={"grade_id": "answer-3-1b", "grade": true, "solution": true, "points": 1.5}',
        ]
        (home / f"{name}.py").write_text("\n".join(cells))
        rules += f"[assignments.{name}]\ndue = 2026-11-30T12:00:00\n"
    (folder / "course.toml").write_text(rules)
    return folder


def test_the_gradebook_has_all_students_assignments_penalties_and_links(tmp_path: Path) -> None:
    first = sample_class(3)[0]
    for result in [*first, *(replace(result, assignment="later") for result in first[:2])]:
        write_result(tmp_path / "results", result)
        folder = tmp_path / "submitted" / result.student / result.assignment
        folder.mkdir(parents=True)
        late = (result.assignment, result.student) == ("jem", "s002")
        (folder / "timestamp.txt").write_text(f"2026-11-30 {'20' if late else '10'}:00:00 UTC")
    write_report(tmp_path / "results", tmp_path / "submitted", course(tmp_path / "course", "jem", "later"))
    content = (tmp_path / "results/index.html").read_text("utf-8")
    page = Page(content)
    for name, result in [(name, result) for name in ("jem", "later") for result in first]:
        taken = (name, result.student) != ("later", "s003")
        assert (f"{name}/feedback/{result.student}.html" in page.all("href")) == taken
        assert f"{name}/index.html" in page.all("href") and f"All about {name}" in page.text
    score = first[1].score
    assert (
        f"1 day late: −{0.1 * score:g}" in page.text and "1 late" in page.text and "due 2026-11-30 12:00" in page.text
    )
    assert "2 written questions with 3.5\xa0points, marked by hand" in page.text
    rows = [re.findall(r'data-value="(.*?)"', row) for row in re.findall(r"<tr>.*?</tr>", content, re.DOTALL)[1:4]]
    totals = [2 * first[0].score, 1.9 * score, first[2].score]
    assert [[float(value or -1) for value in row[:3]] for row in rows] == [
        [first[0].score, first[0].score, totals[0]],
        [pytest.approx(0.9 * score), score, pytest.approx(totals[1])],
        [first[2].score, -1, totals[2]],
    ]
    most = 2 * first[0].max_score
    assert [float(row[3]) for row in rows] == [pytest.approx(total / most) for total in totals]


@pytest.mark.slow
def test_the_gradebook_of_300_students_has_a_row_for_each(tmp_path: Path) -> None:
    results = sample_class(1)[0]
    names = [f"s{n:03}" for n in range(300)]
    page = report_on(tmp_path, [replace(results[0], student=name) for name in names])["index.html"]
    assert re.findall(r"s\d{3}", page.text) == names


def test_feedback_folds_what_passed(pages: dict[str, Page], sample: Path) -> None:
    for result in sample_class()[0]:
        content = unescape((sample / f"jem/feedback/{result.student}.html").read_text("utf-8"))
        folded = "".join(re.findall(r"<details>.*?</details>", content, re.DOTALL))
        rows = content[content.index('id="parts"') :] if result.checks else ""
        for check in result.checks:
            title = re.sub(r"`(.+?)`", r"<code>\1</code>", check.title)
            assert title in rows and (title in folded) == check.passed
        assert "<details open" not in content


def test_feedback_names_what_is_marked_by_hand(tmp_path: Path) -> None:
    result = sample_class(1)[0][0]
    write_result(tmp_path / "results", result)
    (tmp_path / "submitted/s001/jem").mkdir(parents=True)
    write_report(tmp_path / "results", tmp_path / "submitted", course(tmp_path / "course", "jem"))
    text = " ".join(Page((tmp_path / "results/jem/feedback/s001.html").read_text("utf-8")).text.split())
    assert "Your instructor marks the answers to 2 written questions with 3.5 points." in text
    assert "3.1a 2 points 3.1b 1.5 points" in text


@pytest.mark.parametrize(("content", "said"), [(None, "is missing"), ("{broken", "cannot be used")])
def test_a_notebook_without_readable_answers_is_mentioned(tmp_path: Path, content: str | None, said: str) -> None:
    result = sample_class(1)[0][0]
    write_result(tmp_path / "results", result)
    folder = tmp_path / "submitted/s001/jem"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "jem.ipynb").write_text(content)
    home = course(tmp_path / "course", "jem")
    pages = [tmp_path / "results/jem" / name for name in ("feedback/s001.html", "index.html")]
    write_report(tmp_path / "results", tmp_path / "submitted", home)
    for page in pages:
        assert f"The notebook jem.ipynb {said}" in " ".join(Page(page.read_text("utf-8")).text.split())
    (folder / "jem.ipynb").write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}')
    write_report(tmp_path / "results", tmp_path / "submitted", home)
    for page in pages:
        assert "The notebook jem.ipynb" not in " ".join(Page(page.read_text("utf-8")).text.split())


def test_feedback_shows_the_lines_around_an_exception(tmp_path: Path) -> None:
    result = sample_class(1)[0][0]
    crash = "Your program stopped with AttributeError in ex_model.py, line 3: `return x.shpae`."
    checks = [replace(check, status="error", points=0.0, diagnosis=crash) for check in result.checks[:2]]
    write_result(tmp_path / "results", replace(result, score=0.0, checks=checks))
    folder = tmp_path / "submitted/s001/jem"
    folder.mkdir(parents=True)
    (folder / "ex_model.py").write_text("# <script>alert(1)</script>\ndef f(x):\n    return x.shpae\n")
    write_report(tmp_path / "results", tmp_path / "submitted", tmp_path)
    page = (tmp_path / "results/jem/feedback/s001.html").read_text("utf-8")
    assert "<code># &lt;script&gt;alert(1)&lt;/script&gt;</code>" in page
    assert page.count('<li class="here"><span class="number">3</span><code>    return x.shpae</code></li>') == 1


def test_everybody_whom_a_flag_concerns_counts_once() -> None:
    results = [replace(result, flags=[]) for result in sample_class(5)[0]]
    results[0] = replace(results[0], flags=["a repaired notebook", "signs of tampering"])
    students = [result.student for result in results]
    page = class_page(results, {}, flags=[("These submissions are identical:", students[:2])])
    assert "<dt>Flagged</dt><dd>2</dd>" in page
