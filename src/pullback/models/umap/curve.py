"""The curve that turns a distance in the embedding into a membership."""

import numpy as np
from scipy.optimize import curve_fit

from pullback.validation import check_positive

CURVE_POINTS = 300


def curve_parameters(min_dist: float, spread: float) -> tuple[float, float]:
    """a and b of the membership 1 / (1 + a x^(2b)) of two points x apart.

    Least squares on 300 points of [0, 3 spread] against 1 where x < min_dist and exp(-(x - min_dist) /
    spread) beyond.

    McInnes, Healy and Melville 2018, "UMAP: uniform manifold approximation and projection".

    Args:
        min_dist: distance below which points count as together, in units of the embedding.
        spread: length over which the membership decays, in the same units.
    Raises:
        ValueError: min_dist below 0, spread not above 0, or min_dist above 3 spread, where the curve has no
            decay to be fitted.
    Example:
        >>> a, b = curve_parameters(0.1, 1.0)
        >>> print(f"{a:.4f} {b:.4f}")
        1.5769 0.8951
    """
    check_positive("min_dist", min_dist, zero=True)
    check_positive("spread", spread)
    if min_dist >= 3 * spread:
        raise ValueError(f"min_dist: expected a number below 3 spread = {3 * spread}, got {min_dist}")
    x = np.linspace(0, 3 * spread, CURVE_POINTS)
    wanted = np.where(x < min_dist, 1.0, np.exp(-(x - min_dist) / spread))
    # In units of the spread a is near 1, so that one start serves all.
    (a, b), _ = curve_fit(_membership, x / spread, wanted, xtol=1e-12, ftol=1e-12)
    return float(a / spread ** (2 * b)), float(b)


def _membership(x: np.ndarray, a: float, b: float) -> np.ndarray:
    return 1 / (1 + a * x ** (2 * b))
