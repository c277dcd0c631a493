"""Codes of the planted rows, and scores of fits on them."""

import torch

from planted import Golden, Planted
from pullback import charts
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.decoder_step import DecoderFit, gather, solve
from pullback.models.dictionary.layout import Layout

GOLDEN = Golden()


def layout_of(kinds: tuple[str, ...]) -> Layout:
    return Layout(tuple(charts.as_chart(kind) for kind in kinds))


def golden_rows(name: str) -> Planted:
    """Rows of the golden file with their truth; there are no clean rows."""
    Z, A = GOLDEN[f"{name}_Z"], GOLDEN[f"{name}_A"]
    kinds = GOLDEN.kinds(name.split("_")[0])
    return Planted(Z, Z, A, GOLDEN.coordinates(name), (), kinds, torch.empty(0))


def codes_of(
    layout: Layout, rows: Planted, *, softmax: bool = False, noise: float = 0.0, m: int = 3
) -> Codes:
    """The true codes, coordinates moved at random; in the softmax gate the largest atom has logit 0."""
    (n, K), draw = rows.A.shape, torch.Generator().manual_seed(0)
    coords = torch.zeros(n, K, layout.widths[2], dtype=torch.float64)
    for k, (chart, t) in enumerate(zip(layout.charts, rows.t, strict=True)):
        step = noise * torch.randn(n, chart.d, generator=draw, dtype=torch.float64)
        coords[:, k, : chart.c] = chart.retract(t, step)
    if softmax:
        logits = torch.full((n, K), -4.0, dtype=torch.float64)
        return Codes.softmax(logits.scatter(1, rows.A.argmax(1, keepdim=True), 0.0), coords)
    order = rows.A.argsort(1, descending=True)[:, :m]
    weights = rows.A.gather(1, order)
    atoms = torch.where(weights > 0, order, -1)
    return Codes(atoms, weights, coords.gather(1, order.unsqueeze(2).expand(-1, -1, coords.shape[2])))


def oracle(layout: Layout, rows: Planted, scale: float) -> DecoderFit:
    """Decoders of the true codes, for rows in units of their spread."""
    moments = gather(layout, codes_of(layout, rows), rows.Z / scale)
    return solve(layout, moments, torch.full((layout.K,), 1e-2, dtype=torch.float64), 1e-6 * len(rows.Z))


def dense(layout: Layout, codes: Codes) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (n, K) and coordinates (n, K, c) of sparse codes."""
    n, K = len(codes), layout.K
    place = torch.where(codes.atoms < 0, K, codes.atoms)
    weights = torch.zeros(n, K + 1, dtype=torch.float64).scatter(1, place, codes.weights)
    coords = torch.zeros(n, K + 1, codes.coords.shape[2], dtype=torch.float64)
    coords.scatter_(1, place.unsqueeze(2).expand_as(codes.coords), codes.coords)
    return weights[:, :K], coords[:, :K]


def aligned(layout: Layout, codes: Codes, rows: Planted) -> list[float]:
    """Coordinate score of every atom on the rows where it is large."""
    _, coords = dense(layout, codes)
    found = []
    for k, chart in enumerate(layout.charts):
        own = rows.A[:, k] > 0.25 * rows.A.amax(1)
        found.append(chart.align(coords[own, k, : chart.c], rows.t[k][own]).score)
    return found


def unexplained(Z: torch.Tensor, fitted: torch.Tensor) -> float:
    return float((Z - fitted).square().sum() / (Z - Z.mean(0)).square().sum())


MIXED = Layout(
    (charts.circle(), charts.interval(), charts.sphere(), charts.plane(), charts.torus(), charts.line())
)


def drawn(
    n: int = 60, m: int = 3, p: int = 40, *, line: bool = True
) -> tuple[Layout, torch.Tensor, torch.Tensor, Codes]:
    """A layout of all charts, rows, decoders and random codes with empty slots."""
    g = torch.Generator().manual_seed(0)
    layout = MIXED if line else Layout(MIXED.charts[:-1])
    B = torch.randn(layout.total, p, generator=g, dtype=torch.float64) / 8
    order = torch.rand(n, layout.K, generator=g).argsort(1)[:, : m if line else layout.K]
    coords = torch.zeros(n, order.shape[1], 3, dtype=torch.float64)
    for k, chart in enumerate(layout.charts):
        grid = chart.grid()
        row, slot = (order == k).nonzero(as_tuple=True)
        point = grid[torch.randint(len(grid), (len(row),), generator=g)]
        coords[row, slot, : chart.c] = chart.retract(
            point, 0.2 * torch.rand(len(row), chart.d, generator=g).double()
        )
    Z = torch.randn(n, p, generator=g, dtype=torch.float64) / 6
    if not line:
        ordered = coords.gather(1, order.argsort(1).unsqueeze(2).expand_as(coords))
        return (
            layout,
            Z,
            B,
            Codes.softmax(torch.randn(n, layout.K, generator=g, dtype=torch.float64), ordered),
        )
    weights = 0.3 + torch.rand(n, m, generator=g, dtype=torch.float64)
    empty = torch.rand(n, m, generator=g) < 0.3
    return layout, Z, B, Codes(torch.where(empty, -1, order), torch.where(empty, 0.0, weights), coords)
