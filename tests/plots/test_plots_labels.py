"""What labels are taken for, and rows drawn as pictures."""

import numpy as np
import pandas as pd
import pytest

from pullback.plots.images import most_changing, pixels, strip, value_limits
from pullback.plots.labels import read_labels
from pullback.plots.style import CATEGORICAL, MAX_CATEGORIES, category_style


@pytest.mark.parametrize(
    ("labels", "categories"),
    [
        (np.array([10, 2, 2, 1]), ("1", "2", "10")),
        (np.array(["b", "a", "b"]), ("a", "b")),
        (np.array([True, False]), ("False", "True")),
        (np.array([0.0, 1.0, np.nan]), ("0", "1", "missing")),
        (np.array(["x", None, "y"], dtype=object), ("x", "y", "missing")),
        (np.array(["2020-01-02", "2020-01-01"], dtype="datetime64[D]"), ("2020-01-01", "2020-01-02")),
    ],
    ids=["whole numbers", "text", "truth", "numbers with a gap", "text with a gap", "days"],
)
def test_categories(labels: np.ndarray, categories: tuple[str, ...]) -> None:
    read = read_labels(labels, "kind")
    assert not read.numeric
    assert read.categories == categories
    texts = [categories[i] for i in read.values]
    assert len(texts) == len(labels)
    assert read.take(slice(1, 2)).values.tolist() == read.values[1:2].tolist()


def test_each_sample_keeps_its_category() -> None:
    read = read_labels(np.array(["b", "a", "c", "a"]))
    assert [read.categories[i] for i in read.values] == ["b", "a", "c", "a"]


@pytest.mark.parametrize("labels", [np.linspace(0, 1, 30), np.arange(21), np.array([0.5, np.nan, 1.0])])
def test_scales(labels: np.ndarray) -> None:
    read = read_labels(labels)
    assert read.numeric
    np.testing.assert_array_equal(read.values, labels)


def test_the_rarest_of_many_categories_are_put_together() -> None:
    names = [f"type {i:02d}" for i in range(30) for _ in range(30 - i)]
    read = read_labels(np.array(names))
    assert len(read.categories) == MAX_CATEGORIES
    assert read.merged == 30 - (MAX_CATEGORIES - 1)
    assert read.categories[-1] == "11 rarer ones"
    assert (read.values == MAX_CATEGORIES - 1).sum() == sum(30 - i for i in range(19, 30))


def test_a_pandas_column_of_categories() -> None:
    column = pd.Series(["u", "v", "u"], dtype="category")
    assert read_labels(np.asarray(column)).categories == ("u", "v")


def test_every_category_has_a_style_of_its_own() -> None:
    styles = {category_style(i) for i in range(MAX_CATEGORIES)}
    assert len(styles) == MAX_CATEGORIES
    assert len(set(CATEGORICAL)) == len(CATEGORICAL)


def test_pixels() -> None:
    rows = np.array([[0.0, 1.0, 2.0, 4.0]])
    grey = pixels(rows, (1, 2, 2), (0.0, 4.0))
    assert grey.shape == (1, 2, 2, 3)
    assert grey[0, :, :, 0].tolist() == [[255, 191], [128, 0]]
    colour = pixels(np.array([[0.0, 1.0, 0.5]]), (3, 1, 1), (0.0, 1.0))
    assert colour[0, 0, 0].tolist() == [0, 255, 128]
    two = pixels(np.array([[0.0, 1.0]]), (2, 1, 1), (0.0, 1.0))
    assert two[0, 0, 0].tolist() == [128, 128, 128]
    constant = pixels(np.ones((1, 4)), (1, 2, 2), value_limits(np.ones((1, 4))))
    assert constant.tolist() == np.full((1, 2, 2, 3), 255).tolist()


def test_strip_leaves_a_gap() -> None:
    sheet = strip(np.zeros((3, 2, 2, 3), dtype=np.uint8), gap=1)
    assert sheet.shape == (2, 8, 3)
    assert sheet[0, :, 0].tolist() == [0, 0, 255, 0, 0, 255, 0, 0]


def test_most_changing_features_are_counted_in_their_own_spread() -> None:
    rows = np.array([[0.0, 0.0, 5.0, 0.0], [10.0, 1.0, 5.0, 9.0]])
    assert most_changing(rows, np.array([100.0, 1.0, 1.0, 0.0]), 2).tolist() == [1, 0]
