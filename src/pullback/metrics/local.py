"""A metric at one set of points, for motion on it: each thing is computed once, and only if asked for."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class LocalMetric(ABC):
    """A metric g at points z, for the kinetic energy κ(z, p) = ½ log det g + ½ pᵀ g⁻¹ p."""

    z: Tensor

    @property
    @abstractmethod
    def inverse(self) -> Float[Tensor, "n d d"]:
        """g⁻¹."""

    @property
    @abstractmethod
    def logdet(self) -> Float[Tensor, " n"]:
        """log det g."""

    @property
    @abstractmethod
    def rest_gradient(self) -> Float[Tensor, "n d"]:
        """∂κ/∂z at rest, ½ ∇ log det g."""

    @abstractmethod
    def force(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """-½ pᵀ ∂_c g⁻¹ p."""

    def kinetic_gradient(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """∂κ/∂z at a fixed momentum."""
        return self.rest_gradient - self.force(p)

    @abstractmethod
    def momentum(self, noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """A momentum with covariance g from standard normal numbers."""

    @abstractmethod
    def at(self, z: Float[Tensor, "n d"]) -> "LocalMetric":
        """The same metric at other points."""

    def velocity(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """∂κ/∂p = g⁻¹ p."""
        return (self.inverse @ p.unsqueeze(-1)).squeeze(-1)

    def momentum_iterates(
        self,
        start: Float[Tensor, "n d"],
        base: Float[Tensor, "n d"],
        *,
        half_step: float | Tensor,
        count: int,
    ) -> tuple[Tensor, Tensor]:
        """r <- base + half_step force(r), ``count`` times from ``start``; the last two iterates."""
        before = r = start
        for _ in range(count):
            before, r = r, base + half_step * self.force(r)
        return r, before

    def position_iterates(
        self, p: Float[Tensor, "n d"], *, half_step: float | Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """y <- z + half_step (g⁻¹(z) p + g⁻¹(y) p), ``count`` times from z; the last two iterates."""
        first = there = self.velocity(p)
        before, y = self.z, self.z + half_step * (first + there)
        for _ in range(count - 1):
            there = self.at(y).velocity(p)
            before, y = y, self.z + half_step * (first + there)
        return y, before


class TensorAt(LocalMetric):
    """Any metric, by its tensor and derivative: ∂κ/∂z_c = ½ <∂_c g, g⁻¹ - v vᵀ> with v = g⁻¹ p.

    Where the tensor is not positive definite all is NaN, so that one bad point spoils no other.
    """

    def __init__(self, metric: Any, z: Float[Tensor, "n d"]):
        self.metric, self.z = metric, z

    @cached_property
    def _root(self) -> Float[Tensor, "n d d"]:
        L, info = torch.linalg.cholesky_ex(self.metric.tensor(self.z))
        return torch.where((info != 0)[:, None, None], torch.nan, L)

    @cached_property
    def inverse(self) -> Float[Tensor, "n d d"]:
        """g⁻¹."""
        eye = torch.eye(self.z.shape[1], dtype=self.z.dtype, device=self.z.device)
        half = torch.linalg.solve_triangular(self._root, eye.expand_as(self._root), upper=False)
        return half.mT @ half

    @cached_property
    def logdet(self) -> Float[Tensor, " n"]:
        """log det g."""
        return 2 * self._root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @cached_property
    def _derivative(self) -> Float[Tensor, "n d d d"]:
        return self.metric.derivative(self.z)

    @cached_property
    def rest_gradient(self) -> Float[Tensor, "n d"]:
        """½ <∂_c g, g⁻¹>."""
        return torch.einsum("nabc,nab->nc", self._derivative, self.inverse) / 2

    def force(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """½ vᵀ ∂_c g v."""
        v = self.velocity(p)
        return torch.einsum("nabc,na,nb->nc", self._derivative, v, v) / 2

    def momentum(self, noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """L γ with g = L Lᵀ."""
        return (self._root @ noise.unsqueeze(-1)).squeeze(-1)

    def at(self, z: Float[Tensor, "n d"]) -> "TensorAt":
        """The same metric at other points."""
        return TensorAt(self.metric, z)


class FlatAt(LocalMetric):
    """The flat metric: free motion is straight."""

    def __init__(self, z: Float[Tensor, "n d"]):
        self.z = z

    @property
    def inverse(self) -> Float[Tensor, "n d d"]:
        """I."""
        n, d = self.z.shape
        return torch.eye(d, dtype=self.z.dtype, device=self.z.device).expand(n, d, d)

    @property
    def logdet(self) -> Float[Tensor, " n"]:
        """0."""
        return self.z.new_zeros(len(self.z))

    def velocity(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """p."""
        return p

    @property
    def rest_gradient(self) -> Float[Tensor, "n d"]:
        """0."""
        return torch.zeros_like(self.z)

    def force(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """0."""
        return torch.zeros_like(p)

    def momentum(self, noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The noise itself."""
        return noise

    def at(self, z: Float[Tensor, "n d"]) -> "FlatAt":
        """The flat metric at other points."""
        return FlatAt(z)
