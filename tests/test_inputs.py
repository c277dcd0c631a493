"""Every kind of input becomes the same table; what is not numbers is refused with a reason."""

import subprocess
import sys
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from pullback.inputs import as_tensor, is_anndata, read_input

NUMBERS = np.arange(12.0).reshape(4, 3) - 5


@pytest.fixture
def adata() -> anndata.AnnData:
    return anndata.AnnData(
        NUMBERS.copy(),
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(4)]),
        var=pd.DataFrame(index=["Actb", "Gapdh", "Cd4"]),
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.tolist(),
        lambda x: tuple(map(tuple, x.tolist())),
        lambda x: list(torch.from_numpy(x)),
        lambda x: np.asfortranarray(x),
        lambda x: x[::-1][::-1],
        lambda x: np.ma.masked_array(x),
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch.from_numpy(x).to_sparse(),
        lambda x: torch.from_numpy(x).to_sparse_csr(),
        pd.DataFrame,
        lambda x: pd.DataFrame(x).astype("Float64"),
        lambda x: pd.DataFrame(x).astype("double[pyarrow]"),
        lambda x: pd.DataFrame(x).astype(pd.SparseDtype(float, 0.0)),
        sparse.csr_matrix,
        sparse.csr_array,
        sparse.csc_matrix,
        sparse.coo_array,
        anndata.AnnData,
        lambda x: anndata.AnnData(sparse.csr_matrix(x)),
        lambda x: x.astype(object),
        lambda x: x.astype(np.longdouble),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant):UserWarning")
def test_every_form_holds_the_same_numbers(make) -> None:
    table = read_input(make(NUMBERS))
    assert (len(table), table.n_features, table.dtype) == (4, 3, torch.float64)
    assert torch.equal(table.rows(slice(None)), torch.from_numpy(NUMBERS))
    assert torch.equal(table.rows(np.array([2, 0])), torch.from_numpy(NUMBERS[[2, 0]]))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float64, torch.float64),
        (np.float32, torch.float32),
        (np.float16, torch.float32),
        (np.int64, torch.float32),
        (np.uint8, torch.float32),
        (bool, torch.float32),
    ],
)
def test_precision_follows_the_input(given: type, kept: torch.dtype) -> None:
    array = np.abs(NUMBERS).astype(given)
    for form in (
        array,
        torch.from_numpy(array),
        pd.DataFrame(array),
        sparse.csr_array(array.astype(kept_numpy(given))),
    ):
        assert read_input(form).dtype == kept
    assert read_input(torch.zeros(2, 2, dtype=torch.bfloat16)).dtype == torch.float32


def kept_numpy(given: type) -> type:
    return np.float32 if given is np.float16 else given  # scipy has no sparse half precision


def test_float_input_is_not_copied_and_never_written_to() -> None:
    table = read_input(NUMBERS)
    assert np.shares_memory(table.values, NUMBERS)
    assert np.shares_memory(table.rows(slice(1, 3)).numpy(), NUMBERS)


def test_sparse_input_stays_sparse() -> None:
    matrix = sparse.random_array((2000, 5000), density=0.001, format="csr", rng=np.random.default_rng(0))
    table = read_input(matrix)
    assert sparse.issparse(table.values)
    assert table.values.data.nbytes + table.values.indices.nbytes < 10**6
    assert torch.equal(table.rows(slice(5, 9)), torch.from_numpy(matrix[5:9].toarray()))


def test_read_only_and_reversed_arrays_become_tensors_without_a_warning() -> None:
    locked = NUMBERS.copy()
    locked.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(as_tensor(locked), torch.from_numpy(NUMBERS))
        assert torch.equal(as_tensor(NUMBERS[::-1]), torch.from_numpy(NUMBERS[::-1].copy()))
        assert torch.equal(read_input(locked).rows(slice(0, 1)), torch.from_numpy(NUMBERS[:1]))


def test_names_travel_with_frames_and_anndata(adata: anndata.AnnData) -> None:
    frame = pd.DataFrame(NUMBERS, columns=["a", "b", "c"], index=["w", "x", "y", "z"])
    table = read_input(frame)
    assert list(table.feature_names) == ["a", "b", "c"]
    assert list(table.sample_names) == ["w", "x", "y", "z"]
    cells = read_input(adata)
    assert list(cells.feature_names) == ["Actb", "Gapdh", "Cd4"]
    assert list(cells.sample_names) == ["cell0", "cell1", "cell2", "cell3"]
    view = read_input(adata[:2, 1:])
    assert list(view.feature_names) == ["Gapdh", "Cd4"]
    assert view.rows(slice(None)).tolist() == NUMBERS[:2, 1:].tolist()


def test_numbered_columns_are_no_names() -> None:
    table = read_input(pd.DataFrame(NUMBERS))
    assert table.feature_names is None
    assert table.sample_names is None
    assert read_input(NUMBERS).feature_names is None


@pytest.mark.parametrize("matrix", [NUMBERS, sparse.csr_matrix(NUMBERS)], ids=["dense", "sparse"])
def test_anndata_on_disk_is_read(tmp_path: Path, matrix) -> None:
    cells = anndata.AnnData(matrix)
    cells.obs_names, cells.var_names = pd.Index([*"abcd"], dtype=object), pd.Index([*"xyz"], dtype=object)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    try:
        assert torch.equal(read_input(backed).rows(slice(None)), torch.from_numpy(NUMBERS))
    finally:
        backed.file.close()


def test_anndata_without_a_matrix() -> None:
    with pytest.raises(ValueError, match=r"got one with X=None; pass adata\.layers"):
        read_input(anndata.AnnData(obs=pd.DataFrame(index=["a", "b"])))


def test_anndata_is_known_by_its_name_alone(adata: anndata.AnnData) -> None:
    assert is_anndata(adata)
    assert is_anndata(adata[:2])
    assert not is_anndata(NUMBERS)
    assert not is_anndata(type("AnnData", (), {})())


def test_anndata_is_never_imported() -> None:
    code = "import sys, pullback.inputs; sys.exit('anndata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "make", [np.asarray, torch.from_numpy, list, lambda x: [torch.from_numpy(i) for i in x]]
)
def test_images_are_flattened_by_row(make) -> None:
    images = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    table = read_input(make(images))
    assert table.image_shape == (3, 4, 5)
    assert torch.equal(table.rows(slice(None)), torch.from_numpy(images.reshape(2, 60)))
    assert read_input(NUMBERS).image_shape is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.array([[1.0, np.nan]]), "Input X contains NaN"),
        (np.array([[1.0, np.inf]]), "Input X contains infinity"),
        (torch.tensor([[float("nan")]]), "Input X contains NaN"),
        (sparse.csr_array(np.array([[0.0, np.nan]])), "Input X contains NaN"),
        (pd.DataFrame({"a": [1.0, None]}), "Input X contains NaN"),
        (np.zeros(3), "Expected 2D array, got 1D array instead"),
        (np.float64(3.0), "Expected 2D array, got scalar array instead"),
        (np.zeros((2, 3, 3)), r"got shape \(2, 3, 3\); give images without channels one"),
        (np.zeros((1, 1, 1, 1, 1)), "Found array with dim 5"),
        (np.zeros((0, 3)), r"Found array with 0 sample\(s\)"),
        (np.zeros((3, 0)), r"Found array with 0 feature\(s\)"),
        ([], "Expected 2D array"),
        ([[1.0, 2.0], [3.0]], "expected rows of one length"),
        (np.array([["1", "2"]]), "expected numbers, got text; encode"),
        ([["a", "b"]], "expected numbers, got text; encode"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), "expected numbers, got dates"),
        (np.array([[1j]]), "Complex data not supported"),
        (torch.tensor([[1j]]), "Complex data not supported"),
        (pd.DataFrame({"a": [1.0], "name": ["x"]}), "got text in column 'name'; encode"),
        (pd.DataFrame({"a": pd.Categorical(["x"])}), "got categories in column 'a'"),
        (pd.DataFrame({f"t{i}": ["x"] for i in range(5)}), r"got text in column 't0', 't1', 't2', \.\.\."),
        (np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]), r"got masked entries; fill them first"),
        (torch.zeros(2, 2, 2).to_sparse(), r"expected a sparse tensor \(n, p\), got shape \(2, 2, 2\)"),
        ("cells.h5ad", "expected an array, Tensor, DataFrame, sparse matrix or AnnData, got 'cells.h5ad'"),
        (None, "sparse matrix or AnnData, got None"),
    ],
)
def test_what_is_not_a_table_of_numbers_is_refused(bad: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        read_input(bad)


def test_too_few_rows_name_the_estimator() -> None:
    with pytest.raises(ValueError, match=r"1 sample\(s\) .*minimum of 2 is required by VAE"):
        read_input(np.zeros((1, 3)), minimum_rows=2, estimator="VAE")
