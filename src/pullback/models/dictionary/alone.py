"""One chart fitted to rows by itself: the step that starts and evidence are made of."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.decoder_step import DecoderFit, NotDefiniteError, gather, solve, unit_atoms
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.row_step import step_rows
from pullback.models.dictionary.smoothing import fellner_schall, settled
from pullback.typing import Chart
from pullback.validation import check_points, check_positive, check_shape, check_whole

START = 1e-3
"""λ of a chart alone."""
RIDGE = 1e-6
"""ρ of a row."""
SHORT = 1e-6
"""Squared length, over the mean of an atom's, below which a point of its grid counts as this long: where an
atom passes through the origin, rounding decides how often a row has it."""
ALIKE = 1e-13
"""Distance to the mean, in units of the rows' length, below which rows are alike."""


@dataclass(frozen=True, eq=False)
class ChartFit:
    """One chart fitted to n rows z = a Φ(t) B + noise.

    Attributes:
        chart: the chart.
        t: coordinates, (n, c).
        a: amplitudes, (n,), all 1 where they were not estimated.
        B: decoders, (M, p); with estimated amplitudes the root mean square of |Φ B| over the grid is 1.
        A: XᵀX + λ S + ρ I, X the rows a Φ(t), (M, M).
        lam, rho: λ and ρ.
        edf: tr(A⁻¹ XᵀX).
        rss: Σ |z - ẑ|².
        s2: rss over n p - p edf - the number of latents.
        path: objective after every sweep.
        converged: whether the objective and λ came to rest.
        definite: False where A had no Cholesky factor; then the result is that of the sweep before.
    """

    chart: Chart
    t: Float[Tensor, "n c"]
    a: Float[Tensor, " n"]
    B: Float[Tensor, "k p"]
    A: Float[Tensor, "k k"]
    lam: float
    rho: float
    edf: float
    rss: float
    s2: float
    path: tuple[float, ...]
    converged: bool
    definite: bool

    def decode(self, t: Float[Tensor, "n c"] | None = None) -> Float[Tensor, "n p"]:
        """Φ(t) B, without amplitudes; at the rows' own coordinates where t is None."""
        return self.chart.jet((self.t if t is None else t).to(self.B), 0).value @ self.B


def fit_chart(
    chart: Chart,
    Z: Float[Tensor, "n p"],
    t0: Float[Tensor, "n c"],
    *,
    amplitudes: Float[Tensor, " n"] | None = None,
    sweeps: int = 40,
    steps: int = 2,
    reencode: tuple[int, ...] = (8, 16),
    smoothness: float | None = None,
    row_weights: Float[Tensor, " n"] | None = None,
    tol: float = 1e-6,
) -> ChartFit:
    """Alternate decoders in closed form, the Fellner-Schall step, and Levenberg-Marquardt steps of the rows.

    Args:
        chart: what to fit.
        Z: rows, (n, p); nothing is subtracted.
        t0: first coordinates, (n, c).
        amplitudes: first amplitudes a > 0, (n,), which are then estimated; None for a = 1 throughout.
        sweeps: at most.
        steps: of the rows in a sweep.
        reencode: sweeps before which every row is offered the best point of the chart's grid.
        smoothness: λ; None lets the data choose from the third sweep on.
        row_weights: w >= 0, (n,).
        tol: relative change of the objective at which to stop.
    Raises:
        ValueError, TypeError: see the messages.
    Example:
        >>> import torch
        >>> from pullback import charts
        >>> t = torch.linspace(0, 6, 100).unsqueeze(1)
        >>> ring = torch.cat([t.cos(), t.sin(), 0 * t], 1).double()
        >>> fit = fit_chart(charts.circle(1), ring, t.double())
        >>> fit.B.shape, fit.rss < 1e-6
        (torch.Size([3, 3]), True)
    """
    Z = check_points("Z", Z)
    check_whole("sweeps", sweeps)
    check_shape("t0", t0, (len(Z), chart.c))
    if amplitudes is not None:
        check_shape("amplitudes", amplitudes, (len(Z),))
        check_positive("amplitudes", amplitudes)
    if row_weights is not None:
        check_shape("row_weights", row_weights, (len(Z),))
        check_positive("row_weights", row_weights, zero=True)
    scale = spread(Z)
    free = amplitudes is not None
    a = (
        torch.ones(len(Z), dtype=torch.float64, device=Z.device)
        if amplitudes is None
        else amplitudes.double() / scale
    )
    start = Codes(
        torch.zeros(len(Z), 1, dtype=torch.long, device=Z.device), a.unsqueeze(1), t0.double().unsqueeze(1)
    )
    alternation = _Alternation(Layout((chart,)), Z.double() / scale, row_weights, free, steps, smoothness)
    return alternation.run(start, sweeps, reencode, tol, scale)


def spread(Z: Float[Tensor, "n p"]) -> float:
    """sqrt of the mean squared distance to the mean; the length of rows that are all alike, 1 of zeros."""
    rows = Z.double()
    size = math.sqrt(float((rows - rows.mean(0)).square().sum() / len(rows)))
    length = math.sqrt(float(rows.square().sum() / len(rows)))
    # below, only the rounding of the mean is seen
    return size if size > ALIKE * length else length or 1.0


@dataclass(frozen=True, eq=False)
class _Alternation:
    layout: Layout
    Z: Tensor
    row_weights: Tensor | None
    free: bool
    steps: int
    smoothness: float | None

    def run(self, codes: Codes, sweeps: int, reencode: tuple[int, ...], tol: float, scale: float) -> ChartFit:
        chart, damping = self.layout.charts[0], None
        lam = self.Z.new_full((1,), START if self.smoothness is None else self.smoothness)
        always = chart.d == 0 and self.steps > 0
        path: list[float] = []
        fit: DecoderFit | None = None
        converged, definite = False, True
        for sweep in range(sweeps):
            try:
                fit, codes = self._decoders(codes, lam)
            except NotDefiniteError:
                if fit is None:
                    raise
                definite = False
                break
            path.append(fit.rss / 2 + fit.penalty)
            before = fit.lam
            lam = fellner_schall(self.layout, fit) if self.smoothness is None and sweep >= 2 else fit.lam
            still = len(path) > 1 and abs(path[-2] - path[-1]) <= tol * path[-1]
            if still and settled(before, lam) and sweep > max((0, *reencode)):
                converged = True
                break
            if sweep == sweeps - 1:
                break
            C, G = self.Z @ fit.B.mT, fit.B @ fit.B.mT
            if always or sweep in reencode:
                codes, damping = self._offered(codes, C, G), None
            taken = step_rows(self.layout, C, G, codes, damping, steps=self.steps, free_weights=self.free)
            codes, damping = taken.codes, taken.damping
        assert fit is not None
        return self._result(fit, codes, tuple(path), converged, definite, scale)

    def _decoders(self, codes: Codes, lam: Tensor) -> tuple[DecoderFit, Codes]:
        """Decoders for codes, of unit size where amplitudes are free; the codes in the same units."""
        rho = RIDGE * len(self.Z)
        moments = gather(self.layout, codes, self.Z, self.row_weights, free_weights=self.free)
        fit = solve(self.layout, moments, lam, rho)
        if not self.free:
            return fit, codes
        size = unit_atoms(self.layout, fit.B)
        square = float(size[0]) ** 2
        scaled = replace(
            fit,
            B=fit.B / size,
            A=fit.A * square,
            factor=fit.factor * size,
            lam=fit.lam * square,
            rho=fit.rho * square,
            rough=fit.rough / square,
        )
        return scaled, codes.scaled(size)

    def _offered(self, codes: Codes, C: Tensor, G: Tensor) -> Codes:
        """Each row at the best point of the grid, if that is better than where it is."""
        ((grid, basis),) = self.layout.grids(self.Z)
        score, size = C @ basis.mT, ((basis @ G) * basis).sum(1)
        if self.free:
            size = size.clamp_min(float(SHORT * size.mean()))
        gain = score.clamp_min(0).square() / size.clamp_min(1e-300) / 2 if self.free else score - size / 2
        best = gain.max(1)
        now = step_rows(self.layout, C, G, codes, steps=0, free_weights=self.free).value
        weights = codes.weights
        if self.free:
            picked = score.gather(1, best.indices.unsqueeze(1)) / size[best.indices].unsqueeze(1).clamp_min(
                1e-300
            )
            weights = picked.clamp_min(1e-3)
        offer = Codes(codes.atoms, weights, grid[best.indices].unsqueeze(1))
        return offer.where(-best.values < now, codes)

    def _result(
        self,
        fit: DecoderFit,
        codes: Codes,
        path: tuple[float, ...],
        converged: bool,
        definite: bool,
        scale: float,
    ) -> ChartFit:
        square = scale**2
        t, a = codes.coords[:, 0], codes.weights[:, 0]
        chart = self.layout.charts[0]
        # for the rows themselves: moments lose digits where the fit is nearly perfect
        missed = self.Z - a.unsqueeze(1) * (chart.jet(t, 0).value @ fit.B)
        w = 1.0 if self.row_weights is None else self.row_weights.double()
        rss = float((missed.square().sum(1) * w).sum())
        s2 = fit.s2 * rss / fit.rss if fit.rss > 0 else 0.0
        units = square if self.free else 1.0
        return ChartFit(
            chart=chart,
            t=t,
            a=a * scale if self.free else a,
            B=fit.B if self.free else fit.B * scale,
            A=fit.A * units,
            lam=float(fit.lam[0]) * units,
            rho=fit.rho * units,
            edf=fit.edf,
            rss=rss * square,
            s2=s2 * square,
            path=tuple(value * square for value in path),
            converged=converged,
            definite=definite,
        )
