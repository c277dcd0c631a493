"""The page of a manifold dictionary: its checks, its atoms, and how sure they are."""

import base64
import io
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from pullback.estimators.manifold_dictionary import ManifoldDictionary
from pullback.inputs import read_input
from pullback.models.dictionary.rivals import active_scalars, linear_rivals
from pullback.plots.atoms import coverage, plot_atom, speed_curve
from pullback.plots.dictionaries import atom_usage, coactivation, error_curve, evidence_bars, restart_spread
from pullback.plots.document import Section, checks_box, definitions
from pullback.reporting.checks import worst_verdict
from pullback.reporting.dictionary_checks import dictionary_checks
from pullback.reporting.wording import plural, thousands

DPI = 110
MOST_ATOMS = 24
RIVAL_ROWS = 2000
DICTIONARY_STYLE = """
img.drawn { max-width: 100%; height: auto; display: block; }
.facts { margin-top: 18px; }
"""


def dictionary_sections(
    model: ManifoldDictionary,
    Z: Any,
    *,
    labels: Any = None,
    center_by: Any = None,
    max_points: int = 2000,
    random_state: int = 0,
) -> tuple[str, list[Section]]:
    """The line below the title, and the sections without figures of their own.

    Args:
        model: a fitted dictionary.
        Z: rows ``(n, p)``; a random sample of at most ``max_points`` is shown.
        labels: one label a row, to colour by.
        center_by: names of the nuisance factor, as for ``fit``.
        max_points, random_state: of the sample.
    """
    rows = read_input(Z, estimator=model).rows(slice(None)).double().numpy()
    if center_by is not None:
        rows = np.asarray(model.without_nuisance(_named(model, rows), center_by))
    n, p = rows.shape
    chosen = np.sort(np.random.default_rng(random_state).permutation(n)[:max_points])
    shown = _named(model, rows[chosen])
    given = None if labels is None else np.asarray(labels)[chosen]
    codes = model.transform(shown).numpy()
    checks = dictionary_checks(model, float(np.mean(np.asarray(codes.converged))))
    wrong = [check.name.lower() for check in checks if check.verdict != "pass"]
    headline = (
        f"All {len(checks)} checks pass."
        if not wrong
        else f"{len(checks) - len(wrong)} of {len(checks)} checks pass; look at: {', '.join(wrong)}."
    )
    box = checks_box(checks, worst_verdict(checks), headline)
    note = f"{thousands(len(shown))} of {thousands(n)} rows are shown." if len(shown) < n else ""
    sections = [
        Section("checks", "Checks", "Checks", note, box + _alarms(model), ""),
        _atoms(model, shown, given),
        *_shapes(model),
        *_curves(model, shown),
        _use(model),
        _error(model, shown, codes),
        _starts(model),
    ]
    lead = f"{plural(n, 'row')}, {plural(p, 'feature')}, {plural(len(model.atoms_), 'atom')}"
    return lead, sections


def _named(model: ManifoldDictionary, rows: np.ndarray) -> Any:
    """Rows with the names of their columns, where the model knows them and asks for them."""
    names = getattr(model, "feature_names_in_", None)
    return rows if names is None else pd.DataFrame(rows, columns=names)


def _alarms(model: ManifoldDictionary) -> str:
    found = model.diagnostics_.alarms
    if not found:
        return ""
    items = "".join(f"<li>{escape(str(alarm))}</li>" for alarm in found)
    return f"<h3>Alarms of the fit</h3><ul>{items}</ul>"


def _atoms(model: ManifoldDictionary, rows: Any, labels: Any) -> Section:
    count = min(len(model.atoms_), MOST_ATOMS)
    order = np.argsort(-model.diagnostics_.usage, kind="stable")[:count]
    pictures = "".join(
        _picture(lambda ax, k=k: plot_atom(model, int(k), rows, labels=labels, ax=ax), f"atom {k}")
        for k in order
    )
    known = model.diagnostics_
    lines = []
    for k in order:
        atom, topology = model.atoms_[k], known.topology[k] if k < len(known.topology) else None
        cells = [
            str(k),
            f"{atom.chart.M} points" if atom.chart.name == "points" else atom.chart.name,
            f"{known.usage[k]:.1%}",
            f"{known.pure[k]}" if k < len(known.pure) else "–",
            "given" if topology is None else f"{topology.margin:.0f}",
            f"{known.gauge[k].speed_variation:.1%}" if atom.chart.d else "–",
        ]
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    heads = (
        "atom",
        "kind",
        "rows that use it",
        "rows of its own",
        "nats to the next kind",
        "speed varies by",
    )
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    table = f'<div class="scroll facts"><table class="numbers">{body}</table></div>'
    left = len(model.atoms_) - count
    note = f"The {count} most used atoms; {left} more are not drawn." if left else ""
    how = (
        "Each picture shows an atom in the plane that holds most of it, with the rows that use it: "
        "the line, the grey dots or the stars are the atom, coloured dots are rows, by their coordinate"
        f"{' or label' if labels is not None else ''}. Where rows leave the line, the model does not explain "
        "them."
    )
    return Section("atoms", "Atoms", "Atoms", note, f'<div class="grid">{pictures}</div>{table}', how)


def _shapes(model: ManifoldDictionary) -> list[Section]:
    known = model.diagnostics_.topology
    chosen = [k for k, found in enumerate(known) if found is not None][:MOST_ATOMS]
    if not chosen:
        return []
    pictures = "".join(
        _picture(lambda ax, k=k: evidence_bars(model, k, ax=ax), f"evidence of atom {k}") for k in chosen
    )
    how = (
        "Bars say how many nats worse than the best each kind explains the rows of an atom; the dotted "
        "line is at 10, which a verdict needs. Pale bars are separate points, the null: where they win, the "
        "values are discrete, however round they lie."
    )
    return [Section("shapes", "What each atom is", "Shapes", "", f'<div class="grid">{pictures}</div>', how)]


def _curves(model: ManifoldDictionary, rows: Any) -> list[Section]:
    curves = [k for k, atom in enumerate(model.atoms_) if hasattr(atom.chart, "span")][:MOST_ATOMS]
    used = set(np.asarray(model.transform(rows).numpy().indices).ravel().tolist())
    curves = [k for k in curves if k in used]
    if not curves:
        return []
    pictures = "".join(
        _picture(lambda ax, k=k: speed_curve(model, k, ax=ax), f"speed of atom {k}")
        + _picture(lambda ax, k=k: coverage(model, k, rows, ax=ax), f"coverage of atom {k}")
        for k in curves
    )
    how = (
        "Speed is level where equal steps of the coordinate are equal ways in the data; a round circle has "
        "curvature 1 everywhere. Histograms count rows along the coordinate and mark the largest part that "
        "none uses: a wide one on a circle may be the two ends of an arc."
    )
    body = f'<div class="grid two">{pictures}</div>'
    return [Section("curves", "Along the curves", "Curves", "", body, how)]


def _use(model: ManifoldDictionary) -> Section:
    pictures = _picture(lambda ax: atom_usage(model, ax=ax), "usage") + _picture(
        lambda ax: coactivation(model, ax=ax), "atoms used together"
    )
    how = (
        "Left, how many of the training rows use an atom and with what weight. Right, which atoms they use "
        "together: atoms that always come together may be one."
    )
    return Section("use", "Use of the atoms", "Use", "", f'<div class="grid">{pictures}</div>', how)


def _error(model: ManifoldDictionary, shown: Any, codes: Any) -> Section:
    rows = np.array(shown, dtype=np.float64)
    some, own = torch.from_numpy(rows[:RIVAL_ROWS]), model.inverse_transform(codes)
    spread = ((rows - rows.mean(0)) ** 2).sum()
    fvu = float(((rows - np.asarray(own)) ** 2).sum() / spread)
    scalars = active_scalars([atom.chart for atom in model.atoms_], codes)
    counts = sorted({1, 2, 3, 4, 8, 16} & set(range(1, min(rows.shape) + 1)))
    generator = torch.Generator().manual_seed(0)
    latents = max(16, min(64, len(some) // 4))
    curves: dict[str, Any] = {"manifold dictionary": [(scalars, max(fvu, 1e-12))]}
    for name, points in linear_rivals(some, counts, n_latents=latents, generator=generator).items():
        if points:
            curves[name] = [(count, max(value, 1e-12)) for count, value in points]
    level = model.diagnostics_.sigma_noise
    floor = None if level is None or model.ambient is not None else rows.size * level**2 / spread
    picture = _picture(lambda ax: error_curve(curves, floor=floor, ax=ax), "error against active scalars")
    facts = definitions({"FVU on these rows": f"{fvu:.4f}", "active scalars a row": f"{scalars:.2f}"})
    how = (
        "Share of the variance that is left, over the numbers that a row spends: a weight and the "
        "coordinates of each atom that it uses, principal axes, active latents, or the weights of NMF that "
        "are not zero. NMF knows no negative numbers: of signed rows it factors the positive and the "
        "negative parts side by side. All models are judged on the rows of this page, to which the linear "
        "ones are fitted. Below the noise lies only noise."
    )
    body = f'<div class="split"><div>{picture}</div>{facts}</div>'
    return Section("error", "Error against what a row spends", "Error", "", body, how)


def _starts(model: ManifoldDictionary) -> Section:
    picture = _picture(lambda ax: restart_spread(model, ax=ax), "starts")
    how = (
        "Each start looked at the data in another way. Where others end far above the best, try more of them."
    )
    return Section("starts", "Starts", "Starts", "", f'<div class="grid">{picture}</div>', how)


def _picture(draw: Callable[[Axes | None], Axes], name: str) -> str:
    """An image tag with the figure that ``draw`` makes."""
    ax = draw(None)
    figure = ax.figure
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, format="png", bbox_inches="tight", facecolor="white")  # type: ignore[union-attr]
    plt.close(figure)  # type: ignore[arg-type]
    text = base64.b64encode(content.getvalue()).decode("ascii")
    return f'<img class="drawn" alt="{escape(name)}" src="data:image/png;base64,{text}">'
