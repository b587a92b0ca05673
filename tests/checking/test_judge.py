"""The judge runs all checks of a folder on one submission after the other, whatever a judgement does."""

import time

import pytest
import torch

from ebmcourse.checking.judge import BrokenChecks, Judge
from ebmcourse.checking.observation import decode, encode
from ebmcourse.checking.observer import Observer
from ebmcourse.checking.reference import LiveReference

CHECKS = '''
import pytest
import torch

from ebmcourse.checking import assert_close, exercise, inputs, probe


@inputs
def numbers(rng):
    return torch.from_numpy(rng.random(3))


@probe
def doubled(student, numbers):
    return student.work.double(numbers)


@exercise("1a", points=2, hint="Twice.")
def test_double(run, numbers):
    """Doubles."""
    got, want = run(doubled, numbers)
    assert_close(got, want, mistakes=lambda: {"This is the square.": numbers**2})


@exercise("1b", points=1, hint="Twice.", needs=(test_double,))
def test_double_again(run, numbers):
    """Doubles what was doubled."""
    got, want = run(doubled, 2 * numbers)
    assert_close(got, want)


@exercise("1c", points=1, hint="Nothing.")
def test_that_gives_up(run, numbers):
    """Is no business of a judgement."""
    got, want = run(doubled, numbers)
    if got[0] < 0:
        pytest.skip("negative")
'''


class Process:
    """A submission that answers with what a function makes of the numbers that it is given."""

    def __init__(self, function):
        self.function, self.tickets, self.requests = function, [], []

    def start(self):
        pass

    def ask(self, frame, seconds):
        request = decode(frame)
        self.tickets.append(request["ticket"])
        self.requests.append(request)
        values = [self.function(request["values"][question["inputs"][0]]) for question in request["questions"]]
        answers = [{"value": value, "seconds": 0.0} for value in values]
        return encode({"answers": answers, "ticket": request["ticket"]})

    def close(self):
        pass


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "work.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "test_work.py").write_text(CHECKS)
    return tmp_path


def judge(folder):
    return Judge(folder / "checks", LiveReference("seed", folder / "reference"))


def judged(judge, function):
    process = Process(function)
    observer = Observer(process, {}, {}, messages=False, budget=100.0)
    observer.ask_ahead(judge.requests)
    outcomes = judge.outcomes(observer)
    return [(outcome.id, outcome.status, outcome.points, outcome.diagnosis) for outcome in outcomes], process


def test_every_submission_gets_what_it_deserves_whoever_came_before(folder):
    made = judge(folder)
    right = [
        ("1a/double", "passed", 2.0, None),
        ("1b/double-again", "passed", 1.0, None),
        ("1c/that-gives-up", "passed", 1.0, None),
    ]
    assert [outcome.status for outcome in made.outcomes(None)] == ["passed"] * 3
    first, process = judged(made, lambda x: 2 * x)
    assert first == right
    square, _ = judged(made, lambda x: x**2)
    assert square[0] == ("1a/double", "failed", 0.0, "This is the square.")
    assert square[1] == ("1b/double-again", "skipped", 0.0, "Skipped until `1a/double` passes.")
    negative, _ = judged(made, lambda x: -x)
    assert negative[2][:2] == ("1c/that-gives-up", "error") and "1c/that-gives-up" in made.internal_errors
    again, other = judged(made, lambda x: 2 * x)
    assert again == right
    assert len({*process.tickets, *other.tickets}) == 4, "no ticket is used twice"


STAND_INS = """
from ebmcourse.checking import probe


@probe
def twice(x):
    return x + x
"""

LATER = """

from stand_ins import twice


@probe
def doubled_twice(student, numbers):
    return student.work.double(twice(numbers))


@probe
def shown_twice(student, numbers):
    return student.work.double(twice(numbers)) + 0


@exercise("2a", points=1, hint="Twice.")
def test_later(run, numbers):
    \"""Doubles what is double already.\"""
    assert_close(*run(doubled_twice, numbers))


@exercise("2a", points=1, hint="Twice.")
def test_later_still(run, numbers):
    \"""Doubles it again.\"""
    assert_close(*run(shown_twice, numbers))
"""


def test_questions_travel_together_but_a_stand_in_never_with_its_own_exercise(folder):
    (folder / "checks" / "stand_ins.py").write_text(STAND_INS)
    (folder / "checks" / "test_work.py").write_text(CHECKS + LATER)
    _, process = judged(judge(folder), lambda x: 2 * x)
    asked = [[question["probe"] for question in request["questions"]] for request in process.requests]
    assert asked == [["doubled", "doubled"], ["doubled_twice", "shown_twice"]], "1c asks the same as 1a, so once"
    assert ["def twice" in request["source"] for request in process.requests] == [False, True]


def test_settings_for_other_tests_in_the_same_shell_change_nothing(folder, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "--durations=5 -q --maxfail=1 -k nothing")
    monkeypatch.setenv("PYTEST_PLUGINS", "a_module_of_nobody")
    assert len(judge(folder).outcomes(None)) == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "No checks were found"),
        ("def test_without_points():\n    pass\n", "No checks were found"),
        ("import a_module_of_nobody\n", "a_module_of_nobody"),
        (CHECKS.replace("rng.random(3)", "rng.nothing(3)"), "nothing"),
        (CHECKS.replace("def test_double_again(run, numbers)", "def test_double_again(run, letters)"), "letters"),
    ],
)
def test_checks_that_cannot_be_loaded_are_refused(folder, text, complaint):
    (folder / "checks" / "test_work.py").unlink()
    (folder / "checks" / f"test_{folder.name}.py").write_text(text)  # Python keeps modules that hold no checks
    with pytest.raises(BrokenChecks, match=complaint):
        judge(folder)


@pytest.mark.parametrize(("where", "indent"), [("import pytest\n", ""), ("    return torch", "    ")])
def test_ctrl_c_while_the_checks_are_loaded_is_no_complaint_about_them(folder, where, indent):
    assert CHECKS.count(where) >= 1
    pressed = CHECKS.replace(where, f"{indent}raise KeyboardInterrupt\n{where}", 1)
    (folder / "checks" / "test_work.py").write_text(pressed)
    with pytest.raises(KeyboardInterrupt):
        judge(folder)


def test_a_judgement_that_accepts_anything_accepts_no_undefined_value(folder):
    made = judge(folder)
    undefined, _ = judged(made, lambda x: float("nan") * x)
    assert undefined[2] == ("1c/that-gives-up", "failed", 0.0, "There are infinite or undefined (NaN) values.")
    assert not made.internal_errors


def test_a_judgement_that_stumbles_over_another_shape_is_no_internal_error(folder):
    made = judge(folder)
    for value, word in ((torch.zeros(0), "axis 0"), (torch.zeros(()), "a scalar instead of 1 axis")):
        outcomes, _ = judged(made, lambda x, value=value: value)
        assert outcomes[2][:2] == ("1c/that-gives-up", "failed") and word in outcomes[2][3]
    assert not made.internal_errors


def test_an_observation_that_is_far_too_large_is_flagged_and_not_judged(folder):
    made = judge(folder)
    calls = list(made.requests[0].calls)
    observer = Observer(Process(lambda x: torch.zeros(7000)), {}, {}, messages=False, budget=100.0)
    outcomes = [made.outcome("1c/that-gives-up", observer), made.outcome("1b/double-again", observer)]
    assert [outcome.diagnosis for outcome in outcomes] == ["The value is much larger than expected."] * 2
    assert [flag.partition(":")[0] for flag in observer.flags] == ["1c/that-gives-up", "1b/double-again"]
    assert all(call.largest.total < 100_000 for call in calls)


NUMBERS = """
@probe
def listed(student, numbers):
    return {"numbers": [student.work.double(number) for number in numbers.tolist()], "text": "done"}


@exercise("2a", points=1, hint="Twice.")
def test_listed(run, numbers):
    \"""Doubles each.\"""
    got, want = run(listed, numbers)
    for right in want["numbers"]:
        assert any(abs(number - right) < 1e-6 for number in got["numbers"])
"""


@pytest.mark.parametrize(
    "forged",
    [
        {"numbers": [1.0] * 2_000_000, "text": "done"},
        {"numbers": [[[1.0] * 99] * 99] * 3, "text": "done"},
        {"numbers": [1.0, 2.0, 3.0], "text": "x" * 3_000_000},
        {"numbers": torch.zeros(7_000_000), "text": "done"},
        {"numbers": [torch.zeros(0)] * 50_000, "text": "done"},
        {f"{number}": number for number in range(200_000)},
    ],
)
def test_judging_takes_a_bounded_time_whatever_is_sent(folder, forged):
    """Encoding is the submission's work; reading and judging, all calls together, may take a second of the judge's."""
    (folder / "checks" / "test_work.py").write_text(CHECKS + NUMBERS)
    made = judge(folder)
    requests, encoded = made.requests, {}

    class Forger(Process):
        def ask(self, frame, seconds):
            request = decode(frame)
            count, ticket = len(request["questions"]), b"0" * 16
            if count not in encoded:
                answers = [{"value": forged, "seconds": 0.0}] * count
                encoded[count] = encode({"answers": answers, "ticket": ticket.decode()})
            return encoded[count].replace(ticket, request["ticket"].encode(), 1)

    def judged_in():
        observer = Observer(Forger(None), {}, {}, messages=False, budget=1000.0)
        begin = time.process_time()
        observer.ask_ahead(requests)
        outcomes = made.outcomes(observer)
        return time.process_time() - begin, outcomes, observer

    judged_in()  # makes the forged replies
    used, outcomes, observer = judged_in()
    assert used < 1
    assert not any(outcome.passed for outcome in outcomes) and observer.flags and not made.internal_errors
