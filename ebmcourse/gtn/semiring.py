"""Semirings: how the weights of alternative paths are combined. Along a path, weights are always added.

| semiring | alternatives a ⊕ b | weights are | the score of a graph |
|---|---|---|---|
| `Log(beta)`, β > 0 | (1/β) log(e^βa + e^βb) | scores | soft maximum; β = 1 is gtn's forward score |
| `Log(-beta)` | -(1/β) log(e^-βa + e^-βb) | energies | the free energy at inverse temperature β |
| `Tropical()` | max(a, b) | scores | the Viterbi score |
| `MinPlus()` | min(a, b) | energies | the energy of the best path |
| `Counting()` | a + b, every path is 1 | ignored | the number of accepting paths |
| `KBest(k)` | the k largest of both lists | scores | the k best path weights, one arc each |

Log tends to Tropical as β → ∞ and to MinPlus as β → -∞.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Log:
    """Log-sum-exp at inverse temperature `beta`; a negative beta takes weights as energies.

    raises ValueError: beta is 0 or not finite
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.beta) or self.beta == 0:
            raise ValueError(
                f"Log(beta={self.beta}) is not a semiring: use a finite beta ≠ 0; Tropical() and MinPlus() "
                "are the limits at ±∞."
            )


@dataclass(frozen=True)
class Tropical:
    """Max-plus: the best path, for weights that are scores (large = likely)."""


@dataclass(frozen=True)
class MinPlus:
    """Min-plus: the best path, for weights that are energies (low = likely)."""


@dataclass(frozen=True)
class Counting:
    """The number of accepting paths (exact below 2^53); it has no gradient."""


@dataclass(frozen=True)
class KBest:
    """The `k` best paths, for weights that are scores (large = likely).

    raises ValueError: k < 1
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"KBest({self.k}) has no paths: use k ≥ 1.")


Semiring = Log | Tropical | MinPlus | Counting | KBest
