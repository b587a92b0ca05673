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


### BEGIN HIDDEN TESTS
def merged(labels):
    """Labels without the repetitions, as text with _ for blanks."""
    return "".join(sign for sign, _ in groupby(signs_of(labels)))


def signs_of(labels):
    return "".join("_" if label == BETWEEN else chr(97 + label) for label in labels)


def shifted(text, by):
    return "".join(chr(ord(letter) + by) for letter in text)


def wrong_texts(labels, text):
    """The results of known mistakes for labels that read as `text`; the variants of a mistake are in a fixed order."""
    signs, shown = signs_of(labels), merged(labels)
    segments = [segment for segment in signs.split("_") if segment]
    commonest = [max(segment, key=segment.count) for segment in segments]
    blank_zero = shown.replace("a", "")
    return {
        "The letters are joined with `_`: join them without a separator.": [
            "_".join(segments),
            "_".join(text),
            "_".join(commonest),
        ],
        "The blanks are still in the text: drop them after merging neighbours.": [shown, signs],
        "Only the blanks at the ends are dropped: drop all of them.": [shown.strip("_"), signs.strip("_")],
        "The blanks became the character `{`: drop them.": [shown.replace("_", "{"), signs.replace("_", "{")],
        "The blanks became spaces: drop them.": [shown.replace("_", " "), shown.replace("_", " ").strip()],
        "Repetitions are still in the text: merge equal neighbours before dropping the blanks.": [
            signs.replace("_", "")
        ],
        "Double letters are merged: merge equal neighbours first, then drop the blanks.": [
            merged([label for label in labels if label != BETWEEN])
        ],
        "Every letter appears only once: merge equal neighbours, not all equal letters.": [
            "".join(dict.fromkeys(text))
        ],
        "Letters are lost: a run between two blanks may contain several letters.": [
            "".join(commonest),
            "".join(segment[0] for segment in segments),
            "".join(segment[-1] for segment in segments),
        ],
        "There are spaces between the letters: join them without a separator.": [" ".join(text)],
        "The letters after the last blank are lost: a word may also end without a blank.": [
            shown.rpartition("_")[0].replace("_", "")
        ],
        "The letters before the first blank are lost: a word may also begin without a blank.": [
            shown.partition("_")[2].replace("_", "")
        ],
        "The first letter is lost where the last label is the same: no label comes before the first.": [
            shown[1:].replace("_", "") if labels[0] == labels[-1] else text
        ],
        "The last run of labels is lost: a letter counts also where no other label follows.": [
            shown[:-1].replace("_", "")
        ],
        "The first run of labels is lost: a letter counts also where no other label comes before.": [
            shown[1:].replace("_", "")
        ],
        "An a at the beginning is lost: the label before the first window must be no letter.": [
            shown.removeprefix("a").replace("_", "")
        ],
        "The blank is not 0, which is the letter a: it is BETWEEN = 26.": [
            blank_zero,
            blank_zero.replace("_", "{"),
            shifted(blank_zero.replace("_", "{"), -1),
        ],
        "Every a is lost: its class is 0, which is no blank.": [text.replace("a", "")],
        "Every z is lost: its class is 25, and the blank is 26.": [text.replace("z", "")],
        "The text is in capitals: use lower-case letters.": [text.upper()],
        "The letters are off by one: 0 is a.": [shifted(text, 1), shifted(text, -1)],
        "The text runs backwards.": [text[::-1]],
        "The letters are sorted: keep their order.": ["".join(sorted(text)), "".join(sorted(set(text)))],
    }


### END HIDDEN TESTS


@inputs
def wrong_plain(_, plain):
    """For each word of `plain`, the texts of known mistakes."""
    ### BEGIN HIDDEN TESTS
    return [wrong_texts(labels, text) for labels, text in zip(plain["frames"], plain["texts"], strict=True)]
    ### END HIDDEN TESTS


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
    """`indices_to_str` takes lists and tensors, also of a single label, and returns "" for labels without letters."""
    letters = plain["frames"][0]
    got, _ = run(texts_of, [letters])
    if got["lists"] is None:
        fail("A list of labels stops the function: take lists as well as tensors.")
    if got["tensors"] is None:
        fail("A tensor of labels stops the function: take tensors as well as lists.")
    repeated = signs_of(letters).replace("_", "")
    if got["lists"] == plain["texts"][:1] and got["tensors"] == [repeated] != got["lists"]:
        fail(
            "Equal neighbours in a tensor are not merged: its elements are different objects, so compare their numbers "
            "with `!=`."
        )
    if got["lists"] != got["tensors"]:
        fail("The text of a tensor of labels must be the same as that of a list.")
    # Texts with letters are judged above: here, known mistakes pass.
    wrong = [value for values in wrong_texts(letters, plain["texts"][0]).values() for value in values if value]
    if got["lists"][0] not in (plain["texts"][0], *wrong):
        fail("The text of labels with letters is wrong.")
    # That every a or every z is lost costs points above.
    label = next(label for label in letters if label not in (0, 25, BETWEEN))
    empty, _ = run(texts_of_few, [[BETWEEN] * 4, []])
    for what, found in zip(("blanks only", "no labels at all"), empty, strict=True):
        if found["raised"] != ["nothing", "nothing"]:
            fail(f"There is an exception for {what}: the text is empty then.")
        if found["texts"] != ["", ""]:
            fail(f"The text of {what} is not the empty string.")
    [single], _ = run(texts_of_few, [[label]])
    if single["raised"] != ["nothing", "nothing"]:
        fail("There is an exception for a single label: an image of one letter has one window.")
    if single["texts"] != [chr(97 + label)] * 2:
        fail("The text of a single label is not its letter: an image of one letter has one window.")


### END HIDDEN TESTS
