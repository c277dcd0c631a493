"""Models with a `SubspacePartition`: what they train, read, change, remove and save."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

import pullback as pb
from pullback.estimators.kinds import kind_of

TINY = {"hidden": (16,), "max_epochs": 2, "batch_size": 64, "progress": False, "random_state": 0}
MODELS = (pb.Autoencoder, pb.VAE, pb.HVAE, pb.RHVAE)


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(150, 6)).astype("float32")


def total(x: torch.Tensor) -> torch.Tensor:
    return x.sum(1)


def partition(**options) -> pb.SubspacePartition:
    return pb.SubspacePartition({"total": total, "first": None}, **options)


@pytest.mark.parametrize("cls", MODELS)
def test_every_model_reads_changes_erases_and_saves(cls, X, tmp_path) -> None:
    model = cls(4, **TINY, partition=partition()).fit(X, quantities={"first": X[:, :2]})
    sizes = {"total": 1, "first": 2}
    assert model.partition_.loss.sizes == sizes
    named = {f"{kind}/{q}" for kind in ("fit", "leak", "free") for q in sizes}
    terms = named | {"partition/fit", "partition/leak", "partition/free"}
    assert terms | {f"validation/{term}" for term in terms} <= set(model.history_)
    means = [np.mean([model.history_[f"fit/{q}"][-1] for q in sizes]), model.history_["partition/fit"][-1]]
    assert means[0] == pytest.approx(means[1], rel=1e-5)

    found = model.quantities(X)
    assert found["total"].shape == (150,)
    assert found["first"].shape == (150, 2)

    edited = model.edit(X[:5], total=2.5)
    assert np.asarray(edited).shape == (5, 6)
    assert edited.residual["total"].max() < 1e-4
    assert np.array_equal(edited.z[:, 1:], edited.before[:, 1:])
    assert np.allclose(edited.x, model.inverse_transform(edited.z))

    rows = model.training_index_
    clean = model.erase(model.embedding_, "total")[rows]
    cross = (clean - clean.mean(0)).T @ (X[rows].sum(1) - X[rows].sum(1).mean()) / len(rows)
    assert np.abs(cross).max() < 1e-3 * X[rows].sum(1).std() * model.embedding_.std()

    again = pb.load(model.save(tmp_path / "run"))
    for name, value in again.quantities(X).items():
        assert np.array_equal(value, found[name])
    assert np.array_equal(again.edit(X[:5], total=2.5).x, edited.x)
    assert np.array_equal(again.erase(model.embedding_, "total")[rows], clean)
    assert again.partition.get_params()["quantities"] == {"total": None, "first": None}


def test_a_function_and_its_values_train_the_same_bits(X) -> None:
    first = pb.Autoencoder(3, **TINY, partition=pb.SubspacePartition({"total": total})).fit(X)
    given = pb.Autoencoder(3, **TINY, partition=pb.SubspacePartition({"total": None}))
    given.fit(X, quantities={"total": torch.from_numpy(X).sum(1)})
    assert np.array_equal(first.embedding_, given.embedding_)
    assert "partition/fit" in first.history_


def test_images_reach_functions_as_images() -> None:
    images = np.random.default_rng(0).uniform(size=(60, 1, 5, 4)).astype("float32")
    seen = []

    def top(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape[1:]))
        return x[:, 0, 0].sum(1)

    model = pb.Autoencoder(2, **TINY, partition=pb.SubspacePartition({"top": top})).fit(images)
    assert set(seen) == {(1, 5, 4)}
    assert model.edit(images[:3], top=1.0).x.shape == (3, 1, 5, 4)


def test_columns_of_frames_and_of_observations(X, tmp_path, as_users_run) -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = pb.Autoencoder(3, **TINY, partition=pb.SubspacePartition({"b": None})).fit(frame)
    # what is known of the rows is no feature, in new rows no more than in those of the fit
    assert list(model.feature_names_in_) == list("acdef")
    rest = frame.drop(columns="b")
    other = pb.Autoencoder(3, **TINY, partition=pb.SubspacePartition({"b": None}))
    other.fit(rest, quantities={"b": X[:, 1]})
    assert np.array_equal(other.embedding_, model.embedding_)
    for rows in (frame, rest):
        assert np.array_equal(model.transform(rows), model.embedding_)
        assert model.edit(rows, b=1.0).x.shape == (150, 5)
    assert "b" in model.evaluate_quantities(frame, bootstraps=0).own
    # values given beside the rows leave its columns alone
    both = pb.Autoencoder(3, **TINY, partition=pb.SubspacePartition({"b": None}))
    assert list(both.fit(frame, quantities={"b": X[:, 1]}).feature_names_in_) == list("abcdef")
    assert np.array_equal(both.transform(frame), both.embedding_)

    frame["kind"] = np.where(np.arange(150) % 2, "odd", None)
    frame.loc[::4, "kind"] = "even"
    told = pb.Autoencoder(3, **TINY, partition=pb.SubspacePartition({"kind": None})).fit(frame)
    assert told.partition_.kinds["kind"].names == ("even", "odd")
    assert list(told.feature_names_in_) == list("abcdef")
    page = pb.report(told, frame, tmp_path / "page.html", n_geodesics=2)
    assert "Reserved coordinates" in page.read_text()
    with pytest.raises(ValueError, match="X: expected features beside the columns of quantities, got none"):
        told.fit(frame[["kind"]])
    with pytest.raises(TypeError, match="quantities: expected"):
        told.fit(frame, quantities=3)

    batch = np.where(np.arange(150) % 3, "late", "early").astype(object)
    batch[:9] = None
    cells = anndata.AnnData(X.copy(), obs=pd.DataFrame({"batch": batch}, index=[f"c{i}" for i in range(150)]))
    model = pb.Autoencoder(3, **TINY, partition=pb.SubspacePartition({"batch": None})).fit(cells)
    assert model.partition_.kinds["batch"].names == ("early", "late")
    assert set(model.quantities(cells)["batch"]) <= {"early", "late"}
    assert model.erase(model.embedding_, "batch").shape == (150, 3)


def test_categories_circles_and_gaps(X, tmp_path) -> None:
    rng = np.random.default_rng(1)
    month = rng.integers(0, 12, 150).astype(float)
    month[::10] = np.nan
    label = np.array([3, 1, 7])[rng.integers(0, 3, 150)]
    field = rng.normal(size=(150, 2, 3))
    field[5:20] = np.nan
    option = pb.SubspacePartition(
        dict.fromkeys(("month", "label", "field")),
        categorical=["label"],
        circular={"month": 12},
        sizes={"field": 1},
    )
    model = pb.VAE(7, **TINY, partition=option)
    model.fit(X, quantities={"field": field, "label": label, "month": month})
    assert model.partition_.loss.sizes == {"month": 2, "label": 2, "field": 1}
    found = model.quantities(X)
    assert found["field"].shape == (150, 2, 3)
    assert set(found["label"]) <= {1, 3, 7}
    assert ((found["month"] >= 0) & (found["month"] < 12)).all()
    edited = model.edit(X[:4], month=3, label=7)
    assert model.partition_.loss.predict(torch.from_numpy(edited.z))["label"].round().tolist() == [[0, 0]] * 4
    again = pb.load(model.save(tmp_path / "run"))
    assert np.array_equal(again.quantities(X)["label"], found["label"])
    assert np.array_equal(again.edit(X[:4], month=3).z, model.edit(X[:4], month=3).z)


def test_it_is_an_option_like_others(X) -> None:
    option = partition(sizes={"first": 1}, weights={"leak": 2.0})
    same = clone(option)
    assert same is not option
    assert same.get_params() == option.get_params()
    model = clone(pb.VAE(4, **TINY, partition=option))
    assert model.partition.weights == {"leak": 2.0}
    model.set_params(partition=pb.SubspacePartition({"total": total}))
    assert model.fit(X).partition_.loss.names == ("total",)


@pytest.mark.parametrize("rank", ["variance", "parallel", "gavish_donoho", "cv"])
def test_sizes_follow_the_data(X, rank: str) -> None:
    rng = np.random.default_rng(0)
    scores = X[:, :2] @ rng.normal(size=(2, 12)) + 1e-3 * rng.normal(size=(150, 12))
    option = pb.SubspacePartition({"field": None, "mass": None}, rank=rank)
    model = pb.Autoencoder(4, **TINY, partition=option)
    model.fit(X, quantities={"field": scores, "mass": X[:, 4]})
    assert model.partition_.loss.sizes == {"field": 2, "mass": 1}


def test_columns_of_any_units_count_alike(X) -> None:
    mixed = X[:, :2] * np.array([1e3, 1e-2]) + np.array([0.0, 5.0])
    model = pb.Autoencoder(4, **TINY, partition=pb.SubspacePartition({"mixed": None}))
    assert model.fit(X, quantities={"mixed": mixed}).partition_.loss.sizes == {"mixed": 2}
    doubled = np.concatenate([X[:, :2], X[:, :2]], axis=1)
    model.set_params(partition=pb.SubspacePartition({"doubled": None}, threshold=1.0))
    assert model.fit(X, quantities={"doubled": doubled}).partition_.loss.sizes == {"doubled": 2}


def test_half_precision_trains_with_solves_in_single(X) -> None:
    option = pb.SubspacePartition({"total": total})
    model = pb.Autoencoder(3, **TINY, partition=option, precision="bf16-mixed").fit(X)
    assert np.isfinite(model.history_["partition/fit"]).all()
    wide = pb.Autoencoder(3, **TINY, partition=option).fit(X.astype("float64"))
    assert wide.quantities(X.astype("float64"))["total"].dtype == np.float64


def test_held_out_rows_tell_what_is_where(X) -> None:
    model = pb.Autoencoder(
        4, **{**TINY, "max_epochs": 80}, lr=1e-2, validation_fraction=0.3, partition=partition()
    )
    model.fit(X, quantities={"first": X[:, 0]})
    table = model.evaluate_quantities(X, {"first": X[:, 0]}, bootstraps=50)
    assert table.n_train, table.n_test == (105, 45)
    assert table.own["total"].value > 0.9
    assert table.own["total"].low < table.own["total"].high
    assert table.sizes == {"total": 1, "first": 1}
    with pytest.raises(ValueError, match="expected values for 'first', got none"):
        model.evaluate_quantities(X)
    with pytest.raises(ValueError, match="expected the 150 rows of fit, got 149"):
        model.evaluate_quantities(X[1:], {"first": X[1:, 0]})
    model.set_params(validation_fraction=0.0, max_epochs=1).fit(X, quantities={"first": X[:, 0]})
    with pytest.raises(ValueError, match="held_out: expected rows that the model"):
        model.evaluate_quantities(X, {"first": X[:, 0]})


def test_a_fit_without_a_partition_has_none(X) -> None:
    model = pb.Autoencoder(2, **TINY).fit(X)
    assert model.partition_ is None
    with pytest.raises(ValueError, match=r"fitted with partition=pb\.SubspacePartition"):
        model.quantities(X)


def test_an_interrupted_fit_goes_on_to_the_same_bits(X, tmp_path) -> None:
    options = {**TINY, "max_epochs": 6, "validation_fraction": 0.0}
    whole = pb.Autoencoder(3, **options, partition=pb.SubspacePartition({"total": total})).fit(X)

    half = pb.Autoencoder(3, **options, partition=pb.SubspacePartition({"total": total}))
    half.set_params(checkpoint_dir=tmp_path, max_epochs=3)
    half.fit(X)
    half.set_params(resume=True, max_epochs=6).fit(X)
    assert half.n_epochs_ == 6
    assert np.array_equal(half.embedding_, whole.embedding_)
    assert half.history_ == whole.history_
    other = clone(half).set_params(partition=pb.SubspacePartition({"total": lambda x: x[:, 0]}))
    with pytest.raises(ValueError, match="belongs to another run, which differs in partition"):
        other.fit(X)


def test_kinds_return_what_they_were_given() -> None:
    words = np.array(["b", "a", "c", "a"], dtype=object)
    kind = kind_of("q", words)
    assert kind.width == 2
    assert list(kind.values(kind.columns("q", words))) == list(words)
    assert kind.columns("q", "b").tolist() == [[0.0, 1.0]]
    kind = kind_of("q", [True, False])
    assert list(kind.values(kind.columns("q", [True, False]))) == [True, False]
    kind = kind_of("q", [0.0, 5.0, 11.0], period=12)
    assert np.allclose(kind.values(kind.columns("q", [0.5, 5.0, 13.0])), [0.5, 5.0, 1.0])
    kind = kind_of("q", [1, None, 3])
    assert np.isnan(kind.columns("q", [1, None, 3])[1, 0])


REFUSED = [
    (partition(), {}, ValueError, "quantities: expected values for 'first', got none"),
    (partition(), {"first": np.zeros(150)}, ValueError, "quantity 'first' is constant: k = 0"),
    (partition(), {"first": np.full(150, np.nan)}, ValueError, "expected a value in some training row"),
    (partition(), {"first": np.full(150, np.inf)}, ValueError, "got infinity"),
    (partition(), {"first": np.ones(9)}, ValueError, r"expected 150 rows as in X, got 9"),
    (partition(), {"first": [["a"], ["b"]]}, ValueError, "one category a row"),
    (partition(), {"first": ["a"] * 150}, ValueError, "two or more categories"),
    (partition(), {"frist": np.ones(150)}, ValueError, "quantities: .* extra 'frist'"),
    (partition(), {"total": np.ones(150)}, ValueError, "no values for 'total', which the partition computes"),
    (partition(sizes={"totl": 1}), {}, ValueError, "sizes: .* extra 'totl'"),
    (partition(sizes={"first": 2}), {"first": "column"}, ValueError, "k=2 but rank of 'first' is 1"),
    (partition(sizes={"first": 0}), {"first": "column"}, ValueError, r"sizes\['first'\]: expected a whole"),
    (partition(circular={"first": -1.0}), {}, ValueError, r"circular\['first'\]: expected a finite"),
    (partition(categorical="first"), {}, TypeError, "categorical: expected names"),
    (partition(strength=-1.0), {}, ValueError, "strength: expected a finite number >= 0"),
    (partition(rank="aic"), {}, ValueError, "rank: expected one of"),
    (partition(weights={"fits": 1}), {"first": "column"}, ValueError, "weights: .* extra 'fits'"),
    (pb.SubspacePartition({}), {}, ValueError, "quantities: expected at least one"),
    (pb.SubspacePartition({"a": 3}), {}, TypeError, r"expected a function of the rows or None, got int"),
    (pb.SubspacePartition({"a": lambda x: x.sum()}), {}, ValueError, "to as many values, got shape"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[3])
def test_what_cannot_be_is_refused(case, X) -> None:
    option, values, error, message = case
    given = {name: X[:, 0] if isinstance(value, str) else value for name, value in values.items()}
    with pytest.raises(error, match=message):
        pb.Autoencoder(5, **TINY, partition=option).fit(X, quantities=given or None)


def test_more_coordinates_than_there_are_are_refused(X) -> None:
    model = pb.Autoencoder(2, **TINY, partition=partition())
    with pytest.raises(ValueError, match=r"sum of sizes 3 > latent_dim 2; latent_dim=5 leaves"):
        model.fit(X, quantities={"first": X[:, :2]})


def test_small_batches_are_refused_before_training(X) -> None:
    option = pb.SubspacePartition({"total": total})
    with pytest.raises(ValueError, match="batch_size: the free dimensions of size 7 needs at least"):
        pb.Autoencoder(8, **{**TINY, "batch_size": 8}, partition=option).fit(X)
    with pytest.raises(ValueError, match="validation_fraction: the free dimensions of size 7"):
        pb.Autoencoder(8, **TINY, validation_fraction=0.05, partition=option).fit(X)


def test_edits_and_erasures_that_cannot_be(X) -> None:
    model = pb.Autoencoder(3, **TINY, partition=pb.SubspacePartition({"total": total})).fit(X)
    for call, message in (
        (lambda: model.edit(X), "values: expected some of 'total', got none"),
        (lambda: model.edit(X, mass=1.0), "mass: expected one of 'total'"),
        (lambda: model.edit(X, total=[1.0, 2.0]), "expected one value or 150, got 2"),
        (lambda: model.erase(model.embedding_), "names: expected some of 'total'"),
        (lambda: model.erase(model.embedding_, "mass"), "mass: expected one of 'total'"),
        (lambda: model.erase(X, "total"), r"Z: expected \(n, 3\), got \(150, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("dtype", [object, "boolean", bool])
def test_truth_values_are_categories_with_gaps_and_without(X, dtype) -> None:
    flag = pd.Series(X[:, 0] > 0, dtype=dtype)
    if dtype is not bool:
        flag[::5] = None
    assert kind_of("flag", flag).config() == {"kind": "categorical", "names": [False, True]}
    model = pb.Autoencoder(3, **TINY, partition=pb.SubspacePartition({"flag": None}))
    model.fit(X, quantities={"flag": flag})
    assert set(model.quantities(X)["flag"].tolist()) <= {True, False}
