"""Which features make a path long, as bars or as a picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from pullback.plots.arguments import check_array, check_image_shape
from pullback.plots.style import (
    FALLS,
    INK,
    MUTED,
    POINT,
    RISES,
    axes_or_new,
    diverging_colormap,
    finish,
    shortened,
)
from pullback.validation import check_whole

N_FEATURES = 12
PALE = 0.3
ROOM = 1.6
ARROWS = {1: "↑", -1: "↓", 0: "·"}


@dataclass(frozen=True)
class Bars:
    """The largest shares of one path, and the rest of them together.

    Attributes:
        index: which features, largest share first, (k,).
        share: of the path's energy, (k,); may be negative where the metric couples features.
        net: |change| over the way gone, (k,): 1 for a feature that only rises or falls, 0 for one that comes
            back to where it was.
        change: from start to end, (k,).
        rest: share of all other features.
        others: how many these are.
    """

    index: np.ndarray
    share: Float[np.ndarray, " k"]
    net: Float[np.ndarray, " k"]
    change: Float[np.ndarray, " k"]
    rest: float
    others: int


def bars_of(shares: Any, path: int, count: int) -> Bars:
    """The ``count`` features with the largest shares (in size) of one path of `EnergyShares`."""
    share, change, way = (
        np.asarray(part[path].detach().cpu().double())
        for part in (shares.fraction, shares.signed, shares.total_variation)
    )
    index = np.argsort(-np.abs(share), kind="stable")[:count]
    net = np.divide(np.abs(change), way, out=np.zeros_like(way), where=way > 0)
    rest = float(share.sum() - share[index].sum())
    return Bars(index, share[index], np.clip(net[index], 0, 1), change[index], rest, len(share) - len(index))


def signed_picture(shares: Any, path: int, image_shape: tuple[int, int, int]) -> Float[np.ndarray, "h w"]:
    """Share of each pixel, all channels together, with the sign of its change."""
    share, change = (
        np.asarray(part[path].detach().cpu().double()).reshape(image_shape).sum(0)
        for part in (shares.fraction, shares.signed)
    )
    return np.where(change < 0, -1.0, 1.0) * share


def path_attribution(
    shares: Any,
    path: int = 0,
    *,
    feature_names: Any = None,
    image_shape: Any = None,
    n_features: int = N_FEATURES,
    title: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw which features make a path long: their shares of its energy, which sum to one exactly.

    A bar is red where the feature rises from start to end and blue where it falls. Its solid part is the net
    change, |f(end) - f(start)| over the way that the feature goes; the pale part is way that is taken back.
    With ``image_shape`` the shares of the pixels are drawn as a picture of the same colours.

    Args:
        shares: `EnergyShares`, such as ``pb.energy_shares(metric, paths)``, or their `mean` over groups.
        path: which path, or group.
        feature_names: names of the features; None takes those of ``shares``, else numbers.
        image_shape: ``(channels, height, width)`` where the features are pixels.
        n_features: bars; of the other features the sum is written below.
        title: what stands above; None: what is drawn.
        legend: say what the colours mean.
        ax: Axes to draw on; None makes a figure.

    Returns:
        The Axes.

    Example:
        >>> import torch, pullback as pb
        >>> metric = pb.PullbackMetric(lambda z: torch.cat([2 * z, z[:, :1] ** 2], dim=1))
        >>> line = torch.linspace(0, 1, 9)[:, None] * torch.tensor([[1.0, -0.5]])
        >>> shares = pb.geometry.energy_shares(metric, line, feature_names=["a", "b", "c"])
        >>> ax = pb.plots.path_attribution(shares)
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['a', 'c', 'b']
    """
    m, p = _check(shares)
    check_whole("path", path, minimum=0)
    check_whole("n_features", n_features)
    if path >= m:
        raise ValueError(f"path: expected a number below {m}, got {path}")
    if image_shape is not None:
        return _picture(shares, path, check_image_shape(image_shape, p), title, legend, ax)
    names = _names(shares, feature_names, p)
    bars = bars_of(shares, path, n_features)
    rows = len(bars.index) + (bars.others > 0)
    ax = axes_or_new(ax, (6.4, 1.4 + 0.28 * rows))
    for row, (share, net, change) in enumerate(zip(bars.share, bars.net, bars.change, strict=True)):
        color = RISES if change >= 0 else FALLS
        ax.barh(row, 100 * share, color=color, alpha=PALE, height=0.72, lw=0)
        ax.barh(row, 100 * share * net, color=color, height=0.72, lw=0)
        _number(ax, row, share, f"{100 * share:.1f} %  {ARROWS[int(np.sign(change))]} {change:+.2g}")
    labels = [shortened(names[j]) for j in bars.index]
    if bars.others:
        _number(ax, rows - 1, 0.0, f"{100 * bars.rest:.1f} % together")
        labels.append(f"{bars.others} other{'s' if bars.others > 1 else ''}")
    ax.set_yticks(range(rows), labels)
    ax.set_ylim(rows - 0.4, -0.6)
    ends = 100 * bars.share
    lowest = min(ends.min(), 0.0)
    # Room for the numbers behind the bars.
    ax.set_xlim(1.05 * lowest, max(ROOM * ends.max(), -lowest, 1e-9))
    if lowest < 0:
        ax.axvline(0, color=INK, lw=0.8)
    if legend:
        _legend(ax)
    return finish(ax, title or "What makes the path long", ("share of its energy, %", ""))


def _number(ax: Axes, row: int, share: float, text: str) -> None:
    """Behind the bar; for a negative one behind zero, clear of the names on the left."""
    ax.annotate(
        text, (100 * max(share, 0.0), row), xytext=(4, 0),
        textcoords="offset points", va="center", ha="left", fontsize=8, color=MUTED,
    )  # fmt: skip


def _legend(ax: Axes) -> None:
    handles = [
        Patch(color=RISES, label="rises"),
        Patch(color=FALLS, label="falls"),
        Patch(color=POINT, alpha=PALE, lw=0, label="pale: goes and comes back"),
    ]
    ax.legend(
        handles=handles, frameon=False, fontsize=8, ncols=3, loc="upper left", bbox_to_anchor=(0.0, -0.16),
        handlelength=1.2, columnspacing=1.2, borderaxespad=0.8,
    )  # fmt: skip


def _picture(
    shares: Any, path: int, shape: tuple[int, int, int], title: str | None, legend: bool, ax: Axes | None
) -> Axes:
    values = 100 * signed_picture(shares, path, shape)
    limit = max(float(np.abs(values).max()), 1e-9)
    ax = axes_or_new(ax, (4.2, 3.4))
    image = ax.imshow(values, cmap=diverging_colormap(), vmin=-limit, vmax=limit, interpolation="nearest")
    if ax.figure is not None:
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.85)
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        if legend:
            bar.set_label("share of the energy, %\nred: value rises, blue: falls", fontsize=9)
        bar.outline.set_visible(False)  # type: ignore[operator]
    finish(ax, title or "What makes the path long")
    ax.set_axis_off()
    return ax


def _check(shares: Any) -> tuple[int, int]:
    fields = ("fraction", "signed", "total_variation")
    if not all(hasattr(shares, name) for name in fields):
        raise TypeError(f"shares: expected EnergyShares, got {type(shares).__name__}; use energy_shares(...)")
    m, p = check_array("shares", shares.fraction, 2, "(m, p)").shape
    return m, p


def _names(shares: Any, given: Any, p: int) -> list[str]:
    known = getattr(shares, "feature_names", None) if given is None else given
    names = [f"feature {j}" for j in range(p)] if known is None else [str(name) for name in known]
    if len(names) != p:
        raise ValueError(f"feature_names: expected {p} names, got {len(names)}")
    return names
