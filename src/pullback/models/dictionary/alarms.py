"""What is wrong with a fit, said before anyone relies on it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.gauge import speed_variation
from pullback.models.dictionary.iterate import Alternated
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.matching import subspace_overlap
from pullback.models.dictionary.noise import largest_ratio
from pullback.models.dictionary.topology import Topology
from pullback.typing import Chart

logger = logging.getLogger(__name__)

Code = Literal[
    "residual_above_noise",
    "soft_assignment",
    "restart_spread",
    "topology_undecided",
    "discrete",
    "gauge",
    "folded",
    "few_pure_rows",
    "dead_atom",
    "duplicate_atoms",
    "not_converged",
    "numerical",
]

SOFT, SPREAD, SPEED, FEW, DEAD, ALIKE = 0.9, 0.05, 0.3, 40, 0.005, 0.9
FAR, NEAR = 0.25, 2.0
GRID = 200


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong.

    Attributes:
        code: what.
        atom: which atom, None for the whole fit.
        value, threshold: what was measured, and what it should not exceed or fall below.
        hint: what to try.
    """

    code: Code
    atom: int | None
    value: float
    threshold: float
    hint: str

    def __str__(self) -> str:
        where = "" if self.atom is None else f" (atom {self.atom})"
        return f"{self.code}{where}: {self.value:.4g} against {self.threshold:.4g}; {self.hint}"


def fit_alarms(
    fit: Alternated,
    *,
    sigma_noise: float | None,
    topologies: Sequence[Topology | None] = (),
    pure: Sequence[int] = (),
    found: int | None = None,
    restarts: Sequence[float] = (),
    random: bool = False,
) -> tuple[Alarm, ...]:
    """All that is wrong with a fit.

    Args:
        fit: of `alternate`.
        sigma_noise: of `noise_level`.
        topologies: how each chart was chosen, None where it was given.
        pure: rows that each atom has alone, (K,); none leaves the alarm about them out.
        found: groups that the data suggested; None is all.
        restarts: values by which all fits were ranked, best first; none is this fit alone.
        random: whether starts were drawn at random.
    """
    layout, codes = fit.layout, fit.codes
    values = tuple(restarts) or (fit.path[-1],)
    groups = len(pure) if found is None else found
    finite = bool(torch.isfinite(fit.B).all() & torch.isfinite(codes.weights).all())
    return (
        *residual_alarms(fit.s2, sigma_noise, len(codes), fit.B.shape[1]),
        *assignment_alarms(codes),
        *restart_alarms(values, random=random),
        *topology_alarms(tuple(topologies)),
        *gauge_alarms(layout, fit.B, _noise_of_atoms(fit)),
        *rows_alarms(tuple(pure), groups),
        *usage_alarms(layout, fit.B, codes),
        *ending_alarms(fit.converged, fit.message, fit.retries, finite),
    )


def log_alarms(alarms: tuple[Alarm, ...]) -> None:
    """Each of them once, as a warning of this module's logger."""
    for alarm in alarms:
        logger.warning("%s", alarm)


def residual_alarms(s2: float, sigma: float | None, n: int, p: int) -> list[Alarm]:
    """Whether the residual is larger than noise: a lost atom leaves 1.03 and more times its variance.

    Args:
        s2: of the fit.
        sigma: of the noise; None where the rows do not tell, and nothing can be said.
        n, p: rows and columns, see `largest_ratio`.
    Example:
        >>> [alarm.code for alarm in residual_alarms(1.2, 1.0, 5000, 64)]
        ['residual_above_noise']
    """
    if sigma is None:
        return []
    ratio, limit = s2 / sigma**2, largest_ratio(n, p)
    if ratio <= limit:
        return []
    hint = "an atom may be lost or two mixed: more rows, other charts, n_restarts or n_atoms"
    return [Alarm("residual_above_noise", None, ratio, limit, hint)]


def assignment_alarms(codes: Codes) -> list[Alarm]:
    """Whether rows of the softmax gate are shared between atoms."""
    if codes.logits is None:
        return []
    sharp = float(codes.weights.max(1).values.mean())
    hint = "raise entropy, or use gate='amplitude' if rows are sums of atoms"
    return [Alarm("soft_assignment", None, sharp, SOFT, hint)] if sharp < SOFT else []


def restart_alarms(values: tuple[float, ...], *, random: bool) -> list[Alarm]:
    """Whether restarts disagree, or a random start has nothing to be compared with.

    Args:
        values: objectives, best first.
        random: whether starts were drawn at random.
    """
    hint = "raise n_restarts, or start from structure: init='cluster' or 'pure'"
    if len(values) == 1:
        return [Alarm("restart_spread", None, float("nan"), SPREAD, hint)] if random else []
    spread = (values[1] - values[0]) / abs(values[0]) if values[0] else 0.0
    return [Alarm("restart_spread", None, spread, SPREAD, hint)] if spread > SPREAD else []


def topology_alarms(topologies: tuple[Topology | None, ...]) -> list[Alarm]:
    """Atoms whose chart is not decided, and those that are separate points rather than a curve."""
    found = []
    for k, topology in enumerate(topologies):
        if topology is None:
            continue
        if topology.verdict == "undecided":
            hint = f"best: {topology.winner}; more rows, or look at the table of evidence"
            found.append(Alarm("topology_undecided", k, topology.margin, 10.0, hint))
        elif topology.verdict == "points":
            hint = f"{topology.winner} explain the rows better than any curve through them"
            found.append(Alarm("discrete", k, topology.margin, 10.0, hint))
    return found


def gauge_alarms(layout: Layout, B: Float[Tensor, "k p"], noise: Float[Tensor, " a"]) -> list[Alarm]:
    """Atoms that are passed at uneven speed, and atoms that come back to where they were.

    Args:
        layout: of the atoms.
        B: decoders, (M_tot, p).
        noise: standard deviation of the noise in units of each atom, (K,).
    """
    found = []
    for k, chart in enumerate(layout.charts):
        if chart.d == 0:
            continue
        block = B[layout.block(k)].double()
        speed = speed_variation(chart, block)
        if speed > SPEED:
            hint = "coordinates are not proportional to length: raise isometry, or more rows"
            found.append(Alarm("gauge", k, speed, SPEED, hint))
        fold = _closest_far_pair(chart, block)
        limit = NEAR * float(noise[k])
        if fold < limit:
            hint = "distant coordinates have the same image: a simpler chart, or another start"
            found.append(Alarm("folded", k, fold, limit, hint))
    return found


def rows_alarms(pure: tuple[int, ...], found: int) -> list[Alarm]:
    """Atoms that too few rows show alone, and groups that had to be made up.

    Args:
        pure: rows that each atom has alone, (K,).
        found: groups that the data suggested.
    """
    hint = "its chart rests on few rows: more rows, fewer atoms, or charts that are known"
    few = [Alarm("few_pure_rows", k, float(n), float(FEW), hint) for k, n in enumerate(pure) if n < FEW]
    if found < len(pure):
        missing = "fewer groups of rows than atoms: lower n_atoms, or more rows"
        few.append(Alarm("few_pure_rows", None, float(found), float(len(pure)), missing))
    return few


def usage_alarms(layout: Layout, B: Float[Tensor, "k p"], codes: Codes) -> list[Alarm]:
    """Atoms that no row needs, and pairs that do the same."""
    usage = codes.usage(layout.K)
    found = []
    for k in (usage < DEAD).nonzero().flatten().tolist():
        hint = "no row needs it: lower n_atoms"
        found.append(Alarm("dead_atom", k, float(usage[k]), DEAD, hint))
    for i, j, cosine in _used_together(codes, layout.K):
        overlap = subspace_overlap(B[layout.block(i)], B[layout.block(j)])
        if overlap > ALIKE:
            hint = f"does the same as atom {i}: lower n_atoms"
            found.append(Alarm("duplicate_atoms", j, min(cosine, overlap), ALIKE, hint))
    return found


def ending_alarms(converged: bool, message: str, retries: int, finite: bool) -> list[Alarm]:
    """Whether the fit came to rest, and without numerical trouble.

    Args:
        converged, message, retries: of the fit.
        finite: whether all its numbers are.
    """
    found = [] if converged else [Alarm("not_converged", None, 0.0, 1.0, message)]
    if retries or not finite:
        hint = "decoders needed a larger ridge: fewer atoms or smaller charts"
        found.append(Alarm("numerical", None, float(retries), 0.0, hint))
    return found


def _noise_of_atoms(fit: Alternated) -> Float[Tensor, " k"]:
    """Noise in units of each atom: σ over the median of its weights."""
    codes, sigma = fit.codes, fit.s2**0.5
    levels = []
    for k in range(fit.layout.K):
        mine = codes.weights[codes.atoms == k]
        known = codes.logits is None and len(mine)
        levels.append(sigma / max(float(mine.median()), 1e-300) if known else sigma)
    return torch.tensor(levels, dtype=torch.float64)


def _closest_far_pair(chart: Chart, B: Tensor) -> float:
    """Smallest distance of images whose coordinates are more than a quarter of the chart apart."""
    points = chart.grid(GRID).to(B)
    image = chart.jet(points, 0).value @ B
    apart = _separation(chart.name, points)
    distance = torch.cdist(image, image).masked_fill(apart <= FAR, torch.inf)
    return float(distance.min())


def _separation(name: str, t: Tensor) -> Tensor:
    """Distances of coordinates as shares of the chart."""
    if name == "sphere":
        return torch.acos((t @ t.mT).clamp(-1, 1)) / torch.pi
    gap = (t.unsqueeze(1) - t).abs()
    if name in ("circle", "torus"):
        gap = torch.minimum(gap, 2 * torch.pi - gap) / (2 * torch.pi)
    else:
        gap = gap / (t.amax(0) - t.amin(0)).clamp_min(1e-12)
    return gap.amax(2)


def _used_together(codes: Codes, K: int) -> list[tuple[int, int, float]]:
    """Pairs of atoms whose columns of weights have a cosine above .9."""
    row, slot = (codes.atoms >= 0).nonzero(as_tuple=True)
    weights = codes.weights[row, slot].detach().cpu().numpy()
    places = row.cpu().numpy(), codes.atoms[row, slot].cpu().numpy()
    table = sparse.csr_matrix((weights, places), shape=(len(codes), K))
    products = sparse.coo_matrix(table.T @ table)
    sizes = torch.from_numpy(products.diagonal()).sqrt().clamp_min(1e-300)
    pairs = zip(products.row.tolist(), products.col.tolist(), products.data.tolist(), strict=True)
    cosines = [(i, j, value / float(sizes[i] * sizes[j])) for i, j, value in pairs if i < j]
    return [pair for pair in cosines if pair[2] > ALIKE]
