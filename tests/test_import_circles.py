"""No module imports itself, directly or through others, not even inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["ebmcourse", "autograder"]  # each is checked on its own


def modules_of(package: Path) -> dict[str, Path]:
    """The file of each module below `package`, by the module's dotted name."""
    files = sorted(package.rglob("*.py"))
    return {".".join(file.relative_to(package.parent).with_suffix("").parts): file for file in files}


def ancestors(name: str) -> set[str]:
    """The packages that contain module `name`."""
    parts = name.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts))}


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement inside `node`, except those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for statement in child.orelse:
                yield from statements(ast.Module([statement], []))
        else:
            yield from statements(child)


def imported(name: str, source: str, is_package: bool, known: set[str]) -> set[str]:
    """The modules among `known` that module `name` imports.

    Importing a.b.c also runs the packages a and a.b, unless `name` is inside them: then they are running already.
    """
    found = set()
    for statement in statements(ast.parse(source)):
        if isinstance(statement, ast.Import):
            targets = [alias.name for alias in statement.names]
        else:
            parts = name.split(".")
            base = parts[: len(parts) + is_package - statement.level] if statement.level else []
            origin = ".".join([*base, *([statement.module] if statement.module else [])])
            members = [f"{origin}.{alias.name}" for alias in statement.names]
            targets = [member if member in known else origin for member in members]
        for target in targets:
            found |= ({target} | (ancestors(target) - ancestors(name) - {name})) & known
    return found


def circle(modules: dict[str, tuple[str, bool]]) -> list[str]:
    """A circle of imports, or an empty list; `modules` holds each module's source and whether it is a package."""
    arrows = {name: imported(name, *module, set(modules)) for name, module in modules.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_through_others(package):
    modules = {}
    for name, file in modules_of(ROOT / package).items():
        is_package = file.name == "__init__.py"
        modules[name.removesuffix(".__init__")] = file.read_text("utf-8"), is_package
    assert len(modules) > 10
    assert not (found := circle(modules)), " imports ".join(found)


A_TO_B = {"p": ("from .a import x", True), "p.a": ("from . import b", False)}


@pytest.mark.parametrize(
    "source",
    [
        "import p.a",
        "from p import a",
        "from .a import x",
        "def f():\n    from . import a",
        "class C:\n    def f(self):\n        from p.a import x",
        "if True:\n    import p.a",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import p.a",
        "import p.b",
        "from p import x",
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(source):
    assert circle(A_TO_B | {"p.b": (source, False)})


@pytest.mark.parametrize(
    "source",
    ["import os", "if TYPE_CHECKING:\n    from .a import x", "from .c import x", "import p.c", "'import p.a'"],
)
def test_other_imports_are_no_circle(source):
    assert not circle(A_TO_B | {"p.b": (source, False), "p.c": ("", False)})


def test_importing_a_module_counts_as_importing_its_package():
    modules = {"p": ("", True), "p.q": ("from .a import x", True), "p.q.a": ("import p.r", False)}
    assert circle(modules | {"p.r": ("from p.q.b import x", False), "p.q.b": ("", False)})


# From the command line down: a module imports only from its own layer, with the same name, and from the layers below.
LAYERS = [
    {"demo"},
    {"cli"},
    {"quality"},
    {"changes", "export"},
    {"collect"},
    {"report"},
    {"grade"},
    {"release", "sandbox"},
    {"drawings", "late"},
    {"results", "text"},
    {"assignment", "files"},
    {""},  # the package itself
]


def test_in_the_instructors_tool_imports_go_down_only():
    modules = modules_of(ROOT / "autograder")
    place = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    known = {name.removesuffix(".__init__") for name in modules}
    upwards = []
    for dotted, file in modules.items():
        name = dotted.removesuffix(".__init__")
        own = f"{name}.".split(".")[1]
        if "template" in name:
            continue
        for target in imported(name, file.read_text("utf-8"), file.name == "__init__.py", known):
            other = f"{target}.".split(".")[1]
            if other != own and place[other] <= place[own]:
                upwards.append(f"{name} imports {target}")
    assert not upwards, "\n".join(upwards)


def test_few_files_lie_directly_in_the_instructors_tool():
    assert len([path for path in (ROOT / "autograder").iterdir() if path.is_file()]) <= 12
