"""4: the energy of a path, and the best path. The oracle lists all paths and adds up their energies."""

from functools import partial

import numpy as np
import torch
from oracles import INFINITY, alignments, explanation, judge_close, judge_refusal, least, sums
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
from ebmcourse.checking.observer import NoObservation


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
        "leap": [0, 0, 0, 1, 1, 1, 3],
        "short": [0, 1, 1, 2, 2, 3],
        "long": [0, 1, 1, 2, 2, 3, 3, 3],
        "outside": [0, 1, 2, 3, 3, 3, 4],
        "negative": [0, 1, 2, 3, 3, 3, -1],
        "beyond": [0, 1, 2, 3, 4, 3, 3],
        "below": [0, 0, -5, 1, 2, 3, 3],
        "empty": [],
    }


@probe
def energies_of_paths(student, pm, paths, broken, kind):
    """The energies of valid and of broken paths, which are given as a "list" or as a "tuple".

    broken: 0 instead of the energy where an exception is raised
    raised: the types of these exceptions, or "nothing"
    tensors: whether the energies of valid paths are tensors
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
    require(
        all(value is not None for value in infinite.values()),
        "Nothing (None) is returned for a path that is not valid: return infinity, as a tensor.",
    )
    return {
        "valid": [as_tensor(value) for value in valid],
        "tensors": all(isinstance(value, torch.Tensor) for value in valid),
        "broken": {name: as_tensor(value) for name, value in infinite.items()},
        "raised": raised,
        "scalars": all(isinstance(value, torch.Tensor) and value.dim() == 0 for value in infinite.values()),
    }


@probe
def single_paths(pm):
    """Parts of pm that have a single path: as many targets as windows, one target, one window and target."""
    targets = pm.shape[1]
    return {
        "T": (pm[:targets], list(range(targets))),
        "L": (pm[:3, :1], [0] * 3),
        "1": (pm[:1, :1], [0]),
    }


@probe
def energies_of_single_paths(student, pm):
    """The energies of the paths through parts of pm that have a single one."""
    energy = student.structured_prediction.path_energy
    found = {name: energy(part.clone(), path) for name, (part, path) in single_paths(pm).items()}
    return {name: as_tensor(value) for name, value in found.items()}


def wrong_sums(pm, path, kind):
    """The results of known mistakes for the energy of a valid path, which is given as a "list" or as a "tuple"."""
    infinite = {
        "list": "A valid path has infinite energy: valid paths start at 0, stay or advance by one, and end at T - 1.",
        "tuple": "A valid path that is given as a tuple has infinite energy: accept lists and tuples.",
    }
    path = torch.tensor(path)
    square = pm[:4]
    turned = [square[j % 4, i % 4] for i, j in enumerate(path.tolist())]
    along, columns = pm[torch.arange(len(path)), path], pm[:, path]
    right = along.sum()
    return {
        infinite[kind]: torch.tensor(INFINITY),
        "This is the mean along the path: the energy is the sum.": right / len(path),
        "The energy of the first window is missing.": right - pm[0, path[0]],
        "The energy of the last window is missing.": right - pm[-1, path[-1]],
        "Windows and targets are swapped: the path has one target for each window.": sum(turned),
        "The sign is wrong: this is minus the energy.": -right,
        "There is an extra axis: the energy is a tensor without axes.": right[None],
        "These are the energies of the windows: return their sum.": along,
        "These are running sums: return the sum over all windows.": along.cumsum(0),
        "Whole columns are summed: take one entry for each window, pm[i, path[i]].": columns.sum(),
        "Whole columns are returned: take one entry for each window, pm[i, path[i]].": columns,
        "Whole columns are summed, one for each window: take one entry, pm[i, path[i]].": columns.sum(0),
        "The columns of the path are summed for each window: take one entry, pm[i, path[i]].": columns.sum(1),
        "Each target counts once: add the energies of all windows, also where the path stays.": torch.stack(
            [along[i] for i in range(len(path)) if i == 0 or path[i] != path[i - 1]]
        ).sum(),
        "The whole matrix is summed: take one entry for each window, pm[i, path[i]].": pm.sum(),
        "The positions are summed: add the energies pm[i, path[i]].": path.sum().float(),
        "This is the least energy along the path: the energy is the sum.": along.min(),
        "This is the largest energy along the path: the energy is the sum.": along.max(),
        "This is the energy of the last window: add up those of all windows.": along[-1],
        "This is the energy of the first window: add up those of all windows.": along[0],
    }


def judge_valid_paths(got, pm, paths, kind="list"):
    rights = [sums(pm, torch.tensor([path]))[0].float() for path in paths]

    def mistakes(value):
        """The one mistake that explains the energies of all paths, not only this one."""
        sentence = explanation(got, rights, [wrong_sums(pm, path, kind) for path in paths])
        return {sentence: value} if sentence else {}

    for value, right in zip(got, rights, strict=True):
        judge_close(
            value,
            right,
            "The energy of a valid path is wrong: it is the sum of one entry for each window, pm[i, path[i]].",
            mistakes=partial(mistakes, value),
        )


def judge_broken_paths(got, names, broken):
    kinds = {
        "late": "a path that does not start at target 0",
        "early": "a path that does not end at the last target",
        "back": "a path that goes back",
        "skip": "a path that skips a target",
        "jump": "a path that skips the second target",
        "leap": "a path that skips a target in its last step",
        "short": "a path with fewer entries than windows",
        "long": "a path with more entries than windows",
        "outside": "a path with a position beyond the last target",
        "negative": "a path with a negative position",
        "beyond": "a path with a position beyond the last target",
        "below": "a path with a negative position",
        "empty": "an empty path",
    }
    advice = {
        "skip": ": it may advance by at most one from window to window",
        "jump": ": check the first step, too",
        "leap": ": check this step, too",
        "negative": ": Python counts these from the end",
    }
    for name in names:
        if got["raised"][name] != "nothing":
            fail(f"There is an exception for {kinds[name]}: its energy is infinite. Check a path before you use it.")
        value = got["broken"][name]
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise Mismatch("The energy of a path that is not valid must be a single number, infinity.")
        if value.isnan() or value == -INFINITY:
            fail("The energy of a path that is not valid is NaN or minus infinity: use float('inf').")
        if broken[name] and value.item() in (0, -1):
            fail("The energy of a path that is not valid is 0 or -1: use float('inf').")
        if value.item() in (2.0**30, 2.0**31, 1e9, 1e10) or 1e6 < value.item() < INFINITY:
            fail("A large number is not infinity: use float('inf').")
        if value.item() != INFINITY:
            kind = kinds[name]
            fail(f"{kind[0].upper()}{kind[1:]} counts as valid{advice.get(name, '')}.")


@exercise("4a", points=1, public=True, hint="The sum of pm[i, path[i]] over all windows i.")
def test_energy_of_a_path(run, pm, valid_paths):
    """`path_energy` returns the sum of the energies along a valid path."""
    got, _ = run(energies_of_paths, pm, valid_paths, {}, "list")
    judge_valid_paths(got["valid"], pm, valid_paths)
    if got["tensors"] is not True:
        fail("The energy of a path must be a tensor without axes, not a number.")


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
    judge_broken_paths(got, names, broken_paths)
    if got["scalars"] is not True:
        fail("Infinity must be a tensor without axes, like the other energies: `pm.new_tensor(float('inf'))`.")


### BEGIN HIDDEN TESTS
@exercise("4a", points=0.5, hint="Also check the length of the path, skipped targets, and positions that do not exist.")
def test_a_path_has_a_neighbouring_target_for_every_window(run, pm, valid_paths, broken_paths):
    """A path of the wrong length, with a skipped target or with a position that does not exist has infinite energy."""
    lists, _ = run(energies_of_paths, pm, valid_paths, {}, "list")
    judge_valid_paths(lists["valid"], pm, valid_paths)
    names = ("skip", "jump", "leap", "short", "long", "outside", "negative", "beyond", "below", "empty")
    got, _ = run(energies_of_paths, pm, valid_paths, {name: broken_paths[name] for name in names}, "tuple")
    judge_valid_paths(got["valid"], pm, valid_paths, "tuple")
    judge_broken_paths(got, names, broken_paths)
    single, _ = run(energies_of_single_paths, pm)
    sentences = {
        "1": "With a single window and a single target, the path [0] is valid, but its energy is not pm[0, 0].",
        "L": "With a single target, a path that stays at 0 is valid, but its energy is not that of column 0.",
        "T": "With as many windows as targets, a path that advances in each step is valid: its energy is wrong.",
    }
    for name, (matrix, path) in single_paths(pm).items():
        if difference(single[name], sums(matrix, torch.tensor([path]))[0].float(), 1e-4, 1e-5):
            fail(sentences[name])


### END HIDDEN TESTS


@inputs
def matrices(rng):
    """Matrices (L, T) without ties, L ≥ T; three have the same shape.

    In the last, the best path is at target 0 up to window 5, although the ways to the last target at windows 3 and 4
    have less energy: the last column must not be taken for the one before the first.
    """
    shapes = ((9, 4), (8, 5), (6, 6), (5, 1), (7, 2), (9, 4), (1, 1), (9, 4))
    found = [torch.from_numpy(3 * rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    found[0][0, 1:] -= 20  # it pays to start at another target,
    found[1][-1, :-1] -= 20  # or to end at one
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
    """Matrices with fewer windows than targets: with far fewer, and with one less."""
    frames, labels = int(rng.integers(4, 7)), int(rng.integers(13, 17))
    shapes = (frames, labels), (labels - 1, labels)
    return [torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


@probe
def plain_points(points):
    """Points (i, j) given as tuples, lists or tensors, as a tensor (N, 2)."""
    rows = [torch.as_tensor(point).flatten().tolist() for point in points]
    require(all(len(row) == 2 for row in rows), "The path must be a list of points (i, j), one for each window.")
    return torch.tensor(rows) if rows else torch.zeros(0, 2, dtype=torch.long)


@probe
def found_by(module, pm):
    """The energy, the points and the table of `find_path`."""
    try:
        found = module.find_path(pm)
    except ValueError:
        require(
            pm.shape[0] > 1 or pm.shape[0] != pm.shape[1],
            "`find_path` raises a ValueError for a single window with a single target: the point (0, 0) is a path.",
        )
        require(
            pm.shape[0] != pm.shape[1],
            "`find_path` raises a ValueError for as many windows as targets: then there is one valid path.",
        )
        require(
            pm.shape[1] != 1,
            "`find_path` raises a ValueError for a single target: the path that stays there is valid.",
        )
        raise
    require(
        isinstance(found, tuple | list) and len(found) == 3,
        "`find_path` must return three values: the free energy, the points, and the table.",
    )
    require(
        not isinstance(found[0], tuple | list)
        and not (
            isinstance(found[1], torch.Tensor)
            and found[1].shape == pm.shape
            and pm.shape[1] != 2
            and isinstance(found[2], tuple | list)
        ),
        "The values of `find_path` are in another order: the free energy first, then the points, then the table.",
    )
    return found


@probe
def finite_table(dp):
    """A table with large numbers in the place of infinity, so that no infinite entry of it costs the path."""
    return dp.detach().double().nan_to_num(-1e30, 1e30, -1e30) if isinstance(dp, torch.Tensor) else torch.zeros(0)


@probe
def best_paths(student, matrices):
    """What `find_path` returns for each matrix; also with a stand-in for `path_energy`."""
    module = student.structured_prediction

    def attempt():
        found = []
        for matrix in matrices:
            energy, points, dp = found_by(module, matrix.clone())
            seen = {"energy": as_tensor(energy), "is_tensor": isinstance(energy, torch.Tensor)}
            seen |= {"points": plain_points(points), "dp": finite_table(dp)}
            found.append(seen)
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
    "Column 0 of the table is infinite or 0 below its first entry: a path may stay at target 0, so dp[i, 0] = "
    "dp[i - 1, 0] + pm[i, 0]."
)
LAST_COLUMN = "The last column is taken for the one before the first: target 0 has none before it."


WHOLE_NUMBERS = (
    "The energies are whole numbers: a table of integers cuts them off. Make it with `torch.full_like(pm, inf)`."
)


def with_zeros(pm):
    """The least energies if what cannot be reached is 0: in the first row and to the left, or in one of both."""
    frames, states = pm.shape
    zeros = torch.cat([torch.cat([pm[:1, :1], torch.zeros_like(pm[:1, 1:])], dim=1), pm[1:]])
    from_above = least(zeros, alignments(frames, states, first=range(states)))
    later = [least(pm[start:], alignments(frames - start, states)).double() for start in range(1, frames)]
    from_left = torch.stack([least(pm, alignments(frames, states)), *later]).min()
    return [torch.minimum(from_above, from_left), from_above, from_left]


def greedy(pm):
    """The energy of the path that takes the cheaper of both moves wherever there is a choice."""
    frames, states = pm.shape
    j, total = 0, pm[0, 0].double()
    for i in range(1, frames):
        must_advance, may_advance = states - 1 - j >= frames - i, j < states - 1
        j += must_advance or (may_advance and bool(pm[i, j + 1] < pm[i, j]))
        total = total + pm[i, j]
    return total


def around(states):
    """The moves that stay or advance by one, from the last target to the first one, too."""
    return tuple((state, (state + 1) % states) for state in range(states))


def wrong_minima(pm):
    """The results of known mistakes for the least energy of all paths through pm (L, T)."""
    frames, states = pm.shape
    everywhere = range(states)
    paths = alignments(frames, states)
    wrong = {
        "No path stays at target 0: dp[i, 0] = dp[i - 1, 0] + pm[i, 0] is not infinite.": least(
            pm, paths[paths[:, min(1, frames - 1)] == 1]
        ),
        "The energy is the least one of the last row: it must be that of paths which end at the last target.": least(
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
        "The path may skip targets: it must stay or advance by one from window to window.": [
            least(pm, alignments(frames, states, steps=range(states))),
            least(pm, alignments(frames, states, steps=(0, 1, 2))),
        ],
        LAST_COLUMN: least(pm, ways_of(frames, (0,), (states - 1,), around(states))),
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
        "The energy of the last window is missing.": least(pm, alignments(frames, states)) - pm[-1, -1],
        "The energy of the first window counts twice.": least(pm, alignments(frames, states)) + pm[0, 0],
        "The path may go back: it must stay or advance by one from window to window.": least(
            pm, alignments(frames, states, steps=(-1, 0, 1))
        ),
        "The path is chosen greedily, move by move: compare the sums along all ways, with a table.": greedy(pm),
        "Entries that cannot be reached count as 0, which attracts paths: they must be infinite.": with_zeros(pm),
        "Only the energy of the first window counts: add pm[i, j] to the smaller one of both moves.": pm[0, 0],
        "The energies of the best moves are not added up: dp[i, j] adds pm[i, j] to the smaller of two sums.": pm[
            -1, -1
        ],
        "This is the free energy at β = 1, with a sum over all paths: take the minimum.": -(
            -sums(pm, alignments(frames, states))
        ).logsumexp(0),
        "This is the sum of the minima of the windows: the targets must follow one another.": pm.amin(1).sum(),
    }
    return {
        name: [item.float() for item in value] if isinstance(value, list) else value.float()
        for name, value in wrong.items()
    }


@exercise("4b", points=1, public=True, hint="The least energy of all paths from target 0 to target T - 1.")
def test_least_energy_of_all_paths(run, matrices):
    """`find_path` returns the least energy of all valid paths."""
    got, want = run(best_paths, matrices)

    rights = [least(pm, alignments(*pm.shape)).float() for pm in matrices]

    def judge(got, want):
        found = [item["energy"] for item in got]

        def mistakes(value):
            """The one mistake that explains all free energies, not only this value."""
            sentence = explanation(found, rights, [wrong_minima(pm) for pm in matrices])
            if sentence is None and any(is_of_another(number, found, rights, matrices) for number in range(len(found))):
                sentence = "The energy is that of an earlier matrix of the same shape: keep nothing from call to call."
            return {sentence: value} if sentence else {}

        for item, right, pm in zip(got, rights, matrices, strict=True):
            try:
                assert_close(item["energy"], right, mistakes=partial(mistakes, item["energy"]))
            except Mismatch as mismatch:
                if mismatch.diagnosis is None and item["energy"].shape == right.shape:
                    raise Mismatch(mismatch.reason, about_energy(item["energy"], item["dp"], pm)) from None
                raise
            judge_dtype(item["energy"])
            if item["is_tensor"] is not True:
                fail("The free energy must be a tensor without axes, not a number.")

    assert_either_way(got, want, judge)


def is_of_another(number, found, rights, matrices):
    """Whether the energy found for a matrix is that of an earlier one of the same shape."""
    earlier = [
        right for pm, right in zip(matrices[:number], rights, strict=False) if pm.shape == matrices[number].shape
    ]
    wrong = difference(found[number], rights[number], 1e-4, 1e-5) is not None
    return wrong and any(difference(found[number], right, 1e-4, 1e-5) is None for right in earlier)


def about_energy(energy, dp, pm):
    """How a wrong free energy and the table belong together; None where this is unknown.

    dp: the table, with large numbers in the place of infinity; without axes where there is none
    """
    if not energy.is_floating_point():
        return "The free energy is a whole number: what comes after the point is cut off."
    if not energy.isfinite():
        if dp.shape == pm.shape and dp[-1, -1].abs() >= 1e30:
            return (
                "The free energy is infinite or undefined, and so is the last entry of the table: first correct this."
            )
        return "The free energy is infinite or undefined, although there is a path: it is the last entry of dp."
    if dp.shape != pm.shape:
        return None
    if is_right(torch.where(dp >= 1e30, INFINITY, dp).float(), pm):
        return "The table is right, but the free energy is not its last entry, dp[L - 1, T - 1]."
    if difference(energy.double(), dp[-1, -1], 1e-4, 1e-5) is None:
        return "The free energy is the last entry of the table, but the table is wrong: first correct the table."
    return "The free energy is wrong, and is not the last entry of the table, dp[L - 1, T - 1]."


def judge_dtype(energies):
    if not energies.is_floating_point():
        fail(WHOLE_NUMBERS)


def judge_points(found, pm, ties=""):
    """Fail unless the points are those of one of the best paths; ties: a question about ties, where there are any."""
    points = found["points"].long()
    frames, states = pm.shape
    if points.dim() != 2 or points.shape[1:] != (2,):
        fail("The path must be a list of points (i, j), one for each window.")
    if found["points"].is_floating_point():
        fail("The points are not whole numbers: `best_labels` uses them as indices.")
    numbers = torch.arange(frames)
    i, j = points[:, 0], points[:, 1]
    for name, wanted in {"first": numbers[1:], "last": numbers[:-1]}.items():
        if frames > 1 and any(torch.equal(axis.sort().values, wanted) for axis in (i, j)):
            fail(f"The point of the {name} window is missing: the path must have one point for each window.")
    if points.shape[0] != frames:
        fail("The path must have one point for each window.")
    if not torch.equal(i, numbers):
        if torch.equal(i, numbers.flip(0)):
            fail("The path runs backwards: reverse it after backtracking.")
        if torch.equal(j, numbers):
            fail("The points are (target, window): (window, target) is expected.")
        if torch.equal(j, numbers.flip(0)):
            fail("The points are (target, window), and run backwards: (window, target) from the first is expected.")
        if torch.equal(i, numbers + 1):
            fail("The windows are counted from 1: the first point is (0, 0).")
        fail("The points must be those of the windows 0, 1, … in this order.")
    steps = j[1:] - j[:-1]
    is_valid = j[0] == 0 and j[-1] == states - 1 and bool(((steps == 0) | (steps == 1)).all())
    if not is_valid and not ties and (sentence := about_targets(j, pm)):
        fail(sentence)
    if j.min() < 0:
        fail("The path goes below target 0: index -1 is the last column, and at target 0 a path can only have stayed.")
    if j.max() >= states:
        fail("The path goes beyond the last target, T - 1.")
    if len(steps) and steps.min() < 0:
        fail(f"The path goes back: a later window cannot belong to an earlier target.{ties}")
    if len(steps) and steps.max() > 1:
        fail("The path skips a target: it may only stay or advance by one from window to window.")
    if j[-1] != states - 1:
        fail("The path does not end at the last target: begin the way back at (L - 1, T - 1).")
    if j[0] != 0:
        fail("The path does not start at target 0: in the first window, no other target can be reached.")
    energy, best = sums(pm, j[None])[0], least(pm, alignments(frames, states))
    if energy > best + 1e-4 * (1 + best.abs()):
        if difference(found["energy"], energy.float(), 1e-4, 1e-4) is None:
            fail("The path has the energy that is returned, but it is not the best one: another path has less energy.")
        if not ties and (sentence := about_targets(j, pm)):  # with ties, there are many best paths to be like
            fail(sentence)
        dp = found["dp"]
        if is_right(torch.where(dp >= 1e30, INFINITY, dp).float(), pm):
            fail("The table is right, but the path is not the best one: go back along the moves that gave the minima.")
        if dp.shape != pm.shape:
            fail("The path is valid but not the best one.")
        fail("The path is valid but not the best one, and the table is wrong, too: first correct the table.")


def about_targets(j, pm):
    """How the targets of a wrong path come from those of the best one; None where they do not."""
    paths = alignments(*pm.shape)
    best = paths[sums(pm, paths).argmin()]
    if len(best) == 1 or torch.equal(j, best):
        return None
    if torch.equal(j, best.flip(0)):
        return "The windows of the points run forwards, but their targets backwards: reverse these, too."
    if torch.equal(j, best + 1):
        return "The targets are counted from 1: the first point is (0, 0)."
    if torch.equal(j, best - 1):
        return "The targets of all points are too small by one: the first point is (0, 0)."
    if torch.equal(j[1:], best[:-1]):
        return (
            "The points have the targets of the window before: append each point before the step back from it, "
            "beginning with (L - 1, T - 1)."
        )
    if torch.equal(j[:-1], best[1:]):
        return (
            "The points have the targets of the window after: append each point after the step back to it, until "
            "(0, 0)."
        )
    return None


def table(pm, **rules):
    """The least energy of all ways to each entry, (L, T)."""
    frames, states = pm.shape
    entries = [
        least(pm[: i + 1, : j + 1], alignments(i + 1, j + 1, **rules)) for i in range(frames) for j in range(states)
    ]
    return torch.stack(entries).view(frames, states).float()


def no_way_on(frames, states):
    """Whether too few windows are left after each entry of the table for a path to the last target."""
    return states - 1 - torch.arange(states) > frames - 1 - torch.arange(frames)[:, None]


def is_right(dp, pm):
    """Whether a table is right; entries from which no valid path goes on may be infinite."""
    right = table(pm)
    if dp.shape != right.shape:
        return False
    dead = no_way_on(*pm.shape) & (dp == INFINITY)
    return difference(torch.where(dead, right, dp), right, 1e-4, 1e-5) is None


@exercise("4b", points=1, public=True, hint="Backtrack from (L - 1, T - 1) along the moves that gave the minima.")
def test_points_of_the_best_path(run, matrices):
    """`find_path` returns the points (i, j) of the best path, from (0, 0) to (L - 1, T - 1)."""
    got, want = run(best_paths, matrices)

    def judge(got, want):
        for found, pm in zip(got, matrices, strict=True):
            judge_points(found, pm)

    assert_either_way(got, want, judge)


### BEGIN HIDDEN TESTS
@probe
def tables(student, matrices):
    """The table that `find_path` returns for each matrix, and the matrix afterwards."""
    module = student.structured_prediction

    def attempt():
        found = []
        for matrix in matrices:
            given = matrix.clone()
            found.append({"dp": found_by(module, given)[2], "matrix": given})
        return found

    def isolated():
        with replaced(module, path_energy=path_energy):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@exercise("4b", points=0.75, hint="dp[i, j] is the least energy of all ways from (0, 0) to (i, j), or infinity.")
def test_table_of_least_energies(run, matrices):
    """The table of `find_path` contains the least energy of all ways to each entry, or infinity if there is none."""
    got, want = run(tables, matrices)

    def judge(got, want):
        for found, pm in zip(got, matrices, strict=True):
            judge_table(found["dp"], pm)
            if not torch.equal(found["matrix"], pm):
                fail("The argument `pm` was modified: fill a new table instead.")

    assert_either_way(got, want, judge)


def judge_table(dp, pm):
    if isinstance(dp, torch.Tensor) and dp.is_floating_point() and is_right(dp.double().float(), pm):
        return
    frames, states = pm.shape
    right = table(pm)
    with_border = ((frames + 1, states + 1), (frames + 1, states), (frames, states + 1))
    if isinstance(dp, torch.Tensor) and dp.shape in with_border:
        fail("The table has a row or column too many: return the entries of the L windows and T targets only.")
    if not isinstance(dp, torch.Tensor) or dp.shape != pm.shape:
        assert_close(dp, right, mistakes={"The table is transposed: (L, T) is expected.": right.T})
    judge_dtype(dp)
    dp = dp.double().float()
    for sentence, wrong in wrong_tables(pm, right).items():
        if difference(dp, wrong, 1e-4, 1e-5) is None and difference(wrong, right, 1e-4, 1e-5):
            fail(sentence)
    unreachable = right == INFINITY
    running, free = pm[0].cumsum(0), pm[0]
    if states > 1 and frames > 1:
        if torch.allclose(dp[0], running, atol=1e-4):
            fail("The first row contains a running sum: in the first window, only target 0 can be reached.")
        if torch.allclose(dp[0], free, atol=1e-4):
            fail("The first row is that of the matrix: in the first window, only target 0 can be reached.")
        column = dp[1 : frames - states + 1, 0]  # below it, a path can no longer reach the last target
        if (dp.flatten()[1:] == INFINITY).all():
            fail(
                "All entries of the table but dp[0, 0] are infinite: on and below the diagonal, each is pm[i, j] plus "
                "the smaller, not the larger, one of dp[i - 1, j] and dp[i - 1, j - 1]."
            )
        if len(column) and ((column == 0) | (column > 1e6)).all():
            fail(FIRST_COLUMN)
    if (dp[unreachable] == 0).any():
        fail("Entries that cannot be reached are 0, which attracts paths: they must be infinite.")
    if (dp[unreachable] > 1e3).all() and (dp[unreachable] < INFINITY).any():
        fail("A large number is not infinity: entries that cannot be reached must be float('inf').")
    if (dp[unreachable] != INFINITY).any():
        fail("Entries that cannot be reached, above the diagonal, must be infinite: no way leads there.")
    raise Mismatch(about_table(dp, pm))


def wrong_tables(pm, right):
    """The results of known mistakes for the table."""
    everywhere = range(pm.shape[1])
    turning = [
        [least(pm[: i + 1], ways_of(i + 1, (0,), (j,), around(pm.shape[1]))) for j in everywhere]
        for i in range(len(pm))
    ]
    return {
        LAST_COLUMN: torch.stack([torch.stack(row) for row in turning]).float(),
        "The energy of the first window is missing: dp[0, 0] = pm[0, 0].": right - pm[0, 0],
        "The energy of the first window counts twice: dp[0, 0] = pm[0, 0].": right + pm[0, 0],
        "The path may skip targets: the minimum is over dp[i - 1, j] and dp[i - 1, j - 1] only.": table(
            pm, steps=everywhere
        ),
        "The path may skip a single target: the minimum is over dp[i - 1, j] and dp[i - 1, j - 1] only.": table(
            pm, steps=(0, 1, 2)
        ),
        "These are the energies of the worst ways: take the minimum, not the maximum.": -table(-pm).where(
            right.isfinite(), -right
        ),
        "The entries lack their own energy: add pm[i, j] to the smaller of the two moves.": right - pm,
        "The table equals the matrix: add the least energy of the ways that lead to each entry.": pm,
        "The first column is not summed: a path may stay at target 0.": torch.cat([pm[:, :1], right[:, 1:]], 1),
        "The sign is wrong: these are the negated energies.": -right,
        "The table contains means along the ways: the energy is the sum.": (
            right / torch.arange(1, len(pm) + 1)[:, None]
        ),
    }


def about_table(dp, pm):
    """Where a wrong table does not follow from the row above."""
    above = torch.cat([torch.full_like(dp[:, :1], INFINITY), dp[:, :-1]], dim=1)[:-1]
    followed = torch.cat([dp[:1], pm[1:] + torch.minimum(dp[:-1], above)])
    if difference(dp[0], torch.cat([pm[0, :1], torch.full_like(pm[0, 1:], INFINITY)]), 1e-4, 1e-5):
        return "The first row of the table is wrong: dp[0, 0] = pm[0, 0], and the rest is infinite."
    wrong = (dp - followed).abs() > 1e-3 * (1 + followed.abs())
    wrong &= ~(no_way_on(*pm.shape) & (dp == INFINITY))
    if wrong[:, 0].any() and not wrong[:, 1:].any():
        return (
            "Only column 0 of the table does not follow from the row above: there, the path has stayed, so dp[i, 0] = "
            "dp[i - 1, 0] + pm[i, 0]."
        )
    rows = wrong.any(1)
    if len(rows) > 1 and rows[-1] and not rows[:-1].any():
        return "Only the last row of the table is wrong: does the loop over the windows end before i = L - 1?"
    return (
        "The first row of the table is right, but others are not: dp[i, j] is pm[i, j] plus the smaller one of "
        "dp[i - 1, j] and dp[i - 1, j - 1]."
    )


@probe
def refused(student, narrow, matrices):
    """The exception for too few windows, and the energies that are found if there are enough."""
    module = student.structured_prediction

    def attempt():
        energies = [as_tensor(found_by(module, matrix.clone())[0]) for matrix in matrices]
        refusals = [refusal(lambda matrix=matrix: module.find_path(matrix.clone())) for matrix in narrow]
        return {"narrow": refusals, "energies": energies}

    def isolated():
        with replaced(module, path_energy=path_energy):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


@exercise(
    "4b",
    points=0.5,
    seconds=5,
    needs=(test_least_energy_of_all_paths,),
    hint="If there are fewer windows than targets, raise a ValueError that names both numbers.",
)
def test_fewer_windows_than_targets(run, narrow, matrices):
    """With fewer windows than targets, `find_path` raises a ValueError that names both numbers."""
    got, want = run(refused, narrow, matrices[:3])

    def judge(got, want):
        forgotten = (
            "With fewer windows than targets there is no valid path: raise a ValueError.",
            "With one window less than targets there is no valid path: raise a ValueError here, too.",
        )
        for found, matrix, sentence in zip(got["narrow"], narrow, forgotten, strict=True):
            frames, labels = matrix.shape
            unnamed = "The message of the ValueError does not name both numbers, of windows and of targets."
            judge_refusal(found, [{frames}, {labels}], sentence, unnamed)
        # Whether the path is the best one is judged above. Sums of nine numbers in float32 differ by less than 1e-5;
        # a table of whole numbers cuts off less than 1 in each window.
        for energy, pm in zip(got["energies"], matrices[:3], strict=True):
            everywhere = range(pm.shape[1])
            paths = alignments(*pm.shape, first=everywhere, last=everywhere)
            tolerance = 1e-4 if energy.is_floating_point() else len(pm)
            if energy.numel() != 1 or (sums(pm, paths) - energy.double()).abs().min() > tolerance:
                fail("With enough windows, the free energy is not the sum of the energies along any path.")

    assert_either_way(got, want, judge)


@inputs
def long(rng):
    """A matrix for a long word, with more than 10^16 paths."""
    return torch.from_numpy(rng.standard_normal((60, 25)).astype(np.float32))


@exercise(
    "4b",
    points=0.25,
    seconds=5,
    needs=(test_least_energy_of_all_paths,),
    hint="Compute every entry of the table once: the time grows with L · T, not with the number of paths.",
)
def test_long_words(run, long):
    """`find_path` finds the path of least energy among more than 10^16 paths in little time."""
    try:
        got, want = run(best_paths, [long])
    except NoObservation as lost:
        if not lost.reason.startswith("No answer"):
            raise
        slow = (
            "No answer in time for a long word, which has more than 10^16 paths, although there is one for short ones: "
            "the time must grow with L · T, not with the number of paths, so compute each entry of the table once."
        )
        raise NoObservation(lost.status, slow) from None
    right = lattice.viterbi(long[None], torch.arange(long.shape[1])[None]).energy[0]

    def judge(got, want):
        # Which path is the best is judged above: here, the energy may also be that of another one.
        [found] = got
        points = found["points"].long()
        if points.shape != (len(long), 2):
            fail("The path of a long word must be a list of points (i, j), one for each window.")
        if points.min() < 0 or (points[:, 1] >= long.shape[1]).any():
            fail("A point (window, target) on the path of a long word has a target that does not exist.")
        own, energy = long.gather(1, points[:, 1:]).sum(), found["energy"]
        tolerance = 1e-3 if energy.is_floating_point() else len(long)  # whole numbers, which cost points above
        is_best, is_minimum = ((value - right).abs() <= tolerance for value in (own, energy))
        if (own - energy).abs() <= tolerance or (is_best and is_minimum):
            return
        if is_minimum and (long.gather(1, points.flip(0)[:, 1:]).sum() - right).abs() <= tolerance:
            fail("The targets of the path of a long word run backwards: the first point is (0, 0).")
        if is_minimum:
            fail("The free energy of a long word is right, but the path that is returned has another energy.")
        if is_best:
            fail("The path of a long word is the best one, but the free energy is not its energy.")
        fail("The energy and the path of a long word are wrong, and do not belong together.")

    assert_either_way(got, want, judge)


@exercise("4b", points=0.5, hint="If both moves are equally good, either is right, but the path must remain valid.")
def test_ties(run, even_matrices):
    """If several paths are equally good, `find_path` returns one of them."""
    got, want = run(best_paths, even_matrices)

    def judge(got, want):
        for found, pm in zip(got, even_matrices, strict=True):
            judge_points(found, pm, " How are ties broken?")
            # An axis too many is judged above.
            if difference(found["energy"].squeeze(), least(pm, alignments(*pm.shape)).float(), 1e-4, 1e-5):
                fail("A path is one of the best, but the free energy is not its energy.")

    assert_either_way(got, want, judge)


### END HIDDEN TESTS
