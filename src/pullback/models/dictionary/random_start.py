"""Codes drawn at random: what structured starts are measured against."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.charts import as_chart
from pullback.draws import source_of
from pullback.models.dictionary.alone import spread
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import noise_level
from pullback.models.dictionary.start import Kinds, Start
from pullback.models.dictionary.sweep_options import SweepOptions, at_sweep
from pullback.typing import Chart


def random_start(
    Z: Float[Tensor, "n p"],
    n_atoms: int,
    kinds: Kinds,
    options: SweepOptions,
    *,
    generator: torch.Generator | None = None,
) -> Start:
    """Codes drawn at random: what structured starts are measured against. "auto" makes every atom a circle.

    Args:
        Z: rows, (n, p).
        n_atoms: K.
        kinds: a name, a chart or one an atom.
        options: of the sweeps.
        generator: of all draws.
    """
    source = source_of(generator, torch.device("cpu"))
    chosen: object = "circle" if isinstance(kinds, str) and kinds == "auto" else kinds
    if isinstance(chosen, str) or hasattr(chosen, "jet"):
        charts: tuple[Chart, ...] = (as_chart(chosen),) * n_atoms  # type: ignore[arg-type]
    elif callable(chosen):
        raise ValueError("charts: expected names or charts with init='random', got a function of groups")
    else:
        charts = tuple(as_chart(chart) for chart in chosen)  # type: ignore[union-attr]
    layout, n, K = Layout(charts), len(Z), n_atoms
    coords = torch.zeros(n, K, layout.widths[2], dtype=torch.float64)
    for k, chart in enumerate(charts):
        grid = chart.grid(400)
        coords[:, k, : chart.c] = grid[torch.randint(len(grid), (n,), generator=source)]
    scores = torch.randn(n, K, generator=source, dtype=torch.float64)
    if options.gate == "softmax":
        codes = Codes.softmax(scores.to(Z.device), coords.to(Z.device), at_sweep(options.tau, 0))
    else:
        m = min(options.n_active, K)
        atoms = scores.topk(m, 1).indices
        coords = coords.gather(1, atoms.unsqueeze(2).expand(-1, -1, coords.shape[2])).to(Z.device)
        size = Z.double().norm(dim=1, keepdim=True) / math.sqrt(m)
        codes = Codes(atoms.to(Z.device), size.expand(-1, m).clamp_min(1e-6 * spread(Z)).clone(), coords)
    none = torch.zeros(0, dtype=torch.long, device=Z.device)
    return Start(charts, codes, None, (None,) * K, (none,) * K, noise_level(Z).sigma, K)
