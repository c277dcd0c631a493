"""How orthonormal frames along a curve turn against each other.

Both forms use the same frames: Gram-Schmidt of the coordinate directions, g = RᵀR with R upper triangular
and positive on the diagonal, so that c = R v are orthonormal coordinates. Parallel transport is orthogonal
in them, and both forms compute it by matrices that are orthogonal to rounding.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.geometry.route import Points
from pullback.geometry.spline import SmoothCurve
from pullback.jets import PackedJet, jet
from pullback.metrics import BaseMetric
from pullback.metrics.base import cholesky
from pullback.typing import Map

Turns = Float[Tensor, "m M d d"]

# Numbers of derivatives at a time.
BUDGET = 2**21


class Connection(ABC):
    """Parallel transport on a metric from one node of a curve to the next.

    Attributes:
        order: the turns are exact up to a power series in h^order, h^(order + 2) and so on.
    """

    order: int

    @abstractmethod
    def frames(self, z: Points) -> Float[Tensor, "n d d"]:
        """R, with c = R v the orthonormal coordinates of a vector v."""

    @abstractmethod
    def turns(self, curve: SmoothCurve, parts: int) -> Turns:
        """c_{k+1} = turn_k c_k over the pieces of a curve whose intervals are cut into ``parts``."""

    @abstractmethod
    def numbers(self, z: Points) -> int:
        """How many numbers one piece takes in `turns`."""


class Polar(Connection):
    """The orthogonal polar factor of E_{k+1}ᵀE_k, with orthonormal bases E of the tangent planes, J = E R.

    Projecting a vector from plane to plane would shorten it at first order; the polar factor keeps norms and
    angles, and is of second order in the step.
    """

    order = 2

    def __init__(self, embedding: Map):
        self.embedding = embedding

    def _factors(self, z: Points) -> tuple[Tensor, Tensor]:
        state = jet(self.embedding, z, 1, lowest=1, packed=True)
        assert isinstance(state, PackedJet)
        E, R = torch.linalg.qr(state.rows.permute(1, 2, 0))
        # Householder's signs may jump from point to point; with a positive diagonal the frames are smooth.
        sign = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1, 1).to(R)
        return E * sign.unsqueeze(-2), R * sign.unsqueeze(-1)

    def numbers(self, z: Points) -> int:
        return z.shape[1] * max(z.shape[1], self.embedding(z[:1]).shape[1])

    def frames(self, z: Points) -> Float[Tensor, "n d d"]:
        size = max(1, BUDGET // self.numbers(z))
        return torch.cat([self._factors(part)[1] for part in z.split(size)])

    def turns(self, curve: SmoothCurve, parts: int) -> Turns:
        inside = curve.inside(tuple(j / parts for j in range(parts)))[0].flatten(1, 2)
        nodes = torch.cat([inside, curve.points[:, -1:]], dim=1)
        size = max(1, BUDGET // (len(nodes) * self.numbers(nodes[:, 0])))
        turns = []
        for low in range(0, nodes.shape[1] - 1, size):
            piece = nodes[:, low : low + size + 1]
            E = self._factors(piece.flatten(0, 1))[0].unflatten(0, piece.shape[:2])
            turns.append(_polar_factor(E[:, 1:].mT @ E[:, :-1]))
        return torch.cat(turns, dim=1)


def _polar_factor(x: Turns) -> Turns:
    """U Vᵀ of the singular value decomposition; NaN for matrices that are not finite."""
    known = torch.isfinite(x).all(-1).all(-1)[..., None, None]
    U, _, Vt = torch.linalg.svd(torch.where(known, x, torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)))
    return torch.where(known, U @ Vt, torch.nan)


class Magnus(Connection):
    """The exponential of the connection form of the frames, by two Gauss points a piece.

    v̇^c = -Γ^c_ab ż^a v^b becomes ċ = A c in the frames, with

        A = ½(Φᵀ - Φ) - ½ L⁻¹ N L⁻ᵀ,  L = Rᵀ,  Φ = lower triangle (half the diagonal) of L⁻¹ ġ L⁻ᵀ,
        N_eb = ż^a (∂_b g_ea - ∂_e g_ab).

    A is antisymmetric, and so is the average by which one piece turns (Magnus 1954; fourth order, Blanes and
    others 2009): exp of it is orthogonal. A Runge-Kutta step would change lengths.
    """

    order = 4

    def __init__(self, metric: BaseMetric):
        self.metric = metric

    def numbers(self, z: Points) -> int:
        return 2 * z.shape[1] ** 2

    def frames(self, z: Points) -> Float[Tensor, "n d d"]:
        return cholesky(self.metric.tensor(z)).mT

    def turns(self, curve: SmoothCurve, parts: int) -> Turns:
        m, nodes, d = curve.points.shape
        offset = 3**0.5 / 6
        fractions = [(j + 0.5 + side * offset) / parts for j in range(parts) for side in (-1, 1)]
        z, velocity = (part.reshape(-1, d) for part in curve.inside(tuple(fractions)))
        size = max(1, BUDGET // (8 * d**3))
        A = torch.cat(
            [self._form(*part) for part in zip(z.split(size), velocity.split(size), strict=True)]
        ).reshape(m, (nodes - 1) * parts, 2, d, d)
        h = 1 / ((nodes - 1) * parts)
        left, right = A[:, :, 0], A[:, :, 1]
        swap = right @ left - left @ right
        return torch.matrix_exp(h / 2 * (left + right) + 3**0.5 / 12 * h**2 * swap)

    def _form(self, z: Points, velocity: Points) -> Float[Tensor, "n d d"]:
        D = self.metric.derivative(z)
        L, info = torch.linalg.cholesky_ex(self.metric.tensor(z))
        P = torch.einsum("nabc,na->nbc", D, velocity)
        both = torch.stack([torch.einsum("nabc,nc->nab", D, velocity), P - P.mT])
        half = torch.linalg.solve_triangular(L, both, upper=False)
        S, N = torch.linalg.solve_triangular(L, half.mT, upper=False).mT
        lower = S.tril(-1)
        form = (lower.mT - lower - N) / 2
        return torch.where((info == 0)[:, None, None], (form - form.mT) / 2, torch.nan)


def connection_of(metric: BaseMetric, method: str) -> Connection:
    """Through the embedding where there is one, unless ``method`` says "tensor"."""
    embedding = None if method == "tensor" else metric.compact_embedding()
    return Magnus(metric) if embedding is None else Polar(embedding)
