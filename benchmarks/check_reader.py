"""The check reader of the assignment `graphical_models`: amounts that it reads exactly, with three seeds.

The peer is the same network, trained on single digits, with fixed cuts and no grammar. Checks are made of digits that
occur in no training. Where digits are apart, independent digits would be read with probability p^n.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from autograder import assignment
from autograder.release.programs import reference_program
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.untrusted.student import Student
from ebmcourse.data.amounts import amount_grammar, draw_checks

SEEDS = 3


def run(quick: bool = False) -> list[dict[str, Any]]:
    """One row per seed and kind of check."""
    torch.set_num_threads(1)  # the matrices are too small for more
    with laid_out(reference_program(assignment.load("graphical_models"))) as folder:
        program = Student(folder).graphical_models
    grammar, count = amount_grammar(), 40 if quick else 500
    rows = []
    for seed in range(1 if quick else SEEDS):
        torch.manual_seed(seed)
        single = program.digit_network()
        program.train_on_digits(single, 2 if quick else 20)
        reader = copy.deepcopy(single)
        checks = draw_checks(40 if quick else 800, 10 * seed + 1)
        checks += draw_checks(10 if quick else 200, 10 * seed + 2, touching=False)
        program.train_reader(reader, checks, grammar, 2 if quick else 12)
        p = program.digit_accuracy(single)
        for name, touching in (("touching", True), ("apart", False)):
            held_out = draw_checks(count, 1000 + 10 * seed + touching, "test", touching=touching)
            read = program.share_read(reader, held_out, grammar)
            peer = f"fixed cuts: {program.share_read_with_fixed_cuts(single, held_out):.1%}"
            if not touching:
                peer += f", p^n: {sum(p ** len(check.digits) for check in held_out) / count:.1%}"
            rows.append({"case": f"digits {name}, seed {seed}", "value": f"{read:.1%}", "peer": peer})
    return rows
