"""6: neural differential equations."""

from contextlib import suppress

import torch
from calls import AGAIN, SINGLE, SIZES, SMALLEST, judge_calls, judge_cases, judge_slope, like, unchanged
from stand_ins import Field, integrate, replaced
from torch import nn

from ebmcourse.checking import assert_close, assert_either_way, exercise, fail, inputs, probe, require, ways


@inputs
def field(rng):
    """The parameters of a vector field, and three states."""
    return {
        "outer": torch.from_numpy(rng.standard_normal((2, 4))),
        "inner": torch.from_numpy(rng.standard_normal((4, 2))),
        "offset": torch.from_numpy(rng.standard_normal(4)),
        "start": torch.from_numpy(rng.standard_normal((3, 2))),
        "slope": torch.from_numpy(rng.standard_normal((3, 2))),
    }


@inputs
def time(rng):
    return float(rng.uniform(0.9, 1.3))


@inputs
def resting(rng):
    """A field with a single state of rest: a contraction minus the state."""
    inner = torch.from_numpy(rng.standard_normal((3, 3)))
    return {
        "outer": torch.eye(3, dtype=torch.float64),
        "inner": 0.5 * inner / torch.linalg.matrix_norm(inner, 2),
        "offset": torch.from_numpy(rng.uniform(0.5, 1.0, 3)),
        "start": torch.from_numpy(2 * rng.standard_normal((4, 3))),
    }


@probe
def field_of(case):
    return Field(case["outer"], case["inner"], case["offset"])


@probe
def state_after(student, case, time, steps):
    """The last state, and the derivatives of its sum with respect to the first and the parameters."""
    with torch.no_grad(), unchanged(case["start"]):
        student.graphical_models.integrate(field_of(case), case["start"], time, 1)
    f, start = field_of(case), case["start"].clone().requires_grad_()
    end = student.graphical_models.integrate(f, start, time, steps)
    require(isinstance(end, torch.Tensor), "`integrate` returns a tensor.")
    slopes = [None]
    if end.requires_grad:
        slopes = torch.autograd.grad(end.sum(), [start, f.outer, f.inner, f.offset], allow_unused=True)
    require(
        slopes[0] is not None,
        "Gradients do not flow through the steps: make new tensors, without `no_grad` or `detach`.",
    )
    # Where no step is taken, the parameters have no gradient.
    slopes = [torch.zeros(()) if slope is None else slope for slope in slopes]
    return {"end": end.detach(), "slopes": slopes, "calls": f.calls}


@probe
def several_states(student, cases):
    """The last state in several cases, without gradients."""
    seen = {}
    for name, case in cases.items():
        f, start = field_of(case), case["start"]
        with torch.no_grad(), unchanged(f, start):
            seen[name] = like(student.graphical_models.integrate(f, start, case["time"], case["steps"]), start)
    return seen


@probe
def adjoint_of(student, case, time, steps):
    """The gradients of the adjoint, by the program as it is and with a stand-in for `integrate`."""
    module = student.graphical_models

    def attempt():
        f = field_of(case)
        parameters = [f.outer, f.inner, f.offset]
        found = module.adjoint(f, parameters, case["start"].clone(), case["slope"].clone(), time, steps)
        require(isinstance(found, tuple) and len(found) == 2, "`adjoint` returns two values: a tensor and a list.")
        require(
            all(parameter.grad is None for parameter in parameters),
            "The parameters of the field collect gradients: use `torch.autograd.grad`.",
        )
        return {"start": found[0], "parameters": list(found[1])}

    def isolated():
        with replaced(module, integrate=integrate):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@probe
def most_kept(call):
    """The largest number of tensors that autograd keeps at the same time during a call."""
    now = peak = 0

    class Kept:
        def __init__(self, tensor):
            nonlocal now, peak
            self.tensor = tensor
            now += 1
            peak = max(peak, now)

        def __del__(self):
            nonlocal now
            now -= 1

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        call()
    return peak


@probe
def adjoint_with_few_and_many_steps(student, case, time):
    """The gradients with a stand-in for `integrate`, and how the work and the memory depend on the steps."""
    module, work, memory = student.graphical_models, [], []
    found = None
    for steps in (4, 8, 20):
        f = field_of(case)

        def call(f=f, steps=steps):
            nonlocal found
            parameters = [f.outer, f.inner, f.offset]
            found = module.adjoint(f, parameters, case["start"].clone(), case["slope"].clone(), time, steps)

        with replaced(module, integrate=integrate):
            memory.append(most_kept(call))
        work.append(f.calls)
    require(work[0] < work[1] < work[2], "The number of steps has no effect: solve with as many as are given.")
    require(
        memory[2] < 2 * memory[0],
        "The memory grows with the number of steps: keep no states, and nothing for backpropagation through them.",
    )
    return {"start": found[0], "parameters": list(found[1])}


@probe
class Interrupted(Exception):
    """What a field raises in the middle of a call."""


@probe
class Interruptible(nn.Module):
    """A field that raises `Interrupted` at its third evaluation, if it is asked to."""

    def __init__(self, case, interrupted=False, rest=False):
        super().__init__()
        self.field, self.interrupted, self.rest = field_of(case), interrupted, rest

    def forward(self, z):
        if self.interrupted and self.field.calls == 2:
            raise Interrupted
        return self.field(z) - z if self.rest else self.field(z)


@probe
def several_adjoints(student, cases):
    """The gradients in several cases, with a stand-in for `integrate`."""
    module, seen = student.graphical_models, {}
    for name, case in cases.items():
        f, end, slope = Interruptible(case, name == "interrupted"), case["start"], case["slope"]
        parameters = list(f.parameters())
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        with replaced(module, integrate=integrate), unchanged(f, end, slope), suppress(Interrupted):
            found = module.adjoint(f, parameters, end, slope, case["time"], 10)
        if name != "interrupted":
            seen[name] = [like(item, end) for item in (found[0], *found[1])]
    return seen


@probe
def state_at_rest(student, case, rate, steps):
    f = field_of(case)
    found = student.graphical_models.settle(lambda z: f(z) - z, case["start"].clone(), rate, steps)
    require(isinstance(found, torch.Tensor), "`settle` returns a tensor.")
    require(
        f.inner.grad is None, "The parameters of the field collect gradients: differentiate with respect to z only."
    )
    return found


@probe
def several_states_at_rest(student, cases):
    """The last state in several cases, where the field is a module whose parameters have a gradient."""
    settle, seen = student.graphical_models.settle, {}
    for name, case in cases.items():
        f = Interruptible(case, name == "interrupted", rest=True)
        for parameter in f.parameters():
            parameter.grad = torch.ones_like(parameter)
        with unchanged(f, case["start"]), suppress(Interrupted):
            found = settle(f, case["start"], 0.1, case["steps"])
        if name != "interrupted":
            seen[name] = like(found, case["start"])
            require(not found.requires_grad, "The last state needs a gradient: return it without one.")
    return seen


PARAMETERS = "The gradients of the parameters of the field are wrong: they must flow through all steps."


@inputs
def wrong_ahead(_, field, time):
    """The states of known mistakes in three steps."""


@inputs
def wrong_back(_, field, time):
    """The states of known mistakes in four steps back."""


def judge_state(got, want, wrong):
    assert_close(got["end"], want["end"], rtol=1e-6, atol=1e-7, mistakes=wrong)
    judge_slope(got["slopes"][0], want["slopes"][0], 1e-6, 1e-7)
    judge_cases(got, want, {"slopes": PARAMETERS}, 1e-6, 1e-7)
    if got["calls"] != want["calls"]:
        fail("The state is right, but the field is not evaluated four times in each step.")


@exercise("6a", points=0.75, public=True, hint="The step is time / steps; four slopes with the weights 1, 2, 2, 1.")
def test_steps_of_runge_kutta(run, field, time, wrong_ahead):
    """`integrate` takes steps of RK4, through which gradients flow."""
    got, want = run(state_after, field, time, 3)
    judge_state(got, want, wrong_ahead)


@exercise("6a", points=0.5, public=True, hint="A negative time gives a negative step.")
def test_backwards_in_time(run, field, time, wrong_back):
    """`integrate` goes back in time where the time is negative."""
    got, want = run(state_after, field, -time, 4)
    judge_state(got, want, wrong_back)


@inputs
def wrong_gradients(_, field, time):
    """The gradients of known mistakes of `adjoint`."""


def judge_adjoint(got, want, wrong):
    def mistakes():
        known = wrong()
        scaled = {
            "The signs of the gradients of the parameters are wrong: going back, the integrand needs a minus.": -1
        }
        if want["start"].dim() > 1:
            averaged = "The gradients of the parameters are averaged over the states: their cost is a sum."
            scaled[averaged] = 1 / len(want["start"])
        of_parameters = {name: [factor * item for item in want["parameters"]] for name, factor in scaled.items()}
        return {
            **known["both"],
            **{name: want | {"start": start} for name, start in known["start"].items()},
            **{name: want | {"parameters": items} for name, items in (of_parameters | known["parameters"]).items()},
        }

    if [item.shape for item in got["parameters"]] != [item.shape for item in want["parameters"]]:
        fail("The gradients of the parameters have wrong shapes: there is one for each parameter, of its shape.")
    # With 20 steps of RK4, gradients differ from the exact ones by less than 1e-4; wrong ones by more than 0.01.
    assert_close(got, want, rtol=1e-3, atol=1e-4, mistakes=mistakes)


@exercise("6b", points=1.25, public=True, seconds=20, hint="z, λ and the integral of λ · ∂f/∂w, from T back to 0.")
def test_gradients_of_the_adjoint(run, field, time, wrong_gradients):
    """`adjoint` returns the gradients with respect to the first state and the parameters."""
    got, want = run(adjoint_of, field, time, 20)
    assert_either_way(got, want, lambda got, want: judge_adjoint(got, want, lambda: wrong_gradients))


@inputs
def wrong_rests(_, resting):
    """The states of known mistakes of `settle` after four steps."""


@exercise("6c", points=1, public=True, hint="z ← z - rate · ∇‖f(z)‖², with the sum of squares.")
def test_steps_of_the_descent(run, resting, wrong_rests):
    """`settle` takes steps of gradient descent on ‖f(z)‖²."""
    got, want = run(state_at_rest, resting, 0.1, 4)
    assert_close(got, want, mistakes=wrong_rests)
