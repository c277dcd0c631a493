"""What a penalty offers, and the sum of several."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from pullback.penalties.errors import UnnormalisedPriorError
from pullback.penalties.strength import Rho

Tier = Literal["beta", "psi", "rho"]
"""What a penalty acts on: decoder coefficients, coordinates and logits, or strengths."""


@runtime_checkable
class Penalty(Protocol):
    """Something to add to an objective, with its curvature in closed form.

    ``target`` is (n, d), or its rows one behind the other, (n·d,); gradients and products have its shape.
    ``rho`` holds log-strengths, (rho_count,); a number or None where there is one. An empty target has the
    value 0.

    Attributes:
        kind: what it is, as a tag.
        name: what a history calls it.
        tier: what it acts on.
        row_block_diagonal: whether the Hessian couples no two rows.
        rho_count: log-strengths that it owns.
    """

    kind: str
    name: str
    tier: Tier
    row_block_diagonal: bool

    @property
    def rho_count(self) -> int: ...

    def value(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """The penalty, strength included: a scalar."""
        ...

    def grad_target(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """Gradient by the target."""
        ...

    def hvp(self, target: Tensor, v: Tensor, rho: Rho = 0.0) -> Tensor:
        """Exact Hessian times ``v``."""
        ...

    def grad_rho(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """Gradient by the log-strengths, (rho_count,)."""
        ...

    def hessian_diag(self, target: Tensor, rho: Rho = 0.0) -> Tensor | None:
        """Exact diagonal of the Hessian; None where only `hvp` or ``curvature`` has it."""
        ...

    def psd_majorizer_diag(self, target: Tensor, rho: Rho = 0.0) -> Tensor | None:
        """The operator of `psd_majorizer_hvp` where it is diagonal, else None."""
        ...

    def psd_majorizer_hvp(self, target: Tensor, v: Tensor, rho: Rho = 0.0) -> Tensor:
        """A positive semi-definite operator in place of the Hessian, times ``v``."""
        ...

    def apply_schedule(self, step: int) -> None:
        """Take the weight that the schedule has at ``step``."""
        ...

    def log_normalizer(self, rho: Rho, n: int) -> Tensor:
        """ln of the integral of exp(-value), up to a constant, for n rows."""
        ...

    def neg_log_prior(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """value + log_normalizer: what to minimise over a log-strength."""
        ...


class SumPenalty:
    """The sum of penalties on one target; their log-strengths stand one behind the other.

    Args:
        members: penalties of one tier, which becomes that of the sum.
        name: what a history calls it.
    Raises:
        ValueError: no member, or members that act on different things. TypeError: not a penalty.
    Example:
        >>> import torch
        >>> from pullback.penalties import ARDPenalty, OrthogonalityPenalty
        >>> both = SumPenalty([OrthogonalityPenalty(), ARDPenalty(latent_dim=2)])
        >>> both.rho_count, both.grad_target(torch.zeros(3, 2)).shape
        (3, torch.Size([3, 2]))
    """

    kind = "sum"

    def __init__(self, members: Sequence[Penalty], *, name: str = "sum"):
        if not members:
            raise ValueError("members: expected at least one penalty, got none")
        for member in members:
            if not isinstance(member, Penalty):
                raise TypeError(f"members: expected penalties, got {type(member).__name__}")
        tiers = sorted({member.tier for member in members})
        if len(tiers) > 1:
            raise ValueError(f"members: expected penalties of one tier, got {' and '.join(tiers)}")
        self.members: tuple[Penalty, ...] = tuple(members)
        self.tier: Tier = members[0].tier
        self.name = name
        self.row_block_diagonal = all(member.row_block_diagonal for member in members)

    @property
    def rho_count(self) -> int:
        """Log-strengths of all members."""
        return sum(member.rho_count for member in self.members)

    def _parts(self, rho: Rho) -> list[tuple[Penalty, Rho]]:
        counts = [member.rho_count for member in self.members]
        if rho is None or isinstance(rho, float | int):
            return [(member, rho) for member in self.members]
        shares = torch.as_tensor(rho)
        if shares.ndim == 0:
            return [(member, shares) for member in self.members]
        if shares.shape != (sum(counts),):
            raise ValueError(f"rho: expected {sum(counts)} log-strengths, got shape {tuple(shares.shape)}")
        return list(zip(self.members, shares.split(counts), strict=True))

    def value(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """Sum of the values."""
        return torch.stack([member.value(target, part) for member, part in self._parts(rho)]).sum()

    def grad_target(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """Sum of the gradients."""
        return _added([member.grad_target(target, part) for member, part in self._parts(rho)])

    def hvp(self, target: Tensor, v: Tensor, rho: Rho = 0.0) -> Tensor:
        """Sum of the Hessian products."""
        return _added([member.hvp(target, v, part) for member, part in self._parts(rho)])

    def grad_rho(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """Gradients by the log-strengths, one behind the other."""
        return torch.cat([member.grad_rho(target, part) for member, part in self._parts(rho)])

    def hessian_diag(self, target: Tensor, rho: Rho = 0.0) -> Tensor | None:
        """Sum of the diagonals; None where a member has none."""
        return _added_or_none([member.hessian_diag(target, part) for member, part in self._parts(rho)])

    def psd_majorizer_diag(self, target: Tensor, rho: Rho = 0.0) -> Tensor | None:
        """Sum of the diagonal majorizers; None where a member has none."""
        return _added_or_none([member.psd_majorizer_diag(target, part) for member, part in self._parts(rho)])

    def psd_majorizer_hvp(self, target: Tensor, v: Tensor, rho: Rho = 0.0) -> Tensor:
        """Sum of the members' operators times ``v``."""
        return _added([member.psd_majorizer_hvp(target, v, part) for member, part in self._parts(rho)])

    def apply_schedule(self, step: int) -> None:
        """Advance all members."""
        for member in self.members:
            member.apply_schedule(step)

    def log_normalizer(self, rho: Rho, n: int) -> Tensor:
        """The normaliser of a single member; that of a product of priors is no product.

        Raises:
            UnnormalisedPriorError: more than one member.
        """
        if len(self.members) > 1:
            raise UnnormalisedPriorError(
                "sum: the normaliser of several priors on one target is not known; learn the strength of a "
                "single penalty, or set the strengths by a schedule or a validation grid"
            )
        return next(iter(self.members)).log_normalizer(rho, n)

    def neg_log_prior(self, target: Tensor, rho: Rho = 0.0) -> Tensor:
        """value + log_normalizer of a single member; see `log_normalizer`."""
        if len(self.members) > 1:
            return self.log_normalizer(rho, 0)
        return next(iter(self.members)).neg_log_prior(target, rho)


def _added(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _added_or_none(parts: list[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return _added(known) if len(known) == len(parts) else None
