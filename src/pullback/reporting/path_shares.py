"""What makes the shown paths long: the shares of the features in their energy, as HTML."""

from html import escape
from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from pullback.geometry import EnergyShares, energy_shares
from pullback.metrics import as_metric
from pullback.plots.png import data_uri, shrink
from pullback.plots.shares import ARROWS, Bars, bars_of, signed_picture
from pullback.plots.style import diverging_colormap
from pullback.reporting.evidence import Evidence
from pullback.reporting.learned import decoder_metric
from pullback.reporting.pairs import Paths
from pullback.reporting.thumbnails import shorten, standardised

BARS = 10


def shares_along(model: Any, paths: Any, feature_names: tuple[str, ...]) -> EnergyShares:
    """The energy of paths over the model's features; over latent coordinates where its metric has none.

    Features have shares in the metric that the decoder pulls back, also of paths that another metric found.
    """
    metric = as_metric(decoder_metric(model))
    has_features = metric.embedding is not None or getattr(metric, "decoder", None) is not None
    points = getattr(paths, "points", paths).double()
    if not has_features:
        names = [f"latent {i + 1}" for i in range(points.shape[2])]
        return energy_shares(metric, points, by="latent", feature_names=names)
    found = energy_shares(metric, points)
    return _named(found, feature_names)


def _named(found: EnergyShares, names: tuple[str, ...]) -> EnergyShares:
    """With the names of the features, where each output of the decoder is one of them."""
    return EnergyShares(
        **{**vars(found), "feature_names": names if found.values.shape[1] == len(names) else None}
    )


def names_of(shares: EnergyShares) -> tuple[str, ...]:
    """Names of the features, or numbers of the decoder's outputs where these are no features."""
    return shares.feature_names or tuple(f"output {j + 1}" for j in range(shares.values.shape[1]))


def shares_reading(evidence: Evidence) -> str:
    """How to read them."""
    squared = "The squared length of a path"
    if evidence.learned:
        squared += ", now by the decoder’s own metric,"
    if evidence.image_shape is not None:
        return (
            f"{squared} is a sum over the pixels, split here exactly: strong colour is "
            "where the way is long, red where a pixel gets more from start to end, blue where it gets less."
        )
    return (
        f"{squared} is a sum over the features, split here exactly. A bar is red where the "
        "feature rises from start to end and blue where it falls; its solid part is the net change, the pale "
        "part is way that is taken back."
    )


def share_blocks(evidence: Evidence, paths: Paths) -> list[str]:
    """One block of HTML a path."""
    shares = shares_along(evidence.model, paths.geodesic, evidence.feature_names)
    return [_block(evidence, paths, shares, i) for i in range(len(paths.pairs))]


def _block(evidence: Evidence, paths: Paths, shares: EnergyShares, i: int) -> str:
    what = "What changes along the geodesic" if evidence.learned else "What makes the geodesic long"
    title = f"<h4>{what}</h4>"
    p = shares.values.shape[1]
    if evidence.image_shape is not None and p == int(np.prod(evidence.image_shape)):
        return f'<div class="shares">{title}{_picture(shares, i, evidence.image_shape)}</div>'
    names = names_of(shares)
    bars = bars_of(shares, i, BARS)
    change = [f"{value:+.2g}" for value in bars.change]
    if p == len(evidence.feature_names):
        ends = standardised(evidence, evidence.decode(paths.points[i][[0, -1]]))
        change = [f"{value:+.1f} sd" for value in (ends[1] - ends[0])[bars.index]]
    return f'<div class="shares">{title}{_bars(bars, names, change)}</div>'


def _bars(bars: Bars, names: tuple[str, ...], change: list[str]) -> str:
    top = max(float(np.abs(bars.share).max()), 1e-12)
    rows = []
    for j, share, net, moved, text in zip(bars.index, bars.share, bars.net, bars.change, change, strict=True):
        kind = ("falls" if moved < 0 else "rises") + (" negative" if share < 0 else "")
        bar = (
            f'<div class="bar {kind}" style="width:{100 * abs(share) / top:.1f}%">'
            f'<i style="width:{100 * net:.0f}%"></i></div>'
        )
        name = escape(names[j])
        rows.append(
            f'<tr><th scope="row" title="{name}">{escape(shorten(names[j], 22))}</th>'
            f"<td>{bar}</td><td>{100 * share + 0.0:.1f}\u202f%</td>"
            f"<td>{ARROWS[int(np.sign(moved))]} {text}</td></tr>"
        )
    if bars.others:
        word = f"{bars.others} other{'s' if bars.others > 1 else ''}"
        rows.append(
            f'<tr class="rest"><th scope="row">{word}</th><td></td>'
            f"<td>{100 * bars.rest + 0.0:.1f}\u202f%</td><td></td></tr>"
        )
    head = '<tr><th></th><th scope="col">share of the energy</th><th></th><th scope="col">change</th></tr>'
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _picture(shares: EnergyShares, i: int, shape: tuple[int, int, int]) -> str:
    values = signed_picture(shares, i, shape)
    limit = max(float(np.abs(values).max()), 1e-12)
    colors = diverging_colormap()(0.5 + 0.5 * values / limit)[..., :3]
    drawn = shrink(np.round(255 * colors).astype(np.uint8)[None], 64)[0]
    ordered = np.sort(np.abs(values).ravel())[::-1]
    half = int(np.searchsorted(np.cumsum(ordered), 0.5 * ordered.sum()) + 1)
    ends = "".join(
        f'<span style="background: {to_hex(diverging_colormap()(at))}"></span>{word}'
        for at, word in ((0.0, "gets less"), (0.5, "keeps its value"), (1.0, "gets more"))
    )
    return (
        f'<div class="share-picture"><img src="{data_uri(drawn)}" alt="share of each pixel in the energy">'
        f"<div><p>Half of the energy sits in {half} of {values.size} pixels; the strongest one has "
        f'{100 * limit:.1f}\u202f%.</p><p class="scale">{ends}</p></div></div>'
    )
