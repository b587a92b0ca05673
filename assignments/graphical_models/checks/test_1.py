"""1: the loss zoo."""

from itertools import groupby

import numpy as np
import torch
from calls import (
    SINGLE,
    SIZES,
    SMALLEST,
    judge_calls,
    judge_cases,
    judge_finite,
    judge_slope,
    like,
    scalar,
    unchanged,
)
from torch import nn

from ebmcourse import gtn
from ebmcourse.checking import assert_close, difference, exercise, fail, inputs, probe, require

FIELDS = ("answer", "best", "wrong", "free_answer", "free_all")


def drawn_sequence(rng, labels, answer, count=5):
    """Energies (T, K) of a sequence whose best path spells the answer, as does the second best."""
    energies = rng.uniform(2.0, 4.0, (len(labels), count))
    energies[np.arange(len(labels)), labels] = rng.uniform(0.0, 1.0, len(labels))
    energies[1, labels[0]] = energies[1, labels[1]] + rng.uniform(0.05, 0.1)
    return {"energies": torch.from_numpy(energies), "answer": answer, "beta": float(rng.uniform(0.5, 2.0))}


@inputs
def sequence(rng):
    a, b = (rng.permutation(4)[:2] + 1).tolist()
    return drawn_sequence(rng, [a, 0, 0, b, b], [a, b])


@inputs
def doubled(rng):
    """A sequence whose answer has a double letter."""
    a, b = (rng.permutation(4)[:2] + 1).tolist()
    return drawn_sequence(rng, [a, 0, a, b, 0], [a, a, b])


@inputs
def misread(rng):
    """A sequence with more labels than frames whose best path spells something else than the answer."""
    a, b, c = (rng.permutation(4)[:3] + 1).tolist()
    return drawn_sequence(rng, [a, 0, b, b, 0], [a, c], 6)


@probe
def ingredients_of(student, sequence):
    """The five numbers, and the gradient of each with respect to the energies."""
    found = student.graphical_models.ingredients
    energies = sequence["energies"].clone().requires_grad_()
    parts = found(energies, list(sequence["answer"]), sequence["beta"])
    require(
        isinstance(parts, tuple) and len(parts) == 5 and all(isinstance(part, torch.Tensor) for part in parts),
        "`ingredients` returns `Ingredients` of five tensors: `weights_to_torch()` makes one of a score.",
    )
    seen = {}
    for name, part in zip(FIELDS, parts, strict=True):
        slope = torch.zeros_like(energies)
        if part.requires_grad:
            slope = torch.autograd.grad(part.sum(), energies, retain_graph=True, allow_unused=True)[0]
        require(
            slope is not None,
            "A number has a gradient, but not with respect to the energies of this call: use them, and no copy.",
        )
        seen[name] = {"value": part, "slope": slope}
    return seen


@probe
def numbers_of(student, cases):
    """The five numbers of each case, (5,), from energies without a gradient."""
    found = student.graphical_models.ingredients
    seen = {}
    for name, case in cases.items():
        with unchanged(case["energies"], case["answer"]):
            parts = found(case["energies"], case["answer"], case["beta"])
        seen[name] = torch.stack([scalar(part).double() for part in parts])
    return seen


def judge_field(got, want, name, mistakes):
    assert_close(got[name]["value"], want[name]["value"], mistakes=mistakes)
    if not got[name]["slope"].any() and want[name]["slope"].any():
        fail(f"Gradients do not flow from `{name}` to the energies: detach nothing, and take no plain numbers.")
    # The gradients of the reference differ by 1e-15, and wrong ones by more than 0.01.
    judge_slope(got[name]["slope"], want[name]["slope"])


@inputs
def wrong_of_sequence(_, sequence):
    """The results of known mistakes of `ingredients` for `sequence`."""


@inputs
def wrong_of_misread(_, misread):
    """The results of known mistakes of `ingredients` for `misread`."""


def judge_order(got, want):
    best, wrong = want["best"]["value"], want["wrong"]["value"]
    exchanged = {"best": wrong, "wrong": best}
    if best != wrong and not any(difference(got[name]["value"], of, 1e-4, 1e-5) for name, of in exchanged.items()):
        fail("`best` and `wrong` are exchanged: the order is answer, best, wrong, free_answer, free_all.")


def judge_answer(got, want, wrong):
    judge_order(got, want)
    value = {name: want[name]["value"] for name in FIELDS}
    of_answer = {
        "`answer` is the free energy: take the minimum over the paths that spell the answer.": value["free_answer"],
        "`answer` is the least energy of all answers: only paths that spell the answer count.": value["best"],
        "`answer` has the wrong sign: it is an energy.": -value["answer"],
    }
    of_best = {
        "`best` is the energy of the right answer: it is the minimum over all answers.": value["answer"],
        "`best` is the least energy of the wrong answers: it is the minimum over all, the right one included.": value[
            "wrong"
        ],
        "`best` is the free energy: take the minimum.": value["free_all"],
    }
    judge_field(got, want, "answer", lambda: wrong()["answer"] | of_answer)
    judge_field(got, want, "best", lambda: of_best | wrong()["best"])


def judge_wrong(got, want, wrong):
    judge_order(got, want)
    least = {"This is the least energy of all answers: leave the right answer out.": want["best"]["value"]}
    judge_field(got, want, "wrong", lambda: wrong()["wrong"] | least)


def judge_free(got, want, sequence, wrong):
    for name, of_least, other in (("free_answer", "answer", "free_all"), ("free_all", "best", "free_answer")):
        value = want[name]["value"]
        mistakes = {
            "This is β times the free energy: divide by β.": sequence["beta"] * value,
            "The sign is wrong: a free energy is minus the logarithm, divided by β.": -value,
            "This is the least energy, not the free energy: sum over the paths.": want[of_least]["value"],
            f"`{name}` is the sum over the paths of `{other}`.": want[other]["value"],
        }
        judge_field(got, want, name, lambda name=name, mistakes=mistakes: mistakes | wrong()[name])


@exercise(
    "1a",
    points=0.75,
    public=True,
    seconds=20,
    hint="Intersect all paths with `ctc_graph(answer)`, and score with `MinPlus`. `best` needs no intersection.",
)
def test_least_energies(run, misread, wrong_of_misread):
    """`answer` and `best` are the least energies of the right answer and of all answers."""
    got, want = run(ingredients_of, misread)
    judge_answer(got, want, lambda: wrong_of_misread)


@exercise(
    "1a",
    points=0.75,
    public=True,
    seconds=20,
    hint="Intersect all paths with `other_strings(answer, range(K))`: the second-best path usually spells the same.",
)
def test_most_offending_wrong_answer(run, sequence, wrong_of_sequence):
    """`wrong` is the least energy of all paths that spell another string."""
    got, want = run(ingredients_of, sequence)
    judge_wrong(got, want, lambda: wrong_of_sequence)


@exercise("1a", points=0.5, public=True, seconds=20, hint="Score the same graphs with `gtn.Log(-beta)`.")
def test_free_energies(run, sequence, wrong_of_sequence):
    """`free_answer` and `free_all` are free energies at the given β."""
    got, want = run(ingredients_of, sequence)
    judge_free(got, want, sequence, lambda: wrong_of_sequence)


@inputs
def parts(rng):
    """Rows of ingredients (6, 5): right and wrong answers, by little and by much, inside of all margins and outside.

    Half of the energies are negative.
    """
    answer = rng.uniform(0.2, 1.2, 6)
    gaps = np.array([-2.5, -0.4, -0.1, 0.3, 1.4, 3.0]) + rng.uniform(-0.09, 0.09, 6)  # answer - wrong
    wrong = answer - gaps + np.where(gaps > 0, gaps.max() + 0.1, 0)
    answer = answer + np.where(gaps > 0, gaps.max() + 0.1, 0)
    shift = rng.permutation([0, 0, 0, -5, -5, -5])
    answer, wrong = answer + shift, wrong + shift
    best = np.minimum(answer, wrong)
    free_answer = answer - rng.uniform(0.1, 0.5, 6)
    free_all = np.minimum(best, free_answer) - rng.uniform(0.1, 0.5, 6)
    return torch.from_numpy(np.stack([answer, best, wrong, free_answer, free_all], 1))


@inputs
def constant(rng):
    """A margin, a largest value, a factor or an inverse temperature."""
    return float(rng.uniform(0.6, 0.9))


@inputs
def distant(rng):
    """Rows of ingredients whose differences are in the hundreds, of both signs."""
    gaps = rng.uniform(750, 900, 4) * np.array([1, -1, 1, -1])
    wrong = rng.uniform(5, 9, 4) + np.maximum(-gaps, 0)
    answer = wrong + gaps
    best = np.minimum(answer, wrong)
    free = np.stack([answer, best, wrong, answer - 0.3, best - 0.5], 1)
    return torch.from_numpy(free)


@probe
def loss_of(student, name, rows, constants):
    """The losses (B,) of rows of ingredients (B, 5), their derivatives (B, 5), and losses of float32 with defaults.

    The least energy of all answers is made of the two others, so it does not matter from which one a gradient comes.
    """
    module = student.graphical_models
    loss, values, slopes = getattr(module, name), [], []
    plain = module.Ingredients(*rows[0].float().unbind())
    with unchanged(*plain):
        single = like(scalar(loss(plain)), plain.answer)
    for row in rows:
        leaves = row.clone().requires_grad_()
        answer, _, wrong, *free = leaves.unbind()
        value = loss(module.Ingredients(answer, torch.minimum(answer, wrong), wrong, *free), *constants)
        values.append(like(scalar(value), row).detach())
        slope = torch.autograd.grad(value, leaves, allow_unused=True)[0] if value.requires_grad else None
        slopes.append(torch.zeros_like(row) if slope is None else slope)
    return {"values": torch.stack(values), "slopes": torch.stack(slopes), "single": single}


def judge_loss(got, want, mistakes):
    assert_close(got["values"], want["values"], mistakes=mistakes)
    judge_slope(got["slopes"], want["slopes"])
    if difference(got["single"], want["single"], 1e-4, 1e-5):
        fail("The loss is wrong for float32 energies, or where its constant has the default of the template.")


EXPONENT = "The sign in the exponent is wrong: a probability is exp(-β (F(Y) - F)), at most 1."


@inputs
def low(rng):
    """Rows of ingredients in which half of the wrong answers are below the margin; some energies are negative."""
    answer, wrong = rng.uniform(0.1, 1.0, 6), np.array([-0.5, 0.2, 0.4, 1.2, 1.5, 2.0]) + rng.uniform(0, 0.1, 6)
    answer[::2] *= -1
    best = np.minimum(answer, wrong)
    return torch.from_numpy(np.stack([answer, best, wrong, answer - 0.1, best - 0.2], 1))


@inputs
def wrong_losses(_, parts, low, constant):
    """For each loss, the results of known mistakes."""


@exercise("1b", points=0.25, public=True, hint="It is `parts.answer`.")
def test_energy_loss(run, parts, wrong_losses):
    """`energy_loss` is the energy of the answer."""
    got, want = run(loss_of, "energy_loss", parts, [])
    judge_loss(got, want, wrong_losses["energy_loss"])


@exercise("1b", points=0.25, public=True, hint="Compare with the minimum over all answers, the right one included.")
def test_perceptron_loss(run, parts, wrong_losses):
    """`perceptron_loss` is the energy of the answer minus the least energy of all answers."""
    got, want = run(loss_of, "perceptron_loss", parts, [])
    judge_loss(
        got, want, wrong_losses["perceptron_loss"] | {"The sign is wrong: the loss is never negative.": -want["values"]}
    )


@exercise("1b", points=0.5, public=True, hint="max(0, m + E(Y) - E(Ȳ)), with the most offending wrong answer.")
def test_hinge_loss(run, parts, constant, wrong_losses):
    """`hinge_loss` is zero where the wrong answer is higher by the margin, and else what is missing."""
    got, want = run(loss_of, "hinge_loss", parts, [constant])
    judge_loss(got, want, wrong_losses["hinge_loss"])


@exercise("1b", points=0.25, public=True, hint="log(1 + exp(E(Y) - E(Ȳ))).")
def test_log_loss(run, parts, wrong_losses):
    """`log_loss` is log(1 + exp(E(Y) - E(Ȳ)))."""
    got, want = run(loss_of, "log_loss", parts, [])
    judge_loss(got, want, wrong_losses["log_loss"])


@exercise("1b", points=0.5, public=True, hint="min(M, max(0, E(Y) - E(Ȳ))).")
def test_lvq2_loss(run, parts, constant, wrong_losses):
    """`lvq2_loss` is E(Y) - E(Ȳ), kept between 0 and the cap."""
    got, want = run(loss_of, "lvq2_loss", parts, [constant])
    judge_loss(got, want, wrong_losses["lvq2_loss"])


@exercise("1b", points=0.25, public=True, hint="The logistic function of E(Y) - E(Ȳ).")
def test_mce_loss(run, parts, wrong_losses):
    """`mce_loss` is 1 / (1 + exp(-(E(Y) - E(Ȳ))))."""
    got, want = run(loss_of, "mce_loss", parts, [])
    judge_loss(got, want, wrong_losses["mce_loss"])


@exercise("1b", points=0.5, public=True, hint="E(Y)² + max(0, m - E(Ȳ))²: a sum.")
def test_square_square_loss(run, low, constant, wrong_losses):
    """`square_square_loss` is the squared energy of the answer plus the squared rest of the margin."""
    got, want = run(loss_of, "square_square_loss", low, [constant])
    judge_loss(got, want, wrong_losses["square_square_loss"])


@exercise("1b", points=0.5, public=True, hint="E(Y)² + γ · exp(-E(Ȳ)).")
def test_square_exponential_loss(run, low, constant, wrong_losses):
    """`square_exponential_loss` is the squared energy of the answer plus γ times exp(-E(Ȳ))."""
    got, want = run(loss_of, "square_exponential_loss", low, [constant])
    judge_loss(got, want, wrong_losses["square_exponential_loss"])


@exercise("1c", points=0.75, public=True, hint="Subtract the free energy of all answers from that of the right one.")
def test_nll_loss(run, parts, wrong_losses):
    """`nll_loss` is the free energy of the answer minus that of all answers."""
    got, want = run(loss_of, "nll_loss", parts, [])
    judge_loss(
        got,
        want,
        wrong_losses["nll_loss"]
        | {
            "The sign is wrong: the loss is never negative.": -want["values"],
            "This is a probability: the loss is minus its logarithm, divided by β.": (-want["values"]).exp(),
        },
    )


@exercise("1c", points=0.75, public=True, hint="1 - exp(-β (F(Y) - F)), with F(Y) and F the free energies.")
def test_mee_loss(run, parts, constant, wrong_losses):
    """`mee_loss` is one minus the probability of the answer."""
    got, want = run(loss_of, "mee_loss", parts, [constant])
    judge_loss(
        got,
        want,
        wrong_losses["mee_loss"] | {"This is the probability of the answer: subtract it from 1.": 1 - want["values"]},
    )
