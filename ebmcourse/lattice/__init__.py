"""Dense lattices: alignments of label sequences with frames, whole batches at a time, with true lengths.

A word image gives L frames (windows) with C energies each; a label sequence is laid along the frames so that
every frame has one label. The cost of such a path is the sum of its energies, and every function here is a
dynamic programme over all paths:

=====================  ==========================================================================
`viterbi`              the path of least energy, for a label sequence taken as it is
`free_energy`          the free energy of all its paths at inverse temperature β (β → ∞: `viterbi`)
`ctc_loss`             −log p(target) under connectionist temporal classification
`ctc_align`            the most probable CTC path
`lexicon_decode`       the word of a lexicon (`Trie`) whose best path has the least energy
=====================  ==========================================================================

Conventions: batch first, energies (B, L, C), low = likely; label sequences (B, T), padded with anything;
lengths (B,), or None where every item is full. What lies beyond a true length does not count. Results are
differentiable; energies are float32 or float64, on any device. CPU tensors go through compiled loops
(`compiled.py`), others, and second derivatives, through torch operations (`dense.py`).
"""

from ebmcourse.lattice.alignment import PADDING, Alignment, ctc_align, viterbi
from ebmcourse.lattice.lexicon import Decoded, Trie, lexicon_decode
from ebmcourse.lattice.scores import ctc_loss, free_energy

__all__ = [
    "PADDING",
    "Alignment",
    "Decoded",
    "Trie",
    "ctc_align",
    "ctc_loss",
    "free_energy",
    "lexicon_decode",
    "viterbi",
]
