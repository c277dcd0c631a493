"""Small sets of rows around curves and sheets: those that gamfit 0.1.274 returned no model for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA


@dataclass(frozen=True, eq=False)
class Case:
    """Rows, what lies beneath, and what may be said of it.

    Attributes:
        rows: (n, p).
        clean: the same without noise.
        t: coordinates on the curve, (n,), NaN where there is none.
        n_atoms: how many.
        kinds: chart that each atom should have.
    """

    rows: np.ndarray
    clean: np.ndarray
    t: np.ndarray
    n_atoms: int
    kinds: tuple[str, ...]


def _case(
    shape: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
    p: int,
    sigma: float,
    *kinds: str,
) -> Case:
    rng = np.random.default_rng(0)
    points, t = shape(rng)
    frame = np.linalg.qr(rng.normal(size=(p, points.shape[1])))[0]
    clean = points @ frame.T
    return Case(clean + sigma * rng.normal(size=clean.shape), clean, t, len(kinds), kinds)


def _circle(n: int) -> Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    def shape(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        t = rng.uniform(0, 2 * np.pi, n)
        return np.c_[np.cos(t), np.sin(t)], t

    return shape


def _two_circles(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    t, which = rng.uniform(0, 2 * np.pi, 300), rng.integers(2, size=300)
    ring = np.c_[np.cos(t), np.sin(t)]
    return np.c_[ring * (which == 0)[:, None], ring * (which == 1)[:, None]], t


def _curve(rng: np.random.Generator, bend: float) -> tuple[np.ndarray, np.ndarray]:
    t = rng.uniform(-1, 1, 40)
    return np.c_[t, bend * t**2], t


def _saddle(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    u, v = rng.uniform(-1, 1, (2, 300))
    return np.c_[u, v, u * v], np.full(300, np.nan)


def _digits() -> Case:
    rows = PCA(10, random_state=0).fit_transform(load_digits().data[:500])
    return Case(rows, rows, np.full(500, np.nan), 3, ("any",) * 3)


CASES: dict[str, Callable[[], Case]] = {
    "circle, 200 x 8, sigma .05": lambda: _case(_circle(200), 8, 0.05, "circle"),
    "circle, 200 x 8, sigma .2": lambda: _case(_circle(200), 8, 0.2, "circle"),
    "circle, 1000 x 8, sigma .1": lambda: _case(_circle(1000), 8, 0.1, "circle"),
    "circle, 40 x 3, sigma .02": lambda: _case(_circle(40), 3, 0.02, "circle"),
    "two circles, 300 x 10, sigma .05": lambda: _case(_two_circles, 10, 0.05, "circle", "circle"),
    "line, 40 x 3, sigma .02": lambda: _case(lambda rng: _curve(rng, 0.0), 3, 0.02, "interval"),
    "parabola, 40 x 3, sigma .02": lambda: _case(lambda rng: _curve(rng, 1.0), 3, 0.02, "interval"),
    "saddle, 300 x 6, sigma .05": lambda: _case(_saddle, 6, 0.05, "plane"),
    "digits, 500 x 10": _digits,
}
