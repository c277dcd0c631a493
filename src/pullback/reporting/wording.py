"""The plain sentences of the page: what is shown, and how to read it."""

from html import escape

from pullback.reporting.checks import Diagnosis
from pullback.reporting.evidence import Evidence, Observed
from pullback.reporting.pairs import Paths

THIN = "\u202f"


def thousands(number: int) -> str:
    """A whole number with thin spaces between the thousands."""
    return f"{number:,}".replace(",", THIN)


def plural(number: int, word: str) -> str:
    """A number and its noun."""
    return f"{thousands(number)} {word}{'' if number == 1 else 's'}"


def checks_note(evidence: Observed, diagnosis: Diagnosis) -> str:
    """How many rows the checks looked at."""
    m, shown = diagnosis.measures, len(evidence.rows)
    note = f"Measured on {plural(evidence.n, 'row')}"
    if shown < evidence.n:
        note += f"; what is measured row by row, on {thousands(shown)} of them, a random sample"
    if m.neighbourhood_rows < shown:
        note += f"; neighbourhoods on {thousands(m.neighbourhood_rows)}"
    if 0 < m.metric_rows < shown:
        note += f"; the metric on {thousands(m.metric_rows)}"
    if evidence.learned:
        note += (
            ". Lengths, magnification, geodesics and curvature on this page are those of the metric that the "
            "model has learned, which is short where the data are; the decoder’s own is "
            "<code>model.metric('pullback')</code>"
        )
    return f"{note}."


def map_note(evidence: Observed, pictured: int) -> str:
    """Which samples the map shows, and in which plane."""
    shown = len(evidence.rows)
    words = [f"All {plural(shown, 'sample')} are drawn."]
    if shown < evidence.n:
        words = [f"{thousands(shown)} of {plural(evidence.n, 'sample')} are drawn, chosen at random."]
    share = f"{100 * evidence.plane.share:.0f}{THIN}%"
    if evidence.plane.dims is not None:
        words.append(
            f"Shown are the two of {evidence.codes.shape[1]} coordinates that no quantity has, with {share} "
            "of the variance of all."
        )
    elif not evidence.plane.exact:
        words.append(
            f"The latent space has {evidence.codes.shape[1]} dimensions; shown is the plane of the first two "
            f"principal axes of the codes, with {share} of their variance."
        )
    if evidence.image_shape is not None and pictured < shown:
        what = "decoded picture" if isinstance(evidence, Evidence) else "picture"
        words.append(f"{thousands(pictured)} of them carry their {what}.")
    if evidence.labels is not None and evidence.labels.merged:
        words.append(f"The {evidence.labels.merged} rarest labels share one colour.")
    return " ".join(words)


def map_reading(evidence: Evidence) -> str:
    """How to read the latent map."""
    what = "its decoded picture"
    if evidence.image_shape is None:
        what = "the features in which its decoded values deviate most from the mean"
    hover = f"Every dot is a sample; rest the pointer on it to see {what}."
    stretch = "how much the decoder stretches a small latent square, compared with the typical sample"
    if evidence.learned:
        return f"{hover} {_learned_reading(evidence)}"
    if evidence.codes.shape[1] == 1:
        return (
            "The line shows how much the decoder stretches a small latent step, compared with the typical "
            "sample (log scale), dotted where there are no data. "
            f"{hover} The height of a dot has no meaning."
        )
    if not evidence.plane.exact:
        return (
            f"{hover} Coloured by magnification (choose it in the list), the dots show {stretch}; dark means "
            "that a small step changes much."
        )
    return (
        f"{hover} The grey field shows {stretch}: two dots on dark ground differ more in the data than two "
        "dots equally far apart on pale ground. Where the field fades to white there are no data, and the "
        "decoder guesses."
    )


def _learned_reading(evidence: Evidence) -> str:
    long = "long away from the centroids of the learned metric and short near them, where the data are"
    if evidence.codes.shape[1] == 1:
        return (
            "The line shows how long a small latent step is by the learned metric, compared with the typical "
            f"sample (log scale), dotted where there are no data: it is {long}. The height of a dot has no "
            "meaning."
        )
    what = "how large a small latent square is by the learned metric, compared with the typical sample"
    if not evidence.plane.exact:
        return f"Coloured by magnification (choose it in the list), the dots show {what}; steps are {long}."
    return (
        f"The grey field shows {what}: steps are {long}, so that geodesics keep to the pale ground. Where "
        "the field fades to white there are no data, and the decoder guesses."
    )


def paths_note(evidence: Evidence, paths: Paths) -> str:
    """Which samples are joined, and which paths could not be certified."""
    labels, count = evidence.labels, len(paths.pairs)
    who = "far-apart samples"
    if labels is not None and not labels.numeric:
        who = "typical samples of different labels first, then between far-apart samples"
    failed = int((~paths.converged).sum())
    tail = ""
    if failed:
        tail = f" {plural(failed, 'path')} could not be certified: {escape(str(paths.geodesic.message))}."
    measured = "by the learned metric" if evidence.learned else "in what the decoder gives"
    return f"{plural(count, 'path')} between {who}. Lengths are measured {measured}.{tail}"


def paths_reading(evidence: Evidence) -> str:
    """How to read the paths."""
    what = "pictures" if evidence.image_shape is not None else "columns of colour"
    certificate = (
        "A certified path solves the geodesic equation (residual) and does not change on a finer mesh (gap). "
        "Click a row to see its path."
    )
    if evidence.learned and evidence.codes.shape[1] > 1:
        return (
            "The solid path is the shortest way between two samples by the learned metric; the dashed line "
            "is the ruler's way. A large saving means that the ruler crosses a place that is far from the "
            f"centroids, and so from the data. The {what} show what is decoded on the way. {certificate}"
        )
    if evidence.codes.shape[1] == 1:
        return (
            "With one latent dimension both ways run along the same line; each path has a height of its own, "
            "its dots are equal steps in the data and crowd where the decoder stretches most. "
            f"The {what} along the geodesic follow these steps, those along the straight line equal steps of "
            f"the code. {certificate}"
        )
    return (
        "The solid path is the shortest way between two samples, measured by what the decoder makes of it; "
        "the dashed line is the ruler's way. A large saving means that the ruler crosses a place where "
        f"samples change fast. The {what} show what is decoded on the way: along the geodesic they change "
        f"evenly. {certificate}"
    )


def pictures_reading(evidence: Evidence) -> str:
    """How to read reconstructed pictures."""
    return (
        "The upper row of each pair holds originals, the lower what the model makes of them from "
        f"{plural(evidence.codes.shape[1], 'number')}. Look at what is lost in the worst: it is what the map "
        "cannot show."
    )


TABLE_READING = (
    "On the left, dots on the dotted line are values that the model gives back exactly. On the right, a "
    "feature near 1 is carried by the latent space; one near 0 is not, and the map says nothing about it."
)

LOSS_READING = (
    "Each panel is one term of the loss. The curves should flatten; a validation curve that turns upwards "
    "while training still falls means that the model begins to learn the training rows by heart."
)
