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


### BEGIN HIDDEN TESTS
def graphs_of(sequence):
    """The graphs of all paths, of those that spell the answer, and of the others; weights are energies."""
    frames = gtn.linear_graph(*sequence["energies"].shape)
    frames.set_weights(sequence["energies"])
    answer, labels = sequence["answer"], range(sequence["energies"].shape[1])
    others = gtn.other_strings(answer, labels)
    return frames, gtn.intersect(frames, gtn.ctc_graph(answer)), gtn.intersect(frames, others)


def energy_of(graph, semiring=None):
    """A number that a graph has in a semiring: the least energy, unless another one is given."""
    return torch.tensor(gtn.forward_score(graph, semiring or gtn.MinPlus()).item(), dtype=torch.float64)


def largest(graph):
    """The energy of the path of largest energy."""
    return torch.tensor(gtn.viterbi_score(graph).item(), dtype=torch.float64)


def second_best(sequence):
    """The energy of the second-best path, whatever it spells."""
    frames = gtn.linear_graph(*sequence["energies"].shape)
    frames.set_weights(-sequence["energies"])
    return torch.tensor(-sum(gtn.nbest(frames, 2)[1].weights_to_list()), dtype=torch.float64)


def wrong_among(sequence, labels):
    """The least energy of the wrong strings of these labels only."""
    return energy_of(gtn.intersect(graphs_of(sequence)[0], gtn.other_strings(sequence["answer"], labels)))


def merged_energy(sequence):
    """The least energy of the answer without its double letters."""
    return energy_of(graphs_of(sequence | {"answer": [label for label, _ in groupby(sequence["answer"])]})[1])


def free_energies(sequence, beta):
    frames, right, _ = graphs_of(sequence)
    return {"free_answer": energy_of(right, gtn.Log(beta)), "free_all": energy_of(frames, gtn.Log(beta))}


def wrong_numbers(sequence):
    """The results of known mistakes of `ingredients`, for each of the five numbers."""
    energies, beta = sequence["energies"], sequence["beta"]
    steps, count = energies.shape
    frames, right, others = graphs_of(sequence)
    exchanged = graphs_of(sequence | {"energies": energies.reshape(count, steps)})
    at_one, of_plus = free_energies(sequence, -1.0), free_energies(sequence, beta)
    known = {
        "answer": {
            "Double letters are merged: keep both, the graph requires a blank between them.": merged_energy(sequence),
        },
        "best": {
            "`best` is the sum of the least energies of the labels: a path has one label for each frame.": (
                energies.amin(0).sum()
            ),
        },
        "wrong": {
            "This is the second-best path, which spells the same string: the string must be wrong.": second_best(
                sequence
            ),
            "Wrong strings with a blank are left out: give `other_strings` all labels, 0 included.": wrong_among(
                sequence, range(1, count)
            ),
            "Wrong strings with labels above those of the answer are left out: `other_strings` needs all.": wrong_among(
                sequence, range(max(sequence["answer"]) + 1)
            ),
        },
    }
    for name, graph, other in zip(
        FIELDS[:3], (right, frames, others), (exchanged[1], exchanged[0], exchanged[2]), strict=True
    ):
        known[name] |= {
            f"`{name}` is the largest energy of these paths: take the least, with `MinPlus`.": largest(graph),
            f"`{name}` is minus the largest energy: the weights are the energies themselves, and `MinPlus` takes the "
            "least.": -largest(graph),
            "Frames and labels are exchanged: the first axis of the energies are the frames, and `linear_graph` takes "
            "their number first.": energy_of(other),
        }
    for name in ("free_answer", "free_all"):
        known[name] = {
            "β has no effect: give the semiring -β.": at_one[name],
            "This is the soft maximum of the energies: `Log` needs -β for energies.": of_plus[name],
            "This is minus the soft maximum: the weights are the energies themselves, with `Log(-β)`.": -of_plus[name],
        }
    known["free_all"]["`free_all` leaves the right answer out: it is the sum over all paths."] = energy_of(
        others, gtn.Log(-beta)
    )
    return known


### END HIDDEN TESTS


@inputs
def wrong_of_sequence(_, sequence):
    """The results of known mistakes of `ingredients` for `sequence`."""
    ### BEGIN HIDDEN TESTS
    return wrong_numbers(sequence)
    ### END HIDDEN TESTS


@inputs
def wrong_of_misread(_, misread):
    """The results of known mistakes of `ingredients` for `misread`."""
    ### BEGIN HIDDEN TESTS
    return wrong_numbers(misread)
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@exercise("1a", points=0.5, seconds=20, hint="A double letter needs a blank between its two letters.")
def test_double_letters(run, doubled):
    """The five numbers are right for an answer with a double letter."""
    got, want = run(ingredients_of, doubled)
    judge_answer(got, want, lambda: wrong_numbers(doubled))
    judge_wrong(got, want, lambda: wrong_numbers(doubled))
    judge_free(got, want, doubled, lambda: wrong_numbers(doubled))


@inputs
def negative(rng):
    """Energies of both signs for more labels than frames, where the most offending wrong string has the last label."""
    energies = rng.uniform(-1.0, 1.0, (4, 7))
    energies[range(4), [1, 1, 0, 2]] = rng.uniform(-3.5, -3.0, 4)
    energies[1, 6] = rng.uniform(-2.9, -2.6)
    return {"energies": torch.from_numpy(energies), "answer": [1, 2], "beta": float(rng.uniform(2.0, 3.0))}


@inputs
def sequences(rng):
    """The smallest sequence, one of float64 and float32, and two of the same shape, the first of them twice."""

    def drawn(steps, count, answer):
        return {"energies": torch.from_numpy(rng.uniform(0, 2, (steps, count))), "answer": answer, "beta": 1.5}

    first, second, other = drawn(3, 4, [1]), drawn(3, 4, [3]), drawn(3, 5, [4, 1])
    single = other | {"energies": other["energies"].float()}
    return {
        "smallest": drawn(1, 2, [1]),
        "other": other,
        "single": single,
        "first": first,
        "second": second,
        "again": first,
    }


@exercise(
    "1a",
    points=0.25,
    seconds=20,
    needs=(test_least_energies, test_free_energies),
    hint="Energies may have any sign, and there may be any number of labels.",
)
def test_negative_energies(run, negative):
    """The five numbers are right for energies of both signs, and for more labels than frames."""
    got, want = run(ingredients_of, negative)
    cut = free_energies(negative | {"energies": negative["energies"].relu()}, -negative["beta"])
    if all(difference(got[name]["value"], wrong, 1e-4, 1e-5) is None for name, wrong in cut.items()):
        fail("Negative energies are taken as 0: they may have any sign.")
    judge_answer(got, want, lambda: wrong_numbers(negative))
    judge_wrong(got, want, lambda: wrong_numbers(negative))
    judge_free(got, want, negative, lambda: wrong_numbers(negative))


@exercise(
    "1a",
    points=0.25,
    seconds=20,
    needs=(test_least_energies, test_most_offending_wrong_answer, test_free_energies),
    hint="Use the arguments of this call only, and leave them as they are.",
)
def test_numbers_of_several_sequences(run, sequences):
    """The five numbers are right for a single frame, for float32, and call after call."""
    got, want = run(numbers_of, sequences)
    judge_calls(got, want)
    judge_cases(got, want, {"other": SIZES, "single": SINGLE, "smallest": SMALLEST})


### END HIDDEN TESTS


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
    ### BEGIN HIDDEN TESTS
    answer, best, wrong, free_answer, free_all = parts.unbind(1)
    gap = answer - wrong
    squared, others, rest = low[:, 0] ** 2, low[:, 2], (constant - low[:, 2]).relu()
    all_wrong = "The loss compares with `parts.wrong`, not with the minimum over all answers."
    return {
        "energy_loss": {
            "This is the free energy of the answer: the loss is its least energy.": free_answer,
            "This is the least energy of all answers: the loss is the energy of the right one.": best,
            "This is the energy of the wrong answer: the loss is that of the right one.": wrong,
            "Negative energies give 0: energies may have any sign.": answer.relu(),
        },
        "perceptron_loss": {
            "The perceptron loss is never negative: compare with the minimum over all answers.": gap,
        },
        "hinge_loss": {
            "The margin is missing: the loss is max(0, m + E(Y) - E(Ȳ)).": gap.relu(),
            "The margin is 1, whatever is given: use the argument `margin`.": (1 + gap).relu(),
            "The loss is negative where the margin is kept: it must be 0 there.": constant + gap,
            "The two energies are exchanged: the loss rises with the energy of the answer.": (constant - gap).relu(),
            "The margin is subtracted: add it.": (gap - constant).relu(),
            "The hinge loss uses `parts.wrong`, not the minimum over all answers.": constant + answer - best,
        },
        "log_loss": {
            "The sign in the exponent is wrong: the loss rises with the energy of the answer.": (
                1 + (-gap).exp()
            ).log(),
            "This is the difference of the energies: the loss is log(1 + exp(…)) of it.": gap,
            all_wrong: nn.functional.softplus(answer - best),
        },
        "lvq2_loss": {
            "The loss exceeds its cap: take the minimum with M.": gap.relu(),
            "M is added like a margin: it is the largest value of the loss.": (constant + gap).relu(),
            "The sign of the difference is wrong: the loss rises with the energy of the answer.": (-gap).clamp(
                0, constant
            ),
            "The cap is 2, whatever is given: use the argument `cap`.": gap.clamp(0, 2),
            "The loss is negative where the answer is right: it must be 0 there.": gap.clamp(max=constant),
            "Minimum and maximum are exchanged: min(M, max(0, …)).": gap.clamp(min=constant),
        },
        "mce_loss": {
            "The sign in the exponent is wrong: the loss is large for wrong answers.": torch.sigmoid(-gap),
            all_wrong: torch.sigmoid(answer - best),
        },
        "square_square_loss": {
            "The second term is subtracted, as in the lecture notes: it has to be added.": squared - rest**2,
            "The second term is not squared.": squared + rest,
            "The first term is not squared.": low[:, 0] + rest**2,
            "The maximum with 0 is missing: a high wrong answer must cost nothing.": squared + (constant - others) ** 2,
            "The margin is 1, whatever is given: use the argument `margin`.": squared + (1 - others).relu() ** 2,
            "The sign in the second term is wrong: a low wrong answer must cost something.": (
                squared + (constant + others).relu() ** 2
            ),
            "A high wrong answer costs something: the second term is max(0, m - E(Ȳ))².": (
                squared + (others - constant).relu() ** 2
            ),
            "The second term is that of hinge: only the energy of the wrong answer is in it.": (
                squared + (constant + low[:, 0] - others).relu() ** 2
            ),
            all_wrong: squared + (constant - low[:, 1]).relu() ** 2,
        },
        "square_exponential_loss": {
            "The energy of the answer is not squared.": low[:, 0] + constant * (-others).exp(),
            "The second term is subtracted: it has to be added.": squared - constant * (-others).exp(),
            all_wrong: squared + constant * (-low[:, 1]).exp(),
            "γ has no effect: it is a factor of the second term.": squared + (-others).exp(),
            "γ is in the exponent: it is a factor of the second term.": squared + (-constant * others).exp(),
            "The sign in the exponent is wrong: a high wrong answer must cost nothing.": (
                squared + constant * others.exp()
            ),
        },
        "nll_loss": {
            "The least energy of the answer is used: the probability is a sum over its paths.": answer - free_all,
            "The least energy of all answers is used: subtract their free energy.": free_answer - best,
            "Both are least energies: subtract the free energies.": answer - best,
            "This is the sum of the two free energies: -log Z / β is `free_all`, so it is subtracted.": (
                free_answer + free_all
            ),
        },
        "mee_loss": {
            "β has no effect: it multiplies the free energies.": 1 - (free_all - free_answer).exp(),
            EXPONENT: 1 - (constant * (free_answer - free_all)).exp(),
            "The least energy of the answer is used: the probability is a sum over its paths.": (
                1 - (constant * (free_all - answer)).exp()
            ),
        },
    }
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@exercise("1b", points=0.5, hint="Use a function of torch that does not overflow, such as `nn.functional.softplus`.")
def test_log_loss_of_large_energies(run, distant):
    """`log_loss` and its gradient are finite for differences in the hundreds."""
    got, want = run(loss_of, "log_loss", distant, [])
    values, right, gap = got["values"], want["values"], distant[:, 0] - distant[:, 2]
    # exp overflows in float64 above 709.
    judge_finite(values, right, "The loss is infinite or undefined (NaN) where exp overflows: `softplus` does not.")
    large, small = values[right > 100], values[right < 100]
    if large.min() > 1 and difference(large, large[:1].expand_as(large), 1e-6, 1e-6) is None and small.max() < 1:
        fail("The loss is cut off: it rises with the difference without a limit.")
    sign = "The sign in the exponent is wrong: the loss rises with the energy of the answer."
    judge_loss(got, want, {sign: nn.functional.softplus(-gap)})


@exercise("1b", points=0.5, hint="Use a function of torch that does not overflow, such as `torch.sigmoid`.")
def test_mce_loss_of_large_energies(run, distant):
    """`mce_loss` and its gradient are finite for differences in the hundreds."""
    got, want = run(loss_of, "mce_loss", distant, [])
    overflow = "The loss is infinite or undefined (NaN) where exp overflows: `torch.sigmoid` does not."
    judge_finite(got["values"], want["values"], overflow)
    sign = "The sign in the exponent is wrong: the loss is large for wrong answers."
    judge_loss(got, want, {sign: torch.sigmoid(distant[:, 2] - distant[:, 0])})


### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
@exercise("1c", points=0.25, hint="Subtract the free energies: no exponential is needed.")
def test_nll_loss_of_large_energies(run, distant):
    """`nll_loss` and its gradient are finite for energies in the hundreds."""
    rows = distant + 1000.0
    got, want = run(loss_of, "nll_loss", rows, [])
    infinite = "The loss is infinite or undefined (NaN) for large free energies: subtract them, without exponentials."
    judge_finite(got["values"], want["values"], infinite)
    mistakes = {
        "The sign is wrong: the loss is never negative.": -want["values"],
        "This is the sum of the two free energies: -log Z / β is `free_all`, so it is subtracted.": rows[:, 3:].sum(1),
        "The least energy of the answer is used: the probability is a sum over its paths.": rows[:, 0] - rows[:, 4],
    }
    judge_loss(got, want, mistakes)


@exercise("1c", points=0.25, hint="Take the difference of the free energies before the exponential.")
def test_mee_loss_of_large_energies(run, distant):
    """`mee_loss` and its gradient are finite for energies in the hundreds."""
    rows = distant + 1000.0
    got, want = run(loss_of, "mee_loss", rows, [1.5])
    gap = rows[:, 3] - rows[:, 4]
    if not got["values"].isfinite().any():
        fail("The loss is infinite or undefined (NaN) for large free energies: subtract them before the exponential.")
    mistakes = {
        EXPONENT: 1 - (1.5 * gap).exp(),
        "The loss is 0 for all large free energies: subtract them from each other first.": torch.zeros_like(gap),
        "β has no effect: it multiplies the free energies.": 1 - (-gap).exp(),
        "This is the probability of the answer: subtract it from 1.": (-1.5 * gap).exp(),
    }
    judge_loss(got, want, mistakes)


### END HIDDEN TESTS
