import numpy as np
import pytest

from pullback.data import Dataset


def test_names_are_numbers_where_the_file_has_none():
    dataset = Dataset(X=np.zeros((2, 3), dtype=np.float32))
    assert dataset.features.tolist() == ["x1", "x2", "x3"]
    assert dataset.samples.tolist() == ["0", "1"]


def test_frame_carries_names_and_dtype():
    frame = Dataset(
        X=np.ones((1, 2), dtype=np.float32), features=np.array(["a", "b"]), samples=np.array(["s"])
    ).frame()
    assert list(frame.columns) == ["a", "b"]
    assert list(frame.index) == ["s"]
    assert (frame.dtypes == np.float32).all()


@pytest.mark.parametrize("field", ["y", "features", "samples"])
def test_lengths_must_agree(field):
    with pytest.raises(ValueError, match=f"{field}: expected 3 entries"):
        Dataset(X=np.zeros((3, 3)), **{field: np.array(["a", "b"])})


def test_repr_is_one_short_line():
    assert repr(Dataset(X=np.zeros((2, 3)), y=np.array([0, 1]), name="t")) == (
        "Dataset('t', 2 x 3 float64, 2 distinct labels)"
    )
