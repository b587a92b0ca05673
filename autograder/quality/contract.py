"""What the contract of every function leaves open, and the case that proves that the checks vary it.

``quality/contract.toml`` has a table for every function that students write. Each dimension names a case that is wrong
only there, so that a check that did not vary the dimension would let it pass; or says why the dimension is not open::

    ["MCMCSampler.store"]
    sizes = "mutants/store-fills-whole-batches"
    calls = "blind/mistakes/33a-first-call-only"
    state = "mutants/store-keeps-gradients"
    options = "mutants/store-default-size"
    arguments = "It is called by the sampler only, always with the same kind of tensor."
"""

import tomllib

from autograder.assignment import Assignment
from autograder.quality.solutions import functions

DIMENSIONS = {
    "sizes": "sizes that differ from each other and from the defaults, and the smallest ones",
    "calls": "sequences of calls",
    "state": "the state before and after a call, also after an exception",
    "options": "options away from their defaults, one at a time",
    "arguments": "the kinds of argument that the docstring allows",
}
KINDS = ("mutants/", "blind/mistakes/")

Contract = dict[str, dict[str, str]]  # function, dimension -> case or reason


def contract(assignment: Assignment) -> Contract:
    """Read ``quality/contract.toml``; raises ValueError where it does not say all that it must.

    A new assignment need not have the file: its contract is empty.
    """
    file = assignment.quality / "contract.toml"
    if not file.is_file():
        return {}
    entries: Contract = tomllib.loads(file.read_text("utf-8"))
    expected = functions(assignment)
    if entries.keys() != expected.keys():
        wrong = ", ".join(sorted(entries.keys() ^ expected.keys()))
        raise ValueError(f"{file} and the solutions have different functions: {wrong}.")
    for function, dimensions in entries.items():
        if dimensions.keys() != DIMENSIONS.keys():
            raise ValueError(f"{file}: {function} needs exactly {', '.join(DIMENSIONS)}.")
        for dimension, text in dimensions.items():
            exists = (assignment.quality / f"{text}.toml").is_file()
            if text.startswith(KINDS) != exists or not (exists or text.endswith(".")):
                raise ValueError(f"{file}: {function}: {dimension} is neither a case nor a reason: {text!r}.")
    return entries


def table(assignment: Assignment) -> str:
    """The contract as a Markdown table: a case where the dimension is varied, and notes for the reasons."""
    parts, rows, notes = functions(assignment), [], []
    for function, dimensions in contract(assignment).items():
        cells = []
        for text in dimensions.values():
            if text.startswith(KINDS):
                cells.append(f"`{text.rpartition('/')[2]}`")
            else:
                if text not in notes:
                    notes.append(text)
                cells.append(f"({notes.index(text) + 1})")
        rows.append(f"| `{function}` | {parts[function]} | {' | '.join(cells)} |")
    head = ["| function | exercise | " + " | ".join(DIMENSIONS) + " |", "|---|---|" + "---|" * len(DIMENSIONS)]
    return "\n".join([*head, *rows, "", *(f"{number}. {note}" for number, note in enumerate(notes, start=1))])
