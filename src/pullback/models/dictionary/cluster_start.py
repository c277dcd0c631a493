"""The start of a mixture: one cluster of rows an atom."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.clustering import seed_of, spectral_clusters, subspace_clusters
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import noise_level
from pullback.models.dictionary.start import Kinds, Start, fit_groups
from pullback.validation import check_points, check_whole

CLOSED = -4.0
"""Logit of all atoms but that of the row's own cluster, in units of the temperature."""
SMALLEST = 4


def cluster_start(
    Z: Float[Tensor, "n p"],
    n_atoms: int,
    kinds: Kinds = "auto",
    *,
    softmax: bool = True,
    neighbours: int = 10,
    tau: float = 1.0,
    sweeps: int = 30,
    generator: torch.Generator | None = None,
    journal: Journal = UNKEPT,
) -> Start:
    """Spectral clusters, refined by affine subspaces, with one chart each.

    A restart changes ``neighbours``: another seed gives the same clusters.

    Args:
        Z: rows, (n, p).
        n_atoms: clusters.
        kinds: charts, see `fit_groups`.
        softmax: whether codes are those of the softmax gate; else each row has one atom of amplitude 1.
        neighbours: of a row in the graph.
        tau: temperature of the softmax gate.
        sweeps: of each chart's fit.
        generator: of clusters, chart starts and coordinates of rows on atoms that are not theirs.
        journal: keeps the clusters and every chart.
    Returns: `Start`.
    Raises:
        TypeError, ValueError: no table of finite numbers, more atoms than rows.
    Example:
        >>> import math, torch
        >>> t = torch.arange(80, dtype=torch.float64) * math.pi / 40
        >>> ring = torch.stack([t.cos(), t.sin()], 1)
        >>> start = cluster_start(torch.cat([ring, ring + 9]), 2, "circle")
        >>> start.codes.logits.shape, [len(group) for group in start.groups]
        (torch.Size([160, 2]), [80, 80])
    """
    check_points("Z", Z)
    check_whole("n_atoms", n_atoms)

    def clusters() -> Tensor:
        first = spectral_clusters(Z, n_atoms, neighbours=neighbours, generator=generator)
        return subspace_clusters(Z, first).labels

    labels = journal.at("clusters").once(clusters)
    groups = _filled([(labels == k).nonzero().flatten() for k in range(n_atoms)], Z)
    found = fit_groups(Z, groups, kinds, sweeps=sweeps, generator=generator, journal=journal)
    charts = tuple(group.fit.chart for group in found)
    layout = Layout(charts)
    coords = _anywhere(layout, len(Z), seed_of(generator)).to(Z.device)
    for k, (group, one) in enumerate(zip(groups, found, strict=True)):
        coords[group, k, : one.fit.chart.c] = one.fit.t.to(coords)
    own = torch.zeros(len(Z), dtype=torch.long, device=Z.device)
    for k, group in enumerate(groups):
        own[group] = k
    if softmax:
        logits = coords.new_full((len(Z), n_atoms), CLOSED * tau).scatter_(1, own.unsqueeze(1), 0.0)
        codes = Codes.softmax(logits, coords, tau)
    else:
        place = own.view(-1, 1, 1).expand(-1, 1, coords.shape[2])
        codes = Codes(own.unsqueeze(1), coords.new_ones(len(Z), 1), coords.gather(1, place))
    lam = torch.tensor([one.fit.lam for one in found], dtype=torch.float64, device=Z.device)
    topologies = tuple(one.topology for one in found)
    sigma = noise_level(Z).sigma
    return Start(charts, codes, lam, topologies, tuple(groups), sigma, int(labels.unique().numel()))


def _filled(groups: list[Tensor], Z: Tensor) -> list[Tensor]:
    """Groups of a few rows at least, taken from the farthest of the largest; shared where that is small."""
    groups = list(groups)
    for k, group in enumerate(groups):
        if len(group) >= SMALLEST or len(groups) == 1:
            continue
        big = max((j for j in range(len(groups)) if j != k), key=lambda j: len(groups[j]))
        rows = Z[groups[big]]
        order = (rows - rows.mean(0)).norm(dim=1).argsort(descending=True)
        taken = order[: max(SMALLEST, len(order) // 4)]
        kept = torch.ones(len(order), dtype=torch.bool, device=Z.device)
        kept[taken] = False
        groups[k] = torch.cat([group, groups[big][taken]])
        if int(kept.sum()) >= SMALLEST:
            groups[big] = groups[big][kept]
    return groups


def _anywhere(layout: Layout, n: int, seed: int) -> Tensor:
    """Coordinates drawn from every chart's grid, (n, K, c_max)."""
    source = torch.Generator().manual_seed(seed)
    coords = torch.zeros(n, layout.K, layout.widths[2], dtype=torch.float64)
    for k, chart in enumerate(layout.charts):
        grid = chart.grid(400).double()
        coords[:, k, : chart.c] = grid[torch.randint(len(grid), (n,), generator=source)]
    return coords
