"""A notebook as a program: what counts of its cells, and what a failing cell does to the others."""

import importlib
import json
import sys

import pytest

from ebmcourse.checking.program import laid_out, program, read_notebook
from ebmcourse.checking.untrusted.cells import definitions, plain_python


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
def test_given_and_solution_cells_run_whole_and_of_others_what_they_define(module, capsys):
    assert module.triple(4) == 12 and module.math.pi > 3
    assert not hasattr(module, "nothing") and capsys.readouterr().out == ""


@of(
    ("broken", "solution", "def broken(x:\n    return x"),
    ("stops", "solution", "value = 1\n1 / 0\ndef late():\n    pass"),
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


def test_lines_keep_their_numbers():
    source = "%load_ext autoreload\nimport math\n\nx = math.sin(1)\n@property\ndef f():\n    return 1\nf()\n!ls\nshow?"
    assert definitions(source).split("\n") == [
        "",
        "import math",
        "",
        "",
        "@property",
        "def f():",
        "    return 1",
        *3 * [""],
    ]
    assert plain_python("a = (7\n     % 4)") == "a = (7\n     % 4)", "a percent sign is not always a magic"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        *(("INF = float('inf')", True), ("N: int = 4 * 8", True), ("a = b = {'x': [1, -2]}", True), ("n: int", True)),
        *(("loss = train()", False), ("x = y", False), ("x = torch.rand(3)", False), ("x = list(map(f, [1]))", False)),
        *(("x = [f() for _ in range(9)]", False), ("x += 1", False), ("x = f'{train()}'", False)),
    ],
)
def test_plain_values_are_definitions_and_what_computes_is_not(line, kept):
    assert (definitions(line) == line) is kept


@pytest.mark.parametrize("source", ["def f(:", "%%bash\nrm -rf x", "\0", "(" * 10_000, "-" * 100_000 + "1"])
def test_a_free_cell_that_is_no_python_defines_nothing(source):
    assert definitions(source) == ""


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "{}", "\x00", "[" * 100_000, '{"nbformat": 4}', '{"nbformat": 4, "cells": 3}'),
        '{"nbformat": 4, "cells": [3]}',
        notebook("x", nbformat=3),
        notebook(("a", "given", 3)),
        notebook(*["x"] * 3000),
        '{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["a", 1]}]}',
        '{"nbformat": 4, "cells": [{"cell_type": "code", "source": "a", "metadata": 3}]}',
        '{"nbformat": 4, "cells": [{"cell_type": "code", "source": "a", "metadata": {"nbgrader": {"points": "x"}}}]}',
    ],
)
def test_what_is_no_notebook_is_told_in_one_sentence(text):
    with pytest.raises(ValueError, match="no notebook that can be read"):
        read_notebook(text)


def test_a_byte_order_mark_is_no_part_of_the_notebook():
    assert read_notebook("\ufeff" + notebook("x = 1")) == read_notebook(notebook("x = 1"))


def test_text_that_no_file_can_hold_is_replaced():
    assert read_notebook(notebook("x = '\ud800'")).cells[0].source == "x = '?'"
