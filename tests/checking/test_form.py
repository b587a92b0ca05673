"""What a submission sends has the form of the reference's observation, or no judgement sees it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebmcourse.checking.form import FACTOR, TOO_LARGE, largest_answer, misfit, other_shape, unsound
from ebmcourse.checking.observation import LARGEST, Opaque, Ways, encode, fits

INF, NAN = math.inf, math.nan
OPAQUE = Opaque()
numbers = st.floats() | st.integers(-9, 9) | st.booleans() | st.none() | st.text(max_size=3)
tensors = st.lists(st.floats(width=32), max_size=4).map(torch.tensor)
trees = st.recursive(
    numbers | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.dictionaries(st.sampled_from("ab"), inner, min_size=1).map(Ways)
    ),
    max_leaves=8,
)


def observed(value):
    """Whether one of several ways was observed, wherever there are several."""
    if isinstance(value, Ways) and all(item is None for item in value.values()):
        return False
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return all(map(observed, items))


@given(trees.filter(observed))
def test_the_reference_itself_is_accepted(want):
    assert misfit(want, want) is None and unsound(want, want) is None
    assert fits(encode(want), largest_answer(want))


@given(trees, trees)
def test_whatever_is_compared_there_is_a_verdict(got, want):
    reason = misfit(got, want)
    assert reason is None or reason.endswith((".", "?"))
    if reason is None:
        unsound(got, want)
        other_shape(got, want)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (torch.zeros(5000 + 8 * 9), torch.zeros(3, 3)),
        (torch.zeros(5000), 1.0),
        ([0.0] * 200, [0.0] * 3),
        ([[0.0] * 200], [[0.0] * 3]),
        ([[0], [0], [0] * 200], [[0]]),
        ("x" * 2000, "text"),
        ("x" * 2000, None),
        ({"a": ["x" * 2000], "b": 1}, {"a": ["y"], "b": 1}),
        (Ways(a=None, b=torch.zeros(9000)), Ways(a=torch.zeros(2), b=None)),
    ],
)
def test_what_is_much_larger_than_the_reference_s_is_refused(got, want):
    assert misfit(got, want) == TOO_LARGE


@pytest.mark.parametrize(
    ("got", "want"), [(torch.zeros(12, 12), torch.zeros(12)), ([0] * 60, [0]), ("a message of its own" * 9, "short")]
)
def test_what_is_larger_in_the_way_of_a_mistake_is_judged(got, want):
    assert misfit(got, want) is None


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (None, torch.ones(2)),
        ([1.0], torch.ones(1)),
        (OPAQUE, torch.ones(1)),
        (torch.ones(2), [1.0, 1.0]),
        ({"a": 1}, {"a": 1, "b": 1}),
        ({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 1}),
        ([{"a": 1}], {"a": 1}),
        ([torch.ones(1), None], [torch.ones(1), torch.ones(1)]),
        ([torch.ones(1), 1.0], [torch.ones(1)]),
        ([1.0], 1.0),
        ({}, "text"),
        ([[]], [None]),
        ([[]], []),
        ({"a": 1}, Ways(a=1)),
        (Ways(a=1), {"a": 1}),
        (Ways(a=None), Ways(a=1)),
        (Ways(a=None, b=None), Ways(a=1, b=1)),
        (Ways(a=[], b=None), Ways(a=1, b=1)),
    ],
)
def test_another_structure_does_not_fit(got, want):
    assert misfit(got, want)


def test_a_way_that_does_not_fit_is_as_if_it_had_not_been_observed():
    got, want = Ways(whole={"x": None}, isolated={"x": torch.ones(2)}), Ways(whole=None, isolated={"x": torch.ones(3)})
    assert misfit(got, want) is None and got["whole"] is None and got["isolated"] is not None


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, 2.0])),
        (torch.tensor([1.0, NAN]), torch.tensor([INF, 2.0])),
        (torch.tensor([[INF]]), torch.tensor([INF, 2.0])),
        (torch.tensor([1.0, INF]), torch.tensor([INF])),
        (torch.tensor([[NAN]]), torch.tensor([1.0])),
        (NAN, 1.0),
        (INF, 1),
        (torch.tensor(NAN), 1.0),
        (None, 1.0),
        ("1.0", 1.0),
        (True, 1.0),
        (OPAQUE, 1),
        (torch.ones(2), 1.0),
        (1, True),
        (None, False),
        (1, "text"),
        ([1.0, NAN], [1.0]),
        ({"a": [torch.ones(1), torch.tensor([INF])]}, {"a": [torch.ones(1), torch.ones(1)]}),
        (Ways(a=NAN, b=None), Ways(a=1.0, b=1.0)),
    ],
)
def test_values_of_another_kind_and_undefined_ones_cannot_pass(got, want):
    assert misfit(got, want) is None and unsound(got, want)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (torch.tensor([1.0, -INF]), torch.tensor([2.0, INF])),
        (torch.tensor([INF, NAN]), torch.tensor([2.0, INF])),
        (torch.tensor([1.0, 5.0]), torch.tensor([2.0, INF])),
        (torch.tensor([3e38, 3e38]), torch.ones(2)),
        (torch.tensor([1, 2]), torch.tensor([1.0, 2.0])),
        (2, 1.5),
        (torch.tensor(2.0), 1.5),
        (INF, INF),
        (7, None),
        (Ways(a=NAN, b=1.0), Ways(a=1.0, b=1.0)),
    ],
)
def test_numbers_as_finite_as_the_reference_s_can_pass(got, want):
    assert misfit(got, want) is None and unsound(got, want) is None


@pytest.mark.parametrize(
    ("got", "want", "word"),
    [
        ([1.0], [1.0, 2.0], "few"),
        ({"a": [1, 2]}, {"a": [1]}, "many"),
        ([torch.ones(2), torch.ones(3)], [torch.ones(2), torch.ones(2)], "axis 0"),
        (Ways(a=None, b=torch.ones(2, 1)), Ways(a=torch.ones(2), b=torch.ones(2)), "2 axes instead of 1 axis"),
        ([torch.ones(2, dtype=torch.int64)], [torch.ones(2)], "dtype"),
        ({"a": [torch.ones(2), 5]}, {"a": [torch.zeros(2), 6]}, None),
    ],
)
def test_another_shape_is_named(got, want, word):
    reason = other_shape(got, want)
    assert word in reason if word else reason is None


def test_the_size_of_an_answer_grows_with_the_reference_s():
    small, large = (largest_answer(torch.zeros(size)) for size in (1, 10_000))
    assert large.total - small.total >= FACTOR * 4 * 9_000 and large.tree - small.tree < 1000
    assert large.total < LARGEST.total


@pytest.mark.parametrize("want", [torch.zeros(2), 1.0, [1.0], "text", True])
def test_a_missing_return_is_named_in_sentences_with_one_mark_at_the_end(want):
    sentence = misfit(None, want) or unsound(None, want)
    assert sentence.endswith(" is expected, not nothing (None). Is a `return` missing?")
