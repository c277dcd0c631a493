"""Rows of matrices diag(d) + F C Fᵀ with few factors: products, solves and determinants in O(K) a row."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.penalties.block_low_rank import SignedLogDet


@dataclass(frozen=True, eq=False)
class DiagonalPlusLowRank:
    """One matrix a row: diag(entries) + factors · core · factorsᵀ.

    Attributes:
        entries: (n, K).
        factors: F, (n, K, r).
        core: C, (n, r, r), symmetric, may be indefinite.
    Example:
        >>> import torch
        >>> B = DiagonalPlusLowRank(torch.ones(2, 3), torch.ones(2, 3, 1), torch.ones(2, 1, 1))
        >>> B.solve(B.matvec(torch.ones(2, 3)))
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    entries: Float[Tensor, "n k"]
    factors: Float[Tensor, "n k r"]
    core: Float[Tensor, "n r r"]

    def matvec(self, v: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Product with v (n, K)."""
        low = self.factors @ (self.core @ (self.factors.mT @ v.unsqueeze(-1)))
        return self.entries * v + low.squeeze(-1)

    def diagonal(self) -> Float[Tensor, "n k"]:
        """(n, K)."""
        return self.entries + ((self.factors @ self.core) * self.factors).sum(-1)

    def add_diagonal(self, diagonal: Tensor | float) -> "DiagonalPlusLowRank":
        """The same plus diag(diagonal), a number or (n, K)."""
        return replace(self, entries=self.entries + diagonal)

    def dense(self) -> Float[Tensor, "n k k"]:
        """(n, K, K); for tests and small K."""
        return torch.diag_embed(self.entries) + self.factors @ self.core @ self.factors.mT

    def solve(self, v: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """x with (this) x = v, by Woodbury's identity.

        Raises:
            torch.linalg.LinAlgError: a zero on a diagonal or a singular matrix, naming the row.
        """
        right, small = self._inner()
        x = v / self.entries
        inner, info = torch.linalg.solve_ex(small, self.factors.mT @ x.unsqueeze(-1))
        if bool(info.any()):
            raise torch.linalg.LinAlgError(f"row {int(info.nonzero()[0])} is singular; add_diagonal first")
        return x - (right @ (self.core @ inner)).squeeze(-1)

    def logdet(self) -> SignedLogDet:
        """Sign and ln |det| of each row, (n,)."""
        _, small = self._inner()
        sign, size = torch.linalg.slogdet(small)
        own = torch.sign(self.entries).prod(-1)
        return SignedLogDet(sign * own, size + self.entries.abs().log().sum(-1))

    def _inner(self) -> tuple[Tensor, Tensor]:
        """S⁻¹F and I + FᵀS⁻¹F C."""
        zero = (self.entries == 0).any(-1)
        if bool(zero.any()):
            raise torch.linalg.LinAlgError(
                f"row {int(zero.nonzero()[0])} has a zero on its diagonal; add_diagonal first"
            )
        right = self.factors / self.entries.unsqueeze(-1)
        eye = torch.eye(self.core.shape[-1], dtype=right.dtype, device=right.device)
        return right, eye + (self.factors.mT @ right) @ self.core
