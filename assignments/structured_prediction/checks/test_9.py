"""9: from labels to text."""

import numpy as np
import torch

from ebmcourse.checking import Mismatch, exercise, fail, inputs, probe
from ebmcourse.data.words import BETWEEN


def letters_of(rng, size):
    return [chr(97 + number) for number in rng.permutation(26)[:size]]


def frames_of(rng, pieces):
    """Labels of frames: every piece (a letter, or _ for blanks) some times in a row."""
    labels = [BETWEEN if piece == "_" else ord(piece) - 97 for piece in pieces]
    return np.repeat(labels, rng.integers(1, 4, len(labels))).tolist()


@inputs
def plain(rng):
    """Frames of words without double letters: blanks in all places, some letters side by side."""
    words = []
    for pattern in ("c_c_c_", "_c_cc_", "cc_c", "_c", "c_c_c_c"):
        letters = iter(letters_of(rng, 8))
        words.append("".join(next(letters) if sign == "c" else "_" for sign in pattern))
    return {"frames": [frames_of(rng, word) for word in words], "texts": [word.replace("_", "") for word in words]}


@inputs
def doubled(rng):
    """Frames of words with double letters, which a blank keeps apart, as in h e l _ l o."""
    words = []
    for pattern in ("abc_cd", "a_a", "_a_b_b_", "ab_a_a"):
        letters = dict(zip("abcd", letters_of(rng, 4), strict=True))
        words.append("".join(letters.get(sign, "_") for sign in pattern))
    return {"frames": [frames_of(rng, word) for word in words], "texts": [word.replace("_", "") for word in words]}


@probe
def texts_of(student, frames):
    """The texts of lists of labels, and of the same as tensors."""
    decode = student.structured_prediction.indices_to_str
    return {
        "lists": [decode(list(labels)) for labels in frames],
        "tensors": [decode(torch.tensor(labels)) for labels in frames],
    }


def merged(labels):
    """Labels without the repetitions, as text with _ for blanks."""
    kept = [label for label, before in zip(labels, [None, *labels], strict=False) if label != before]
    return "".join("_" if label == BETWEEN else chr(97 + label) for label in kept)


def judge_texts(got, words):
    for kind, found in got.items():
        for value, labels, text in zip(found, words["frames"], words["texts"], strict=True):
            if not isinstance(value, str):
                raise Mismatch("A text is expected.")
            if value == text:
                continue
            signs = "".join("_" if label == BETWEEN else chr(97 + label) for label in labels)
            segments = [segment for segment in signs.split("_") if segment]
            shown = merged(labels)
            wrong = {
                "The letters are joined with `_`: put them together without anything between.": (
                    "_".join(segments),
                    "_".join(text),
                    "_".join(merged(labels).replace("_", "")),
                    "_".join(max(segment, key=segment.count) for segment in segments),
                ),
                "The blanks are left in: drop them after neighbours were merged.": (shown, signs, shown.strip("_")),
                "The blanks are read as a character, `{`: drop them.": (shown.replace("_", "{"),),
                "Repetitions are left in: merge equal neighbours before the blanks are dropped.": (
                    signs.replace("_", ""),
                ),
                "Double letters are merged: merge equal neighbours first, and drop the blanks after that.": (
                    merged([label for label in labels if label != BETWEEN]),
                ),
                "Every letter appears once only: merge neighbours, not all that are equal.": (
                    "".join(dict.fromkeys(text)),
                ),
                "Letters that touch are lost: a run between two blanks may hold several letters.": (
                    "".join(max(segment, key=segment.count) for segment in segments),
                    "".join(segment[0] for segment in segments),
                ),
                "There are spaces between the letters.": (" ".join(text),),
                "The text is in capitals.": (text.upper(),),
                "The letters are one off: 0 is a.": ("".join(chr(ord(letter) + 1) for letter in text),),
            }
            for sentence, values in wrong.items():
                if value in values:
                    fail(sentence)
            fail(
                "A tensor of labels is read otherwise than a list." if kind == "tensors" else "The text is another one."
            )


@exercise("9a", points=1, public=True, hint="Merge equal neighbours, drop the blanks, join the letters.")
def test_text_of_labels(run, plain):
    """`indices_to_str` merges equal neighbours, drops blanks and joins the letters."""
    got, _ = run(texts_of, plain["frames"])
    judge_texts(got, plain)
