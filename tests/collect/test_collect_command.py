"""The command `collect`: what it prints, its exit codes, and what the platform says about the time."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from sources import folder, inner_zip, zipped
from test_platforms import CANVAS, MOODLE

from autograder.cli import main
from autograder.late import of_results
from autograder.late.record import read_record
from autograder.results import Result

LATE = '[late]\npolicy = "percent"\nper_day = 10\n'


def run(course: Path, *arguments: object):
    return CliRunner().invoke(main, ["--course", str(course), "collect", *map(str, arguments)])


def lateness(course: Path, submitted: Path, student: str):
    result = Result("tiny", student, 10.0, 10.0, "", "", 0)
    return of_results([result], submitted, course)["tiny", student]


def test_the_command_says_what_it_did_and_what_is_to_be_done(tiny_course, roster, tmp_path):
    source = zipped(tmp_path / "a.zip", CANVAS | {"nobody_7_9009_tiny.py": ""})
    done = run(tiny_course, source, "tiny", "--out", tmp_path / "out", "--roster", roster)
    assert done.exit_code == 1
    assert "canvas: 4 new" in done.output and "late according to Canvas: s002" in done.output
    assert "NOT collected, not in the roster or ambiguous: nobody 7" in done.output
    done = run(tiny_course, zipped(tmp_path / "b.zip", MOODLE), "tiny", "--out", tmp_path / "b", "--roster", roster)
    typed = "s004: What was typed on the platform is not collected; read it there.\n"
    assert done.exit_code == 0 and done.output == "moodle: 4 new\n" + typed


def test_who_has_not_handed_in_is_no_mistake(tiny_course, roster, tmp_path):
    source = folder(tmp_path / "clones", {"s001/tiny.py": "1", "s003/tiny.py": "3"})
    done = run(tiny_course, source, "tiny", "--out", tmp_path / "out", "--roster", roster)
    assert done.exit_code == 0 and "in the roster, but not in the source: s002, s004" in done.output


def test_a_users_mistake_is_one_sentence(tiny_course, roster, tmp_path):
    missing = tmp_path / "no.zip"
    for path, said in (
        (missing, f"There is no file or folder {missing}."),
        (roster, "neither a folder nor a complete"),
    ):
        wrong = run(tiny_course, path, "tiny", "--out", tmp_path / "c")
        assert wrong.exit_code == 2 and said in wrong.output and "Traceback" not in wrong.output
    source = zipped(tmp_path / "a.zip", CANVAS)
    wrong = run(tiny_course, source, "tiny", "--out", tmp_path / "c", "--kind", "moodle")
    assert wrong.exit_code == 2 and "not of the kind moodle" in wrong.output
    wrong = run(tiny_course, source, "tiny", "--out", tmp_path / "c", "--kind", "mood")
    assert wrong.exit_code == 2 and "'mood' is unknown. Choose one of: moodle, canvas, gradescope" in wrong.output
    wrong = run(tiny_course, source, "tiny", "--out", tmp_path / "c", "--from", "exchange")
    assert wrong.exit_code == 2 and "Give SOURCE and NAME" in wrong.output


def test_late_in_canvas_costs_a_day_without_a_time(tiny_course, tmp_path):
    out = tmp_path / "submitted"
    files = {"a_1_11_tiny.py": "1", "b_LATE_2_12_tiny.py": "2", "c_LATE_3_13_tiny.py": "3"}
    run(tiny_course, zipped(tmp_path / "a.zip", files), "tiny", "--out", out)
    (tiny_course / "course.toml").write_text(LATE)
    assert [lateness(tiny_course, out, who).days for who in ("a-1", "b-2")] == [0, 1]
    late = lateness(tiny_course, out, "b-2")
    assert late.taken == 1 and late.sentences == [
        "Handed in 1 day late. 1 point deducted.",
        "Canvas calls it late, but does not say how late: it counts as one day.",
    ]
    assert lateness(tiny_course, out, "a-1").remarks == ()
    (tiny_course / "course.toml").write_text(
        LATE + "[assignments.tiny]\ndue = 2026-11-30T12:00:00\n"
        "[assignments.tiny.extensions]\nb-2 = 2026-12-03T12:00:00\n"
        "[assignments.tiny.submitted]\nc-3 = 2026-12-03T11:00:00\n"
    )
    assert [lateness(tiny_course, out, who).days for who in ("a-1", "b-2", "c-3")] == [0, 0, 3]
    assert "With the extension it counts as in time" in lateness(tiny_course, out, "b-2").remarks[0]


def test_a_student_cannot_forge_what_the_platform_says(tiny_course, tmp_path):
    out, record = tmp_path / "submitted", '{"schema": 1, "students": {}}'
    files = {
        "b_LATE_2_12_tiny.py": "2",
        "b_LATE_2_13_timestamp.txt": "2020-01-01 00:00:00 UTC",
        "b_LATE_2_14_.collected": "x",
        "b_LATE_2_15_tiny.json": record,
        "b_LATE_2_16_work.zip": inner_zip({".collected/tiny.json": record}),
    }
    run(tiny_course, zipped(tmp_path / "a.zip", files), "tiny", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == [".collected", "b-2"]
    assert read_record(out, "tiny")["b-2"].late is True
    (tiny_course / "course.toml").write_text(LATE + "[assignments.tiny]\ndue = 2026-11-30T12:00:00\n")
    assert lateness(tiny_course, out, "b-2").days == 1


def test_what_was_replaced_after_it_was_collected_has_no_time_of_the_platform(tiny_course, tmp_path):
    out = tmp_path / "submitted"
    run(tiny_course, zipped(tmp_path / "a.zip", {"b_LATE_2_12_tiny.py": "2"}), "tiny", "--out", out)
    (out / "b-2" / "tiny" / "timestamp.txt").write_text("2026-11-29 12:00:00 UTC")  # as `nbgrader collect` does
    (tiny_course / "course.toml").write_text(LATE + "[assignments.tiny]\ndue = 2026-11-30T12:00:00\n")
    late = lateness(tiny_course, out, "b-2")
    assert late.days == 0 and "timestamp.txt alone" in late.remarks[0]
    source = folder(tmp_path / "clones", {"b-2/tiny.py": "another"})
    run(tiny_course, source, "tiny", "--out", out, "--update")
    assert read_record(out, "tiny") == {}


def test_the_times_of_moodles_worksheet_count(tiny_course, tmp_path):
    (tmp_path / "grades.csv").write_text(
        "\ufeffIdentifier,Full name,Username,Email address,Status,Grade,Last modified (submission)\n"
        'Participant 1000001,Étudiant Un,s001,s001@example.org,,,"Tuesday, 1 December 2026, 12:59 AM"\n'
        "Participant 1000002,Étudiante Deux,s002,s002@example.org,,,-\n",
        "utf-8",
    )
    files = {name: text for name, text in MOODLE.items() if name.startswith("É")}
    (tiny_course / "course.toml").write_text(
        'timezone = "Europe/Berlin"\n' + LATE + "[assignments.tiny]\ndue = 2026-11-30T23:59:00\n"
    )
    out = tmp_path / "submitted"
    source = zipped(tmp_path / "a.zip", files)
    done = run(tiny_course, source, "tiny", "--out", out, "--roster", tmp_path / "grades.csv")
    assert done.exit_code == 0
    assert [lateness(tiny_course, out, who).days for who in ("s001", "s002")] == [1, 0]
    assert lateness(tiny_course, out, "s002").remarks == ("The time of submission is not known: it counts as in time.",)


def test_a_damaged_record_is_said(tiny_course, tmp_path):
    out = tmp_path / "submitted"
    source = zipped(tmp_path / "a.zip", {"b_LATE_2_12_tiny.py": "2"})
    run(tiny_course, source, "tiny", "--out", out)
    (out / ".collected" / "tiny.json").write_text("{")
    wrong = run(tiny_course, source, "tiny", "--out", out)
    assert wrong.exit_code == 2 and "delete it and collect again" in wrong.output
