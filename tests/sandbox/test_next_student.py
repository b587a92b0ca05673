"""A hostile submission gains nothing, and the student who is graded after it gets the same bytes as before it."""

import pytest

from autograder import assignment as assignments
from autograder.grade import seed, submissions
from autograder.grade.grader import Grader
from autograder.grade.job import Job
from autograder.quality.cases import Case, load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("needs_sandbox")]


@pytest.fixture
def tiny(tiny_course):
    return assignments.load("tiny", tiny_course)


@pytest.fixture
def grade(tiny, tmp_path):
    """Grade a case in one and the same sandbox, always as the student s001."""
    grader = Grader(Job.of(tiny, seed.given(0), confined=True))

    def grade(case: Case):
        folder = tmp_path / case.name / "tiny"
        case.write(tiny, folder)
        result, _ = grader.grade(submissions.read(folder, "s001", tiny))
        assert not grader._judge.internal_errors, grader._judge.internal_errors
        return result

    yield grade
    grader.close()


def test_no_attack_gains_and_none_harms_the_next(tiny, grade):
    before = grade(Case("variants", "before", "", "reference", ())).to_json()
    attacks = load(tiny, "attacks")
    assert len(attacks) >= 30
    for attack in attacks:
        result = grade(attack)
        assert result.score == 0, f"{attack.name} gains {result.score}"
        assert any(attack.flagged in flag for flag in result.flags) or not attack.flagged, (attack.name, result.flags)
        after = grade(Case("variants", f"after-{attack.name}", "", "reference", ()))
        assert after.to_json() == before, attack.name
