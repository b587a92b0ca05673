"""Which statements of a student's own cells run: what a solution needs, wherever it stands, and no training."""

import ast

import pytest

from ebmcourse.checking.untrusted.selection import select
from ebmcourse.checking.untrusted.statements import parse


def selected(own, solution="def f():\n    return needed"):
    """The statements of an own cell that run, and the names that are not defined."""
    statements = [*parse(own), *parse(solution, is_own=False)]
    kept, lost = select(statements)
    return [ast.unparse(s.node) for s in statements if s in kept and s.is_own], lost


def kept(own):
    return selected(own)[0] == [ast.unparse(s.node) for s in parse(own)]


@pytest.mark.parametrize(
    "own",
    [
        *("needed = float('inf')", "needed: int = 4", "a = needed = 1", "needed = torch.rand(3)", "[needed] = [1]"),
        "if x:\n    needed = 1",
        "for needed in range(3):\n    pass",
        "with open('x') as needed:\n    pass",
        "try:\n    import needed\nexcept ImportError:\n    needed = None",
        "(needed := 3)",
        "[needed := x for x in range(3)]",
        "if True:\n    def needed():\n        pass",
        "if True:\n    import a.b as needed",
        "match 3:\n    case needed:\n        pass",
        "try:\n    x\nexcept E as needed:\n    pass",
        "import other as needed",
        "def needed():\n    pass",
        "base = 3\nneeded = 2 * base",
        "base = 3\ndef needed():\n    return base",
        "base = 3\nneeded = [lambda: base for _ in range(3)]",
        "base = 3\nclass needed:\n    x = base",
        "needed = {}\nneeded['a'] = 1\nneeded.update(b=2)\nfill(needed)\nneeded['c'].d[0] = 4",
        "needed = 1\nneeded += 1\ndel needed",
        "def set_it():\n    global needed\n    needed = 1\n\ndef run():\n    set_it()\nrun()",
        "needed = []\ndef add(x):\n    needed.append(x)\nfor x in range(3):\n    add(x)",
        "needed = await something()",
    ],
)
def test_what_sets_or_changes_something_needed_runs(own):
    assert kept(own)


@pytest.mark.parametrize(
    "own",
    [
        *("print(needed())", "x = needed", "needed2 = 3", "plot(x)", "show(needed.mean())", "x = other.needed"),
        "with once_written():\n    other = 3\n    print(needed(other))",
        "for row in range(3):\n    print(row)",
        "os._exit(0)",
        "lambda needed: 3",
        "[needed for needed in range(3)]",
    ],
)
def test_what_nothing_needs_does_not_run(own):
    assert selected(own) == ([], set())


TRAIN = "def train(model):\n    loss = model()\n    loss.backward()\n    return model\n"


@pytest.mark.parametrize(
    ("own", "lost"),
    [
        ("needed = train(1)", {"needed"}),
        ("loss = 3\nloss.backward()\nneeded = loss", {"loss", "needed"}),
        ("needed = {}\nneeded['a'] = train(1)", {"needed"}),
        ("trained = train(1)\nneeded = trained.weight", {"trained", "needed"}),
        ("def two(x):\n    return train(x)\nneeded = two(1)", {"needed"}),
        ("class Net:\n    def __init__(self):\n        train(self)\nneeded = Net()", {"needed"}),
        ("needed = Trainer().fit(1)", {"needed"}),
        ("trained = train(1)\ndef get():\n    return trained\nneeded = get()", {"trained", "needed"}),
        ("with once_written():\n    needed = make()\n    needed = train(needed)", {"needed"}),
    ],
)
def test_what_trains_does_not_run_and_its_names_are_not_defined(own, lost):
    run, undefined = selected(TRAIN + own)
    assert undefined == lost and not any("train(1)" in statement for statement in run)


@pytest.mark.parametrize(
    "own",
    [
        "needed = train(1)\nneeded = 3",
        "class Loss:\n    def forward(self, x):\n        gtn.backward(x)\nneeded = Loss.apply",
        "class Loss:\n    def backward(self, x):\n        x.backward()\nneeded = Loss()",
        "needed = train",
        "train(1)\nneeded = 3",
        "device = 1\nmodel = train(device)\nneeded = device",
    ],
)
def test_names_that_training_does_not_set_are_defined(own):
    assert selected(TRAIN + own)[1].isdisjoint({"needed"})


def test_a_main_guard_of_a_solution_runs_where_it_is_needed():
    guard = "if __name__ == '__main__':\n    {}\ndef f():\n    return SCALE"
    assert selected("", guard.format("SCALE = 1"))[0] == ["if '__main__' == '__main__':\n    SCALE = 1"]
    assert selected("", guard.format("train()"))[0] == []


@pytest.mark.parametrize(
    ("needed_by", "left_out"), [("definitions", ["y = 4", "z = x.fit(3)"]), ("all", ["z = x.fit(3)"])]
)
def test_without_solution_cells_more_is_needed(needed_by, left_out):
    statements = list(parse("x = 3\ndef f():\n    return x\ny = 4\nz = x.fit(3)"))
    run, _ = select(statements, needed_by=needed_by)
    assert [ast.unparse(s.node) for s in statements if s not in run] == left_out


def test_the_limit_of_recursion_is_set():
    assert kept("import sys\nLIMIT = 5000\nsys.setrecursionlimit(LIMIT)")


def test_a_module_that_is_not_handed_in_defines_nothing():
    statements = list(parse("import mine\nfrom mine.parts import a\nimport torch\nx = a + 1"))
    assert select(statements, needed_by="all", absent={"mine"})[1] == {"mine", "a", "x"}
