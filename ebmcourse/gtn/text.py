"""Graphs as text: gtn's own format, Graphviz's dot, and the label of an arc in a picture."""

from collections.abc import Mapping, Sequence

import numpy as np

from .topology import ACCEPT, EPSILON, START, Topology

Symbols = Mapping[int, str]


def to_text(topology: Topology, weights: Sequence[float], limit: int | None = None) -> str:
    """gtn's text format; with `limit`, only the first `limit` entries of a list of more than twice as many."""

    def joined(entries: list[str], glue: str) -> str:
        cut = limit is not None and len(entries) > 2 * limit
        return glue.join([*entries[:limit], "..."] if cut else entries)

    flagged = [[str(u) for u in np.flatnonzero(topology.nodes & flag)] for flag in (START, ACCEPT)]
    arcs = [
        f"{' '.join(map(str, arc))} {repr(weight).removesuffix('.0')}"
        for arc, weight in zip(topology.arcs.tolist(), weights, strict=True)
    ]
    lines = [joined(nodes, " ") for nodes in flagged] + ([joined(arcs, "\n")] if arcs else [])
    return "\n".join(lines) + "\n"


def to_dot(topology: Topology, weights: Sequence[float], isymbols: Symbols, osymbols: Symbols) -> str:
    """Graphviz's dot language, with the labels of `arc_label`."""
    lines = ["digraph {", "  rankdir = LR;"]
    for u, flag in enumerate(topology.nodes.tolist()):
        shape = "doublecircle" if flag & ACCEPT else "circle"
        lines.append(f"  {u} [shape = {shape}, penwidth = {2 if flag & START else 1}];")
    for arc, weight in zip(topology.arcs.tolist(), weights, strict=True):
        label = arc_label(arc[2], arc[3], weight, isymbols, osymbols).replace('"', '\\"')
        lines.append(f'  {arc[0]} -> {arc[1]} [label = "{label}"];')
    return "\n".join([*lines, "}", ""])


def arc_label(ilabel: int, olabel: int, weight: float, isymbols: Symbols, osymbols: Symbols) -> str:
    """`input:output/weight`, without the output where it equals the input, and without a weight of 0.

    The symbols give the text for a label. With `osymbols`, the output is always shown.
    """

    def symbol(label: int, symbols: Symbols) -> str:
        return "ε" if label == EPSILON else symbols.get(label, str(label))

    text = symbol(ilabel, isymbols)
    if ilabel != olabel or osymbols:
        text += ":" + symbol(olabel, osymbols or isymbols)
    return text + (f"/{weight:.3g}" if weight else "")
