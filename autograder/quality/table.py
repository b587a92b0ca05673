"""The table of `autograder quality`."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from autograder.quality.forged import Forged
from autograder.quality.measure import Verdict

GOALS = {
    "attacks": "without gain",
    "mutants": "killed, in their own part",
    "variants": "at full marks",
    "blind/mistakes": "found, in their own part",
    "blind/variants": "at full marks",
    "automatic": "killed, or equivalent with a reason",
}


def report(verdicts: Sequence[Verdict], forged: Forged | None) -> Group:
    """One row per case, then the forged replies that survive, if they were judged, then the scores.

    Of automatic mutants only those with a complaint have a row: there are hundreds.
    """
    table = Table("kind", "case", "mark", "verdict", box=None, header_style="bold")
    for verdict in verdicts:
        case, result = verdict.case, verdict.result
        if case.kind == "automatic" and not verdict.complaint:
            continue
        word = Text(verdict.complaint, "bold red") if verdict.complaint else Text("as expected", "green")
        name = f"{case.part}: {case.title}" if case.kind == "automatic" else case.title
        table.add_row(case.kind, name, f"{result.score:g}/{result.max_score:g}", word)
    lines = [Text()]
    for kind, goal in GOALS.items():
        mine = [verdict for verdict in verdicts if verdict.case.kind == kind]
        if not mine:
            continue
        good = sum(verdict.complaint is None for verdict in mine)
        lines.append(Text(f"{kind}: {good} of {len(mine)} {goal}", "green" if good == len(mine) else "red"))
    if forged is None:
        return Group(table, *lines)
    score = f"forged replies: killed {forged.killed} of {forged.total}, explained {forged.explained}"
    lines.append(Text(score, "red" if forged.complaints else "green"))
    return Group(table, *(Text(complaint, "bold red") for complaint in forged.complaints), *lines)
