"""The result files: their schema, their bytes, and errors for damaged files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autograder.results import (
    Result,
    Timings,
    assignments_in,
    read_result,
    read_results,
    read_timings,
    result_from,
    result_path,
    write_atomically,
    write_result,
    write_timings,
)
from ebmcourse.checking.outcome import STATUSES, Outcome

CHECK = Outcome("3.2a/shape", "3.2a", "It fits", "passed", 2.0, 2.0, True, "Look at the axes.", None)
RESULT = Result("jem", "s001", 2.0, 2.0, "ab" * 32, "cd" * 32, 0, ["odd"], [CHECK])

points = st.floats(min_value=0, max_value=1e6)
names = st.text("abcXYZ019_- äÜ<>&\"'؀", min_size=1, max_size=20)
checks = st.lists(
    st.builds(
        Outcome,
        id=st.text(max_size=20),
        part=st.text(max_size=5),
        title=st.text(),
        status=st.sampled_from(STATUSES),
        points=points,
        max_points=points,
        public=st.booleans(),
        hint=st.text(),
        diagnosis=st.none() | st.text(),
    ),
    max_size=4,
    unique_by=lambda check: check.id,
)
results = st.builds(
    Result,
    assignment=names,
    student=names,
    score=points,
    max_score=points,
    submission_sha256=st.text(max_size=64),
    checks_sha256=st.text(max_size=64),
    seed=st.integers(),
    flags=st.lists(st.text(), max_size=3),
    checks=checks,
    confined=st.none() | st.booleans(),
)


def as_data(result: Result = RESULT) -> Any:
    return json.loads(result.to_json())


@given(results)
def test_json_round_trip_gives_an_equal_result(result: Result) -> None:
    assert result_from(json.loads(result.to_json())) == result


@given(result=results)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_file_round_trip_gives_an_equal_result_and_equal_bytes(tmp_path: Path, result: Result) -> None:
    path = write_result(tmp_path, result)
    before = path.read_bytes()
    assert read_result(path) == result
    write_result(tmp_path, read_result(path))
    assert path.read_bytes() == before


def test_a_file_has_exactly_the_documented_form() -> None:
    text = RESULT.to_json().decode("utf-8")
    assert text.endswith("}\n") and not text.endswith("\n\n")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert set(as_data()) == {
        *("schema", "assignment", "student", "score", "max_score", "submission_sha256", "checks_sha256"),
        *("seed", "flags", "checks"),
    }
    assert set(as_data()["checks"][0]) == {
        *("id", "part", "title", "status", "points", "max_points", "public", "hint", "diagnosis"),
    }
    assert as_data(replace(RESULT, confined=False))["confined"] is False


def test_non_ascii_letters_are_readable_in_the_file() -> None:
    assert "Γράμμα" in replace(RESULT, student="Γράμμα").to_json().decode("utf-8")


def test_an_undecodable_file_name_is_kept() -> None:
    result = replace(RESULT, flags=[os.fsdecode(b"caf\xe9.py")])
    assert result_from(json.loads(result.to_json())) == result


@pytest.mark.parametrize(
    "change",
    [
        {"score": "17"},
        {"score": True},
        {"score": -1.0},
        {"score": float("nan")},
        {"max_score": float("inf")},
        {"max_score": 10**400},
        {"seed": 0.5},
        {"flags": "odd"},
        {"flags": [1]},
        {"checks": {}},
        {"checks": [1]},
        {"confined": None},
        {"confined": "no"},
        {"student": None},
        {"grade": "A"},
        {"schema": 2},
        {"schema": None},
        {"checks": [as_data()["checks"][0]] * 2},
        {"checks": [as_data()["checks"][0] | {"status": "lost"}]},
        {"checks": [as_data()["checks"][0] | {"public": 1}]},
        {"checks": [as_data()["checks"][0] | {"output": ""}]},
    ],
    ids=repr,
)
def test_the_error_names_a_file_that_violates_the_schema(tmp_path: Path, change: dict[str, object]) -> None:
    path = result_path(tmp_path, "jem", "s001")
    path.parent.mkdir()
    path.write_text(json.dumps(as_data() | change), encoding="utf-8")
    with pytest.raises(ValueError, match=r"s001\.json"):
        read_result(path)


@pytest.mark.parametrize("key", sorted(as_data()))
def test_a_missing_key_is_an_error(tmp_path: Path, key: str) -> None:
    data = as_data()
    del data[key]
    with pytest.raises(ValueError, match=key):
        result_from(data)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"text"', b"[" * 100_000], ids=len)
def test_the_error_names_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = result_path(tmp_path, "jem", "s001")
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"s001\.json.*grade again"):
        read_results(tmp_path, "jem")


def test_another_schema_version_is_an_error(tmp_path: Path) -> None:
    path = write_result(tmp_path, RESULT)
    path.write_text(json.dumps(as_data() | {"schema": 7}), encoding="utf-8")
    with pytest.raises(ValueError, match="its schema is 7, but this version reads schema 1"):
        read_result(path)


def test_a_result_with_the_file_name_of_another_student_is_refused(tmp_path: Path) -> None:
    path = write_result(tmp_path, RESULT)
    path.rename(path.with_name("s002.json"))
    with pytest.raises(ValueError, match="it is the result of 's001'"):
        read_results(tmp_path, "jem")


def test_a_result_that_violates_the_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="status must be one of"):
        write_result(tmp_path, replace(RESULT, checks=[replace(CHECK, status="lost")]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../s002", ".hidden", "s001.timings", "s\0", "x" * 300])
def test_a_name_that_cannot_be_a_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        result_path(tmp_path, "jem", name)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_only_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = write_result(tmp_path, RESULT)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(failure)):
        write_atomically(path, b"half")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_permissions_of_a_file_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        path = write_result(tmp_path, RESULT)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o644


def test_timings_are_stored_next_to_the_result(tmp_path: Path) -> None:
    write_result(tmp_path, RESULT)
    assert read_timings(tmp_path, "jem", "s001") is None
    timings = Timings(1.5, {"3.2a/shape": 0.25})
    path = write_timings(tmp_path, "jem", "s001", timings)
    assert path.name == "s001.timings.json"
    assert json.loads(path.read_bytes()) == {"seconds": 1.5, "checks": {"3.2a/shape": 0.25}}
    assert read_timings(tmp_path, "jem", "s001") == timings
    assert [result.student for result in read_results(tmp_path, "jem")] == ["s001"]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"seconds": "1", "checks": {}}', '{"seconds": 1, "checks": {"a": null}}']
)
def test_the_error_names_damaged_timings(tmp_path: Path, content: str) -> None:
    path = write_timings(tmp_path, "jem", "s001", Timings(1.0))
    path.write_text(content)
    with pytest.raises(ValueError, match=r"s001\.timings\.json"):
        read_timings(tmp_path, "jem", "s001")


def test_results_are_listed_by_student_and_assignments_by_name(tmp_path: Path) -> None:
    for assignment in ("jem", "deep"):
        for student in ("s010", "s002"):
            write_result(tmp_path, replace(RESULT, assignment=assignment, student=student))
    (tmp_path / "empty").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.json").write_text("{}")
    (tmp_path / "index.html").write_text("")
    assert assignments_in(tmp_path) == ["deep", "jem"]
    assert [result.student for result in read_results(tmp_path, "jem")] == ["s002", "s010"]
    assert assignments_in(tmp_path / "nowhere") == []
