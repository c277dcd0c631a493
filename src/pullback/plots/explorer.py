"""The interactive page of an embedding: points to select, and the features that put them where they are."""

import os
import warnings
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from pullback._version import __version__
from pullback.attribution import Attribution
from pullback.io import atomic_path
from pullback.plots.arguments import check_array, check_columns, check_labels, check_pictures, check_table
from pullback.plots.cargo import (
    MAX_POINTS,
    Cargo,
    as_script,
    base64_of,
    pack,
    sampled_rows,
    shades,
    top_names,
)
from pullback.plots.contributions import described
from pullback.plots.document import Section, assemble, checks_box
from pullback.plots.explorer_controls import controls
from pullback.plots.explorer_figure import EDGE, dot_size, points_figure
from pullback.plots.group_sums import check_attribution
from pullback.plots.labels import Labels, read_labels
from pullback.plots.png import data_uri, shrink
from pullback.plots.style import HAIRLINE, POINT, category_style, hex_colors, numeric_colormap
from pullback.plots.sum_checks import attribution_checks
from pullback.validation import check_whole

PICTURE_BYTES = 2_000_000
DISTINCT_COLORS = 20

HOW = (
    "Every dot is a row. Draw around dots (lasso, or a box), click one, or click a name in the legend: the "
    "bars show which features put the selected dots where they are. Red pushes a coordinate up, or away from "
    "the others; blue pulls back. Choose B, select other dots, and the bars compare the two. Bars, other "
    "features and offset add up to the coordinate or the distance, and the line below the bars says how "
    "exactly; a grey bar that fades is longer than there is room for."
)


@dataclass(frozen=True)
class EmbeddingPage:
    """One HTML page that needs no network and no server.

    Attributes:
        html: its text.
        path: where it was written, or None.
        rows: which rows of the embedding it shows.
        features: which features can be looked at one by one, the most important first.
    """

    html: str
    path: Path | None
    rows: np.ndarray
    features: np.ndarray

    def _repr_html_(self) -> str:
        """The page in a notebook, in a frame of its own."""
        return (
            f'<iframe srcdoc="{escape(self.html)}" style="width: 100%; height: 1000px; border: 0"></iframe>'
        )


def interactive_embedding(
    Z: Any,
    attribution: Any,
    *,
    groups: Any = None,
    feature_names: Any = None,
    feature_values: Any = None,
    hover_images: Any = None,
    hover_data: Any = None,
    top_k: int = 200,
    path: str | os.PathLike | None = None,
    title: str = "Embedding and its features",
    random_state: int = 0,
) -> EmbeddingPage:
    """Make a page on which points of an embedding are selected and the features behind them shown as bars.

    The page is one file: it opens from disk, asks nothing of a network, and opens nothing by itself. Points
    are coloured by group, by their strongest feature, or by one feature. The bars show the selection's mean
    contributions: their size, each latent coordinate, the distance to all other points, or the distance to a
    second selection. Only the ``top_k`` most important features are carried one by one (fewer where rows
    times outputs are many, to bound the file); all others are one bar, so that sums still hold.

    Args:
        Z: embedding ``(n, d)``, d at least 2.
        attribution: `Attribution` of the same n rows without reduction, such as ``pb.explain(model, X)``.
        groups: ``(n,)`` categories, or numbers.
        feature_names: names of the p features; None takes those of ``attribution``, else numbers.
        feature_values: ``(n, p)`` values to colour by.
        hover_images: ``(n, h, w)`` or ``(n, h, w, 3)`` pictures, 8-bit or numbers, shown at the pointer;
            beyond 2 MB a random part of the points carries one.
        hover_data: DataFrame or mapping of columns ``(n,)``, shown at the pointer.
        top_k: features that can be looked at one by one.
        path: HTML file to write; None writes nothing.
        title: of the page.
        random_state: seed of the sample that is drawn of more than 100 000 rows.

    Returns:
        `EmbeddingPage`.

    Raises:
        TypeError: not an attribution.
        ValueError: the attribution is reduced, or of other rows; something is of another length or shape.
        FileNotFoundError: the folder of ``path`` does not exist.

    Warns:
        UserWarning: a sample of more than 100 000 rows is drawn.

    Example:
        >>> import torch, pullback as pb
        >>> net = torch.nn.Linear(3, 2)
        >>> X = torch.randn(20, 3)
        >>> page = pb.plots.interactive_embedding(net(X), pb.contributions(net, X), groups=X[:, 0] > 0)
        >>> page.html.startswith("<!DOCTYPE html>"), page.features.tolist() != []
        (True, True)
    """
    Z = check_array("Z", Z, 2, "(n, d)")
    attribution = check_attribution(attribution, (None,))
    check_whole("top_k", top_k)
    target = None if path is None else _checked(Path(path))
    n, d, p = attribution.values.shape
    if len(Z) != n:
        raise ValueError(f"Z: expected {n} rows as in attribution, got {len(Z)}")
    if Z.shape[1] < 2 or Z.shape[1] != d:
        raise ValueError(f"Z: expected {d} columns as in attribution, at least 2, got {Z.shape[1]}")
    names = _names(feature_names, attribution, p)
    read = None if groups is None else read_labels(check_labels(groups, n, "groups"), _name_of(groups))
    if feature_values is not None:
        feature_values = check_table("feature_values", feature_values, (n, p))
    columns = check_columns(hover_data, n)
    pictures = None if hover_images is None else check_pictures(hover_images, n)
    rows = sampled_rows(n, MAX_POINTS, random_state)
    if len(rows) < n:
        message = f"interactive_embedding: {n} rows; a random sample of {MAX_POINTS} of them is drawn"
        warnings.warn(message, UserWarning, stacklevel=2)
    read = None if read is None else read.take(rows)
    cargo = pack(attribution, rows, top_k, read)
    uris = [] if pictures is None else _uris(pictures[rows], random_state)
    outputs = list(attribution.output_names or (f"latent {i + 1}" for i in range(d)))
    content = _content(Z, cargo, names, outputs, read, feature_values, p)
    html = _page(
        attribution,
        title=title,
        note=_note(n, cargo, p, uris, read),
        drawn=points_figure(
            Z[rows], read, outputs, columns={k: v[rows] for k, v in columns.items()}, uris=uris
        ),
        controls=controls(content, outputs, read, has_values=feature_values is not None),
        content=content,
    )
    if target is not None:
        with atomic_path(target) as temporary:
            temporary.write_text(html, encoding="utf-8")
    return EmbeddingPage(html, target, rows, cargo.features)


def _checked(path: Path) -> Path:
    if path.is_dir():
        raise IsADirectoryError(
            f"{path}: expected a file to write, got a folder; add a name such as page.html"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; create it or choose another path")
    return path


def _names(given: Any, attribution: Attribution, p: int) -> list[str]:
    known = attribution.feature_names if given is None else given
    names = [f"feature {j}" for j in range(p)] if known is None else [str(name) for name in known]
    if len(names) != p:
        raise ValueError(f"feature_names: expected {p} names, got {len(names)}")
    return names


def _name_of(groups: Any) -> str:
    name = getattr(groups, "name", None)
    return name if isinstance(name, str) else "group"


def _uris(pictures: np.ndarray, random_state: int) -> list[str]:
    """Data URIs of the pictures, in random order until the page's budget is spent."""
    uris, spent = [""] * len(pictures), 0
    for row in np.random.default_rng(random_state).permutation(len(pictures)):
        uri = data_uri(shrink(pictures[row][None])[0])
        spent += len(uri)
        if spent > PICTURE_BYTES:
            break
        uris[row] = uri
    return uris


def _content(
    Z: np.ndarray,
    cargo: Cargo,
    names: list[str],
    outputs: list[str],
    read: Labels | None,
    values: Any,
    p: int,
) -> dict[str, Any]:
    """What the page's script reads."""
    k, d, m = cargo.codes.shape
    frequent, place = top_names(cargo.top, names)
    content: dict[str, Any] = {
        "n": m, "d": d, "k": k, "others": p - k, "outputs": outputs,
        "edge": EDGE, "mark": min(1.3, dot_size(m) / 4),
        "features": _unique([names[j] for j in cargo.features]),
        "codes": base64_of(cargo.codes), "step": cargo.step.ravel().tolist(), "rest": base64_of(cargo.rest),
        "offset": base64_of(cargo.offset), "value": base64_of(cargo.value), "norm": base64_of(cargo.norm),
        "top": base64_of(place), "topNames": frequent,
        "topColors": [_distinct(i) for i in range(len(frequent))],
        "ramp": hex_colors(numeric_colormap(), 64), "pale": HAIRLINE, "plain": POINT,
        "groups": None, "shades": None, "points": None,
    }  # fmt: skip
    if read is not None:
        kind = np.float32 if read.numeric else np.int16
        styles = [category_style(i) for i in range(len(read.categories))]
        content["groups"] = {
            "name": read.name, "numeric": read.numeric, "values": base64_of(read.values.astype(kind)),
            "categories": list(read.categories), "colors": [color for color, _ in styles],
            "markers": [marker for _, marker in styles],
        }  # fmt: skip
    if values is not None:
        content["shades"] = shades(values, cargo.rows, cargo.features)
    if d > 2:
        content["points"] = base64_of(Z[cargo.rows].T.astype(np.float32))
    return content


def _unique(names: list[str]) -> list[str]:
    """Names that differ, so that each can be searched for."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _distinct(index: int) -> str:
    """Twenty colours: the ten of categories, then paler ones."""
    color = category_style(index)[0]
    if index < 10:
        return color
    return "#" + "".join(f"{(int(color[i : i + 2], 16) + 255) // 2:02x}" for i in (1, 3, 5))


def _note(n: int, cargo: Cargo, p: int, uris: list[str], read: Labels | None) -> str:
    def spaced(number: int) -> str:
        return f"{number:,}".replace(",", "\u202f")

    k, _, m = cargo.codes.shape
    words = [
        f"All {spaced(m)} rows are drawn."
        if m == n
        else f"{spaced(m)} of {spaced(n)} rows are drawn, chosen at random."
    ]
    if k < p:
        words.append(
            f"The {spaced(k)} most important of {spaced(p)} features are told apart; the others are one bar."
        )
    if uris and not all(uris):
        words.append(f"{spaced(sum(map(bool, uris)))} of the rows carry their picture.")
    if read is not None and read.merged:
        words.append(f"The {read.merged} rarest groups share one colour.")
    return " ".join(words)


def _page(
    attribution: Attribution,
    *,
    title: str,
    note: str,
    drawn: Any,
    controls: tuple[str, str],
    content: dict[str, Any],
) -> str:
    checks = attribution_checks(attribution)
    worst = next((v for v in ("fail", "attention") if any(c.verdict == v for c in checks)), "pass")
    wrong = [check.name.lower() for check in checks if check.verdict != "pass"]
    headline = f"Look at: {', '.join(wrong)}." if wrong else f"All {len(checks)} checks pass."
    failed = "" if attribution.verification.passed else " failed"
    body = (
        f'<div class="explorer"><div>{controls[0]}{{{{map}}}}<div class="legend" id="legend"></div></div>'
        f'<div>{controls[1]}<p class="bars-title" id="bars-title" aria-live="polite"></p>'
        f'<table class="bars{failed}"><tbody id="bars"></tbody></table>'
        '<p class="total" id="total"></p></div></div>'
    )
    here = files("pullback.plots")
    script = here.joinpath("explorer.js").read_text(encoding="utf-8")
    style = here.joinpath("explorer.css").read_text(encoding="utf-8")
    return assemble(
        title=title,
        lead=described(attribution),
        sections=[
            Section("checks", "Checks", "Checks", "", checks_box(checks, worst, headline), ""),
            Section("map", "Points and what puts them there", "Points", note, body, HOW),
        ],
        figures={"map": drawn},
        footer=f"pullback {__version__}" + as_script(content, "cargo"),
        behaviour=script,
        style=style,
    )
