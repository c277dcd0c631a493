"""What is known of a decoder at the points of a target, and the products that the gauge needs of it.

Two kinds: derivatives that somebody gives (`GivenJet`), and a decoder that is differentiated here
(`DecoderAt`), where neither the Hessian nor the third derivative is ever formed. Each offers

    metric              g (n, d, d)
    contract(A)         Σ_ab A_ab ∂_c g_ab, (n, d)
    derivative()        ∂_c g_ab as [n, a, b, c]
    curvature(A)        Σ_ab A_ab ∂_c ∂_e g_ab, (n, d, d)
    along(A, v)         the same times v, (n, d)
    jacobian_slope(A)   2 W J A, (n, p, d)

for symmetric A that is held fixed.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.ambient import Constant
from pullback.jets import Jet, jet, metric_jet
from pullback.penalties.decoder_metric import jacobian_at, pulled_metric
from pullback.penalties.kernels import contract, gram, times
from pullback.penalties.weighting import check_fits, checked_constant, embedding
from pullback.typing import Ambient, Map


@dataclass(frozen=True, eq=False)
class GivenJet:
    """Derivatives J, H, K that are given; W is constant.

    ``scale`` divides all of them where their squares would leave the range of the dtype.
    """

    jacobian: Float[Tensor, "n p d"]
    hessian: Float[Tensor, "n p d d"] | None
    third: Float[Tensor, "n p d d d"] | None
    ambient: Constant
    scale: float = 1.0

    @staticmethod
    def of(known: Jet, ambient: Ambient) -> "GivenJet":
        """The evidence of a jet, checked against the ambient."""
        ambient = checked_constant(ambient)
        J = known.jacobian
        assert J is not None
        check_fits(ambient, J.shape[0], J.shape[1])
        return GivenJet(J, known.hessian, known.third, ambient)

    def rescaled(self) -> "GivenJet":
        """The same with entries of order 1."""
        scale = float(self.jacobian.detach().abs().max())
        parts = [None if part is None else part / scale for part in (self.hessian, self.third)]
        return GivenJet(self.jacobian / scale, parts[0], parts[1], self.ambient, scale)

    @cached_property
    def short(self) -> Float[Tensor, "n r d"]:
        """M = UᵀJ, (n, r, d)."""
        return self.ambient.whiten(self.jacobian)

    @cached_property
    def weighted(self) -> Float[Tensor, "n p d"]:
        """W J = U M, (n, p, d)."""
        return self.ambient.unwhiten(self.short)

    @cached_property
    def metric(self) -> Float[Tensor, "n d d"]:
        return gram(self.short)

    def jacobian_slope(self, A: Float[Tensor, "n d d"]) -> Float[Tensor, "n p d"]:
        return times(self.weighted, (2 * A / self.scale).to(self.jacobian))

    def _slope(self, A: Tensor) -> Tensor:
        return times(self.weighted, (2 * A).to(self.jacobian))

    def contract(self, A: Float[Tensor, "n d d"]) -> Float[Tensor, "n d"]:
        """(W J A) against H: p d² a point, not the p d³ of the derivative of g."""
        assert self.hessian is not None
        return contract(self._slope(A), self.hessian)

    def derivative(self) -> Float[Tensor, "n d d d"]:
        assert self.hessian is not None
        n, p, d = self.jacobian.shape
        C = torch.bmm(self.weighted.mT, self.hessian.reshape(n, p, d * d)).view(n, d, d, d)
        return C + C.transpose(1, 2)

    def _third_along(self, A: Tensor) -> Tensor:
        """Σ_ia (2 W J A)_ia K_iace, (n, d, d)."""
        assert self.third is not None
        n, p, d = self.jacobian.shape
        slope = self._slope(A).reshape(n, 1, p * d)
        return torch.bmm(slope, self.third.reshape(n, p * d, d * d)).view(n, d, d)

    def curvature(self, A: Float[Tensor, "n d d"]) -> Float[Tensor, "n d d"]:
        """K against 2 W J A, and 2 Σ_ab A_ab (UᵀH_ac)·(UᵀH_be)."""
        assert self.hessian is not None
        n, p, d = self.jacobian.shape
        short = self.ambient.whiten(self.hessian.reshape(n, p, d * d))
        r = short.shape[1]
        mixed = torch.einsum("nab,niac->nibc", (2 * A).to(short), short.reshape(n, r, d, d))
        return self._third_along(A) + mixed.reshape(n, r * d, d).mT @ short.reshape(n, r * d, d)

    def along(self, A: Float[Tensor, "n d d"], v: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        assert self.hessian is not None
        change = torch.einsum("niac,nc->nia", self.hessian, v)
        weighted = self.ambient.unwhiten(self.ambient.whiten(change))
        straight = contract(times(weighted, (2 * A).to(weighted)), self.hessian)
        return straight + torch.bmm(self._third_along(A), v.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, eq=False)
class DecoderAt:
    """A decoder at points, differentiated here; differentiable to both."""

    decoder: Map
    points: Float[Tensor, "n d"]
    ambient: Ambient

    @cached_property
    def metric(self) -> Float[Tensor, "n d d"]:
        return pulled_metric(self.decoder, self.points, self.ambient)

    def jacobian_slope(self, A: Float[Tensor, "n d d"]) -> Float[Tensor, "n p d"]:
        value, J = jacobian_at(self.decoder, self.points)
        ambient = self.ambient.at(self.points) if hasattr(self.ambient, "at") else self.ambient  # type: ignore[attr-defined]
        check_fits(ambient, J.shape[0], J.shape[1])
        return ambient.apply(value, J) @ (2 * A).to(J)

    def derivative(self) -> Float[Tensor, "n d d d"]:
        return _derivative(self.decoder, self.points, self.ambient)

    def contract(self, A: Float[Tensor, "n d d"]) -> Float[Tensor, "n d"]:
        return _contracted(self.decoder, self.points, self.ambient, A)

    def curvature(self, A: Float[Tensor, "n d d"]) -> Float[Tensor, "n d d"]:
        """d reverse sweeps through `contract`, one a column."""
        d = self.points.shape[1]
        unit = torch.eye(d, dtype=self.points.dtype, device=self.points.device)
        columns = [self.along(A, unit[c].expand_as(self.points)) for c in range(d)]
        return torch.stack(columns, dim=2)

    def along(self, A: Float[Tensor, "n d d"], v: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The derivative of `contract` in the direction v, by one reverse sweep: it is symmetric."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            follow = keep and self.points.requires_grad
            at = self.points.view_as(self.points) if follow else self.points.detach().requires_grad_()
            slope = _contracted(self.decoder, at, self.ambient, A)
            if not slope.requires_grad:
                return torch.zeros_like(v)
            (product,) = torch.autograd.grad(slope, at, v, create_graph=keep, materialize_grads=True)
        return product if keep else product.detach()


Evidence = GivenJet | DecoderAt
"""A decoder at n points."""


def _derivative(decoder: Map, z: Tensor, ambient: Ambient) -> Tensor:
    """∂_c g_ab as [n, a, b, c]."""
    found = embedding(decoder, ambient, z)
    if found is not None:
        C = metric_jet(found[0], z, found[1]).christoffel_first
        return C.transpose(1, 2) + C
    d = z.shape[1]
    rows, columns = torch.tril_indices(d, d, device=z.device)
    whole = torch.empty(d, d, dtype=torch.long, device=z.device)
    whole[rows, columns] = whole[columns, rows] = torch.arange(len(rows), device=z.device)
    triangle = jet(lambda at: pulled_metric(decoder, at, ambient)[:, rows, columns], z, 1, lowest=1)
    assert isinstance(triangle, Jet)
    assert triangle.jacobian is not None
    return triangle.jacobian[:, whole.flatten()].unflatten(1, (d, d))


def _contracted(decoder: Map, z: Tensor, ambient: Ambient, A: Tensor) -> Tensor:
    return torch.einsum("nab,nabc->nc", A.to(z), _derivative(decoder, z, ambient))
