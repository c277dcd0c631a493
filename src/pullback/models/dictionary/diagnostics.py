"""What a fit says about itself."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.alarms import Alarm, fit_alarms
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.gauge import isometry_residual, speed_variation
from pullback.models.dictionary.gram import whitened
from pullback.models.dictionary.restarts import DictionaryFit
from pullback.models.dictionary.row_metrics import RowMetrics
from pullback.models.dictionary.scores import effective_atoms
from pullback.models.dictionary.topology import Topology

DEAD = 0.005


@dataclass(frozen=True, eq=False)
class GaugeCheck:
    """Speed along an atom: coefficient of variation over the chart, and mean |G/gbar - I|² at its rows."""

    speed_variation: float
    isometry_residual: float


@dataclass(frozen=True, eq=False)
class FitDiagnostics:
    """What a fit says about itself.

    Attributes:
        fvu: Σ|z - ẑ|² over Σ|z - z̄|², by the factors of rows where they have some.
        sigma: noise level that the fit leaves.
        sigma_noise: noise level that the spectrum of the rows tells; None without a flat bulk.
        edf: effective number of basis functions.
        n_eff: mean exponential entropy of a row's weights.
        usage: share of rows that use each atom, (K,).
        dead: atoms that fewer than .005 of the rows use.
        objective: F after every sweep of the fit that was kept.
        restart_objectives: F of all attempts, the kept one first.
        restart_sigmas: noise levels of all attempts.
        restart_views: what each of them started from.
        topology: how each chart was chosen, None where it was given.
        gauge: speed and isometry of every atom.
        pure: rows that each atom has alone, (K,).
        alarms: what should be looked at.
        converged: whether the fit came to rest.
        message: why it ended.
        n_sweeps: sweeps of the fit that was kept.
    """

    fvu: float
    sigma: float
    sigma_noise: float | None
    edf: float
    n_eff: float
    usage: Float[np.ndarray, " k"]
    dead: tuple[int, ...]
    objective: tuple[float, ...]
    restart_objectives: tuple[float, ...]
    restart_sigmas: tuple[float, ...]
    restart_views: tuple[str, ...]
    topology: tuple[Topology | None, ...]
    gauge: tuple[GaugeCheck, ...]
    pure: tuple[int, ...]
    converged: bool
    message: str
    n_sweeps: int
    alarms: tuple[Alarm, ...] = field(default=())


def diagnose_fit(
    found: DictionaryFit, Z: Float[Tensor, "n p"], metrics: RowMetrics | None = None
) -> FitDiagnostics:
    """Diagnostics of a fit.

    Args:
        found: all attempts.
        Z: the rows.
        metrics: of rows that are measured each by a factor of its own.
    """
    best = found.best
    fit, codes = best.fit, best.fit.codes
    layout = fit.layout
    rows = Z.double()
    apart = rows - rows.mean(0) if metrics is None else whitened(rows - metrics.mean(rows), metrics.factors)
    spread = float(apart.square().sum())
    usage = codes.usage(layout.K).cpu().numpy()
    gauge = []
    for k, chart in enumerate(layout.charts):
        t, B = _coords(codes, k, chart.c), fit.B[layout.block(k)]
        residual = isometry_residual(chart, B, t) if len(t) and chart.d else 0.0
        gauge.append(GaugeCheck(speed_variation(chart, B), residual))
    return FitDiagnostics(
        fvu=fit.decoders.rss / spread if spread > 0 else 0.0,
        sigma=fit.s2**0.5,
        sigma_noise=best.sigma,
        edf=fit.decoders.edf,
        n_eff=_effective(codes),
        usage=usage,
        dead=tuple(int(k) for k in np.flatnonzero(usage < DEAD)),
        objective=fit.path,
        restart_objectives=tuple(one.objective for one in found.attempts),
        restart_sigmas=tuple(one.fit.s2**0.5 for one in found.attempts),
        restart_views=tuple(one.view for one in found.attempts),
        topology=best.topologies,
        gauge=tuple(gauge),
        pure=best.pure,
        converged=fit.converged,
        message=fit.message,
        n_sweeps=fit.sweeps,
        alarms=fit_alarms(
            fit,
            sigma_noise=best.sigma,
            topologies=best.topologies,
            pure=best.pure,
            found=best.found,
            restarts=found.ranks,
            random=best.view.startswith("random"),
        ),
    )


def _effective(codes: Codes) -> float:
    weights = codes.weights[codes.weights.sum(1) > 0]
    return effective_atoms(weights) if len(weights) else 0.0


def _coords(codes: Codes, k: int, c: int) -> Tensor:
    """Coordinates of the rows that an atom explains most of, (n, c)."""
    own = (codes.atoms == k) & (codes.weights > 0.5 * codes.weights.amax(1, keepdim=True).clamp_min(1e-300))
    row, slot = own.nonzero(as_tuple=True)
    return torch.as_tensor(codes.coords)[row, slot, :c]
