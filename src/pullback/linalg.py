"""Linear algebra that several rooms need, each trick in one place.

Spectra of thin factors, angles between subspaces, and matrices of the form s I + U Uᵀ that are never formed.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

QUADRATURE = 20001


def gram_spectrum(
    factor: Float[Tensor, "*n p r"], k: int | None = None
) -> tuple[Float[Tensor, "*n q"], Float[Tensor, "*n p k"]]:
    """Squared singular values and left singular vectors of a thin factor U, through the smaller Gram matrix.

    The Gram matrix squares the condition number, so it is formed and diagonalised in float64; float32 factors
    keep all their digits, float64 ones keep singular values down to 1e-8 of the largest.

    Args:
        factor: U, (p, r), or a batch.
        k: how many vectors; None is all.
    Returns: eigenvalues of U Uᵀ, descending, q = min(p, r) of them, and the first k of their orthonormal
        eigenvectors, (p, k); columns of eigenvalues that are zero to rounding are zero.
    Example:
        >>> import torch
        >>> values, vectors = gram_spectrum(torch.tensor([[3.0], [4.0]]))
        >>> values, vectors.abs().squeeze()
        (tensor([25.]), tensor([0.6000, 0.8000]))
    """
    wide = factor.double()
    p, r = wide.shape[-2:]
    if p <= r:
        values, vectors = torch.linalg.eigh(wide @ wide.mT)
        return _descending(values).to(factor.dtype), vectors.flip(-1)[..., :k].to(factor.dtype)
    values, right = torch.linalg.eigh(wide.mT @ wide)
    values, right = _descending(values), right.flip(-1)[..., :k]
    zero = values <= values[..., :1] * (p * torch.finfo(torch.float64).eps)
    scale = torch.where(zero, 0, torch.where(zero, 1, values).rsqrt())
    vectors = (wide @ right) * scale[..., :k].unsqueeze(-2)
    return values.to(factor.dtype), vectors.to(factor.dtype)


def leading_singular(
    matrix: Float[Tensor, "*n p r"], k: int | None = None
) -> tuple[Float[Tensor, "*n p k"], Float[Tensor, "*n k"], Float[Tensor, "*n r k"]]:
    """Leading singular values, descending, and both vectors of each, in float64, never by random projection.

    The smaller Gram matrix serves where the k-th singular value is above 3e-3 of the first, so that vectors
    lose less than 1e-10 to the squared condition number; a full decomposition serves the rest.

    Args:
        matrix: (p, r), or a batch.
        k: how many, at most min(p, r); None for all.
    Example:
        >>> import torch
        >>> leading_singular(torch.diag(torch.tensor([1.0, 3.0, 2.0])), 2)[1]
        tensor([3., 2.], dtype=torch.float64)
    """
    wide = widened(matrix)
    p, r = wide.shape[-2:]
    if k is not None and k < min(p, r):
        tall = wide if p >= r else wide.mT
        values, right = torch.linalg.eigh(tall.mT @ tall)
        if bool((values[..., -k] > 1e-5 * values[..., -1]).all()):
            # one step of orthogonal iteration takes the rounding of the Gram matrix out of both sides
            basis = torch.linalg.qr(tall @ right[..., -k:].flip(-1)).Q
            inner, sizes, other = torch.linalg.svd(basis.mT @ tall, full_matrices=False)
            pair = basis @ inner, other.mT
            return (pair[0], sizes, pair[1]) if tall is wide else (pair[1], sizes, pair[0])
    left, sizes, right = torch.linalg.svd(wide, full_matrices=False)
    return left[..., :k], sizes[..., :k], right[..., :k, :].mT


def _descending(values: Tensor) -> Tensor:
    return values.flip(-1).clamp_min(0)


def positive_part(matrix: Tensor) -> Tensor:
    """The nearest positive semi-definite matrix: eigenvalues below zero replaced by zero; batched."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return (vectors * values.clamp_min(0).unsqueeze(-2)) @ vectors.mT


def widened(tensor: Tensor) -> Tensor:
    """float64 where the device has it."""
    return tensor if tensor.device.type == "mps" else tensor.double()


@lru_cache(maxsize=256)
def marchenko_pastur_quantile(ratio: float, level: float = 0.5) -> float:
    """Quantile of the Marchenko-Pastur law, the eigenvalues of XᵀX/n for white noise X (n, p), p/n = ratio.

    Its density √((b - x)(x - a))/(2 π ratio x), a, b = (1 ∓ √ratio)², is summed on a grid: with x = (a + b)/2
    - (b - a)/2 cos t the square root becomes smooth at both ends (Marchenko and Pastur 1967).

    Args:
        ratio: columns per row, in (0, 1].
        level: in (0, 1); the median by default.
    Example:
        >>> round(marchenko_pastur_quantile(0.5), 4)
        0.8305
    """
    a, b = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    t = torch.linspace(0, math.pi, QUADRATURE, dtype=torch.float64)
    x = (a + b) / 2 - (b - a) / 2 * t.cos()
    density = ((b - a) / 2 * t.sin()).square() / (2 * math.pi * ratio * x.clamp_min(1e-300))
    density[0] = 0 if a > 0 else density[1]
    below = torch.cumulative_trapezoid(density, t)
    index = int((below >= level * below[-1]).nonzero()[0])
    return float((x[index] + x[index + 1]) / 2)


def principal_angles(a: Float[Tensor, "p k"], b: Float[Tensor, "p l"]) -> Float[Tensor, " s"]:
    """Angles between the column spaces of two matrices, ascending, s = min(k, l), in radians.

    Cosines lose angles below 1e-8 and sines those near π/2, so each angle is taken from the one that is
    accurate (Björck and Golub 1973; Knyazev and Argentati 2002).

    Args:
        a, b: bases, orthonormal or not, of full column rank.
    Example:
        >>> import torch
        >>> principal_angles(torch.eye(3)[:, :1], torch.tensor([[1.0], [1.0], [0.0]]))
        tensor([0.7854])
    """
    if a.shape[1] < b.shape[1]:
        a, b = b, a
    first, second = (torch.linalg.qr(m.double()).Q for m in (a, b))
    cosines = torch.linalg.svdvals(first.mT @ second).clamp(max=1)
    sines = torch.linalg.svdvals(second - first @ (first.mT @ second)).clamp(max=1).flip(-1)
    near = cosines.square() >= 0.5
    return torch.where(near, torch.asin(sines), torch.acos(cosines)).to(a.dtype)


@dataclass(frozen=True, eq=False)
class ScaledIdentityPlus:
    """A = s I + U Uᵀ with s > 0 and U (p, r), r small: solves and determinants by the r x r matrix s I + UᵀU.

    A⁻¹x = (x - U (s I + UᵀU)⁻¹ Uᵀx)/s and log det A = (p - r) log s + log det(s I + UᵀU) (Woodbury,
    Sylvester).

    Example:
        >>> import torch
        >>> A = ScaledIdentityPlus(torch.ones(3, 1), 1.0)
        >>> A.solve(A.apply(torch.tensor([1.0, 2.0, 3.0]))), A.logdet()
        (tensor([1., 2., 3.]), tensor(1.3863))
    """

    factor: Float[Tensor, "*n p r"]
    scale: float | int

    def apply(self, x: Float[Tensor, "*n p"]) -> Float[Tensor, "*n p"]:
        """A x."""
        return self.scale * x + self._up(self._down(x))

    def solve(self, x: Float[Tensor, "*n p"]) -> Float[Tensor, "*n p"]:
        """A⁻¹ x."""
        short = torch.cholesky_solve(self._down(x).unsqueeze(-1), self._cholesky()).squeeze(-1)
        return (x - self._up(short)) / self.scale

    def logdet(self) -> Float[Tensor, "*n"]:
        """log det A."""
        p, r = self.factor.shape[-2:]
        small = 2 * self._cholesky().diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return small + (p - r) * torch.log(
            torch.as_tensor(self.scale, dtype=small.dtype, device=small.device)
        )

    def _down(self, x: Tensor) -> Tensor:
        return (self.factor.mT @ x.unsqueeze(-1)).squeeze(-1)

    def _up(self, y: Tensor) -> Tensor:
        return (self.factor @ y.unsqueeze(-1)).squeeze(-1)

    def _cholesky(self) -> Tensor:
        r = self.factor.shape[-1]
        eye = torch.eye(r, dtype=self.factor.dtype, device=self.factor.device)
        return torch.linalg.cholesky(self.factor.mT @ self.factor + self.scale * eye)


def quadratic_form(
    a: Float[Tensor, "n d"], matrix: Float[Tensor, "n d e"], b: Float[Tensor, "n e"]
) -> Float[Tensor, " n"]:
    """aᵀ M b of each row.

    Example:
        >>> import torch
        >>> quadratic_form(torch.ones(1, 2), torch.eye(2)[None], torch.ones(1, 2))
        tensor([2.])
    """
    return (a.unsqueeze(1) @ matrix @ b.unsqueeze(2)).flatten()


def lower_triangular(
    diagonal: Float[Tensor, "*n d"], lower: Float[Tensor, "*n m"]
) -> Float[Tensor, "*n d d"]:
    """Lower triangular matrices from their diagonals and the entries below, row by row.

    Args:
        diagonal: (d,), or a batch.
        lower: (d(d-1)/2,): (2,1), (3,1), (3,2), (4,1), ... counted from 1.
    Example:
        >>> import torch
        >>> lower_triangular(torch.tensor([1.0, 2.0]), torch.tensor([3.0]))
        tensor([[1., 0.],
                [3., 2.]])
    """
    d = diagonal.shape[-1]
    entries = torch.cat([diagonal, lower, torch.zeros_like(diagonal[..., :1])], dim=-1)
    return entries[..., _places(d, diagonal.device)].unflatten(-1, (d, d))


@lru_cache(maxsize=32)
def _places(d: int, device: torch.device) -> Tensor:
    """Where each entry of a lower triangular matrix stands among diagonal, entries below, and a zero."""
    rows, columns = torch.tril_indices(d, d)
    below = rows != columns
    position = torch.full((d, d), d + int(below.sum()))
    position[rows[~below], columns[~below]] = torch.arange(d)
    position[rows[below], columns[below]] = d + torch.arange(int(below.sum()))
    return position.flatten().to(device)
