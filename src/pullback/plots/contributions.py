"""Which features make a latent coordinate, or hold groups apart, as signed bars."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from pullback.attribution import Attribution
from pullback.plots.arguments import check_labels
from pullback.plots.group_sums import apart, check_attribution, mean_over
from pullback.plots.labels import read_labels
from pullback.plots.style import (
    FALLS,
    HAIRLINE,
    INK,
    MATPLOTLIB_MARKERS,
    MUTED,
    POINT,
    RISES,
    axes_or_new,
    category_style,
    finish,
    shortened,
)
from pullback.validation import check_whole

SIGNED_OUTPUTS = 3
"""Latent coordinates that get bars of their own; of more, the norm over all is drawn."""
BARS = 4
"""Sums drawn as bars; more are drawn as dots, which share a line."""
ROOM = 1.32


@dataclass(frozen=True, eq=False)
class Bars:
    """Signed numbers of all features, one row a series.

    Attributes:
        names: of the series, (k,).
        parts: (k, p).
        offset: (k,) what no feature accounts for, or None where the parts do not add up (norms).
        total: (k,) what parts and offset add up to, or None.
        what: what the numbers are.
    """

    names: tuple[str, ...]
    parts: Float[np.ndarray, "k p"]
    offset: Float[np.ndarray, " k"] | None
    total: Float[np.ndarray, " k"] | None
    what: str


def plot_contributions(
    attribution: Any, *, top: int = 20, groups: Any = None, ax: Axes | None = None
) -> Axes:
    """Draw the features that contribute most, as signed bars that add up.

    Without groups: mean contributions to each latent coordinate (to the norm over all where there are more
    than three), or what ``attribution.reduction`` is. With groups: contributions to the distance between each
    group's centroid and that of all other rows, c_j = Σ_i u_i (C̄_group - C̄_rest)_ij, which does not depend on
    the latent axes; of two groups, what holds the first apart from the second. The other features together
    and the offset have bars of their own, so that what is drawn sums to the coordinate or the distance. Bars
    are hatched, and the title says so, where the attribution failed its check.

    Args:
        attribution: `Attribution` of ``pb.explain``.
        top: features drawn.
        groups: ``(n,)`` categories of the rows.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes; the title names map, method, baseline and the largest residual.

    Raises:
        TypeError: not an attribution.
        ValueError: it has no rows, or one sum for all rows where groups are given; the groups are of another
            length, numbers on a scale, or all the same.

    Example:
        >>> import torch, pullback as pb
        >>> net = torch.nn.Linear(3, 2)
        >>> found = pb.contributions(net, torch.randn(5, 3))
        >>> ax = pb.plots.plot_contributions(found, top=2)
        >>> [text.get_text() for text in ax.get_yticklabels()][-2:]
        ['1 other', 'offset']
    """
    attribution = check_attribution(attribution, (None, "l2", "mean_l2", "distance"))
    check_whole("top", top)
    bars = bars_of_groups(attribution, groups) if groups is not None else bars_of_rows(attribution)
    p = bars.parts.shape[1]
    chosen = np.argsort(-np.abs(bars.parts).max(0), kind="stable")[:top]
    known = attribution.feature_names
    names = [shortened(f"feature {j}" if known is None else known[j]) for j in chosen]
    columns = [bars.parts[:, j] for j in chosen]
    if bars.offset is not None:
        if p > len(chosen):
            names.append(f"{p - len(chosen)} other{'s' if p - len(chosen) > 1 else ''}")
            columns.append(bars.parts.sum(1) - bars.parts[:, chosen].sum(1))
        names.append("offset")
        columns.append(bars.offset)
    values = np.stack(columns, axis=1)
    series = len(bars.names)
    row = 0.24 if not 1 < series <= BARS else 0.11 + 0.1 * series
    ax = axes_or_new(ax, (6.6, 1.6 + row * len(names)))
    _draw(ax, bars, values, failed=not attribution.verification.passed)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    title = f"{bars.what[:1].upper()}{bars.what[1:]}\n{described(attribution)}"
    check = attribution.verification
    if not check.passed:
        title += f"\ncheck failed: the sums miss the network by {check.pointwise_error:.0e}"
        title += f", allowed {check.tolerance:.0e}"
    return finish(ax, title, (_sum_text(bars), ""), color=INK if check.passed else RISES)


def described(attribution: Attribution) -> str:
    """Map, method, baseline and largest residual of an attribution in one line."""
    baseline = attribution.baseline
    start = (
        "between pairs" if baseline is None else "baseline given" if bool(baseline.any()) else "baseline 0"
    )
    residual = float(attribution.residual.max()) if attribution.residual.numel() else 0.0
    kind = attribution.map.replace("_", " ")
    return f"map: {kind}, method: {attribution.method}, {start}, largest residual {residual:.0e}"


def bars_of_rows(attribution: Attribution) -> Bars:
    """The mean over all rows."""
    values = attribution.values.detach()
    if attribution.reduction == "mean_l2":
        return Bars(("",), values.cpu().double().numpy()[None], None, None, "mean size of contributions")
    if values.ndim == 3 and values.shape[1] > SIGNED_OUTPUTS:
        return Bars(("",), _norms(attribution)[None], None, None, "mean size of contributions")
    if values.ndim == 3:
        sums = mean_over(attribution)
        names = attribution.output_names or tuple(f"latent {i + 1}" for i in range(values.shape[1]))
        return Bars(
            tuple(names), sums.parts, sums.offset, sums.total, "mean contributions to the coordinates"
        )
    mean = values.mean(0).cpu().double().numpy()[None]
    if attribution.reduction == "l2":
        return Bars(("",), mean, None, None, "mean size of contributions")
    offset, distance = _along(attribution)
    return Bars(("",), mean, offset, distance, "mean contributions to the distance")


def bars_of_groups(attribution: Attribution, groups: Any) -> Bars:
    """What holds each group apart from all other rows; group means of reduced contributions."""
    check_attribution(attribution, (None, "l2", "distance"))
    read = read_labels(check_labels(groups, len(attribution.value), "groups"), "group")
    kinds = [i for i in range(len(read.categories)) if (read.values == i).any()]
    if read.numeric or len(kinds) < 2:
        got = "numbers on a scale" if read.numeric else "one group"
        raise ValueError(f"groups: expected at least two categories, got {got}")
    masks = [read.values == i for i in kinds]
    names = tuple(read.categories[i] for i in kinds)
    if attribution.reduction is not None:
        rows = attribution.values.detach().cpu().double().numpy()
        what = (
            "mean size of contributions" if attribution.reduction == "l2" else "contributions to the distance"
        )
        return Bars(names, np.stack([rows[mask].mean(0) for mask in masks]), None, None, f"{what}, by group")
    if len(kinds) == 2:
        names, masks = (f"{names[0]} from {names[1]}",), masks[:1]
    found = [apart(mean_over(attribution, mask), mean_over(attribution, ~mask)) for mask in masks]
    parts, offset, total = (
        np.concatenate([getattr(sums, name) for sums in found]) for name in ("parts", "offset", "total")
    )
    what = (
        f"what holds {names[0].replace(' from ', ' apart from ')}"
        if len(kinds) == 2
        else "what holds each group apart from the rest"
    )
    return Bars(names, parts, offset, total, what)


def _along(attribution: Attribution) -> tuple[np.ndarray, np.ndarray]:
    """Offset along the pairs' own directions and length of the pairs, means over them, (1,) each."""
    value, offset = (part.detach().cpu().double().numpy() for part in (attribution.value, attribution.offset))
    length = np.linalg.norm(value, axis=1)
    along = np.divide((value * offset).sum(1), length, out=np.zeros_like(length), where=length > 0)
    return along.mean(keepdims=True), length.mean(keepdims=True)


def _norms(attribution: Attribution) -> np.ndarray:
    """Mean over rows of √Σ_i C_ij²."""
    parts = attribution.values.detach().unbind(1)
    squares = sum(part * part for part in parts[1:]) + parts[0] * parts[0]
    return squares.sqrt().mean(0).cpu().double().numpy()


def _draw(ax: Axes, bars: Bars, values: np.ndarray, *, failed: bool) -> None:
    series, rows = values.shape
    y = np.arange(rows)
    hatch: dict[str, Any] = {"hatch": "////", "edgecolor": "#ffffff", "lw": 0} if failed else {"lw": 0}
    features = rows if bars.offset is None else rows - 1
    if series == 1:
        colors = [RISES if value >= 0 else FALLS for value in values[0]]
        colors[features:] = [POINT] * (rows - features)
        ax.barh(y, values[0], color=colors, height=0.72, **hatch)
        _numbers(ax, values[0])
    elif series <= BARS:
        height = 0.8 / series
        for k, name in enumerate(bars.names):
            at = y + (k - (series - 1) / 2) * height
            ax.barh(at, values[k], color=category_style(k)[0], height=0.9 * height, label=name, **hatch)
    else:
        ax.hlines(y, values.min(0), values.max(0), color=HAIRLINE, lw=1.2, zorder=1)
        for k, name in enumerate(bars.names):
            color, marker = category_style(k)
            common: dict[str, Any] = {"s": 26, "marker": MATPLOTLIB_MARKERS[marker], "label": name}
            ax.scatter(values[k], y, edgecolors=color, facecolors="none" if failed else color, **common)
    if values.min() < 0 or series > BARS:
        ax.axvline(0, color=INK, lw=0.8, zorder=0.5)
    if series > 1:
        ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _numbers(ax: Axes, values: np.ndarray) -> None:
    """Behind the ends of the bars, with room for them."""
    for row, value in enumerate(values):
        ax.annotate(
            f"{value:+.2g}", (value, row), xytext=(4 if value >= 0 else -4, 0), textcoords="offset points",
            va="center", ha="left" if value >= 0 else "right", fontsize=8, color=MUTED,
        )  # fmt: skip
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    span = max(high - low, 1e-12)
    ax.set_xlim(low - (0.14 * span if low < 0 else 0), high + (0.14 * span if high > 0 else 0))


def _sum_text(bars: Bars) -> str:
    if bars.total is None:
        return "norm over the latent coordinates" if bars.what.startswith("mean size") else ""
    total = bars.parts.sum(1) + (0 if bars.offset is None else bars.offset)
    worst = float(np.abs(total - bars.total).max())
    shown = ", ".join(f"{value:.3g}" for value in total[:BARS])
    more = ", …" if len(total) > BARS else ""
    return f"all bars sum to {shown}{more} (residual {worst:.0e})"
