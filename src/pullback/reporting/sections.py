"""The sections of the page and the figures in them."""

from html import escape

import numpy as np
from bokeh.models import UIElement

from pullback.plots.document import Section, checks_box, definitions
from pullback.plots.images import pixels, strip, value_limits
from pullback.plots.png import data_uri, shrink
from pullback.plots.style import FIT, GEODESIC
from pullback.reporting import wording
from pullback.reporting.checks import Diagnosis
from pullback.reporting.curve_figures import loss_figures, table_figures
from pullback.reporting.evidence import Evidence, Observed
from pullback.reporting.latent_figure import field_behind, latent_figure
from pullback.reporting.overlay import add_indicatrices
from pullback.reporting.pairs import Paths
from pullback.reporting.path_figure import path_map
from pullback.reporting.path_shares import shares_reading
from pullback.reporting.path_strips import path_strips, path_table
from pullback.reporting.shape_section import shape_section, steps_reading

EXAMPLES = 10

Figures = dict[str, UIElement]


def checks_section(evidence: Observed, diagnosis: Diagnosis) -> Section:
    """The box of checks."""
    note = wording.checks_note(evidence, diagnosis)
    return Section(
        "checks",
        "Checks",
        "Checks",
        note,
        checks_box(diagnosis.checks, diagnosis.verdict, diagnosis.headline),
        "",
    )


def map_sections(evidence: Evidence, diagnosis: Diagnosis) -> tuple[list[Section], Figures]:
    """The latent map, the geodesics and the curvature, which share the field behind them."""
    field = field_behind(evidence)
    paths: Paths | None = diagnosis.paths
    drawn = latent_figure(evidence, field)
    steps = add_indicatrices(drawn.figure, evidence)
    figures: Figures = {"map": drawn.figure, "colour": drawn.choice}
    drawing = "{{map}}"
    if drawn.profile is not None:
        figures["profile"] = drawn.profile
        drawing = "<div>{{profile}}{{map}}</div>"
    note, reading = wording.map_note(evidence, drawn.pictured), wording.map_reading(evidence)
    tick = ""
    if steps is not None:
        figures["steps"], tick, reading = (
            steps.choice,
            '<div class="tick">{{steps}}</div>',
            f"{reading} {steps_reading(evidence)}",
        )
    side = f"<div>{{{{colour}}}}{tick}{_facts(evidence, diagnosis)}</div>"
    body = f'<div class="split">{drawing}{side}</div>'
    sections = [Section("map", "Latent map", "Latent map", note, body, reading)]
    more, others = shape_section(evidence, field)
    figures |= others
    title = "Geodesics against straight lines"
    if paths is None:
        reason = diagnosis["geodesics"].sentence
        return [*sections, Section("geodesics", title, "Geodesics", reason, "", ""), *more], figures
    part = path_map(evidence, paths, field)
    figures |= {"path": part.choice, "paths": part.figure}
    side = f'<div>{{{{path}}}}<div class="scroll">{path_table(paths)}</div></div>'
    body = f'<div class="split wide">{{{{paths}}}}{side}</div>{path_strips(evidence, paths)}'
    note = wording.paths_note(evidence, paths)
    reading = f"{wording.paths_reading(evidence)} {shares_reading(evidence)}"
    return [*sections, Section("geodesics", title, "Geodesics", note, body, reading), *more], figures


def _facts(evidence: Evidence, diagnosis: Diagnosis) -> str:
    m = diagnosis.measures
    finite = evidence.decades[np.isfinite(evidence.decades)]
    stretch = "none"
    if finite.size:
        low, high = (10.0**q for q in np.quantile(finite, [0.01, 0.99]))
        stretch = f"×{low:.2g} to ×{high:.2g} (98{wording.THIN}% of samples)"
    return definitions(
        {
            "samples drawn": wording.thousands(len(evidence.rows)),
            "magnification": stretch,
            "condition": diagnosis["condition"].text.removeprefix("condition "),
            "distortion (isometric: 1)": _two_digits(m.metric_distortion),
            "correlation of ruler and geodesic": _two_digits(m.pearson),
            "area off the data": diagnosis["coverage"].text.removesuffix(" off the data"),
        }
    )


def _two_digits(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def reconstruction_section(evidence: Evidence) -> tuple[Section, Figures]:
    """Examples of originals and reconstructions."""
    key, title = "reconstruction", "Reconstructions"
    if evidence.image_shape is not None:
        body, reading = _pictures(evidence, evidence.image_shape), wording.pictures_reading(evidence)
        return Section(key, title, title, "", body, reading), {}
    first, second = table_figures(evidence)
    note = "Values in standard deviations of each feature; a random sample of them is drawn."
    body = '<div class="grid">{{observed}}{{kept}}</div>'
    return Section(key, title, title, note, body, wording.TABLE_READING), {"observed": first, "kept": second}


def _pictures(evidence: Evidence, shape: tuple[int, int, int]) -> str:
    errors = evidence.errors
    count = min(EXAMPLES, len(errors))
    random = np.random.default_rng(evidence.random_state).choice(len(errors), count, replace=False)
    worst = np.argsort(-errors, kind="stable")[:count]
    limits = value_limits(evidence.x)
    parts = []
    for title, rows in (("A random choice", random), ("The worst", worst)):
        lanes = "".join(
            f'<div class="lane"><span>{name}</span><img alt="{title.lower()}: {name}" '
            f'src="{data_uri(strip(shrink(pixels(values[rows], shape, limits), 64)))}"></div>'
            for name, values in (("original", evidence.x), ("reconstructed", evidence.y))
        )
        parts.append(f'<div class="strips"><h3>{title}</h3>{lanes}</div>')
    return "".join(parts)


def training_section(evidence: Observed, diagnosis: Diagnosis) -> tuple[Section, Figures]:
    """The loss curves."""
    curves = loss_figures(getattr(evidence.model, "history_", {}))
    figures: Figures = {f"loss{i}": curve for i, curve in enumerate(curves)}
    note = escape(diagnosis["training"].sentence)
    if not curves:
        body = "<p>The model keeps no history of its training.</p>"
        return Section("training", "Training", "Training", note, body, ""), figures
    panels = "".join("{{" + name + "}}" for name in figures)
    body = (
        f'<p class="key"><span style="color: {FIT}">━━ training</span> &emsp; '
        f'<span style="color: {GEODESIC}">╍╍ validation</span></p><div class="grid">{panels}</div>'
    )
    return Section("training", "Training", "Training", note, body, wording.LOSS_READING), figures


def origin_section(command: str, versions: dict[str, str], options: dict[str, str]) -> Section:
    """The exact command, versions and options that made the page."""
    body = (
        f"<h3>Command</h3><pre><code>{escape(command)}</code></pre>"
        f'<div class="origin"><div><h3>Versions</h3>{definitions(versions)}</div>'
        f'<div class="many"><h3>Options of the model</h3>{definitions(options)}</div></div>'
    )
    return Section("origin", "How this page was made", "How it was made", "", body, "")
