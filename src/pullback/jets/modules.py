"""Modules that stand for an operation between branches, so that jets can pass through it layer by layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pullback.typing import Map


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


class Stack(nn.Module):
    """[s_1 f_1(x), .., s_k f_k(x)]: the outputs of several maps side by side, each times a number.

    Args:
        branches: maps (n, d) -> (n, q_k), modules or functions.
        scales: one number a branch; None is 1 for all.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> Stack(nn.Identity(), torch.square, scales=(1.0, 0.5))(torch.tensor([[2.0, 4.0]]))
        tensor([[2., 4., 2., 8.]])
    """

    def __init__(self, *branches: Map, scales: Sequence[float | int] | None = None):
        super().__init__()
        # Modules are looked up by name, so that one put in another's place counts.
        self._functions = tuple(None if isinstance(branch, nn.Module) else branch for branch in branches)
        self.scales = (1.0,) * len(branches) if scales is None else tuple(float(s) for s in scales)
        if not branches or len(self.scales) != len(branches):
            raise ValueError(
                f"branches: expected at least one, and one scale each, got {len(branches)} branches and "
                f"{len(self.scales)} scales"
            )
        for k, branch in enumerate(branches):
            if isinstance(branch, nn.Module):
                self.add_module(str(k), branch)

    @property
    def branches(self) -> tuple[Map, ...]:
        """The maps in order."""
        return tuple(getattr(self, str(k)) if f is None else f for k, f in enumerate(self._functions))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.scaled([branch(x) for branch in self.branches]), dim=-1)

    def scaled(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs of the branches times their scales."""
        return [y if s == 1 else s * y for s, y in zip(self.scales, outputs, strict=True)]


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
