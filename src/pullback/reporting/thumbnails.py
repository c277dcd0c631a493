"""What appears when the pointer rests on a sample: its picture, or its most remarkable features."""

from html import escape

import numpy as np
from jaxtyping import Float

from pullback.plots.images import pixels, value_limits
from pullback.plots.png import data_uri, shrink
from pullback.reporting.evidence import Observed

PICTURE_BYTES = 800_000
TOP_FEATURES = 5


def pictures(evidence: Observed, image_shape: tuple[int, int, int]) -> list[str]:
    """A data URI of the picture of each sampled row; "" beyond the page's budget of bytes."""
    drawn = shrink(pixels(evidence.drawn, image_shape, value_limits(evidence.x)))
    order = np.random.default_rng(evidence.random_state).permutation(len(drawn))
    uris = [""] * len(drawn)
    spent = 0
    for row in order:
        uri = data_uri(drawn[row])
        spent += len(uri)
        if spent > PICTURE_BYTES:
            break
        uris[row] = uri
    return uris


def standardised(evidence: Observed, rows: Float[np.ndarray, "k p"]) -> Float[np.ndarray, "k p"]:
    """Deviation from the mean in standard deviations of the data; 0 for constant features."""
    safe = np.where(evidence.spread > 0, evidence.spread, 1.0)
    return np.where(evidence.spread > 0, (rows - evidence.centre) / safe, 0.0)


def shorten(text: str, length: int = 28) -> str:
    """The text, cut with an ellipsis where it is longer than ``length``."""
    return text if len(text) <= length else text[: length - 1] + "…"


def top_features(evidence: Observed) -> list[str]:
    """HTML lines with the features in which each row drawn deviates most from the mean of the data."""
    z = standardised(evidence, evidence.drawn)
    count = min(TOP_FEATURES, z.shape[1])
    top = np.argpartition(-np.abs(z), count - 1, axis=1)[:, :count]
    names = [escape(shorten(name)) for name in evidence.feature_names]
    texts = []
    for i, columns in enumerate(top):
        ordered = columns[np.argsort(-np.abs(z[i, columns]), kind="stable")]
        texts.append("<br>".join(f"{names[j]} {z[i, j]:+.1f} sd" for j in ordered))
    return texts
