"""9: from labels to text."""

from functools import partial

import numpy as np
import torch
from stand_ins import refusal

from ebmcourse.checking import Mismatch, assert_either_way, exercise, fail, inputs, probe, ways
from ebmcourse.data.words import BETWEEN


def letters_of(rng, size, place=None):
    """Different letters in random order. One is a, whose class is 0, at this or a random place."""
    letters = [chr(98 + number) for number in rng.permutation(25)[: size - 1]]
    letters.insert(int(rng.integers(size)) if place is None else place, "a")
    return letters


def frames_of(rng, pieces):
    """Labels of frames: each piece (a letter, or _ for a blank) is repeated one to three times."""
    labels = [BETWEEN if piece == "_" else ord(piece) - 97 for piece in pieces]
    return np.repeat(labels, rng.integers(1, 4, len(labels))).tolist()


@inputs
def plain(rng):
    """Frames of words without double letters, with blanks at different places and some letters next to each other."""
    words = []
    for pattern in ("_c_cc_", "c_c_c_", "ac_c", "_c", "c_c_c_c"):
        letters = iter(letters_of(rng, len(pattern) - pattern.count("_"), 0 if "a" in pattern else None))
        words.append("".join("_" if sign == "_" else next(letters) for sign in pattern))
    return {"frames": [frames_of(rng, word) for word in words], "texts": [word.replace("_", "") for word in words]}


@inputs
def doubled(rng):
    """Frames of words with double letters that are separated by a blank, as in h e l _ l o.

    None begins with a: that a may be lost is judged with other words.
    """
    words = []
    for pattern in ("ab_a_a", "abc_cd", "_a_a", "_a_b_b_"):
        count = len({*pattern} - {"_"})
        letters = dict(zip("abcd", letters_of(rng, count, count - 1), strict=False))
        words.append("".join(letters.get(sign, "_") for sign in pattern))
    return {"frames": [frames_of(rng, word) for word in words], "texts": [word.replace("_", "") for word in words]}


@probe
def texts_of(student, frames):
    """The texts of the labels, given as lists and as tensors."""
    decode = student.structured_prediction.indices_to_str
    return ways(
        lists=lambda: [decode(list(labels)) for labels in frames],
        tensors=lambda: [decode(torch.tensor(labels)) for labels in frames],
    )


@probe
def texts_of_nothing(student, frames):
    """For labels without letters, as lists and as tensors: the texts, and the types of exceptions or "nothing"."""
    decode, found = student.structured_prediction.indices_to_str, []
    for labels in frames:
        texts = []
        calls = [partial(decode, list(labels)), partial(decode, torch.tensor(labels, dtype=torch.long))]
        raised = [refusal(lambda call=call, texts=texts: texts.append(call()))["type"] or "nothing" for call in calls]
        found.append({"texts": texts, "raised": raised})
    return found


### BEGIN HIDDEN TESTS
def merged(labels):
    """Labels without the repetitions, as text with _ for blanks."""
    kept = [label for label, before in zip(labels, [None, *labels], strict=False) if label != before]
    return "".join("_" if label == BETWEEN else chr(97 + label) for label in kept)


def wrong_texts(labels, text):
    """The results of known mistakes for labels that read as `text`."""
    signs = "".join("_" if label == BETWEEN else chr(97 + label) for label in labels)
    segments = [segment for segment in signs.split("_") if segment]
    shown = merged(labels)
    return {
        "The letters are joined with `_`: join them without a separator.": (
            "_".join(segments),
            "_".join(text),
            "_".join(merged(labels).replace("_", "")),
            "_".join(max(segment, key=segment.count) for segment in segments),
        ),
        "The blanks are still in the text: drop them after merging neighbours.": (
            shown,
            signs,
            shown.strip("_"),
        ),
        "The blanks became the character `{`: drop them.": (shown.replace("_", "{"),),
        "Repetitions are still in the text: merge equal neighbours before dropping the blanks.": (
            signs.replace("_", ""),
        ),
        "Double letters are merged: merge equal neighbours first, then drop the blanks.": (
            merged([label for label in labels if label != BETWEEN]),
        ),
        "Every letter appears only once: merge equal neighbours, not all equal letters.": (
            "".join(dict.fromkeys(text)),
        ),
        "Letters are lost: a run between two blanks may contain several letters.": (
            "".join(max(segment, key=segment.count) for segment in segments),
            "".join(segment[0] for segment in segments),
        ),
        "There are spaces between the letters: join them without a separator.": (" ".join(text),),
        "The last letters are lost where no blank follows them.": (shown.rpartition("_")[0].replace("_", ""),),
        "An a at the beginning is lost: the label before the first window must be no class.": (text.removeprefix("a"),),
        "The text is in capitals: use lower-case letters.": (text.upper(),),
        "The letters are off by one: 0 is a.": ("".join(chr(ord(letter) + 1) for letter in text),),
    }


### END HIDDEN TESTS


@inputs
def wrong_plain(_, plain):
    """For each word of `plain`, the texts of known mistakes."""
    ### BEGIN HIDDEN TESTS
    return [wrong_texts(labels, text) for labels, text in zip(plain["frames"], plain["texts"], strict=True)]
    ### END HIDDEN TESTS


def judge_texts(found, texts, wrong):
    for value, text, mistakes in zip(found, texts, wrong, strict=True):
        if not isinstance(value, str):
            raise Mismatch("The result must be a string.")
        if value == text:
            continue
        for sentence, values in mistakes.items():
            if value in values:
                fail(sentence)
        fail("The text is wrong.")


@exercise("9a", points=1, public=True, hint="Merge equal neighbours, drop the blanks, join the letters.")
def test_text_of_labels(run, plain, wrong_plain):
    """`indices_to_str` merges equal neighbours, drops blanks and joins the letters."""
    got, want = run(texts_of, plain["frames"])
    assert_either_way(got, want, lambda got, want: judge_texts(got, plain["texts"], wrong_plain))


### BEGIN HIDDEN TESTS
@exercise("9a", points=0.75, hint="In h e l _ l o, the blank keeps both l: merge neighbours first.")
def test_text_with_double_letters(run, doubled):
    """`indices_to_str` keeps double letters that are separated by a blank."""
    got, want = run(texts_of, doubled["frames"])
    wrong = [wrong_texts(labels, text) for labels, text in zip(doubled["frames"], doubled["texts"], strict=True)]
    assert_either_way(got, want, lambda got, want: judge_texts(got, doubled["texts"], wrong))


@exercise(
    "9a",
    points=0.25,
    hint="Labels come as lists or as tensors. The text of labels without letters is the empty string.",
)
def test_text_without_letters(run, plain):
    """`indices_to_str` takes lists and tensors, and returns an empty string for labels without letters."""
    letters = plain["frames"][0]
    got, _ = run(texts_of, [letters])
    if got["lists"] is None:
        fail("A list of labels stops the function: take lists as well as tensors.")
    if got["tensors"] is None:
        fail("A tensor of labels stops the function: take tensors as well as lists.")
    if got["lists"] != got["tensors"]:
        fail("The text of a tensor of labels must be the same as that of a list.")
    # Texts with letters are judged above: here, known mistakes pass.
    wrong = [value for values in wrong_texts(letters, plain["texts"][0]).values() for value in values if value]
    if got["lists"][0] not in (plain["texts"][0], *wrong):
        fail("The text of labels with letters is wrong.")
    empty, _ = run(texts_of_nothing, [[BETWEEN] * 4, []])
    if [found["raised"] for found in empty] != [["nothing", "nothing"]] * 2:
        fail("There is an exception for blanks only or for no labels at all: the text is empty then.")
    if [found["texts"] for found in empty] != [["", ""]] * 2:
        fail("Blanks only, or no labels, must give an empty string.")


### END HIDDEN TESTS
