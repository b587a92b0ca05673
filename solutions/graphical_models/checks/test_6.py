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


### BEGIN HIDDEN TESTS
def stepped(f, z, time, steps, weights=(1, 2, 2, 1), at=(0.5, 0.5, 1.0), first=None, third=1):
    """Steps of a Runge-Kutta method with these weights.

    first: the first slope of all steps, if it is given; third: the number of the slope that the third starts from
    """
    h = time / steps
    for _ in range(steps):
        slopes = [f(z) if first is None else first]
        for ahead, number in zip(at, (0, third, 2), strict=True):
            slopes.append(f(z + h * ahead * slopes[number]))
        z = z + h / 6 * sum(w * k for w, k in zip(weights, slopes, strict=True))
    return z


def wrong_states(case, time, steps):
    """The states of known mistakes of `integrate`."""
    f, start = field_of(case), case["start"]
    with torch.no_grad():
        return {
            "This is Euler's method: RK4 evaluates the field four times in each step.": stepped(
                f, start, time, steps, (6, 0, 0, 0)
            ),
            "A single step is taken: take `steps` steps of length time / steps.": stepped(f, start, time, 1),
            "The step is 1 / steps: it is time / steps.": stepped(f, start, 1.0, steps),
            "Each step is as long as the whole time: it is time / steps.": stepped(f, start, time * steps, steps),
            "Time goes in the wrong direction.": stepped(f, start, -time, steps),
            "All four slopes have the same weight: those in the middle count twice.": stepped(
                f, start, time, steps, (1.5, 1.5, 1.5, 1.5)
            ),
            "The slopes in the middle have the weight 1: they count twice.": stepped(
                f, start, time, steps, (1, 1, 1, 1)
            ),
            "The sum of the slopes is not divided by 6.": stepped(f, start, time, steps, (6, 12, 12, 6)),
            "This is the midpoint method: RK4 has four slopes with the weights 1, 2, 2, 1.": stepped(
                f, start, time, steps, (0, 6, 0, 0)
            ),
            "The third slope starts from the first: k_3 is f(z + h/2 k_2).": stepped(f, start, time, steps, third=0),
            "The slopes in the middle are taken a whole step ahead: it is half a step.": stepped(
                f, start, time, steps, at=(1.0, 1.0, 1.0)
            ),
            "The fourth slope is taken half a step ahead: it is a whole step.": stepped(
                f, start, time, steps, at=(0.5, 0.5, 0.5)
            ),
            "One step too many is taken.": stepped(f, start, time / steps * (steps + 1), steps + 1),
            "One step too few is taken.": stepped(f, start, time / steps * (steps - 1), steps - 1),
            "No step is taken.": start,
            "The first slope is that of the first state in all steps: evaluate the field anew in each.": stepped(
                f, start, time, steps, first=f(start)
            ),
        }


### END HIDDEN TESTS


@inputs
def wrong_ahead(_, field, time):
    """The states of known mistakes in three steps."""
    ### BEGIN HIDDEN TESTS
    return wrong_states(field, time, 3)
    ### END HIDDEN TESTS


@inputs
def wrong_back(_, field, time):
    """The states of known mistakes in four steps back."""
    ### BEGIN HIDDEN TESTS
    return wrong_states(field, -time, 4)
    ### END HIDDEN TESTS


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


### BEGIN HIDDEN TESTS
# These come before 6b, with which a stand-in for `integrate` is sent.
@inputs
def fields(rng):
    """A state of one component and a single step, an array, a negative time, float32, and two of the same shape."""

    def drawn(width, hidden, shape, time, steps):
        inner = torch.from_numpy(rng.standard_normal((hidden, width)))
        return {
            "outer": torch.from_numpy(rng.standard_normal((width, hidden))),
            "inner": inner / torch.linalg.matrix_norm(inner, 2),
            "offset": torch.from_numpy(rng.standard_normal(hidden)),
            "start": torch.from_numpy(rng.standard_normal(shape)),
            "slope": torch.from_numpy(rng.standard_normal(shape)),
            "time": time,
            "steps": steps,
        }

    first, second = (drawn(3, 2, (2, 3), 0.7, 5) for _ in range(2))
    single = {name: item.float() if isinstance(item, torch.Tensor) else item for name, item in first.items()}
    return {
        "smallest": drawn(1, 1, (1,), 0.5, 1),
        "array": drawn(2, 3, (2, 1, 2), 0.8, 2),
        "back": drawn(2, 3, (2, 2), -1, 2),
        "single": single,
        "first": first,
        "second": second,
        "interrupted": second,
        "again": first,
    }


BACK = "The result is wrong where the time is negative."
ARRAY = "The result is wrong for a state with three axes: the state may have any shape."


@exercise(
    "6a",
    points=0.25,
    needs=(test_steps_of_runge_kutta, test_backwards_in_time),
    hint="The state may have any shape, and must stay as it is: do not add to it in place.",
)
def test_states_of_several_fields(run, fields):
    """`integrate` is right for a single step, for other shapes, for float32, and call after call."""
    got, want = run(several_states, fields)
    judge_calls(got, want, 1e-6, 1e-6)
    cases = {"interrupted": AGAIN, "single": SINGLE, "back": BACK, "array": ARRAY, "smallest": SMALLEST}
    judge_cases(got, want, cases, 1e-6, 1e-6)


### END HIDDEN TESTS


### BEGIN HIDDEN TESTS
def wrong_adjoints(case, time):
    """The gradients of known mistakes of `adjoint`: of the first state, of the parameters, and of both."""
    f = field_of(case)
    parameters = [f.outer, f.inner, f.offset]
    with torch.no_grad():
        first = stepped(f, case["start"], -time, 100)
        ahead = stepped(f, case["start"], time, 100)
    end = stepped(f, ahead.requires_grad_(), -time, 100)
    forward = torch.autograd.grad(end, [ahead, *parameters], case["slope"])
    z = case["start"].clone().requires_grad_()
    still = torch.autograd.grad(f(z), parameters, case["slope"])

    def solved(state, multiplier, fixed=False):
        """The adjoint with other factors of the equations of z and λ; fixed: whether the products are with λ(T)."""
        sizes = [item.numel() for item in (case["start"], case["slope"], *parameters)]

        def backwards(vector):
            z, found, *_ = vector.split(sizes)
            with torch.enable_grad():
                z = z.view_as(case["start"]).requires_grad_()
                value = f(z)
                found = case["slope"] if fixed else found.view_as(z)
                products = torch.autograd.grad(value, [z, *parameters], found)
            changes = [state * value.detach(), multiplier * products[0], *(-product for product in products[1:])]
            return torch.cat([change.flatten() for change in changes])

        vector = torch.cat([case["start"].flatten(), case["slope"].flatten(), torch.zeros(sum(sizes[2:]))])
        with torch.no_grad():
            _, found, *integrals = stepped(backwards, vector, -time, 20).split(sizes)
        shaped = [item.view_as(parameter) for item, parameter in zip(integrals, parameters, strict=True)]
        return {"start": found.view_as(case["start"]), "parameters": shaped}

    return {
        "start": {
            "λ does not change on the way back: solve its equation together with that of the state.": case["slope"],
            "The first value is the state at time 0: return ∂C/∂z(0).": first,
        },
        "parameters": {"The integral is missing: this is its integrand at T.": list(still)},
        "both": {
            "The state stays at z(T) on the way back: solve its equation together with the others.": solved(0.0, -1.0),
            "The equation of λ has the wrong sign: dλ/dt is minus the product.": solved(1.0, 1.0),
            "The products are taken with ∂C/∂z(T) all the way: take them with λ(t), which changes.": solved(
                1.0, -1.0, fixed=True
            ),
            "The equations are solved forward in time: start at T with a negative time.": {
                "start": forward[0],
                "parameters": list(forward[1:]),
            },
        },
    }


### END HIDDEN TESTS


@inputs
def wrong_gradients(_, field, time):
    """The gradients of known mistakes of `adjoint`."""
    ### BEGIN HIDDEN TESTS
    return wrong_adjoints(field, time)
    ### END HIDDEN TESTS


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
    ### BEGIN HIDDEN TESTS
    rate, steps = 0.1, 4

    def descended(rate, steps, cost_of=lambda value: value.square().sum(), longest=torch.inf):
        f, z = field_of(resting), resting["start"].clone()
        for _ in range(steps):
            z.requires_grad_()
            cost = cost_of(f(z) - z)
            slope = torch.autograd.grad(cost, z)[0]
            z = z.detach() - rate * slope * min(1.0, longest / float(slope.norm()))
        return z.detach()

    f, z = field_of(resting), resting["start"].clone()
    with torch.no_grad():
        for _ in range(steps):
            z = z + rate * (f(z) - z)
    return {
        "The steps go up: subtract the gradient.": descended(-rate, steps),
        "The steps follow the field: minimise ‖f(z)‖² instead.": z,
        "The norm is minimised, not its square.": descended(rate, steps, lambda value: value.norm()),
        "The norm of each state is minimised, not its square.": descended(
            rate, steps, lambda value: value.norm(dim=1).sum()
        ),
        "The sum of f(z) is minimised: square it first.": descended(rate, steps, lambda value: value.sum()),
        "This is the mean of the squares: take the sum.": descended(rate / resting["start"].numel(), steps),
        "This is the mean over the states: take the sum.": descended(rate / len(resting["start"]), steps),
        "This is the mean over the components: take the sum.": descended(rate / resting["start"].shape[1], steps),
        "The gradient is halved: minimise ‖f(z)‖², not half of it.": descended(rate / 2, steps),
        "A step too few is taken.": descended(rate, steps - 1),
        "A single step is taken.": descended(rate, 1),
        "The gradient is clipped: take it as it is.": descended(rate, steps, longest=1.0),
    }
    ### END HIDDEN TESTS


@exercise("6c", points=1, public=True, hint="z ← z - rate · ∇‖f(z)‖², with the sum of squares.")
def test_steps_of_the_descent(run, resting, wrong_rests):
    """`settle` takes steps of gradient descent on ‖f(z)‖²."""
    got, want = run(state_at_rest, resting, 0.1, 4)
    assert_close(got, want, mistakes=wrong_rests)


### BEGIN HIDDEN TESTS
@exercise(
    "6b",
    points=0.25,
    seconds=20,
    needs=(test_gradients_of_the_adjoint,),
    hint="Solve with as many steps as are given, and keep no states: detach what the field returns.",
)
def test_work_and_memory_of_the_adjoint(run, field, time, wrong_gradients):
    """`adjoint` takes as many steps as are given, and its memory does not grow with them."""
    got, want = run(adjoint_with_few_and_many_steps, field, time)
    judge_adjoint(got, want, lambda: wrong_gradients)


@exercise(
    "6b",
    points=0.25,
    seconds=20,
    needs=(test_gradients_of_the_adjoint,),
    hint="The parameters, `end` and `slope` must stay as they are, also where the field raises an exception.",
)
def test_adjoints_of_several_fields(run, fields):
    """`adjoint` is right for other shapes, for float32, and call after call, and changes nothing."""
    got, want = run(several_adjoints, fields)
    # Another method than RK4 may be used: ten steps of the midpoint rule for each differ by 1e-4.
    judge_calls(got, want, 1e-3, 1e-3)
    judge_cases(got, want, {"single": SINGLE, "back": BACK, "array": ARRAY, "smallest": SMALLEST}, 1e-3, 1e-3)


@exercise(
    "6c",
    points=0.25,
    needs=(test_steps_of_the_descent,),
    hint="The parameters and the first state must stay as they are, also where the field raises an exception.",
)
def test_states_at_rest_of_several_fields(run, fields):
    """`settle` is right for other shapes, for float32, and call after call, and changes nothing."""
    got, want = run(several_states_at_rest, fields)
    judge_calls(got, want)
    judge_cases(got, want, {"back": SIZES, "single": SINGLE, "array": ARRAY, "smallest": SMALLEST})


@inputs
def single(rng):
    """A field with another number of parameters, and a state that is a vector."""
    return {
        "outer": torch.from_numpy(rng.standard_normal((2, 3))),
        "inner": torch.from_numpy(rng.standard_normal((3, 2))),
        "offset": torch.from_numpy(rng.standard_normal(3)),
        "start": torch.from_numpy(rng.standard_normal(2)),
        "slope": torch.from_numpy(rng.standard_normal(2)),
    }


@exercise("6b", points=0.25, seconds=20, hint="The state may have any shape: take it from `end`.")
def test_adjoint_of_a_vector(run, single, time):
    """`adjoint` is right for a state that is a single vector."""
    got, want = run(adjoint_of, single, time, 20)
    assert_either_way(got, want, lambda got, want: judge_adjoint(got, want, lambda: wrong_adjoints(single, time)))


@exercise("6c", points=0.25, hint="Take as many steps as are given.")
def test_state_is_at_rest(run, resting):
    """After many steps, the state does not change any more."""
    got, want = run(state_at_rest, resting, 0.1, 300)
    f = field_of(resting)
    with torch.no_grad():
        if got.shape == want.shape and not (f(got.double()) - got).norm() < 1e-3:
            fail("The state is not at rest after many steps: take all, each down the gradient of ‖f(z)‖².")
    # After 300 steps, the distance from the state at rest is below 1e-6 of that at the start.
    assert_close(got, want)


### END HIDDEN TESTS
