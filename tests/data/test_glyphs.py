"""The glyph set: its classes and outliers, its pictures, and its files."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from ebmcourse.cli import main as ebmcourse
from ebmcourse.data import fonts, glyphs, press

REAL_PRINT = Path(__file__).parents[3] / "shared" / "data" / "GLYPHS"
SPLITS = ("train", "val", "test")
OOD = ("ood_ta", "ood_tb")
TINY = glyphs.Size(train=210, val=84, test=84, ood_ta=60, ood_tb=60)


def read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with open(folder / f"{name}.npy", "rb") as file:
        x, y = np.load(file), np.load(file)
        assert file.read() == b"", "two arrays and nothing else"
    return x, y


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module", autouse=True)
def tiny_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(glyphs.SIZES, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_size):
    folder = tmp_path_factory.mktemp("glyphs")
    glyphs.generate(folder, "tiny", seed=3)
    return folder


def test_there_are_42_classes_apart_from_the_outliers():
    assert len(glyphs.CLASSES) == len(set(glyphs.CLASSES)) == 42
    assert glyphs.CLASSES.isalpha() and glyphs.OTHER_LETTERS.isalpha()
    assert not any(sign.isalpha() for sign in glyphs.OTHER_SIGNS if ord(sign) < 0x2000)
    kinds = [set(glyphs.CLASSES), set(glyphs.OTHER_LETTERS), set(glyphs.OTHER_SIGNS)]
    assert all(a.isdisjoint(b) for a, b in combinations(kinds, 2))


def test_full_set_has_16171_images_in_classes_that_are_uneven_and_not_tiny():
    composition = glyphs._composition(glyphs.SIZES["full"])
    assert [sum(composition[split].values()) for split in SPLITS] == [11_319, 2_426, 2_426]
    sizes = [sum(composition[split][letter] for split in SPLITS) for letter in glyphs.CLASSES]
    assert sum(sizes) == 16_171
    assert min(sizes) >= 150 and max(sizes) > 2 * min(sizes)


@pytest.mark.parametrize("size", list(glyphs.SIZES))
def test_splits_are_stratified_to_within_one_image(size):
    composition = glyphs._composition(glyphs.SIZES[size])
    total = sum(glyphs.SIZES[size][:3])
    for split in SPLITS:
        for letter in glyphs.CLASSES:
            whole = sum(composition[s][letter] for s in SPLITS)
            share = whole * getattr(glyphs.SIZES[size], split) / total
            # train is what val and test leave, so its rounding error is the sum of theirs
            assert abs(composition[split][letter] - share) < (2 if split == "train" else 1)


@given(
    st.integers(0, 10_000),
    st.dictionaries(st.text(max_size=3), st.floats(0.01, 100), min_size=1, max_size=50),
)
def test_apportion_rounds_every_share_and_loses_none(total, weights):
    shares = glyphs.apportion(total, weights)
    assert shares.keys() == weights.keys()
    assert sum(shares.values()) == total
    for name, weight in weights.items():
        assert abs(shares[name] - total * weight / sum(weights.values())) < 1 + 1e-6


def test_every_label_has_a_sort_that_is_not_the_missing_glyph_box():
    for label in (*glyphs.CLASSES, *glyphs.OTHER_LETTERS, *glyphs.OTHER_SIGNS, glyphs.INITIAL):
        assert glyphs._sorts(label), f"no face has {label!r}"
        for face, character in glyphs._sorts(label):
            font = ImageFont.truetype(fonts.font_path(face), 64, layout_engine=ImageFont.Layout.BASIC)
            box = font.getmask("\uf8fe")
            drawn = font.getmask(character)
            assert drawn.getbbox() is not None
            assert (drawn.size, bytes(drawn)) != (box.size, bytes(box)), f"{face} has no {character!r}"


@pytest.mark.parametrize("face", fonts.EARLY_PRINT)
def test_no_face_draws_two_labels_alike(face):
    """The oracle is the rendered shape: shapes that look the same must not have two labels."""
    labels = [
        label
        for label in glyphs.CLASSES + glyphs.OTHER_LETTERS + glyphs.OTHER_SIGNS
        if (face, label) in glyphs._sorts(label)
    ]
    in_the_box = np.diag([press._FIT, press._FIT])
    shapes = {label: press._place(press.sort(face, label), in_the_box, np.zeros(2)) for label in labels}
    for a, b in combinations(labels, 2):
        difference = np.abs(shapes[a] - shapes[b]).sum() / max(shapes[a].sum(), shapes[b].sum())
        # 0 for the long s that one face draws as its s; 0.11 for the most similar true pair († and ‡, f and ſ)
        assert difference > 0.05, f"{a} and {b} look alike"


def test_impression_is_dark_ink_on_light_paper(tiny):
    for name in (*SPLITS, *OOD):
        x = read(tiny, name)[0] if name in SPLITS else np.load(tiny / f"{name}.npy")
        frame = np.concatenate([x[:, [0, -1]].reshape(len(x), -1), x[:, :, [0, -1]].reshape(len(x), -1)], axis=1)
        assert np.median(frame, axis=1).min() > 180, "the edge of a picture is paper"
        assert np.quantile(x.reshape(len(x), -1), 0.01, axis=1).max() < 150, "no picture is blank"


def test_a_letter_fills_its_box():
    rng = np.random.default_rng(0)
    for face, letter in glyphs._sorts("m") + glyphs._sorts("l"):
        picture = press.impression(press.sort(face, letter), press.sort(face, "o"), rng)
        dark = np.argwhere(picture < 128)
        extent = np.ptp(dark, axis=0).max() + 1
        # 48 pixels, scaled by 0.93 to 1.03; thin impressions are smaller, specks and slivers add to it
        assert 36 <= extent <= press.SIDE


def test_same_stream_gives_the_same_impression_and_another_stream_another():
    letter, neighbour = (press.sort(fonts.EARLY_PRINT[0], c) for c in "gn")
    first, again, other = (press.impression(letter, neighbour, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sort_without_ink_is_refused():
    with pytest.raises(ValueError, match="draws nothing"):
        press.sort(fonts.EARLY_PRINT[0], " ")


def test_files_have_the_format_of_the_assignment(tiny):
    assert sorted(content(tiny)) == sorted([f"{name}.npy" for name in (*SPLITS, *OOD)] + ["classes.json"])
    for name in SPLITS:
        x, y = read(tiny, name)
        assert (x.dtype, x.shape) == (np.uint8, (getattr(TINY, name), 56, 56))
        assert (y.dtype, y.shape) == (np.int64, (len(x),))
    for name in OOD:
        x = np.load(tiny / f"{name}.npy")
        assert (x.dtype, x.shape) == (np.uint8, (getattr(TINY, name), 56, 56))


def test_classes_json_agrees_with_the_arrays(tiny):
    description = json.loads((tiny / "classes.json").read_text(encoding="utf-8"))
    assert set(description) == {"classes", *OOD}
    assert [c["index"] for c in description["classes"]] == list(range(42))
    assert "".join(c["letter"] for c in description["classes"]) == glyphs.CLASSES
    for name in SPLITS:
        counts = np.bincount(read(tiny, name)[1], minlength=42)
        assert counts.tolist() == [c[name] for c in description["classes"]]
    for name in OOD:
        assert sum(entry["count"] for entry in description[name]) == len(np.load(tiny / f"{name}.npy"))


def test_images_are_shuffled_and_none_is_drawn_twice(tiny):
    y = read(tiny, "train")[1]
    assert not np.array_equal(y, np.sort(y))
    pictures = np.concatenate([read(tiny, name)[0] for name in SPLITS]).reshape(-1, 56 * 56)
    assert len(np.unique(pictures, axis=0)) == len(pictures)


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tiny, tmp_path):
    glyphs.generate(tmp_path / "again", "tiny", seed=3)
    glyphs.generate(tmp_path / "other", "tiny", seed=4)
    again, other = content(tmp_path / "again"), content(tmp_path / "other")
    assert again == content(tiny)
    assert other["classes.json"] == again["classes.json"]
    assert all(other[name] != again[name] for name in again if name.endswith(".npy"))


def test_a_file_does_not_depend_on_what_was_drawn_before_it(tiny):
    wanted = glyphs._composition(TINY)["val"]
    x, y = glyphs._draw(wanted, seed=3, part=SPLITS.index("val"), tick=lambda: None)
    for mine, written in zip((x, y), read(tiny, "val"), strict=True):
        assert np.array_equal(mine, written)


def test_progress_counts_every_image(tmp_path):
    seen: list[tuple[int, int]] = []
    glyphs.generate(tmp_path, "tiny", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, sum(TINY)) for i in range(1, sum(TINY) + 1)]


def test_an_interrupted_run_does_not_change_an_older_set(tmp_path):
    glyphs.generate(tmp_path, "tiny")
    before = content(tmp_path)

    def interrupt(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        glyphs.generate(tmp_path, "tiny", seed=1, progress=interrupt)
    assert content(tmp_path) == before


def test_a_set_that_is_there_is_replaced_and_the_command_says_so(tmp_path):
    command = ["data", "glyphs", "--size", "tiny", "--out", str(tmp_path)]
    done = CliRunner().invoke(ebmcourse, command)
    assert "again" not in done.stderr and done.stdout == f"wrote {tmp_path}\n"
    before = content(tmp_path)
    done = CliRunner().invoke(ebmcourse, command)
    assert "Generating glyphs again (Ctrl-C keeps the old data): " in done.stderr
    assert done.stdout == f"replaced the data in {tmp_path}\n" and content(tmp_path) == before


def test_unknown_size_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"'huge'.*full.*small"):
        glyphs.generate(tmp_path / "out", "huge")
    assert not (tmp_path / "out").exists()


def test_a_wrong_choice_is_reported_without_a_progress_bar(tmp_path):
    for words, said in (
        (["glyph"], "Invalid value for 'NAME': 'glyph' is unknown. Choose one of: glyphs."),
        (["glyphs", "--size", "huge"], "unknown size 'huge' of the glyph set: choose one of full, small"),
    ):
        done = CliRunner().invoke(ebmcourse, ["data", *words, "--out", str(tmp_path)])
        assert done.exit_code == 2 and done.output.splitlines()[-1].startswith(f"Error: {said}")
        assert "Generating" not in done.output


def test_negative_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be 0 or more, not -1"):
        glyphs.generate(tmp_path / "out", "tiny", seed=-1)


def test_folder_that_cannot_be_written_is_named(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(OSError, match=r"cannot write the glyph set to .*file"):
        glyphs.generate(in_the_way, "tiny")


@pytest.mark.slow
def test_small_set_is_learnable_but_not_by_class_means(tmp_path):
    """With labels that did not match their pictures, class means would be right by chance: 1 in 42."""
    glyphs.generate(tmp_path, "small")
    (x, y), (x_test, y_test) = (read(tmp_path, name) for name in ("train", "test"))
    means = np.stack([x[y == k].mean(axis=0).ravel() for k in range(42)])
    means -= means.mean(axis=1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    accuracy = np.mean((x_test.reshape(len(x_test), -1) @ means.T).argmax(axis=1) == y_test)
    assert 0.6 < accuracy < 0.9  # 0.77 measured


def test_contact_sheet_shows_every_class(tiny, tmp_path):
    glyphs.contact_sheet(tiny, tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 3 * 10 * press.SIDE and sheet.height > 14 * press.SIDE
        drawn = np.asarray(sheet.convert("L"))
    assert (drawn < 128).mean() > 0.05


def test_contact_sheet_without_a_set_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.npy is missing.*ebmcourse data glyphs"):
        glyphs.contact_sheet(tmp_path, tmp_path / "sheet.png")


@pytest.mark.skipif(not REAL_PRINT.is_dir(), reason="needs the real prints in ../shared/data/GLYPHS")
def test_real_prints_have_the_same_format(tiny, tmp_path):
    real, drawn = (json.loads((f / "classes.json").read_text(encoding="utf-8")) for f in (REAL_PRINT, tiny))
    assert set(real) == set(drawn)
    assert all(set(real[key][0]) == set(drawn[key][0]) for key in real)
    for name in SPLITS:
        assert [a.dtype for a in read(REAL_PRINT, name)] == [a.dtype for a in read(tiny, name)]
    glyphs.contact_sheet(REAL_PRINT, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()
