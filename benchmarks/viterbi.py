"""`lattice.viterbi` compared with the exercise's nested loop and with itself at B = 1; `lexicon_decode`."""

import random
from collections.abc import Callable
from string import ascii_lowercase

import torch
from torch import Tensor

from benchmarks.timing import milliseconds, print_table, row
from ebmcourse.lattice import Alignment, Trie, ctc_align, lexicon_decode, viterbi

FRAMES, TARGETS, CLASSES = 20, 10, 27


def nested_loop(pm: Tensor) -> tuple[Tensor, list[int]]:
    """The loop of the exercise for one (L, T) matrix, over frames and positions, on torch scalars."""
    frames, positions = pm.shape
    least = torch.full((frames, positions), float("inf"))
    came_from = [[0] * positions for _ in range(frames)]
    least[0, 0] = pm[0, 0]
    for i in range(1, frames):
        least[i, 0] = least[i - 1, 0] + pm[i, 0]
    for i in range(1, frames):
        for j in range(1, positions):
            stay, step = least[i - 1, j], least[i - 1, j - 1]
            if stay < step:
                least[i, j] = stay + pm[i, j]
                came_from[i][j] = j
            else:
                least[i, j] = step + pm[i, j]
                came_from[i][j] = j - 1
    path = [positions - 1]
    for i in range(frames - 1, 0, -1):
        path.append(came_from[i][path[-1]])
    return least[-1, -1], path[::-1]


def nested_loops(energies: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The nested loop over a batch: energies (B, L, C), targets (B, T)."""
    matrices = energies.gather(2, targets[:, None].expand(-1, energies.shape[1], -1))
    found = [nested_loop(pm) for pm in matrices]
    return torch.stack([energy for energy, _ in found]), torch.tensor([path for _, path in found])


def problem(batch: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(batch)
    return torch.randn(batch, FRAMES, CLASSES), torch.randint(0, CLASSES, (batch, TARGETS))


def training_step(batch: int) -> Callable[[], None]:
    energies, targets = problem(batch)
    energies.requires_grad_()

    def step() -> None:
        energies.grad = None
        viterbi(energies, targets).energy.sum().backward()

    return step


def lexicon_row(size: int, seconds: float) -> dict:
    """One word image, exact decoding compared with scoring every word of the lexicon by itself."""
    rng = random.Random(0)
    words: set[str] = set()
    while len(words) < size:
        words.add("".join(rng.choices(ascii_lowercase, k=rng.randint(2, 8))))
    ordered = sorted(words)
    trie = Trie(ordered)
    lengths = [len(word) for word in ordered]
    targets = torch.zeros(size, max(lengths), dtype=torch.long)
    for codes, word in zip(targets, ordered, strict=True):
        codes[: len(word)] = torch.tensor([ascii_lowercase.index(letter) for letter in word])
    torch.manual_seed(0)
    log_probs = torch.randn(1, 32, CLASSES).log_softmax(dim=-1)

    def decode() -> str:
        return lexicon_decode(-log_probs, trie).words[0]

    def score_all() -> str:
        every: Alignment = ctc_align(log_probs.expand(size, -1, -1), targets, None, lengths)
        return ordered[int(every.energy.argmin())]

    assert decode() == score_all()
    ours, peer = milliseconds(decode, score_all, seconds=seconds)
    return row(f"lexicon_decode, {size} words, one image of 32 frames", ours, "ctc_align of every word", peer)


def run(quick: bool = False) -> list[dict]:
    seconds = 0.2 if quick else 2.0
    energies, targets = problem(32)
    found, (least, paths) = viterbi(energies, targets), nested_loops(energies, targets)
    torch.testing.assert_close(found.energy, least)
    assert torch.equal(found.path, paths)
    ours, peer = milliseconds(
        lambda: viterbi(energies, targets), lambda: nested_loops(energies, targets), seconds=seconds
    )
    many, one = milliseconds(training_step(64), training_step(1), seconds=seconds)
    return [
        row(f"viterbi, B=32, L={FRAMES}, T={TARGETS}", ours, "nested loop on torch scalars", peer),
        row("viterbi, forward + backward, B=64", many, "the same, B=1", one),
        lexicon_row(1000 if quick else 5000, seconds),
    ]


if __name__ == "__main__":
    print_table("Viterbi, float32", run())
