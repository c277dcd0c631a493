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

    @abstractmethod
    def kinetic_gradient(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """∂κ/∂z at a fixed momentum."""

    @abstractmethod
    def momentum(self, noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """A momentum with covariance g from standard normal numbers."""

    @abstractmethod
    def at(self, z: Float[Tensor, "n d"]) -> "LocalMetric":
        """The same metric at other points."""

    def velocity(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """∂κ/∂p = g⁻¹ p."""
        return (self.inverse @ p.unsqueeze(-1)).squeeze(-1)


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

    def kinetic_gradient(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """½ <∂_c g, g⁻¹ - v vᵀ>."""
        v = self.velocity(p)
        weight = self.inverse - v.unsqueeze(-1) * v.unsqueeze(-2)
        return torch.einsum("nabc,nab->nc", self._derivative, weight) / 2

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

    def kinetic_gradient(self, p: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """0."""
        return torch.zeros_like(p)

    def momentum(self, noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The noise itself."""
        return noise

    def at(self, z: Float[Tensor, "n d"]) -> "FlatAt":
        """The flat metric at other points."""
        return FlatAt(z)
