import gzip
import hashlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pullback.data import (
    DataError,
    DatasetNotInstalled,
    available,
    describe,
    install_line,
    load,
    resolve,
)
from pullback.data.sets import SETS, hsmm, mnist_5k, pbmc68k

ROOT = Path(__file__).parents[2]
BUNDLED = {
    "digits": (1797, 64, 10, 174, 183),
    "wine": (178, 13, 3, 48, 71),
    "breast_cancer": (569, 30, 2, 212, 357),
    "iris": (150, 4, 3, 50, 50),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets(name):
    rows, columns, classes, smallest, largest = BUNDLED[name]
    dataset = load(name)
    counts = Counter(dataset.y.tolist()).values()
    assert dataset.X.shape == (rows, columns)
    assert dataset.X.dtype == np.float64
    assert (len(counts), min(counts), max(counts)) == (classes, smallest, largest)
    assert len(set(dataset.features)) == columns
    assert dataset.name == name
    assert "BSD-3" in dataset.licence
    assert "scikit-learn" in dataset.source


def test_digits_are_images_of_sixteen_greys():
    dataset = load("digits")
    assert dataset.image_shape == (1, 8, 8)
    assert (dataset.X.min(), dataset.X.max()) == (0, 16)


def test_labels_are_the_names_of_the_classes():
    assert set(load("iris").y) == {"setosa", "versicolor", "virginica"}
    assert set(load("digits").y) == set(range(10))


@pytest.mark.data("mnist_5k")
def test_mnist_5k():
    dataset = load("mnist_5k", strict=True)
    assert dataset.X.shape == (5000, 784)
    assert dataset.X.dtype == np.float64
    assert (dataset.X.min(), dataset.X.max()) == (0, 255)
    assert Counter(dataset.y.tolist()) == dict.fromkeys(range(10), 500)
    assert (np.diff(dataset.y) >= 0).all()
    assert dataset.image_shape == (1, 28, 28)


@pytest.mark.data("mnist_5k")
def test_mnist_5k_truncated(tmp_path, monkeypatch):
    _copy_truncated(mnist_5k.TABLE, tmp_path, monkeypatch)
    with pytest.raises(DataError, match=r"mnist_5k.csv.gz: expected 1106785 bytes, found 1000; reinstall"):
        load("mnist_5k")


@pytest.mark.data("pbmc68k")
def test_pbmc68k_counts():
    dataset = load("pbmc68k", strict=True)
    assert dataset.X.shape == (700, 765)
    assert dataset.X.dtype == np.float32
    assert dataset.X.sum(dtype=np.float64) == 486651
    assert dataset.X.max() == 259
    assert (dataset.X == 0).mean() == pytest.approx(0.674, abs=5e-4)
    assert (np.round(dataset.X) == dataset.X).all()
    library = dataset.extra["library"]
    assert (library == dataset.X.sum(axis=1)).all()
    assert (library.min(), library.max()) == (342, 1654)
    assert (dataset.extra["n_counts"].min(), dataset.extra["n_counts"].max()) == (2141, 9497)
    counts = Counter(dataset.y.tolist())
    assert (len(counts), min(counts.values()), max(counts.values())) == (10, 8, 240)
    assert counts["Dendritic"] == 240
    assert len(set(dataset.extra["louvain"])) == 11
    assert "HES4" in dataset.features
    assert dataset.samples[0] == "AAAGCCTGGCTAAC-1"


@pytest.mark.data("pbmc68k")
def test_pbmc68k_layers():
    scaled, log, counts = (load("pbmc68k", layer=layer) for layer in ("scaled", "log", "counts"))
    assert scaled.X.min() == pytest.approx(-2.03, abs=5e-3)
    assert scaled.X.max() == pytest.approx(28.4, abs=0.05)
    rates = counts.X / counts.extra["n_counts"][:, None] * 1e4
    assert np.abs(np.log1p(rates) - log.X).max() < 1e-3
    with pytest.raises(ValueError, match="layer: expected one of 'counts', 'log', 'scaled', got 'raw'"):
        load("pbmc68k", layer="raw")


@pytest.mark.data("pbmc68k")
def test_pbmc68k_truncated(tmp_path, monkeypatch):
    _copy_truncated(pbmc68k.CELLS, tmp_path, monkeypatch)
    with pytest.raises(DataError, match=r"10x_pbmc68k_reduced.h5ad: expected 1772368 bytes, found 1000"):
        load("pbmc68k")


@pytest.mark.data("hsmm")
def test_hsmm():
    dataset = load("hsmm", strict=True)
    assert dataset.X.shape == (271, 47192)
    assert dataset.X.dtype == np.float64
    assert dataset.X.max() == pytest.approx(47677.1)
    assert (dataset.X == 0).mean() == pytest.approx(0.842, abs=5e-4)
    assert (np.round(dataset.X) != dataset.X).any()
    assert Counter(dataset.y.tolist()) == {0: 69, 24: 74, 48: 79, 72: 49}
    assert Counter(dataset.extra["state"].tolist()) == {1: 99, 2: 129, 3: 43}
    assert ((dataset.extra["media"] == "GM") == (dataset.y == 0)).all()
    pseudotime = dataset.extra["pseudotime"]
    assert pseudotime.min() == 0
    assert pseudotime.max() == pytest.approx(76.65, abs=5e-3)
    assert dataset.samples[0] == "T0_CT_A01"
    assert len(set(dataset.features)) == 47192
    names = dataset.extra["gene_names"]
    assert len(names) == 47192
    assert names[np.flatnonzero(dataset.features == "ENSG00000000003.10")] == "TSPAN6"
    # myosin, of muscle fibres, comes late; a cyclin, of dividing cells, fades
    means = {name: dataset.X[:, names == name].mean(axis=1) for name in ("MYH3", "CCNB1")}
    assert means["MYH3"][dataset.y == 72].mean() > 5 * means["MYH3"][dataset.y == 0].mean()
    assert means["CCNB1"][dataset.y == 72].mean() < means["CCNB1"][dataset.y == 0].mean()


@pytest.mark.slow
@pytest.mark.data("hsmm")
def test_hsmm_genes_and_layers():
    everything, expressed = load("hsmm"), load("hsmm", genes="expressed")
    assert expressed.X.shape == (271, 16725)
    log = load("hsmm", layer="log", genes=2000)
    assert log.X.shape == (271, 2000)
    assert len(log.extra["gene_names"]) == len(log.extra["biotypes"]) == 2000
    columns = np.flatnonzero(np.isin(everything.features, log.features))
    assert (everything.features[columns] == log.features).all()
    assert (np.log1p(everything.X[:, columns]) == log.X).all()
    others = np.log1p(expressed.X[:, ~np.isin(expressed.features, log.features)])
    assert others.var(axis=0).max() <= log.X.var(axis=0).min()
    with pytest.raises(ValueError, match="layer: expected one of 'fpkm', 'log', got 'counts'"):
        load("hsmm", layer="counts")


@pytest.mark.data("hsmm")
@pytest.mark.parametrize("file", hsmm.SET.files, ids=lambda file: file.label)
def test_hsmm_truncated(file, tmp_path, monkeypatch):
    for other in hsmm.SET.files:
        target = tmp_path / other.path
        target.parent.mkdir(parents=True, exist_ok=True)
        content = other.find().read_bytes()
        target.write_bytes(content[:1000] if other is file else content)
    monkeypatch.setenv("PULLBACK_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"{file.label}: expected {file.size} bytes, found 1000; reinstall"):
        load("hsmm")


def test_genes_are_chosen_by_expression_and_variance(as_users_run):
    fpkm = np.random.default_rng(0).gamma(0.2, 5.0, size=(40, 6))
    fpkm[:, 1] = 0.05
    fpkm[9:, 3] = 0
    fpkm[:, 4] *= 100
    assert hsmm.choose_genes(fpkm, "all").tolist() == [0, 1, 2, 3, 4, 5]
    expressed = hsmm.choose_genes(fpkm, "expressed")
    assert expressed.tolist() == [0, 2, 4, 5]
    assert hsmm.choose_genes(fpkm, 1).tolist() == [4]
    assert hsmm.choose_genes(fpkm, np.int64(4)).tolist() == expressed.tolist()
    equal = np.tile([[0.0], [1.0]], (20, 3))
    assert hsmm.choose_genes(equal, 2).tolist() == [0, 1]
    for wrong in (0, 5, True, 2.0, None):
        with pytest.raises(ValueError, match="genes: expected 'all', 'expressed' or a number from 1 to 4"):
            hsmm.choose_genes(fpkm, wrong)
    with pytest.raises(ValueError, match="genes: expected one of 'all', 'expressed', got 'some'"):
        hsmm.choose_genes(fpkm, "some")


def _copy_truncated(file, folder, monkeypatch):
    target = folder / file.path
    target.parent.mkdir(parents=True)
    target.write_bytes(file.find().read_bytes()[:1000])
    monkeypatch.setattr(type(file), "_folders", lambda self: [folder])


def test_counts_come_back_from_rounded_logarithms():
    generator = np.random.default_rng(0)
    counts = generator.poisson(3.0, size=(20, 30))
    totals = generator.integers(2000, 9000, size=20)
    log = np.round(np.log1p(counts * 1e4 / totals[:, None]), 3).astype(np.float32)
    assert (pbmc68k.recover_counts(log, totals) == counts).all()
    with pytest.raises(DataError, match="from a whole number"):
        pbmc68k.recover_counts(log, totals * 1.3)


def test_table_of_other_shape_is_refused():
    with pytest.raises(DataError, match=r"expected pixels and label \(5000, 785\), found \(2, 2\)"):
        mnist_5k._parse(gzip.compress(b"1,2\n3,4\n"))


def test_absent_set_gives_its_install_line(monkeypatch):
    monkeypatch.setattr("pullback.data.carrier.find_spec", lambda name: None)
    assert available() == {name: name in BUNDLED for name in SETS}
    for name in ("mnist_5k", "pbmc68k", "hsmm"):
        with pytest.raises(DatasetNotInstalled) as caught:
            load(name)
        assert str(caught.value) == install_line(name)


def test_set_without_its_reader_counts_as_absent(monkeypatch):
    monkeypatch.setattr("pullback.data.carrier.CarrierFile.find", lambda self: Path("there"))
    monkeypatch.setattr("pullback.data.carrier.find_spec", lambda name: None)
    assert not available()["pbmc68k"]
    assert available()["mnist_5k"]


def test_unknown_names_and_options_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"one of 'digits', .*'hsmm', got 'digit'; did you mean 'digits'"):
        load("digit")
    with pytest.raises(TypeError, match=r"pbmc68k: no option 'label'; options: layer"):
        load("pbmc68k", label="x")
    with pytest.raises(TypeError, match=r"hsmm: no option 'gene'; options: layer, genes"):
        load("hsmm", gene=3)
    with pytest.raises(TypeError, match="digits: no option 'layer'; it has none"):
        resolve("data:digits", layer="counts")


def test_describe_reads_no_data(monkeypatch):
    monkeypatch.setattr("pullback.data.carrier.CarrierFile.parse", lambda *_: pytest.fail("read"))
    for name in SETS:
        facts = describe(name)
        assert facts["installed"] == available()[name]
        assert all(facts[key] for key in ("content", "licence", "source", "install"))


def test_resolve_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("digits").name == "digits"
    assert resolve("data:digits", layer=None).name == "digits"
    Path("t.csv").write_text("a,b\n1,2\n")
    assert resolve("t.csv", label=None).X.tolist() == [[1, 2]]
    assert resolve(tmp_path / "t.csv", label="b").y.tolist() == [2]
    with pytest.raises(FileNotFoundError, match=r"neither a file \(\.csv .*\) nor a named set \(digits, "):
        resolve("digts")
    with pytest.raises(FileNotFoundError, match=r"u\.csv: no such file"):
        resolve("u.csv")
    with pytest.raises(ValueError, match="got 'nothing'"):
        resolve("data:nothing")


def test_an_existing_file_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("a\n1\n")
    with pytest.raises(ValueError, match=r"ends in \.csv"):
        resolve("digits")


def test_loading_imports_no_carrier():
    code = (
        "import sys, pullback.data as d\n"
        "[d.load(n) for n, there in d.available().items() if there]\n"
        "print([m for m in ('mlxtend', 'scanpy', 'anndata') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_versions_of_install_lines_are_pinned():
    pins = set(re.findall(r"^\S+==\S+", (ROOT / "constraints-data.txt").read_text(), re.MULTILINE))
    for name in SETS:
        assert set(re.findall(r"\S+==\S+", install_line(name))) <= pins


def test_no_data_in_the_repository():
    hashes = {file.sha256 for entry in SETS.values() for file in entry.files}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            assert path.stat().st_size < 1_000_000 or name.startswith("tests/golden/"), name
            assert hashlib.sha256(path.read_bytes()).hexdigest() not in hashes, name
