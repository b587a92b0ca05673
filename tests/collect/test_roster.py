"""Rosters, as people write them and as platforms and Excel save them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from autograder.collect import Roster, read_roster
from autograder.collect.people import Handed, Person

CANVAS = """\
Student,ID,SIS User ID,SIS Login ID,Section,"Sheet 1; the first (99)",Final Score
,,,,,Manual Posting,
"    Points Possible",,,,,20,(read only)
"Un, Étudiant",41,1000001,s001,A and B,,
"Deux, Étudiante",42,1000002,s002,A,17,
"""
MOODLE = """\
Identifier,Full name,ID number,Email address,Status,Group,Grade,Maximum Grade,Last modified (submission)
Participant 501,Étudiant Un,,s001@example.org,Submitted for grading,Team A,,20.00,"Monday, 30 November 2026, 11:59 PM"
Participant 502,Étudiante Deux,1000002,s002@example.org,No submission,Team A,,20.00,-
"""

MOODLE_GERMAN = """\
ID,"Vollständiger Name",ID-Nummer,E-Mail-Adresse,Status,Gruppe,Bewertung,Bestwertung,"Zuletzt geändert (Abgabe)"
Teilnehmer/in501,"Étudiant Un",,s001@example.org,Abgegeben,"Team A",,"20,00","Montag, 30. März 2026, 23:59"
Teilnehmer/in502,"Étudiante Deux",1000002,s002@example.org,"Keine Abgabe","Team A",,"20,00",-
"""


def written(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "r.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name\nx\n", "no column `id`"),
        ("id\ns001\ns001\n", "row 3: the id 's001' is used twice"),
        ("id\na/b\n", "cannot be the name of a folder"),
        ("id,name\n,x\n", "row 2: the id '' cannot be"),
        ("id\nx.timings\n", "cannot be the name of a folder"),
        ("id,submitted\ns001,yesterday\n", "row 2: 'yesterday' is not a time"),
        ("", "no column `id`"),
    ],
)
def test_a_mistake_in_the_roster_is_said(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_roster(written(tmp_path, text))


def test_a_roster_that_is_not_text_is_said(tmp_path):
    (tmp_path / "r.csv").write_bytes(b"id\n\x81\x8d\n")
    with pytest.raises(ValueError, match="save it as “CSV UTF-8”"):
        read_roster(tmp_path / "r.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_way_in_which_excel_saves_is_read(tmp_path, encoding, separator, end):
    rows = [["id", "Name", "email"], ["s001", '"Jöé, Jane"', "j@example.org"], ["", "", ""], ["s002", "Roe", ""], [" "]]
    text = end.join(separator.join(row) for row in rows) + end
    roster = read_roster(written(tmp_path, text, encoding))
    assert sorted(roster.people) == ["s001", "s002"]
    assert roster.find(("jane joe",)) == roster.find(("JöéJane",)) == roster.find(("S001",)) == "s001"
    assert roster.people["s001"] == {"id": "s001", "name": "Jöé, Jane", "email": "j@example.org"}


def test_blank_rows_as_excel_leaves_them_are_skipped(tmp_path):
    text = "id;name;email\r\njd1;Doe, Jane;a@b.c\r\njr2;Roe, John;d@e.f\r\n;;\r\n;;\r\n"
    assert sorted(read_roster(written(tmp_path, text, "utf-8-sig")).people) == ["jd1", "jr2"]


def test_canvas_gradebook_is_a_roster(tmp_path):
    roster = read_roster(written(tmp_path, CANVAS, "utf-8-sig"))
    assert roster.people["s001"] == {
        "name": "Un, Étudiant",
        "canvas": "41",
        "sis": "1000001",
        "login": "s001",
        "section": "A and B",
    }
    assert sorted(roster.people) == ["s001", "s002"]
    assert roster.find(("41",)) == roster.find(("1000001",)) == roster.find(("etudiantun",)) == "s001"


@pytest.mark.parametrize(
    ("columns", "ids"),
    [(["SIS Login ID"], ["1000001", "1000002"]), (["SIS Login ID", "SIS User ID"], ["41", "42"])],
)
def test_canvas_without_logins_gives_the_next_best_ids(tmp_path, columns, ids):
    header, *rows = [
        line.split("|") for line in CANVAS.replace(", É", " É").replace('"', "").replace(",", "|").split("\n")
    ]
    keep = [n for n, column in enumerate(header) if column not in columns]
    text = "\n".join(",".join(row[n] for n in keep) for row in [header, *rows] if len(row) == len(header))
    assert sorted(read_roster(written(tmp_path, text)).people) == ids


def test_moodles_grading_worksheet_is_a_roster_with_times_and_teams(tmp_path):
    roster = read_roster(written(tmp_path, MOODLE, "utf-8-sig"), ZoneInfo("Europe/Berlin"))
    one, two = "s001@example.org", "s002@example.org"  # the first column that everybody has
    assert sorted(roster.people) == [one, two]
    assert roster.find(("501",)) == roster.find(("Un Étudiant",)) == one and roster.find(("1000002",)) == two
    assert roster.submitted == {one: datetime(2026, 11, 30, 22, 59, tzinfo=UTC)}
    assert roster.members(Handed("Team A 7", [Person(("7",), None)], ("Team A",))) == [one, two]
    assert roster.people[one]["email"] == one


def test_times_without_a_zone_are_of_the_zone_of_the_course_or_are_mentioned(tmp_path):
    berlin = ZoneInfo("Europe/Berlin")
    own = "id,submitted\ns001,2026-11-30 23:59\ns002,2026-11-30T23:59:00+02:00\ns003,2026-11-30 23:59 UTC\n"
    roster = read_roster(written(tmp_path, own), berlin)
    assert [time.hour for time in roster.submitted.values()] == [22, 21, 23] and not roster.remarks
    for text in (own, MOODLE):
        roster = read_roster(written(tmp_path, text))
        assert "count as UTC: set `timezone` in course.toml" in roster.remarks[0]
    assert not read_roster(written(tmp_path, own.replace("23:59\n", "23:59Z\n"))).remarks


def test_times_of_moodle_in_another_language_are_said(tmp_path):
    text = MOODLE.replace("Monday, 30 November 2026, 11:59 PM", "lundi 30 novembre 2026, 23:59")
    roster = read_roster(written(tmp_path, text))
    assert roster.submitted == {} and "s001@example.org" in roster.remarks[0]


def test_a_number_is_believed_for_somebody_of_that_name_only(tmp_path):
    roster = read_roster(written(tmp_path, CANVAS))
    assert roster.find(("41",), "etudiantun") == roster.find(("41",), "Étudiant U.") == "s001"
    assert roster.find(("41",), "Team A") is None
    assert Roster().find(("41",)) is None


def test_the_worksheet_of_a_german_moodle_is_read_like_the_english_one(tmp_path):
    german = read_roster(written(tmp_path, MOODLE_GERMAN), UTC)
    english = read_roster(written(tmp_path, MOODLE.replace("November", "March")), UTC)
    assert german.download and german.download.platform == "moodle"
    assert (german.ids, german.groups, german.submitted) == (english.ids, english.groups, english.submitted)
    assert german.submitted and not german.remarks


def test_participants_of_an_anonymous_german_worksheet_have_ids_that_can_be_folders(tmp_path):
    text = "ID,Status,Bewertung,Bestwertung\nTeilnehmer/in501,,,\nTeilnehmer/in502,,,\n"
    assert list(read_roster(written(tmp_path, text)).people) == ["Participant 501", "Participant 502"]


@pytest.mark.parametrize("month", ["Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "Dezember"])
def test_german_months_are_read(tmp_path, month):
    roster = read_roster(written(tmp_path, MOODLE_GERMAN.replace("30. März", f"20. {month}")), UTC)
    assert roster.submitted and not roster.remarks


def test_a_member_is_found_with_the_name_of_the_group_before_the_own_name(tmp_path):
    text = "id,name,group\ns001,Étudiant Un,Team A\ns002,Anna-Un Étudiant,\n"
    roster = read_roster(written(tmp_path, text))
    assert roster.find(["Team A-Étudiant Un"]) == "s001"
    assert roster.find(["Team B-Étudiant Un"]) is None
