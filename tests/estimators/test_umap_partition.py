"""Maps with coordinates reserved for known quantities."""

import anndata
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness

import pullback as pb

QUICK = {"n_components": 3, "steps": 20, "encoder_kwargs": {"hidden_size": 32}, "random_state": 0}


@pytest.fixture(scope="module")
def X() -> np.ndarray:
    return load_digits().data[:600].astype("float32")


def total(x: torch.Tensor) -> torch.Tensor:
    return x.sum(1)


def made(**options) -> pb.ParametricUMAP:
    partition = options.pop("partition", pb.SubspacePartition({"total": total}))
    return pb.ParametricUMAP(**(QUICK | {"progress": False, "partition": partition} | options))


def test_one_axis_tells_the_quantity_and_the_map_beside_it_does_not(X) -> None:
    train, test = X[:420], X[420:]
    model = made(steps=250, encoder_kwargs=None).fit(train)
    assert model.partition_.loss.sizes == {"total": 1}
    table = model.evaluate_quantities(train, held_out=test, bootstraps=20)
    assert table.n_test == len(test)
    assert table.own["total"].value > 0.95
    assert table.free["total"].value < 0.05
    free = model.embedding_[:, 1:]
    plain = made(n_components=2, steps=250, encoder_kwargs=None, partition=None).fit(train)
    assert plain.partition_ is None
    quality = [trustworthiness(train, z, n_neighbors=15) for z in (free, plain.embedding_)]
    assert quality[0] > quality[1] - 0.01
    terms = {"cross_entropy", "partition/fit", "partition/leak", "partition/free", "fit/total", "free/total"}
    assert terms <= set(model.history_)
    read = model.quantities(test)["total"]
    assert np.corrcoef(read, test.sum(1))[0, 1] > 0.97


def test_reads_changes_erases_and_saves(X, tmp_path) -> None:
    model = made(decoder=True).fit(X)
    edited = model.edit(X[:4], total=300.0)
    assert edited.x.shape == (4, 64)
    assert edited.residual["total"].max() < 1e-2
    assert np.array_equal(edited.z[:, 1:], edited.before[:, 1:])
    clean = model.erase(model.embedding_, "total")
    assert abs(np.corrcoef(clean[:, 0], X.sum(1))[0, 1]) < 1e-3
    again = pb.load(model.save(tmp_path / "run"))
    assert np.array_equal(again.quantities(X)["total"], model.quantities(X)["total"])
    assert np.array_equal(again.edit(X[:4], total=300.0).x, edited.x)


@pytest.mark.parametrize("options", [{}, {"batch_size": 200}, {"nodes_per_step": 200}], ids=str)
def test_values_follow_their_rows(options, X) -> None:
    """Given values train the same bits as the function, whichever rows a step encodes."""
    first = made(**options).fit(X)
    given = made(**options, partition=pb.SubspacePartition({"total": None}))
    given.fit(X, quantities={"total": torch.from_numpy(X).sum(1)})
    assert np.array_equal(first.embedding_, given.embedding_)
    shuffled = made(**options, partition=pb.SubspacePartition({"total": None}))
    shuffled.fit(X, quantities={"total": torch.from_numpy(X).sum(1).flip(0)})
    assert not np.array_equal(first.embedding_, shuffled.embedding_)


def test_observations_and_categories(X) -> None:
    batch = np.where(np.arange(len(X)) % 2, "a", "b")
    data = anndata.AnnData(X, obs={"batch": batch})
    model = made(partition=pb.SubspacePartition({"batch": None})).fit(data)
    assert set(model.quantities(data)["batch"]) <= {"a", "b"}
    assert data.obsm["X_pullback"].shape == (len(X), 3)


def test_an_interrupted_fit_goes_on_to_the_same_bits(X, tmp_path) -> None:
    whole = made(steps=None, epochs=6).fit(X)
    made(steps=None, epochs=3, checkpoint_dir=tmp_path).fit(X)
    rest = made(steps=None, epochs=6, checkpoint_dir=tmp_path, resume=True).fit(X)
    assert np.array_equal(rest.embedding_, whole.embedding_)
    assert np.array_equal(rest.quantities(X)["total"], whole.quantities(X)["total"])
    other = made(steps=None, epochs=6, checkpoint_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="partition"):
        other.set_params(partition=pb.SubspacePartition({"total": total}, strength=9.0)).fit(X)


@pytest.mark.parametrize(
    ("options", "given", "error", "words"),
    [
        ({"partition": "total"}, None, TypeError, "partition: expected a pullback.SubspacePartition or None"),
        ({"partition": None}, {"total": np.ones(600)}, ValueError, "quantities: expected none without part"),
        ({"n_components": 1, "partition": pb.SubspacePartition({"two": lambda x: x[:, 20:22]})},
         None, ValueError, "n_components: expected room for .* n_components 1; n_components="),
        ({"partition": pb.SubspacePartition({"total": None})}, None, ValueError, "values for 'total'"),
        ({"partition": pb.SubspacePartition({"total": None})}, {"total": np.arange(7.0)}, ValueError,
         "expected 600 rows as in X, got 7"),
        ({"nodes_per_step": 2}, None, ValueError, "nodes_per_step: "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(options, given, error, words, X) -> None:
    with pytest.raises(error, match=words):
        made(**options).fit(X, quantities=given)


def test_what_a_map_cannot_do_says_why(X) -> None:
    model = made(steps=2).fit(X)
    with pytest.raises(ValueError, match="held_out: expected rows that the model has not seen"):
        model.evaluate_quantities(X)
    with pytest.raises(AttributeError, match="pass decoder=True"):
        model.edit(X[:2], total=1.0)
    with pytest.raises(ValueError, match="partition: expected a model fitted with partition="):
        made(steps=2, partition=None).fit(X).quantities(X)
