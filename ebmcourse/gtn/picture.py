"""Pictures of graphs, as SVG or PNG, laid out by `layout` and drawn by matplotlib.

A start node has a thick rim and a small arrow before it, an accept node a double rim. Arcs between the same
two nodes share one line, with their labels on it, one below the other.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np

from .layout import layered
from .text import Symbols, arc_label
from .topology import ACCEPT, START, Topology

# All lengths in points (1/72 inch).
RADIUS, FONT, LINE = 13.0, 9.0, 11.5
MARGIN, GAP, ROW = 10.0, 36.0, 46.0
LABELS_ON_A_LINE, MOST_LINES = 5, 1000
INK, PAPER, STRONG = np.array([0.25, 0.25, 0.28]), np.array([1.0, 1.0, 1.0]), np.array([0.75, 0.12, 0.10])


def to_svg(topology: Topology, weights: Sequence[float]) -> str:
    """The picture that a notebook shows."""
    return rendered(topology, weights, "svg").decode()


def rendered(
    topology: Topology,
    weights: Sequence[float],
    kind: str,
    isymbols: Symbols = {},  # noqa: B006 (never written to)
    osymbols: Symbols = {},  # noqa: B006
    emphasis: Sequence[float] | None = None,
    node_names: Mapping[int, str] | None = None,
) -> bytes:
    """A file of `kind` "svg", "png" or "pdf"; the other arguments are those of `draw`."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Polygon

    lines = _lines(topology, weights, isymbols, osymbols, emphasis)
    position, routes = _placed(topology, lines)
    labels = _label_places(position, lines, routes)
    flags = topology.nodes

    # All that is drawn must be inside the picture.
    corners = [position - RADIUS - 2, position + RADIUS + 2, position[flags & START > 0] - [RADIUS + 16, 0]]
    corners += list(routes.values()) + [np.array([[x - w, y - h], [x + w, y + h]]) for x, y, w, h in labels.values()]
    low, high = (f(np.concatenate(corners), axis=0) for f in (np.min, np.max)) if len(flags) else (np.zeros(2),) * 2
    size = high - low + 2 * MARGIN
    # A fixed salt and no date: the same graph gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "gtn", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=tuple(size / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(low[0] - MARGIN, high[0] + MARGIN)
        axes.set_ylim(low[1] - MARGIN, high[1] + MARGIN)
        for pair, (texts, strength) in lines.items():
            route = routes[pair]
            share = 0.0 if strength is None else float(np.clip(strength, 0, 1))
            colour = INK if strength is None else (INK + 2 * PAPER) / 3 * (1 - share) + STRONG * share
            width = 1.0 + 2.0 * share
            axes.plot(*route[:-1].T, color=colour, linewidth=width, zorder=1 + share, solid_capstyle="butt")
            axes.add_patch(Polygon(_arrow_head(route, width), color=colour, zorder=1 + share, linewidth=0))
            x, y = labels[pair][:2]
            axes.text(
                x, y, "\n".join(texts), fontsize=FONT, ha="center", va="center", zorder=4, linespacing=1.1,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip
        for u, (x, y) in enumerate(position):
            rim = 2.2 if flags[u] & START else 1.0
            axes.add_patch(Circle((x, y), RADIUS, facecolor="white", edgecolor=INK, linewidth=rim, zorder=5))
            if flags[u] & ACCEPT:
                axes.add_patch(Circle((x, y), RADIUS - 3, facecolor="none", edgecolor=INK, linewidth=1.0, zorder=5))
            if flags[u] & START:
                stub = np.array([[x - RADIUS - 15, y], [x - RADIUS - 1.5, y]])
                axes.plot(*stub.T, color=INK, linewidth=1.0, zorder=1)
                axes.add_patch(Polygon(_arrow_head(stub, 1.0), color=INK, zorder=5, linewidth=0))
            name = str(u) if node_names is None else node_names.get(u, "")
            axes.text(x, y, name, fontsize=FONT, ha="center", va="center_baseline", zorder=6)
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[kind]
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=144, facecolor="white", metadata=metadata)
        return picture.getvalue()


Lines = dict[tuple[int, int], tuple[list[str], float | None]]


def _lines(
    topology: Topology,
    weights: Sequence[float],
    isymbols: Symbols,
    osymbols: Symbols,
    emphasis: Sequence[float] | None,
) -> Lines:
    """For each pair of joined nodes, the labels of the arcs between them and the largest emphasis."""
    arcs = topology.arcs.tolist()
    if emphasis is not None and len(emphasis) != len(arcs):
        raise ValueError(f"emphasis has {len(emphasis)} numbers for {len(arcs)} arcs: give one per arc.")
    texts: dict[tuple[int, int], list[str]] = {}
    strength: dict[tuple[int, int], float] = {}
    for a, ((u, v, ilabel, olabel), weight) in enumerate(zip(arcs, weights, strict=True)):
        texts.setdefault((u, v), []).append(arc_label(ilabel, olabel, weight, isymbols, osymbols))
        if emphasis is not None:
            strength[u, v] = max(strength.get((u, v), 0.0), float(emphasis[a]))
    if len(texts) > MOST_LINES:
        raise ValueError(f"The graph has {len(texts)} lines, too many to see: draw a graph of at most {MOST_LINES}.")
    most = LABELS_ON_A_LINE
    return {
        pair: ([*labels[: most - 1], f"… {len(labels) - most + 1} more"] if len(labels) > most else labels,
               strength.get(pair))
        for pair, labels in texts.items()
    }  # fmt: skip


def _box(texts: Sequence[str]) -> tuple[float, float]:
    """Half width and half height of a label, from the mean width of a character."""
    return 0.30 * FONT * max(map(len, texts)) + 2, LINE / 2 * len(texts) + 1


def _placed(topology: Topology, lines: Lines) -> tuple[np.ndarray, dict[tuple[int, int], np.ndarray]]:
    """The middle of each node (N, 2), and the points of each line."""
    flags = topology.nodes
    pairs = [(u, v) for u, v in lines if u != v]
    layer, height, bends = layered(flags.size, pairs, np.flatnonzero(flags & START).tolist())
    # The widest label between two columns sets their distance, the highest label that of the rows.
    room = [2 * RADIUS + GAP] * (max(layer, default=0) + 1)
    row = ROW
    for (u, v), (texts, _) in lines.items():
        w, h = _box(texts)
        row = max(row, 2 * h + (2.6 * RADIUS + 10 if u == v else 8) + (2 * RADIUS if u == v else 0))
        between = min(layer[u], layer[v])
        if u == v:  # a loop's label may reach half into the columns on both sides
            for column in (layer[u] - 1, layer[u]):
                if column >= 0:
                    room[column] = max(room[column], w + RADIUS + GAP / 2)
        else:
            room[between] = max(room[between], 2 * w + 2 * RADIUS + GAP)
    x = np.concatenate([[0.0], np.cumsum(room)])
    position = np.array([(x[i], row * y) for i, y in zip(layer, height, strict=True)]).reshape(-1, 2)
    routes = {}
    for u, v in lines:
        if u == v:
            routes[u, v] = _loop(position[u])
        else:
            middle = [(x[i], row * y) for i, y in bends[u, v]]
            if (v, u) in lines and not middle:  # arcs in both directions: two curves instead of one line
                across = (position[v] - position[u])[::-1] * [-1, 1]
                middle = [tuple((position[u] + position[v]) / 2 + 0.14 * across)]
            routes[u, v] = _curve(np.array([position[u], *middle, position[v]]))
    return position, routes


def _curve(points: np.ndarray) -> np.ndarray:
    """A smooth line through `points` (Catmull-Rom), cut at the rims of the nodes at both ends."""
    if len(points) > 2:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
        t = np.linspace(0, 1, 100, endpoint=False)[:, None]
        pieces = []
        for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
            pieces.append(
                b + t * (c - a) / 2 + t**2 * (a - 2.5 * b + 2 * c - d / 2) + t**3 * ((d - a) / 2 + 1.5 * (b - c))
            )
        line = np.concatenate([*pieces, points[-1:]])
    else:
        line = points[0] + np.linspace(0, 1, 100)[:, None] * (points[1] - points[0])
    outside = np.all([np.hypot(*(line - end).T) > RADIUS + 1 for end in (points[0], points[-1])], axis=0)
    return line[outside]


def _loop(middle: np.ndarray) -> np.ndarray:
    """A loop above a node, from its upper left to its upper right."""
    angle = np.radians(np.linspace(225, -45, 100))
    line = middle + [0, 1.55 * RADIUS] + np.stack([0.62 * np.cos(angle), 0.85 * np.sin(angle)], 1) * RADIUS
    return line[np.hypot(*(line - middle).T) > RADIUS + 1]


def _arrow_head(route: np.ndarray, width: float) -> np.ndarray:
    """A triangle whose tip is the end of `route`."""
    length = 5.0 + 1.5 * width
    tip = route[-1]
    distance = np.hypot(*(route - tip).T)
    tail = route[np.flatnonzero(distance >= min(length, distance.max()))[-1]]
    along = (tip - tail) / max(np.hypot(*(tip - tail)), 1e-9)
    across = along[::-1] * [-1, 1]
    return np.array([tip, tip - length * along + 0.4 * length * across, tip - length * along - 0.4 * length * across])


def _label_places(position: np.ndarray, lines: Lines, routes: dict) -> dict:
    """(x, y, half width, half height) of each label: on its line, where it covers as little as possible."""
    nodes, count = len(position), len(lines)
    boxes = np.zeros((nodes + count, 4))  # of nodes, then of labels placed so far
    boxes[:nodes] = np.column_stack([position, np.full((nodes, 2), RADIUS)])
    points = np.concatenate([*routes.values(), np.empty((0, 2))])
    owner = np.repeat(np.arange(count), [len(route) for route in routes.values()])
    result = {}
    for i, (pair, (texts, _)) in enumerate(lines.items()):
        size = np.array(_box(texts))
        route = routes[pair]
        if pair[0] == pair[1]:
            places = route[[len(route) // 2]] + [0, size[1] + 1]
        else:
            places = route[[int(t * (len(route) - 1)) for t in (0.45, 0.36, 0.55, 0.28, 0.65, 0.2, 0.75)]]
        near = ((points > places.min(0) - size) & (points < places.max(0) + size)).all(1) & (owner != i)
        hidden = (np.abs(points[near] - places[:, None]) < size).all(2).sum(1)
        placed = boxes[: nodes + i]
        overlap = np.maximum(0, size + placed[:, 2:] - np.abs(placed[:, :2] - places[:, None])).prod(2).sum(1)
        best = int(np.argmin(overlap + 4 * hidden))
        boxes[nodes + i] = *places[best], *size
        result[pair] = tuple(boxes[nodes + i])
    return result
