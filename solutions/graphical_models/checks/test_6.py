"""6: neural differential equations."""

import torch
from stand_ins import Field, integrate, replaced

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
    inner = torch.from_numpy(rng.standard_normal((2, 2)))
    return {
        "outer": torch.eye(2, dtype=torch.float64),
        "inner": 0.5 * inner / torch.linalg.matrix_norm(inner, 2),
        "offset": torch.from_numpy(rng.uniform(0.5, 1.0, 2)),
        "start": torch.from_numpy(2 * rng.standard_normal((2, 2))),
    }


@probe
def field_of(case):
    return Field(case["outer"], case["inner"], case["offset"])


@probe
def state_after(student, case, time, steps):
    """The last state, and the derivative of its sum with respect to the first."""
    f, start = field_of(case), case["start"].clone().requires_grad_()
    end = student.graphical_models.integrate(f, start, time, steps)
    require(isinstance(end, torch.Tensor), "`integrate` returns a tensor.")
    slope = torch.autograd.grad(end.sum(), start, allow_unused=True)[0] if end.requires_grad else None
    require(slope is not None, "Gradients do not flow through the steps: make new tensors, without `no_grad`.")
    return {"end": end.detach(), "slope": slope, "calls": f.calls}


@probe
def adjoint_of(student, case, time, steps):
    """The gradients of the adjoint, by the program as it is and with a stand-in for `integrate`."""
    module = student.graphical_models

    def attempt():
        f = field_of(case)
        parameters = [f.outer, f.inner, f.offset]
        found = module.adjoint(f, parameters, case["start"].clone(), case["slope"].clone(), time, steps)
        require(isinstance(found, tuple) and len(found) == 2, "`adjoint` returns two values: a tensor and a list.")
        return {"start": found[0], "parameters": list(found[1])}

    def isolated():
        with replaced(module, integrate=integrate):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@probe
def state_at_rest(student, case, rate, steps):
    f = field_of(case)
    found = student.graphical_models.settle(lambda z: f(z) - z, case["start"].clone(), rate, steps)
    require(isinstance(found, torch.Tensor), "`settle` returns a tensor.")
    require(
        f.inner.grad is None, "The parameters of the field collect gradients: differentiate with respect to z only."
    )
    return found


def stepped(f, z, time, steps, weights=(1, 2, 2, 1), at=(0.5, 0.5, 1.0)):
    """Steps of a Runge-Kutta method with these weights."""
    h = time / steps
    for _ in range(steps):
        k1 = f(z)
        k2 = f(z + h * at[0] * k1)
        k3 = f(z + h * at[1] * k2)
        k4 = f(z + h * at[2] * k3)
        z = z + h / 6 * sum(w * k for w, k in zip(weights, (k1, k2, k3, k4), strict=True))
    return z


def judge_state(got, want, case, time, steps):
    def mistakes():
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
                "The fourth slope is taken half a step ahead: it is a whole step.": stepped(
                    f, start, time, steps, at=(0.5, 0.5, 0.5)
                ),
            }

    assert_close(got["end"], want["end"], rtol=1e-6, atol=1e-7, mistakes=mistakes)
    assert_close(got["slope"], want["slope"], rtol=1e-6, atol=1e-7)
    if got["calls"] != want["calls"]:
        fail("The state is right, but the field is not evaluated four times in each step.")


@exercise("6a", points=1, public=True, hint="The step is time / steps; four slopes with the weights 1, 2, 2, 1.")
def test_steps_of_runge_kutta(run, field, time):
    """`integrate` takes steps of RK4, through which gradients flow."""
    got, want = run(state_after, field, time, 3)
    judge_state(got, want, field, time, 3)


@exercise("6a", points=0.5, public=True, hint="A negative time gives a negative step.")
def test_backwards_in_time(run, field, time):
    """`integrate` goes back in time where the time is negative."""
    got, want = run(state_after, field, -time, 4)
    judge_state(got, want, field, -time, 4)


def judge_adjoint(got, want, case, time):
    def mistakes():
        f = field_of(case)
        parameters = [f.outer, f.inner, f.offset]
        with torch.no_grad():
            first = stepped(f, case["start"], -time, 100)
            ahead = stepped(f, case["start"], time, 100)
        end = stepped(f, ahead.requires_grad_(), -time, 100)
        forward = torch.autograd.grad(end, [ahead, *parameters], case["slope"])
        z = case["start"].clone().requires_grad_()
        still = torch.autograd.grad(f(z), parameters, case["slope"])
        return {
            "The signs of the gradients of the parameters are wrong: going back, the integral grows.": {
                "start": want["start"],
                "parameters": [-item for item in want["parameters"]],
            },
            "λ does not change on the way back: solve its equation together with that of the state.": {
                "start": case["slope"],
                "parameters": want["parameters"],
            },
            "The equations are solved forward in time: start at T with a negative time.": {
                "start": forward[0],
                "parameters": list(forward[1:]),
            },
            "The integral is missing: this is its integrand at T.": {
                "start": want["start"],
                "parameters": list(still),
            },
            "The first value is the state at time 0: return ∂C/∂z(0).": {
                "start": first,
                "parameters": want["parameters"],
            },
        }

    # With 60 steps of RK4, gradients differ from the exact ones by less than 1e-5; wrong ones by more than 0.01.
    assert_close(got, want, rtol=1e-3, atol=1e-4, mistakes=mistakes)


@exercise("6b", points=1.5, public=True, seconds=20, hint="z, λ and the integral of λ · ∂f/∂w, from T back to 0.")
def test_gradients_of_the_adjoint(run, field, time):
    """`adjoint` returns the gradients with respect to the first state and the parameters."""
    got, want = run(adjoint_of, field, time, 60)
    assert_either_way(got, want, lambda got, want: judge_adjoint(got, want, field, time))


def judge_rest(got, want, case, rate, steps):
    def descended(rate, steps, power=2):
        f, z = field_of(case), case["start"].clone()
        for _ in range(steps):
            z.requires_grad_()
            value = f(z) - z
            cost = value.square().sum() if power == 2 else value.square().sum().sqrt()
            z = z.detach() - rate * torch.autograd.grad(cost, z)[0]
        return z.detach()

    def mistakes():
        f, z = field_of(case), case["start"].clone()
        with torch.no_grad():
            for _ in range(steps):
                z = z + rate * (f(z) - z)
        return {
            "The steps go up: subtract the gradient.": descended(-rate, steps),
            "The steps follow the field: minimise ‖f(z)‖² instead.": z,
            "The norm is minimised, not its square.": descended(rate, steps, 1),
            "This is the mean of the squares: take the sum.": descended(rate / case["start"].numel(), steps),
            "The gradient is halved: minimise ‖f(z)‖², not half of it.": descended(rate / 2, steps),
            "A step too few is taken.": descended(rate, steps - 1),
            "A single step is taken.": descended(rate, 1),
        }

    assert_close(got, want, mistakes=mistakes)


@exercise("6c", points=1, public=True, hint="z ← z - rate · ∇‖f(z)‖², with the sum of squares.")
def test_steps_of_the_descent(run, resting):
    """`settle` takes steps of gradient descent on ‖f(z)‖²."""
    got, want = run(state_at_rest, resting, 0.1, 4)
    judge_rest(got, want, resting, 0.1, 4)


### BEGIN HIDDEN TESTS
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


@exercise("6b", points=0.5, seconds=20, hint="The state may have any shape: take it from `end`.")
def test_adjoint_of_a_vector(run, single, time):
    """`adjoint` is right for a state that is a single vector."""
    got, want = run(adjoint_of, single, time, 60)
    assert_either_way(got, want, lambda got, want: judge_adjoint(got, want, single, time))


@exercise("6c", points=0.5, hint="Take as many steps as are given.")
def test_state_is_at_rest(run, resting):
    """After many steps, the state does not change any more."""
    got, want = run(state_at_rest, resting, 0.1, 300)
    f = field_of(resting)
    with torch.no_grad():
        if got.shape == want.shape and not (f(got.double()) - got).norm() < 1e-3:
            fail("The state is not at rest: take as many steps as are given.")
    # After 300 steps, the distance from the state at rest is below 1e-6 of that at the start.
    assert_close(got, want)


### END HIDDEN TESTS
