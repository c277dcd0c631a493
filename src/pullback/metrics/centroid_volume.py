"""log det of a centroid metric with its gradient, at many points and many times: what a volume sampler asks.

No graph is recorded. All that does not depend on the points is made once, and no array has an entry a point,
a centroid and a dimension.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.jets.gemm import times_transposed
from pullback.metrics.centroid import CentroidMetric

# Up to this dimension one product with all first moments costs less than two with the matrices alone.
JOINT_DIMENSIONS = 3
# From this dimension on a distance at a time is quicker than a dimension at a time.
WIDE = 8
# |c|², in units of the reach, up to which |u|² + |c|² - 2 u·c loses so many ε of w and no more.
COMPACT = 64.0
# Of one array of points by centroids: a few of them should stay in the cache.
BLOCK_BYTES = 2**19


class CentroidVolume:
    """log det g and ∇ log det g = (2s/T²) Σ w_i <M_i, g> (z - c_i) of one `CentroidMetric`.

    Points and centroids are taken relative to the mean centroid, so that with the rows S = s Σ w_i M_i and
    R_k = s Σ w_i c_ik M_i of one product the force <z_k S - R_k, g> does not cancel far from the origin, and
    in units of T/√log₂e, in which w_i is 2 to the -|z - c_i|²: several times as quick as a power of e.

    Args:
        metric: read once; later changes of its tensors are not seen.
    """

    def __init__(self, metric: CentroidMetric):
        c = metric.centroids.detach()
        self.dim = c.shape[1]
        self._unit = float(metric.temperature) * math.sqrt(math.log(2))
        self._slope = 2 * self._unit / float(metric.temperature) ** 2
        self._middle = c.mean(0)
        self._c = (c - self._middle) / self._unit
        self._rows_at_once = max(1, BLOCK_BYTES // (len(c) * c.element_size()))
        self._columns = self._c.T.contiguous()
        self._squares = self._c.square().sum(1)
        self._is_compact = float(self._squares.max()) <= COMPACT
        d = self.dim
        rows, columns = torch.tril_indices(d, d, device=c.device)
        # where each entry of a matrix stands in its triangle, and each of the triangle in the matrix
        place = torch.zeros(d, d, dtype=torch.long, device=c.device)
        place[rows, columns] = torch.arange(len(rows), device=c.device)
        self._places = torch.maximum(place, place.T).flatten()
        self._flat = rows * d + columns
        diagonal = (rows == columns).to(c).unsqueeze(1)
        self._ridges, self._counts = float(metric.regularization) * diagonal, 2 - diagonal
        packed = metric._packed().detach() * metric._scale
        self._moments = self._packed = packed.T.contiguous()
        if d <= JOINT_DIMENSIONS:
            self._moments = torch.cat([self._packed, *(self._packed * x for x in self._columns)])
        else:
            self._beside = self._slope * torch.cat([torch.ones_like(self._columns[:1]), self._columns])

    def __call__(self, z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """(log det g, its gradient); NaN where g⁻¹ is not finite or not positive definite."""
        root, gradient = self._evaluate(z)
        return self._logdet(root), gradient

    def gradient(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """∇ log det g alone."""
        return self._evaluate(z)[1]

    def _evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What log det g is made of, and its gradient."""
        u = torch.sub(z.detach(), self._middle).div_(self._unit)
        if self.dim <= JOINT_DIMENSIONS:
            # The long side of a thin product first: several times as quick as the other way round.
            sums = [self._moments @ self._exponents(part).exp2_().T for part in u.split(self._rows_at_once)]
            S, *R = torch.cat(sums, dim=1).split(len(self._packed))
            root, g = self._inverted(S)
            a = (g * S).sum(0)
            gradient = torch.stack([x * a - (g * r).sum(0) for x, r in zip(u.T, R, strict=True)], dim=1)
            return root, gradient.mul_(self._slope)
        if len(u) <= self._rows_at_once:
            return self._block(u)
        roots, slopes = zip(*(self._block(part) for part in u.split(self._rows_at_once)), strict=True)
        return torch.cat(roots), torch.cat(slopes)

    @torch.no_grad()
    def nearest(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """min_i |z - c_i|."""
        u = (z - self._middle) / self._unit
        nearest = torch.cat([self._exponents(part).amax(1) for part in u.split(self._rows_at_once)])
        return self._unit * nearest.neg().clamp_min(0).sqrt()

    def _exponents(self, u: Tensor) -> Tensor:
        """-|u - c_i|², by differences where |u|² + |c|² - 2 u·c would cancel."""
        if self.dim >= WIDE and self._is_compact:
            near = torch.addmm(self._squares, u, self._columns, beta=-1, alpha=2)
            return near.sub_(u.square().sum(1, keepdim=True))
        if self.dim >= WIDE:
            return torch.cdist(u, self._c, compute_mode="donot_use_mm_for_euclid_dist").square_().neg_()
        first, *others = zip(u.T.unsqueeze(2), self._columns, strict=True)
        total = (first[0] - first[1]).square_()
        for x, c in others:
            apart = x - c
            total.addcmul_(apart, apart)
        return total.neg_()

    def _block(self, u: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._exponents(u).exp2_()
        C, g = self._factored(times_transposed(weights, self._moments))
        a = (self._beside @ weights.mul_(g @ self._moments).T).T
        return C, torch.addcmul(-a[:, 1:], a[:, :1], u)

    def _factored(self, S: Float[Tensor, "n m"]) -> tuple[Tensor, Float[Tensor, "n m"]]:
        """The Cholesky factor of g⁻¹, and the triangle of g, entries off the diagonal twice.

        From the triangle of g⁻¹ - λ I.
        """
        square = S.add_(self._ridges.T).index_select(1, self._places).unflatten(1, (self.dim, self.dim))
        C, info = torch.linalg.cholesky_ex(square)
        if bool(info.any()):
            C = torch.where((info != 0)[:, None, None], torch.eye(self.dim).to(C) * torch.nan, C)
        g = torch.cholesky_inverse(C).flatten(1).index_select(1, self._flat)
        return C, g.mul_(self._counts.T)

    def _inverted(self, S: Float[Tensor, "m n"]) -> tuple[Tensor, Float[Tensor, "m n"]]:
        """det g⁻¹ or its Cholesky factor, and the triangle of g, as `_factored`, a column a point."""
        if self.dim > 2:
            C, g = self._factored(S.T.contiguous())
            return C, g.T
        inverse = S + self._ridges
        if self.dim == 1:
            det = torch.where(inverse[0] > 0, inverse[0], torch.nan)
            return det, 1 / det.unsqueeze(0)
        a, b, c = inverse
        det = a * c - b * b
        det = torch.where((det > 0) & (a > 0), det, torch.nan)
        return det, torch.stack([c, -2 * b, a]) / det

    def _logdet(self, root: Tensor) -> Float[Tensor, " n"]:
        if self.dim <= 2:
            return -root.log()
        return -2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
