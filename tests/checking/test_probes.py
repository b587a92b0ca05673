"""Only probes go to where the student's code runs: never a judgement, an expected value or a way to make inputs."""

import ast
import re
from textwrap import dedent

import pytest

from autograder import assignment as assignments
from ebmcourse.checking.probes import probe_source

NEIGHBOUR = '''
"""Stand-ins."""
import math
import secrets_of_the_course

from ebmcourse.checking import probe

SECRET = 17


def helper_of_judgements():
    return SECRET


@probe
class StandIn:
    scale = math.pi


@probe
def stand_in_for_another_exercise():
    return 99
'''
CHECKS = '''
"""A judgement's own words."""
import os
import random as dice
import numpy as np
from stand_ins import StandIn, stand_in_for_another_exercise
from statistics import mean, median

from ebmcourse.checking import exercise, fail, inputs, probe

SIZE, DEPTH = 3, 4
ANSWER = 42
OTHER: int = 5


@inputs
def numbers(rng):
    return rng.random(SIZE)


@probe
def observed(student, numbers):
    """What is looked at."""
    assert ANSWER_FREE and StandIn
    return np.array(part(student, mean(numbers), SIZE))


ANSWER_FREE = True


@probe
def part(student, x, size):
    return student.work.f(x) * size


@probe
def of_another_exercise(student):
    return stand_in_for_another_exercise()


def judgement_of_many(got, want):
    return abs(got - ANSWER) < 1


@exercise("1", points=1, hint="not for the sandbox")
def test_value(run, numbers):
    """The title."""
    got, want = run(observed, numbers)
    if not judgement_of_many(got, want):
        fail("expected forty-two")


if os.environ.get("X"):
    ANSWER = median([1])
'''


@pytest.fixture
def source(tmp_path):
    (tmp_path / "stand_ins.py").write_text(NEIGHBOUR)
    (tmp_path / "test_1.py").write_text(CHECKS)
    return probe_source(tmp_path / "test_1.py", "observed")


def top_names(source):
    return {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_it_holds_probes_and_what_they_mention(source):
    assert top_names(source) == {"observed", "part", "StandIn"}
    for needed in ("import numpy as np", "mean", "SIZE, DEPTH", "ANSWER_FREE = True", "import math"):
        assert needed in source


@pytest.mark.parametrize(
    "secret",
    [
        "judgement",
        "expected forty-two",
        "42",
        "test_value",
        "exercise(",
        "rng",
        "dice",
        "SECRET",
        "17",
        "environ",
        "title",
        "OTHER",
        "another_exercise",
        "99",
    ],
)
def test_it_holds_nothing_else(source, secret):
    assert secret not in source


def test_it_runs_without_the_rest(source):
    class Student:
        class work:
            f = staticmethod(lambda x: x)

    namespace = {"__name__": "probes"}
    exec(compile(source, "<probe>", "exec"), namespace)
    assert namespace["observed"](Student, [1, 3]) == 6


def test_an_import_that_only_a_judgement_needs_does_not_come_along(tmp_path):
    (tmp_path / "test_2.py").write_text(
        dedent("""
        import secrets_of_the_course
        from ebmcourse.checking import probe
        @probe
        def f(student):
            return 1
        def test_f():
            assert secrets_of_the_course.x
        """)
    )
    assert "secrets_of_the_course" not in probe_source(tmp_path / "test_2.py", "f")


@pytest.mark.parametrize("name", assignments.names())
def test_no_judgement_of_the_course_enters_the_sandbox(name):
    for path in sorted(assignments.load(name).checks.glob("test_*.py")):
        judgements = {
            node.name
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef)
            and (node.name.startswith(("test_", "judge")) or not node.decorator_list)
        }
        for probe in re.findall(r"^@probe\n(?:def|class) (\w+)", path.read_text("utf-8"), re.MULTILINE):
            source = probe_source(path, probe)
            assert not judgements & top_names(source)
            for word in ("exercise(", "assert_close(", "mistakes", "fail("):
                assert word not in source, f"{path.name}: {word}"
