"""The word images: drawn as by Pillow, repeatable with a seed, new at every pass, with true lengths."""

import random
import re
from collections import Counter
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.utils.data import DataLoader

from ebmcourse.data.fonts import ANONYMOUS_PRO, EARLY_PRINT, HUMOR_SANS, PATRICK_HAND, font_path
from ebmcourse.data.words import (
    ALPHABET_SIZE,
    BETWEEN,
    CustomWordsDataset,
    SimpleWordsDataset,
    collate_fn,
    simple_collate_fn,
    window_counts,
)


def by_pillow(text: str, face: str, length: int, x: int = 0) -> torch.Tensor:
    image = Image.new("L", (length, 32))
    font = ImageFont.truetype(font_path(face), 20, layout_engine=ImageFont.Layout.BASIC)
    ImageDraw.Draw(image).text((x, 5), text, fill=255, font=font)
    return torch.from_numpy(np.asarray(image, np.float32) / np.float32(255))


def same(ours: list, theirs: list) -> bool:
    return all(a == b and torch.equal(x, y) for (x, a), (y, b) in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("face", [ANONYMOUS_PRO, PATRICK_HAND, HUMOR_SANS, *EARLY_PRINT])
def test_equals_pillow_drawing_the_whole_text(face):
    words = SimpleWordsDataset(1, font=font_path(face), seed=0)
    rng = random.Random(0)
    pairs = {first + second for first, second in product("afgjrvwy", repeat=2)}
    for text in sorted(pairs) + ["".join(rng.choices(ascii_lowercase, k=8)) for _ in range(20)]:
        image = words.draw_text(text)
        assert image.dtype == torch.float32
        torch.testing.assert_close(image, by_pillow(text, face, image.shape[1]), rtol=0, atol=0)


def test_images_are_18_pixels_a_letter_and_keep_shades_of_grey():
    image = SimpleWordsDataset(1).draw_text("hello")
    assert image.shape == (32, 90)
    assert image.min() == 0 and image.max() == 1
    assert len(image.unique()) > 10


def test_the_whole_alphabet_is_drawn_or_refused():
    words = SimpleWordsDataset(1)
    whole = words.draw_text(ascii_lowercase)
    assert whole.shape == (32, 18 * 26)
    width = int(whole.any(dim=0).nonzero().max()) + 1
    assert torch.equal(words.draw_text(ascii_lowercase, width), whole[:, :width])
    with pytest.raises(ValueError, match=f"is {width} pixels wide and does not fit into {width - 1}"):
        words.draw_text(ascii_lowercase, width - 1)


def test_jitter_moves_the_text_by_0_to_7_pixels_and_never_out_of_the_image():
    words = SimpleWordsDataset(1, seed=0)
    moved = [words.draw_text("cat", jitter=True) for _ in range(200)]
    places = [by_pillow("cat", ANONYMOUS_PRO, 54, x) for x in range(8)]
    seen = Counter(next(x for x, place in enumerate(places) if torch.equal(image, place)) for image in moved)
    assert sorted(seen) == list(range(8))
    width = int(places[0].any(dim=0).nonzero().max()) + 1
    tight = [words.draw_text("cat", width + 2, jitter=True) for _ in range(50)]
    fits = [place[:, : width + 2] for place in places[:3]]
    assert {next(x for x, place in enumerate(fits) if torch.equal(image, place)) for image in tight} == {0, 1, 2}


def test_noise_fills_a_tenth_of_the_pixels_and_removes_no_ink():
    words = SimpleWordsDataset(1, seed=0)
    clean = words.draw_text("a" * 50)
    noisy = words.draw_text("a" * 50, noise=True)
    assert (noisy >= clean).all() and noisy.max() == 1
    share = (noisy[clean == 0] == 1).float().mean().item()
    # 28,800 pixels, of which about 25,000 are empty: a standard deviation of 0.002.
    assert abs(share - 0.1) < 0.01


@pytest.mark.parametrize("kind", [SimpleWordsDataset, CustomWordsDataset])
def test_a_seed_repeats_words_and_images_and_every_pass_is_new(kind):
    first, second = (kind(4, 20, jitter=True, noise=True, min_length=2, seed=7) for _ in range(2))
    passes = [list(first), list(first)]
    assert same(passes[0], list(second)) and same(passes[1], list(second))
    assert not {text for _, text in passes[0]} & {text for _, text in passes[1] if len(text) > 2}
    other = kind(4, 20, jitter=True, noise=True, min_length=2, seed=8)
    assert [text for _, text in other] != [text for _, text in passes[0]]


def test_without_a_seed_words_depend_on_torchs_generator():
    def words():
        torch.manual_seed(3)
        return [text for _, text in SimpleWordsDataset(8, 5)]

    assert words() == words()
    assert [text for _, text in SimpleWordsDataset(8, 5)] != [text for _, text in SimpleWordsDataset(8, 5)]


def test_workers_divide_a_pass_without_repeating_a_word():
    words = SimpleWordsDataset(8, 101, seed=0)
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(words, 16, num_workers=2, collate_fn=collate_fn, generator=generator)
    passes = [[text for batch in loader for text in batch.texts] for _ in range(2)]
    assert len(passes[0]) == len(passes[1]) == 101
    assert len({*passes[0], *passes[1]}) == 202
    generator.manual_seed(0)
    assert [text for batch in loader for text in batch.texts] == passes[0]


def test_lengths_are_max_length_or_uniform_down_to_min_length():
    assert {len(text) for _, text in SimpleWordsDataset(5, 50, seed=0)} == {5}
    counts = Counter(len(text) for _, text in SimpleWordsDataset(4, 4000, min_length=1, seed=0))
    assert sorted(counts) == [1, 2, 3, 4]
    # Binomial with n = 4000, p = 1/4: a standard deviation of 27.
    assert all(abs(count - 1000) < 140 for count in counts.values())
    letters = Counter("".join(text for _, text in SimpleWordsDataset(4, 4000, seed=0)))
    assert sorted(letters) == list(ascii_lowercase)
    assert all(abs(count - 16000 / 26) < 130 for count in letters.values())


def test_custom_words_take_their_fonts_from_a_folder_a_file_or_a_list(tmp_path):
    faces = [PATRICK_HAND, HUMOR_SANS]
    (tmp_path / "deeper").mkdir()
    for face in faces:
        (tmp_path / "deeper" / Path(face).name).write_bytes(font_path(face).read_bytes())
    (tmp_path / "OFL.txt").write_text("a licence")
    drawn = by_pillow("cat", PATRICK_HAND, 54), by_pillow("cat", HUMOR_SANS, 54)
    for where in (None, tmp_path, [font_path(face) for face in faces]):
        words = CustomWordsDataset(3, custom_fonts_path=where, seed=0)
        images = [words.draw_text("cat") for _ in range(30)]
        seen = Counter(next(i for i, face in enumerate(drawn) if torch.equal(image, face)) for image in images)
        assert sorted(seen) == [0, 1]
    alone = CustomWordsDataset(3, custom_fonts_path=str(font_path(HUMOR_SANS)))
    assert torch.equal(alone.draw_text("cat"), drawn[1])


def test_letters_wider_than_18_pixels_get_a_wider_image():
    wide = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif-Bold.ttf"
    image = SimpleWordsDataset(1, font=wide).draw_text("m")
    assert image.shape[1] > 18 and image[:, -1].any()


def test_batches_hold_true_widths_and_lengths():
    words = SimpleWordsDataset(1)
    batch = collate_fn([(words.draw_text(text), text) for text in ("hello", "by")])
    assert batch.images.shape == (2, 32, 90) and batch.images.dtype == torch.float32
    assert torch.equal(batch.images[1, :, :36], words.draw_text("by")) and not batch.images[1, :, 36:].any()
    assert batch.widths.tolist() == [90, 36] and batch.lengths.tolist() == [5, 2]
    assert batch.letters.tolist() == [[7, 4, 11, 11, 14], [1, 24, BETWEEN, BETWEEN, BETWEEN]]
    assert batch.letters.dtype == batch.widths.dtype == batch.lengths.dtype == torch.int64
    assert batch.texts == ["hello", "by"] and ALPHABET_SIZE == BETWEEN + 1 == 27


def test_one_letter_batches():
    images, letters = simple_collate_fn(list(SimpleWordsDataset(1, 6, jitter=True, seed=0)))
    assert images.shape == (6, 32, 18) and letters.shape == (6,)
    assert letters.tolist() == [ascii_lowercase.index(text) for _, text in SimpleWordsDataset(1, 6, seed=0)]
    with pytest.raises(ValueError, match="one letter, but 'by' has more: use collate_fn"):
        simple_collate_fn(list(zip([torch.zeros(32, 36)] * 2, ["by", "a"], strict=True)))


@pytest.mark.parametrize("width", [18, 21, 22, 36, 90, 468])
def test_window_counts_are_those_of_a_convolution(width):
    windows = torch.nn.functional.conv2d(torch.zeros(1, 1, 32, width), torch.zeros(1, 1, 32, 18), stride=(1, 4))
    assert window_counts(width) == windows.shape[-1]
    assert window_counts(torch.tensor([width])).tolist() == [windows.shape[-1]]


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda folder: SimpleWordsDataset(0), "at least one letter and at most max_length, got 0..0"),
        (lambda folder: SimpleWordsDataset(2, min_length=3), "at most max_length, got 3..2"),
        (lambda folder: SimpleWordsDataset(2, len=-1), "give a len of 0 or more"),
        (lambda folder: SimpleWordsDataset(2, seed=-1), "the seed must be 0 or more, not -1"),
        (lambda folder: SimpleWordsDataset(2, font=folder / "none.ttf"), "there is no font file"),
        (lambda folder: SimpleWordsDataset(2, font=folder / "words.txt"), "is not a readable font"),
        (lambda folder: SimpleWordsDataset(2).draw_text(""), "there is no text to draw"),
        (lambda folder: SimpleWordsDataset(2).draw_text("caT"), "only the letters a-z can be drawn, but 'caT' has 'T'"),
        (lambda folder: CustomWordsDataset(2, custom_fonts_path=folder / "none"), "there is no font folder"),
        (lambda folder: CustomWordsDataset(2, custom_fonts_path=folder), "has no .ttf, .otf or .woff file"),
        (lambda folder: CustomWordsDataset(2, custom_fonts_path=[]), "the list of fonts is empty"),
        (lambda folder: collate_fn([(torch.zeros(32, 36), "é!")]), "only the letters a-z have a class"),
        (lambda folder: collate_fn([]), "the batch is empty"),
    ],
)
def test_mistakes_raise_a_clear_error(mistake, sentence, tmp_path):
    (tmp_path / "words.txt").write_text("not a font")
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(sentence)):
        mistake(tmp_path)
