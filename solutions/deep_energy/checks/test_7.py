"""7: outlier scores."""

import numpy as np
import torch
from stand_ins import Levels, OnMeta

from ebmcourse.checking import assert_close, difference, exercise, fail, inputs, probe, require


@inputs
def c(rng):
    """The coefficients of f = c₀ + c₁ · mean(x) + c₂ · mean(x²), which has both signs for uniform noise."""
    first, second = rng.uniform(0.5, 1.5, 2)
    return torch.from_numpy(np.array([-second / 3, first, second]).astype(np.float32))


@inputs
def images(rng):
    return torch.from_numpy(rng.uniform(-1, 1, (23, 1, 8, 6)).astype(np.float32))


@probe
def scores(student, images, c, batch_size, training):
    """The scores; how many images the network was given at a time, and its states."""
    score, on_meta = student.deep_energy.outlier_score, OnMeta()
    require(
        not on_meta.misses(lambda: score(on_meta, images.clone())),
        "The images are not on the device of the model. Move each batch there.",
    )
    network = Levels(c).train(training)
    given = images.clone()
    options = {"batch_size": batch_size} if batch_size else {}
    try:
        found = score(network, given, **options)
    except Exception:
        # This fails, too, unless the last batch of a single image is the reason.
        score(Levels(c), torch.cat([given, given[:1]]), **options)
        require(False, "The scores fail if the last batch has one image only. Do not squeeze its axis.")
    require(isinstance(found, torch.Tensor), "The scores must be a tensor.")
    seen = torch.tensor([any(network.gradients_on), network.training, found.requires_grad]).float()
    return {
        "scores": found.detach(),
        "largest": max(len(part) for part in network.images) if network.images else 0,
        "states": c * (1 + seen),
        "images": given.detach(),
    }


def judge_scores(got, images, c, size):
    flat = images.flatten(1)
    energies = -(c[0] + c[1] * flat.mean(1) + c[2] * flat.square().mean(1))
    known, found = energies.sort()[0], got["scores"].flatten().sort()[0]
    if difference(got["scores"], energies, 1e-4, 1e-5) and not difference(found, known, 1e-4, 1e-5):
        fail("These are the scores in another order. Keep the order of the images.")
    assert_close(
        got["scores"],
        energies,
        mistakes={
            "These are the values f. The outlier score is E = -f, which is larger for outliers.": -energies,
            "These are the scores in train mode. Use eval().": energies - 1,
            "These are exponentials of the scores.": energies.exp(),
            "These are exp(f), which is smaller for outliers. The outlier score is E = -f.": (-energies).exp(),
            "These are absolute values. The outlier score is E = -f.": energies.abs(),
            "The mean of the scores is subtracted.": energies - energies.mean(),
            "The scores are normalised over the batch.": (-energies).softmax(0),
            "Only the scores of the first batch are returned.": energies[:size],
            "Only the mean of each batch is returned.": torch.stack([part.mean() for part in energies.split(size)]),
            "The scores of the last, smaller batch are missing.": energies[: 2 * size],
            "Only the scores of the last batch are returned.": energies[2 * size :],
        },
    )


@exercise("7a", points=1, public=True, hint="-model(images) of all batches, concatenated with torch.cat.")
def test_scores_are_energies(run, images, c):
    """`outlier_score` returns E = -f of all images, in their order."""
    for batch_size in (0, 10):
        got, _ = run(scores, images, c, batch_size, False)
        judge_scores(got, images, c, 10)
        if got["largest"] > (batch_size or 256):
            fail("The network is given more than `batch_size` images at a time.")


### BEGIN HIDDEN TESTS
@exercise("7a", points=0.5, hint="Use eval mode and torch.no_grad(), and restore the mode from before.")
def test_scores_in_eval_mode(run, images, c):
    """The scores are computed in eval mode without gradients, the mode is restored, and a batch may be one image."""
    for training, size in ((True, 10), (False, 11)):
        got, want = run(scores, images, c, size, training)
        judge_scores(got, images, c, size)
        wrong = (got["states"] / want["states"] - 1).abs() > 0.1
        if wrong[0]:
            fail("The scores are computed with gradients. Use torch.no_grad().")
        if wrong[1]:
            mode = "left in eval mode" if training else "put into train mode, although it was in eval mode"
            fail(f"The model is {mode}. Restore the mode from before.")
        if wrong[2]:
            fail("The scores are not detached.")
        assert_close(got["states"], want["states"])
        if difference(got["images"], images, 1e-6, 1e-6):
            fail("The given images are changed.")


### END HIDDEN TESTS


@inputs
def pictures(rng):
    """Images whose height and width differ."""
    return torch.from_numpy(rng.uniform(-1, 1, (3, 1, 8, 12)).astype(np.float32))


@inputs
def noise(rng):
    return torch.from_numpy(rng.standard_normal((3, 1, 8, 12)).astype(np.float32))


@probe
def changes(student, pictures, noise):
    given, changed = pictures.clone(), student.deep_energy.changed
    try:
        found = changed(given, noise.clone())
    except Exception:
        changed(
            pictures[:, :, :, :8].clone(), noise[:, :, :, :8].clone()
        )  # fails, too, unless the sizes are the reason
        require(False, "It fails for images whose height and width differ. They are the last two axes, in this order.")
    require(isinstance(found, dict), "`changed` returns a dict.")
    for name in ("noise", "flipped", "shrunk"):
        require(isinstance(found.get(name), torch.Tensor), "The dict must have tensors for noise, flipped and shrunk.")
    return {name: found[name] for name in ("noise", "flipped", "shrunk")} | {"given": given}


@exercise("7b", points=1, public=True, hint="clamp, flip(2, 3), and images[:, :, ::2, ::2] on a tensor full of -1.")
def test_changed_images(run, pictures, noise):
    """`changed` adds noise, turns the images by 180°, and shrinks them, and does not change the given ones."""
    got, want = run(changes, pictures, noise)
    x, small = pictures, pictures[:, :, ::2, ::2]

    def placed(top, left, background, part=small):
        canvas = torch.full_like(x, background)
        canvas[:, :, top : top + 4, left : left + 6] = part
        return canvas

    if difference(got["given"], pictures, 1e-6, 1e-6):
        fail("The given images are changed. Work on copies.")
    assert_close(
        {"noise": got["noise"]},
        {"noise": want["noise"]},
        mistakes={
            "The images with noise are not clipped.": {"noise": x + 0.3 * noise},
            "The noise is not multiplied by 0.3.": {"noise": (x + noise).clamp(-1, 1)},
            "The images with noise are clipped to [0, 1].": {"noise": (x + 0.3 * noise).clamp(0, 1)},
            "The noise is subtracted. Add it.": {"noise": (x - 0.3 * noise).clamp(-1, 1)},
            "Only the noise is clipped. Clip the images with noise.": {"noise": x + (0.3 * noise).clamp(-1, 1)},
            "This is a weighted mean of images and noise. Add 0.3 · noise to the images.": {
                "noise": (0.7 * x + 0.3 * noise).clamp(-1, 1)
            },
            "This is the noise alone. Add it to the images.": {"noise": (0.3 * noise).clamp(-1, 1)},
            "The images themselves are multiplied by the noise.": {"noise": (x * (1 + 0.3 * noise)).clamp(-1, 1)},
        },
    )
    assert_close(
        {"flipped": got["flipped"]},
        {"flipped": want["flipped"]},
        mistakes={
            "The images are turned upside down only. Flip the axes 2 and 3: images of the tutorial have no axis N.": {
                "flipped": x.flip(2)
            },
            "The images are mirrored left to right only. Flip both axes.": {"flipped": x.flip(3)},
            "The order of the images is reversed. Flip the axes of rows and columns.": {"flipped": x.flip(0, 1)},
            "The order of the images is reversed, too. Flip only rows and columns.": {"flipped": x.flip(0, 2, 3)},
            "The images are negated. Flip rows and columns.": {"flipped": -x},
            "The images are not flipped.": {"flipped": x},
            "The images are turned by 90°. Turn them by 180°: flip rows and columns.": {"flipped": x.rot90(1, (2, 3))},
            "The images are transposed. Flip rows and columns.": {"flipped": x.mT},
        },
    )
    mean = torch.nn.functional.avg_pool2d(x, 2)
    assert_close(
        {"shrunk": got["shrunk"]},
        {"shrunk": want["shrunk"]},
        mistakes={
            "The background is 0, which is grey. Black is -1.": {"shrunk": placed(4, 6, 0)},
            "The background is 1, which is white. Black is -1.": {"shrunk": placed(4, 6, 1)},
            "The small image is in the upper left quarter.": {"shrunk": placed(0, 0, -1)},
            "The small image is in the upper right quarter.": {"shrunk": placed(0, 6, -1)},
            "The small image is in the lower left quarter.": {"shrunk": placed(4, 0, -1)},
            "The small image is in the middle.": {"shrunk": placed(2, 3, -1)},
            "The small image begins with the second row and column.": {"shrunk": placed(4, 6, -1, x[:, :, 1::2, 1::2])},
            "The small image has the means of 2 × 2 pixels. Take every second row and column.": {
                "shrunk": placed(4, 6, -1, mean)
            },
            "This is a part of the image. Take every second row and column.": {
                "shrunk": placed(4, 6, -1, x[:, :, :4, :6])
            },
            "This is the lower right part of the image. Take every second row and column.": {
                "shrunk": placed(4, 6, -1, x[:, :, 4:, 6:])
            },
            "The background is the image itself. It should be black.": {
                "shrunk": torch.where(placed(4, 6, -9) == -9, x, placed(4, 6, -1))
            },
        },
    )


@inputs
def digits(rng):
    """Outlier scores of digits, with ties."""
    return torch.from_numpy(np.round(rng.normal(0, 1, 21), 1).astype(np.float32))


@inputs
def others(rng):
    """Outlier scores of other images, mostly larger, some equal to those of digits."""
    return torch.from_numpy(np.round(rng.normal(0.8, 1, 34), 1).astype(np.float32))


@probe
def areas(student, digits, others):
    """The AUROC of the scores, of the scores the other way round, and of many equal scores."""
    auroc = student.deep_energy.auroc
    coarse = [scores.round() for scores in (digits, others)]
    return {
        "plain": float(auroc(digits.clone(), others.clone())),
        "reversed": float(auroc(others.clone(), digits.clone())),
        "coarse": float(auroc(*coarse)),
    }


SWAPPED = (
    "The orientation is the wrong way round: the classes are swapped, or the sign of the scores. Outliers are the "
    "positive class, and have the larger scores."
)


### BEGIN HIDDEN TESTS
def wrong_areas_of(scores_in, scores_out):
    """Areas in which equal scores do not count one half, or in which not all pairs count."""
    above, few = scores_out - scores_in[:, None], min(len(scores_in), len(scores_out))
    pairs = scores_out[:few] - scores_in[:few]
    mixed = torch.cat([scores_out, scores_in])
    mixed = mixed[len(scores_in) :] - mixed[: len(scores_in), None]
    wrong = {
        "Labels and scores are in different orders.": (mixed > 0).double() + 0.5 * (mixed == 0),
        "Pairs with equal scores count 0. They count one half.": above > 0,
        "Pairs with equal scores count 1. They count one half.": above >= 0,
        "Each score is compared with one other only. Compare each outlier with each digit.": (
            (pairs > 0).double() + 0.5 * (pairs == 0)
        ),
        "Each score is compared with one other only, and equal ones count 0. Compare all pairs.": pairs > 0,
    }
    return {sentence: counted.double().mean().item() for sentence, counted in wrong.items()}


### END HIDDEN TESTS


@inputs
def wrong_areas(_, digits, others):
    """The results of known mistakes, for the scores and for the scores the other way round."""
    ### BEGIN HIDDEN TESTS
    return {"plain": wrong_areas_of(digits, others), "reversed": wrong_areas_of(others, digits)}
    ### END HIDDEN TESTS


@exercise("7c", points=0.5, public=True, hint="Outliers are the positive class, with label 1.")
def test_area_under_the_curve(run, digits, others, wrong_areas):
    """`auroc` is the probability that an outlier has the larger score."""
    got, want = run(areas, digits, others)
    threshold = digits.median()
    found = (others > threshold).float().mean().item() / 2 + (digits <= threshold).float().mean().item() / 2
    positive = (others > 0).float().mean().item() / 2 + (digits <= 0).float().mean().item() / 2
    for name in ("plain", "reversed"):
        value = want[name]
        assert_close(
            got[name],
            value,
            rtol=0,
            atol=0.002,
            mistakes={
                "The larger of the two areas is returned, whatever the orientation. Do not swap the sign.": max(
                    value, 1 - value
                ),
                SWAPPED: 1 - value,
                "This is the AUROC of hard decisions. Pass the scores themselves.": found,
                "This is the AUROC of the decisions that the score is above 0. Pass the scores themselves.": (
                    positive if name == "plain" else 1 - positive
                ),
                "The AUROC is given in percent. It is a number from 0 to 1.": 100 * value,
            }
            | wrong_areas[name],
        )


### BEGIN HIDDEN TESTS
@exercise("7c", points=0.5, hint="Count pairs with equal scores as one half, or use roc_auc_score.")
def test_area_with_equal_scores(run, digits, others):
    """Pairs with equal scores count one half."""
    got, want = run(areas, digits, others)
    value, coarse = want["coarse"], [scores.round() for scores in (digits, others)]
    assert_close(got["coarse"], value, rtol=0, atol=0.002, mistakes={SWAPPED: 1 - value} | wrong_areas_of(*coarse))


### END HIDDEN TESTS
