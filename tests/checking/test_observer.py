"""The observer believes nothing, repeats nothing, and lets nobody have more than their time."""

import contextlib
import re
import time
from pathlib import Path

import pytest

from ebmcourse.checking import probe, require
from ebmcourse.checking.observation import LARGEST, Size, decode, encode
from ebmcourse.checking.observer import (
    LEAST_PATIENCE,
    MAX_LINES,
    NAMED_EXCEPTIONS,
    Call,
    Died,
    NoObservation,
    Observer,
    ProtocolError,
    Request,
    TimedOut,
    TooLarge,
)


@probe
def anything(student):
    return 1


@probe
def demanding(student):
    require(student, "`path` returns three values: energy, points, table.")


CALL = Call("1a/check", Path(__file__), "anything", (), 0, 8.0)


class Process:
    """Says what it is told to say; `reply` may be bytes, an exception, or a function of the request."""

    def __init__(self, reply):
        self.reply, self.limits, self.closed = reply, [], 0

    def start(self):
        pass

    def ask(self, frame, seconds):
        self.limits.append(seconds)
        reply = self.reply(decode(frame)) if callable(self.reply) else self.reply
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self):
        self.closed += 1


def observer(reply, **more):
    settings = {"files": {"work.py": "a\rb\x0cc\r\nraise ValueError(secret)\n"}, "problems": {}, "messages": False}
    return Observer(Process(reply), **(settings | {"budget": 100.0} | more))


def answer(**said):
    """a reply that says the same to every question."""
    return lambda request: reply(request, [{"seconds": 0.0, **said} for _ in request["questions"]])


def reply(request, answers):
    return encode({"ticket": request["ticket"], "answers": answers})


def lost(watching):
    with pytest.raises(NoObservation) as found:
        watching.observe(CALL)
    return found.value


def test_a_proper_answer_is_passed_on():
    watching = observer(answer(value={"x": [1, 2.5, None]}, seconds=3.0))
    assert watching.observe(CALL) == {"x": [1, 2.5, None]}
    assert watching.flags == [] and watching.seconds["1a/check"] < 1, "the claimed time is not believed"


def test_a_request_differs_by_its_ticket_only():
    pair = [1, 0.5]
    call = Call("1a/check", Path(__file__), "anything", ("0" * 16, pair), 7, 8.0)
    again = Call("1a/check", Path(__file__), "anything", (pair, 3, "0" * 16), 7, 8.0)
    one, other = (decode(Request((call, CALL, again)).encoded(ticket * 16)) for ticket in "ab")
    assert one.pop("ticket") == "a" * 16 and other.pop("ticket") == "b" * 16
    assert one == other and one.keys() == {"source", "values", "questions"}
    assert one["values"] == ["0" * 16, pair, 3], "each once"
    assert [question["inputs"] for question in one["questions"]] == [[0, 1], [], [1, 2, 0]]
    assert one["questions"][0] == {"probe": "anything", "inputs": [0, 1], "seed": 7}
    assert one["source"].count("def anything(student)") == 1


@pytest.mark.parametrize(
    "said",
    [
        {"value": 1, "seconds": float("nan")},
        {"value": 1, "seconds": float("inf")},
        {"value": 1, "seconds": 1},
        {"value": 1, "seconds": None},
        {"value": 1, "error": {}},
        {"value": 1, "passed": True},
        {"error": "text"},
        {"error": None},
        {},
    ],
)
def test_an_improper_answer_is_refused_and_flagged(said):
    watching = observer(answer(**said))
    assert lost(watching).status == "error"
    assert watching.flags == ["1a/check: the submission's process sent a reply that is not in the kit's format"]
    assert watching._process.closed == 1


NO_ANSWERS = [[1], "x", None, {"answers": 1}, {"answers": [1]}, {"answers": [], "more": 1}, {"ticket": "x"}]


@pytest.mark.parametrize("said", [b"", b"\x00" * 100, *map(encode, NO_ANSWERS)])
def test_bytes_that_are_no_answer_are_refused(said):
    watching = observer(said)
    assert lost(watching).status == "error" and len(watching.flags) == 1


@pytest.mark.parametrize(("ticket", "count"), [("0123456789abcdef", 1), (None, 1), ("", 1), ("right", 0), ("right", 2)])
def test_an_answer_to_another_question_is_refused(ticket, count):
    def said(request):
        right = request["ticket"] if ticket == "right" else ticket
        return encode({"ticket": right, "answers": count * [{"value": 1, "seconds": 0.0}]})

    watching = observer(said)
    lost(watching)
    assert watching.flags == ["1a/check: the submission's process answered what it was not asked"]


@pytest.mark.parametrize(
    ("error", "status"), [(TimedOut(), "timeout"), (Died(), "error"), (ProtocolError("spoke in tongues"), "error")]
)
def test_what_happens_in_the_process_has_its_status(error, status):
    watching = observer(error)
    assert lost(watching).status == status
    assert len(watching.flags) == (status != "timeout")


def test_patience_shrinks_with_every_time_out_and_comes_back_with_an_answer():
    watching = observer(TimedOut())
    for _ in range(6):
        lost(watching)
    assert watching._process.limits == [8.0, 4.0, 2.0, 1.0, 8.0 * LEAST_PATIENCE, 8.0 * LEAST_PATIENCE]
    watching._process.reply = answer(value=1)
    watching.observe(CALL)
    watching.observe(CALL)
    assert watching._process.limits[-1] == 8.0


def test_the_start_of_the_process_costs_the_submission_no_time():
    now = 0.0

    class SlowlyStarted(Process):
        def start(self):
            nonlocal now
            now += 60.0

    process = SlowlyStarted(answer(value=1))
    watching = Observer(process, {}, {}, messages=False, budget=50.0, clock=lambda: now)
    assert [watching.observe(CALL) for _ in range(3)] == [1, 1, 1]
    assert process.limits == [CALL.seconds] * 3 and watching.seconds == {CALL.check: 0.0}


def test_the_budget_is_spent_by_the_clock_however_a_call_ends():
    for end in (answer(value=1), Died(), TimedOut(), ProtocolError("x")):

        def slowly(request, end=end):
            time.sleep(0.02)
            return end(request) if callable(end) else end

        watching = observer(slowly, budget=0.01)
        with contextlib.suppress(NoObservation):
            watching.observe(CALL)
        assert "used up" in lost(watching).reason and len(watching._process.limits) == 1


def call(number):
    return Call(f"1a/{number}", Path(__file__), "anything", (number,), 0, 8.0)


def numbers(request):
    """What the calls of a request are about, see `call`."""
    return [request["values"][question["inputs"][0]] for question in request["questions"]]


def doubled(request):
    return reply(request, [{"value": 2 * number, "seconds": 0.0} for number in numbers(request)])


def test_what_is_asked_ahead_is_asked_once_and_in_order():
    calls, asked = [call(number) for number in range(5)], []

    def noted(request):
        asked.append(numbers(request))
        return doubled(request)

    watching = observer(noted)
    watching.ask_ahead([Request((calls[0],)), Request(tuple(calls[1:4]))])
    assert [watching.observe(one) for one in reversed(calls)] == [8, 6, 4, 2, 0]
    assert asked == [[0], [1, 2, 3], [4]] and watching.seconds.keys() == {one.check for one in calls}
    assert watching.observe(calls[2]) == 4 and len(asked) == 3, "for several checks that ask the same"


@pytest.mark.parametrize("error", [Died(), TimedOut(), ProtocolError("spoke in tongues"), {"value": 1, "more": 1}])
def test_who_spoils_an_answer_spoils_no_other(error):
    calls = [call(number) for number in range(4)]

    def second_goes_wrong(request):
        if 1 not in numbers(request):
            return doubled(request)
        return error if isinstance(error, Exception) else answer(**error)(request)

    watching = observer(second_goes_wrong)
    watching.ask_ahead([Request(tuple(calls[:3])), Request((calls[3],))])
    assert [watching.observe(calls[number]) for number in (0, 2, 3)] == [0, 4, 6]
    with pytest.raises(NoObservation) as found:
        watching.observe(calls[1])
    assert found.value.status == ("timeout" if isinstance(error, TimedOut) else "error")
    flags = {flag.partition(": ")[0] for flag in watching.flags}
    assert flags == set() if isinstance(error, TimedOut) else "1a/1" in flags


@pytest.mark.parametrize(("error", "asked"), [(ProtocolError("x"), 3), (TooLarge("x"), 24), (Died(), 49)])
def test_nothing_more_is_asked_of_a_program_that_breaks_the_protocol_again_and_again(error, asked):
    """Its calls would each cost a process; a program that is only wrong is asked for each exercise."""
    watching = observer(error)
    calls = [call(number) for number in range(36)]
    watching.ask_ahead([Request(tuple(calls[first : first + 3])) for first in range(0, 36, 3)])
    for one in calls:
        with pytest.raises(NoObservation):
            watching.observe(one)
    lost(watching)
    assert len(watching._process.limits) == asked


def test_what_follows_a_message_without_answers_comes_after_its_calls():
    """What later requests bring along must not be there when these calls are asked again."""
    calls, asked = [call(number) for number in range(3)], []

    def dies_together(request):
        asked.append(numbers(request))
        return Died() if len(asked) == 1 else doubled(request)

    watching = observer(dies_together)
    watching.ask_ahead([Request(tuple(calls[:2])), Request((calls[2],))])
    assert [watching.observe(one) for one in reversed(calls)] == [4, 2, 0]
    assert asked == [[0, 1], [0], [1], [2]]


def test_nothing_more_is_asked_ahead_after_a_time_out_or_of_a_program_that_fills_the_memory(monkeypatch):
    requests = [Request((call(number),)) for number in range(9)]
    watching = observer(TimedOut())
    watching.ask_ahead(requests)
    assert watching._process.limits == [8.0]
    monkeypatch.setattr("ebmcourse.checking.observer.MAX_KEPT_BYTES", 1000)
    watching = observer(answer(value="x" * 400))
    watching.ask_ahead(requests)
    assert len(watching._process.limits) == 2


ERROR = {"kind": "error", "type": "ValueError", "message": "0.123 hidden", "missing": "", "places": [["work.py", 3]]}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"type": "Hidden0"},
        {"type": "__import__"},
        {"type": "print"},
        {"type": ["ValueError"]},
        {"type": None},
        {"places": [["../../hidden", 1]]},
        {"places": [["hidden.py", 1], ["work.py", 1]]},
        {"places": [["work.py", 3], ["hidden.py", 1]]},
        *({"places": [["work.py", line]]} for line in (0, -1, 10**9, 2.0, "3", None, [])),
        *({"places": places} for places in (None, 7, "hidden", {"hidden": 1}, [None], [[]], [["work.py"]], [[[], {}]])),
        {"missing": "hidden.py"},
        {"missing": ["hidden.py"]},
        {"kind": "hidden"},
        {"kind": {}},
        {"message": {"hidden": 1}},
        {"extra": "hidden"},
    ],
)
def test_an_error_is_told_in_words_of_ours(change):
    reason = lost(observer(answer(error=ERROR | change))).reason
    assert "hidden" not in reason.lower() and "0.123" not in reason
    assert reason.startswith("Your program stopped with ")


def test_only_usual_exceptions_are_named():
    for name in ("UnicodeEncodeError", "KeyboardInterrupt", "Exception", "ValueErrors"):
        assert "with an exception in work.py" in lost(observer(answer(error=ERROR | {"type": name}))).reason
    for name in NAMED_EXCEPTIONS:
        assert f"with {name} in work.py" in lost(observer(answer(error=ERROR | {"type": name}))).reason


def test_a_program_of_too_many_lines_has_none_quoted():
    """Otherwise the line in which a program stops could tell any amount about hidden inputs."""
    for extra, quoted in ((0, True), (1, False)):
        files = {"work.py": "x\n" * (MAX_LINES - 10), "more.py": "y\n" * (8 + extra)}
        reason = lost(observer(answer(error=ERROR), files=files)).reason
        assert ("`x`" in reason) is quoted


def test_a_file_that_is_not_a_regular_file_of_the_submission_is_never_quoted():
    error = ERROR | {"places": [["/etc/passwd", 1], ["../work.py", 3], ["passwd", 1]]}
    assert lost(observer(answer(error=error))).reason == "Your program stopped with ValueError."


def test_of_an_exercise_only_the_first_exception_is_described():
    calls = [Call(f"{check}", Path(__file__), "anything", (), 0, 8.0) for check in ("1a/x", "1a/y", "1a/z", "1b/x")]
    lines = iter([3, 1, 3, 1])
    watching = observer(lambda request: answer(error=ERROR | {"places": [["work.py", next(lines)]]})(request))
    reasons = []
    for one in calls:
        with pytest.raises(NoObservation) as found:
            watching.observe(one)
        reasons.append(found.value.reason)
    assert "line 3" in reasons[0] and "line" not in reasons[1] and "another one" in reasons[1]
    assert reasons[2] == reasons[0], "the same again tells nothing more"
    assert "line 1" in reasons[3]


def test_thousands_of_places_and_a_file_of_newlines_take_no_time():
    error = ERROR | {"places": [["work.py", 4000]] * 900}
    watching = observer(answer(error=error), files={"work.py": "\n" * 4000, "large.py": "\n" * 1_000_000})
    begin = time.process_time()
    for _ in range(100):
        assert lost(watching).reason == "Your program stopped with ValueError."
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("largest", [Size(tree=10**6, total=4096), Size(tree=4096, total=10**6)])
def test_a_reply_that_is_far_too_large_is_refused_unread_and_costs_one_check(largest):
    calls = [Call(f"1a/{number}", Path(__file__), "anything", (number,), 0, 8.0, largest) for number in range(3)]

    def second_is_large(request):
        return reply(
            request, [{"value": "x" * (5000 if number == 1 else 1), "seconds": 0.0} for number in numbers(request)]
        )

    watching = observer(second_is_large)
    watching.ask_ahead([Request(tuple(calls))])
    assert watching.observe(calls[0]) == watching.observe(calls[2]) == "x"
    watching = observer(lambda request: second_is_large(request) + bytes(8192))
    watching.ask_ahead([Request((calls[1],))])
    with pytest.raises(NoObservation):
        watching.observe(calls[1])
    assert "1a/1: the submission's process sent a reply that is far too large" in watching.flags


def test_the_largest_reply_is_the_sum_over_the_calls_but_never_too_large_to_read():
    one = Call("1a/x", Path(__file__), "anything", (), 0, 8.0, Size(10, 100))
    assert Request((one, one)).largest_reply == Size(20, 200)
    assert Request((one, CALL)).largest_reply == LARGEST


def test_a_sentence_of_the_probe_is_passed_on_and_no_other():
    demand = Call("1a/check", Path(__file__), "demanding", (), 0, 8.0)
    right = "`path` returns three values: energy, points, table."
    for message, passed_on in ((right, True), ("hidden", False), (right + " ", False), ([right], False), (None, False)):
        watching = observer(answer(error=ERROR | {"kind": "refused", "message": message}))
        with pytest.raises(NoObservation) as found:
            watching.observe(demand)
        assert (found.value.reason == right) is passed_on and "hidden" not in found.value.reason
        assert found.value.status == ("failed" if passed_on else "error")


def test_advice_belongs_to_the_error_and_not_to_the_text_of_the_line():
    files = {"work.py": "x = y.detach().cpu().numpy()  # cuda\n"}
    for kind, advice in (
        ("error", None),
        ("numpy", "carry gradients"),
        ("gpu", "A GPU is not always there"),
        ([], None),
    ):
        reason = lost(observer(answer(error=ERROR | {"kind": kind, "places": [["work.py", 1]]}), files=files)).reason
        assert reason.endswith(".") and (advice in reason if advice else reason.endswith("`."))


def test_an_exception_of_the_check_itself_is_not_called_the_program_s():
    error = ERROR | {"places": [], "from_check": True}
    told = lost(observer(answer(error=error))).reason
    assert told.startswith("The check cannot use your code") and "what is returned" in told
    told = lost(observer(answer(error=error | {"places": [["work.py", 3]]}))).reason
    assert "line 3" in told and "look at the arguments" in told


def test_the_hint_of_the_check_is_for_a_program_that_can_be_loaded_and_does_not_end_itself():
    assert lost(observer(answer(error=ERROR))).hint_helps
    for name in ("ImportError", "ModuleNotFoundError", "SyntaxError"):
        assert not lost(observer(answer(error=ERROR | {"type": name}))).hint_helps
    assert not lost(observer(Died())).hint_helps
    missing = ERROR | {"kind": "missing", "missing": "work.py"}
    assert not lost(observer(answer(error=missing), problems={"work.py": "The file `work.py` is missing."})).hint_helps
    missing = ERROR | {"type": "ModuleNotFoundError", "missing": "pandas.py"}
    assert "packages of the course" in lost(observer(answer(error=missing))).reason


@pytest.mark.parametrize(
    ("places", "told"),
    [([["work.py", 3]], "ended itself in work.py, line 3: `raise ValueError(secret)`."), ([], "ended itself.")],
)
def test_a_program_that_ends_itself_is_told_to_remove_the_call(places, told):
    ended = lost(observer(answer(error=ERROR | {"type": "SystemExit", "places": places})))
    assert told in ended.reason and "Remove the call" in ended.reason and "hidden" not in ended.reason
    assert not ended.hint_helps


@pytest.mark.parametrize("messages", [False, True])
def test_a_program_that_asks_for_input_is_told_that_it_cannot(messages):
    asked = ERROR | {"kind": "input", "type": "EOFError", "message": "EOF when reading a line"}
    lost_one = lost(observer(answer(error=asked), messages=messages))
    assert lost_one.reason.startswith("Your program asks for input in work.py, line 3: `raise ValueError(secret)`.")
    assert "cannot ask for input: take the value from the arguments" in lost_one.reason and not lost_one.hint_helps


def test_of_a_syntax_error_only_sentences_of_python_are_repeated():
    for said, told in (
        ("expected ':' (work.py, line 3)", "expected ':'"),
        ("'(' was never closed (work.py, line 3)", "'(' was never closed"),
        ("expected an indented block after 'if' statement on line 2 (work.py, line 3)", "expected an indented block"),
        ("0.123 hidden", "invalid syntax"),
        (None, "invalid syntax"),
    ):
        for name in ("SyntaxError", "IndentationError"):
            reason = lost(observer(answer(error=ERROR | {"type": name, "message": said}))).reason
            start = f"Your program is not valid Python: {told} in work.py, line 3: `"
            assert reason.startswith(start) and "hidden" not in reason
    for messages in (False, True):
        error = ERROR | {
            "type": "SyntaxError",
            "message": "invalid syntax. Perhaps you forgot a comma? (work.py, line 3)",
        }
        told = lost(observer(answer(error=error), messages=messages)).reason
        assert re.search(r"invalid syntax in work.py, line 3: `.*`\. Perhaps you forgot a comma\?$", told)
    error = ERROR | {"type": "SyntaxError", "message": "f-string: expecting '}' (work.py, line 3)"}
    assert "f-string: expecting '}' in work.py" in lost(observer(answer(error=error), messages=True)).reason


def test_lines_are_counted_as_python_counts_them():
    assert "work.py, line 3: `raise ValueError(secret)`" in lost(observer(answer(error=ERROR))).reason


def test_on_the_student_s_own_machine_messages_are_shown():
    assert "0.123 hidden" in lost(observer(answer(error=ERROR), messages=True)).reason


def test_a_missing_file_is_explained_in_words_of_ours():
    problems = {"work.py": "The file `work.py` is missing."}
    for kind in ("missing", "error"):
        told = observer(answer(error=ERROR | {"kind": kind, "missing": "work.py"}), problems=problems)
        assert lost(told).reason == problems["work.py"]


def test_the_last_line_of_the_student_s_own_is_shown():
    assert "line 1: `a`" in lost(observer(answer(error=ERROR | {"places": [["work.py", 1], ["given.py", 9]]}))).reason


def test_only_a_students_own_machine_repeats_what_was_not_run():
    error = ERROR | {"kind": "not run", "type": "AttributeError", "message": "`f` is not defined: 0.123 hidden"}
    found = lost(observer(answer(error=error), messages=True))
    assert found.reason == "`f` is not defined: 0.123 hidden" and not found.hint_helps
    assert "hidden" not in lost(observer(answer(error=error))).reason
