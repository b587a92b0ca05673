"""The table of `autograder quality`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from autograder.quality.forged import Forged
from autograder.quality.measure import KINDS, Verdict

GOALS = {"mutants": "killed, in their own part", "variants": "at full marks", "attacks": "without gain"}


def report(verdicts: Sequence[Verdict], forged: Forged) -> Group:
    """One row per case, then the forged replies that survive, then the scores."""
    table = Table("kind", "case", "mark", "verdict", box=None, header_style="bold")
    for verdict in verdicts:
        case, result = verdict.case, verdict.result
        word = Text(verdict.complaint, "bold red") if verdict.complaint else Text("as it must be", "green")
        table.add_row(case.kind, case.title, f"{result.score:g}/{result.max_score:g}", word)
    lines = [Text()]
    for kind in KINDS:
        mine = [verdict for verdict in verdicts if verdict.case.kind == kind]
        good = sum(verdict.complaint is None for verdict in mine)
        lines.append(Text(f"{kind}: {good} of {len(mine)} {GOALS[kind]}", "green" if good == len(mine) else "red"))
    score = f"forged replies: killed {forged.killed} of {forged.total}, explained {forged.explained}"
    lines.append(Text(score, "red" if forged.complaints else "green"))
    return Group(table, *(Text(complaint, "bold red") for complaint in forged.complaints), *lines)
