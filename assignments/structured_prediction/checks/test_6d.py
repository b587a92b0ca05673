"""6d: the best CTC path. The oracle lists all of them and adds up."""

import numpy as np
import torch
from oracles import blanked, ctc_moves, ctc_paths, least, sums
from stand_ins import as_tensor, create_ctc_graph, find_path, path_energy, replaced

from ebmcourse.checking import Mismatch, assert_close, assert_either_way, exercise, fail, inputs, probe, ways
from ebmcourse.data.words import BETWEEN


@inputs
def energies(rng):
    return torch.from_numpy(2 * rng.standard_normal((3, 8, 27)).astype(np.float32))


@inputs
def targets(rng):
    """Plain letters of different number, in no order."""
    letters = rng.permutation(26).tolist()
    return [letters[:3], letters[3:5], letters[5:9]]


@inputs
def double_letters(rng):
    a, b, c = rng.permutation(26)[:3].tolist()
    return [[a, b, b], [c, c], [b, b, a]]


@inputs
def lengths(rng):
    return torch.from_numpy(rng.permutation([5, 6, 8]))


@probe
def decoded(student, energies, targets, lengths):
    """Scores and paths of all words; with any graph of the student's."""
    module = student.structured_prediction

    def attempt():
        scores, paths = module.viterbi(energies.clone(), [list(row) for row in targets], lengths)
        return {"scores": as_tensor(scores), "paths": [as_tensor(path) for path in paths]}

    def isolated():
        with replaced(module, create_ctc_graph=create_ctc_graph, find_path=find_path, path_energy=path_energy):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


def matrices(energies, targets, lengths):
    """The matrix (L, S) of every word over the states of its blanked target."""
    return [item[:length, blanked(row, BETWEEN)] for item, row, length in zip(energies, targets, lengths, strict=True)]


def judge_scores(got, energies, targets, lengths):
    def best(matrix, row, **rules):
        return least(matrix, ctc_paths(len(matrix), row, **rules))

    def each(function):
        found = [
            function(matrix, row) for matrix, row in zip(matrices(energies, targets, lengths), targets, strict=True)
        ]
        return torch.stack(found).float()

    right = each(best)
    assert_close(
        got["scores"],
        right,
        mistakes={
            "The sign is wrong: the score is the energy of the best path.": -right,
            "These are sums over all paths: take the best path alone.": each(
                lambda matrix, row: -(-sums(matrix, ctc_paths(len(matrix), row))).logsumexp(0)
            ),
            "These are the energies of the worst paths: gtn looks for the largest score, so give it -energies.": each(
                lambda matrix, row: -best(-matrix, row)
            ),
            "Gtn looks for the largest score: give it -energies, and turn the sign back.": each(
                lambda matrix, row: best(-matrix, row)
            ),
            "These are energies per window: the score is the sum along the path.": right
            / torch.tensor([len(matrix) for matrix in matrices(energies, targets, lengths)]),
            "Windows beyond `input_lengths` count.": torch.stack(
                [best(item[:, blanked(row, BETWEEN)], row) for item, row in zip(energies, targets, strict=True)]
            ).float(),
            "The best path must begin and end with a blank here: both may be left out.": each(
                lambda matrix, row: best(matrix, row, first=(0,), last=(-1,))
            ),
            "The energies are normalised: the score is the sum of the energies as they are.": right
            + torch.stack(
                [(-item[:length]).logsumexp(1).sum() for item, length in zip(energies, lengths, strict=True)]
            ),
        },
    )


def judge_paths(got, energies, targets, lengths):
    if len(got["paths"]) != len(targets):
        fail("There must be one path for every word.")
    for path, row, matrix in zip(got["paths"], targets, matrices(energies, targets, lengths), strict=True):
        frames, states = matrix.shape
        if not isinstance(path, torch.Tensor) or path.dim() != 1:
            raise Mismatch("A path must be a list of positions.")
        path = path.double().round().long()
        if len(path) != frames:
            fail("A path must have one position for every window of its word.")
        shifted = is_best(path + 1, row, matrix) or is_best(path - 1, row, matrix)
        best = ctc_paths(frames, row)
        labels = torch.tensor(blanked(row, BETWEEN))[best[sums(matrix, best).argmin()]]
        if torch.equal(path, labels):
            fail("These are the classes along the path; the positions in the blanked target are asked for.")
        if is_best(path, row, matrix):
            continue
        if shifted:
            fail("The positions are one off: 0 is the blank before the first letter, and letter k has 2k + 1.")
        if path.min() < 0 or path.max() >= states:
            fail("A position lies outside of the blanked target.")
        if torch.equal(path.flip(0), path.sort().values) and len(row) > 1:
            fail("The path runs backwards.")
        wrong_blank = (path % 2 == 0) != (labels == BETWEEN)
        if not wrong_blank.any():
            fail("Letters are at wrong positions: letter k of the word has 2k + 1, whatever letter it is.")
        if not is_path(path, row):
            fail("This is no path: positions stay, advance by one, or leave out the blank between different letters.")
        fail("This is a path, but not the one of least energy.")


def is_path(path, row):
    moves = ctc_moves(tuple(row))
    inside = all(0 <= state < len(moves) for state in path.tolist())
    steps = zip(path.tolist(), path.tolist()[1:], strict=False)
    return inside and path[0] <= 1 and path[-1] >= len(moves) - 2 and all(b in moves[a] for a, b in steps)


def is_best(path, row, matrix):
    if not is_path(path, row):
        return False
    best = least(matrix, ctc_paths(len(matrix), row))
    return bool(sums(matrix, path[None])[0] <= best + 1e-4 * (1 + best.abs()))


@exercise(
    "6d", points=1, public=True, seconds=30, hint="The least sum of energies over the paths that read as the target."
)
def test_energies_of_the_best_paths(run, energies, targets):
    """`viterbi` returns the energy of every word's best path, (B,)."""
    got, want = run(decoded, energies, targets, None)
    assert_either_way(got, want, lambda got, want: judge_scores(got, energies, targets, [8] * 3))


@exercise(
    "6d",
    points=1,
    public=True,
    seconds=30,
    hint="0 is the blank before the first letter, 2k + 1 is letter k of the word.",
)
def test_positions_of_the_best_paths(run, energies, targets):
    """`viterbi` returns the position in the blanked target of every window on the best path."""
    got, want = run(decoded, energies, targets, None)
    assert_either_way(got, want, lambda got, want: judge_paths(got, energies, targets, [8] * 3))
