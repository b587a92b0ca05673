"""Graphs in files: gtn's text and binary formats, pictures, and Graphviz's dot.

Text: a line of start nodes, a line of accept nodes, then one line `source destination ilabel [olabel
[weight]]` per arc. Binary: int32 counts (nodes, arcs, starts, accepts), start nodes, accept nodes, four int32
per arc, then the weights, in the machine's byte order. Weights are float32 where that loses nothing, as gtn
writes them, else float64; the size of the file tells which.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .graph import Graph
from .picture import rendered
from .text import Symbols, to_dot, to_text
from .topology import ACCEPT, START


def savetxt(file_name: str | os.PathLike, graph: Graph) -> None:
    """Write `graph` in the text format."""
    Path(file_name).write_text(to_text(graph._finish(), graph.weights_to_list()), encoding="ascii")


def loadtxt(file_name: str | os.PathLike) -> Graph:
    """Read a graph in the text format. ValueError, with the line's number, on a file that is not in it."""
    path = _existing(file_name)
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")

    def numbers(i: int, kind: str) -> list[int]:
        if len(lines) <= i or not lines[i].split():
            raise ValueError(f"{path.name}, line {i + 1}: give the {kind} nodes, separated by spaces.")
        try:
            found = [int(word) for word in lines[i].split()]
        except ValueError:
            raise ValueError(f"{path.name}, line {i + 1}: {kind} nodes must be integers, not {lines[i]!r}.") from None
        if len(set(found)) < len(found) or min(found) < 0:
            raise ValueError(f"{path.name}, line {i + 1}: {kind} nodes must be ≥ 0 and stand once each.")
        return found

    starts, accepts = numbers(0, "start"), numbers(1, "accept")
    arcs = []
    for i, line in enumerate(lines[2:], 3):
        words = line.split()
        try:
            source, destination, *labels = (int(word) for word in words[:4])
            weight = float(words[4]) if len(words) == 5 else 0.0
            if not labels or len(words) > 5 or min(source, destination) < 0:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{path.name}, line {i}: an arc is 'source destination ilabel [olabel [weight]]', not {line!r}."
            ) from None
        arcs.append((source, destination, labels[0], labels[-1], weight))
    count = 1 + max(*starts, *accepts, *(max(arc[:2]) for arc in arcs))
    return _built(count, starts, accepts, arcs)


def save(file_name: str | os.PathLike, graph: Graph) -> None:
    """Write `graph` in the binary format."""
    topology = graph._finish()
    starts, accepts = (np.flatnonzero(topology.nodes & flag) for flag in (START, ACCEPT))
    weights = graph.weights_to_numpy(np.float64)
    with np.errstate(over="ignore"):  # too large for float32 means not exact
        single = weights.astype(np.float32)
    counts = [topology.nodes.size, topology.arcs.shape[0], starts.size, accepts.size]
    whole = np.concatenate([counts, starts, accepts, topology.arcs.ravel()]).astype(np.int32)
    exact = np.array_equal(single, weights)
    Path(file_name).write_bytes(whole.tobytes() + (single if exact else weights).tobytes())


def load(file_name: str | os.PathLike) -> Graph:
    """Read a graph in the binary format, gtn's own files included. ValueError on a file that is not in it."""
    path = _existing(file_name)
    data = path.read_bytes()
    broken = ValueError(f"{path.name} is not a graph written by save(): write it again, or use loadtxt().")
    if len(data) < 16:
        raise broken
    nodes, arcs, starts, accepts = np.frombuffer(data, np.int32, 4).tolist()
    if min(nodes, arcs, starts, accepts) < 0 or max(starts, accepts) > nodes:
        raise broken
    size = 4 * (4 + starts + accepts + 4 * arcs)
    if len(data) not in (size + 4 * arcs, size + 8 * arcs):
        raise broken
    whole = np.frombuffer(data, np.int32, size // 4)
    weights = np.frombuffer(data, np.float32 if len(data) == size + 4 * arcs else np.float64, offset=size)
    rows = whole[4 + starts + accepts :].reshape(-1, 4).tolist()
    flags = whole[4 : 4 + starts].tolist(), whole[4 + starts : 4 + starts + accepts].tolist()
    return _built(nodes, *flags, [(*row, w) for row, w in zip(rows, weights.tolist(), strict=True)])


def _existing(file_name: str | os.PathLike) -> Path:
    path = Path(file_name)
    if not path.is_file():
        raise ValueError(f"There is no graph file {str(file_name)!r}: check the name.")
    return path


def _built(count: int, starts: list[int], accepts: list[int], arcs: list[tuple]) -> Graph:
    g = Graph()
    start, accept = set(starts), set(accepts)
    for u in range(count):
        g.add_node(u in start, u in accept)
    for arc in arcs:
        g.add_arc(*arc)
    return g


def draw(
    graph: Graph,
    file_name: str | os.PathLike,
    isymbols: Symbols = {},  # noqa: B006 (never written to)
    osymbols: Symbols = {},  # noqa: B006
    emphasis: Sequence[float] | None = None,
    node_names: Mapping[int, str] | None = None,
) -> None:
    """Write a picture of `graph` as .svg, .png or .pdf, or in Graphviz's language (.dot).

    Arcs are labelled `input:output/weight`, with the text that `isymbols` and `osymbols` give for a number.
    Give `emphasis` (A,), numbers from 0 to 1, to draw some arcs stronger: the gradient of a Viterbi score
    shows the best path, that of a forward score the share of each arc.
    """
    kind = os.path.splitext(file_name)[1][1:].lower()
    if kind == "dot":
        write_dot(graph, file_name, isymbols, osymbols)
        return
    if kind not in ("svg", "png", "pdf"):
        raise ValueError(f"Cannot draw to {os.fspath(file_name)!r}: end the name in .svg, .png, .pdf or .dot.")
    topology, weights = graph._finish(), graph.weights_to_list()
    Path(file_name).write_bytes(rendered(topology, weights, kind, isymbols, osymbols, emphasis, node_names))


def write_dot(g: Graph, file_name: str | os.PathLike, isymbols: Symbols = {}, osymbols: Symbols = {}) -> None:  # noqa: B006 (never written to)
    """Write `g` in Graphviz's dot language; labels as in `draw`."""
    Path(file_name).write_text(to_dot(g._finish(), g.weights_to_list(), isymbols, osymbols), encoding="utf-8")
