"""The downloads of each platform, in nbgrader's layout."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime

import pytest
from sources import folder, tree, zipped

from autograder.collect import collect, read_roster
from autograder.collect.groups import read_groups
from autograder.collect.ids import handed_in_together
from autograder.late.record import Noted, read_record

MOODLE = {
    "Étudiant Un_1000001_assignsubmission_file_/tiny.py": "1",
    "Étudiante Deux_1000002_assignsubmission_file/tiny.py": "2",
    "Étudiante Deux_1000002_assignsubmission_file/pictures/a.txt": "a",
    "Student_1000003_assignsubmission_file_tiny.py": "3",
    "Student_1000004_assignsubmission_file_tiny.py": "4",
    "Student_1000004_assignsubmission_onlinetext_onlinetext.html": "<p>See file</p>",
}
CANVAS = {
    "etudiantun_41_9001_tiny.py": "1",
    "deuxétudiante_LATE_42_9002_tiny-1.py": "2",
    "student_43_9003_tiny-2.py": "3",
    "student_43_9004_notes_on_it-1.txt": "n",
    "student_44_9005_tiny.py": "4",
    "student_44_text.html": "typed",
}
METADATA = """\
submission_501:
  :submitters:
  - :name: Étudiant Un
    :sid: '1000001'
    :email: s001@example.org
  :created_at: 2026-11-30 12:00:00.861687000 Z
  :results:
    output: |-
      submission_777:
        :submitters: []
submission_502:
  :submitters:
  - :name: Deux
    :email: s002@example.org
  - :name: Student
    :sid: 1000003
  :created_at: !ruby/object:Time 2026-12-01 12:00:00 Z
submission_503:
  :submitters:
  - :name: Student
    :sid: '1000004'
"""
GRADESCOPE = {
    "assignment_99_export/submission_metadata.yml": METADATA,
    "assignment_99_export/submission_501/tiny.py": "1",
    "assignment_99_export/submission_502/tiny.py": "23",
    "assignment_99_export/submission_503/tiny.py": "4",
    "assignment_99_export/submission_503/submission_metadata.yml": "submission_501: {}",
}
ILIAS = {
    "Sheet_1/Abgaben/Un_Etudiant_s001_501/tiny.py": "1",
    "Sheet_1/Abgaben/Deux_Etudiante_s002_502/Verspaetete Abgabe - tiny.py": "2",
    "Sheet_1/Abgaben/Student__s003_503/tiny.py": "3",
    "Sheet_1/Abgaben/Student__s003_503/Abgaben/Un_Etudiant_s001_501/tiny.py": "forged",
    "Sheet_1/Sheet_1.xlsx": "a list",
    "Sheet_1/Feedback_files/to_Un_Etudiant_s001_501/from_Student__s003_503/a.pdf": "by another student",
}
GITHUB = {
    "hw1-submissions/hw1-s001/tiny.py": "1",
    "hw1-submissions/hw1-s002/tiny.py": "2",
    "hw1-submissions/hw1-s002/.git/config": "x",
    "hw1-submissions/.DS_Store": "x",
}


@pytest.mark.parametrize(
    ("files", "kind", "more"),
    [
        (MOODLE, "moodle", {"s002/tiny/pictures/a.txt": "a"}),
        (CANVAS, "canvas", {"s003/tiny/notes_on_it-1.txt": "n"}),
    ],
)
def test_a_zip_of_another_system_becomes_nbgraders_layout(tiny, roster, tmp_path, files, kind, more):
    source, out = zipped(tmp_path / "all.zip", files), tmp_path / "submitted"
    collected = collect(source, tiny, out, roster=read_roster(roster))
    assert (collected.kind, collected.is_whole, collected.unknown) == (kind, True, [])
    times = {"s001/tiny/timestamp.txt": "2026-11-30 12:00:00.000000 UTC"}
    assert tree(out) == {f"s00{n}/tiny/tiny.py": str(n) for n in (1, 2, 3, 4)} | more | times
    assert collected.late == (["s002"] if kind == "canvas" else [])


@pytest.mark.parametrize("files", [MOODLE, CANVAS, GRADESCOPE, ILIAS, GITHUB])
def test_the_unpacked_folder_gives_the_same(tiny, tmp_path, files):
    source = zipped(tmp_path / "all.zip", files)
    with zipfile.ZipFile(source) as made:
        made.extractall(tmp_path / "unpacked")
    for path, out in ((source, "a"), (tmp_path / "unpacked", "b")):
        collect(path, tiny, tmp_path / out)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") != {}


def test_gradescopes_metadata_say_who_handed_in_and_when(tiny, roster, tmp_path):
    out = tmp_path / "out"
    people = read_roster(roster)
    people.submitted.clear()
    collected = collect(zipped(tmp_path / "a.zip", GRADESCOPE), tiny, out, roster=people)
    assert collected.kind == "gradescope" and collected.is_whole
    assert collected.students == dict.fromkeys(("s001", "s002", "s003", "s004"), "new")
    assert "s002, s003" in collected.remarks and "together" in collected.remarks["s002, s003"][0]
    assert [tree(out)[f"s00{n}/tiny/tiny.py"] for n in (1, 2, 3, 4)] == ["1", "23", "23", "4"]
    record = read_record(out, "tiny")
    assert record["s001"] == Noted("Gradescope", datetime(2026, 11, 30, 12, 0, 0, 861687, tzinfo=UTC))
    assert record["s002"] == record["s003"] == Noted("Gradescope", datetime(2026, 12, 1, 12, tzinfo=UTC))
    assert "s004" not in record


def test_the_unknown_members_of_a_group_are_named_and_the_others_get_its_submission(tiny, tmp_path):
    (tmp_path / "r.csv").write_text("id,email\ns003,s003@example.org\n")
    files = {
        "submission_metadata.yml": "submission_5:\n  :submitters:\n  - :email: s003@example.org\n"
        "  - :email: nobody@example.org\n    :name: Nobody\n",
        "submission_5/tiny.py": "1",
    }
    roster = read_roster(tmp_path / "r.csv")
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out", roster=roster)
    assert collected.students == {"s003": "new"} and not collected.is_whole
    assert collected.unknown == ["nobody@example.org of submission_5"]


def test_gradescope_may_have_one_submission(tiny, tmp_path):
    files = {
        "assignment_9_export/submission_metadata.yml": "submission_5:\n  :submitters:\n  - :sid: s001\n",
        "assignment_9_export/submission_5/tiny.py": "1",
    }
    assert collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out").students == {"s001": "new"}


def test_a_folder_that_gradescopes_metadata_do_not_name_is_refused(tiny, tmp_path):
    files = GRADESCOPE | {"assignment_99_export/submission_600/tiny.py": "5"}
    source = zipped(tmp_path / "a.zip", files)
    with pytest.raises(ValueError, match=r"looks like Gradescope, except for submission_600/tiny.py: --kind"):
        collect(source, tiny, tmp_path / "out")
    collected = collect(source, tiny, tmp_path / "out", kind="gradescope")
    assert not collected.is_whole and "submission_600/tiny.py" in collected.problems[""][0]


def test_who_is_in_gradescopes_metadata_without_files_is_named(tiny, tmp_path):
    files = {name: text for name, text in GRADESCOPE.items() if "submission_501" not in name}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    assert collected.students["1000001"] == "nothing" and not collected.is_whole


def test_ilias_names_users_and_late_files(tiny, tmp_path):
    collected = collect(zipped(tmp_path / "a.zip", ILIAS), tiny, tmp_path / "out")
    assert (collected.kind, collected.is_whole, collected.late) == ("ilias", True, ["s002"])
    assert {f"s00{n}/tiny/tiny.py": str(n) for n in (1, 2, 3)}.items() <= tree(tmp_path / "out").items()


def test_a_team_of_ilias_hands_in_once(tiny, tmp_path):
    files = {
        "Sheet/Submissions/Team 8/Un_Etudiant_s001_501/tiny.py": "1",
        "Sheet/Submissions/Team 9/Student__s003_503/tiny.py": "3",
    }
    (tmp_path / "r.csv").write_text("id,group\ns001,team 8\ns002,Team 8\ns003,Team 9\n")
    roster = read_roster(tmp_path / "r.csv")
    assert collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out", roster=roster).is_whole
    assert tree(tmp_path / "out") == {f"s00{n}/tiny/tiny.py": text for n, text in ((1, "1"), (2, "1"), (3, "3"))}


def test_github_classroom_names_accounts(tiny, tmp_path):
    collected = collect(zipped(tmp_path / "a.zip", GITHUB), tiny, tmp_path / "out")
    assert (collected.kind, collected.is_whole) == ("github", True)
    assert tree(tmp_path / "out") == {f"s00{n}/tiny/tiny.py": str(n) for n in (1, 2)}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["", "github"])
def test_the_folder_that_github_classroom_makes_can_itself_be_the_source(tiny, tmp_path, packed, kind):
    files = {name.removeprefix("hw1-submissions/"): text for name, text in GITHUB.items()}
    path = tmp_path / ("hw1-submissions" + ".zip" * packed)
    source = zipped(path, files) if packed else folder(path, files)
    collected = collect(source, tiny, tmp_path / "out", kind=kind)
    assert (collected.kind, collected.is_whole) == ("github", True)
    assert tree(tmp_path / "out") == {f"s00{n}/tiny/tiny.py": str(n) for n in (1, 2)}


def test_a_folder_named_like_that_of_github_classroom_may_hold_other_folders(tiny, tmp_path):
    source = folder(tmp_path / "hw1-submissions", {"s001/tiny.py": "1", "s002/tiny.py": "2"})
    collected = collect(source, tiny, tmp_path / "out")
    assert (collected.kind, collected.students) == ("plain", {"s001": "new", "s002": "new"})


def test_canvas_may_lie_in_one_folder(tiny, tmp_path):
    files = {
        "submissions/doejane_111_2221_tiny.py": "1",
        "submissions/roejohn_LATE_112_2222_tiny-1.py": "2",
        "__MACOSX/submissions/._doejane_111_2221_tiny.py": "x",
    }
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    assert (collected.kind, collected.is_whole, collected.late) == ("canvas", True, ["roejohn-112"])
    assert tree(tmp_path / "out") == {"doejane-111/tiny/tiny.py": "1", "roejohn-112/tiny/tiny.py": "2"}


def test_anonymous_submissions_of_canvas_may_be_late(tiny, tmp_path):
    files = {
        "anon_aB3xY_2221_tiny.py": "1",
        "LATE_anon_cD4zW_2222_tiny-1.py": "2",
        "anon_11111_2223_tiny.py": "3",
        "anon_zzzzz_text.html": "typed",
    }
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    assert (collected.kind, collected.late) == ("canvas", ["anoncd4zw"])
    ids = ("anonab3xy", "anoncd4zw", "anon11111")
    assert tree(tmp_path / "out") == {f"{who}/tiny/tiny.py": str(n) for n, who in enumerate(ids, start=1)}
    assert collected.students["anonzzzzz"] == "nothing" and not collected.is_whole


def test_a_file_called_as_canvas_calls_typed_texts_is_taken(tiny, tmp_path):
    files = {"a_1_11_tiny.py": "1", "a_1_12_text.html": "mine"}
    collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    assert tree(tmp_path / "out")["a-1/tiny/text.html"] == "mine"


def test_without_a_roster_ids_are_made_of_name_and_number(tiny, tmp_path):
    collect(zipped(tmp_path / "m.zip", MOODLE), tiny, tmp_path / "out")
    assert {name.partition("/")[0] for name in tree(tmp_path / "out")} == {
        *("etudiantun-1000001", "etudiantedeux-1000002", "student-1000003", "student-1000004")
    }


@pytest.mark.parametrize(
    "files",
    [
        {"Team A_71_assignsubmission_file/tiny.py": "a", "Solo_72_assignsubmission_file/tiny.py": "b"},
        {"teama_LATE_41_9001_tiny.py": "a", "solo_43_9002_tiny.py": "b"},
        {"Team A/tiny.py": "a", "solo/tiny.py": "b"},
    ],
    ids=["moodle", "canvas", "folders"],
)
def test_a_group_hands_in_once_for_each_member(tiny, tmp_path, files):
    (tmp_path / "r.csv").write_text("id,Group,canvas\ns001,Team A,41\ns002,Team A,42\ns003,Solo,43\n")
    roster = read_roster(tmp_path / "r.csv")
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out", roster=roster)
    assert collected.is_whole and collected.missing == []
    assert tree(tmp_path / "out") == {f"s00{n}/tiny/tiny.py": text for n, text in ((1, "a"), (2, "a"), (3, "b"))}
    assert collected.late == (["s001", "s002"] if collected.kind == "canvas" else [])


TEAM = "The members of the group Team <A> have handed in different files."


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"s001": "a", "s002": "a"}, []),
        ({"s001": "a"}, []),
        ({"Team A": "a"}, []),
        ({"s001": "a", "s003": "b"}, []),
        (
            {"s001": "a", "s002": "b"},
            [f"{TEAM} Each file counts for those who have handed it in: s001; s002."],
        ),
        (
            {"Team A": "a", "s001": "b"},
            [
                f"{TEAM} Each file counts for those who have handed it in: s002."
                " None counts for s001, because there are several."
            ],
        ),
    ],
)
def test_a_group_whose_members_hand_in_different_files_is_named(tiny, tmp_path, files, said):
    (tmp_path / "r.csv").write_text("id,group\ns001,Team <A>\ns002,Team <A>\ns003,Team B\n")
    source = folder(tmp_path / "clones", {f"{who}/tiny.py": text for who, text in files.items()})
    collected = collect(source, tiny, tmp_path / "out", roster=read_roster(tmp_path / "r.csv"))
    assert collected.groups == said and [line for line in collected.lines() if "the group" in line] == said
    team, *others = read_groups(tmp_path / "out", "tiny")
    assert (team.name, team.members, team.remark) == ("Team <A>", ("s001", "s002"), "".join(said)) and not others
    assert handed_in_together(tmp_path / "out", "tiny")[-1] == ["s001", "s002"]


def test_members_of_a_group_are_compared_also_if_they_were_collected_one_by_one(tiny, tmp_path):
    (tmp_path / "r.csv").write_text("id,group\ns001,Red\ns002,Red\n")
    roster = read_roster(tmp_path / "r.csv")
    found = []
    for n, who in enumerate(("s001", "s002", "s002")):
        source = folder(tmp_path / f"clones{n}", {f"{who}/tiny.py": "ab"[n % 2], f"{who}/notes.txt": who})
        found.append(collect(source, tiny, tmp_path / "out", roster=roster, update=True).groups)
    assert [len(said) for said in found] == [0, 1, 0]
    assert read_groups(tmp_path / "out", "tiny")[0].remark == ""


@pytest.mark.parametrize("text", ["{", "[]", '{"tiny": [{"name": "Red"}]}', '{"tiny": [1]}', '{"tiny": 1}'])
def test_a_damaged_record_of_groups_is_said(tiny, tmp_path, text):
    (tmp_path / "out" / ".collected").mkdir(parents=True)
    (tmp_path / "out" / ".collected" / ".groups.json").write_text(text)
    with pytest.raises(ValueError, match="delete it and collect again"):
        collect(folder(tmp_path / "clones", {"s001/tiny.py": "1"}), tiny, tmp_path / "out")


def test_a_member_with_another_submission_gets_none(tiny, tmp_path):
    (tmp_path / "r.csv").write_text("id,group\ns001,Team A\ns002,Team A\n")
    source = zipped(tmp_path / "a.zip", {"Team A/tiny.py": "a", "s001/tiny.py": "own"})
    collected = collect(source, tiny, tmp_path / "out", roster=read_roster(tmp_path / "r.csv"))
    assert collected.students == {"s001": "twice", "s002": "new"} and not collected.is_whole


def test_the_number_of_a_group_is_not_that_of_a_student(tiny, roster, tmp_path):
    files = {"Team A_1000001_assignsubmission_file/tiny.py": "a", "Team B_7_assignsubmission_file/tiny.py": "b"}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out", roster=read_roster(roster))
    assert collected.unknown == ["Team A 1000001", "Team B 7"] and not (tmp_path / "out").exists()


def test_anonymous_submissions_of_moodle_are_found_by_number(tiny, roster, tmp_path):
    files = {f"Participant_100000{n}_assignsubmission_file/tiny.py": str(n) for n in (1, 2)}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out", roster=read_roster(roster))
    assert collected.students == {"s001": "new", "s002": "new"} and collected.is_whole


def test_who_is_not_in_the_roster_is_named_and_left_out(tiny, roster, tmp_path):
    files = {"Nobody_7_assignsubmission_file_/tiny.py": "", "Student_8_assignsubmission_file_/tiny.py": ""}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out", roster=read_roster(roster))
    assert collected.unknown == ["Nobody 7", "Student 8"]  # two students are called just Student
    assert not collected.is_whole and not (tmp_path / "out").exists()
    assert collected.missing == ["s001", "s002", "s003", "s004"]


def test_two_submissions_of_one_student_are_not_mixed(tiny, roster, tmp_path):
    files = {f"Étudiant Un_{n}_assignsubmission_file_/tiny.py": str(n) for n in (5, 6)}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out", roster=read_roster(roster))
    assert collected.students == {"s001": "twice"} and not collected.is_whole
    assert "Étudiant Un 5, Étudiant Un 6" in collected.problems["s001"][0]


def test_folders_and_clones_and_nbgraders_own(tiny, tmp_path):
    layout = {
        "s001/tiny.py": "on top",
        "s002/assignments/tiny/tiny.py": "below",
        "s002/README.md": "not a part of it",
        "s003/tiny/tiny.py": "of several",
        "s003/other/tiny.py": "another assignment",
        "s004/.git/config": "x",
        "s004/tiny.py": "clone",
        "s004/timestamp.txt": "2020-01-01 00:00:00 UTC",
    }
    collected = collect(folder(tmp_path / "source", layout), tiny, tmp_path / "out")
    assert collected.kind == "plain" and collected.is_whole
    assert tree(tmp_path / "out") == {
        f"s00{n}/tiny/tiny.py": text for n, text in enumerate(("on top", "below", "of several", "clone"), start=1)
    }
    assert collected.remarks["s004"] == ["Its own timestamp.txt was left out."]
    for student in ("s001", "s002"):
        (tmp_path / "out" / student / "tiny" / "timestamp.txt").write_text("2026-11-30 12:00:00 UTC")
        (tmp_path / "nb" / student).mkdir(parents=True)
        (tmp_path / "out" / student / "tiny").rename(tmp_path / "nb" / student / "tiny")
    again = collect(tmp_path / "nb", tiny, tmp_path / "again")
    assert again.kind == "nbgrader" and tree(tmp_path / "again") == tree(tmp_path / "nb")


def test_a_second_run_changes_nothing_and_nothing_is_overwritten_unasked(tiny, tmp_path):
    first = zipped(tmp_path / "1.zip", {"s001/tiny.py": "1", "s002/tiny.py": "2"})
    second = zipped(tmp_path / "2.zip", {"s001/tiny.py": "new", "s002/tiny.py": "2", "s003/tiny.py": "3"})
    out = tmp_path / "out"
    assert collect(first, tiny, out).students == {"s001": "new", "s002": "new"}
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert collect(first, tiny, out).students == {"s001": "unchanged", "s002": "unchanged"}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps
    careful = collect(second, tiny, out)
    assert careful.students == {"s001": "differs", "s002": "unchanged", "s003": "new"} and not careful.is_whole
    assert tree(out)["s001/tiny/tiny.py"] == "1"
    assert collect(second, tiny, out, update=True).students["s001"] == "replaced"
    assert tree(out)["s001/tiny/tiny.py"] == "new"
    assert sorted(path.name for path in (out / "s001").iterdir()) == ["tiny"]
