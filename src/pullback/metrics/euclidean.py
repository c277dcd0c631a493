"""The flat metric: identity everywhere."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.metrics.base import BaseMetric, Points, Tensors
from pullback.metrics.local import FlatAt
from pullback.typing import Map
from pullback.validation import check_whole


class EuclideanMetric(BaseMetric):
    """g = I on R^d.

    Example:
        >>> import torch
        >>> EuclideanMetric(2).logdet(torch.ones(1, 2))
        tensor([0.])
    """

    def __init__(self, dim: int):
        check_whole("dim", dim)
        self.dim = int(dim)

    def tensor(self, z: Points) -> Tensors:
        """I at every point."""
        return torch.eye(z.shape[1], dtype=z.dtype, device=z.device).expand(len(z), -1, -1)

    def inverse(self, z: Points) -> Tensors:
        """I at every point."""
        return self.tensor(z)

    def logdet(self, z: Points) -> Float[Tensor, " n"]:
        """0 at every point."""
        return torch.zeros_like(z[:, 0])

    @property
    def embedding(self) -> Map:
        """The identity."""
        return nn.Identity()

    def derivative(self, z: Points) -> Float[Tensor, "n d d d"]:
        """0."""
        return z.new_zeros(len(z), *3 * (z.shape[1],))

    def second_derivative(self, z: Points) -> Float[Tensor, "n d d d d"]:
        """0."""
        return z.new_zeros(len(z), *4 * (z.shape[1],))

    def hamiltonian_force(self, z: Points, p: Points) -> Points:
        """0: free motion is straight."""
        return torch.zeros_like(p)

    def local(self, z: Points) -> FlatAt:
        """Nothing to compute."""
        return FlatAt(z)

    def __repr__(self) -> str:
        return f"EuclideanMetric({self.dim})"
