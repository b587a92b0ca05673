"""4: the energy of a path, and the best path. The oracle lists all paths and adds up their energies."""

from functools import partial

import numpy as np
import torch
from oracles import INFINITY, alignments, judge_refusal, least, sums
from oracles import ways as ways_of
from stand_ins import as_tensor, path_energy, refusal, replaced

from ebmcourse import lattice
from ebmcourse.checking import (
    Mismatch,
    Panel,
    assert_close,
    assert_either_way,
    drawing,
    exercise,
    fail,
    inputs,
    probe,
    require,
    ways,
)
from ebmcourse.checking.compare import difference


@inputs
def pm(rng):
    """Windows × targets (7, 4), without ties."""
    return torch.from_numpy(3 * rng.standard_normal((7, 4)).astype(np.float32))


@inputs
def valid_paths(rng):
    """Six valid paths of 7 windows over 4 targets."""
    paths = alignments(7, 4)
    return paths[torch.from_numpy(rng.permutation(len(paths))[:6])].tolist()


@inputs
def broken_paths(rng):
    """Paths of 7 windows over 4 targets with a single mistake each."""
    return {
        "late": [1, 1, 1, 1, 2, 3, 3],
        "early": [0, 0, 1, 1, 2, 2, 2],
        "back": [0, 1, 2, 1, 2, 3, 3],
        "skip": [0, 0, 1, 3, 3, 3, 3],
        "jump": [0, 2, 2, 2, 3, 3, 3],
        "short": [0, 1, 1, 2, 2, 3],
        "long": [0, 1, 1, 2, 2, 3, 3, 3],
        "outside": [0, 1, 2, 3, 3, 3, 4],
        "negative": [0, 1, 2, 3, 3, 3, -1],
        "empty": [],
    }


@probe
def energies_of_paths(student, pm, paths, broken, kind):
    """The energies of valid and of broken paths, which are given as a "list" or as a "tuple".

    broken: 0 instead of the energy where an exception is raised
    raised: the types of these exceptions, or "nothing"
    scalars: whether the energies of broken paths are tensors without axes
    """
    energy = student.structured_prediction.path_energy
    sequence = {"list": list, "tuple": tuple}[kind]
    valid = [energy(pm.clone(), sequence(path)) for path in paths]
    infinite, raised = {}, {}
    for name, path in broken.items():
        found = [torch.tensor(0.0)]
        call = partial(energy, pm.clone(), sequence(path))
        raised[name] = refusal(lambda call=call, found=found: found.append(call()))["type"] or "nothing"
        infinite[name] = found[-1]
    return {
        "valid": [as_tensor(value) for value in valid],
        "broken": {name: as_tensor(value) for name, value in infinite.items()},
        "raised": raised,
        "scalars": all(isinstance(value, torch.Tensor) and value.dim() == 0 for value in infinite.values()),
    }


def judge_valid_paths(got, pm, paths, kind="list"):
    infinite = {
        "list": "A valid path has infinite energy: valid paths start at 0, stay or advance by one, and end at T - 1.",
        "tuple": "A valid path that is given as a tuple has infinite energy: accept lists and tuples.",
    }
    for value, path in zip(got, paths, strict=True):
        path = torch.tensor(path)
        right = sums(pm, path[None])[0].float()
        square = pm[:4]
        turned = [square[j % 4, i % 4] for i, j in enumerate(path.tolist())]
        assert_close(
            value,
            right,
            mistakes={
                infinite[kind]: torch.tensor(INFINITY),
                "This is the mean along the path: the energy is the sum.": right / len(path),
                "The energy of the first window is missing.": right - pm[0, path[0]],
                "The energy of the last window is missing.": right - pm[-1, path[-1]],
                "Windows and targets are swapped: the path has one target for each window.": sum(turned),
                "The sign is wrong: this is minus the energy.": -right,
                "There is an extra axis: the energy is a tensor without axes.": right[None],
                "These are the energies of the windows: return their sum.": pm[torch.arange(len(path)), path],
            },
        )


def judge_broken_paths(got, names):
    kinds = {
        "late": "a path that does not start at target 0",
        "early": "a path that does not end at the last target",
        "back": "a path that goes back",
        "skip": "a path that skips a target",
        "jump": "a path that skips the second target",
        "short": "a path with fewer entries than windows",
        "long": "a path with more entries than windows",
        "outside": "a path with a position beyond the last target",
        "negative": "a path with a negative position",
        "empty": "an empty path",
    }
    sentences = {
        "late": "A path that does not start at target 0 counts as valid.",
        "early": "A path that does not end at the last target counts as valid.",
        "back": "A path that goes back counts as valid.",
        "skip": "A path that skips a target counts as valid: it may advance by at most one from window to window.",
        "jump": "A path that skips the second target counts as valid: check the first step, too.",
        "short": "A path with fewer entries than windows counts as valid.",
        "long": "A path with more entries than windows counts as valid.",
        "outside": "A path with a position beyond the last target counts as valid.",
        "negative": "A path with a negative position counts as valid: Python counts these from the end.",
        "empty": "An empty path counts as valid.",
    }
    for name in names:
        if got["raised"][name] != "nothing":
            fail(f"There is an exception for {kinds[name]}: its energy is infinite. Check a path before you use it.")
        value = got["broken"][name]
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise Mismatch("The energy of a path that is not valid must be a single number, infinity.")
        if value.item() in (2.0**30, 2.0**31, 1e9, 1e10) or 1e6 < value.item() < INFINITY:
            fail("A large number is not infinity: use float('inf').")
        if value.item() != INFINITY:
            fail(sentences[name])


@exercise("4a", points=1, public=True, hint="The sum of pm[i, path[i]] over all windows i.")
def test_energy_of_a_path(run, pm, valid_paths):
    """`path_energy` returns the sum of the energies along a valid path."""
    got, _ = run(energies_of_paths, pm, valid_paths, {}, "list")
    judge_valid_paths(got["valid"], pm, valid_paths)


@exercise(
    "4a",
    points=0.5,
    public=True,
    hint="Return infinity for a path that does not start at 0, does not end at T - 1, or goes back.",
)
def test_a_path_runs_from_the_first_to_the_last_target(run, pm, valid_paths, broken_paths):
    """A path that starts late, ends early or goes back has infinite energy."""
    names = ("late", "early", "back")
    got, _ = run(energies_of_paths, pm, valid_paths, {name: broken_paths[name] for name in names}, "list")
    judge_valid_paths(got["valid"], pm, valid_paths)
    judge_broken_paths(got, names)
    if got["scalars"] is not True:
        fail("Infinity must be a tensor without axes, like the other energies: `pm.new_tensor(float('inf'))`.")


@inputs
def matrices(rng):
    """Matrices (L, T) without ties, L ≥ T; three have the same shape.

    In the last, the best path is at target 0 up to window 5, although the ways to the last target at windows 3 and 4
    have less energy: the last column must not be taken for the one before the first.
    """
    shapes = ((9, 4), (8, 5), (6, 6), (5, 1), (7, 2), (9, 4), (1, 1), (9, 4))
    found = [torch.from_numpy(3 * rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    found[-1][:6, 1:3] += 30
    found[-1][3:5, 3] -= 100
    found[-1][5:8, 3] += 300
    return found


@inputs
def even_matrices(rng):
    """Matrices (L, T) of small integers, in which many paths are equally good; in the first, all paths are."""
    shapes = ((8, 4), (9, 4), (7, 3), (8, 5), (6, 4), (9, 5))
    return [
        torch.from_numpy(rng.integers(0, 2 if number else 1, shape).astype(np.float32)) + 1
        for number, shape in enumerate(shapes)
    ]


@inputs
def narrow(rng):
    """A matrix with fewer windows than targets."""
    frames, labels = int(rng.integers(4, 7)), int(rng.integers(11, 17))
    return torch.from_numpy(rng.standard_normal((frames, labels)).astype(np.float32))


@probe
def plain_points(points):
    """Points (i, j) given as tuples, lists or tensors, as a tensor (N, 2)."""
    rows = [torch.as_tensor(point).flatten().tolist() for point in points]
    require(all(len(row) == 2 for row in rows), "The path must be a list of points (i, j), one for each window.")
    return torch.tensor(rows).reshape(len(rows), -1)


@probe
def found_by(module, pm):
    """The energy, the points and the table of `find_path`."""
    try:
        found = module.find_path(pm)
    except ValueError:
        require(
            pm.shape[0] != pm.shape[1],
            "`find_path` raises a ValueError for as many windows as targets: then there is one valid path.",
        )
        raise
    require(
        isinstance(found, tuple | list) and len(found) == 3,
        "`find_path` must return three values: the free energy, the points, and the table.",
    )
    return found


@probe
def best_paths(student, matrices):
    """The energy and the points that `find_path` returns for each matrix; also with a stand-in for `path_energy`."""
    module = student.structured_prediction

    def attempt():
        found = []
        for matrix in matrices:
            energy, points, _ = found_by(module, matrix.clone())
            is_tensor = isinstance(energy, torch.Tensor)
            found.append({"energy": as_tensor(energy), "is_tensor": is_tensor, "points": plain_points(points)})
        return found

    def isolated():
        with replaced(module, path_energy=path_energy):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@drawing("4b", "The path that your `find_path` returns (rows: windows, columns: targets; dark: low energy).")
def path_through_a_table(run):
    windows, targets = np.mgrid[:12, :6]
    table = abs(targets - 5 / 11 * windows) + 0.6 * np.random.default_rng(1).random((12, 6))
    mine, right = (seen["whole"][0]["points"] for seen in run(best_paths, [torch.tensor(table, dtype=torch.float32)]))
    return [Panel("Yours", table, mine), Panel("A best path", table, right)]


FIRST_COLUMN = (
    "Column 0 of the table is not filled: a path may stay at target 0, so dp[i, 0] = dp[i - 1, 0] + pm[i, 0]."
)


def wrong_minima(pm):
    """The results of known mistakes for the least energy of all paths through pm (L, T)."""
    frames, states = pm.shape
    everywhere = range(states)
    around = tuple((state, (state + 1) % states) for state in everywhere)
    paths = alignments(frames, states)
    wrong = {
        FIRST_COLUMN: least(pm, paths[paths[:, min(1, frames - 1)] == 1]),
        "The path may end anywhere in the last row: it must end at the last target, T - 1.": least(
            pm, alignments(frames, states, last=everywhere)
        ),
        "The path may start anywhere in the first row: it must start at target 0.": least(
            pm, alignments(frames, states, first=everywhere)
        ),
        "The path may start and end anywhere: it must lead from target 0 to target T - 1.": least(
            pm, alignments(frames, states, first=everywhere, last=everywhere)
        ),
        "The first row contains a running sum: in the first window, only target 0 can be reached.": least(
            torch.cat([pm[:1].cumsum(1), pm[1:]]), alignments(frames, states, first=everywhere)
        ),
        "The path may skip targets: it must stay or advance by one from window to window.": least(
            pm, alignments(frames, states, steps=range(states))
        ),
        "The path may skip a single target: it must stay or advance by one from window to window.": least(
            pm, alignments(frames, states, steps=(0, 1, 2))
        ),
        "The last column is taken for the one before the first: target 0 has none before it.": least(
            pm, ways_of(frames, (0,), (states - 1,), around)
        ),
        "This is the energy of the worst path: take the minimum, not the maximum.": -least(
            -pm, alignments(frames, states)
        ),
        "This is an arg min: the free energy is the minimum itself.": sums(pm, alignments(frames, states))
        .argmin()
        .double(),
        "This is the position of the last target: the free energy is the energy of the path.": (
            torch.tensor(states - 1.0)
        ),
        "This is the mean along the best path: the energy is the sum.": least(pm, alignments(frames, states)) / frames,
        "The sign is wrong: this is minus the energy of the best path.": -least(pm, alignments(frames, states)),
        "The energy of the first window is missing.": least(pm, alignments(frames, states)) - pm[0, 0],
        "This is the free energy at β = 1, with a sum over all paths: take the minimum.": -(
            -sums(pm, alignments(frames, states))
        ).logsumexp(0),
        "This is the sum of the minima of the windows: the targets must follow one another.": pm.amin(1).sum(),
    }
    return {name: value.float() for name, value in wrong.items()}


@exercise("4b", points=1, public=True, hint="The least energy of all paths from target 0 to target T - 1.")
def test_least_energy_of_all_paths(run, matrices):
    """`find_path` returns the least energy of all valid paths."""
    got, want = run(best_paths, matrices)

    def judge(got, want):
        for found, pm in zip(got, matrices, strict=True):
            judge_dtype(found["energy"])
            assert_close(found["energy"], least(pm, alignments(*pm.shape)).float(), mistakes=partial(wrong_minima, pm))
            if found["is_tensor"] is not True:
                fail("The free energy must be a tensor without axes, not a number.")

    assert_either_way(got, want, judge)


def judge_dtype(energies):
    if not energies.is_floating_point():
        fail("The table holds whole numbers, which cut off the energies: make it with `torch.full_like(pm, inf)`.")


def judge_points(found, pm):
    """Fail unless the points are those of one of the best paths."""
    judge_dtype(found["energy"])
    points = found["points"].long()
    frames, states = pm.shape
    if points.dim() != 2 or points.shape[1:] != (2,):
        fail("The path must be a list of points (i, j), one for each window.")
    if points.shape[0] != frames:
        fail("The path must have one point for each window.")
    numbers = torch.arange(frames)
    i, j = points[:, 0], points[:, 1]
    if not torch.equal(i, numbers):
        if torch.equal(i, numbers.flip(0)):
            fail("The path runs backwards: reverse it after backtracking.")
        if torch.equal(j, numbers):
            fail("The points are (target, window): (window, target) is expected.")
        fail("The points must be those of the windows 0, 1, … in this order.")
    if j.min() < 0 or j.max() >= states:
        fail("The path contains a target that does not exist.")
    steps = j[1:] - j[:-1]
    if len(steps) and steps.min() < 0:
        fail("The path goes back: a later window cannot belong to an earlier target. How are ties broken?")
    if len(steps) and steps.max() > 1:
        fail("The path skips a target: backtrack along the moves that gave the minima.")
    if j[-1] != states - 1:
        fail("The path does not end at the last target: backtrack from T - 1, not from the minimum of the last row.")
    if j[0] != 0:
        fail("The path does not start at target 0: in the first window, no other target can be reached.")
    energy, best = sums(pm, j[None])[0], least(pm, alignments(frames, states))
    if energy > best + 1e-4 * (1 + best.abs()):
        if difference(found["energy"], energy.float(), 1e-4, 1e-4) is None:
            fail("The path has the energy that is returned, but it is not the best one: the table is wrong.")
        fail("The path is valid but not the best one: backtrack along the moves that gave the minima.")


@exercise("4b", points=1, public=True, hint="Backtrack from (L - 1, T - 1) along the moves that gave the minima.")
def test_points_of_the_best_path(run, matrices):
    """`find_path` returns the points (i, j) of the best path, from (0, 0) to (L - 1, T - 1)."""
    got, want = run(best_paths, matrices)

    def judge(got, want):
        for found, pm in zip(got, matrices, strict=True):
            judge_points(found, pm)

    assert_either_way(got, want, judge)
