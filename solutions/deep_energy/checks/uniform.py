"""What is known about noise that should be uniform in [-1, 1]."""

from ebmcourse.checking import fail


def judge_uniform(mean, square):
    """Name what is wrong with the mean and the mean square of all pixels; they must be known within 0.02."""
    kinds = {
        "The noise is in [0, 1]. It should be uniform in [-1, 1]: 2 · rand - 1.": (1 / 2, 1 / 3),
        "The noise is Gaussian. It should be uniform in [-1, 1]: use rand, not randn.": (0, 1),
        "The noise is clipped Gaussian noise. It should be uniform in [-1, 1]: use rand, not randn.": (0, 0.516),
        "The images are black, not uniform noise in [-1, 1].": (-1, 1),
        "The images are grey, with little or no noise. They should be uniform noise in [-1, 1].": (0, 0),
    }
    if abs(mean) < 0.04 and abs(square - 1 / 3) < 0.04:
        return
    for sentence, (wrong_mean, wrong_square) in kinds.items():
        if abs(mean - wrong_mean) < 0.04 and abs(square - wrong_square) < 0.04:
            fail(sentence)
    fail("The noise is not uniform in [-1, 1].")
