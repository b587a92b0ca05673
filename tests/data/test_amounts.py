"""Images of amounts: what is drawn can be read, and the grammar knows it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ebmcourse import gtn
from ebmcourse.data import amounts


def is_amount(digits: tuple[int, ...]) -> bool:
    return 3 <= len(digits) <= 5 and digits[0] != 0 and digits[-1] in (0, 5)


def accepts(graph: gtn.Graph, digits: tuple[int, ...]) -> bool:
    chain = gtn.linear_graph(len(digits), 10)
    chain.set_weights([0.0 if digit == right else -np.inf for right in digits for digit in range(10)])
    return gtn.forward_score(gtn.intersect(chain, graph)).item() > -np.inf


def test_the_grammar_accepts_amounts_and_nothing_else():
    grammar = amounts.amount_grammar()
    for digits in itertools.product((0, 1, 5, 9), repeat=3):
        assert accepts(grammar, digits) == is_amount(digits)
    counts = [
        int(gtn.forward_score(gtn.intersect(gtn.linear_graph(n, 10), grammar), gtn.Counting()).item())
        for n in (3, 4, 5)
    ]
    assert counts == [9 * 10 * 2, 9 * 100 * 2, 9 * 1000 * 2]
    assert gtn.intersect(gtn.linear_graph(2, 10), grammar).num_nodes() == 0
    assert gtn.intersect(gtn.linear_graph(6, 10), grammar).num_nodes() == 0


def test_the_two_parts_have_no_digit_in_common_and_all_digits_together():
    (train, _), (test, _) = amounts.digits("train"), amounts.digits("test")
    assert len(train) + len(test) == 1797
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


@pytest.mark.parametrize("touching", [True, False])
def test_every_check_can_be_cut_into_its_digits(touching):
    for check in amounts.draw_checks(200, 7, touching=touching):
        assert is_amount(tuple(check.digits))
        assert check.image.shape[0] == 8 and check.image.min() >= 0 and check.image.max() <= 1
        cuts = amounts.cut_hypotheses(check.image)
        reached = {cuts[0]}
        for _ in check.digits:
            reached = {j for i in reached for j in cuts if amounts.NARROWEST <= j - i <= amounts.WIDEST}
        assert cuts[-1] in reached


def test_the_same_seed_draws_the_same_checks():
    for one, other in zip(amounts.draw_checks(5, 3), amounts.draw_checks(5, 3), strict=True):
        assert one.digits == other.digits and torch.equal(one.image, other.image)


def test_checks_that_are_apart_are_cut_at_their_gaps():
    for check in amounts.draw_checks(50, 1, touching=False):
        ink = (check.image > 0).any(dim=0)
        runs = sum(1 for now, after in itertools.pairwise([False, *ink.tolist()]) if after and not now)
        cuts = amounts.cut_hypotheses(check.image)
        at_gaps = [cut for cut in cuts[1:-1] if not (ink[cut - 1] and ink[cut])]
        assert len(at_gaps) == runs - 1
        assert set(at_gaps) <= set(amounts.fixed_cuts(check.image))


def test_crops_are_trimmed_and_centred():
    image = torch.zeros(8, 12)
    image[:, 5:8] = 1.0
    [crop, wide, empty] = amounts.crops(image, [(3, 12), (0, 12), (0, 3)])
    assert torch.equal(crop, wide) and crop[:, 2:5].eq(1).all() and crop.sum() == 24
    assert empty.sum() == 0
