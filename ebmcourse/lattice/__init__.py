"""Dense lattices: alignments of label sequences with frames, whole batches at a time, with true lengths.

A word image gives L frames (windows) with C energies each. An alignment, or path, gives each frame one label of a
sequence; its energy is the sum of the energies of these labels. Every function here is a dynamic programme over
all paths:

=====================  ==========================================================================
`viterbi`              the path of least energy, for a label sequence taken as it is
`free_energy`          the free energy of all its paths at inverse temperature β (β → ∞: `viterbi`)
`ctc_loss`             −log p(target) under connectionist temporal classification
`ctc_align`            the most probable CTC path
`lexicon_decode`       the word of a lexicon (`Trie`) whose best path has the least energy
=====================  ==========================================================================

Conventions: batch first, energies (B, L, C), low = likely; label sequences (B, T), padded with any values;
lengths (B,), or None where every item has full length. Values beyond a true length are ignored. Results are
differentiable; energies are float32 or float64, on any device. CPU tensors are processed by compiled loops
(`compiled.py`); other devices and second derivatives use torch operations (`dense.py`).
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
