"""The course's loss on graphs, forward and backward: ours compared with torch and, where it is installed, gtn."""

from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.timing import milliseconds, print_table, row
from ebmcourse import gtn as ours

BATCH, CLASSES, BLANK = 32, 27, 26
SIZES = [(16, 3), (55, 5), (80, 10)]  # frames, letters


def graph_step(gtn: ModuleType, log_probs: Tensor, words: list[list[int]]) -> Callable[[], Tensor]:
    """One loss and its gradient, written for `gtn`'s interface as the course writes it."""
    batch, frames, classes = log_probs.shape

    def word_graph(word: list[int]) -> object:
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
        losses: list = [None] * batch
        emissions: list = [None] * batch
        grad = torch.empty(batch, frames, classes)

        def forward(b: int) -> None:
            emissions[b] = gtn.linear_graph(frames, classes, True)
            scores = log_probs[b].cpu().contiguous()
            emissions[b].set_weights(scores.data_ptr())
            both = gtn.intersect(emissions[b], word_graph(words[b]))
            losses[b] = gtn.negate(gtn.forward_score(both))

        def backward(b: int) -> None:
            gtn.backward(losses[b], False)
            grad[b] = torch.from_numpy(emissions[b].grad().weights_to_numpy()).view(1, frames, classes)

        gtn.parallel_for(forward, range(batch))
        torch.tensor([loss.item() for loss in losses]).mean()
        gtn.parallel_for(backward, range(batch))
        return grad / batch

    return step


def torch_step(log_probs: Tensor, words: list[list[int]]) -> Callable[[], Tensor]:
    frames_first = log_probs.transpose(0, 1).contiguous().requires_grad_()
    targets = torch.tensor(words)
    lengths = [torch.full((BATCH,), n) for n in (log_probs.shape[1], targets.shape[1])]

    def step() -> Tensor:
        frames_first.grad = None
        losses = torch.nn.functional.ctc_loss(frames_first, targets, *lengths, blank=BLANK, reduction="none")
        losses.mean().backward()
        assert frames_first.grad is not None
        return frames_first.grad.transpose(0, 1)

    return step


def installed_gtn() -> ModuleType | None:
    if find_spec("gtn") is None:
        return None
    import gtn

    return gtn


def run(quick: bool = False) -> list[dict]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny: a second thread would only cost time
    try:
        return rows(quick)
    finally:
        torch.set_num_threads(threads)


def rows(quick: bool) -> list[dict]:
    table = []
    random = torch.Generator().manual_seed(0)
    peer_gtn = installed_gtn()
    for frames, letters in SIZES[:1] if quick else SIZES:
        log_probs = torch.randn(BATCH, frames, CLASSES, generator=random).log_softmax(-1)
        words = torch.randint(BLANK, (BATCH, letters), generator=random).tolist()
        peers = {"torch ctc_loss": torch_step(log_probs, words)}
        if peer_gtn is not None:
            peers["gtn 0.0.0"] = graph_step(peer_gtn, log_probs, words)
        step = graph_step(ours, log_probs, words)
        # torch's gradient is that of logits whose log_softmax was given.
        expected = peers["torch ctc_loss"]() - log_probs.exp() / BATCH
        torch.testing.assert_close(step(), expected, rtol=1e-4, atol=1e-6)
        times = milliseconds(step, *peers.values(), seconds=0.2 if quick else 1.0)
        case = f"loss on graphs, B={BATCH} C={CLASSES} T={frames} U={letters}"
        table += [row(case, times[0], peer, time) for peer, time in zip(peers, times[1:], strict=True)]
    return table


if __name__ == "__main__":
    print_table("ebmcourse.gtn, forward + backward", run())
