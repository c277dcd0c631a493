"""Matrices blockdiag(S_1 .. S_n) + F C Fᵀ that are never formed: exact products, solves, determinants.

With S the blocks (d x d), F (n d, k) and C (k, k), which may be singular or indefinite and is not inverted,

    x = S⁻¹v - S⁻¹F C (I + FᵀS⁻¹F C)⁻¹ FᵀS⁻¹v
    logdet = Σ logdet S_n + logdet(I + FᵀS⁻¹F C)          (Woodbury, Sylvester)
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.validation import check_tensor

HINT = "add a positive definite part with add_blocks, or use kind='loewner'"


class SignedLogDet(NamedTuple):
    """Determinant as sign · exp(logabsdet)."""

    sign: Tensor
    logabsdet: Tensor


@dataclass(frozen=True, eq=False)
class BlockPlusLowRank:
    """blockdiag(blocks) + factors · core · factorsᵀ, acting on (n, d).

    Attributes:
        blocks: (n, d, d), symmetric.
        factors: F, (n d, k).
        core: C, (k, k), symmetric.
        definite: whether the matrix is positive semi-definite, so that blocks are factored by Cholesky;
            otherwise by LU, and `logdet` gives a sign too.
    Example:
        >>> import torch
        >>> B = BlockPlusLowRank(torch.eye(2).expand(3, 2, 2), torch.ones(6, 1), torch.ones(1, 1))
        >>> B.matvec(torch.ones(3, 2))[0], round(B.logdet().item(), 4)
        (tensor([7., 7.]), 1.9459)
    """

    blocks: Float[Tensor, "n d d"]
    factors: Float[Tensor, "m k"]
    core: Float[Tensor, "k k"]
    definite: bool = True

    def matvec(self, v: Tensor) -> Tensor:
        """Product with v (n, d), or flat."""
        x = self._rows(v)
        low = self.factors @ (self.core @ (self.factors.mT @ x.reshape(-1)))
        return ((self.blocks @ x.unsqueeze(-1)).squeeze(-1) + low.view_as(x)).reshape(v.shape)

    def diagonal(self) -> Float[Tensor, "n d"]:
        """Diagonal, (n, d)."""
        low = ((self.factors @ self.core) * self.factors).sum(1)
        return self.blocks.diagonal(dim1=-2, dim2=-1) + low.view(self.blocks.shape[:2])

    def add_blocks(self, blocks: Tensor) -> "BlockPlusLowRank":
        """The same plus blockdiag(blocks); (n, d, d), or (d, d) for each row."""
        expected = tuple(self.blocks.shape)
        if tuple(blocks.shape) not in (expected, expected[1:]):
            raise ValueError(f"blocks: expected {expected} or {expected[1:]}, got {tuple(blocks.shape)}")
        return replace(self, blocks=self.blocks + blocks.to(self.blocks))

    def dense(self) -> Float[Tensor, "m m"]:
        """The whole matrix, (n d, n d); for tests and small n."""
        return torch.block_diag(*self.blocks) + self.factors @ self.core @ self.factors.mT

    def solve(self, v: Tensor) -> Tensor:
        """x with (this) x = v, v (n, d) or flat.

        Raises:
            torch.linalg.LinAlgError: a singular block or one that is not positive definite, naming the row;
                a singular matrix.
        """
        factored = self._factored()
        x = factored.apply(self._rows(v).unsqueeze(-1))
        right, small = self._inner(factored)
        correction, info = torch.linalg.solve_ex(small, self.factors.mT @ x.reshape(-1))
        if bool(info):
            raise torch.linalg.LinAlgError(f"the matrix is singular; {HINT}")
        return (x.reshape(-1) - right @ (self.core @ correction)).reshape(v.shape)

    def logdet(self) -> Tensor | SignedLogDet:
        """ln det; for an indefinite matrix its sign and ln |det|.

        Raises:
            torch.linalg.LinAlgError: as `solve`.
        """
        factored = self._factored()
        _, small = self._inner(factored)
        sign, size = torch.linalg.slogdet(small)
        sign, total = sign * factored.sign, size + factored.logabsdet
        if not self.definite:
            return SignedLogDet(sign, total)
        if not bool(sign > 0):
            raise torch.linalg.LinAlgError(f"the matrix is not positive definite; {HINT}")
        return total

    def _rows(self, v: Tensor) -> Tensor:
        n, d = self.blocks.shape[:2]
        if tuple(check_tensor("v", v).shape) not in ((n, d), (n * d,)):
            raise ValueError(f"v: expected (n, d) = ({n}, {d}) or flat, got {tuple(v.shape)}")
        return v.to(self.blocks).reshape(n, d)

    def _inner(self, factored: "_Factored") -> tuple[Tensor, Tensor]:
        """S⁻¹F and I + FᵀS⁻¹F C."""
        n, d = self.blocks.shape[:2]
        k = self.factors.shape[1]
        right = factored.apply(self.factors.view(n, d, k)).reshape(n * d, k)
        eye = torch.eye(k, dtype=right.dtype, device=right.device)
        return right, eye + (self.factors.mT @ right) @ self.core

    def _factored(self) -> "_Factored":
        return _cholesky(self.blocks) if self.definite else _lu(self.blocks)


@dataclass(frozen=True, eq=False)
class _Factored:
    """Blocks ready to be solved with."""

    factor: Tensor
    pivots: Tensor | None
    sign: Tensor
    logabsdet: Tensor

    def apply(self, right: Tensor) -> Tensor:
        """S⁻¹ right, (n, d, k)."""
        if self.pivots is None:
            return torch.cholesky_solve(right, self.factor)
        return torch.linalg.lu_solve(self.factor, self.pivots, right)


def _cholesky(blocks: Tensor) -> _Factored:
    factor, info = torch.linalg.cholesky_ex(blocks)
    if bool(info.any()):
        row = int(info.nonzero()[0])
        raise torch.linalg.LinAlgError(f"block of row {row} is not positive definite; {HINT}")
    logdet = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum()
    return _Factored(factor, None, torch.ones_like(logdet), logdet)


def _lu(blocks: Tensor) -> _Factored:
    factor, pivots, info = torch.linalg.lu_factor_ex(blocks)
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    small = diagonal.abs().amin(-1) <= torch.finfo(blocks.dtype).eps * blocks.abs().amax((-2, -1))
    singular = (info != 0) | small
    if bool(singular.any()):
        row = int(singular.nonzero()[0])
        raise torch.linalg.LinAlgError(f"block of row {row} is singular; {HINT}")
    places = torch.arange(1, pivots.shape[-1] + 1, device=pivots.device)
    swaps = (pivots != places).sum()
    sign = torch.sign(diagonal).prod() * (1 - 2 * (swaps % 2)).to(blocks)
    return _Factored(factor, pivots, sign, diagonal.abs().log().sum())


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
        if tuple(check_tensor("v", v).shape) != tuple(self.entries.shape):
            raise ValueError(f"v: expected {tuple(self.entries.shape)}, got {tuple(v.shape)}")
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
