"""The files for other systems, read back in the same way as these systems read them."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

from autograder.collect import Roster
from autograder.export import FORMATS, export
from autograder.export.sheets import csv_bytes
from autograder.results import Result, Timings, write_result, write_timings
from autograder.text import without_controls
from ebmcourse.checking.outcome import Outcome

HOSTILE = '<img src=x onerror=alert(1)> a < b & \u202egnp.\x1b[2J\r\nsecond line, "quoted"; `code`'


def check(id_: str, status: str, most: float, public: bool = True, **more: object) -> Outcome:
    values = {"hint": f"hint of {id_}", "diagnosis": None} | more
    return Outcome(
        id_,
        id_.split("/")[0],
        f"title of {id_}",
        status,
        most if status == "passed" else 0.0,
        most,
        public,
        **values,
    )


def result(student: str, *checks: Outcome, assignment: str = "jem") -> Result:
    score = sum(check.points for check in checks)
    return Result(assignment, student, score, sum(c.max_points for c in checks), "ab", "cd", 4711, [], [*checks], True)


RESULTS = [
    result(
        "s001",
        check("1/a", "passed", 2),
        check("1/b", "passed", 1.5, public=False),
        check("2/c", "passed", 1),
    ),
    result(
        "s002",
        check("1/a", "failed", 2, diagnosis=HOSTILE),
        check("1/b", "skipped", 1.5, public=False, diagnosis="Runs once `1/a` passes."),
        check("2/c", "timeout", 1),
    ),
    result("s003", check("1/a", "passed", 2), check("1/b", "error", 1.5, public=False), check("2/c", "passed", 1)),
]


@pytest.fixture
def results_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for given in RESULTS:
        write_result(folder, given)
    write_result(folder, replace(RESULTS[0], assignment="deep"))
    write_timings(folder, "jem", "s001", Timings(1.25, {"1/a": 0.5}))
    return folder


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text("utf-8"), newline="")))


def test_plain_csv_contains_marks_and_checks(results_dir: Path, tmp_path: Path) -> None:
    written = export(results_dir, "csv", tmp_path / "out")
    assert [path.name for path in written] == [
        *("deep.marks.csv", "deep.checks.csv", "jem.marks.csv", "jem.checks.csv"),
    ]
    marks = list(csv.DictReader(io.StringIO((tmp_path / "out" / "jem.marks.csv").read_text("utf-8"))))
    assert [(row["student"], row["score"], row["1"], row["2"]) for row in marks] == [
        *(("s001", "4.5", "3.5", "1"), ("s002", "0", "0", "0"), ("s003", "3", "2", "1")),
    ]
    with open(tmp_path / "out" / "jem.checks.csv", encoding="utf-8", newline="") as file:
        checks = list(csv.DictReader(file))
    assert len(checks) == 9
    assert checks[0]["seconds"] == "0.500" and checks[1]["seconds"] == ""
    assert checks[3]["diagnosis"] == without_controls(HOSTILE)
    assert {row["visibility"] for row in checks} == {"public", "hidden"}


def test_the_canvas_file_has_columns_points_and_students(results_dir: Path, tmp_path: Path) -> None:
    export(results_dir, "canvas", tmp_path)
    header, possible, *students = rows(tmp_path / "jem.canvas.csv")
    assert header == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "jem"]
    # Canvas recognizes the row with the points by these words in its first cell.
    assert "Points Possible" in possible[0] and possible[1:] == ["", "", "", "", "4.5"]
    assert [(row[0], row[3], row[5]) for row in students] == [
        *(("s001", "s001", "4.5"), ("s002", "s002", "0"), ("s003", "s003", "3")),
    ]
    assert all(len(row) == len(header) for row in students)
    # Canvas would look up an ID before the login.
    assert all(row[1] == row[2] == "" for row in students)


def as_canvas_reads(table: list[list[str]], logins: dict[str, str]) -> dict[str, dict[str, float]]:
    """Marks by user and title, by the rules of Canvas's import; raises ValueError for a file that it would refuse."""
    header, possible, *students = table
    if "Student" not in header[0] or "ID" not in header[1]:
        raise ValueError("no header")
    columns = 5 if header[2:4] == ["SIS User ID", "SIS Login ID"] else 4 if header[2] == "SIS Login ID" else 3
    if "Section" not in header[columns - 1] or "Points Possible" not in possible[0]:
        raise ValueError("no header")
    marks: dict[str, dict[str, float]] = {}
    for row in students:
        if row[1] or row[2]:
            raise ValueError("would be looked up by Canvas's ID")
        user = logins[row[columns - 2]]
        marks[user] = {
            title: float(value) for title, value in zip(header[columns:], row[columns:], strict=True) if value
        }
    return marks


def test_canvas_reads_back_what_was_written(results_dir: Path, tmp_path: Path) -> None:
    export(results_dir, "canvas", tmp_path)
    logins = {given.student: f"user of {given.student}" for given in RESULTS}
    assert as_canvas_reads(rows(tmp_path / "jem.canvas.csv"), logins) == {
        f"user of {given.student}": {"jem": given.score} for given in RESULTS
    }


def test_columns_of_the_roster_identify_students_in_other_systems(results_dir: Path, tmp_path: Path) -> None:
    people = {"s001": {"id": "s001", "name": "=One, Student", "email": "s001@example.org", "canvas": "41"}}
    for to in ("canvas", "moodle"):
        export(results_dir, to, tmp_path, roster=Roster(people=people))
    _, _, first, second, _ = rows(tmp_path / "jem.canvas.csv")
    assert first == ["'=One, Student", "41", "", "s001", "", "4.5"] and second[:2] == ["s002", ""]
    header, first, second, _ = rows(tmp_path / "jem.moodle.csv")
    assert header == ["Username", "Email address", "jem", "jem (feedback)"]
    assert first[:3] == ["s001", "s001@example.org", "4.5"] and second[:3] == ["s002", "", "0"]


def test_students_without_a_result_get_no_row(results_dir: Path, tmp_path: Path) -> None:
    for to in ("canvas", "moodle"):
        export(results_dir, to, tmp_path)
        assert "s002" not in (tmp_path / f"deep.{to}.csv").read_text("utf-8")


def test_moodle_gets_username_grade_and_feedback(results_dir: Path, tmp_path: Path) -> None:
    export(results_dir, "moodle", tmp_path)
    header, *students = rows(tmp_path / "jem.moodle.csv")
    assert header == ["Username", "jem", "jem (feedback)"]
    assert [(row[0], float(row[1])) for row in students] == [("s001", 4.5), ("s002", 0.0), ("s003", 3.0)]
    assert students[0][2] == "4.5 of 4.5 points."
    assert students[2][2].split("<br>")[1] == (
        "Part 1, crashed: title of 1/b (0 of 1.5)."
        " The code stopped with an exception, or ended its process. Hint: hint of 1/b"
    )


def test_moodle_feedback_is_escaped_html_on_one_line(results_dir: Path, tmp_path: Path) -> None:
    export(results_dir, "moodle", tmp_path)
    feedback = rows(tmp_path / "jem.moodle.csv")[2][2]
    assert re.findall(r"<[^>]*>", feedback) == ["<br>"] * feedback.count("<br>")
    assert "<img src=x onerror=alert(1)> a < b &" in html.unescape(feedback)
    assert "\n" not in feedback and not set(feedback) & set("\u202e\x1b\r")


SEPARATORS = (",", ";", "\t")
BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def cells(path: Path, separator: str) -> list[str]:
    """The cells that a spreadsheet with this separator sees, without the blanks and quotes that it ignores."""
    text = path.read_bytes().decode("utf-8")
    found = [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) for cell in row]
    # A quote that does not begin a column is part of its text, so a line break also ends a row.
    found += [cell for line in re.split("[\r\n]+", text) for cell in line.split(separator)] if separator != "," else []
    return [re.sub('^[ "\0\ufeff]+', "", cell) for cell in found]


@pytest.mark.parametrize("to", ["csv", "canvas", "moodle"])
@pytest.mark.parametrize("before", ["", "x;", "x\t", "x\n", "x\r", "x\r\n", "x; ", 'x;"', 'x\t"" ', "x;;", '";'])
def test_no_cell_is_a_formula(tmp_path: Path, to: str, before: str) -> None:
    for beginning in (*BEGINNINGS, "=cmd|' /C calc'!A0", '="a";=b', "@SUM(A1)", "<=1", "<\t=1"):
        text = f"{before}{beginning}"
        lost = replace(RESULTS[1].checks[0], title=text, diagnosis=text, hint=text, part=text)
        student = text.replace("/", "")
        write_result(tmp_path / "results", replace(RESULTS[1], student=student, flags=[text], checks=[lost]))
        people = {student: {"id": student, "name": text, "email": text, "canvas": text}}
        for path in export(tmp_path / "results", to, tmp_path / "out", roster=Roster(people=people)):
            for separator in SEPARATORS:
                assert not [cell for cell in cells(path, separator) if cell.startswith(BEGINNINGS)], text


@hypothesis.given(st.lists(st.sampled_from([*BEGINNINGS, *",;\"'\n \0x1", "\r\n", "=1"]), max_size=8).map("".join))
@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
)
def test_no_text_makes_a_formula(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(csv_bytes([["x", text, text, 1.0], [text, None, text]]))
    for separator in SEPARATORS:
        assert not [cell for cell in cells(path, separator) if cell.startswith(BEGINNINGS)]


@pytest.mark.parametrize(
    "text",
    [
        "Anna-Lena Müller-Ost",
        "s001-x@example.org",
        "The network models `f = -E`; the sign is wrong.",
        "Expected (B, -1), not (B,-1): x += 1",
        "first line\n\nsecond line\r\nthird; fourth\tfifth",
        'a "quoted" word',
    ],
)
def test_ordinary_text_is_exported_unchanged(text: str) -> None:
    assert next(csv.reader(io.StringIO(csv_bytes([[text]]).decode(), newline=""))) == [text]


@pytest.mark.parametrize("to", ["csv", "canvas", "moodle"])
def test_no_name_controls_a_terminal_or_the_direction_of_text(tmp_path: Path, to: str) -> None:
    names = {"a\x1b[2Jb": "a⟨U+001B⟩[2Jb", "a\u202eb": "a⟨U+202E⟩b", "a\x9bb": "a⟨U+009B⟩b", "a\u2066b": "a⟨U+2066⟩b"}
    checks = [check("1/a", "failed", 1, diagnosis="\x1b]0;x\x07 \u202e")]
    write_result(tmp_path, replace(result("s001", *checks), flags=["\x1b[31m"]))
    for name in names:
        write_result(tmp_path, result(name, *checks))
    export(tmp_path, to, tmp_path / "out")
    text = "".join(path.read_text("utf-8") for path in (tmp_path / "out").glob("*.csv"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)
    assert all(shown in text for shown in names.values())


@pytest.mark.parametrize("name", ["می\u200cخواهم", "क्\u200dष", "Nguyễn", "Žižek", "李小龍", "שלום", "👩\u200d🔬"])
def test_names_of_all_languages_stay_as_they_are(name: str) -> None:
    assert csv_bytes([[name]]).decode("utf-8") == f"{name}\n"


def test_numbers_stay_numbers() -> None:
    assert csv_bytes([["a", -1.5, 0.0, None, "-1.5"]]) == b"a,-1.5,0,,'-1.5\n"


def test_moodle_shows_comparisons_as_they_were_written(tmp_path: Path) -> None:
    said = 'Here a <= b; -c >=-d, and x;"=y.'
    lost = replace(RESULTS[1].checks[0], diagnosis=said)
    write_result(tmp_path / "results", replace(RESULTS[1], checks=[lost]))
    export(tmp_path / "results", "moodle", tmp_path)
    assert said in html.unescape(rows(tmp_path / "jem.moodle.csv")[1][2])


GRADESCOPE = json.loads((Path(__file__).parent / "gradescope.schema.json").read_text("utf-8"))


def test_gradescope_gets_valid_results_json(results_dir: Path, tmp_path: Path) -> None:
    written = export(results_dir, "gradescope", tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in written] == [
        "deep/s001/results.json",
        *(f"jem/{given.student}/results.json" for given in RESULTS),
    ]
    for path, given in zip(written[1:], RESULTS, strict=True):
        data = json.loads(path.read_bytes())
        jsonschema.validate(data, GRADESCOPE)
        assert data["score"] == given.score == sum(test["score"] for test in data["tests"])
        assert sum(test["max_score"] for test in data["tests"]) == given.max_score
        assert [test["status"] == "passed" for test in data["tests"]] == [c.passed for c in given.checks]
        assert "4711" not in path.read_text("utf-8")
    assert json.loads(written[1].read_bytes())["execution_time"] == 1.25


def test_gradescope_keeps_hidden_checks_until_publication(results_dir: Path, tmp_path: Path) -> None:
    export(results_dir, "gradescope", tmp_path)
    tests = json.loads((tmp_path / "jem/s002/results.json").read_bytes())["tests"]
    assert [test["visibility"] for test in tests] == ["visible", "after_published", "visible"]
    assert tests[0]["output"].startswith("Failed. <img") and tests[0]["output"].endswith("Hint: hint of 1/a")
    assert all(test["output_format"] == test["name_format"] == "text" for test in tests)


COURSE = """
[late]
policy = "percent"
per_day = 30

[assignments.jem]
due = 2026-11-30T12:00:00Z
"""


@pytest.fixture
def late_course(tmp_path: Path) -> Path:
    """A course whose student s001 handed in one day late."""
    (tmp_path / "course.toml").write_text(COURSE)
    (tmp_path / "solutions" / "jem").mkdir(parents=True)
    came = tmp_path / "submitted" / "s001" / "jem"
    came.mkdir(parents=True)
    (came / "timestamp.txt").write_text("2026-12-01 11:00:00.000000 UTC")
    return tmp_path


def test_all_exports_contain_the_mark_after_the_late_penalty(late_course: Path) -> None:
    path = write_result(late_course / "results", RESULTS[0])
    before = path.read_bytes()
    out, submitted = late_course / "out", late_course / "submitted"
    for to in ("csv", "canvas", "moodle", "gradescope"):
        export(late_course / "results", to, out, submitted=submitted, course=late_course)
    assert rows(out / "jem.marks.csv")[1][1] == "3.15"
    assert rows(out / "jem.canvas.csv")[2][5] == "3.15"
    assert rows(out / "jem.moodle.csv")[1][1] == "3.15"
    data = json.loads((out / "jem/s001/results.json").read_bytes())
    assert data["score"] == 3.15
    said = "Handed in 1 day late. 1.35 points deducted."
    assert said in data["output"] and said in rows(out / "jem.moodle.csv")[1][2]
    marks = next(csv.DictReader(io.StringIO((out / "jem.marks.csv").read_text("utf-8"))))
    assert (marks["days_late"], marks["late_days_spent"], marks["deducted"]) == ("1", "0", "1.35")
    assert marks["submitted"] == "2026-12-01T11:00:00+00:00" and marks["1"] == "3.5"
    assert path.read_bytes() == before


def test_with_deadlines_times_of_submission_are_required(late_course: Path) -> None:
    write_result(late_course / "results", RESULTS[0])
    with pytest.raises(ValueError, match="--submitted"):
        export(late_course / "results", "csv", late_course / "out", course=late_course)


def test_the_instructor_gets_remarks_on_times_of_submission(late_course: Path) -> None:
    write_result(late_course / "results", RESULTS[0])
    submitted, said = late_course / "submitted", []
    (submitted / "s001" / "jem" / "timestamp.txt").write_text("yesterday")
    export(late_course / "results", "csv", late_course, submitted=submitted, course=late_course, say=said.append)
    assert said == [
        "s001, jem: The file timestamp.txt holds no time.",
        "s001, jem: The time of submission is not known: it counts as in time.",
    ]
    flags = next(csv.DictReader(io.StringIO((late_course / "jem.marks.csv").read_text("utf-8"))))["flags"]
    assert all(remark.removeprefix("s001, jem: ") in flags for remark in said)


def test_a_remark_on_many_students_is_one_line(late_course: Path) -> None:
    said: list[str] = []
    for student in ("s001", "s002", "s003"):
        write_result(late_course / "results", replace(RESULTS[0], student=student))
    submitted = late_course / "submitted"
    export(late_course / "results", "csv", late_course, submitted=submitted, course=late_course, say=said.append)
    assert "s002, s003, jem: The time of submission is not known: it counts as in time." in said


@pytest.mark.parametrize("to", [name for name in FORMATS if name != "nbgrader"])
def test_the_same_results_give_the_same_bytes(results_dir: Path, tmp_path: Path, to: str) -> None:
    first = {path: path.read_bytes() for path in export(results_dir, to, tmp_path / "out")}
    assert {path: path.read_bytes() for path in export(results_dir, to, tmp_path / "out")} == first


def test_the_error_for_wrong_arguments_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose one of csv, canvas, moodle, gradescope, nbgrader"):
        export(tmp_path, "excel", tmp_path)
    with pytest.raises(ValueError, match="autograder grade"):
        export(tmp_path / "nowhere", "csv", tmp_path)
