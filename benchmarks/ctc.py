"""`lattice.ctc_loss` compared with torch's and, where it is installed, gtn's: forward and backward."""

from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.timing import milliseconds, print_table, row
from ebmcourse.lattice import ctc_loss

BATCH, CLASSES, BLANK = 32, 27, 26
SIZES = [(16, 3), (55, 5), (320, 40)]  # frames, letters


def torch_peer(log_probs: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    frames_first = log_probs.detach().transpose(0, 1).contiguous().requires_grad_()
    lengths = [torch.full((BATCH,), n) for n in (log_probs.shape[1], targets.shape[1])]

    def step() -> Tensor:
        frames_first.grad = None
        loss = torch.nn.functional.ctc_loss(frames_first, targets, *lengths, blank=BLANK)
        loss.backward()
        return loss

    return step


def our_step(log_probs: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    log_probs = log_probs.detach().requires_grad_()

    def step() -> Tensor:
        log_probs.grad = None
        loss = ctc_loss(log_probs, targets, blank=BLANK)
        loss.backward()
        return loss

    return step


def gtn_peer(gtn: ModuleType, log_probs: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    """The loss as the course writes it for automata: emissions ∘ CTC graph, item by item."""
    frames, letters = log_probs.shape[1], targets.shape[1]
    words = targets.tolist()

    def automaton(word: list[int]) -> object:
        graph = gtn.Graph(False)
        states = 2 * len(word) + 1
        for state in range(states):
            graph.add_node(state == 0, state >= states - 2)
            label = word[state // 2] if state % 2 else BLANK
            graph.add_arc(state, state, label)
            if state > 0:
                graph.add_arc(state - 1, state, label)
            if state % 2 and state > 1 and label != word[state // 2 - 1]:
                graph.add_arc(state - 2, state, label)
        graph.arc_sort(False)
        return graph

    def step() -> Tensor:
        losses = torch.empty(BATCH)
        gradient = torch.empty(BATCH, frames, CLASSES)

        def item(b: int) -> None:
            emissions = gtn.linear_graph(frames, CLASSES, True)
            emissions.set_weights(log_probs[b].data_ptr())
            loss = gtn.negate(gtn.forward_score(gtn.intersect(emissions, automaton(words[b]))))
            gtn.backward(loss, False)
            losses[b] = loss.item()
            gradient[b] = torch.from_numpy(emissions.grad().weights_to_numpy()).view(frames, CLASSES)

        gtn.parallel_for(item, range(BATCH))
        return (losses / letters).mean()

    return step


def run(quick: bool = False) -> list[dict]:
    rows = []
    for frames, letters in SIZES[: 2 if quick else 3]:
        torch.manual_seed(frames)
        log_probs = torch.randn(BATCH, frames, CLASSES).log_softmax(dim=-1)
        targets = torch.randint(0, BLANK, (BATCH, letters))
        peers = {"torch ctc_loss": torch_peer(log_probs, targets)}
        if find_spec("gtn"):
            import gtn

            peers["gtn (C++)"] = gtn_peer(gtn, log_probs, targets)
        ours = our_step(log_probs, targets)
        for peer in peers.values():
            torch.testing.assert_close(ours(), peer(), rtol=1e-4, atol=1e-4)
        own, *others = milliseconds(ours, *peers.values(), seconds=0.2 if quick else 2.0)
        case = f"ctc_loss, T={frames}, U={letters}"
        rows += [row(case, own, name, time) for name, time in zip(peers, others, strict=True)]
    return rows


if __name__ == "__main__":
    print_table("CTC loss, forward + backward, B=32, C=27, float32", run())
