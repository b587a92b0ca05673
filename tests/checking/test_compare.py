"""Comparisons fail for whatever is undefined, and name the mistake that is known."""

import math

import pytest
import torch

from ebmcourse.checking import Mismatch, assert_close, assert_either_way, difference, fail
from ebmcourse.checking.observation import Ways

NAN = math.nan


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (NAN, 1.0),
        (torch.tensor(NAN), 1.0),
        (torch.tensor([NAN, 1.0]), torch.tensor([0.0, 1.0])),
        (torch.tensor([NAN, 1.0]), torch.tensor([math.inf, 1.0])),
        ({"a": [torch.tensor([NAN])]}, {"a": [torch.tensor([2.0])]}),
    ],
)
def test_undefined_values_are_different_from_all_others(got, want):
    assert difference(got, want, math.inf, math.inf) is not None
    with pytest.raises(Mismatch):
        assert_close(got, want)


def test_undefined_values_are_expected_where_the_reference_has_them():
    value = {"x": torch.tensor([NAN, math.inf, 1.0])}
    assert difference(value, value, 0, 0) is None


def test_several_ways_are_no_plain_dict():
    assert difference({"a": 1}, Ways(a=1), 0, 0) and difference(Ways(a=1), {"a": 1}, 0, 0)
    assert difference(Ways(a=1), Ways(a=1), 0, 0) is None


def mismatch(got, want, judge=assert_close):
    with pytest.raises(Mismatch) as found:
        assert_either_way(Ways(got), Ways(want), judge)
    return found.value


def test_the_first_way_with_a_diagnosis_counts():
    want = {"isolated": torch.ones(3), "whole": torch.ones(3), "other": torch.ones(3)}
    nameless, negated, shape = torch.rand(3), -torch.ones(3), torch.ones(2)
    assert "sign" in mismatch({"isolated": nameless, "whole": negated, "other": shape}, want).diagnosis
    assert "sign" in mismatch({"isolated": negated, "whole": shape, "other": nameless}, want).diagnosis
    assert "shape" in mismatch({"isolated": shape, "whole": nameless, "other": None}, want).reason
    assert "observed" in mismatch({"isolated": None, "whole": None, "other": None}, want).reason


def test_a_way_that_was_not_observed_on_one_of_the_sides_is_left_out():
    assert_either_way(
        Ways(whole=torch.ones(2), isolated=torch.ones(2)), Ways(whole=None, isolated=torch.ones(2)), assert_close
    )


def test_one_way_that_passes_is_enough_unless_its_values_are_undefined():
    want = Ways(isolated=torch.ones(2), whole=torch.ones(2))
    undefined = torch.tensor([1.0, NAN])
    assert_either_way(Ways(isolated=undefined, whole=torch.ones(2)), want, assert_close)
    assert "undefined" in mismatch({"isolated": undefined, "whole": None}, want, lambda got, want: None).reason
    with pytest.raises(Mismatch, match="named"):
        assert_either_way(want, want, lambda got, want: fail("It is named."))
