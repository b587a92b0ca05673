"""Cells in IPython's language become Python as IPython makes it, and every line keeps its number."""

import ast

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ebmcourse.checking.untrusted.statements import parse


def python(cell):
    return [ast.unparse(statement.node) for statement in parse(cell)]


@pytest.mark.parametrize(
    "cell",
    [
        *(
            "%load_ext autoreload",
            "!pip install x",
            "files = !ls",
            "lines = %sx ls",
            "torch?",
            "??torch.Tensor",
            "!!ls",
        ),
        "if True:\n    %cd x\n    !ls",
        "'''What?\n%matplotlib\n'''\n%pwd",
        "x = 7\\\n  % 4\n%who",
        ">>> x = 1\n>>> y = 2",
        "  x = 1\n  y = 2",
        "%%bash\nls",
        "%%writefile x.py\nx = 1",
        "%%timeit\nx = 1",
    ],
)
def test_python_is_what_ipython_makes_of_it(cell):
    assert python(cell) == python(TransformerManager().transform_cell(cell))


@pytest.mark.parametrize(
    ("cell", "meaning"),
    [
        ("%%time\nx = 1\ny = 2", ["x = 1", "y = 2"]),
        ("%%capture out\n%time x = f(3)", ["x = f(3)"]),
        ("x = %time f(3)", ["x = f(3)"]),
        ("if True:\n    %time x = 1", ["if True:\n    x = 1"]),
        ("check_part('1a')\nx = 1", ["None", "x = 1"]),
        ("from IPython.display import Image, display", ["from IPython.display import Image"]),
        ("from IPython import get_ipython", ["pass"]),
        ("print(__name__)", ["print('__main__')"]),
    ],
)
def test_what_a_kernel_does_with_it_is_done(cell, meaning):
    assert python(cell) == meaning


@pytest.mark.parametrize("last", ["1 / 0", "x ="])
@pytest.mark.parametrize(
    "first",
    [
        *(
            "",
            "\n\n",
            "!ls \\\n  -l \\\n  -a\n",
            "%%time\n",
            "\n%%capture\n%time x = 1\n!a \\\n b\n",
            "x = !a \\\n  b\n",
        ),
        "if True:\n    !a \\\n    b\n    y = 2\n",
        "x = (1,\n     2)\nx?\n",
        "'''\n%a\n'''\n%b\n",
    ],
)
def test_lines_keep_their_numbers(first, last):
    cell = first + last
    try:
        number = [statement.node.lineno for statement in parse(cell)][-1]
    except SyntaxError as error:
        number = error.lineno
    assert number == cell.count("\n") + 1


@pytest.mark.parametrize("cell", ["def f(:", "\0", "(" * 10_000, "-" * 100_000 + "1", "%%time\nx = (", "return"])
def test_what_is_no_python_is_an_exception(cell):
    with pytest.raises((SyntaxError, ValueError, RecursionError, MemoryError)):
        list(parse(cell))
