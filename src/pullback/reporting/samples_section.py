"""The section about samples: from the prior, and from the volume of a learned metric."""

from html import escape
from typing import Any

import numpy as np
from bokeh.models import UIElement

from pullback.plots.canvas import new_legend, new_map
from pullback.plots.document import Section
from pullback.plots.field import remoteness
from pullback.plots.images import pixels, strip, value_limits
from pullback.plots.png import data_uri, shrink
from pullback.plots.style import GEODESIC, POINT, STRAIGHT
from pullback.reporting.checks import Diagnosis, percent
from pullback.reporting.evidence import Evidence
from pullback.reporting.latent_figure import on_page
from pullback.reporting.learned import SAMPLES, quiet_samples
from pullback.reporting.thumbnails import shorten

KEY, TITLE = "samples", "Samples"
PICTURES = 20
FEATURES = 8
NAMES = {"prior": "from the prior", "volume": "from the volume"}


def samples_section(evidence: Evidence, diagnosis: Diagnosis) -> tuple[list[Section], dict[str, UIElement]]:
    """The section; none for a model without a learned metric."""
    if not evidence.learned:
        return [], {}
    model, seed = evidence.model, evidence.random_state
    volume = diagnosis.samples or quiet_samples(model, SAMPLES, "volume", seed)
    drawn = {"prior": quiet_samples(model, SAMPLES, "prior", seed), "volume": volume}
    decoded = {name: evidence.decode(samples.z) for name, samples in drawn.items()}
    pictures = "" if evidence.image_shape is None else _pictures(evidence, decoded)
    figures: dict[str, UIElement] = {}
    left = ""
    if evidence.codes.shape[1] > 1:
        figures["samples"] = _map(evidence, drawn)
        left = "<div><h3>Where they come from</h3>{{samples}}</div>"
    tables = _methods(evidence, drawn)
    if evidence.image_shape is None:
        tables += _features(evidence, decoded)
    body = f'{pictures}<div class="grid two">{left}<div>{tables}</div></div>'
    return [Section(KEY, TITLE, TITLE, _note(drawn), body, _reading())], figures


def _pictures(evidence: Evidence, decoded: dict[str, np.ndarray]) -> str:
    shape = evidence.image_shape
    assert shape is not None
    limits = value_limits(evidence.x)
    lanes = "".join(
        f'<div class="lane"><span>{NAMES[name]}</span><img alt="samples {NAMES[name]}" '
        f'src="{data_uri(strip(shrink(pixels(rows[:PICTURES], shape, limits), 64)))}"></div>'
        for name, rows in decoded.items()
    )
    return f'<div class="strips">{lanes}</div>'


def _map(evidence: Evidence, drawn: dict[str, Any]) -> Any:
    fig = new_map(evidence.plane.axis_names)
    codes = on_page(evidence, evidence.shown_codes).astype(np.float32)
    dots = fig.scatter(codes[:, 0], codes[:, 1], size=3, fill_color=POINT, fill_alpha=0.35, line_color=None)
    entries = [("data", dots)]
    for name, color in (("prior", STRAIGHT), ("volume", GEODESIC)):
        page = on_page(evidence, drawn[name].z.astype(np.float64)).astype(np.float32)
        look = {"size": 5, "fill_color": color, "fill_alpha": 0.6, "line_color": None}
        entries.append((NAMES[name], fig.scatter(page[:, 0], page[:, 1], **look)))
    fig.add_layout(new_legend(entries, orientation="horizontal", location="center", padding=2), "below")
    return fig


def _methods(evidence: Evidence, drawn: dict[str, Any]) -> str:
    rows = []
    for name, samples in drawn.items():
        found = samples.diagnostics
        near = float((remoteness(samples.z.astype(np.float64), evidence.codes) <= 1).mean())
        acceptance = f"{found['acceptance'].mean():.2f}" if "acceptance" in found else ""
        r_hat = f"{found['r_hat'].max():.2f}" if found.get("r_hat") is not None else ""
        size = found.get("effective_sample_size")
        independent = "" if size is None else f"{size.min():.0f}"
        cells = "".join(f"<td>{cell}</td>" for cell in (percent(near), acceptance, r_hat, independent))
        rows.append(f"<tr><th>{NAMES[name]}</th>{cells}</tr>")
    names = ("", "on the data", "acceptance", "R\u2011hat", "independent draws")
    head = "".join(f"<th>{name}</th>" for name in names)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<h3>How they were drawn</h3><div class="scroll numbers">{table}</div>'


def _features(evidence: Evidence, decoded: dict[str, np.ndarray]) -> str:
    """Mean and spread of the features that vary most, in the data and in both kinds of samples."""
    chosen = np.argsort(-evidence.spread / evidence.unit_scale, kind="stable")[:FEATURES]
    rows = []
    for j in chosen:
        name = evidence.feature_names[j]
        parts = [evidence.x[:, j], *(values[:, j] for values in decoded.values())]
        cells = "".join(f"<td>{part.mean():.3g} ± {part.std():.2g}</td>" for part in parts)
        rows.append(f'<tr><th title="{escape(name)}">{escape(shorten(name, 18))}</th>{cells}</tr>')
    head = "".join(f"<th>{name}</th>" for name in ("", "data", *(NAMES[name] for name in decoded)))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<h3>Features that vary most</h3><div class="scroll numbers">{table}</div>'


def _note(drawn: dict[str, Any]) -> str:
    found = drawn["volume"].diagnostics
    words = (
        f"{len(drawn['volume'])} latent points each, from the prior N(0, I) and from the volume of the "
        "learned metric, and what the decoder makes of them."
    )
    said = escape(str(found["message"]))
    return (
        f"{words} Chains on the volume: {said}."
        if found["converged"]
        else (f"{words} <b>The chains on the volume cannot be trusted:</b> {said}.")
    )


def _reading() -> str:
    return (
        "The prior is where the model was told to put the data, the volume where its metric says that they "
        "are. Samples on the data lie no farther from a code than codes lie from each other; those beside "
        "them are the decoder's guess. R-hat near 1 means that chains from different starts agree."
    )
