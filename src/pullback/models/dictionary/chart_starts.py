"""First coordinates of one chart, several of them, and the fit that turns out best."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.draws import source_of
from pullback.linalg import leading_singular, widened
from pullback.models.dictionary.alone import ChartFit, fit_chart
from pullback.models.dictionary.harmonic import harmonic_embedding
from pullback.typing import Chart
from pullback.validation import check_points

COMPONENTS = 6
PAIRINGS = ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2))
ROTATIONS = 3
FINALISTS, TRIAL, CLOSE = 2, 8, 1.1
"""Starts followed to the end at most, sweeps until they are picked, and residual in units of the best."""


def chart_starts(
    chart: Chart,
    Z: Float[Tensor, "n p"],
    *,
    directions: bool = False,
    generator: torch.Generator | None = None,
) -> list[Float[Tensor, "n c"]]:
    """Coordinates to start a chart from: principal components, the same whitened, harmonic functions.

    Harmonic functions win on clean curves, principal components on noisy or discrete rows. A torus needs its
    four directions sorted into pairs: three pairings of whitened components, each with three rotations.

    Args:
        chart: with ``from_embedding``.
        Z: rows of one atom, (n, p).
        directions: whether rows are cones with apex 0, of which only the direction counts.
        generator: of the rotations of a torus and of landmarks.
    Returns: coordinates (n, c), none twice.
    Raises:
        TypeError, ValueError: no table of finite numbers.
    Example:
        >>> import torch
        >>> from pullback.charts import circle
        >>> ring = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1], [0.7, 0.7]])
        >>> len(chart_starts(circle(1), ring))
        3
    """
    wide = widened(check_points("Z", Z))
    if chart.d == 0:
        return [chart.from_embedding(wide).to(Z)]
    if directions:
        wide = torch.nn.functional.normalize(wide, dim=1)
    wide = wide - wide.mean(0)
    components = wide @ leading_singular(wide, min(COMPONENTS, *wide.shape))[2]
    short = COMPONENTS - components.shape[1]
    components = torch.nn.functional.pad(components, (0, short))
    deviation = components.square().mean(0).sqrt()
    # directions without any spread would be divided by rounding
    white = components / torch.where(deviation > 1e-9 * deviation[0], deviation, 1.0).clamp_min(1e-300)
    if chart.name == "torus":
        return _of_a_torus(chart, white, generator)
    found = [chart.from_embedding(components), chart.from_embedding(white)]
    if len(wide) > chart.c + 1:
        functions = harmonic_embedding(components, generator=generator)
        if functions.shape[1] >= chart.c:
            found.append(chart.from_embedding(functions))
    return found


def fit_best(
    chart: Chart,
    Z: Float[Tensor, "n p"],
    starts: Sequence[Float[Tensor, "n c"]],
    *,
    amplitudes: Float[Tensor, " n"] | None = None,
    sweeps: int = 30,
    reencode: tuple[int, ...] = (8, 16),
) -> ChartFit:
    """The fit of lowest residual over several starts.

    Args:
        chart: what to fit.
        Z: rows, (n, p).
        starts: coordinates, (n, c).
        amplitudes, sweeps, reencode: of `fit_chart`.
    """
    if len(starts) > 1:
        short = [fit_chart(chart, Z, t0, amplitudes=amplitudes, sweeps=TRIAL, reencode=(4,)) for t0 in starts]
        order = sorted(range(len(starts)), key=lambda i: short[i].rss)
        limit = CLOSE * short[order[0]].rss
        starts = [starts[i] for i in order[:FINALISTS] if short[i].rss <= limit]
    fits = [fit_chart(chart, Z, t0, amplitudes=amplitudes, sweeps=sweeps, reencode=reencode) for t0 in starts]
    return min(fits, key=lambda fit: fit.rss)


def _of_a_torus(chart: Chart, white: Tensor, generator: torch.Generator | None) -> list[Tensor]:
    source = source_of(generator, torch.device("cpu"))
    found = []
    for pairing in PAIRINGS:
        for turn in range(ROTATIONS):
            square = torch.randn(4, 4, generator=source, device=source.device, dtype=torch.float64)
            rotation = torch.linalg.qr(square).Q if turn else torch.eye(4, dtype=torch.float64)
            found.append(chart.from_embedding(white[:, list(pairing)] @ rotation.to(white)))
    return found
