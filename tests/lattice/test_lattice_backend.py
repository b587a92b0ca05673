"""On a device without compiled loops every function gives the same results."""

import pytest
import torch

from ebmcourse.lattice import Trie, backend, ctc_align, ctc_loss, free_energy, lexicon_decode, viterbi

TARGETS = torch.tensor([[0, 1, 1, 2], [2, 0, 9, 9], [1, 1, 0, 9]])
FRAMES, LETTERS = torch.tensor([9, 4, 6]), [4, 2, 3]
TRIE = Trie(["ab", "abba", "b", "cab", "cc"], "abc")

CASES = {
    "viterbi": lambda e: viterbi(e, TARGETS, FRAMES, LETTERS, optional_last=True),
    "free_energy": lambda e: free_energy(e, TARGETS, FRAMES, LETTERS, beta=2.0),
    "ctc_loss": lambda e: ctc_loss((-e).log_softmax(-1), TARGETS, FRAMES, LETTERS),
    "zeroed ctc_loss": lambda e: ctc_loss(
        (-e).log_softmax(-1), TARGETS, torch.tensor([9, 0, 3]), LETTERS, zero_infinity=True
    ),
    "ctc_align": lambda e: ctc_align((-e).log_softmax(-1), TARGETS, FRAMES, LETTERS),
    "lexicon_decode": lambda e: lexicon_decode(e, TRIE, FRAMES),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_are_the_same(name, dtype, monkeypatch):
    torch.manual_seed(0)
    energies = torch.randn(3, 9, 4, dtype=dtype, requires_grad=True)

    def results():
        found = CASES[name](energies)
        value = found if isinstance(found, torch.Tensor) else found.energy
        rest = () if isinstance(found, torch.Tensor) else [part for part in found if part is not value]
        return value, torch.autograd.grad(value.sum(), energies)[0], rest

    compiled = results()
    monkeypatch.setattr(backend, "COMPILED_DEVICES", ())
    monkeypatch.setattr(backend._FreeEnergies, "apply", None)
    plain = results()
    torch.testing.assert_close(plain[:2], compiled[:2])
    for ours, theirs in zip(plain[2], compiled[2], strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    assert plain[0].dtype == compiled[0].dtype == dtype


@pytest.mark.parametrize("name", ["viterbi", "free_energy", "ctc_loss", "ctc_align"])
def test_errors_are_the_same(name, monkeypatch):
    monkeypatch.setattr(backend, "COMPILED_DEVICES", ())
    energies = torch.zeros(3, 9, 4)
    energies[1, :, [0, 2]] = torch.inf
    with pytest.raises(ValueError, match="item 1: every path has infinite energy"):
        CASES[name](energies)
