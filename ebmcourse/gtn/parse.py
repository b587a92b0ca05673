"""Graphs from text: gtn's format, and that of OpenFst. Every error names the line."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from .topology import EPSILON, MAX_LABEL

# How many nodes a file can have that none of its lines names. Without a limit, one line could ask for all memory.
MAX_UNNAMED = 1_000_000


class Content(NamedTuple):
    """The content of a file: an arc is (source, destination, input label, output label); weights are scores."""

    num_nodes: int
    starts: list[int]
    accepts: list[int]
    arcs: list[tuple[int, int, int, int]]
    weights: list[float]


def parse_gtn(lines: Sequence[str]) -> Content:
    """gtn's text format: a line of start nodes, a line of accept nodes, and one line per arc.

    An arc is `source destination ilabel [olabel [weight]]`. A last line `# nodes: N`, which gtn does not have,
    gives the number of nodes where the last ones are not named.
    """
    named: dict[int, int] = {}  # nodes, each with the first line that names it

    def nodes(number: int, kind: str) -> list[int]:
        if len(lines) < number:
            raise ValueError(f"line {number}: give the {kind} nodes, separated by spaces (an empty line for none).")
        words = lines[number - 1].split()
        try:
            found = [int(word) for word in words]
        except ValueError:
            raise ValueError(f"line {number}: {kind} nodes must be integers, not {_shown(words)}.") from None
        if len(set(found)) < len(found) or min(found, default=0) < 0:
            raise ValueError(f"line {number}: {kind} nodes must be ≥ 0 and different.")
        for node in found:
            named.setdefault(node, number)
        return found

    starts, accepts = nodes(1, "start"), nodes(2, "accept")
    end = len(lines)
    while end > 2 and not lines[end - 1].strip():
        end -= 1
    stated = re.fullmatch(r"# nodes: (\d{1,18})\s*", lines[end - 1]) if end > 2 else None
    arcs, weights = [], []
    for number, line in enumerate(lines[2 : end - bool(stated)], 3):
        words = line.split()
        try:
            source, destination, *labels = [int(word) for word in words[:4]]
            weight = float(words[4]) if len(words) == 5 else 0.0
            if not labels or len(words) > 5 or source < 0 or destination < 0:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"line {number}: an arc is 'source destination ilabel [olabel [weight]]', not {_shown(words)}."
            ) from None
        for label in labels:
            if not EPSILON <= label <= MAX_LABEL:
                raise ValueError(f"line {number}: label {label} is out of range: use 0, 1, … or {EPSILON} (epsilon).")
        if weight != weight:
            raise ValueError(f"line {number}: the weight is NaN: give it a number.")
        named.setdefault(source, number)
        named.setdefault(destination, number)
        arcs.append((source, destination, labels[0], labels[-1]))
        weights.append(weight)
    return Content(_count(named, stated, end), starts, accepts, arcs, weights)


def parse_openfst(lines: Sequence[str]) -> Content:
    """OpenFst's text format without symbols, as fstprint writes it (https://www.openfst.org, "Quick Tour").

    A line is an arc, `source destination ilabel olabel [cost]`, or `source destination label [cost]` in an
    acceptor; or it is a final state, `state [cost]`. Blank lines are ignored. The first line names the start
    state. The file is an acceptor if an arc has three words, or if the fourth of four is not an integer. Label 0 is
    epsilon.

    Costs are energies (low = likely), as in OpenFst's tropical and log semirings; the weight is minus the cost. A
    final state with a cost gets an epsilon arc to an accept node, which is numbered after all states.
    """
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    acceptor = any(len(words) == 3 or (len(words) == 4 and not _is_integer(words[3])) for _, words in rows)
    labels_of_arc = 1 if acceptor else 2
    named: dict[int, int] = {}
    costs: dict[int, float] = {}
    arcs, weights = [], []
    for number, words in rows:
        try:
            states = [int(word) for word in words[: 1 if len(words) < 3 else 2]]
            labels = [int(word) for word in words[2 : 2 + labels_of_arc]]
            rest = words[len(states) + len(labels) :]
            cost = float(rest[0]) if rest else 0.0
            complete = len(states) == 1 or len(labels) == labels_of_arc
            if not complete or len(rest) > 1 or min(states + labels) < 0 or max(labels, default=0) > MAX_LABEL:
                raise ValueError
            if math.isnan(cost):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"line {number}: OpenFst has 'source destination ilabel olabel [cost]', or only one label in an "
                f"acceptor, or 'state [cost]', with labels as numbers, not {_shown(words)}."
            ) from None
        for state in states:
            named.setdefault(state, number)
        if len(states) == 1:
            costs[states[0]] = cost
        else:
            ilabel, olabel = (label or EPSILON for label in (labels[0], labels[-1]))
            arcs.append((states[0], states[1], ilabel, olabel))
            weights.append(0.0 - cost)  # never -0
    count = _count(named)
    starts = [int(rows[0][1][0])] if rows else []
    accepts = [state for state, cost in costs.items() if cost == 0]
    paying = [(state, cost) for state, cost in costs.items() if cost not in (0, math.inf)]
    if paying:
        accepts.append(count)
        arcs += [(state, count, EPSILON, EPSILON) for state, _ in paying]
        weights += [-cost for _, cost in paying]
    return Content(count + bool(paying), starts, accepts, arcs, weights)


def looks_like_openfst(lines: Sequence[str], content: Content | None) -> bool:
    """Whether lines are OpenFst's rather than gtn's; `content` is what `parse_gtn` reads, None where it fails.

    `parse_gtn` can take OpenFst's first two arcs for lists of nodes. Some of these nodes are then on no other arc,
    because they are labels, and later arcs, if any, have as many words. A file that gtn or `savetxt` writes is
    different: its arcs have five words, and its lists are sorted.
    """
    length = len(lines[0].split()) if lines else 0
    if length < 3:
        return False
    if content is not None:
        lists = content.starts, content.accepts
        lengths = {len(line.split()) for line in lines[2:] if line.strip()}
        on_arcs = {node for arc in content.arcs for node in arc[:2]}
        if length > 4 and all(nodes == sorted(nodes) for nodes in lists):
            return False
        if (lengths and length not in lengths) or all(on_arcs.issuperset(nodes) for nodes in lists):
            return False
    try:
        parse_openfst(lines)
    except ValueError:
        return False
    return True


def _count(named: dict[int, int], stated: re.Match | None = None, last_line: int = 0) -> int:
    """The number of nodes; ValueError where more than MAX_UNNAMED of them are not named."""
    highest = max(named, default=-1)
    line = named.get(highest, last_line)
    if stated:
        count = int(stated[1])
        if count <= highest:
            raise ValueError(
                f"line {last_line}: the file names node {highest}, so it has at least {highest + 1} nodes, not {count}."
            )
        if count > highest + 1:
            highest, line = count - 1, last_line
    if highest + 1 - len(named) > MAX_UNNAMED:
        raise ValueError(
            f"line {line}: node {highest} is too high for a file that names {len(named)} nodes: number the nodes "
            "0, 1, … without gaps."
        )
    return highest + 1


def _is_integer(word: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", word) is not None


def _shown(words: Sequence[str]) -> str:
    text = " ".join(words)
    return repr(text if len(text) <= 60 else text[:57] + "...")
