"""a and b of the membership curve."""

import numpy as np
import pytest

from pullback.models.umap import curve_parameters
from umap_golden import GOLDEN

KNOWN = [
    (0.1, 1.576943460, 0.895060878),
    (0.01, 1.895605866, 0.800637844),
    (0.25, 1.121436342, 1.057499877),
    (0.5, 0.583030020, 1.334166992),
]


@pytest.mark.parametrize(("min_dist", "a", "b"), KNOWN)
def test_known_values(min_dist, a, b):
    np.testing.assert_allclose(curve_parameters(min_dist, 1.0), (a, b), rtol=1e-6)


def test_recorded_values():
    for min_dist, spread, a, b in GOLDEN["curve"]:
        np.testing.assert_allclose(curve_parameters(min_dist, spread), (a, b), rtol=2e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_units_scale_out(scale):
    a, b = curve_parameters(0.1, 1.0)
    scaled, same = curve_parameters(0.1 * scale, scale)
    np.testing.assert_allclose((scaled * scale ** (2 * b), same), (a, b), rtol=1e-6)


@pytest.mark.parametrize(
    ("min_dist", "spread", "words"), [(-0.1, 1.0, "min_dist"), (0.1, 0.0, "spread"), (3.0, 1.0, "3 spread")]
)
def test_bad_input(min_dist, spread, words):
    with pytest.raises(ValueError, match=words):
        curve_parameters(min_dist, spread)
