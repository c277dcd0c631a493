import gzip
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr

from pullback.data import DataError, read_table

CELLS = "id,kind,a,b\ns1,T,1.5,2\ns2,B,2.5,3\ns3,T,3.5,4\n"


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file of the given name; return its path."""

    def writer(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writer


# Delimited text


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("cells.csv", str.encode),
        ("cells.tsv", lambda text: text.replace(",", "\t").encode()),
        ("cells.csv.gz", lambda text: gzip.compress(text.encode())),
        ("CELLS.TSV.GZ", lambda text: gzip.compress(text.replace(",", "\t").encode())),
    ],
)
def test_text_with_label_and_id(write, name, encode):
    path = write(name, encode(CELLS))
    table = read_table(path, id="id", label="kind")
    assert table.X.tolist() == [[1.5, 2], [2.5, 3], [3.5, 4]]
    assert table.X.dtype == np.float64
    assert table.y.tolist() == ["T", "B", "T"]
    assert table.samples.tolist() == ["s1", "s2", "s3"]
    assert table.features.tolist() == ["a", "b"]
    assert table.name.lower() == "cells"
    assert table.source == str(path)


def test_columns_can_be_dropped_or_kept_beside(write):
    table = read_table(write("c.csv", CELLS), id="id", drop="b", extra=["kind"])
    assert table.features.tolist() == ["a"]
    assert table.extra["kind"].tolist() == ["T", "B", "T"]
    assert table.y is None


def test_nameless_first_column_names_the_rows(write):
    table = read_table(write("c.csv", ",a\nr1,1\nr2,2\n"))
    assert table.samples.tolist() == ["r1", "r2"]
    assert table.X.tolist() == [[1], [2]]


def test_numbers_as_header(write, as_users_run):
    path = write("c.csv", "5,3,3\n1,0,2\n")
    with pytest.raises(DataError, match="first row holds only numbers"):
        read_table(path)
    assert read_table(path, header=False).X.tolist() == [[5, 3, 3], [1, 0, 2]]
    years = write("y.csv", "1990,1991\n1,2\n")
    assert read_table(years, header=True).features.tolist() == ["1990", "1991"]
    assert read_table(write("p.csv", "0,1\n7,8\n")).X.tolist() == [[7, 8]]


def test_separator(write):
    path = write("c.csv", "a;b\n1;2\n")
    assert read_table(path, separator=";").X.tolist() == [[1, 2]]
    with pytest.raises(DataError, match="separator=';'"):
        read_table(path)
    with pytest.raises(ValueError, match="separator: expected one character"):
        read_table(path, separator="::")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "not readable"),
        ("a,b\n", "no rows"),
        ("a,b\n1,2\n3\n", r"Row #3: Expected 2 columns, got 1"),
        ("a,b\n1,2\n3,4,5\n", r"Row #3: Expected 2 columns, got 3"),
        ("a,b,a\n1,2,3\n", "column 'a' occurs more than once"),
        ("a,\n1,2\n", "column 1 has no name"),
        (",a,\n1,2,3\n", "column 1 has no name"),
        ("a,b\nx,y\n", "column 'a': expected numbers, got 'x' at row 0"),
        ("a,b\n1,\n2,\n", "column 'b': no value in any row"),
        ("a,b\n1,2\n,4\n5,\n", r"column 'a': no value at row 1 \(from 0\), 2 missing in 2 columns"),
        ("a,b\n1,2\n3,inf\n", r"column 'b': expected finite numbers, got inf at row 1"),
        ("a,b\n1,2020-01-31\n", "column 'b': expected numbers, got datetime.date"),
        ("a\n\ud800", "UTF-8"),
    ],
)
def test_bad_text_is_named(tmp_path, text, message):
    path = tmp_path / "c.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=message) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))


def test_header_that_is_no_text(write):
    with pytest.raises(DataError, match=r"not readable|UTF-8"):
        read_table(write("c.csv", b"\xff\xfe,b\n1,2\n"))


def test_truncated_gzip(write):
    with pytest.raises(DataError, match="not readable"):
        read_table(write("c.csv.gz", gzip.compress(CELLS.encode() * 100)[:60]))


# Missing values and categories


def test_missing_values_on_request(write):
    path = write("c.csv", "k,a,b\nu,1,2\nv,,4\nw,5,9\n")
    assert read_table(path, label="k", missing="mean").X.tolist() == [[1, 2], [3, 4], [5, 9]]
    assert read_table(path, label="k", missing="median").X[1, 0] == 3
    dropped = read_table(path, id="k", label="k", missing="drop")
    assert dropped.X.tolist() == [[1, 2], [5, 9]]
    assert dropped.y.tolist() == dropped.samples.tolist() == ["u", "w"]


def test_every_row_with_a_gap(write):
    path = write("c.csv", "a,b\n1,\n,2\n")
    with pytest.raises(DataError, match="no row without a gap is left"):
        read_table(path, missing="drop")


@pytest.mark.parametrize("argument", ["label", "id"])
def test_labels_are_never_imputed(write, argument):
    path = write("c.csv", "k,a\nu,1\n,2\n")
    with pytest.raises(DataError, match=f"{argument} 'k': no value at row 1"):
        read_table(path, missing="mean", **{argument: "k"})
    assert read_table(path, missing="drop", **{argument: "k"}).X.tolist() == [[1]]


def test_onehot(write):
    path = write("c.csv", "colour,a,flag\nred,1,true\nblue,2,false\n,3,true\n")
    with pytest.raises(DataError, match="column 'colour': expected numbers, got 'red' at row 0"):
        read_table(path)
    with pytest.raises(DataError, match="column 'colour=blue': no value at row 2"):
        read_table(path, categorical="onehot")
    table = read_table(path, categorical="onehot", missing="mean")
    assert table.features.tolist() == ["colour=blue", "colour=red", "a", "flag"]
    assert table.X.tolist() == [[0, 1, 1, 1], [1, 0, 2, 0], [0.5, 0.5, 3, 1]]


def test_onehot_refuses_an_id(write):
    rows = "\n".join(f"barcode{i},{i}" for i in range(1001))
    with pytest.raises(DataError, match="1001 categories; pass id='cell'"):
        read_table(write("c.csv", f"cell,a\n{rows}\n"), categorical="onehot")


def test_truth_values_with_gaps(write):
    path = write("c.csv", "a,flag\n1,true\n2,\n3,false\n")
    assert read_table(path, missing="mean").X[:, 1].tolist() == [1, 0.5, 0]


@pytest.mark.parametrize("missing", ["mean", "median", "drop"])
def test_float32_stays(tmp_path, missing):
    path = tmp_path / "c.parquet"
    pd.DataFrame({"a": [1, np.nan, 3], "b": [1, 2, 3]}, dtype=np.float32).to_parquet(path)
    assert read_table(path, missing=missing).X.dtype == np.float32


# Parquet


def test_parquet_with_index_and_types(tmp_path):
    path = tmp_path / "c.parquet"
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "single": pd.array([1.5, 2.5, None], dtype="Float32"),
            "truth": [True, False, True],
            "group": pd.Categorical(["u", "v", "u"]),
        },
        index=["r1", "r2", "r3"],
    )
    frame.to_parquet(path)
    table = read_table(path, label="group", missing="mean")
    assert table.samples.tolist() == ["r1", "r2", "r3"]
    assert table.y.tolist() == ["u", "v", "u"]
    assert table.X.tolist() == [[1, 1.5, 1], [2, 2.5, 0], [3, 2, 1]]


def test_parquet_whole_numbers_stay(tmp_path):
    path = tmp_path / "c.parquet"
    pd.DataFrame({"a": [1, 2], "b": [3, 4]}).to_parquet(path)
    assert read_table(path).X.dtype == np.int64


def test_parquet_with_two_levels_or_damage(tmp_path, write):
    path = tmp_path / "c.parquet"
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    pd.DataFrame({"x": [1.0, 2.0]}, index=index).to_parquet(path)
    with pytest.raises(DataError, match="expected one index, got 2 levels"):
        read_table(path)
    with pytest.raises(DataError, match="not readable as Parquet"):
        read_table(write("d.parquet", path.read_bytes()[:-20]))


# NumPy


@pytest.mark.parametrize("kind", ["f4", "f8", ">f4", "u1", "i8"])
def test_npy_keeps_numbers(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.arange(6, dtype=kind).reshape(2, 3))
    table = read_table(tmp_path / "a.npy")
    assert table.X.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert table.X.dtype == np.dtype(kind).newbyteorder("=")
    assert table.X.dtype.isnative
    assert table.features.tolist() == ["x1", "x2", "x3"]


@pytest.mark.parametrize(
    ("shape", "image"), [((5, 4, 6), (1, 4, 6)), ((5, 3, 4, 6), (3, 4, 6)), ((5, 1, 4, 4), (1, 4, 4))]
)
def test_images(tmp_path, shape, image):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.save(tmp_path / "a.npy", values)
    table = read_table(tmp_path / "a.npy")
    assert table.image_shape == image
    assert (values.reshape(5, -1) == table.X).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"expected an array \(n, p\), \(n, h, w\) or \(n, c, h, w\), got \(3,\)"),
        (np.zeros((2, 8, 8, 3)), r"expected images \(n, c, h, w\)"),
        (np.zeros((2, 2), dtype=complex), "real numbers, got an array of complex128"),
        (np.array([["a"]]), "real numbers, got an array of <U1"),
        (np.zeros((0, 2)), "no rows"),
        (np.zeros((2, 0)), "no numeric column"),
        (np.array([[1.0, np.nan]]), "column 'x2': no value"),
        (np.array([[1.0, np.inf]]), "column 'x2': expected finite numbers"),
    ],
)
def test_bad_arrays(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.npy")


def test_pickled_and_damaged_arrays_are_refused(tmp_path, write):
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    for path in (tmp_path / "a.npy", write("b.npy", b"nonsense"), write("c.npz", b"PK\x03\x04nonsense")):
        with pytest.raises(DataError, match="not readable as a NumPy file"):
            read_table(path)


def test_npy_columns_can_be_dropped(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.0, np.nan, 3.0], [4.0, np.nan, 6.0]]))
    table = read_table(tmp_path / "a.npy", drop="x2")
    assert table.X.tolist() == [[1, 3], [4, 6]]
    assert table.features.tolist() == ["x1", "x3"]


def test_npz_by_key(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.eye(3), y=np.array(["u", "v", "w"]), depth=np.arange(3))
    np.savez(tmp_path / "b.npz", X=np.eye(3), onehot=np.eye(3))
    table = read_table(path, key="X", label="y")
    assert (np.eye(3) == table.X).all()
    assert table.y.tolist() == ["u", "v", "w"]
    assert table.extra["depth"].tolist() == [0, 1, 2]
    assert read_table(path, label="y", extra="depth").X.shape == (3, 3)
    with pytest.raises(ValueError, match=r"key: expected the name of one array of a\.npz: 'X', 'y', 'depth'"):
        read_table(path)
    with pytest.raises(ValueError, match="key: expected one of 'X', 'y', 'depth', got 'Z'"):
        read_table(path, key="Z")
    with pytest.raises(ValueError, match="label: no array 'Y'; did you mean 'y'"):
        read_table(path, key="X", label="Y")
    with pytest.raises(DataError, match=r"label 'onehot': expected 3 entries, got shape \(3, 3\)"):
        read_table(tmp_path / "b.npz", label="onehot")


def test_npz_drops_rows_everywhere(tmp_path):
    np.savez(tmp_path / "a.npz", X=[[1.0], [np.nan]], y=[3, 4], names=["only"])
    table = read_table(tmp_path / "a.npz", key="X", label="y", missing="drop")
    assert table.y.tolist() == [3]
    assert table.extra["names"].tolist() == ["only"]


# AnnData and Zarr


def words(*text):
    """Strings as objects: anndata does not write every string type of pandas."""
    return pd.Index(text, dtype=object)


def cells(matrix):
    return anndata.AnnData(
        X=matrix,
        obs=pd.DataFrame(
            {"type": pd.Categorical(words("T", "B", "T")), "depth": [5, 6, 7]}, index=words("s1", "s2", "s3")
        ),
        var=pd.DataFrame(index=words("g1", "g2")),
        layers={"counts": matrix * 2},
    )


MATRIX = np.array([[0, 1], [2, 0], [0, 3]], dtype=np.float32)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix])
def test_anndata(tmp_path, suffix, form):
    path = tmp_path / f"cells.{suffix}"
    getattr(cells(form(MATRIX)), f"write_{suffix}")(path)
    table = read_table(path, label="type", drop="g1")
    assert table.X.tolist() == [[1], [0], [3]]
    assert table.X.dtype == np.float32
    assert table.y.tolist() == ["T", "B", "T"]
    assert table.samples.tolist() == ["s1", "s2", "s3"]
    assert table.features.tolist() == ["g2"]
    assert table.extra["depth"].tolist() == [5, 6, 7]
    assert (read_table(path, layer="counts").X == 2 * MATRIX).all()
    with pytest.raises(
        ValueError, match=r"layer: expected one of those of cells\.\w+ \('counts'\), got 'raw'"
    ):
        read_table(path, layer="raw")
    with pytest.raises(ValueError, match="label: no obs column 'types'; did you mean 'type'"):
        read_table(path, label="types")
    with pytest.raises(ValueError, match="drop: no feature 'G3'; there are 'g1', 'g2'"):
        read_table(path, drop=["G3"])


def test_anndata_without_matrix_or_with_twin_genes(tmp_path):
    table = cells(MATRIX)
    table.X = None
    table.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match="has no X; pass layer, one of 'counts'"):
        read_table(tmp_path / "a.h5ad")
    table = cells(MATRIX)
    table.var_names = words("g", "g")
    table.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(DataError, match=r"'g' occurs more than once; .*var_names_make_unique"):
        read_table(tmp_path / "b.h5ad")


def test_damaged_h5ad(write):
    with pytest.raises(DataError, match=r"not readable as \.h5ad"):
        read_table(write("a.h5ad", b"nonsense"))


def test_zarr_arrays(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    zarr.save_array(tmp_path / "a.zarr", values)
    assert read_table(tmp_path / "a.zarr").image_shape == (1, 3, 4)
    zarr.save_group(tmp_path / "b.zarr", X=values, y=np.array([1, 2]))
    table = read_table(tmp_path / "b.zarr", key="X", label="y")
    assert table.y.tolist() == [1, 2]
    assert (values.reshape(2, -1) == table.X).all()
    with pytest.raises(ValueError, match="key: expected the name of one array"):
        read_table(tmp_path / "b.zarr")
    with pytest.raises(ValueError, match=r"layer: b\.zarr is no AnnData store"):
        read_table(tmp_path / "b.zarr", layer="counts")
    (tmp_path / "c.zarr").mkdir()
    with pytest.raises(DataError, match="not a Zarr array or group"):
        read_table(tmp_path / "c.zarr")


@pytest.mark.parametrize(("suffix", "module"), [("h5ad", "anndata"), ("zarr", "zarr")])
def test_missing_extra_gives_its_install_line(tmp_path, monkeypatch, suffix, module):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'needs \w+; pip install "pullback\[bio\]"'):
        read_table(path)


# Paths, names and options


def test_paths(tmp_path, write):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv: no such file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match=r"ends in \.csv \.csv\.gz \.tsv .* \.zarr, got 'a\.xlsx'"):
        read_table(write("a.xlsx", "x"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError, match="expected a file, got a folder"):
        read_table(tmp_path / "folder.csv")


@pytest.mark.parametrize("argument", ["label", "id", "drop", "extra"])
def test_unknown_columns_list_close_names(write, argument):
    path = write("c.csv", CELLS)
    with pytest.raises(ValueError, match=f"{argument}: no column 'Kinds'; did you mean 'kind'"):
        read_table(path, **{argument: "Kinds"})
    with pytest.raises(ValueError, match=f"{argument}: no column 'qqq'; there are 'id', 'kind', 'a', 'b'"):
        read_table(path, **{argument: "qqq"})


def test_nothing_left_to_learn_from(write):
    with pytest.raises(DataError, match="no numeric column is left"):
        read_table(write("c.csv", "id,kind\n1,u\n"), id="id", label="kind")


def test_options_of_other_formats_are_refused(write, tmp_path):
    np.save(tmp_path / "a.npy", np.eye(2))
    with pytest.raises(ValueError, match=r"layer: only for \.h5ad, \.zarr, got it for c\.csv"):
        read_table(write("c.csv", CELLS), layer="counts")
    with pytest.raises(ValueError, match=r"key: only for \.npz, \.zarr"):
        read_table(tmp_path / "a.npy", key="X")
    with pytest.raises(ValueError, match="label: this file has no named arrays, got 'y'"):
        read_table(tmp_path / "a.npy", label="y")
    with pytest.raises(ValueError, match="drop: no feature 'y'; there are 'x1', 'x2'"):
        read_table(tmp_path / "a.npy", drop="y")


def test_choices(write, as_users_run):
    with pytest.raises(
        ValueError, match="missing: expected one of 'error', 'drop', 'mean', 'median', got 'zero'"
    ):
        read_table(write("c.csv", CELLS), missing="zero")
    with pytest.raises(ValueError, match="categorical: expected one of"):
        read_table(write("c.csv", CELLS), categorical="ordinal")


def test_gaps_beside_the_features_stay_gaps(write):
    text = "a,b,batch,flag,count\n1,2,x,True,3\n3,4,,,\n5,6,y,False,4\n"
    table = read_table(write("c.csv", text), extra=["batch", "flag", "count"])
    assert table.features.tolist() == ["a", "b"]
    assert table.extra["batch"].tolist() == ["x", None, "y"]
    assert table.extra["flag"].tolist() == [True, None, False]
    np.testing.assert_array_equal(table.extra["count"], [3, np.nan, 4])
    kept = read_table(write("c.csv", text), label="batch", extra=["flag", "count"], missing="drop")
    assert kept.y.tolist() == ["x", "y"]
    assert kept.y.dtype.kind == "U"
    assert kept.extra["flag"].tolist() == [True, False]


def test_gaps_of_typed_columns_stay_gaps(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    frame["word"] = pd.Series(["x", pd.NA, "y"], dtype="string")
    frame["flag"] = pd.Series([True, pd.NA, False], dtype="boolean")
    frame["kind"] = pd.Categorical(["u", None, "v"])
    frame["count"] = pd.Series([1, pd.NA, 2], dtype="Int64")
    frame.to_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet", extra=["word", "flag", "kind", "count"]).extra
    assert found["word"].tolist() == ["x", None, "y"]
    assert found["kind"].tolist() == ["u", None, "v"]
    assert found["flag"].tolist() == [True, None, False]
    np.testing.assert_array_equal(found["count"], [1, np.nan, 2])


def test_new_rows_need_no_more_than_the_features(write):
    options = {"id": "id", "label": "kind", "drop": ["b", "c"], "extra": ["d"]}
    new = write("new.csv", "a,b\n1,2\n3,4\n")
    table = read_table(new, **options, absent="ignore")
    assert table.features.tolist() == ["a"]
    assert table.y is None
    assert table.extra == {}
    with pytest.raises(ValueError, match="label: no column 'kind'"):
        read_table(new, **options)


def test_features_without_names_are_dropped_from_new_rows_too(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", X=array)
    for name in ("a.npy", "a.npz"):
        whole = read_table(tmp_path / name).features.tolist()
        for absent in ("error", "ignore"):
            table = read_table(tmp_path / name, drop=[whole[2]], absent=absent)
            np.testing.assert_array_equal(table.X, np.delete(array, 2, axis=1))
