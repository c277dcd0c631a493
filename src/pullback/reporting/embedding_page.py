"""The map of a model that only encodes: no reconstructions, no magnification."""

from pullback.plots.document import Section
from pullback.reporting.evidence import Observed
from pullback.reporting.latent_figure import latent_figure
from pullback.reporting.sections import Figures
from pullback.reporting.wording import map_note

WITHOUT = (
    "This model was trained without a decoder, so that there are no reconstructions, no magnification, no "
    "geodesics and no samples to report; with <code>decoder=True</code> there would be."
)
READING = (
    "Every dot is a sample; rest the pointer on it to see {what}. Samples that share neighbours in the data "
    "lie together. The size of a group, the gap between groups and the axes have no meaning of their own: "
    "see the check of far distances. Features to colour by come in the order in which the map sorts the "
    "samples by them."
)


def embedding_sections(seen: Observed) -> tuple[list[Section], Figures]:
    """The map, and what is not on this page."""
    drawn = latent_figure(seen, None)
    what = "its picture" if seen.image_shape is not None else "the features in which it deviates most"
    body = '<div class="split">{{map}}<div>{{colour}}</div></div>'
    note = f"{map_note(seen, drawn.pictured)} {WITHOUT}"
    section = Section("map", "Map", "Map", note, body, READING.format(what=what))
    return [section], {"map": drawn.figure, "colour": drawn.choice}
