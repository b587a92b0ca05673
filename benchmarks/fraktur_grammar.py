"""What composition is worth on real data: the lines of `fraktur_lines`, read with and without a grammar of German.

The grammar is a character n-gram with back-off, as a weighted automaton. A line is the best path of

    emissions ∘ tokens ∘ grammar

where the emissions are the network's log-probabilities, and the tokens turn labels of windows into characters. The text
for the n-gram is the quotations and jokes of Debian's package fortunes-de. The weights of the grammar are chosen on the
development lines of `fraktur_lines`. `python -m benchmarks.fraktur_grammar` writes build/fraktur_grammar.json.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
import unicodedata
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import fraktur_lines, ngram
from benchmarks.drawn_lines import GRAPHEMES
from benchmarks.fraktur_lines import BLANK, LineNet, RealLine
from benchmarks.ngram import Ngram
from benchmarks.words import edit_distance, error_rate
from benchmarks.words_reader import collapse
from ebmcourse import gtn

TEXTS = Path("/usr/share/games/fortunes/de")
MISSING = "there is no German text in {}: install Debian's package fortunes-de, or name a folder of texts with --texts"
NO_PROSE = {"asciiart", "namen", "vornamen", "channel-debian.fortunes"}

SAME = {"aͤ": "ä", "oͤ": "ö", "uͤ": "ü", "⸗": "-", "”": "„", "«": "„", "»": "„"}
"""Characters that the grammar does not distinguish: which one was printed, only the image can tell."""
SYMBOLS = [sign for sign in GRAPHEMES if sign not in SAME]
INDEX = {sign: SYMBOLS.index(SAME.get(sign, sign)) for sign in GRAPHEMES}
"""The symbol of the grammar for each character of the reader."""
END = len(SYMBOLS)
"""The symbol of the grammar for the end of a line."""
LAST_LABEL = BLANK + 1
"""The label of a window that is added behind each line; it stands for the end."""

ORDER, LEAST = 5, 3
SCALES, BONUSES = (0.3, 0.5, 0.7), (0.0, 1.0, 2.0, 3.0)
FLOOR, LEAST_POSTERIOR = -9.0, 3e-3
"""Labels are left out where the logarithm of their probability is below FLOOR, and then where their posterior under the
bigrams or the trigrams is below LEAST_POSTERIOR."""


def quotations(folder: Path) -> str:
    """All texts of a folder in the format of `fortune`, without the lines that name their authors.

    raises FileNotFoundError: there are none
    """
    files = sorted(f for f in folder.glob("*") if f.suffix not in (".dat", ".u8") and f.name not in NO_PROSE)
    if not files:
        raise FileNotFoundError(MISSING.format(folder))
    parts = (part for file in files for part in file.read_text("utf-8", errors="ignore").split("\n%\n"))
    return " ".join(re.sub(r"\n\s+-- .*", "", part, flags=re.DOTALL) for part in parts)


_SPELLED = {
    **{'"': "„", "“": "„", "‚": "'", "‘": "'", "’": "'", "`": "'", "–": "—", "--": "—", "[": "(", "]": ")", "I": "J"},
    **SAME,
}
_ROUND_S = re.compile(
    r"\b([Aa]u|[Dd]e|[Bb]i|[Dd]a)ſ(?=[bdfghjklmnrvwz])"  # ausführen, desgleichen, bisher, dasjenige
    r"|\b([Aa]u)ſ(?=[aäeiptuüſ])"
    r"|(ung|heit|keit|ſchaft|ion|tät|ling)ſ(?=[a-zäöü])"
    r"|(?<=[a-zäöüß])()ſ(?=(?:chen|halb|gleichen|wegen)\b)"
)


def spelled(text: str) -> str:
    """The text in the characters of the grammar, with a long s except at the end of words and of parts of words."""
    text = unicodedata.normalize("NFC", text)
    for old, new in _SPELLED.items():
        text = text.replace(old, new)
    plain = (sign if sign in INDEX else unicodedata.normalize("NFD", sign)[0] for sign in text)
    text = " ".join("".join(sign if sign in INDEX else " " for sign in plain).split())
    text = re.sub(r"s(?=[^\W\d_])", "ſ", text)
    return _ROUND_S.sub(lambda match: "".join(part or "" for part in match.groups()) + "s", text)


_BREAK = re.compile("(?<=[a-zäöüßſ]{2})(?=(?:ch|ck|ſch|ph|th|ſt|[b-df-hj-np-tv-xzſ])[aeiouyäöü][a-zäöüßſ])")


def broken(text: str, rng: random.Random) -> list[str]:
    """The text as lines of 30 to 75 characters, as real ones have; some words are divided."""
    found, line, width = [], "", rng.randint(30, 75)
    for word in text.split():
        while len(line) + 1 + len(word) > width:
            cuts = [match.start() for match in _BREAK.finditer(word) if len(line) + match.start() + 2 <= width]
            cut = cuts[-1] if cuts and rng.random() < 0.7 else 0
            found.append(f"{line} {word[:cut]}-".strip() if cut else line or word[:width])
            word = word[cut:] if cut or line else word[width:]
            line, width = "", rng.randint(30, 75)
        line = f"{line} {word}".strip()
    return [*found, line]


def grammar_text(folder: Path, seed: int = 0) -> NDArray[np.int64]:
    """The symbols of the text, with END before and after each line."""
    found = [END]
    for line in broken(spelled(quotations(folder)), random.Random(seed)):
        found += [*(INDEX[sign] for sign in line), END]
    return np.array(found)


def tokens(bonus: float) -> gtn.Graph:
    """The transducer from labels of windows to symbols of the grammar.

    Runs of a label are one character, and blanks are none; each character adds `bonus` to the weight. Without a bonus,
    a grammar prefers readings with few characters. Node 0 follows a blank, node c + 1 the character c.
    """
    graph = gtn.Graph(False)
    for node in range(BLANK + 2):
        graph.add_node(start=node == 0, accept=node == BLANK + 1)
    for node in range(BLANK + 1):
        graph.add_arc(node, 0, BLANK, gtn.epsilon)
        if node:
            graph.add_arc(node, node, node - 1, gtn.epsilon)
        for label, sign in enumerate(GRAPHEMES):
            if label + 1 != node:
                graph.add_arc(node, label + 1, label, INDEX[sign], bonus)
        graph.add_arc(node, BLANK + 1, LAST_LABEL, END)
    return graph


def emission_graph(log_p: NDArray[np.float64], kept: NDArray[np.bool_]) -> gtn.Graph:
    """The labels `kept` of each window and one window with LAST_LABEL behind them.

    log_p, kept: (L, BLANK + 1)
    """
    graph, count = gtn.Graph(), len(log_p)
    for node in range(count + 2):
        graph.add_node(start=node == 0, accept=node == count + 1)
    for window, label in np.argwhere(kept).tolist():
        graph.add_arc(window, window + 1, label, weight=log_p[window, label])
    graph.add_arc(count, count + 1, LAST_LABEL)
    return graph


class Reading(NamedTuple):
    """The text of a line, the weight of its path, and the number of arcs that were composed for it."""

    text: str
    score: float
    arcs: int


class GrammarReader:
    """Reads lines by composition with a grammar.

    grammars: n-grams of rising order. All but the last only find the labels that are worth composing with the next one
    scale: the factor of log p of the grammar
    bonus: added for each character
    """

    def __init__(self, grammars: Sequence[Ngram], scale: float, bonus: float):
        self.tokens = tokens(bonus)
        *self.coarse, self.grammar = (grammar.graph(END, scale) for grammar in grammars)

    def plausible(self, log_p: NDArray[np.float64], least: float = LEAST_POSTERIOR) -> NDArray[np.bool_]:
        """The labels with a posterior of at least `least` under each of the coarse grammars, (L, BLANK + 1).

        The posterior of a label in a window is the gradient of the forward score. The likeliest labels are always kept.
        """
        kept = log_p > FLOOR
        for grammar in self.coarse:
            emissions = emission_graph(log_p, kept)
            gtn.backward(gtn.forward_score(gtn.compose(gtn.compose(emissions, self.tokens), grammar)))
            posterior = np.zeros(log_p.shape)
            posterior[kept] = emissions.grad().weights_to_numpy(np.float64)[:-1]
            kept = (posterior >= least) | (posterior == posterior.max(1, keepdims=True))
        return kept

    def read(self, log_p: NDArray[np.float64], kept: NDArray[np.bool_] | None = None) -> Reading:
        """The best path through the labels `kept`, or through those that are plausible."""
        emissions = emission_graph(log_p, self.plausible(log_p) if kept is None else kept)
        paths = gtn.compose(gtn.compose(emissions, self.tokens), self.grammar)
        best = gtn.viterbi_path(paths)
        labels = best.labels_to_list()[:-1]
        return Reading(collapse(labels, GRAPHEMES).strip(), sum(best.weights_to_list()), paths.num_arcs())


def beam_search(
    log_p: NDArray[np.float64], grammar: Ngram, scale: float, bonus: float, width: float = 12.0
) -> tuple[str, float]:
    """The best reading and its score, found window by window and without automata.

    Keeps every pair of a context and a label whose best score is at most `width` below that of the best pair.
    """
    alive: dict[tuple[int, int], tuple[float, str]] = {(grammar.context([END]), BLANK): (0.0, "")}
    for row in log_p:
        after: dict[tuple[int, int], tuple[float, str]] = {}
        labels = np.flatnonzero(row > row.max() - width).tolist()
        least = max(score for score, _ in alive.values()) - width
        for (context, before), (score, text) in alive.items():
            if score < least:
                continue
            for label in labels:
                key, new = (context, label), (score + row[label], text)
                if label not in (BLANK, before):
                    symbol = INDEX[GRAPHEMES[label]]
                    key = (int(grammar.following[context, symbol]), label)
                    new = (new[0] + scale * grammar.log_p[context, symbol] + bonus, text + GRAPHEMES[label])
                if key not in after or new[0] > after[key][0]:
                    after[key] = new
        alive = after
    score, text = max(
        (score + scale * grammar.log_p[context, END], text) for (context, _), (score, text) in alive.items()
    )
    return text.strip(), float(score)


@torch.no_grad()
def log_probabilities(net: LineNet, line: RealLine) -> NDArray[np.float64]:
    """The logarithms of the probabilities of all labels in each window of a line, (L, BLANK + 1)."""
    images, _ = fraktur_lines.padded([line.image])
    return (-net(images)[0]).double().log_softmax(1).numpy()


class Part(NamedTuple):
    """Lines and what the network says of each."""

    lines: list[RealLine]
    log_p: list[NDArray[np.float64]]

    def read(self, reader: GrammarReader) -> list[str]:
        return [reader.read(log_p).text for log_p in self.log_p]

    def errors(self, texts: list[str], plain: bool = False) -> list[int]:
        """The number of wrong characters of each line; `plain`: in modern spelling of signs."""
        spell = fraktur_lines.normalised if plain else str
        return [edit_distance(spell(text), spell(line.text)) for text, line in zip(texts, self.lines, strict=True)]

    def rate(self, texts: list[str], plain: bool = False) -> tuple[float, float, float]:
        spell = fraktur_lines.normalised if plain else str
        return error_rate(self.errors(texts, plain), [len(spell(line.text)) for line in self.lines])


def fewer(before: list[int], after: list[int], groups: list[str], seed: int = 0) -> tuple[float, float, float]:
    """The percentage of errors that is gone, and its 95 % interval by the paired bootstrap over groups of lines."""
    names = sorted(set(groups))
    member = np.array([[group == name for group in groups] for name in names])
    wrong = member @ np.array([before, after]).T
    drawn = wrong[np.random.default_rng(seed).integers(len(names), size=(2000, len(names)))].sum(1)
    low, high = np.quantile(100 * (1 - drawn[:, 1] / drawn[:, 0]), [0.025, 0.975])
    return float(100 * (1 - wrong[:, 1].sum() / wrong[:, 0].sum())), float(low), float(high)


class Measured(NamedTuple):
    """The results on the test lines.

    scale, bonus: those with the fewest errors on the development lines
    bonus_alone: the same without a grammar
    texts: by way of reading, the text of each test line
    agreeing: the number of development lines that beam search reads as the automaton does
    development: by way of reading, the percentage of wrong characters of the development lines
    seconds: processor time of reading a line with the grammar
    """

    test: Part
    scale: float
    bonus: float
    bonus_alone: float
    texts: dict[str, list[str]]
    agreeing: int
    development: dict[str, float]
    seconds: float


WAYS = ("without a grammar", "with a bonus for each character", "with the grammar")


def measure(net: LineNet, texts: Path, quick: bool = False) -> Measured:
    """Make the grammar, choose its weights on the development lines, and read the test lines.

    quick: few lines and weights, to see that everything runs
    raises FileNotFoundError: the folder `texts` has no texts
    """
    text = grammar_text(texts)
    grammars = [ngram.train(text, END + 1, order, least) for order, least in ((2, 1), (3, LEAST), (ORDER, LEAST))]
    real = fraktur_lines.real_lines()
    names = fraktur_lines.development(real)
    test, tuned = (
        Part(chosen, [log_probabilities(net, line) for line in chosen])
        for chosen in (
            [line for line in real if line.name not in names][: 3 if quick else None],
            [line for line in real if line.name in names][: 2 if quick else None],
        )
    )
    uniform = ngram.train(np.array([END]), END + 1, 1)

    def alone(bonus: float) -> GrammarReader:
        return GrammarReader([uniform], 0.0, bonus)

    def errors(reader: GrammarReader) -> int:
        return sum(tuned.errors(tuned.read(reader)))

    weights = [(0.5, 2.0)] if quick else list(product(SCALES, BONUSES))
    scale, bonus = min(weights, key=lambda pair: errors(GrammarReader(grammars, *pair)))
    bonus_alone = min(BONUSES, key=lambda bonus: errors(alone(bonus)))
    reader = GrammarReader(grammars, scale, bonus)
    peer = [beam_search(log_p, grammars[-1], scale, bonus)[0] for log_p in tuned.log_p]
    begin = time.process_time()
    with_grammar = test.read(reader)
    seconds = (time.process_time() - begin) / len(test.lines)
    found = {
        WAYS[0]: [fraktur_lines.read(net, line.image) for line in test.lines],
        WAYS[1]: test.read(alone(bonus_alone)),
        WAYS[2]: with_grammar,
    }
    own = tuned.read(reader)
    greedy = [fraktur_lines.read(net, line.image) for line in tuned.lines]
    development = {
        WAYS[0]: tuned.rate(greedy)[0],
        WAYS[1]: tuned.rate(tuned.read(alone(bonus_alone)))[0],
        WAYS[2]: tuned.rate(own)[0],
    }
    agreeing = sum(a == b for a, b in zip(own, peer, strict=True))
    return Measured(test, scale, bonus, bonus_alone, found, agreeing, development, seconds)


def rows(measured: Measured) -> list[dict]:
    """The results as rows of `python -m benchmarks`."""
    test, texts = measured.test, measured.texts
    found: list[dict] = []
    for way, plain in product(WAYS, (False, True)):
        rate, low, high = test.rate(texts[way], plain)
        case = f"wrong characters {way}, {'normalised' if plain else 'as transcribed'}"
        found.append({"case": case, "value": f"{rate:.1f} % ({low:.1f} to {high:.1f})"})
    before, after = test.errors(texts[WAYS[0]]), test.errors(texts[WAYS[2]])
    lines = [line.name for line in test.lines]
    for over, groups in (("lines", lines), ("books", [name.rpartition("_")[0] for name in lines])):
        share, low, high = fewer(before, after, groups)
        found.append(
            {"case": f"fewer errors, bootstrap over {over}", "value": f"{share:.1f} % ({low:.1f} to {high:.1f})"}
        )
    found.append({"case": "reading a line with the grammar, processor time", "ours_ms": 1e3 * measured.seconds})
    return found


def run(quick: bool = False) -> list[dict]:
    """Rows with the error rates with and without the grammar; none where the lines or the texts are missing."""
    if not fraktur_lines.DATA.is_dir():
        print(f"fraktur_grammar: there is no folder {fraktur_lines.DATA}, so nothing is measured", file=sys.stderr)
        return []
    try:
        quotations(TEXTS)
    except FileNotFoundError as error:
        print(f"fraktur_grammar: {error}", file=sys.stderr)
        return []
    net = fraktur_lines.measure(200, 40)[0] if quick else fraktur_lines.measure()[0]
    return rows(measure(net, TEXTS, quick))


def main() -> None:
    """Train or load the network, measure, print the results and write build/fraktur_grammar.json."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--texts", type=Path, default=TEXTS, metavar="FOLDER", help="texts for the n-gram")
    options.add_argument("--seed", type=int, default=0, help="seed of the network's training")
    options.add_argument("--network", type=Path, metavar="FILE", help="load the network from here, or save it here")
    given = options.parse_args()
    if not fraktur_lines.DATA.is_dir():
        options.error(f"there is no folder {fraktur_lines.DATA}: put the lines there, see docs/fraktur_lines.md")
    try:
        quotations(given.texts)
    except FileNotFoundError as error:
        options.error(str(error))
    if given.network and given.network.exists():
        net = LineNet().eval()
        net.load_state_dict(torch.load(given.network, weights_only=True))
    else:
        net = fraktur_lines.measure(seed=given.seed)[0]
        if given.network:
            torch.save(net.state_dict(), given.network)
    measured = measure(net, given.texts)
    print(f"scale {measured.scale}, bonus {measured.bonus}; without a grammar, bonus {measured.bonus_alone}")
    print(f"development lines: {measured.development}; read alike by beam search: {measured.agreeing}")
    for row in rows(measured):
        print(row["case"], row.get("value") or f"{row['ours_ms']:.0f} ms")
    file = Path("build") / "fraktur_grammar.json"
    file.parent.mkdir(exist_ok=True)
    content = [
        {"line": line.name, "text": line.text, **{way: texts[index] for way, texts in measured.texts.items()}}
        for index, line in enumerate(measured.test.lines)
    ]
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
