"""Pictures written by hand are read back by another decoder."""

import base64
import io

import numpy as np
import pytest
from matplotlib import image

from pullback.plots.png import data_uri, png_bytes, shrink


@pytest.mark.parametrize("grey", [True, False])
def test_round_trip(grey: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    if grey:
        picture[...] = picture[..., :1]
    read = np.round(255 * image.imread(io.BytesIO(png_bytes(picture)), format="png")).astype(np.uint8)
    assert read.ndim == (2 if grey else 3)
    np.testing.assert_array_equal(read, picture[..., 0] if grey else picture)


def test_data_uri() -> None:
    picture = np.zeros((2, 2, 3), dtype=np.uint8)
    head, body = data_uri(picture).split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == png_bytes(picture)


def test_shrink_averages_blocks() -> None:
    picture = np.zeros((1, 4, 6, 3), dtype=np.uint8)
    picture[0, :2, :2] = [[[100] * 3, [200] * 3], [[0] * 3, [100] * 3]]
    small = shrink(picture, 3)
    assert small.shape == (1, 2, 3, 3)
    assert small[0, 0, 0].tolist() == [100, 100, 100]
    assert shrink(picture, 6) is picture
    assert shrink(np.zeros((2, 1, 300, 3), dtype=np.uint8), 48).shape == (2, 1, 42, 3)
