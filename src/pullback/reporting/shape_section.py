"""The section about distances from a sample and the curvature of the map."""

from html import escape

from bokeh.models import UIElement

from pullback.plots.document import Section
from pullback.plots.field import Field
from pullback.reporting.evidence import Evidence
from pullback.reporting.shape_figures import Shape, shape_of
from pullback.reporting.thumbnails import shorten

KEY, TITLE = "shape", "Distances and curvature"

STEPS_READING = (
    "The ellipses, when shown, are steps of one length in the data: where they are small a short way on the "
    "map changes much, where they are long the directions differ, and equal circles everywhere would make "
    "the ruler right. Dashed ones are larger than drawn."
)


LEARNED_STEPS_READING = (
    "The ellipses, when shown, are steps of one length by the learned metric: long where the data are, short "
    "away from them; equal circles everywhere would make the ruler right. Dashed ones are larger than drawn."
)


def steps_reading(evidence: Evidence) -> str:
    """How to read the ellipses."""
    return LEARNED_STEPS_READING if evidence.learned else STEPS_READING


def shape_section(evidence: Evidence, field: Field | None) -> tuple[list[Section], dict[str, UIElement]]:
    """The section, or none where there is nothing to show."""
    shape = shape_of(evidence, field)
    if shape is None:
        return [], {}
    if shape.kinks is not None:
        note = (
            "Curvature and geodesics that start in a given direction need second derivatives, and this "
            f"decoder has none that mean anything: {escape(shape.kinks)}. A map of them would show zero."
        )
        return [Section(KEY, TITLE, "Curvature", note, "", "")], {}
    body = (
        f'<div class="grid two"><div><h3>From {escape(shorten(shape.centre, 40))}</h3>{{{{fan}}}}</div>'
        f"<div><h3>{_name(evidence)}</h3>{{{{curvature}}}}</div></div>"
    )
    section = Section(KEY, TITLE, "Curvature", _note(evidence, shape), body, _reading(evidence))
    return [section], {"fan": shape.fan, "curvature": shape.curved}


def _name(evidence: Evidence) -> str:
    return (
        "Gaussian curvature" if evidence.plane.exact else "Sectional curvature of the page’s two directions"
    )


def _note(evidence: Evidence, shape: Shape) -> str:
    assert shape.rays is not None
    words = [
        f"Geodesics of length {shape.rays.radius:g} leave the most central sample in all directions; the "
        "lines join places at the same distance from it."
    ]
    if shape.rays.stopped:
        words.append(
            f"{shape.rays.stopped} of {len(shape.rays.points)} could not be followed to their end, because "
            f"the {'metric' if evidence.learned else 'decoder'} stops changing there or bends too sharply."
        )
    if not evidence.plane.exact:
        words.append(
            "They leave in the two directions of the page and are projected on it; curvature is measured at "
            f"{shape.measured} of the samples, for the same two directions."
        )
    return " ".join(words)


def _reading(evidence: Evidence) -> str:
    where = "by the learned metric" if evidence.learned else "in the data"
    dotted = " A dotted part is not a distance: another way there is shorter." if evidence.plane.exact else ""
    return (
        "On a map true to scale the geodesics would be straight, the lines of equal distance even circles. "
        f"Where these crowd, a short way on the map is long {where}.{dotted} Red curvature bends like a "
        "ball: geodesics that start side by side come together again. Blue bends like a saddle: they part. "
        "Where the map is strongly coloured no flat picture of these data can keep all distances; white "
        "parts could be drawn true to scale."
    )
