"""9: from labels to text."""

from functools import partial
from itertools import groupby

import numpy as np
import torch
from stand_ins import refusal

from ebmcourse.checking import Mismatch, assert_either_way, exercise, fail, inputs, probe, ways
from ebmcourse.data.words import BETWEEN


def letters_of(rng, size, place=None):
    """Different letters in random order. One is a, whose class is 0, at this or a random place; one of several is z."""
    letters = [chr(98 + number) for number in rng.permutation(24)[: size - 1]]
    if size > 2:
        letters[int(rng.integers(size - 1))] = "z"
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
    for pattern in ("_c_cc_", "c_c_c_", "ac_cc", "_c", "c_c_c_c"):
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
def texts_of_few(student, frames):
    """For few labels, as lists and as tensors: the texts, and the types of exceptions or "nothing"."""
    decode, found = student.structured_prediction.indices_to_str, []
    for labels in frames:
        texts = []
        calls = [partial(decode, list(labels)), partial(decode, torch.tensor(labels, dtype=torch.long))]
        raised = [refusal(lambda call=call, texts=texts: texts.append(call()))["type"] or "nothing" for call in calls]
        found.append({"texts": texts, "raised": raised})
    return found


@inputs
def wrong_plain(_, plain):
    """For each word of `plain`, the texts of known mistakes."""


def judge_texts(found, texts, wrong):
    """Fail unless the texts are right, with the name of the one mistake that explains all of them.

    wrong: for each text what each mistake gives, in a list of its variants
    """
    if not all(isinstance(value, str) for value in found):
        raise Mismatch("The result must be a string.")
    if found == texts:
        return
    explaining = [
        sentence
        for sentence, variants in wrong[0].items()
        if any(found == [of_text[sentence][number] for of_text in wrong] for number in range(len(variants)))
    ]
    if len(explaining) == 1:
        fail(explaining[0])
    value, text = next(pair for pair in zip(found, texts, strict=True) if pair[0] != pair[1])
    raise Mismatch(about_text(value, text))


def about_text(value, text):
    """What is wrong with a text."""
    if any(not ("a" <= letter <= "z") for letter in value):
        return "The text contains other characters than the letters a-z: drop the blanks, and add nothing."
    if is_within(value, text):
        return "Letters are missing in the text: each run of equal labels is a letter, but for the blanks."
    if is_within(text, value):
        return "There are too many letters in the text: each run of equal labels is one letter."
    if sorted(value) == sorted(text):
        return "The letters of the text are in the wrong order."
    return "The text is wrong: it has other letters than the labels."


def is_within(part, whole):
    """Whether all letters of `part` are in `whole`, in the same order."""
    rest = iter(whole)
    return all(letter in rest for letter in part)


@exercise("9a", points=1, public=True, hint="Merge equal neighbours, drop the blanks, join the letters.")
def test_text_of_labels(run, plain, wrong_plain):
    """`indices_to_str` merges equal neighbours, drops blanks and joins the letters."""
    got, want = run(texts_of, plain["frames"])
    assert_either_way(got, want, lambda got, want: judge_texts(got, plain["texts"], wrong_plain))
