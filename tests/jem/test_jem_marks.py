"""The words for two mistakes in one program: the second one keeps the name that it has alone."""

import shutil
import sys
from pathlib import Path

import pytest

from ebmcourse.checking.judge import Judge
from ebmcourse.checking.observation import decode
from ebmcourse.checking.observer import Observer
from ebmcourse.checking.reference import LiveReference
from ebmcourse.checking.untrusted.server import answer
from ebmcourse.checking.untrusted.student import Student

SOLUTION = Path(__file__).parents[2] / "solutions" / "jem"
CLAMP = "gradient.clamp(-GRADIENT_CLAMP, GRADIENT_CLAMP)"
UPDATE = "return (x + step_size * gradient + noise).clamp(*IMG_RANGE)"
NAMES = {
    "3.3b/gradient-at-the-images": (CLAMP, "gradient", "The gradient is not clamped to ±0.03"),
    "3.3b/sampling-restores-the-network": ("self.model(x, clabel)", "self.model(x)", "The labels are ignored."),
    "3.3c/chains-move-uphill": (
        UPDATE,
        "x.add(gradient, alpha=step_size)\n        return (x + noise).clamp(*IMG_RANGE)",
        "The chains do not follow the gradient. Add step_size",
    ),
    "3.3c/noise-has-the-right-spread": (
        UPDATE,
        "x = x + step_size * gradient\n        x.add(noise)\n        return x.clamp(*IMG_RANGE)",
        "The steps contain no noise.",
    ),
}


class InThisProcess:
    """Answers the requests of an observer with the program in a folder."""

    def __init__(self, folder):
        self.student, self.namespaces = Student(folder), {}

    def start(self):
        pass

    def ask(self, frame, seconds):
        return answer(decode(frame), self.student, self.namespaces, lambda file: False)

    def close(self):
        pass


@pytest.fixture(scope="module", autouse=True)
def modules():
    """Other tests get their modules of these names back."""
    before, path = dict(sys.modules), list(sys.path)
    yield
    for name in [path.stem for path in SOLUTION.glob("ex_*.py")]:
        sys.modules.pop(name, None)
        sys.modules |= {name: before[name]} if name in before else {}
    sys.path[:] = path


@pytest.fixture(scope="module")
def judge():
    return Judge(SOLUTION / "checks", LiveReference(0, SOLUTION), ["test_3_3.py"])


@pytest.mark.parametrize("check", NAMES)
def test_a_mistake_keeps_its_name_if_chains_start_from_wide_noise_as_well(judge, tmp_path, check):
    assert all(outcome.passed for outcome in judge.of_reference)
    for file in SOLUTION.glob("ex_*.py"):
        shutil.copy(file, tmp_path)
    source = (tmp_path / "ex_main.py").read_text("utf-8")
    old, new, name = NAMES[check]
    for place, edit in ("START_STD * torch.randn_like(kept)", "2 * torch.rand_like(kept) - 1"), (old, new):
        assert source.count(place) == 1
        source = source.replace(place, edit)
    (tmp_path / "ex_main.py").write_text(source, "utf-8")
    observer = Observer(InThisProcess(tmp_path), {}, {}, messages=False, budget=60)
    found = {outcome.id: outcome.diagnosis for outcome in judge.outcomes(observer) if not outcome.passed}
    assert found["3.3a/first-chains-are-small-noise"].startswith("The initial values of the chains are too large")
    assert found[check].startswith(name)
