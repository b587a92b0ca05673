"""From the text of a cell, in IPython's language, to statements of Python, and what can be known of each."""

from __future__ import annotations
import __future__

import ast
import dis
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from inspect import CO_COROUTINE
from types import CodeType
from typing import Any

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORTS = (ast.Import, ast.ImportFrom)
_NAMED = (*FUNCTIONS, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
_FLAGS = __future__.annotations.compiler_flag  # those that hold for all later cells
_SPECIAL = re.compile(r"\b(__name__|check_part|IPython|get_ipython)\b")
_IS_MAIN = "'__main__' == '__main__'"
ASKS = "input()"  # among calls: the builtin function, and no method of this name
_RUN_THE_CELL = ("capture", "prun", "time")  # cell magics that run the code below them in the notebook


class _Silent:
    """Stands in for IPython's shell and for what `display` returns: whatever is done with it has no effect."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0


STAND_INS = {"get_ipython": _Silent(), "display": _Silent()}  # for what every kernel defines


@dataclass(frozen=True, eq=False)
class Statement:
    """A statement at the top level of a cell; one that `is_own` runs only where it is needed."""

    node: ast.stmt
    code: CodeType
    is_own: bool

    @property
    def is_definition(self) -> bool:
        """Whether it is an import, a function or a class."""
        return isinstance(self.node, (*FUNCTIONS, ast.ClassDef, *IMPORTS))

    @property
    def flags(self) -> int:
        """The flags of the compiler that hold for the statements that follow."""
        return self.code.co_flags & _FLAGS

    def run(self, namespace: dict[str, Any]) -> None:
        result = eval(self.code, namespace)
        if self.code.co_flags & CO_COROUTINE:  # it has an `await` at the top level
            import asyncio  # which takes time

            asyncio.run(result)

    @cached_property
    def binds(self) -> set[str]:
        """The names that it sets or deletes."""
        if isinstance(self.node, (*FUNCTIONS, ast.ClassDef)):
            return {self.node.name}
        if isinstance(self.node, IMPORTS):
            return {(alias.asname or alias.name).split(".")[0] for alias in self.node.names}
        # Of the names that are set, those of functions and comprehensions in it are not names of its own code.
        return self.effects.sets.intersection(self.code.co_names) | self.effects.globally

    def uses(self, among: Collection[str] | None = None) -> set[str]:
        """The names that it, or a function in it, looks up in the notebook; of these only the ones in `among`."""
        codes = [code for code in _codes(self.code) if among is None or any(name in among for name in code.co_names)]
        steps = (step for code in codes for step in dis.get_instructions(code))
        names = {step.argval for step in steps if step.opname in ("LOAD_NAME", "LOAD_GLOBAL")}
        return names if among is None else names.intersection(among)

    @cached_property
    def effects(self) -> Effects:
        return effects(self.node)


@dataclass
class Effects:
    """What a piece of code may change, and how."""

    sets: set[str] = field(default_factory=set)  # names
    globally: set[str] = field(default_factory=set)  # names that it sets in the notebook from inside of a function
    stores: set[str] = field(default_factory=set)  # of objects in which it sets an attribute or an item
    touches: set[str] = field(default_factory=set)  # of objects of which it calls a method and drops the result
    invokes: set[str] = field(default_factory=set)  # of functions that it calls and drops the result,
    passes: set[str] = field(default_factory=set)  # and of objects that it passes to them
    calls: set[str] = field(default_factory=set)  # of functions and methods that it calls


def effects(code: ast.AST) -> Effects:
    """The effects of a piece of code; those of a function are those of calling it."""
    found = Effects()
    for node in ast.walk(code):
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                found.sets.add(node.id)
        elif isinstance(node, ast.Call):
            found.calls.add(node.func.attr if isinstance(node.func, ast.Attribute) else _root(node.func))
            found.calls |= {ASKS} if isinstance(node.func, ast.Name) and node.func.id == "input" else set()
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            found.stores.add(_root(node))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            function, arguments = node.value.func, node.value.args
            (found.touches if isinstance(function, ast.Attribute) else found.invokes).add(_root(function))
            found.passes.update(argument.id for argument in arguments if isinstance(argument, ast.Name))
        elif isinstance(node, ast.Global):
            found.globally.update(node.names)
        elif isinstance(node, ast.NamedExpr):  # also in a comprehension
            found.globally.add(node.target.id)
        elif isinstance(node, ast.alias):
            found.sets.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, _NAMED):
            found.sets.add(node.name or "")
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _root(node: ast.AST) -> str:
    """The name with which an expression such as ``name.a[0].b`` begins; empty where it begins otherwise."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def parse(source: str, file: str = "<cell>", *, is_own: bool = True, flags: int = 0) -> Iterator[Statement]:
    """The statements of a cell, one after another; their lines have the numbers that they have in the cell.

    Magics that run the code after them are replaced by that code; all others, and commands of the shell, are calls of
    methods of ``get_ipython()``. Raises whatever Python's parser and compiler raise.
    """
    for node in _tree(source, file).body:
        is_main_guard = isinstance(node, ast.If) and ast.unparse(node.test) == _IS_MAIN
        module = ast.Module([node], type_ignores=[])
        code = compile(module, file, "exec", flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        yield Statement(node, code, is_own or is_main_guard)
        flags |= code.co_flags & _FLAGS


def _tree(source: str, file: str) -> ast.Module:
    try:
        tree = ast.parse(source, file)
    except SyntaxError:
        source = _plain_python(source)
        tree = ast.parse(source, file)
    if _SPECIAL.search(source):
        for node in ast.walk(tree):
            for name, value in ast.iter_fields(node):
                if isinstance(value, list):
                    setattr(node, name, [new for item in value for new in _replaced(item, file)])
                elif isinstance(value, ast.expr):
                    setattr(node, name, _replaced(value, file)[0])
    return tree


def _replaced(node: Any, file: str) -> list[Any]:
    """What takes the place of a statement or an expression for it to do in a module what it does in a kernel."""
    new: ast.AST
    match node:
        case ast.Name(id="__name__", ctx=ast.Load()):
            new = ast.Constant("__main__")
        case ast.Call(func=ast.Name(id="check_part")):  # there are no checks to run
            new = ast.Constant(None)
        case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "IPython":
            names = [alias for alias in node.names if alias.asname or alias.name not in STAND_INS]
            new = ast.ImportFrom(module, names, node.level) if names else ast.Pass()
        case ast.Expr(ast.Call(ast.Attribute(attr="run_cell_magic"), [ast.Constant(name), _, ast.Constant(str(body))])):
            return _tree("\n" * node.lineno + body, file).body if name in _RUN_THE_CELL else [node]
        case ast.Expr(ast.Call(ast.Attribute(attr="run_line_magic"), [ast.Constant("time"), ast.Constant(str(body))])):
            return _tree("\n" * (node.lineno - 1) + body, file).body
        case ast.Call(ast.Attribute(attr="run_line_magic"), [ast.Constant("time"), ast.Constant(str(body))]):
            with suppress(SyntaxError):  # then it stays a call, which does nothing
                return [ast.parse("\n" * (node.lineno - 1) + body, file, "eval").body]
            return [node]
        case _:
            return [node]
    return [ast.fix_missing_locations(ast.copy_location(new, node))]


def _plain_python(source: str) -> str:
    """The cell as IPython makes Python of it, with the same lines."""
    blank = next((number for number, line in enumerate(source.splitlines()) if line.strip()), 0)
    text: str = _transformer().transform_cell(source)
    return "\n" * blank + text


@cache
def _transformer() -> Any:
    """IPython's transformer of cells, made to keep the lines; imported only where a cell is not plain Python."""
    from IPython.core.inputtransformer2 import TransformerManager

    class Transformer(TransformerManager):
        def do_one_token_transform(self, lines: list[str]) -> tuple[bool, list[str]]:
            changed, new = super().do_one_token_transform(lines)
            joined = len(lines) - len(new)  # lines that were continued are one now
            if joined > 0:
                first = next(place for place, line in enumerate(new) if line != lines[place])
                new = [*new[: first + 1], *["\n"] * joined, *new[first + 1 :]]
            return changed, new

    return Transformer()
