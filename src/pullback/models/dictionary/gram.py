"""Products of decoders with rows and with each other: one table for all rows, or one a row.

Where every row is measured by a factor of its own, |U_iᵀ v|², it sees the decoders as B U_i: then G_i is
(B U_i)(B U_i)ᵀ, and what is read from C and G stays as it is.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.models.dictionary.layout import Layout

ENTRIES = 2**23
"""Numbers of the tables of rows with factors that are held at a time."""
Gram = Float[Tensor, "... k k"]
"""G = B Bᵀ for all rows, or G_i of every row."""


@dataclass(frozen=True, eq=False)
class Projected:
    """Rows and decoders as they are measured.

    Attributes:
        Y: rows, (n, r).
        B: decoders, (M_tot, r), or those that each row sees, (n, M_tot, r).
    """

    Y: Float[Tensor, "n r"]
    B: Float[Tensor, "k r"] | Float[Tensor, "n k r"]

    def rows(self, at: slice) -> "Projected":
        """Some of the rows."""
        return Projected(self.Y[at], self.B[at] if self.B.ndim == 3 else self.B)

    @property
    def correlations(self) -> Float[Tensor, "n k"]:
        """C = Y Bᵀ."""
        return self.Y @ self.B.mT if self.B.ndim == 2 else (self.B @ self.Y.unsqueeze(2)).squeeze(2)

    @property
    def gram(self) -> Gram:
        """G = B Bᵀ."""
        return self.B @ self.B.mT


def measured(
    Z: Float[Tensor, "n p"], B: Float[Tensor, "k p"], factors: Float[Tensor, "n p r"] | None = None
) -> Projected:
    """Rows and decoders as they are, or as the factors of the rows see them.

    Args:
        Z: rows, (n, p).
        B: decoders, (M_tot, p).
        factors: U_i, (n, p, r); None where all rows are measured alike.
    """
    if factors is None:
        return Projected(Z.to(B), B)
    return Projected(whitened(Z.to(B), factors), B @ factors)


def whitened(v: Float[Tensor, "n p"], factors: Float[Tensor, "n p r"]) -> Float[Tensor, "n r"]:
    """U_iᵀ v_i."""
    return (factors.mT @ v.unsqueeze(2)).squeeze(2)


def projected(
    Z: Float[Tensor, "n p"], B: Float[Tensor, "k p"], factors: Float[Tensor, "n p r"] | None = None
) -> Projected:
    """Rows and decoders in M_tot coordinates, or as they are measured where that is no more.

    The part of rows outside the span of all decoders never changes.
    """
    if factors is not None or len(B) >= Z.shape[1]:
        return measured(Z, B, factors)
    Q = torch.linalg.qr(B.mT).Q
    return Projected(Z.to(B) @ Q, B @ Q)


def rows_at_once(layout: Layout, factors: Float[Tensor, "n p r"]) -> int:
    """How many rows with factors are worked on at a time: each has a table of its own."""
    return max(1, ENTRIES // (layout.total * max(layout.total, factors.shape[2])))


def rows_of(gram: Gram, at: Int[Tensor, " m"] | slice) -> Gram:
    """G of some rows."""
    return gram[at] if gram.ndim == 3 else gram


def local(gram: Gram, columns: Int[Tensor, "n q"]) -> Float[Tensor, "n q q"]:
    """The part of G that the active atoms of each row need."""
    across, down = columns.unsqueeze(1), columns.unsqueeze(2)
    if gram.ndim == 2:
        return gram[down, across]
    return gram[torch.arange(len(columns), device=columns.device)[:, None, None], down, across]


def fitted(X: Float[Tensor, "n k"], gram: Gram) -> Float[Tensor, "n k"]:
    """X G, row by row."""
    return X @ gram if gram.ndim == 2 else (X.unsqueeze(1) @ gram).squeeze(1)
