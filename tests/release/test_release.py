"""Releases: what students get, and what they must not get."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from autograder import assignment as assignments
from autograder.cli import main as autograder
from autograder.release.build import build, differing, release
from autograder.release.gate import complaints, leaks, stub_complaints
from autograder.release.programs import part_points
from autograder.release.stubs import student_version
from autograder.release.texts import outdated
from ebmcourse.checking.public import PublicChecks

SOURCE = '''
def f(x):
    """Doc."""
    y = 1
    ### BEGIN SOLUTION 2b
    # TODO Return "x" plus one: mind the shape.
    # More.
    z = x + y
    return z
    ### END SOLUTION


### BEGIN HIDDEN TESTS
def hidden():
    pass


### END HIDDEN TESTS
'''


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_solution_becomes_its_todo_and_an_error():
    text = student_version(SOURCE)
    ast.parse(text)
    assert '# TODO (2b): Return "x" plus one: mind the shape.' in text and "# More." in text
    assert "z = x + y" not in text and "hidden" not in text and "    y = 1" in text
    with pytest.raises(NotImplementedError, match=r'Exercise 2b: Return "x" plus one\.'):
        namespace: dict = {}
        exec(text, namespace)
        namespace["f"](1)


@pytest.mark.parametrize(
    "broken",
    [
        SOURCE.replace("    ### END SOLUTION\n", ""),
        SOURCE.replace("### END HIDDEN TESTS", ""),
        SOURCE.replace("### BEGIN HIDDEN TESTS", ""),
        SOURCE.replace(" 2b", ""),
        SOURCE.replace("# TODO", "#"),
        SOURCE.replace("    z = x + y", "    ### BEGIN SOLUTION 2c"),
    ],
)
def test_markers_that_do_not_match_are_refused(broken):
    with pytest.raises(ValueError, match=r"region|solution|hidden"):
        student_version(broken, "f.py")


def test_a_release_is_reproducible(tiny_course, tmp_path):
    tiny = assignments.load("tiny", tiny_course)
    for name in ("one", "two"):
        build(tiny, tmp_path / name)
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "two")
    assert "checks/recorded.safetensors" in read_tree(tmp_path / "one")
    assert "1a gives 2 points, 1b 1." in (tmp_path / "one" / "README.md").read_text()


def test_a_readme_that_gives_the_points_of_some_exercises_only_is_refused(tiny_course, tmp_path):
    tiny = assignments.load("tiny", tiny_course)
    path = tiny.folder / "README.md"
    path.write_text(path.read_text().replace("{points:1b}", "1"))
    with pytest.raises(ValueError, match=r"the points of 1b: add its row, with \{points:1b\}"):
        build(tiny, tmp_path / "one")


@pytest.mark.slow
def test_the_gate_accepts_a_clean_release(tiny_course, tmp_path):
    tiny = assignments.load("tiny", tiny_course)
    build(tiny, tmp_path / "built")
    assert leaks(tiny, tmp_path / "built") == []
    assert stub_complaints(tmp_path / "built") == []


@pytest.mark.parametrize(
    "leak",
    [
        "secret_factor = torch.tensor(2.0, dtype=x.dtype)",
        "secret_factor=torch.tensor( 2.0,dtype = x.dtype )  # in other spacing",
        '{"cells": [{"source": ["secret_factor = torch.tensor(2.0, dtype=x.dtype)\\n"]}]}',
        'assert_close(got, want, mistakes={"This is the difference of both.": -torch.ones(3, 4)})',
    ],
)
def test_the_gate_finds_a_line_of_a_solution_or_hidden_test(tiny_course, tmp_path, leak):
    tiny = assignments.load("tiny", tiny_course)
    build(tiny, tmp_path / "built")
    (tmp_path / "built" / "notes.ipynb").write_text(f"something\n{leak}\n")
    assert any("notes.ipynb" in found for found in leaks(tiny, tmp_path / "built"))


def test_the_gate_finds_a_line_of_the_solution_in_a_public_check(tiny_course, tmp_path):
    path = tiny_course / "solutions" / "tiny" / "checks" / "test_1.py"
    formula = "def formula(x):\n    secret_factor = torch.tensor(2.0, dtype=x.dtype)\n    return x + x\n\n\n"
    path.write_text(path.read_text().replace("@exercise", formula + "@exercise", 1))
    tiny = assignments.load("tiny", tiny_course)
    build(tiny, tmp_path / "built")
    [found] = leaks(tiny, tmp_path / "built")
    assert "test_1.py contains a line of the solution" in found and "secret_factor" in found


WRONG = '''
@inputs
def wrong(rng, numbers):
    """What known mistakes give."""
    ### BEGIN HIDDEN TESTS
    return {"This is the square.": numbers**2}
    ### END HIDDEN TESTS


'''


def test_inputs_whose_body_is_hidden_are_released_as_values(tiny_course, tmp_path):
    path = tiny_course / "solutions" / "tiny" / "checks" / "test_1.py"
    text = path.read_text().replace("@exercise", WRONG.lstrip() + "@exercise", 1)
    text = text.replace("(run, numbers)", "(run, numbers, wrong)", 1)
    path.write_text(text.replace('{"This is the square.": numbers**2})', "wrong)", 1))
    tiny = assignments.load("tiny", tiny_course)
    build(tiny, tmp_path / "built")
    assert "numbers**2" not in (tmp_path / "built" / "checks" / "test_1.py").read_text()
    square = "import torch\n\n\ndef double(x):\n    return x**2\n"
    (tmp_path / "built" / "tiny.py").write_text(square)
    [outcome] = PublicChecks(tmp_path / "built").outcomes()
    assert outcome.diagnosis == "This is the square."


@pytest.mark.slow
def test_the_gate_finds_a_stub_that_works(tiny_course, tmp_path):
    tiny = assignments.load("tiny", tiny_course)
    build(tiny, tmp_path / "built")
    (tmp_path / "built" / "tiny.py").write_text("def double(x):\n    return 2 * x\n")
    assert stub_complaints(tmp_path / "built")


def test_a_reference_that_fails_its_checks_is_not_released(tiny_course, tmp_path):
    path = tiny_course / "solutions" / "tiny" / "checks" / "test_1.py"
    path.write_text(path.read_text().replace("assert_close(got, want, m", "assert_close(got, 2 * want, m", 1))
    with pytest.raises(ValueError, match="1a/double"):
        build(assignments.load("tiny", tiny_course), tmp_path / "built")


def test_an_exercise_without_a_title_is_not_released(tiny_course, tmp_path):
    path = tiny_course / "solutions" / "tiny" / "assignment.toml"
    path.write_text(path.read_text().replace('"1b" = "Adding"\n', ""))
    with pytest.raises(ValueError, match=r"There are checks for 1b: add its title to \[parts\]"):
        build(assignments.load("tiny", tiny_course), tmp_path / "built")


@pytest.mark.slow
def test_releasing_again_changes_nothing_and_check_finds_every_change(tiny_course):
    command = ["--course", str(tiny_course), "release"]
    assert CliRunner().invoke(autograder, command).exit_code == 0
    before = read_tree(tiny_course / "assignments")
    assert CliRunner().invoke(autograder, [*command, "--check"]).exit_code == 0
    assert CliRunner().invoke(autograder, command).exit_code == 0
    assert read_tree(tiny_course / "assignments") == before
    (tiny_course / "assignments" / "tiny" / "tiny.py").write_text("edited by hand\n")
    (tiny_course / "assignments" / "tiny" / "extra.txt").write_text("left over\n")
    result = CliRunner().invoke(autograder, [*command, "--check"])
    assert result.exit_code == 1 and "tiny.py" in result.output and "extra.txt" in result.output


def test_an_unknown_name_is_reported_before_anything_is_built(tiny_course):
    result = CliRunner().invoke(autograder, ["--course", str(tiny_course), "release", "tiny", "nosuch"])
    assert result.exit_code == 2 and "nosuch" in result.output
    assert "Building" not in result.output and not (tiny_course / "assignments").exists()


def test_rounding_errors_in_a_recording_are_no_difference(tiny_course, tmp_path):
    from ebmcourse.checking.observation import decode, encode

    tiny = assignments.load("tiny", tiny_course)
    build(tiny, tmp_path / "built")
    release(tiny, tmp_path / "built", tiny_course)
    recording = tiny_course / "assignments" / "tiny" / "checks" / "recorded.safetensors"
    record = decode(recording.read_bytes())
    key = next(iter(record["observations"]))
    record["observations"][key] *= 1 + 1e-6
    recording.write_bytes(encode(record))
    assert differing(tiny, tmp_path / "built", tiny_course) == []
    record["observations"][key] *= 1.01
    recording.write_bytes(encode(record))
    assert [str(path) for path in differing(tiny, tmp_path / "built", tiny_course)] == ["checks/recorded.safetensors"]


def test_a_release_is_outdated_if_its_texts_have_changed_and_not_for_what_is_secret(tiny_course, tmp_path):
    tiny = assignments.load("tiny", tiny_course)
    assert outdated(tiny, part_points(tiny), tiny_course) == ""  # nothing was released
    build(tiny, tmp_path / "built")
    release(tiny, tmp_path / "built", tiny_course)
    (tiny_course / "assignments" / "tiny" / "figure.png").touch()
    os.utime(tiny.folder / "tiny.py")
    assert outdated(tiny, part_points(tiny), tiny_course) == ""
    program, checks = tiny.folder / "tiny.py", tiny.checks / "test_1.py"
    text, judged = program.read_text(), checks.read_text()
    program.write_text(text.replace("2.0", "3.0"))
    assert text != program.read_text() and outdated(tiny, part_points(tiny), tiny_course) == ""
    program.write_text(text.replace("import torch", "import torch  # new"))
    checks.write_text(judged.replace("This is the square.", "This is the square!"))
    note = outdated(tiny, part_points(tiny), tiny_course)
    assert note.startswith("tiny has changed since its release, in tiny.py, checks/test_1.py; students may have worked")
    program.write_text(text)
    checks.write_text(judged)
    readme = tiny.folder / "README.md"
    readme.write_text(readme.read_text().replace("{points:1b}", "1"))
    assert "cannot be released again: README.md does not give the points of 1b" in outdated(
        tiny, part_points(tiny), tiny_course
    )


HIDDEN = '''

@exercise("1b", points=1, hint="Add.")
def test_plus_again(run, numbers):
    """`plus` adds."""
    got, want = run(added, numbers)
    assert_close(got, want)
'''


def test_a_hidden_check_without_markers_is_not_released(tiny_course, tmp_path):
    path = tiny_course / "solutions" / "tiny" / "checks" / "test_1.py"
    path.write_text(path.read_text() + HIDDEN)
    tiny = assignments.load("tiny", tiny_course)
    build(tiny, tmp_path / "built")
    assert [found for found in complaints(tiny, tmp_path / "built") if "1b/plus-again is not public" in found]


def test_points_do_not_depend_on_the_order_of_arguments(tiny_course):
    path = tiny_course / "solutions" / "tiny" / "checks" / "test_1.py"
    ordered, other = '"1b", points=1, hint="Add."', 'hint="Add.", part="1b", points=HALF * 2'
    assert path.read_text().count(ordered) == 1
    path.write_text(path.read_text().replace(ordered, other).replace("@inputs", "HALF = 1.5\n\n\n@inputs"))
    assert part_points(assignments.load("tiny", tiny_course)) == {"1a": 2.0, "1b": 3.0}
