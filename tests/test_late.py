"""Late policies: deadlines, times that can be believed, and what a mark loses."""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.late import (
    Lateness,
    Policy,
    Rules,
    Submitted,
    lateness,
    of_results,
    parse_time,
    read_rules,
    submission_time,
    with_penalty,
    without_result,
)
from autograder.late.record import Noted
from autograder.results import Result

DUE = datetime(2026, 11, 30, 12, tzinfo=UTC)
NOW = DUE + timedelta(days=100)


def result(assignment: str = "jem", student: str = "s001", score: float = 10.0) -> Result:
    return Result(assignment, student, score, 20.0, "", "", 0)


def one(policy: Policy, late: timedelta, days: int = 0, grace: timedelta = timedelta()) -> Lateness:
    rules = Rules(due={"jem": DUE}, policies={"jem": policy}, days=days, grace=grace)
    return lateness(rules, [result()], {("jem", "s001"): Submitted(DUE + late)})["jem", "s001"]


@pytest.mark.parametrize(
    ("hours", "days", "taken"),
    [(-1, 0, 0), (0, 0, 0), (0.01, 1, 1), (24, 1, 1), (24.01, 2, 2), (4 * 24, 4, 4), (5 * 24, 5, 4), (90 * 24, 90, 4)],
)
def test_each_day_begun_costs_a_share_down_to_the_floor(hours, days, taken):
    late = one(Policy("percent", per_day=10, floor=60), timedelta(hours=hours))
    assert (late.days, late.taken) == (days, taken)
    assert with_penalty(result(), late).score == 10 - taken


def test_zero_takes_all_and_none_takes_nothing():
    assert one(Policy("zero"), timedelta(seconds=1)).taken == 10
    assert one(Policy("zero"), timedelta()).taken == 0
    none = one(Policy(), timedelta(days=3), days=5)
    assert (none.days, none.free_days, none.taken) == (3, 0, 0)


def test_the_grace_time_moves_the_deadline():
    policy = Policy("percent", per_day=10)
    assert one(policy, timedelta(minutes=10), grace=timedelta(minutes=10)).days == 0
    assert one(policy, timedelta(minutes=11), grace=timedelta(minutes=10)).days == 1
    assert one(policy, timedelta(days=1, minutes=10), grace=timedelta(minutes=10)).days == 1


def test_late_days_are_spent_in_the_order_of_the_deadlines():
    rules = Rules(
        due={"b": DUE, "a": DUE + timedelta(days=7)},
        policies={name: Policy("percent", per_day=10) for name in "ab"},
        days=3,
        days_of={"s002": 0},
    )
    results = [result(name, student) for name in "ab" for student in ("s001", "s002")]
    times = {
        (r.assignment, r.student): Submitted(rules.due[r.assignment] + timedelta(days=2 if r.assignment == "b" else 4))
        for r in results
    }
    found = lateness(rules, results, times)
    assert [(found[key].free_days, found[key].taken) for key in (("b", "s001"), ("a", "s001"))] == [(2, 0), (1, 3)]
    assert [(found[key].free_days, found[key].taken) for key in (("b", "s002"), ("a", "s002"))] == [(0, 2), (0, 4)]
    assert lateness(rules, reversed(results), times) == found


def test_late_days_that_do_not_save_a_mark_are_kept():
    assert one(Policy("zero"), timedelta(days=3), days=2).free_days == 0
    assert one(Policy("zero"), timedelta(days=2), days=2).taken == 0


@given(
    st.sampled_from([Policy("percent", 10, 50), Policy("percent", 100), Policy("zero"), Policy()]),
    st.floats(-5, 50),
    st.integers(0, 5),
    st.floats(0, 20),
)
def test_a_later_submission_never_gains_and_no_mark_is_negative(policy, days, budget, score):
    rules = Rules(due={"jem": DUE}, policies={"jem": policy}, days=budget)

    def counts(late: float) -> float:
        times = {("jem", "s001"): Submitted(DUE + timedelta(days=late))}
        given = result(score=score)
        return with_penalty(given, lateness(rules, [given], times)["jem", "s001"]).score

    assert 0 <= counts(days + 1) <= counts(days) <= score


def test_what_a_student_reads_about_it():
    late = one(Policy("percent", per_day=10), timedelta(days=2), days=1)
    assert late.sentences == ["Handed in 2 days late. 1 late day spent. 1 point deducted."]
    assert one(Policy("percent", per_day=10), timedelta(days=1), days=1).sentences == [
        "Handed in 1 day late. 1 late day spent. No points deducted."
    ]
    assert one(Policy("zero"), timedelta()).sentences == []


def test_one_instant_gives_one_mark_however_it_is_written():
    # The clocks go back between the deadline and the submission, 24.5 hours later.
    zone = ZoneInfo("America/New_York")
    rules = Rules(due={"jem": datetime(2026, 10, 31, 20, tzinfo=zone)}, policies={"jem": Policy("percent", per_day=10)})
    local = datetime(2026, 11, 1, 19, 30, tzinfo=zone)
    for time in (local, local.astimezone(UTC), parse_time("2026-11-02 00:30:00.000000 UTC")):
        late = lateness(rules, [result()], {("jem", "s001"): Submitted(time)})["jem", "s001"]
        assert (late.days, late.taken) == (2, 2)


@given(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)), st.floats(-3, 3))
def test_days_are_of_24_hours_in_every_zone(due, days):
    def late(zone: str) -> int:
        moment = due.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
        handed_in = (due.replace(tzinfo=UTC) + timedelta(days=days)).astimezone(ZoneInfo(zone))
        return lateness(Rules(due={"jem": moment}), [result()], {("jem", "s001"): Submitted(handed_in)})[
            "jem", "s001"
        ].days

    assert late("America/New_York") == late("Europe/Berlin") == late("UTC")


# course.toml

EXAMPLE = """
timezone = "Europe/Berlin"
exchange = "inbound"

[late]
policy = "percent"
per_day = 10
floor = 50
grace_minutes = 10
days = 3

[late.days_of]
s007 = 5

[assignments.jem]
due = 2026-11-30T23:59:00

[assignments.jem.extensions]
s003 = 2026-12-03T23:59:00+00:00

[assignments.jem.submitted]
s009 = 2026-11-30T12:00:00

[assignments.deep]
policy = "zero"
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    for name in ("jem", "deep"):
        (tmp_path / "solutions" / name).mkdir(parents=True)
    (tmp_path / "course.toml").write_text(EXAMPLE)
    return tmp_path


def test_the_rules_are_read(course: Path):
    rules = read_rules(course)
    assert rules.due["jem"].astimezone(UTC) == datetime(2026, 11, 30, 22, 59, tzinfo=UTC)
    assert rules.policies == {"jem": Policy("percent", 10, 50), "deep": Policy("zero", 10, 50)}
    assert rules.extensions["jem", "s003"] == datetime(2026, 12, 3, 23, 59, tzinfo=UTC)
    assert rules.submitted["jem", "s009"].astimezone(UTC).hour == 11
    assert (rules.grace, rules.days, rules.days_of) == (timedelta(minutes=10), 3, {"s007": 5})
    assert rules.exchange == course / "inbound"


def test_a_byte_order_mark_is_no_part_of_the_rules(course: Path):
    rules = read_rules(course)
    (course / "course.toml").write_text(EXAMPLE, "utf-8-sig")
    assert read_rules(course) == rules


def test_the_policy_for_all_counts_for_assignments_that_are_not_named(course: Path):
    assert read_rules(course).policy == Policy("percent", 10, 50)
    (course / "course.toml").write_text('[late]\npolicy = "percent"\n[assignments.jem]\nper_day = 10\n')
    rules = read_rules(course)
    assert (rules.policy, rules.policies) == (Policy(), {"jem": Policy("percent", 10)})


def test_without_a_file_there_is_no_policy(tmp_path: Path):
    rules = read_rules(tmp_path)
    assert rules == Rules()
    late = lateness(rules, [result()], {})["jem", "s001"]
    assert with_penalty(result(), late) == result() and late.sentences == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('policy = "percent"', 'policy = "double"', "choose one of none, zero, percent"),
        ("per_day = 10\n", "", "needs per_day"),
        ("per_day = 10", "per_day = 120", "at most 100"),
        ("per_day = 10", "per_day = -1", "at least 0"),
        ("days = 3", "days = true", "at least 0"),
        ("2026-11-30T23:59:00", '"tomorrow"', "without quotation marks"),
        ("2026-11-30T23:59:00", "2026-11-30", "marks, not 2026-11-30$|marks, not 2026-11-30\\.$"),
        ("[assignments.deep]", "[assignments.depe]", "no assignment 'depe'"),
        ("grace_minutes", "grace", "no entry 'grace'"),
        ("Europe/Berlin", "Europe/Atlantis", "cannot be used"),
        ("[late]", "[late", "cannot be used"),
        ("[late.days_of]", "[late.days_off]", "no entry 'days_off'"),
    ],
)
def test_a_mistake_in_the_rules_is_said(course: Path, old: str, new: str, complaint: str):
    assert old in EXAMPLE
    (course / "course.toml").write_text(EXAMPLE.replace(old, new))
    with pytest.raises(ValueError, match=complaint):
        read_rules(course)


# The time of submission


def stamped(course: Path, text: str, student: str = "s001") -> Path:
    folder = course / "submitted" / student / "jem"
    folder.mkdir(parents=True)
    (folder / "timestamp.txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    "text",
    ["2026-11-30 12:00:00.000000 UTC", "2026-11-30 13:00:00 +0100", "2026-11-30T12:00:00Z", "2026-11-30 12:00\n"],
)
def test_the_time_is_read_as_nbgrader_writes_it(tmp_path: Path, text: str):
    assert submission_time(stamped(tmp_path, text), Rules(), NOW) == Submitted(DUE, is_claimed=True)


def test_a_time_from_the_students_own_file_is_marked_for_the_instructor(tmp_path: Path):
    found = submission_time(stamped(tmp_path, "2020-01-01 00:00:00 UTC"), Rules(), NOW)
    rules = Rules(due={"jem": DUE}, policies={"jem": Policy("zero")})
    late = lateness(rules, [result()], {("jem", "s001"): found})["jem", "s001"]
    assert late.remarks == ("The time of submission comes from timestamp.txt alone, which students can write.",)
    assert (late.taken, late.sentences) == (0, [])  # a student is not told so
    assert lateness(Rules(), [result()], {("jem", "s001"): found})["jem", "s001"].remarks == ()  # nothing depends on it


@pytest.mark.parametrize("text", ["", "never", "2026-13-01 12:00:00 UTC", "1 UTC", "2026-11-30 12:00 CEST", "9" * 500])
def test_an_unreadable_time_is_said_and_counts_as_in_time(tmp_path: Path, text: str):
    found = submission_time(stamped(tmp_path, text), Rules(), NOW)
    assert found.time is None and "holds no time" in found.remarks[0]
    rules = Rules(due={"jem": DUE}, policies={"jem": Policy("zero")})
    late = lateness(rules, [result()], {("jem", "s001"): found})["jem", "s001"]
    assert late.taken == 0 and any("counts as in time" in remark for remark in late.remarks)


def test_a_time_in_a_link_is_not_read(tmp_path: Path):
    folder = stamped(tmp_path, "x")
    (tmp_path / "other").write_text("2026-11-30 12:00:00 UTC")
    (folder / "timestamp.txt").unlink()
    (folder / "timestamp.txt").symlink_to(tmp_path / "other")
    assert submission_time(folder, Rules(), NOW).time is None


def test_a_time_in_the_future_is_said(tmp_path: Path):
    found = submission_time(stamped(tmp_path, "2999-01-01 00:00:00 UTC"), Rules(), NOW)
    assert found.time == parse_time("2999-01-01 00:00:00 UTC") and "future" in found.remarks[0]


def test_what_collect_recorded_counts_for_what_it_collected(tmp_path: Path):
    noted = Noted("Gradescope", DUE, None, ("odd",))
    folder = stamped(tmp_path, "2026-11-30 12:00:00.000000 UTC")
    assert submission_time(folder, Rules(), NOW, noted) == Submitted(DUE, ("odd",), None, "Gradescope")
    (folder / "timestamp.txt").write_text("2026-11-29 12:00:00 UTC")
    assert submission_time(folder, Rules(), NOW, noted) == Submitted(DUE - timedelta(days=1), is_claimed=True)
    (folder / "timestamp.txt").unlink()
    assert submission_time(folder, Rules(), NOW, noted) == Submitted()
    assert submission_time(folder, Rules(), NOW, Noted("Canvas", None, True)).late is True


def test_late_on_the_platform_counts_as_one_day_also_without_a_deadline_here():
    rules = Rules(policy=Policy("percent", per_day=10), days_of={"s002": 1})
    times = {
        ("jem", f"s00{n}"): Submitted(late=late, platform="Canvas") for n, late in ((1, True), (2, True), (3, False))
    }
    found = lateness(rules, [result(student=f"s00{n}") for n in (1, 2, 3)], times)
    assert [(late.days, late.free_days, late.taken) for late in found.values()] == [(1, 0, 1), (1, 1, 0), (0, 0, 0)]


def test_a_time_says_more_than_the_platforms_word():
    rules = Rules(due={"jem": DUE}, policies={"jem": Policy("percent", per_day=10)})
    for time, days in ((DUE + timedelta(days=3), 3), (DUE - timedelta(days=1), 0)):
        handed_in = Submitted(time, late=True, platform="Canvas")
        late = lateness(rules, [result()], {("jem", "s001"): handed_in})["jem", "s001"]
        assert late.days == days and (days > 0 or "Canvas calls it late. By its time it is not." in late.remarks)


def test_the_instructors_word_comes_first(tmp_path: Path):
    rules = Rules(submitted={("jem", "s001"): DUE})
    assert submission_time(stamped(tmp_path, "nonsense"), rules, NOW) == Submitted(DUE)


def exchanged(tmp_path: Path, text: str, student: str = "s001") -> None:
    folder = tmp_path / "inbound" / f"{student}+jem+{text}+abc"
    folder.mkdir(parents=True)
    (folder / "ex.py").write_text("")


def test_the_exchange_is_believed_rather_than_the_file(tmp_path: Path):
    real = datetime.now(UTC).replace(microsecond=0)
    exchanged(tmp_path, f"{real:%Y-%m-%d %H:%M:%S} UTC")
    rules, now = Rules(exchange=tmp_path / "inbound"), real + timedelta(days=1)
    honest = stamped(tmp_path, f"{real:%Y-%m-%d %H:%M:%S} UTC")
    assert submission_time(honest, rules, now) == Submitted(real)
    (honest / "timestamp.txt").write_text("2026-01-01 00:00:00 UTC")
    back_dated = submission_time(honest, rules, now)
    assert back_dated.time == real and "No submission in the exchange has the time" in back_dated.remarks[0]
    (honest / "timestamp.txt").unlink()
    assert submission_time(honest, rules, now).time == real


def test_a_back_dated_or_changed_folder_in_the_exchange_is_said(tmp_path: Path):
    claimed = datetime.now(UTC) - timedelta(hours=30)
    text = f"{claimed:%Y-%m-%d %H:%M:%S.%f} UTC"
    exchanged(tmp_path, text)  # the system says that it was made just now
    os.utime(tmp_path / "inbound" / f"s001+jem+{text}+abc", (0, claimed.timestamp()))  # a student can set this one
    found = submission_time(stamped(tmp_path, text), Rules(exchange=tmp_path / "inbound"), datetime.now(UTC))
    assert found.time == claimed and "changed in the exchange 30 hours after" in found.remarks[0]


def test_links_and_other_owners_in_the_exchange_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = datetime.now(UTC).replace(microsecond=0)
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    exchanged(tmp_path, text)
    (tmp_path / "inbound" / f"s001+jem+{text}+abc" / "seed.txt").symlink_to("/etc/passwd")
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=os.getuid() + 1))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="mallory"))
    found = submission_time(stamped(tmp_path, text), Rules(exchange=tmp_path / "inbound"), now + timedelta(days=1))
    assert found.time == now and found.remarks == (
        "Its folder in the exchange belongs to mallory.",
        "Its folder in the exchange contains something that is not a file (seed.txt).",
    )


def test_a_link_in_the_place_of_a_folder_in_the_exchange_is_not_followed(tmp_path: Path):
    (tmp_path / "inbound").mkdir()
    (tmp_path / "inbound" / "s001+jem+2026-11-30 12:00:00 UTC+abc").symlink_to("/etc")
    folder = stamped(tmp_path, "2026-11-30 12:00:00 UTC")
    found = submission_time(folder, Rules(exchange=tmp_path / "inbound"), NOW)
    assert found == Submitted(DUE, ("Its folder in the exchange is a link or cannot be read.",))


def test_odd_names_in_the_exchange_harm_nobody(tmp_path: Path):
    exchanged(tmp_path, "yesterday")
    exchanged(tmp_path, "2026-11-30 12:00:00 UTC", student="s0*")
    folder = stamped(tmp_path, "2026-11-30 12:00:00 UTC")
    found = submission_time(folder, Rules(exchange=tmp_path / "inbound"), NOW)
    assert found.time == DUE and len(found.remarks) == 2
    assert submission_time(folder, Rules(exchange=tmp_path / "nowhere"), NOW).time == DUE


def test_of_results_reads_rules_and_times(course: Path):
    (course / "course.toml").write_text(EXAMPLE.replace('exchange = "inbound"', ""))
    stamped(course, "2026-12-02 12:00:00 UTC")
    late = of_results([result()], course / "submitted", course)["jem", "s001"]
    assert (late.days, late.free_days, late.taken) == (2, 2, 0)
    with pytest.raises(ValueError, match="--submitted"):
        of_results([result()], course / "nowhere", course)


def test_students_in_the_rules_without_a_result_are_named(course: Path):
    assert without_result({"jem": ["s001"]}, course) == {
        "[assignments.jem.extensions]": ["s003"],
        "[assignments.jem.submitted]": ["s009"],
        "[late.days_of]": ["s007"],
    }
    others = {"jem": ["s003", "s007", "s009"]}
    assert without_result(others, course) == without_result({"deep": ["s007"]}, course) == {}
    assert "[late.days_of]" in without_result({"jem": ["s001"], "deep": ["s001"]}, course, "deep")
