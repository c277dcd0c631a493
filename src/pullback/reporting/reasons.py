"""The section that says why points are where they are: the features behind them, with the check."""

import warnings
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import torch

from pullback.attribution import Attribution
from pullback.estimators.explaining import explain
from pullback.estimators.reading import features_of
from pullback.inputs import read_input
from pullback.plots.document import Section, badge
from pullback.plots.group_sums import apart, mean_over
from pullback.plots.png import data_uri, shrink
from pullback.plots.style import diverging_colormap
from pullback.plots.sum_checks import attribution_checks
from pullback.reporting.evidence import Observed
from pullback.reporting.thumbnails import shorten
from pullback.reporting.wording import THIN, plural

KEY, TITLE, SHORT = "reasons", "Why is this point there", "Why there"
ROWS = 400
CELLS = 20_000_000
BARS, GROUPS = 6, 12

BY_GROUP = (
    "What holds each group apart from all other rows: contributions to the distance between the two "
    "centroids, which they add up to."
)
OVERALL = "The size of the features’ contributions to the latent coordinates, mean over rows."
MORE = (
    "For single points and pairs: <code>pullback explain RUN --out why.csv --page why.html</code>, or "
    "<code>pb.explain(model, X)</code>."
)
# By whether there are groups, and whether the features are pixels.
READING = {
    (True, False): "A long red bar is a feature that pushes the group away from the others, a blue one pulls "
    "it back; bars, other features and offset add up to the distance. A group that hangs on one feature, or "
    "on features that should not matter, deserves a look.",
    (True, True): "A red pixel pushes the group away from the others, a blue one pulls it back; all of them "
    "and the offset add up to the distance. A group that hangs on pixels that should not matter deserves a "
    "look.",
    (False, False): "A feature with a long bar moves points far on the map. Sizes do not depend on how the "
    "latent axes are turned.",
    (False, True): "A strong pixel moves points far on the map. Sizes do not depend on how the latent axes "
    "are turned.",
}


def reasons_section(evidence: Observed, X: Any) -> list[Section]:
    """The section; none for a model that cannot be explained."""
    rows = _some_rows(evidence)
    try:
        with warnings.catch_warnings():
            # The section prints the check itself.
            warnings.simplefilter("ignore")
            found = _explained(evidence, _values(evidence, X, rows))
    except TypeError:
        return []
    except ValueError as error:
        return [Section(KEY, TITLE, SHORT, f"Not explained: {escape(str(error))}.", "", "")]
    groups = _groups(evidence, rows)
    parts = _group_blocks(evidence, found, groups) if groups else _sizes(evidence, found)
    how = f"{READING[bool(groups), evidence.image_shape is not None]} {MORE}"
    what = BY_GROUP if groups else OVERALL
    note = f"{what} Explained: {plural(len(rows), 'row')}."
    return [Section(KEY, TITLE, SHORT, note, _checks(found) + parts, how)]


def _some_rows(evidence: Observed) -> np.ndarray:
    """Places among the sampled rows, few enough to explain in a moment."""
    n, d, p = len(evidence.rows), evidence.codes.shape[1], evidence.x.shape[1]
    most = min(ROWS, max(10, CELLS // (d * p)))
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(evidence.random_state).choice(n, most, replace=False))


def _values(evidence: Observed, X: Any, rows: np.ndarray) -> Any:
    """The rows as the model was given them."""
    values = read_input(features_of(evidence.model, X)).rows(evidence.rows[rows])
    if evidence.image_shape is not None:
        return values.reshape(len(rows), *evidence.image_shape)
    names = getattr(evidence.model, "feature_names_in_", None)
    return values if names is None else pd.DataFrame(values.numpy(), columns=names)


def _explained(evidence: Observed, values: Any) -> Attribution:
    """Features count from the mean of the training rows; of these rows where the model does not keep it."""
    try:
        return explain(evidence.model, values, kink_margin=None)
    except ValueError as error:
        if not str(error).startswith("baseline:"):
            raise
    rows = np.asarray(values).reshape(len(values), -1)
    return explain(evidence.model, values, kink_margin=None, baseline=torch.as_tensor(rows.mean(0)))


def _groups(evidence: Observed, rows: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Name and members of each group; none where the labels are numbers or all the same."""
    labels = evidence.labels
    if labels is None or labels.numeric:
        return []
    taken = labels.take(rows)
    found = [(name, taken.values == i) for i, name in enumerate(taken.categories)]
    found = [(name, mask) for name, mask in found if mask.any()]
    if len(found) < 2:
        return []
    return sorted(found, key=lambda group: -int(group[1].sum()))[:GROUPS]


def _checks(found: Attribution) -> str:
    """The checks in one line each."""
    lines = "".join(
        f'<p class="key">{badge(check.verdict)} {escape(check.name)}: {escape(check.text)}. '
        f"{escape(check.sentence)}</p>"
        for check in attribution_checks(found)
    )
    return f'<div data-check="reasons">{lines}</div>'


def _group_blocks(evidence: Observed, found: Attribution, groups: list[tuple[str, np.ndarray]]) -> str:
    blocks = []
    two = len(groups) == 2
    for name, mask in sorted(groups)[: 1 if two else None]:
        sums = apart(mean_over(found, mask), mean_over(found, ~mask))
        total = float(sums.total[0])
        others = sorted(groups)[1][0] if two else "the rest"
        title = f"{escape(shorten(name, 24))}: {total:.3g} from {escape(shorten(others, 24))}"
        drawn = _drawn(evidence, sums.parts[0], float(sums.offset[0]), total)
        blocks.append(f'<div class="shares"><h3>{title}</h3>{drawn}</div>')
    return f'<div class="grid reasons">{"".join(blocks)}</div>'


def _sizes(evidence: Observed, found: Attribution) -> str:
    values = found.values.detach()
    parts = torch.linalg.vector_norm(values, dim=1).mean(0).cpu().double().numpy()
    drawn = _drawn(evidence, parts, None, float(parts.sum()))
    return f'<div class="grid reasons"><div class="shares">{drawn}</div></div>'


def _drawn(evidence: Observed, parts: np.ndarray, offset: float | None, total: float) -> str:
    shape = evidence.image_shape
    if shape is not None and len(parts) == int(np.prod(shape)):
        return _picture(parts.reshape(shape).sum(0), offset)
    return _bars(evidence, parts, offset, total)


def _bars(evidence: Observed, parts: np.ndarray, offset: float | None, total: float) -> str:
    order = np.argsort(-np.abs(parts), kind="stable")[:BARS]
    largest = max(float(np.abs(parts[order]).max()), 1e-300)
    lines = []
    for j in order:
        value, name = float(parts[j]), evidence.feature_names[j]
        kind = "falls" if value < 0 else "rises"
        bar = (
            f'<div class="bar {kind}" style="width:{100 * abs(value) / largest:.1f}%">'
            '<i style="width:100%"></i></div>'
        )
        lines.append(
            f'<tr><th scope="row" title="{escape(name)}">{escape(shorten(name, 22))}</th><td>{bar}</td>'
            f"<td>{_number(value, total)}</td><td>{_percent(value, total)}</td></tr>"
        )
    others = len(parts) - len(order)
    sums = [(f"{others} other{'s' if others > 1 else ''}", float(parts.sum() - parts[order].sum()))] * (
        others > 0
    )
    sums += [] if offset is None else [("offset", offset)]
    for name, value in sums:
        lines.append(
            f'<tr class="rest"><th scope="row">{name}</th><td></td><td>{_number(value, total)}</td>'
            f"<td>{_percent(value, total)}</td></tr>"
        )
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def _number(value: float, total: float) -> str:
    """Two digits; what is lost in rounding is 0."""
    return "0" if abs(value) < 1e-5 * abs(total) else f"{value:+.2g}"


def _percent(value: float, total: float) -> str:
    return f"{100 * value / total + 0.0:.0f}{THIN}%" if total > 0 else ""


def _picture(values: np.ndarray, offset: float | None) -> str:
    """The parts of pixels as a picture, red up and blue down, and how many of them hold half."""
    limit = max(float(np.abs(values).max()), 1e-300)
    colors = diverging_colormap()(0.5 + 0.5 * values / limit)[..., :3]
    drawn = shrink(np.round(255 * colors).astype(np.uint8)[None], 64)[0]
    ordered = np.sort(np.abs(values).ravel())[::-1]
    half = int(np.searchsorted(np.cumsum(ordered), 0.5 * ordered.sum()) + 1)
    text = f"Half of the contributions sit in {half} of {values.size} pixels; the strongest is {limit:.2g}."
    if offset is not None:
        text += f" Offset: {_number(offset, float(values.sum()))}."
    return (
        f'<div class="share-picture"><img src="{data_uri(drawn)}" alt="contribution of each pixel">'
        f"<div><p>{text}</p></div></div>"
    )
