"""Make the picture of the check reader for the documentation: `python docs/make_check_picture.py` (a minute)."""

from __future__ import annotations

from pathlib import Path

import torch

from autograder import assignment
from autograder.release.programs import reference_program
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.untrusted.student import Student
from ebmcourse.data.amounts import amount_grammar, draw_checks

PICTURE = Path(__file__).parent / "images" / "graphs" / "check.png"


def main(target: Path = PICTURE, checks: int = 800, epochs: int = 12) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with laid_out(reference_program(assignment.load("graphical_models"))) as folder:
        program = Student(folder).graphical_models
    grammar = amount_grammar()
    reader = program.digit_network()
    program.train_on_digits(reader, 20)
    program.train_reader(reader, draw_checks(checks, 1), grammar, epochs)
    check = draw_checks(200, 99, "test")[3]
    title = f"{''.join(map(str, check.digits))}: the wider an arc, the more probable the segment"
    target.parent.mkdir(parents=True, exist_ok=True)
    program.plot_reading(reader, check, grammar, title).savefig(target, dpi=110)


if __name__ == "__main__":
    main()
