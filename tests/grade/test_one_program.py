"""The notebook that passes in Jupyter is the one that is graded, whatever it is made of and whatever became of it."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sides import Sides, kernel, points

from autograder import assignment as assignments
from autograder.release.programs import solved
from ebmcourse.checking.public import PublicChecks
from ebmcourse.checking.untrusted.kernel import KernelProcess

CASES = Path(__file__).parent.parent / "cases"
NOTEBOOK = solved(assignments.load("note", CASES / "course"))
pytestmark = pytest.mark.slow


def sides_of(name, tmp_path_factory):
    sides = Sides(assignments.load(name, CASES / "course"), tmp_path_factory.mktemp(name))
    yield sides
    sides.close()


@pytest.fixture(scope="module")
def note(tmp_path_factory):
    yield from sides_of("note", tmp_path_factory)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    yield from sides_of("plain", tmp_path_factory)


def lost(outcomes):
    return {outcome.id: outcome.diagnosis for outcome in outcomes if not outcome.passed}


@pytest.mark.parametrize("path", sorted((CASES / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_right_notebook_passes_everywhere(note, path):
    content = path.read_bytes()
    assert not lost(note.in_kernel(content)) and not lost(note.checked(content)) and not lost(note.graded(content))


@pytest.mark.parametrize("path", sorted((CASES / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_right_notebook_is_flagged_only_for_what_is_true(note, path):
    flags = {
        "merged_with_given": (
            "note.ipynb: the given cell `setup` was changed; it was put back",
            "note.ipynb: the solution cell `free-energy` is not filled in; another cell defines what it should",
        ),
        "split_solution_helper_first": (
            "note.ipynb: the solution cell `free-energy` is there more than once; all that were written count",
        ),
    }
    assert note.submission(path.read_bytes()).flags == flags.get(path.stem, ())


@pytest.mark.parametrize("path", sorted((CASES / "python_files").glob("*.py")), ids=lambda path: path.stem)
def test_a_right_python_file_passes_everywhere(plain, path):
    content = path.read_bytes()
    assert not lost(plain.checked(content)) and not lost(plain.graded(content))


def test_a_byte_order_mark_changes_nothing(note):
    content = b"\xef\xbb\xbf" + NOTEBOOK.encode()
    assert not lost(note.checked(content)) and not lost(note.graded(content))


def test_outputs_cost_no_points(note):
    notebook = json.loads(NOTEBOOK)
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 20_000_000}]
    assert not lost(note.graded(json.dumps(notebook).encode()))


def test_the_reason_is_the_same_where_a_name_is_not_kept(note):
    notebook = json.loads(NOTEBOOK)
    place = next(place for place, cell in enumerate(notebook["cells"]) if cell["id"] == "free-energy")
    notebook["cells"][place]["source"] = "def free_energy(energies, beta):\n    return TRAINED\n"
    notebook["cells"].insert(place, NEW | {"id": "own", "source": OWN["TRAINED"]})
    content = json.dumps(notebook).encode()
    for side in (note.in_kernel, note.checked, note.graded):
        diagnosis = next(iter(lost(side(content)).values()))
        assert "NameError" in diagnosis and "because a cell of your own sets it by training" in diagnosis


@pytest.mark.parametrize(
    ("own", "solution", "said"),
    [
        ("", "return float(input('Which unit? ')) * energies", "Your program asks for input"),
        ("UNIT = float(input('Which unit? '))", "return UNIT * energies", "sets it by training, by asking for input"),
        ("def ask():\n    return input()\nUNIT = float(ask())", "return UNIT * energies", "by asking for input"),
    ],
)
def test_a_program_that_asks_for_input_fails_everywhere_for_the_same_reason(note, monkeypatch, own, solution, said):
    monkeypatch.setattr("builtins.input", lambda prompt="": "1.0")  # the student's answer in the kernel
    notebook = json.loads(NOTEBOOK)
    place = next(place for place, cell in enumerate(notebook["cells"]) if cell["id"] == "free-energy")
    notebook["cells"][place]["source"] = f"def free_energy(energies, beta):\n    {solution}\n"
    notebook["cells"].insert(place, NEW | {"id": "own", "source": own})
    content = json.dumps(notebook).encode()
    for side in (note.in_kernel, note.checked, note.graded):
        assert said in next(iter(lost(side(content)).values()))


def test_a_layer_that_is_called_input_asks_nobody(note):
    notebook = json.loads(NOTEBOOK)
    place = next(place for place, cell in enumerate(notebook["cells"]) if cell["id"] == "free-energy")
    own = "class Net:\n    input = float\n    def unit(self):\n        return self.input(1)\nUNIT = Net().unit()"
    solution = "return -UNIT * torch.logsumexp(-beta * energies, dim=1) / beta"
    notebook["cells"][place]["source"] = f"def free_energy(energies, beta):\n    {solution}\n"
    notebook["cells"].insert(place, NEW | {"id": "own", "source": own})
    content = json.dumps(notebook).encode()
    for side in (note.in_kernel, note.checked, note.graded):
        assert not lost(side(content))


def test_a_cell_with_a_syntax_error_is_named_on_each_side(note):
    notebook = json.loads(NOTEBOOK)
    place = next(place for place, cell in enumerate(notebook["cells"]) if cell["id"] == "free-energy")
    notebook["cells"][place]["source"] = "def free_energy(energies, beta)\n    return energies\n"
    content = json.dumps(notebook).encode()
    diagnosis = next(iter(lost(note.in_kernel(content)).values()))
    assert diagnosis.startswith("`free_energy` is not defined: its cell was not run, or stopped with an error.")
    for side in (note.checked, note.graded):
        assert "Your program is not valid Python: expected ':'" in next(iter(lost(side(content)).values()))


def test_what_only_colab_has_costs_nothing_but_itself(note):
    notebook = json.loads(NOTEBOOK)
    place = next(place for place, cell in enumerate(notebook["cells"]) if cell["id"] == "free-energy")
    notebook["cells"][place]["source"] = "def free_energy(energies, beta):\n    return -soft(-beta * energies) / beta\n"
    soft = "def soft(values):\n    return torch.logsumexp(values, AXIS)\nAXIS = 1"
    helper = f"from google.colab import drive\ndrive.mount('/content')\n{soft}"
    notebook["cells"].insert(place, NEW | {"id": "own", "source": helper})
    content = json.dumps(notebook).encode()
    assert not lost(note.checked(content)) and not lost(note.graded(content))


@pytest.mark.parametrize(
    ("cells", "is_defined"),
    [
        (["unit = 1.0"], True),
        (["unit = 2.0", "unit = 1.0"], True),
        (["unit = torch.ones(1).backward() or 1.0", "unit = 1.0"], True),
        (["exec('unit = 1.0')"], True),  # a solution cell may do so, and nobody can tell what it defines
        (["%run -i other.py"], False),
        (["from other import unit"], False),
        (["import given_file", "unit = given_file.unit"], True),
    ],
)
def test_a_kernel_hides_names_that_no_cell_defines(note, cells, is_defined):
    for name in ("other.py", "given_file.py"):
        (note.released / name).write_text("unit = 1.0\n")
    with kernel(note.released) as shell:
        for cell in ["import torch", *cells, "def free_energy(energies, beta):\n    return unit * energies.sum()"]:
            shell.run_cell(cell, store_history=True)
        process = KernelProcess("note", ["given_file.py"])
        (outcome,) = PublicChecks(note.released).outcomes(process)
    assert ("NameError" in outcome.diagnosis) is not is_defined


def test_an_exception_in_a_kernel_is_told_with_its_cell_and_line(note):
    with kernel(note.released) as shell:
        for cell in ("import math", "def free_energy(energies, beta):\n    return energies + missing"):
            shell.run_cell(cell, store_history=True)
        process = KernelProcess("note")
        (outcome,) = PublicChecks(note.released).outcomes(process, cells=process.cells)
    assert "NameError in cell In[2], line 2: `return energies + missing`" in outcome.diagnosis


NEW = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}

# What a solution may use, an expression that is 1.0, and the cell of the student's own that it needs.
DEFINED = {
    "ONE": "ONE = 1.0",
    "-NEGATIVE": """
        import numpy as np
        NEGATIVE = -np.ones(3).mean().item()
        """,
    "torch.ones(1, device=device).item()": "device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "mean(torch.ones(3)).item()": "mean = torch.mean",
    "float(SQUARES[1])": "SQUARES = [number**2 for number in range(3)]",
    "TABLE['one']": """
        TABLE = {}
        for name, number in (('one', 1.0), ('two', 2.0)):
            TABLE[name] = number
        """,
    "ORDER[0]": """
        import random
        ORDER = []
        ORDER.append(1.0)
        random.shuffle(ORDER)
        """,
    "SCALE": """
        if __name__ == '__main__':
            SCALE = 1.0
        """,
    "float(not IN_COLAB)": """
        try:
            import google.colab
            IN_COLAB = True
        except ImportError:
            IN_COLAB = False
        """,
    "Unit.size": """
        class Unit:
            pass

        Unit.size = 1.0
        """,
    "MADE": """
        def make():
            global MADE
            MADE = 1.0

        make()
        """,
    "KNOWN['one']": """
        KNOWN = {}

        def learn(name):
            KNOWN[name] = 1.0

        learn('one')
        """,
    "len(found) or 1.0": "found = !true",
    "TIMED": "%time TIMED = 1.0",
    "CAPTURED": "%%capture\nCAPTURED = 1.0",
    "LATER": """
        import asyncio
        await asyncio.sleep(0)
        LATER = 1.0
        """,
    "pi / pi": "from math import *",
}
# The same, but only a kernel defines the name.
UNDEFINED = {
    "TRAINED": """
        w = torch.ones(1, requires_grad=True)

        def train():
            (0 * w).sum().backward()
            return 1.0

        TRAINED = train()
        """,
    "unit.item()": """
        unit = torch.ones(1, requires_grad=True)
        with torch.enable_grad():
            unit.sum().backward()
            unit.requires_grad_(False)
        """,
    "DERIVED": """
        def fit():
            torch.ones(1, requires_grad=True).sum().backward()
            return 1.0

        base = fit()
        DERIVED = 2 * base - 1
        """,
    "RUN": "%%writefile more.txt\nRUN = 1.0",
    "LOADED": "%precision 3\nget_ipython().user_ns['LOADED'] = 1.0",
}
OWN = {use: dedent(cell).strip() for use, cell in (DEFINED | UNDEFINED).items()}
AT_THE_TOP = ["", "\n\n", "%load_ext autoreload\n", "!true \\\n  x\n\n", "%%time\n", "%%capture\n", "where = !pwd\n"]
WITHIN = ["", "'''What is it?\n    %matplotlib'''", "display(energies)", "%who", "check_part", "!ls -l", "%time 1 + 1"]
HELPER = """
def soft(values):
    return torch.logsumexp(values, dim=1)
"""
SOLUTION = """
def free_energy(energies, beta):
    {within}
    return -soft(-beta * energies) / beta * {factors}
"""


@st.composite
def notebooks(draw):
    """A notebook with a right solution that uses values of other cells, split or joined, and saved by some editor."""
    notebook = json.loads(NOTEBOOK)
    cells = notebook["cells"]
    by_id = {cell["id"]: cell for cell in cells}
    place = cells.index(by_id["free-energy"])

    uses = draw(st.lists(st.sampled_from(sorted(OWN)), max_size=3, unique=True))
    factors = " * ".join(["1", *(f"({use})" for use in uses)])
    solution = SOLUTION.format(within=draw(st.sampled_from(WITHIN)), factors=factors)
    texts = draw(st.sampled_from([[HELPER, solution], [HELPER + solution], [HELPER + "\nOTHER = 3\n", solution]]))
    texts[0] = draw(st.sampled_from(AT_THE_TOP)) + texts[0].lstrip()
    joined = draw(st.sampled_from([None, None, "setup", "test-1a"]))
    if joined and not texts[0].startswith("%%"):  # such a magic has to be at the top of its cell
        given = "".join(by_id[joined]["source"])
        by_id[joined]["source"] = "\n\n".join([given, *texts] if joined == "setup" else [*texts, given])
        texts = []
    solutions = [by_id["free-energy"] | {"id": f"part-{number}", "source": text} for number, text in enumerate(texts)]
    own = [NEW | {"id": f"own-{number}", "source": OWN[use]} for number, use in enumerate(draw(st.permutations(uses)))]
    cells[place : place + 1] = own + solutions if draw(st.booleans()) else solutions + own

    editor = draw(st.sampled_from(["Jupyter", "one that keeps ids", "Colab", "one that keeps nothing"]))
    for cell in cells if editor != "Jupyter" else ():
        name = cell.pop("id")
        cell["metadata"] = {"id": name} if editor == "Colab" else {}
        cell |= {"id": name} if editor == "one that keeps ids" else {}
    return json.dumps(notebook).encode()


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(content=notebooks())
def test_the_public_points_are_the_same_on_all_sides(note, content):
    kernel = points(note.in_kernel(content))
    assert points(note.graded(content)) == kernel
    assert points(note.checked(content)) == kernel
