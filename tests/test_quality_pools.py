"""Mistakes in different parts are graded in one submission, with the same verdicts."""

from __future__ import annotations

import pytest

from autograder import assignment as assignments
from autograder.quality.cases import load
from autograder.quality.measure import measure
from autograder.quality.pools import as_if_alone, pooled, pools
from autograder.results import Result
from ebmcourse.checking.outcome import Outcome

SQUARE = (
    'title = "Squares"\npart = "1a"\nfails = ["1a/double"]\ndiagnosis = "This is the square."\n',
    "secret_factor * x",
)
MUTANTS = {
    "square": (*SQUARE, "x * x"),
    "other-square": (*SQUARE, "x**2"),
    "minus": (
        'title = "Subtracts"\npart = "1b"\nfails = ["1b/plus"]\ndiagnosis = "difference"\n',
        *("torch.add(x, y, alpha=1)", "x - y"),
    ),
}


@pytest.fixture
def tiny(tiny_course):
    folder = tiny_course / "solutions" / "tiny" / "quality" / "mutants"
    folder.mkdir(parents=True)
    for name, (about, find, replace) in MUTANTS.items():
        edit = f'[[edit]]\nfile = "tiny.py"\nfind = "{find}"\nreplace = "{replace}"\n'
        (folder / f"{name}.toml").write_text(about + edit)
    return assignments.load("tiny", tiny_course)


def change(tiny, name, old, new):
    file = tiny.quality / "mutants" / f"{name}.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def names(groups):
    return [[case.name for case in group] for group in groups]


def test_cases_of_different_parts_share_a_submission(tiny, tmp_path):
    groups = pools(tiny, load(tiny, "mutants"))
    assert names(groups) == [["minus", "other-square"], ["square"]]
    pooled(groups[0], 0).write(tiny, tmp_path / "pool")
    text = (tmp_path / "pool" / "tiny.py").read_text()
    assert "return x - y" in text and "return x**2" in text


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("return secret_factor * x\\n", "return x\\n"),
        ("secret_factor", "torch.tensor(2)"),
        ("dtype=x.dtype)\\n    return secret", "dtype=x.dtype)\\n    return 2 * secret"),
        ("return torch.add(x, y, alpha=1)", "return secret_factor * x"),
    ],
)
def test_edits_that_touch_one_another_do_not(tiny, find, replace):
    change(tiny, "minus", 'find = "torch.add(x, y, alpha=1)"', f'find = "{find}"')
    change(tiny, "minus", 'replace = "x - y"', f'replace = "{replace}"')
    for file in ("square", "other-square"):
        change(tiny, file, 'find = "', 'find = "return ')
    assert all(len(group) == 1 for group in pools(tiny, load(tiny, "mutants")))


def test_what_the_other_cases_cost_is_not_counted(tiny):
    def check(part, points):
        return Outcome(f"{part}/x", part, "title", "passed" if points else "failed", points, 1.0, True, "hint", "why")

    group = pools(tiny, load(tiny, "mutants"))[0]
    result = Result("a", "s", 1.0, 3.0, "0", "0", 0, [], [check("1a", 0.0), check("1b", 0.0), check("1c", 1.0)])
    alone = as_if_alone(group[0], group, result)
    assert [item.points for item in alone.checks] == [1.0, 0.0, 1.0] and alone.score == 2.0


@pytest.mark.slow
@pytest.mark.usefixtures("needs_sandbox")
def test_the_verdicts_are_those_of_cases_that_are_graded_alone(tiny):
    change(tiny, "minus", 'diagnosis = "difference"', 'diagnosis = "no such sentence"')
    for file in ("square", "other-square"):
        change(tiny, file, 'part = "1a"', 'part = "1b"' if file == "square" else 'part = "1a"')
    alone, together = (
        {verdict.case.name: (verdict.complaint, verdict.result.score) for verdict in measured}
        for measured in (measure(tiny, kinds=("mutants",), in_pools=pool, workers=1) for pool in (False, True))
    )
    assert together == alone
    assert "is diagnosed otherwise" in alone["minus"][0] and "outside of 1b" in alone["square"][0]
    assert alone["other-square"] == (None, 1.0) and alone["control"] == (None, 3.0)
