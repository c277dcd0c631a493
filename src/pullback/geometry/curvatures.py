"""Christoffel symbols and the curvature tensor, from an embedding or from the metric tensor."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.geometry.kinks import report_kinks
from pullback.jets import PackedJet, jet, metric_jet
from pullback.jets.indices import count, indices
from pullback.metrics import BaseMetric, as_metric, checked_tensor
from pullback.metrics.base import cholesky, not_positive
from pullback.metrics.compact import compact
from pullback.metrics.embedded import by_chunks, rank_deficient
from pullback.typing import Map, Points
from pullback.validation import check_points

CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Curvature:
    """Curvature of a metric at n points.

    The sign is that of R_{abcd} = g_ac g_bd - g_ad g_bc on the unit sphere.

    Attributes:
        riemann: R_{abcd}, all indices down.
        ricci: Ric_bd = g^{ac} R_abcd.
        scalar: S = g^{bd} Ric_bd; d (d - 1) on the unit sphere.
        gaussian: K = R_1212 / det g = S/2 in two dimensions, else None.
        method: "embedding" (equation of Gauss), "tensor" (second derivatives of g), or "line" (d = 1).
        metric: g at the points.
    """

    riemann: Float[Tensor, "n d d d d"]
    ricci: Float[Tensor, "n d d"]
    scalar: Float[Tensor, " n"]
    gaussian: Float[Tensor, " n"] | None
    method: Literal["embedding", "tensor", "line"]
    metric: Float[Tensor, "n d d"]

    def __len__(self) -> int:
        return len(self.riemann)

    def sectional(self, u: Float[Tensor, "*_ d"], v: Float[Tensor, "*_ d"]) -> Float[Tensor, " n"]:
        """Curvature of the surface that the directions u and v span: R(u, v, u, v)/(|u|²|v|² - <u, v>²).

        Args:
            u, v: one direction a point, (n, d), or one for all, (d,).
        Raises:
            ValueError: another shape, or u and v parallel at a point.
        """
        u, v = (self._directions(name, vector) for name, vector in (("u", u), ("v", v)))
        lowered = (self.metric @ u.unsqueeze(-1)).squeeze(-1)
        square = (lowered * u).sum(-1)
        if not bool((square > 0).all()):
            raise ValueError(f"u: expected a direction, got zero at row {int((square <= 0).nonzero()[0])}")
        across = v - ((lowered * v).sum(-1) / square).unsqueeze(-1) * u
        area = square * torch.einsum("na,nab,nb->n", across, self.metric, across)
        whole = square * torch.einsum("na,nab,nb->n", v, self.metric, v)
        flat = ~(area > 100 * torch.finfo(area.dtype).eps ** 2 * whole)
        if bool(flat.any()):
            raise ValueError(
                f"v: expected a direction that is not parallel to u, row {int(flat.nonzero()[0])}"
            )
        return torch.einsum("nabcd,na,nb,nc,nd->n", self.riemann, u, across, u, across) / area

    def _directions(self, name: str, vector: Any) -> Float[Tensor, "n d"]:
        n, d = self.metric.shape[:2]
        if not isinstance(vector, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(vector).__name__}")
        if tuple(vector.shape) not in ((d,), (n, d)):
            raise ValueError(f"{name}: expected ({n}, {d}) or ({d},), got {tuple(vector.shape)}")
        return check_points(name, vector.to(self.metric).expand(n, d))


def christoffel(
    metric: Any, z: Float[Tensor, "n d"], *, first_kind: bool = False
) -> Float[Tensor, "n d d d"]:
    """Christoffel symbols Γ^c_ab = ½ g^{ce} (∂_a g_eb + ∂_b g_ea - ∂_e g_ab), index c first.

    Of a metric with an embedding F they are g^{ce} <∂_e F, ∂_a ∂_b F>, from one forward and one reverse sweep
    that form no second derivative of the outputs.

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d).
        first_kind: return Γ_{c,ab} = g_ce Γ^e_ab instead.
    Returns: [n, c, a, b]; differentiable.
    Raises:
        ValueError: the metric is not positive definite at a point (second kind).
    Warns:
        PiecewiseLinearWarning: the decoder has kinks, whose contribution is not seen.
    Example:
        >>> import torch
        >>> from pullback.geometry.reference import SwissRoll
        >>> from pullback.metrics import PullbackMetric
        >>> symbols = christoffel(PullbackMetric(SwissRoll().embedding), torch.tensor([[1.0, 0.0]]))
        >>> round(symbols[0, 0, 0, 0].item(), 6)  # u/(1 + u²)
        0.5
    """
    known = as_metric(metric)
    check_points("z", z, known.dim)
    report_kinks(known, strict=False)
    embedding, d = _embedding(known), z.shape[1]
    # Without a graph the contractions of an embedding bound their own memory.
    floats = _floats(embedding, z) if torch.is_grad_enabled() else d**3
    if len(z) == 0:
        return z.new_zeros(0, d, d, d)

    def symbols_at(part: Points) -> Tensor:
        if embedding is None:
            g, symbols = known.tensor(part), _first_kind(known.derivative(part))
        else:
            state = metric_jet(embedding, part)
            g, symbols = state.metric, state.christoffel_first
        if first_kind:
            return symbols
        return torch.cholesky_solve(symbols.flatten(2), cholesky(g)).unflatten(2, (d, d))

    return by_chunks(symbols_at, z, _chunk(z, floats), embedding)


def curvature(metric: Any, z: Float[Tensor, "n d"], *, strict: bool = False) -> Curvature:
    """Riemann, Ricci and scalar curvature.

    Of a metric with an embedding F by the equation of Gauss: with II_ab = (1 - QQᵀ) ∂_a ∂_b F the part of the
    second derivative across the surface (∂F = QR),

        R_abcd = <II_ac, II_bd> - <II_ad, II_bc>,

    which needs no third derivative and does not cancel where the surface is nearly flat. Of other metrics

        R_abcd = ½ (∂_b∂_c g_ad + ∂_a∂_d g_bc - ∂_a∂_c g_bd - ∂_b∂_d g_ac)
                 + g^{ef} (Γ_{e,bc} Γ_{f,ad} - Γ_{e,ac} Γ_{f,bd}).

    do Carmo 1992, "Riemannian Geometry", chapters 4 and 6 (there with the other sign).

    Args:
        metric: any object with ``tensor``.
        z: points, (n, d).
        strict: refuse a decoder with kinks instead of warning.
    Returns: `Curvature`, in units of one over squared length; zero in one dimension. Differentiable.
    Raises:
        ValueError: the metric is not positive definite at a point, or ``strict`` and the decoder has kinks.
    Warns:
        PiecewiseLinearWarning: the decoder has kinks (ReLU, max pooling): its curvature sits there, and the
            zero or small value between them is an artefact.
    Example:
        >>> import torch
        >>> from pullback.geometry.reference import Sphere
        >>> from pullback.metrics import PullbackMetric
        >>> at = curvature(PullbackMetric(Sphere(3).embedding), torch.tensor([[0.1, 0.2, 0.3]]).double())
        >>> round(at.scalar.item(), 6)
        6.0
    """
    known = as_metric(metric)
    check_points("z", z, known.dim)
    linear = report_kinks(known, strict=strict)
    n, d = z.shape
    embedding = _embedding(known)
    method = "line" if d == 1 else "tensor" if embedding is None else "embedding"
    if d == 1 or n == 0 or (linear and embedding is not None):
        g = checked_tensor(known, z)
        return _curvature(g.new_zeros(n, *4 * (d,)), cholesky(g).mT, method)

    def both(part: Points) -> Tensor:
        R, T = _by_tensor(known, part) if embedding is None else _by_embedding(embedding, part)
        return torch.cat([R.flatten(1), T.flatten(1)], dim=1)

    known_at = by_chunks(both, z, _chunk(z, _floats(embedding, z)), embedding)
    riemann, factor = known_at.split([d**4, d**2], dim=1)
    return _curvature(riemann.unflatten(1, (d,) * 4), factor.unflatten(1, (d, d)), method)


def _curvature(
    riemann: Float[Tensor, "n d d d d"],
    T: Float[Tensor, "n d d"],
    method: Literal["embedding", "tensor", "line"],
) -> Curvature:
    """The contractions, from an upper triangular T with g = TᵀT."""
    eye = torch.eye(T.shape[1], dtype=T.dtype, device=T.device).expand_as(T)
    half = torch.linalg.solve_triangular(T, eye, upper=True)
    inverse = half @ half.mT
    ricci = torch.einsum("nac,nabcd->nbd", inverse, riemann)
    scalar = torch.einsum("nbd,nbd->n", inverse, ricci)
    gaussian = None
    if T.shape[1] == 2:
        gaussian = riemann[:, 0, 1, 0, 1] / T.diagonal(dim1=-2, dim2=-1).prod(-1).square()
    return Curvature(riemann, ricci, scalar, gaussian, method, T.mT @ T)


def _by_embedding(F: Map, z: Points) -> tuple[Tensor, Tensor]:
    """Riemann tensor by the equation of Gauss, and R of the QR of ∂F."""
    d = z.shape[1]
    state = jet(F, z, 2, packed=True)
    assert isinstance(state, PackedJet)
    J, H = state.rows[1 : 1 + d].permute(1, 2, 0), state.rows[1 + d :].permute(1, 2, 0)
    Q, T = _triangular(J.masked_fill(~torch.isfinite(state.rows[0]).all(-1)[:, None, None], torch.nan))
    across = H - Q @ (Q.mT @ H)
    pair = indices(d, z.device).full2.reshape(d, d)
    inner = (across.mT @ across)[:, pair][:, :, :, pair]  # <II_ac, II_bd> as [n, a, c, b, d]
    return inner.permute(0, 1, 3, 2, 4) - inner.permute(0, 1, 3, 4, 2), T


def _by_tensor(metric: BaseMetric, z: Points) -> tuple[Tensor, Tensor]:
    """Riemann tensor from second derivatives of g, and the transposed Cholesky factor of g."""
    lower = cholesky(checked_tensor(metric, z))
    second = metric.second_derivative(z)
    symbols = _first_kind(metric.derivative(z))
    d = z.shape[1]
    half = torch.linalg.solve_triangular(lower, symbols.flatten(2), upper=False).unflatten(2, (d, d))
    product = torch.einsum("nebc,nead->nabcd", half, half)
    outer = second.permute(0, 1, 3, 4, 2) + second.permute(0, 3, 1, 2, 4)
    outer = outer - second.permute(0, 3, 1, 4, 2) - second.permute(0, 1, 3, 2, 4)
    return outer / 2 + product - product.transpose(1, 2), lower.mT


def _first_kind(derivative: Float[Tensor, "n d d d"]) -> Float[Tensor, "n d d d"]:
    """Γ_{c,ab} from ∂_c g_ab in the last axis."""
    return (derivative.transpose(2, 3) + derivative - derivative.permute(0, 3, 1, 2)) / 2


def _triangular(J: Float[Tensor, "n p d"]) -> tuple[Tensor, Tensor]:
    """QR of Jacobians; ``ValueError`` naming the first that is not finite or not of full rank."""
    Q, T = torch.linalg.qr(J)
    bad = rank_deficient(T) | ~torch.isfinite(T).all(-1).all(-1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(not_positive("tensor(z)", row, J[row].mT @ J[row]))
    return Q, T


def _embedding(metric: BaseMetric) -> Map | None:
    """The embedding to differentiate, its last linear layers as one of least width."""
    embedding = metric.embedding
    if isinstance(embedding, nn.Module) and torch.is_grad_enabled():
        return compact(embedding, live=True)
    return metric.compact_embedding()


def _floats(embedding: Map | None, z: Points) -> int:
    """Numbers that the curvature of one point holds at once."""
    d = z.shape[1]
    if embedding is None or len(z) < 2:
        return 6 * d**4
    with torch.no_grad():
        p = embedding(z[:1]).numel()
    return 4 * p * count(d, 2) + 4 * d**4


def _chunk(z: Points, floats: int) -> int:
    return max(1, CHUNK_BYTES // (floats * z.element_size()))
