"""A notebook as a program: what is read of its file, and what counts of its cells."""

import importlib
import json
import sys
import tracemalloc

import pytest

from ebmcourse.checking.program import MAX_CODE, MAX_NOTEBOOK_BYTES, laid_out, program, program_in, read_notebook


def notebook(*cells, **more):
    """A notebook file of cells, each a text or ``(grade_id, role, text)``."""
    made = []
    for number, cell in enumerate(cells):
        name, role, text = cell if isinstance(cell, tuple) else ("", "free", cell)
        about = {
            "grade_id": name,
            "solution": role == "solution",
            "locked": role != "solution",
            "grade": role == "test",
        }
        metadata = {"nbgrader": about} if name else {}
        made.append({"cell_type": "code", "id": f"id-{number}", "metadata": metadata, "source": text})
    return json.dumps({"nbformat": 4, "metadata": {"kernelspec": {"name": "python3"}}, "cells": made, **more})


def run(text):
    """The module that a notebook becomes."""
    with laid_out(program("lesson", read_notebook(text).cells)) as folder:
        sys.path.insert(0, str(folder))
        try:
            importlib.invalidate_caches()
            sys.modules.pop("lesson", None)
            module = importlib.import_module("lesson")
            yield module
        finally:
            sys.path.remove(str(folder))
            sys.modules.pop("lesson", None)


@pytest.fixture
def module(request):
    yield from run(request.param)


def of(*cells):
    return pytest.mark.parametrize("module", [notebook(*cells)], indirect=True)


@of(
    ("setup", "given", "%matplotlib inline\nBASE = 3"),
    "import math\nLIMIT = 5\nnothing = print('drawn')\n1 / 0\n\ndef helper(x):\n    return BASE * x",
    ("triple", "solution", "def triple(x):\n    return helper(x) + LIMIT - 5"),
    ("test-1", "test", "raise SystemExit"),
)
def test_given_and_solution_cells_run_whole_and_of_others_what_is_needed(module, capsys):
    assert module.triple(4) == 12 and module.math.pi > 3
    assert not hasattr(module, "nothing") and capsys.readouterr().out == ""


@of(
    ("broken", "solution", "def broken(x:\n    return x"),
    ("stops", "solution", "value = 1\n1 / 0\ndef late():\n    pass"),
    ("exits", "solution", "import sys\nsys.exit()"),
    ("fine", "solution", "def fine():\n    return value"),
)
def test_a_cell_that_fails_does_not_stop_the_next_and_tells_why_its_names_are_not_there(module):
    assert module.fine() == 1
    with pytest.raises(SyntaxError) as caught:
        module.broken  # noqa: B018
    assert caught.value.filename.endswith("cell broken") and caught.value.lineno == 1
    with pytest.raises(ZeroDivisionError):
        module.late  # noqa: B018
    with pytest.raises(AttributeError, match="does not define 'other'"):
        module.other  # noqa: B018


@of(
    ("imports", "solution", "import no_such_package\ndef after():\n    return 1"),
    ("split", "solution", "def first():\n    return second()"),
    ("split", "solution", "def second():\n    return __name__"),
)
def test_a_failed_import_ends_no_cell_and_cells_may_share_a_name(module):
    assert module.after() == 1 and module.first() == "__main__"
    assert module.first.__code__.co_filename.endswith("cell split")
    assert module.second.__code__.co_filename.endswith("cell split (2)")


@of(("one", "solution", "from __future__ import annotations"), ("two", "solution", "def f(x: Unknown):\n    return x"))
def test_what_comes_from_the_future_holds_for_the_cells_that_follow(module):
    assert module.f(1) == 1


SILENT = r"""
!ls \
  -l
from IPython import get_ipython
from IPython.display import clear_output, display
def shown(x):
    handle = display(x, display_id=True)
    handle.update(x)
    %time y = x
    files = !ls
    return [y, *files, get_ipython().kernel.name in ()]
"""


@of(("silent", "solution", SILENT))
def test_magics_commands_and_displays_have_no_effect(module):
    assert module.shown(3) == [3, False]
    assert module.shown.__code__.co_firstlineno == 6, "lines keep their numbers"


def test_a_name_that_training_sets_is_not_defined():
    text = notebook("w = fit(1)\nx = 2 * w\ny = 3", ("a", "solution", "def a():\n    return x\ndef b():\n    return y"))
    for module in run(text.replace("fit(1)", "[].fit(1)")):
        assert module.b() == 3
        with pytest.raises(NameError):
            module.a()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "{}", "\x00", "[" * 100_000, '{"nbformat": 4}', '{"nbformat": 4, "cells": 3}'),
        '{"nbformat": 4, "cells": [3]}',
        notebook("x", nbformat=3),
        notebook(("a", "given", 3)),
        notebook(*["x"] * 3000),
        '{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["a", 1]}]}',
        '{"nbformat": 4, "cells": [{"cell_type": "code", "source": null}]}',
    ],
)
def test_what_is_no_notebook_is_told_in_one_sentence(text):
    with pytest.raises(ValueError, match="no notebook that can be read"):
        read_notebook(text)


@pytest.mark.parametrize("metadata", ["null", "3", '{"nbgrader": []}', '{"nbgrader": {"grade_id": 3, "points": "x"}}'])
def test_metadata_of_a_wrong_type_is_none(metadata):
    cell = f'{{"cell_type": "code", "source": "a", "id": [], "metadata": {metadata}}}'
    (read,) = read_notebook(f'{{"nbformat": 4, "metadata": {metadata}, "cells": [{cell}]}}').cells
    assert (read.name, read.ids, read.role, read.points) == ("", (), "free", None)


def test_points_may_be_any_number():
    huge = '{"cell_type": "code", "source": "a", "metadata": {"nbgrader": {"points": 1%s}}}' % ("0" * 400)
    assert read_notebook(f'{{"nbformat": 4, "cells": [{huge}]}}').cells[0].points > 1e300


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_notebook_may_be_in_any_encoding_of_unicode(encoding):
    content = notebook("β = 1").encode("ascii").decode("unicode_escape").encode(encoding)
    assert read_notebook(content).cells[0].source == "β = 1"


@pytest.mark.parametrize(
    ("metadata", "is_python"),
    [
        *(({}, True), ({"kernelspec": None}, True), ({"kernelspec": {"name": "conda-env-ebm-py"}}, True)),
        ({"kernelspec": {"name": "my-env", "language": "python"}, "language_info": {"name": "python"}}, True),
        ({"kernelspec": {"name": "python", "display_name": "Python (Pyodide)", "language": "python"}}, True),
        ({"kernelspec": {"name": "julia-1.10", "language": "julia"}, "language_info": {"name": "python"}}, False),
        ({"language_info": {"name": "R"}}, False),
    ],
)
def test_a_kernel_is_one_of_python_unless_it_says_otherwise(metadata, is_python):
    assert read_notebook(notebook(metadata=metadata)).is_python is is_python


def test_outputs_may_be_large_and_code_may_not():
    raw = json.loads(notebook("x = 1"))
    raw["cells"][0]["outputs"] = [{"output_type": "stream", "text": "x" * 20_000_000}]
    assert read_notebook(json.dumps(raw)).cells[0].source == "x = 1"
    with pytest.raises(ValueError, match="more than a million characters of code"):
        read_notebook(notebook("x" * (MAX_CODE + 1)))
    with pytest.raises(ValueError, match="larger than"):
        read_notebook(b" " * (MAX_NOTEBOOK_BYTES + 1))


def test_no_file_takes_much_more_memory_than_it_has_bytes():
    content = b'{"nbformat": 4, "cells": [' + b"[]," * 10_000_000 + b"[]]}"
    tracemalloc.start()
    with pytest.raises(ValueError, match="no notebook that can be read"):
        read_notebook(content)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_text_that_no_file_can_hold_is_replaced():
    assert read_notebook(notebook("x = '\ud800'")).cells[0].source == "x = '?'"


def test_a_notebook_in_its_folder_comes_with_the_given_files_only(tmp_path):
    for name in ("given.py", "own.py"):
        (tmp_path / name).write_text("x = 1")
    (tmp_path / "lesson.ipynb").write_text(notebook("y = 2"))
    files, problems = program_in(tmp_path, ["lesson.ipynb"], ["given.py", "picture.png"])
    assert sorted(files) == ["cell 1", "given.py", "lesson.py"] and not problems
    (tmp_path / "given.py").write_bytes(b"\xff")
    files, problems = program_in(tmp_path, ["lesson.ipynb"], ["given.py"])
    assert "not UTF-8" in problems["given.py"]
    files, problems = program_in(tmp_path, ["other.py"])
    assert sorted(files) == ["own.py"] and problems["other.py"] == "The file `other.py` is missing."


def test_what_is_wrong_with_a_file_is_said_to_someone_who_does_not_hand_it_in_yet(tmp_path):
    (tmp_path / "lesson.ipynb").write_text("{")
    (tmp_path / "given.py").mkdir()
    _, problems = program_in(tmp_path, ["lesson.ipynb"], ["given.py"])
    assert "the copy in the folder `.ipynb_checkpoints`" in problems["lesson.py"]
    assert "hand" not in problems["lesson.py"]
    assert problems["given.py"] == "The file `given.py` cannot be read: Is a directory."
