"""Draw the pictures of docs/engine.md with the engine's own `draw`: `python docs/make_engine_pictures.py`."""

from pathlib import Path

import numpy as np

from ebmcourse import gtn

FOLDER = Path(__file__).parent / "images" / "engine"
LETTERS = {0: "∅", 1: "a", 2: "c", 3: "t", 4: "r"}
WORDS = {0: "at", 1: "cat", 2: "car"}
# What a network might say of three frames without blanks, and of five with them: a row per frame, a column
# for each of the blank, a, c, t and r.
SHORT = [[0.0, 0.2, 0.6, 0.1, 0.1], [0.0, 0.7, 0.1, 0.1, 0.1], [0.0, 0.1, 0.1, 0.3, 0.5]]
LONG = [
    [0.3, 0.1, 0.5, 0.1],
    [0.2, 0.4, 0.3, 0.1],
    [0.3, 0.5, 0.1, 0.1],
    [0.3, 0.1, 0.1, 0.5],
    [0.6, 0.1, 0.1, 0.2],
]


def small() -> gtn.Graph:
    """Three paths: a then b, a then c, and d alone."""
    g = gtn.Graph()
    g.add_node(start=True)
    g.add_node()
    g.add_node(accept=True)
    g.add_arc(0, 1, 0, 0, 1.0)
    g.add_arc(1, 2, 1, 1, 0.5)
    g.add_arc(1, 2, 2, 2, -0.5)
    g.add_arc(0, 2, 3, 3, 2.0)
    return g


def emissions(probabilities: list[list[float]]) -> gtn.Graph:
    """A step per row, an arc per letter of probability above 0, weighted by its logarithm."""
    g = gtn.Graph()
    g.add_node(start=True)
    for t, row in enumerate(probabilities):
        g.add_node(accept=t == len(probabilities) - 1)
        for label, p in enumerate(row):
            if p > 0:
                g.add_arc(t, t + 1, label, label, float(np.log(p)))
    return g


def lexicon() -> gtn.Graph:
    """Reads letters and writes the word that they spell: at, cat and car as a tree."""
    g = gtn.Graph(False)
    for u in range(7):
        g.add_node(start=u == 0, accept=u in (2, 5, 6))
    a, c, t, r = 1, 2, 3, 4
    g.add_arc(0, 1, a, gtn.epsilon)
    g.add_arc(1, 2, t, 0)
    g.add_arc(0, 3, c, gtn.epsilon)
    g.add_arc(3, 4, a, gtn.epsilon)
    g.add_arc(4, 5, t, 1)
    g.add_arc(4, 6, r, 2)
    return g


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    gtn.draw(small(), folder / "graph.png", {0: "a", 1: "b", 2: "c", 3: "d"})
    gtn.draw(emissions(SHORT), folder / "emissions.png", LETTERS)
    gtn.draw(lexicon(), folder / "lexicon.png", LETTERS, WORDS)
    gtn.draw(gtn.compose(emissions(SHORT), lexicon()), folder / "composed.png", LETTERS, WORDS)
    cat = gtn.ctc_graph([2, 1, 3])
    gtn.draw(cat, folder / "ctc.png", LETTERS)

    alignments = gtn.compose(emissions(LONG), cat)
    for name, score in ("forward", gtn.forward_score), ("viterbi", gtn.viterbi_score):
        alignments.zero_grad()
        gtn.backward(score(alignments), retain_graph=True)
        emphasis = alignments.grad().weights_to_list()
        gtn.draw(alignments, folder / f"{name}.png", LETTERS, emphasis=emphasis)


if __name__ == "__main__":
    main()
