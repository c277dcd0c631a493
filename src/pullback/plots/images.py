"""Rows of numbers as pictures and as standardised tables."""

import numpy as np
from jaxtyping import Float, UInt8


def pixels(
    rows: Float[np.ndarray, "n p"], image_shape: tuple[int, int, int], limits: tuple[float, float]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Rows as 8-bit colour pictures.

    One channel is drawn dark on white (the largest value is black), three are red, green and blue; of any
    other number of channels the mean is drawn. ``limits`` are the values of the two ends.
    """
    channels, height, width = image_shape
    low, high = limits
    unit = np.clip((rows.reshape(-1, channels, height, width) - low) / max(high - low, 1e-12), 0, 1)
    if channels == 3:
        picture = unit.transpose(0, 2, 3, 1)
    else:
        picture = np.repeat(1 - unit.mean(1)[..., None], 3, axis=-1)
    return np.round(255 * picture).astype(np.uint8)


def strip(
    pictures: UInt8[np.ndarray, "n h w 3"], *, gap: int = 1, background: int = 255
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Pictures side by side with a gap between them."""
    n, height, width, _ = pictures.shape
    sheet = np.full((height, n * width + (n - 1) * gap, 3), background, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        sheet[:, i * (width + gap) : i * (width + gap) + width] = picture
    return sheet


def value_limits(rows: Float[np.ndarray, "n p"]) -> tuple[float, float]:
    """The 0.5 % and 99.5 % quantiles of the values: the ends of a picture's scale."""
    low, high = np.quantile(rows, [0.005, 0.995])
    return (float(low), float(high)) if high > low else (float(rows.min()), float(rows.max()))


def most_changing(rows: Float[np.ndarray, "n p"], scale: Float[np.ndarray, " p"], count: int) -> np.ndarray:
    """Indices of the features with the largest range along ``rows`` in units of ``scale``, largest first."""
    spread = np.divide(np.ptp(rows, axis=0), scale, out=np.zeros(rows.shape[1]), where=scale > 0)
    return np.argsort(-spread, kind="stable")[:count]
