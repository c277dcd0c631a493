"""Modules that stand for an operation between branches, so that jets can pass through it layer by layer."""

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """x + block(x).

    Args:
        block: a module whose output has the shape of its input.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> Residual(nn.Identity())(torch.ones(1, 2))
        tensor([[2., 2.]])
    """

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        branch = self.block(x)
        check_branch(x, branch)
        return x + branch


class Product(nn.Module):
    """left(x) ⊙ right(x), a gate.

    Args:
        left, right: modules with outputs of the same shape.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> Product(nn.Identity(), nn.Sigmoid())(torch.zeros(1, 2))
        tensor([[0., 0.]])
    """

    def __init__(self, left: nn.Module, right: nn.Module):
        super().__init__()
        self.left = left
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) * self.right(x)


class Sine(nn.Module):
    """sin(ω x), the activation of sinusoidal representation networks (Sitzmann et al. 2020).

    Args:
        frequency: ω.
    """

    def __init__(self, frequency: float = 30.0):
        super().__init__()
        self.frequency = float(frequency)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.frequency * x)

    def extra_repr(self) -> str:
        return f"frequency={self.frequency}"


def check_branch(x: Tensor, branch: Tensor) -> None:
    """Raise ``ValueError`` unless a residual branch has the shape of its input."""
    if x.shape != branch.shape:
        raise ValueError(
            f"residual branch: expected shape {tuple(x.shape)} as its input, got {tuple(branch.shape)}"
        )
