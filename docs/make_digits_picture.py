"""Make the picture of generated digits for the documentation: `python docs/make_digits_picture.py` (ten minutes)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from autograder import assignment
from autograder.release.programs import reference_program
from ebmcourse import plots
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.untrusted.student import Student

PICTURE = Path(__file__).parent / "images" / "digits.png"


def main(target: Path = PICTURE, preset: str = "cpu") -> None:
    with laid_out(reference_program(assignment.load("deep_energy"))) as folder, TemporaryDirectory() as out:
        program = Student(folder).deep_energy
        images, held_out = (program.load_images("digits", split) for split in ("train", "test"))
        model, _ = program.train_model(images, held_out, out, **program.PRESETS[preset])
    torch.manual_seed(43)
    history = program.GenerateCallback(batch_size=6).generate_imgs(model)
    plots.save(plots.generation_strip(*program.pick_frames(history, 8)), target)


if __name__ == "__main__":
    main()
