"""nbgrader's exchange is collected without following what students put into it."""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from sources import TEXT, folder, tree

from autograder.cli import main
from autograder.collect import collect
from autograder.late import Rules, submission_time
from autograder.late.record import read_record
from autograder.late.times import stamp

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def inbound(tmp_path: Path) -> Path:
    path = tmp_path / "exchange" / "ebmcourse" / "inbound"
    path.mkdir(parents=True)
    return path


def submit(inbound: Path, student: str, files: dict[str, str], time: datetime = NOW, assignment: str = "tiny") -> Path:
    """What `nbgrader submit` makes."""
    own = {"timestamp.txt": stamp(time), "submission_secret.txt": "a" * 32}
    return folder(inbound / f"{student}+{assignment}+{stamp(time)}+cmFuZG9t", own | files)


def times(out: Path) -> dict[str, datetime | None]:
    return {student: noted.time for student, noted in read_record(out, "tiny").items()}


def test_the_last_submission_counts_and_earlier_ones_are_named(tiny, inbound, tmp_path):
    for minutes, text in ((0, "new"), (-5, "old"), (-10, "older")):
        submit(inbound, "s001", {"tiny.py": text}, NOW + timedelta(minutes=minutes))
    submit(inbound, "s002", {"tiny.py": "2"})
    submit(inbound, "s003", {"other.py": "x"}, assignment="other")
    out = tmp_path / "submitted"
    collected = collect(inbound, tiny, out, kind="exchange")
    assert collected.students == {"s001": "new", "s002": "new"} and collected.is_whole
    assert {student: tree(out)[f"{student}/tiny/tiny.py"] for student in ("s001", "s002")} == {
        "s001": "new",
        "s002": "2",
    }
    (said,) = collected.remarks["s001"]
    assert all(stamp(NOW - timedelta(minutes=minutes)) in said for minutes in (5, 10))
    assert times(out) == {"s001": NOW, "s002": NOW}
    assert tree(out)["s001/tiny/timestamp.txt"] == stamp(NOW)
    assert tree(out)["s001/tiny/submission_secret.txt"] == "a" * 32  # releasing feedback needs it


def test_links_are_not_followed_at_any_level(tiny, inbound, tmp_path):
    secret = folder(tmp_path / "secret", {"tiny.py": "the solution", "seed": "1234", "data/x.txt": "hidden"})
    one = submit(inbound, "s001", {"notes.txt": "x"})
    (one / "tiny.py").symlink_to(secret / "tiny.py")
    (one / "seed.txt").symlink_to(secret / "seed")
    (one / "data").symlink_to(secret / "data")
    (inbound / f"s002+tiny+{stamp(NOW)}+x").symlink_to(secret)
    (inbound / f"s003+tiny+{stamp(NOW)}+x").write_text("no folder")
    submit(inbound, "s004", {"tiny.py": TEXT})
    out = tmp_path / "submitted"
    collected = collect(inbound, tiny, out, kind="exchange")
    assert collected.students == {"s001": "new", "s002": "nothing", "s003": "nothing", "s004": "new"}
    assert not collected.is_whole
    assert {name for name in tree(out) if not name.endswith(("timestamp.txt", "secret.txt"))} == {
        "s001/tiny/notes.txt",
        "s004/tiny/tiny.py",
    }
    assert [text for text in collected.problems["s001"] if "a link" in text] == [
        f"{name} is refused: it is a link." for name in ("data", "seed.txt", "tiny.py")
    ]
    assert "it is a link" in collected.problems["s002"][0] and "it is not a folder" in collected.problems["s003"][0]


def test_a_submission_in_the_name_of_another_user_is_not_taken(tiny, inbound, tmp_path, monkeypatch):
    own, forged = submit(inbound, "s001", {"tiny.py": "own"}), submit(inbound, "s002", {"tiny.py": "forged"})
    submit(inbound, "s001", {"tiny.py": "forged"}, NOW + timedelta(minutes=1))
    submit(inbound, "s003", {"tiny.py": "3"})
    users = {"s001": 2001, "s002": 2002, "mallory": 2666}
    owners = {own.name: 2001}
    real = os.stat

    def stat(path, *arguments, **options):
        about = real(path, *arguments, **options)
        if "+tiny+" not in str(path):
            return about
        return os.stat_result([*about[:4], owners.get(str(path), 2666), *about[5:]])

    def user(name):
        return SimpleNamespace(pw_uid=users[name])

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(pwd, "getpwnam", user)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name={v: k for k, v in users.items()}[uid]))
    out = tmp_path / "submitted"
    collected = collect(inbound, tiny, out, kind="exchange")
    assert collected.students == {"s001": "new", "s002": "nothing", "s003": "new"} and not collected.is_whole
    assert tree(out)["s001/tiny/tiny.py"] == "own"
    assert collected.problems["s002"] == [f"{forged.name} belongs to mallory and is not taken."]
    assert "owners of their folders were not checked: s003" in collected.remarks[""][0]


def test_a_forged_time_is_not_believed_or_said(tiny, inbound, tmp_path):
    lying = submit(inbound, "s001", {"tiny.py": "1"})
    (lying / "timestamp.txt").write_text("2020-01-01 00:00:00 UTC")
    submit(inbound, "s002", {"tiny.py": "2"}, NOW - timedelta(hours=30))  # the system says that it was made just now
    folder(inbound / "s003+tiny+yesterday+x", {"tiny.py": "3"})
    out = tmp_path / "submitted"
    collected = collect(inbound, tiny, out, kind="exchange")
    assert collected.remarks["s001"] == ["It brings its own timestamp.txt: left out."]
    assert "changed in the exchange 30 hours after its time of submission" in collected.problems["s002"][0]
    assert "names no time" in collected.problems["s003"][0] and not collected.is_whole
    found = times(out)
    assert (found["s001"], found["s002"]) == (NOW, NOW - timedelta(hours=30))
    assert found["s003"] is not None and NOW - timedelta(minutes=1) <= found["s003"] <= datetime.now(UTC)
    noted = read_record(out, "tiny")["s002"]
    later = submission_time(out / "s002" / "tiny", Rules(), NOW + timedelta(days=1), noted)
    assert (later.time, later.is_claimed) == (NOW - timedelta(hours=30), False) and "30 hours" in later.remarks[0]


def test_a_time_that_had_not_come_is_not_taken(tiny, inbound, tmp_path):
    submit(inbound, "s001", {"tiny.py": "own"})
    submit(inbound, "s001", {"tiny.py": "forged"}, NOW + timedelta(days=300))
    collected = collect(inbound, tiny, tmp_path / "out", kind="exchange")
    assert tree(tmp_path / "out")["s001/tiny/tiny.py"] == "own" and not collected.is_whole
    assert "names a time after its last change" in collected.problems["s001"][0]


def test_names_that_nbgrader_does_not_give_and_too_many_files_stop_nobody(tiny, inbound, tmp_path, monkeypatch):
    monkeypatch.setattr("autograder.collect.collecting.MAX_EACH", 10)
    folder(inbound / "junk", {"tiny.py": "x"})
    submit(inbound, "s001", {"tiny.py": "1"} | {f"f{n}": "x" for n in range(20)})
    submit(inbound, "s002", {"tiny.py": "2"})
    deep = submit(inbound, "s003", {"tiny.py": "3"})
    (deep / "z" / "/".join("b" * 40)).mkdir(parents=True)
    collected = collect(inbound, tiny, tmp_path / "out", kind="exchange")
    assert "junk" in collected.problems[""][0] and not collected.is_whole
    assert any("more than 10 files" in text for text in collected.problems["s001"])
    assert tree(tmp_path / "out")["s002/tiny/tiny.py"] == "2" and "s002" not in collected.problems
    assert tree(tmp_path / "out")["s003/tiny/tiny.py"] == "3" and "s003" in collected.problems


def test_what_nbgrader_collected_by_following_links_is_replaced(tiny, inbound, tmp_path):
    (tmp_path / "solution.py").write_text("the solution")
    one = submit(inbound, "s001", {"notes.txt": "x"})
    (one / "tiny.py").symlink_to(tmp_path / "solution.py")
    out = folder(tmp_path / "submitted", {"s001/tiny/tiny.py": "the solution", "s001/tiny/timestamp.txt": stamp(NOW)})
    assert collect(inbound, tiny, out, kind="exchange").students == {"s001": "differs"}
    assert collect(inbound, tiny, out, kind="exchange", update=True).students == {"s001": "replaced"}
    assert "the solution" not in tree(out).values()


def test_nothing_of_an_earlier_submission_is_left_where_the_last_one_is_a_link(tiny, inbound, tmp_path):
    (inbound / f"s001+tiny+{stamp(NOW)}+x").symlink_to(tmp_path)
    out = folder(tmp_path / "submitted", {"s001/tiny/tiny.py": "the solution"})
    assert collect(inbound, tiny, out, kind="exchange").students == {"s001": "nothing"}
    assert tree(out) == {"s001/tiny/tiny.py": "the solution"}
    assert collect(inbound, tiny, out, kind="exchange", update=True).students == {"s001": "nothing"}
    assert tree(out) == {}


def test_an_inbound_folder_that_is_a_link_is_not_followed(tiny, inbound, tmp_path):
    submit(inbound, "s001", {"tiny.py": "1"})
    (tmp_path / "link").symlink_to(inbound)
    with pytest.raises(ValueError, match="is a link"):
        collect(tmp_path / "link", tiny, tmp_path / "out", kind="exchange")


# The command


def run(course: Path, *arguments: str, **environment: str):
    return CliRunner().invoke(main, ["--course", str(course), "collect", *arguments], env=environment)


def test_the_command_finds_the_exchange(tiny_course, inbound, tmp_path):
    submit(inbound, "s001", {"tiny.py": "1"})
    (tiny_course / "course.toml").write_text(f'exchange = "{inbound}"\n')
    done = run(tiny_course, "--from", "exchange", "tiny", "--out", str(tmp_path / "a"))
    assert done.exit_code == 0 and "exchange: 1 new" in done.output
    (tiny_course / "course.toml").unlink()
    (tiny_course / "nbgrader_config.py").write_text('c = get_config()\nc.CourseDirectory.course_id = "ebmcourse"\n')
    root = str(inbound.parents[1])
    done = run(tiny_course, "--from", "exchange", "tiny", "--out", str(tmp_path / "b"), NBGRADER_EXCHANGE=root)
    assert done.exit_code == 0 and tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "config", "said"),
    [
        (["--from", "exchange", "source", "tiny"], "", "Give SOURCE and NAME, or --from exchange and NAME."),
        (["tiny"], "", "Give SOURCE and NAME, or --from exchange and NAME."),
        (["--from", "exchange", "tiny"], "", "does not say the course_id: write exchange ="),
        (["--from", "exchange", "tiny"], 'c.CourseDirectory.course_id = "none"\n', "The exchange has no folder"),
    ],
)
def test_a_mistake_is_said_in_one_sentence(tiny_course, tmp_path, arguments, config, said):
    (tiny_course / "nbgrader_config.py").write_text(config)
    done = run(tiny_course, *arguments, "--out", str(tmp_path / "out"), NBGRADER_EXCHANGE=str(tmp_path))
    assert done.exit_code == 2 and said in done.output and "Traceback" not in done.output
