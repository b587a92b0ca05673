"""The n-gram as an automaton, and reading with it, against brute force."""

import random
import re
import sys
from itertools import product
from math import exp, log

import numpy as np
import pytest

from benchmarks import fraktur_grammar as grammar
from benchmarks import ngram
from benchmarks.drawn_lines import GRAPHEMES
from benchmarks.fraktur_lines import BLANK
from benchmarks.words_reader import collapse
from ebmcourse import gtn

TEXT = [0, 1, 2, 0, 1, 1, 3, 0, 1, 2, 2, 0, 3, 3, 1, 0, 1, 2, 3, 0, 2, 1, 0, 1]
SYMBOLS = 5  # symbol 4 does not occur
KINDS = [(order, least) for order in (1, 2, 3, 4) for least in (1, 2, 3)]


def count(part: list[int]) -> int:
    return sum(TEXT[i : i + len(part)] == part for i in range(len(TEXT) - len(part) + 1))


def probability(symbol: int, context: list[int], order: int, least: int) -> float:
    """Witten–Bell from its formula, by counting in the text."""
    context = context[-(order - 1) :] if order > 1 else []
    while context and count(context) < least:
        context = context[1:]
    shorter = probability(symbol, context[1:], order, least) if context else 1 / SYMBOLS
    followers = [count([*context, other]) for other in range(SYMBOLS)]
    kinds, total = sum(n > 0 for n in followers), sum(followers)
    return (followers[symbol] + kinds * shorter) / (total + kinds) if total else shorter


@pytest.mark.parametrize(("order", "least"), KINDS)
def test_probabilities_sum_to_one_in_every_context(order, least):
    grams = ngram.train(np.array(TEXT), SYMBOLS, order, least)
    np.testing.assert_allclose(np.exp(grams.log_p).sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize(("order", "least"), KINDS)
def test_the_score_of_a_string_is_that_of_the_formula(order, least):
    grams = ngram.train(np.array(TEXT), SYMBOLS, order, least)
    for string in product(range(SYMBOLS), repeat=4):
        expected = sum(log(probability(s, list(string[:i]), order, least)) for i, s in enumerate(string))
        assert grams.score(string) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("order", "least"), KINDS)
def test_the_automaton_has_one_path_for_each_string_with_the_score_of_the_string(order, least):
    grams, end, scale = ngram.train(np.array(TEXT), SYMBOLS, order, least), 3, 0.7
    graph = grams.graph(end, scale)
    for string in product([0, 1, 2, 4], repeat=3):
        chain = gtn.Graph()
        chain.add_node(start=True)
        for place, symbol in enumerate([*string, end]):
            chain.add_node(accept=place == len(string))
            chain.add_arc(place, place + 1, symbol)
        paths = gtn.compose(chain, graph)
        assert gtn.forward_score(paths, gtn.Counting()).item() == 1
        expected = scale * grams.score([*string, end], grams.context([end]))
        assert gtn.viterbi_score(paths).item() == pytest.approx(expected, abs=1e-12)


def test_an_order_too_large_for_the_codes_is_an_error():
    with pytest.raises(ValueError, match="do not fit into 64 bits"):
        ngram.train(np.array([0, 1]), 100, 10)


LABELS = [GRAPHEMES.index(sign) for sign in ("a", "aͤ", "ä")] + [BLANK]
SCALE, BONUS, WINDOWS = 0.8, 0.6, 5


@pytest.fixture
def grams() -> list[ngram.Ngram]:
    text = np.array([grammar.END, *(grammar.INDEX[sign] for sign in "aäaaäaäaaa"), grammar.END])
    return [ngram.train(text, grammar.END + 1, order) for order in (2, 4)]


def emissions(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of a few windows, of LABELS only, and where these are."""
    kept = np.zeros((WINDOWS, BLANK + 1), bool)
    kept[:, LABELS] = True
    random_ones = np.random.default_rng(seed).normal(0, 1.5, kept.shape)
    scores = np.where(kept, random_ones, -1e9)
    return scores - np.log(np.exp(scores).sum(1, keepdims=True)), kept


def labellings(log_p: np.ndarray, grams: ngram.Ngram) -> list[tuple[tuple[int, ...], str, float]]:
    """All labellings, with their text and score."""
    found = []
    for labels in product(LABELS, repeat=WINDOWS):
        runs = [label for label, before in zip(labels, (BLANK, *labels), strict=False) if label != before]
        symbols = [grammar.INDEX[GRAPHEMES[label]] for label in runs if label != BLANK]
        score = float(log_p[np.arange(WINDOWS), labels].sum()) + BONUS * len(symbols)
        score += SCALE * grams.score([*symbols, grammar.END], grams.context([grammar.END]))
        found.append((labels, collapse(list(labels), GRAPHEMES), score))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_reading_is_the_best_of_all_labellings(grams, seed):
    log_p, kept = emissions(seed)
    reader = grammar.GrammarReader(grams, SCALE, BONUS)
    _, text, score = max(labellings(log_p, grams[-1]), key=lambda found: found[2])
    reading = reader.read(log_p, kept)
    assert reading.text == text and reading.score == pytest.approx(score, abs=1e-9)
    assert reader.read(log_p)[:2] == reading[:2], "leaving out implausible labels must not change this reading"
    searched, best = grammar.beam_search(log_p, grams[-1], SCALE, BONUS, width=100)
    assert searched == text and best == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("least", [0.01, 0.2])
def test_plausible_labels_are_those_with_enough_posterior_probability(grams, least):
    log_p, kept = emissions(0)
    posterior = np.zeros(log_p.shape)
    for labels, _, score in labellings(log_p, grams[0]):
        posterior[np.arange(WINDOWS), labels] += exp(score)
    posterior /= posterior.sum(1, keepdims=True)
    expected = kept & ((posterior >= least) | (posterior == posterior.max(1, keepdims=True)))
    found = grammar.GrammarReader(grams, SCALE, BONUS).plausible(log_p, least)
    assert (found == expected).all()


@pytest.mark.parametrize(
    ("modern", "printed"),
    [
        ("Das Haus ist groß.", "Das Haus iſt groß."),
        ("ausführen, bisher, Ausstellung", "ausführen, bisher, Ausſtellung"),
        ("Regierungsrat und Häuschen", "Regierungsrat und Häuschen"),
        ('Ich sagte: "Nein"', "Jch ſagte: „Nein„"),
        ("Café – [sic]  ☃", "Cafe — (ſic)"),
    ],
)
def test_text_is_spelled_as_in_fraktur(modern, printed):
    assert grammar.spelled(modern) == printed


def test_lines_have_at_most_75_characters_and_keep_the_text():
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghilmnorſtu", k=rng.randint(1, 20))) for _ in range(2000)]
    lines = grammar.broken(" ".join([*words, 100 * "x"]), rng)
    assert max(map(len, lines)) <= 75
    assert any(line.endswith("-") for line in lines)
    assert re.sub("[- ]", "", "".join(lines)) == "".join(words) + 100 * "x"


def test_quotations_leave_out_authors_and_tables(tmp_path):
    (tmp_path / "zitate").write_text("Alles fließt.\n\t\t-- Heraklit\n%\nErkenne dich\nselbst.\n%\n", "utf-8")
    (tmp_path / "zitate.dat").write_bytes(b"\0")
    (tmp_path / "asciiart").write_text("/\\_/\\", "utf-8")
    assert grammar.quotations(tmp_path).split() == ["Alles", "fließt.", "Erkenne", "dich", "selbst."]


def test_a_folder_without_texts_ends_the_command_with_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fraktur_grammar", "--texts", str(tmp_path)])
    monkeypatch.setattr(grammar.fraktur_lines, "DATA", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        grammar.main()
    assert "install Debian's package fortunes-de" in capsys.readouterr().err


def test_the_share_of_errors_that_is_gone_is_paired_and_drawn_by_group():
    assert grammar.fewer([4, 2, 6], [2, 1, 3], ["a", "b", "c"]) == (50, 50, 50)
    share, low, high = grammar.fewer([10, 10, 10, 10], [0, 10, 5, 5], ["a", "a", "b", "b"])
    assert (share, low, high) == (50, 50, 50), "each group has lost half of its errors"
    share, low, high = grammar.fewer([10, 10, 10, 10], [0, 10, 5, 5], ["a", "b", "c", "d"])
    assert share == 50 and low < 40 and high > 60
