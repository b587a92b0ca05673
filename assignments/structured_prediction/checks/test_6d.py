"""6d: the best CTC path. The oracle lists all paths and adds up their energies."""

import numpy as np
import torch
from oracles import blanked, ctc_moves, ctc_paths, explanation, judge_ways, least, sums
from stand_ins import as_tensor, create_ctc_graph, find_path, path_energy, refusal, replaced

from ebmcourse.checking import Mismatch, assert_close, exercise, fail, inputs, probe, require, ways
from ebmcourse.checking.compare import difference
from ebmcourse.data.words import BETWEEN

OTHER_BLANK = 4


@inputs
def energies(rng):
    return torch.from_numpy(2 * rng.standard_normal((3, 8, 27)).astype(np.float32))


@inputs
def targets(rng):
    """Plain letters in random order, of different lengths."""
    letters = rng.permutation(26).tolist()
    return [letters[:3], letters[3:5], letters[5:9]]


@inputs
def double_letters(rng):
    a, b, c = rng.permutation(26)[:3].tolist()
    return [[a, b, b], [c, c], [b, a, b]]


@inputs
def padded(rng):
    """Energies of 30 classes, plain letters for another blank, and numbers of windows, all smaller than eight.

    One letter is 0, and the last word has a single letter and a single window.
    """
    letters = rng.permutation(np.setdiff1d(np.arange(1, 27), [OTHER_BLANK])).tolist()
    return {
        "energies": torch.from_numpy(2 * rng.standard_normal((3, 8, 30)).astype(np.float32)),
        "targets": [[letters[0], 0, letters[1]], letters[2:6], letters[6:7]],
        "lengths": torch.from_numpy(np.append(rng.permutation([5, 6, 7])[:2], 1)),
    }


@probe
def decoded(student, energies, targets, lengths, blank):
    """Energies and paths of all words, for the program as it is, and with a stand-in for the graph.

    blank: None for the default arguments
    """
    module = student.structured_prediction

    def call(energies):
        given = [energies.clone(), [list(row) for row in targets]]
        return module.viterbi(*given, *([] if blank is None else [lengths, blank]))

    def attempt():
        try:
            scores, paths = call(energies)
        except NotImplementedError:
            raise
        except Exception:
            require(
                energies.shape[2] == 27 or refusal(lambda: call(energies[:, :, :27]))["type"] != "",
                "The function stops for 30 classes, although it works for 27: take their number from the energies.",
            )
            raise
        require(
            not (isinstance(paths, torch.Tensor) and paths.is_floating_point() and isinstance(scores, tuple | list)),
            "The values of `viterbi` are in another order: the energies first, then the paths.",
        )
        is_tensor = isinstance(scores, torch.Tensor)
        found = [as_tensor(path) for path in paths]
        found = [path if isinstance(path, torch.Tensor) else torch.zeros(0) for path in found]
        return {"scores": as_tensor(scores), "is_tensor": is_tensor, "paths": found}

    def find_path_of_graph(pm):
        require(
            pm.shape[0] >= pm.shape[1],
            "`find_path` gets fewer windows than targets. It leaves out no target, but the blanks are optional in the "
            "graph of `create_ctc_graph`.",
        )
        return find_path(pm)

    def isolated():
        stand_ins = {"find_path": find_path_of_graph, "path_energy": path_energy}
        with replaced(module, create_ctc_graph=create_ctc_graph, **stand_ins):
            return attempt()

    return ways(whole=attempt, isolated=isolated)


def matrices(energies, targets, lengths, blank=BETWEEN):
    """The matrix (L, S) of each word over the states of its blanked target."""
    return [item[:length, blanked(row, blank)] for item, row, length in zip(energies, targets, lengths, strict=True)]


NO_BLANK_LEFT_OUT = (
    "No path leaves out a blank between two different letters: these blanks are optional in the graph of "
    "`create_ctc_graph`, unlike in `find_path`."
)


OF_BETWEEN = "These are energies of paths with BETWEEN as the blank: use `blank_idx`, also in `create_ctc_graph`."


def judge_scores(got, energies, targets, lengths, blank=BETWEEN):
    def best(matrix, row, **rules):
        return least(matrix, ctc_paths(len(matrix), row, **rules))

    words = list(zip(matrices(energies, targets, lengths, blank), targets, strict=True))

    def each(function):
        return torch.stack([function(matrix, row) for matrix, row in words]).float()

    right = each(best)
    assert_close(
        got["scores"],
        right,
        mistakes={
            "The sign is wrong: return the energies of the best paths.": -right,
            "These are sums over all paths: use the best path only.": each(
                lambda matrix, row: -(-sums(matrix, ctc_paths(len(matrix), row))).logsumexp(0)
            ),
            "These are the energies of the worst paths: gtn finds the largest score, so pass -energies.": each(
                lambda matrix, row: -best(-matrix, row)
            ),
            "The paths are the worst ones and the sign is wrong: pass -energies to gtn, and negate the score.": each(
                lambda matrix, row: best(-matrix, row)
            ),
            "These are mean energies per window: return the sum along the path.": right
            / torch.tensor([len(matrix) for matrix, _ in words]),
            "Windows beyond `input_lengths` are included: they must not count.": torch.stack(
                [best(item[:, blanked(row, blank)], row) for item, row in zip(energies, targets, strict=True)]
            ).float(),
            OF_BETWEEN: torch.stack(
                [best(m, row) for m, row in zip(matrices(energies, targets, lengths), targets, strict=True)]
            ).float(),
            "All words are aligned with the energies of the first image: each word has its own.": torch.stack(
                [best(energies[0, : len(m)][:, blanked(row, blank)], row) for m, row in words]
            ).float(),
            NO_BLANK_LEFT_OUT: each(lambda matrix, row: best(matrix, row, skips="none")),
            "Every path begins and ends with a blank: both blanks are optional.": each(
                lambda matrix, row: best(matrix, row, first=(0,), last=(-1,))
            ),
            "The energies are normalised: sum them unchanged.": right
            + torch.stack(
                [(-item[:length]).logsumexp(1).sum() for item, length in zip(energies, lengths, strict=True)]
            ),
        },
    )


def judge_paths(got, energies, targets, lengths, blank=BETWEEN):
    if len(got["paths"]) != len(targets):
        fail("There must be one path for each word.")
    words = zip(got["paths"], targets, energies, matrices(energies, targets, lengths, blank), strict=True)
    for number, (path, row, item, matrix) in enumerate(words):
        frames, states = matrix.shape
        if not isinstance(path, torch.Tensor) or path.dim() != 1:
            raise Mismatch("A path must be a list of positions.")
        path = path.double().round().long()
        if len(path) == len(item) > frames:
            fail("There are positions for windows beyond `input_lengths`: a path has one for each window of its word.")
        if len(path) != frames:
            fail("A path must be a list of positions, one for each window of its word.")
        shifted = is_best(path + 1, row, matrix) or is_best(path - 1, row, matrix)
        best_ways = ctc_paths(frames, row)
        states_of_best = best_ways[sums(matrix, best_ways).argmin()]
        labels = torch.tensor(blanked(row, blank))[states_of_best]
        if is_best(path, row, matrix):
            continue
        if torch.equal(path, labels):
            fail("These are the classes along the path: return the positions in the blanked target.")
        if sentence := about_positions(got["paths"], energies, targets, lengths, blank):
            fail(sentence)
        if sentence := about_best_paths(got["paths"], energies, targets, lengths, blank):
            fail(sentence)
        if shifted:
            fail(
                "The positions of a word are off by one: 0 is the blank before the first letter, letter k is at 2k + 1."
            )
        if torch.equal(path.flip(0), path.sort().values) and path[0] > path[-1]:
            fail("The path runs backwards: reverse it.")
        differences = path - states_of_best
        if differences.min() == differences.max():
            fail("The positions of a word are shifted: for each word, 0 is the blank before its first letter.")
        if has_energy(got["scores"], number, least(matrix, best_ways)):  # so the labels along the path are right
            is_letter = states_of_best % 2 == 1
            if not differences[is_letter].any():
                fail(
                    "The letters of a word are at the right positions, but blanks are not: after letter k comes 2k + 2."
                )
            if not differences[~is_letter].any() and states_of_best[~is_letter].any():
                fail("The blanks of a word are at the right positions, but letters are not: letter k is at 2k + 1.")
            fail(
                "The energy is that of the best path, but the positions are not: along the path, a new blank is at the "
                "next position, and a new letter at the next position of a letter."
            )
        if path.min() < 0 or path.max() >= states:
            fail("A position is outside the blanked target.")
        if path[0] > 1:
            fail("The path begins after the first letter: it must begin at its position, 1, or at 0, the blank before.")
        if path[-1] < states - 2:
            fail(
                "The path ends before the last letter: it must end at its position, 2N - 1, or at 2N, the blank after."
            )
        if not is_path(path, row):
            fail("This is not a path: positions stay, advance by one, or skip the blank between different letters.")
        fail("This is a path but not the one of least energy.")


def about_best_paths(paths, energies, targets, lengths, blank):
    """For which other energies or moves the paths of all words are the best ones; None where this is unknown."""
    rights = matrices(energies, targets, lengths, blank)
    first = matrices(energies[:1].expand_as(energies), targets, lengths, blank)

    def are_best(found, **rules):
        words = zip(paths, targets, found, strict=True)
        return all(path.shape == m.shape[:1] and is_best(path.long(), row, m, **rules) for path, row, m in words)

    if blank != BETWEEN and are_best(matrices(energies, targets, lengths)):
        return "`blank_idx` is ignored in the graph: the blank is not always BETWEEN."
    if are_best(first):
        return "All words are aligned with the energies of the first image: each word has its own."
    if are_best(rights, skips="none"):
        return NO_BLANK_LEFT_OUT
    if are_best([-matrix for matrix in rights]):
        return "These are the paths of the largest energy: gtn finds the largest score, so pass -energies."
    return None


def about_positions(paths, energies, targets, lengths, blank):
    """The one mistake that explains the paths of all words; None if there is none."""
    rights, mistakes = [], []
    for row, matrix in zip(targets, matrices(energies, targets, lengths, blank), strict=True):
        ways = ctc_paths(len(matrix), row)
        rights.append(ways[sums(matrix, ways).argmin()])
        labels = torch.tensor(blanked(row, blank))[rights[-1]]
        mistakes.append(wrong_positions(rights[-1], labels, row, blank))
    return explanation(paths, rights, mistakes)


def has_energy(scores, number, right):
    """Whether the energy of the word with this number is right."""
    if not isinstance(scores, torch.Tensor) or scores.dim() != 1 or len(scores) <= number:
        return False
    return difference(scores[number].double(), right, 1e-4, 1e-4) is None


def wrong_positions(states, labels, row, blank):
    """The results of known mistakes for the best path with these states and labels."""

    def counted(step=2, blank=blank, *, at_first=None, of_blanks=1, from_blanks=None, before="label"):
        """The positions if each new label advances by `step`, or by `of_blanks` from and to the blank.

        from_blanks: by how much a letter after a blank advances, if it is another number
        before: each is compared with the "label" before, with the last "letter", or with "nothing"
        at_first: the label before the first, by default the blank
        """
        position, last, found = 0, blank if at_first is None else at_first, []
        for label in labels.tolist():
            if label != last:
                advance = of_blanks if blank in (label, last) else step
                position += from_blanks if from_blanks and last == blank else advance
            found.append(position)
            if before == "label" or (before == "letter" and label != blank):
                last = label
        return torch.tensor(found)

    def by_parity(*, at_first=blank, before="label"):
        """The positions if a new blank advances by one, and a new letter to the next odd position, as in `counted`."""
        position, last, found = 0, at_first, []
        for label in labels.tolist():
            if label != last:
                position += 2 if label != blank and position % 2 else 1
            found.append(position)
            last = label if before == "label" else last
        return torch.tensor(found)

    def first_of_its_kind():
        """The positions if each letter is looked up in the word, and a blank follows the letter before."""
        position, found = 0, []
        for label in labels.tolist():
            position = 2 * row.index(label) + 1 if label != blank else position + position % 2
            found.append(position)
        return torch.tensor(found)

    blanks = "From and to a blank," if blank == BETWEEN else "The blank is `blank_idx`, not BETWEEN: from and to it,"
    first = [
        2 * row.index(label) + 1 if label != blank else s
        for s, label in zip(states.tolist(), labels.tolist(), strict=True)
    ]
    return {
        "These are the numbers of the letters: letter k is at position 2k + 1, and the blanks have positions, too.": (
            states // 2
        ),
        "From letter to letter, a path advances by two positions: it skips the blank between them.": counted(1),
        "A path that begins with a letter begins at position 1, that of this letter.": (
            states - 1 if states[0] == 1 else states
        ),
        "The positions are counted with BETWEEN: the blank is `blank_idx`.": counted(blank=BETWEEN),
        "A label is compared with the last letter: compare it with the label before, also where that is a blank.": (
            counted(before="letter")
        ),
        "The label before is never set: compare each label with that of the window before.": [
            counted(before="nothing"),
            by_parity(before="nothing"),
        ],
        "The label before the first window counts as a blank: a first blank has the position 0, a first letter 1.": [
            counted(at_first=-1),
            by_parity(at_first=-1),
        ],
        f"{blanks} a path advances by one position, and by two only from letter to letter.": [
            counted(2, of_blanks=2),
            counted(1, of_blanks=2),
            counted(from_blanks=2),
            counted(blank=BETWEEN, at_first=blank),
        ],
        "All blanks have the position 0: the blank after letter k is at 2k + 2.": torch.where(
            states % 2 == 0, 0, states
        ),
        "These are the numbers of the windows: return the position of each in the blanked target.": torch.arange(
            len(states)
        ),
        "Letters are at wrong positions: letter k of the word is at 2k + 1, also if the same letter occurs before.": [
            torch.tensor(first),
            first_of_its_kind(),
        ],
    }


def is_path(path, row):
    moves = ctc_moves(tuple(row))
    inside = all(0 <= state < len(moves) for state in path.tolist())
    steps = zip(path.tolist(), path.tolist()[1:], strict=False)
    return inside and path[0] <= 1 and path[-1] >= len(moves) - 2 and all(b in moves[a] for a, b in steps)


def is_best(path, row, matrix, **rules):
    if not is_path(path, row):
        return False
    best = least(matrix, ctc_paths(len(matrix), row, **rules))
    return bool(best.isfinite() and sums(matrix, path[None])[0] <= best + 1e-4 * (1 + best.abs()))


@exercise(
    "6d", points=1, public=True, seconds=30, hint="The least sum of energies over the paths that read as the target."
)
def test_energies_of_the_best_paths(run, energies, targets):
    """`viterbi` returns the energy of each word's best path, shape (B,)."""
    got, want = run(decoded, energies, targets, None, BETWEEN)

    def judge(got, want):
        if isinstance(got["scores"], torch.Tensor) and not got["scores"].is_floating_point():
            fail("The energies are whole numbers: keep what comes after the point.")
        judge_scores(got, energies, targets, [8] * 3)
        if got["is_tensor"] is not True:
            fail("The energies must be a tensor of shape (B,), not a list.")

    judge_ways(got, want, judge)


@exercise(
    "6d",
    points=1,
    public=True,
    seconds=30,
    hint="0 is the blank before the first letter, 2k + 1 is letter k of the word.",
)
def test_positions_of_the_best_paths(run, energies, targets):
    """`viterbi` returns the position of each window on the best path through the blanked target."""
    got, want = run(decoded, energies, targets, None, BETWEEN)
    judge_ways(got, want, lambda got, want: judge_paths(got, energies, targets, [8] * 3))
