"""Graphs in files: gtn's text and binary formats, pictures, and Graphviz's dot.

Text: a line of start nodes, a line of accept nodes, then one line `source destination ilabel [olabel
[weight]]` per arc. Binary: int32 counts (nodes, arcs, starts, accepts), start nodes, accept nodes, four int32
per arc, then the weights, in the machine's byte order. Weights are float32 where that loses nothing, as gtn
writes them, else float64; the size of the file tells which.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from .graph import Graph
from .parse import MAX_UNNAMED, looks_like_openfst, parse_gtn, parse_openfst
from .picture import rendered
from .text import Symbols, to_dot, to_text
from .topology import ACCEPT, EPSILON, START, Topology


def savetxt(file_name: str | os.PathLike, graph: Graph) -> None:
    """Write `graph` in gtn's text format, so that `loadtxt` reads it back equal.

    gtn's format does not tell how many nodes there are: nodes behind the last one that a line names need a last
    line `# nodes: N`, and files with it are refused by gtn.

    raises ValueError: a weight is NaN, or more than 1,000,000 nodes are on no arc and neither start nor accept
    """
    topology = _storable(graph)
    text = to_text(topology, graph.weights_to_list())
    named = max(topology.arcs[:, :2].max(initial=-1), np.flatnonzero(topology.nodes).max(initial=-1)) + 1
    if named < topology.nodes.size or topology.arcs.size == 0:
        text += f"# nodes: {topology.nodes.size}\n"
    Path(file_name).write_text(text, encoding="ascii", newline="\n")


def loadtxt(file_name: str | os.PathLike, format: Literal["gtn", "openfst"] | None = None) -> Graph:
    """Read a graph from text in UTF-8, with or without a byte order mark.

    format: "gtn" for gtn's text format, "openfst" for that of OpenFst, whose costs become weights by a change of
        sign (see `parse_openfst`). None: gtn's, but a file that looks like OpenFst's is refused
    raises ValueError: no such file, or one that is not in the format; the message gives the line's number. A
        file may have 1,000,000 nodes that no line names
    """
    if format not in (None, "gtn", "openfst"):
        raise ValueError(f'format must be "gtn" or "openfst", not {format!r}.')
    path = _existing(file_name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(
            f"{path.name} is not text in UTF-8: save it as UTF-8, or use load() for a binary file."
        ) from None
    lines = text.removesuffix("\n").split("\n") if text else []
    content = None
    try:
        content = (parse_openfst if format == "openfst" else parse_gtn)(lines)
    except ValueError as error:
        hint = ""
        if format is None and looks_like_openfst(lines, None):
            hint = ' (to read the file as OpenFst text, give loadtxt the argument format="openfst")'
        raise ValueError(f"{path.name}, {str(error).removesuffix('.')}{hint}.") from None
    if format is None and looks_like_openfst(lines, content):
        raise ValueError(
            f"{path.name} has arcs where gtn has lists of nodes, as in OpenFst text: give loadtxt the argument "
            'format="openfst" (or format="gtn", to read it all the same).'
        )
    arcs, weights = np.array(content.arcs, np.int32).reshape(-1, 4), np.array(content.weights, np.float64)
    starts, accepts = np.array(content.starts, np.int64), np.array(content.accepts, np.int64)
    return _built(content.num_nodes, starts, accepts, arcs, weights)


def save(file_name: str | os.PathLike, graph: Graph) -> None:
    """Write `graph` in the binary format, so that `load` reads it back equal. Errors as for `savetxt`."""
    topology = _storable(graph)
    starts, accepts = (np.flatnonzero(topology.nodes & flag) for flag in (START, ACCEPT))
    weights = graph.weights_to_numpy(np.float64)
    with np.errstate(over="ignore"):  # too large for float32 means not exact
        single = weights.astype(np.float32)
    counts = [topology.nodes.size, topology.arcs.shape[0], starts.size, accepts.size]
    whole = np.concatenate([counts, starts, accepts, topology.arcs.ravel()]).astype(np.int32)
    exact = np.array_equal(single, weights)
    Path(file_name).write_bytes(whole.tobytes() + (single if exact else weights).tobytes())


def load(file_name: str | os.PathLike) -> Graph:
    """Read a graph in the binary format, gtn's own files included.

    raises ValueError: no such file, or one that neither `save` nor gtn writes
    """
    path = _existing(file_name)
    data = path.read_bytes()
    broken = ValueError(f"{path.name} is not a graph written by save(): write it again, or use loadtxt().")
    if len(data) < 16:
        raise broken
    nodes, arcs, starts, accepts = np.frombuffer(data, np.int32, 4).tolist()
    size = 4 * (4 + starts + accepts + 4 * arcs)
    if min(nodes, arcs, starts, accepts) < 0 or len(data) not in (size + 4 * arcs, size + 8 * arcs):
        raise broken
    whole = np.frombuffer(data, np.int32, size // 4)
    weights = np.frombuffer(data, np.float32 if len(data) == size + 4 * arcs else np.float64, offset=size)
    flagged, rows = whole[4 : 4 + starts + accepts], whole[4 + starts + accepts :].reshape(-1, 4)
    named = np.unique(np.concatenate([flagged, rows[:, :2].ravel()]))
    if named.size and not 0 <= named[0] <= named[-1] < nodes:
        raise broken
    if rows[:, 2:].min(initial=0) < EPSILON or np.isnan(weights).any():
        raise broken
    if nodes - named.size > MAX_UNNAMED:
        raise ValueError(f"{path.name} has {nodes} nodes, but names only {named.size}: the file is damaged.")
    return _built(nodes, flagged[:starts], flagged[starts:], rows.copy(), weights.astype(np.float64))


def _existing(file_name: str | os.PathLike) -> Path:
    path = Path(file_name)
    if not path.is_file():
        raise ValueError(f"There is no graph file {str(file_name)!r}: check the name.")
    return path


def _built(count: int, starts: np.ndarray, accepts: np.ndarray, arcs: np.ndarray, weights: np.ndarray) -> Graph:
    nodes = np.zeros(count, np.uint8)
    nodes[starts] |= START
    nodes[accepts] |= ACCEPT
    return Graph._of(Topology(nodes, arcs), weights, calc_grad=True)


def _storable(graph: Graph) -> Topology:
    """The topology of a graph that can be read back; ValueError for others."""
    topology = graph._finish()
    named = topology.nodes != 0
    named[topology.arcs[:, :2]] = True
    if np.count_nonzero(~named) > MAX_UNNAMED:
        raise ValueError(
            f"The graph has {named.size} nodes, of which {np.count_nonzero(~named)} are on no arc and neither start "
            f"nor accept nodes: a file holds at most {MAX_UNNAMED} of these."
        )
    if np.isnan(graph.weights_to_numpy(np.float64)).any():
        raise ValueError("A weight of the graph is NaN: look for the NaN in what made the weights.")
    return topology


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
