"""What every metric offers: the tensor is asked of it, the rest has defaults.

Geometry sees a metric only through `BaseMetric`; `as_metric` gives the same face to any object with
``tensor``. Metrics can be added and multiplied by positive numbers; the result is a `SumMetric`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.graph import transforms_active
from pullback.jets import Stack
from pullback.jets.jet import derivatives
from pullback.metrics import embedded
from pullback.metrics.compact import compact
from pullback.metrics.definite import cholesky, inverse_of_root, not_positive
from pullback.metrics.local import LocalMetric, TensorAt
from pullback.typing import Map
from pullback.validation import check_positive, check_whole

Points = Float[Tensor, "n d"]
Tensors = Float[Tensor, "n d d"]


class BaseMetric(ABC):
    """A Riemannian metric on a latent space; only `tensor` must be given.

    Attributes:
        dim: latent dimension, or None where the metric takes any.
    """

    dim: int | None = None

    @abstractmethod
    def tensor(self, z: Points) -> Tensors:
        """Metric tensor g(z)."""

    @property
    def embedding(self) -> Map | None:
        """A map F with g = (∂F)ᵀ ∂F, or None; with it, geometry needs no derivative of g."""
        return None

    def compact_embedding(self) -> Map | None:
        """An embedding of the same metric with as few outputs as possible, for use without gradients."""
        return self.embedding

    def _gram(self, z: Tensor) -> Tensor:
        """g(z) without a check of its rank: a member of a sum need not be a metric by itself."""
        return self.tensor(z)

    def _factors(self, z: Tensor) -> list[tuple[int, int]] | None:
        """(p, r) of the factors that bound the rank of g by Σ r; None where nothing is known to bound it."""
        return None

    def _check(self, z: Tensor, *, rank: bool = True) -> None:
        """Raise ``ValueError`` for what shows only at a point: train mode, widths that do not fit, and, if
        asked for, factors of too low a rank for a metric."""
        factors, d = self._factors(z) if rank else None, z.shape[1]
        if factors is not None and sum(r for _, r in factors) < d:
            got = " and ".join(f"p={p}, r={r}" for p, r in factors)
            raise ValueError(
                f"ambient: expected a factor of rank r >= d for a metric on d={d} dimensions, "
                f"got {got} at n={len(z)} points"
            )

    def inverse(self, z: Points) -> Tensors:
        """Inverse tensor, from the QR of an embedding's Jacobian or else from a Cholesky factor.

        Raises:
            ValueError: the tensor is not positive definite at a point.
        """
        self._check(z)
        if self.embedding is not None:
            return self._sound(z, embedded.reduce_jacobian(self.embedding, z, embedded.inverse_gram))
        return inverse_of_root(cholesky(self.tensor(z)))

    def _sound(self, z: Points, inverse: Tensors) -> Tensors:
        """The inverse if it is one; ``ValueError`` naming the first point where the tensor has none."""
        if transforms_active(inverse):
            return inverse
        bad = ~torch.isfinite(inverse).all(-1).all(-1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise ValueError(not_positive("tensor(z)", row, self.tensor(z[row : row + 1])[0]))
        return inverse

    def logdet(self, z: Points) -> Float[Tensor, " n"]:
        """log det g, from the QR of an embedding's Jacobian or else from a Cholesky factor."""
        self._check(z)
        if self.embedding is not None:
            return embedded.reduce_jacobian(self.embedding, z, embedded.log_determinant)
        return 2 * cholesky(self.tensor(z)).diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def derivative(self, z: Points) -> Float[Tensor, "n d d d"]:
        """∂_c g_ab as [n, a, b, c], from an embedding or by a first-order jet of the lower triangle of g."""
        self._check(z, rank=False)
        if self.embedding is not None:
            return embedded.first_derivative(self.embedding, z)
        return unpack(derivatives(self._triangle, z, 1)[-1], z.shape[1])

    def second_derivative(self, z: Points) -> Float[Tensor, "n d d d d"]:
        """∂_c ∂_e g_ab as [n, a, b, c, e], from an embedding or by a jet of the triangle of g."""
        self._check(z, rank=False)
        if self.embedding is not None:
            return embedded.second_derivative(self.embedding, z)
        return unpack(derivatives(self._triangle, z, 2)[-1], z.shape[1])

    def hamiltonian_force(self, z: Points, p: Points) -> Points:
        """-½ pᵀ ∂_c g⁻¹ p = ½ vᵀ ∂_c g v with v = g⁻¹ p: the force of geodesic flow on the momentum p."""
        v = torch.cholesky_solve(p.unsqueeze(-1), cholesky(self.tensor(z))).squeeze(-1)
        return torch.einsum("nabc,na,nb->nc", self.derivative(z), v, v) / 2

    def local(self, z: Points) -> LocalMetric:
        """The metric at these points, for motion on it (`pullback.dynamics`)."""
        return TensorAt(self, z)

    def __add__(self, other: Any) -> "SumMetric":
        return SumMetric([self, other])

    def __radd__(self, other: Any) -> "BaseMetric":
        return self if isinstance(other, Real) and other == 0 else SumMetric([other, self])

    def __mul__(self, factor: Any) -> "SumMetric":
        return SumMetric([self], weights=[factor])

    __rmul__ = __mul__

    def _triangle(self, z: Tensor) -> Tensor:
        rows, columns = torch.tril_indices(z.shape[1], z.shape[1], device=z.device)
        return self._gram(z)[:, rows, columns]


def unpack(triangle: Tensor, d: int) -> Tensor:
    """(n, d(d+1)/2, ...) to the symmetric (n, d, d, ...)."""
    rows, columns = torch.tril_indices(d, d, device=triangle.device)
    position = torch.empty(d, d, dtype=torch.long, device=triangle.device)
    position[rows, columns] = position[columns, rows] = torch.arange(len(rows), device=triangle.device)
    return triangle[:, position.flatten()].unflatten(1, (d, d))


class TensorMetric(BaseMetric):
    """The metric of a function z -> g(z); made by `from_tensor`."""

    def __init__(self, function: Callable[[Tensor], Tensor], dim: int):
        check_whole("dim", dim)
        self.function, self.dim = function, int(dim)

    def tensor(self, z: Points) -> Tensors:
        """Metric tensor g(z)."""
        return self.function(z)

    def __repr__(self) -> str:
        return f"TensorMetric({self.function!r}, dim={self.dim})"


class AdaptedMetric(BaseMetric):
    """Any object with ``tensor``: its own methods where it has them, the defaults elsewhere."""

    _optional = (
        "inverse",
        "logdet",
        "derivative",
        "second_derivative",
        "hamiltonian_force",
        "compact_embedding",
    )

    def __init__(self, source: Any):
        self.source = source
        self.dim = getattr(source, "dim", None)
        for name in self._optional:
            if callable(getattr(source, name, None)):
                setattr(self, name, getattr(source, name))

    def tensor(self, z: Points) -> Tensors:
        """Metric tensor g(z)."""
        return self.source.tensor(z)

    @property
    def embedding(self) -> Map | None:
        """The object's embedding, if it has one."""
        embedding: Any = getattr(self.source, "embedding", None)
        return cast(Map, embedding) if callable(embedding) else None

    def __repr__(self) -> str:
        return f"AdaptedMetric({self.source!r})"


class SumMetric(BaseMetric):
    """g = Σ_k w_k g_k, with positive weights; also made by ``g1 + g2`` and ``2.0 * g``.

    If every member has an embedding F_k, the maps √w_k F_k side by side are an embedding of the sum.

    Args:
        metrics: members, any objects with ``tensor``.
        weights: one positive number a member; None is 1 for all.
    Raises:
        TypeError: a member without ``tensor``, or a weight that is no number.
        ValueError: no members, members of different latent dimension, or another number of weights.
    Example:
        >>> import torch
        >>> from pullback.metrics import EuclideanMetric
        >>> metric = from_tensor(lambda z: torch.diag_embed(z**2), 2) + 0.5 * EuclideanMetric(2)
        >>> metric.tensor(torch.tensor([[1.0, 2.0]]))
        tensor([[[1.5000, 0.0000],
                 [0.0000, 4.5000]]])
    """

    def __init__(self, metrics: Sequence[Any], weights: Sequence[Any] | None = None):
        if not isinstance(metrics, Sequence) or len(metrics) == 0:
            raise ValueError(f"metrics: expected a list of at least one metric, got {metrics!r}")
        weights = [1.0] * len(metrics) if weights is None else weights
        if len(weights) != len(metrics):
            raise ValueError(f"weights: expected {len(metrics)} like metrics, got {len(weights)}")
        members: list[BaseMetric] = []
        factors: list[float] = []
        for metric, weight in zip(map(as_metric, metrics), weights, strict=True):
            if not isinstance(weight, Real):
                raise TypeError(f"weights: expected numbers, got {type(weight).__name__}")
            check_positive("weights", float(weight))
            # A sum of sums is one sum, so that its embedding is one stack.
            nested = type(metric) is SumMetric
            members += metric.members if nested else [metric]  # type: ignore[attr-defined]
            factors += [float(weight) * w for w in (metric.weights if nested else (1.0,))]  # type: ignore[attr-defined]
        self.members, self.weights = tuple(members), tuple(factors)
        dims = {member.dim for member in members} - {None}
        if len(dims) > 1:
            raise ValueError(f"metrics: expected one latent dimension, got {sorted(dims)}")  # type: ignore[type-var]
        self.dim = dims.pop() if dims else None

    def _sum(self, parts: Sequence[Tensor]) -> Tensor:
        total = self.weights[0] * parts[0]
        for weight, part in zip(self.weights[1:], parts[1:], strict=True):
            total = total + weight * part
        return total

    def tensor(self, z: Points) -> Tensors:
        """Σ_k w_k g_k(z)."""
        self._check(z)
        return self._gram(z)

    def _gram(self, z: Tensor) -> Tensor:
        return self._sum([member._gram(z) for member in self.members])

    def _check(self, z: Tensor, *, rank: bool = True) -> None:
        for member in self.members:
            member._check(z, rank=False)
        super()._check(z, rank=rank)

    def _factors(self, z: Tensor) -> list[tuple[int, int]] | None:
        found = [member._factors(z) for member in self.members]
        known = [factors for factors in found if factors is not None]
        return [pair for factors in known for pair in factors] if len(known) == len(found) else None

    def derivative(self, z: Points) -> Float[Tensor, "n d d d"]:
        """Σ_k w_k ∂_c (g_k)_ab as [n, a, b, c]."""
        self._check(z, rank=False)
        return self._sum([member.derivative(z) for member in self.members])

    def second_derivative(self, z: Points) -> Float[Tensor, "n d d d d"]:
        """Σ_k w_k ∂_c ∂_e (g_k)_ab as [n, a, b, c, e]."""
        self._check(z, rank=False)
        return self._sum([member.second_derivative(z) for member in self.members])

    @property
    def embedding(self) -> Map | None:
        """[√w_1 F_1, √w_2 F_2, ..], or None where a member has no embedding."""
        maps = [member.embedding for member in self.members]
        known = [f for f in maps if f is not None]
        if len(known) < len(maps):
            return None
        return Stack(*known, scales=[math.sqrt(weight) for weight in self.weights])

    def compact_embedding(self) -> Map | None:
        """The stack of the members' compact embeddings."""
        embedding = self.embedding
        return compact(embedding) if isinstance(embedding, nn.Module) else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.members)!r}, weights={list(self.weights)!r})"


def from_tensor(function: Callable[[Tensor], Tensor], dim: int) -> TensorMetric:
    """A metric from a function ``(n, d) -> (n, d, d)`` that treats its rows independently.

    Example:
        >>> import torch
        >>> disk = from_tensor(lambda z: torch.eye(2) * (4 / (1 - z.square().sum(-1)) ** 2)[:, None, None], 2)
        >>> disk.logdet(torch.zeros(1, 2))
        tensor([2.7726])
    """
    if not callable(function):
        raise TypeError(f"function: expected a callable (n, d) -> (n, d, d), got {type(function).__name__}")
    return TensorMetric(function, dim)


def as_metric(metric: Any) -> BaseMetric:
    """The object itself if it is one of ours, else the object with the defaults of `BaseMetric` added.

    Raises:
        TypeError: the object has no method ``tensor``.
    """
    if isinstance(metric, BaseMetric):
        return metric
    if isinstance(metric, Tensor) or not callable(getattr(metric, "tensor", None)):
        raise TypeError(
            f"metric: expected an object with tensor(z) -> (n, d, d), got {type(metric).__name__}; "
            "wrap a decoder in PullbackMetric"
        )
    return AdaptedMetric(metric)


def checked_tensor(metric: BaseMetric, z: Points, *, symmetry: float = 1e-6) -> Tensors:
    """g(z), made sure to be a finite, symmetric, positive definite (n, d, d).

    Raises:
        ValueError: wrong shape or dtype, an asymmetry above ``symmetry`` relative to the largest entry, or a
            row where the tensor is not positive definite.
    """
    if z.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"z: expected float32 or float64 points, got {z.dtype}; use z.float()")
    g, n, d = metric.tensor(z), len(z), z.shape[1]
    if g.shape != (n, d, d):
        raise ValueError(
            f"tensor(z): expected shape {(n, d, d)} for z {tuple(z.shape)}, got {tuple(g.shape)}"
        )
    if g.dtype != z.dtype:
        raise ValueError(f"tensor(z): expected {z.dtype} like z, got {g.dtype}; let the tensor follow z")
    if n == 0:
        return g
    values = torch.linalg.eigvalsh(torch.where(torch.isfinite(g), g, 0).double())
    bad = ~torch.isfinite(g).all(-1).all(-1) | (values[:, 0] <= 0)
    asymmetry = (g - g.mT).abs().amax((1, 2)) / g.abs().amax((1, 2)).clamp_min(torch.finfo(g.dtype).tiny)
    crooked = asymmetry > symmetry
    if bool(crooked.any()):
        row = int(crooked.nonzero()[0])
        raise ValueError(
            f"tensor(z): expected a symmetric tensor, got relative asymmetry {asymmetry[row]:.3g} "
            f"at row {row}"
        )
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(not_positive("tensor(z)", row, g[row]))
    return g
