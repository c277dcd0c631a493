"""Parametric UMAP fits, maps new rows, explains, saves, stops and goes on; and says what is wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import trustworthiness
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from torch import nn

import pullback as pb
from pullback.models.umap import fuzzy_graph
from pullback.training.graph_batches import GraphRows

QUICK = {"epochs": 4, "progress": False, "random_state": 0, "encoder_kwargs": {"hidden_size": 16}}


def umap(n_components: int = 2, **options) -> pb.ParametricUMAP:
    return pb.ParametricUMAP(n_components, **(QUICK | options))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return load_iris().data


@pytest.fixture(scope="module")
def fitted(rows) -> pb.ParametricUMAP:
    return umap().fit(rows)


def test_attributes_after_fit(fitted, rows) -> None:
    assert fitted.embedding_.shape == (150, 2)
    assert fitted.embedding_.tolist() == fitted.transform(rows).tolist()
    assert fitted.n_steps_ == 4 * fitted.n_epochs_ == 16
    assert len(fitted.loss_history_) == fitted.n_epochs_ == 4
    assert fitted.loss_history_[-1] < fitted.loss_history_[0]
    assert fitted.graph_.shape == (150, 150)
    assert (fitted.graph_ != fuzzy_graph(rows)).nnz == 0
    assert (fitted.a_, fitted.b_) == pytest.approx((1.576943460, 0.895060878), rel=1e-6)
    assert fitted.mean_ == pytest.approx(rows.mean(axis=0))
    assert fitted.components_ is None
    assert fitted.verification_.passed
    assert fitted.verification_.pointwise_error <= 1e-12
    assert isinstance(fitted.encoder_, nn.Module)
    assert not fitted.encoder_.training
    assert fitted.message_.startswith("reached epochs=4")
    assert not hasattr(fitted, "score")


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_precision_follows_the_data(rows, kind) -> None:
    model = umap(epochs=1).fit(rows.astype(kind))
    wanted = np.float64 if kind is np.float64 else np.float32
    assert model.embedding_.dtype == model.transform(rows.astype(kind)).dtype == wanted
    assert model.compute_contributions(rows[:3]).dtype == wanted


def test_the_same_bits_by_random_state_and_no_global_draws(rows) -> None:
    ours, numpys = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    options = {"encoder_kwargs": {"hidden_size": 16, "dropout_rate": 0.2}, "decoder": True}
    first, second = (umap(**options).fit(rows) for _ in range(2))
    assert first.embedding_.tolist() == second.embedding_.tolist()
    assert first.history_ == second.history_
    assert umap(random_state=1).fit(rows).embedding_.tolist() != first.embedding_.tolist()
    assert torch.equal(ours, torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == numpys  # noqa: NPY002


def test_steps_end_a_fit_within_an_epoch(rows) -> None:
    model = umap(steps=6).fit(rows)
    assert (model.n_steps_, model.n_epochs_) == (6, 2)
    assert umap(num_batches=2).fit(rows).n_steps_ == 8


def test_jitter_is_measured_by_the_way_to_the_nearest_row(rows, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(GraphRows, "__post_init__", lambda source: seen.append(source.jitter))
    model = umap(jitter=0.5, epochs=1).fit(rows)
    assert umap(epochs=1).fit(rows).embedding_.tolist() != model.embedding_.tolist()
    x = (rows - model.mean_) / model.scale_
    way = np.sort(np.linalg.norm(x[:, None] - x[None], axis=2), axis=1)[:, 1]
    assert seen == [pytest.approx(0.5 * np.median(way[way > 0]) / x.shape[1] ** 0.5, rel=1e-4), 0.0]


def test_the_last_weights_where_the_best_are_not_wanted(rows) -> None:
    # with such steps the last epoch is rarely the best, but rounding decides which is
    tries = (umap(lr=0.5, epochs=12, random_state=seed).fit(rows) for seed in range(8))
    best = next(model for model in tries if model.best_epoch_ < 12)
    assert best.best_epoch_ == 1 + int(np.argmin(best.loss_history_))
    last = clone(best).set_params(restore_best_weights=False).fit(rows)
    assert best.embedding_.tolist() != last.embedding_.tolist()


# --- what goes in ---------------------------------------------------------------------------------------


def test_a_graph_made_elsewhere_and_distances() -> None:
    x = np.random.default_rng(0).normal(size=(80, 4))  # without ties
    plain, graph = umap().fit(x), fuzzy_graph(x)
    assert umap().fit(x, graph=graph).embedding_.tolist() == plain.embedding_.tolist()
    model = umap(metric="precomputed").fit(x, distances=cdist(x, x))
    assert abs(model.graph_ - graph).max() < 1e-9
    cosine = umap(metric="cosine").fit(x)
    assert abs(cosine.graph_ - fuzzy_graph(x, metric="cosine")).max() < 1e-9


def test_sparse_rows_and_principal_axes(rows) -> None:
    dense, thin = umap().fit(rows), umap().fit(sparse.csr_matrix(rows))
    assert np.abs(dense.embedding_ - thin.embedding_).max() < 1e-9
    model = umap(pca_components=2, standardize=True).fit(rows)
    assert model.components_.shape == (2, 4)
    assert np.abs(model.components_ @ model.components_.T - np.eye(2)).max() < 1e-12
    seen = (rows - model.mean_) / model.scale_ @ model.components_.T
    assert np.sqrt(np.mean(seen**2)) == pytest.approx(2, rel=0.01)
    with torch.no_grad():
        assert np.abs(model.encoder_(torch.from_numpy(seen)).numpy() - model.embedding_).max() < 1e-12
    again = umap(pca_components=2).fit(sparse.csr_matrix(rows))
    assert (
        np.abs(np.abs(again.components_) - np.abs(umap(pca_components=2).fit(rows).components_)).max() < 1e-6
    )


def test_images(rows) -> None:
    images = load_digits().images[:60, None].astype(np.float32)
    small = {"channels": (4,), "hidden": (8,)}
    model = umap(encoder_name="conv", encoder_kwargs=small, decoder=True, epochs=1).fit(images)
    assert model.transform(images[:3]).shape == (3, 2)
    assert model.inverse_transform(model.embedding_[:3]).shape == (3, 1, 8, 8)
    assert model.contributions(images[:2]).values.shape == (2, 2, 64)
    with pytest.raises(ValueError, match=r"pca_components: expected None for images \(1, 8, 8\), got 2"):
        umap(pca_components=2).fit(images)


def test_anndata_receives_the_embedding(rows) -> None:
    adata = anndata.AnnData(rows.astype(np.float32))
    adata.var_names = [f"gene{j}" for j in range(4)]
    model = umap(epochs=1).fit(adata)
    assert adata.obsm["X_pullback"].tolist() == model.embedding_.tolist()
    assert adata.uns["pullback"]["model"] == "ParametricUMAP"
    assert list(model.feature_names_in_) == list(adata.var_names)


def test_labels_draw_their_rows_together(rows) -> None:
    noisy = np.random.default_rng(0).normal(size=(150, 20))
    y = np.arange(150) % 3
    noisy[:, 0] += y
    options = {"epochs": 120, "encoder_kwargs": {"hidden_size": 64}}

    def accuracy(model) -> float:
        return cross_val_score(KNeighborsClassifier(5), model.embedding_, y, cv=5).mean()

    free, led = umap(**options).fit(noisy), umap(**options).fit(noisy, y)
    assert accuracy(free) < 0.6 < 0.9 < accuracy(led)
    assert umap(target_weight=0).fit(rows, y).embedding_.tolist() == umap().fit(rows).embedding_.tolist()
    unknown = umap().fit(rows, np.full(150, -1)).graph_
    assert abs(unknown - umap().fit(rows).graph_).max() < 0.7
    numbers = umap(epochs=1).fit(rows, rows[:, 0] + 0.5)
    assert (numbers.graph_ != fuzzy_graph(rows)).nnz > 0


# --- networks -------------------------------------------------------------------------------------------


def test_an_own_encoder_is_copied_and_never_changed(rows) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    before = {name: value.clone() for name, value in own.state_dict().items()}
    model = umap(encoder=own).fit(rows)
    assert all(torch.equal(before[name], value) for name, value in own.state_dict().items())
    assert model.verification_ is None  # not piecewise linear
    assert not torch.equal(model.encoder_[0].weight, own[0].weight)


def test_a_decoder_reads_the_embedding_and_does_not_shape_it(rows) -> None:
    alone, both = umap(restore_best_weights=False), umap(restore_best_weights=False, decoder=True)
    assert alone.fit(rows).embedding_.tolist() == both.fit(rows).embedding_.tolist()
    assert not hasattr(alone, "inverse_transform")
    with pytest.raises(AttributeError, match="no decoder; pass decoder=True"):
        alone.inverse_transform(rows)
    longer = umap(decoder=True, epochs=100).fit(rows)
    error = np.mean((longer.inverse_transform(longer.embedding_) - rows) ** 2)
    assert error < 0.15 * rows.var(axis=0).mean()
    metric = longer.latent_metric()
    assert pb.distance(metric, torch.zeros(1, 2).double(), torch.ones(1, 2).double()).item() > 0
    assert type(alone.latent_metric()).__name__ == "EuclideanMetric"
    with pytest.raises(ValueError, match="'euclidean' for a model without a decoder, got 'pullback'"):
        alone.latent_metric("pullback")


def test_warm_start_goes_on_from_the_encoder(rows) -> None:
    model = umap(warm_start=True, epochs=30).fit(rows)
    first, mean = model.loss_history_[0], model.mean_.copy()
    model.fit(rows[:100])
    assert model.loss_history_[0] < 0.5 * first
    assert model.mean_.tolist() == mean.tolist()
    assert model.embedding_.shape == (100, 2)


def test_a_net_that_ignores_magnitude_warns(rows) -> None:
    with pytest.warns(pb.HomogeneityWarning):
        umap(encoder_name="glassbox").fit(rows)


def shells(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    radius = np.repeat([1.0, 3.0, 6.0], 300)
    direction = random.normal(size=(900, 5))
    return direction / np.linalg.norm(direction, axis=1, keepdims=True) * radius[:, None], radius


@pytest.mark.parametrize("name", ["default", "batchnorm"])
def test_the_magnitude_of_rows_is_seen(name) -> None:
    x, radius = shells()
    model = pb.ParametricUMAP(encoder_name=name, steps=250, batch_size=3000, random_state=0, progress=False)
    z = model.fit_transform(x.astype(np.float32))
    y = np.searchsorted([2.0, 4.0], radius)
    order = np.random.default_rng(1).permutation(900)
    assert cross_val_score(KNeighborsClassifier(15), z[order], y[order], cv=5).mean() >= 0.95


# --- explaining -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"standardize": True, "pca_components": 3}])
def test_contributions_add_up_in_raw_features(rows, options) -> None:
    model = umap(**options).fit(rows)
    found = model.contributions(rows)
    assert found.exact
    assert np.abs((found.values.sum(-1) + found.offset).numpy() - model.embedding_).max() < 1e-12
    assert found.values.numpy().tolist() == model.compute_contributions(rows).tolist()
    jacobian = model.compute_jacobian(rows)
    assert np.abs(jacobian * (rows - model.mean_)[:, None] - found.values.numpy()).max() < 1e-12
    assert model.compute_contributions(rows, batch_size=7, reduction="l2").shape == (150, 4)
    between = model.contributions_between(rows[:5], rows[5:10])
    apart = model.embedding_[:5] - model.embedding_[5:10]
    assert np.abs(between.values.sum(-1).numpy() - apart).max() < 1e-12


def test_the_decoder_is_explained_too(rows) -> None:
    model = umap(decoder=True, pca_components=3).fit(rows)
    found = pb.explain(model, model.embedding_[:4], direction="decode")
    again = model.inverse_transform(model.embedding_[:4])
    assert np.abs((found.values.sum(-1) + found.offset).numpy() - again).max() < 1e-5
    with pytest.raises(ValueError, match="direction: expected 'encode' for a model without a decoder"):
        pb.explain(umap().fit(rows), rows[:4, :2], direction="decode")


# --- saving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"pca_components": 2, "decoder": True}, {"encoder_name": "batchnorm"}]
)
def test_saved_and_loaded_bit_by_bit(rows, options, tmp_path) -> None:
    model = umap(**options).fit(rows, load_iris().target)
    again = pb.load(model.save(str(tmp_path / "model")))
    assert isinstance(again, pb.ParametricUMAP)
    assert again.transform(rows).tolist() == model.embedding_.tolist() == again.embedding_.tolist()
    assert (again.graph_ != model.graph_).nnz == 0
    for name in ("verification_", "history_", "n_steps_", "a_", "b_", "message_", "converged_"):
        assert getattr(again, name) == getattr(model, name)
    if "decoder" in options:
        assert (
            again.inverse_transform(again.embedding_).tolist()
            == model.inverse_transform(model.embedding_).tolist()
        )
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "model")


def test_an_own_encoder_is_asked_for_at_loading(rows, tmp_path) -> None:
    own = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    model = umap(encoder=own).fit(rows)
    folder = model.save(tmp_path)
    with pytest.raises(ValueError, match=r"encoder: saved with .*modules=\{'encoder': module\}"):
        pb.load(folder)
    assert pb.load(folder, modules={"encoder": own}).transform(rows).tolist() == model.embedding_.tolist()
    again = pb.ParametricUMAP.load(folder, encoder=own)
    assert again.transform(rows).tolist() == model.embedding_.tolist()
    with pytest.raises(pb.FormatError, match="holds a 'ParametricUMAP', expected one of VAE"):
        pb.VAE.load(folder)


# --- callbacks, interruption, resumption ----------------------------------------------------------------


def test_callbacks_see_the_model_on_its_way(rows) -> None:
    told = []

    def follow(step, loss, estimator) -> None:
        told.append((step, loss, estimator.transform(rows)))

    model = umap(callbacks=[follow]).fit(rows)
    assert [step for step, _, _ in told] == [4, 8, 12, 16]
    assert [loss for _, loss, _ in told] == list(model.loss_history_)
    assert told[0][2].tolist() != told[1][2].tolist()
    assert told[model.best_epoch_ - 1][2].tolist() == model.embedding_.tolist()
    assert umap().fit(rows).embedding_.tolist() == model.embedding_.tolist()


def test_ctrl_c_keeps_the_best_epoch(rows) -> None:
    def stop(step, loss, estimator) -> None:
        if step == 8:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(ConvergenceWarning, match="interrupted by Ctrl-C in epoch 3; the weights are those of"):
        model = umap(callbacks=stop, epochs=50).fit(rows)
    assert model.n_epochs_ == 2
    assert not model.converged_
    assert np.isfinite(model.transform(rows)).all()


def test_a_fit_that_fails_keeps_its_best_weights(rows) -> None:
    with pytest.warns(ConvergenceWarning, match="Try a lower lr"):
        model = umap(lr=1e30, epochs=50).fit(rows.astype(np.float32))
    assert not model.converged_
    assert np.isfinite(model.embedding_).all()


SCRIPT = """
import sys
import numpy as np
from sklearn.datasets import load_iris
import pullback as pb

resume, folder, out = sys.argv[1] == "resume", sys.argv[2], sys.argv[3]
told = lambda step, loss, estimator: print(step, flush=True)
model = pb.ParametricUMAP(epochs=300, num_batches=4, checkpoint_dir=folder, resume=resume, progress=False,
                          decoder=True, random_state=0, callbacks=told)
np.save(out, model.fit(load_iris().data).embedding_)
"""


@pytest.mark.slow
def test_killed_and_resumed_to_the_same_bits(tmp_path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(word: str, folder: str) -> subprocess.Popen:
        command = [
            sys.executable,
            "-c",
            SCRIPT,
            word,
            str(tmp_path / folder),
            str(tmp_path / f"{folder}.npy"),
        ]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    killed = start("new", "a")
    checkpoint = Path(tmp_path / "a" / "checkpoint.safetensors")
    end = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert checkpoint.exists()
    resumed, straight = start("resume", "a"), start("new", "b")
    steps = [int(word) for word in resumed.communicate(timeout=120)[0].split()]
    straight.communicate(timeout=120)
    assert steps[0] > 4
    assert np.load(tmp_path / "a.npy").tolist() == np.load(tmp_path / "b.npy").tolist()


# --- errors ---------------------------------------------------------------------------------------------

SMALL = np.arange(40.0).reshape(10, 4) % 7


def small(n_components: int = 2, **options) -> pb.ParametricUMAP:
    return umap(n_components, **({"n_neighbors": 5} | options))


BAD = [
    (lambda: small(metric="far").fit(SMALL), ValueError, "metric: expected"),
    (lambda: small(metric="precomputed").fit(SMALL), ValueError, "distances: expected"),
    (lambda: small().fit(SMALL, distances=cdist(SMALL, SMALL)), ValueError, "metric='precomputed'"),
    (lambda: small().fit(SMALL, graph=np.eye(3)), ValueError, "graph: expected"),
    (lambda: small().fit(SMALL, graph=np.ones((10, 10)), distances=SMALL), ValueError, "got both"),
    (lambda: small(encoder_name="deep").fit(SMALL), ValueError, "encoder_name: expected one of"),
    (lambda: small(encoder=nn.Linear(3, 2)).fit(SMALL), ValueError, r"encoder: expected a module \(n, 4\)"),
    (lambda: small(encoder=nn.Linear(4, 3)).fit(SMALL), ValueError, r"got output \(2, 3\) of 2 rows"),
    (lambda: small(encoder="wide").fit(SMALL), TypeError, "encoder: expected a torch.nn.Module"),
    (lambda: small(decoder=nn.Linear(2, 3)).fit(SMALL), ValueError, "decoder: expected"),
    (lambda: small(pca_components=9).fit(SMALL), ValueError, r"at most min\(n, p\) = 4, got 9"),
    (lambda: small(n_components=0).fit(SMALL), ValueError, "n_components"),
    (lambda: small(n_neighbors=1).fit(SMALL), ValueError, "n_neighbors"),
    (lambda: small(epochs=0).fit(SMALL), ValueError, "epochs"),
    (lambda: small(steps=0).fit(SMALL), ValueError, "steps"),
    (lambda: small(num_batches=0).fit(SMALL), ValueError, "num_batches"),
    (lambda: small(lr=-1).fit(SMALL), ValueError, "lr"),
    (lambda: small(jitter=-1).fit(SMALL), ValueError, "jitter: expected a finite number >= 0"),
    (lambda: small(min_dist=-1).fit(SMALL), ValueError, "min_dist"),
    (lambda: small(negatives="all").fit(SMALL), ValueError, "negatives: expected one of 'batch', 'uniform'"),
    (lambda: small(negative_sample_rate=0).fit(SMALL), ValueError, "negative_sample_rate"),
    (lambda: small(repulsion_strength=-1).fit(SMALL), ValueError, "repulsion_strength"),
    (lambda: small(target_weight=2).fit(SMALL), ValueError, r"target_weight: expected a number in \[0, 1\]"),
    (lambda: small(callbacks=3).fit(SMALL), TypeError, "callbacks: expected functions"),
    (lambda: small(device="gpu9").fit(SMALL), ValueError, "device"),
    (lambda: small().fit(SMALL, np.zeros(3)), ValueError, "y: expected 10 labels"),
    (lambda: small().fit(SMALL[:1]), ValueError, "1 sample"),
    (lambda: small().fit(SMALL * np.nan), ValueError, "NaN"),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_bad_input(call, kind, message, as_users_run) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_few_rows_cut_the_neighbours() -> None:
    with pytest.warns(UserWarning, match="n_neighbors=15 is cut to the 10 rows"):
        assert umap().fit(SMALL).embedding_.shape == (10, 2)


def test_rows_of_another_width_or_shape(fitted, rows) -> None:
    with pytest.raises(ValueError, match="X has 3 features, but ParametricUMAP is expecting 4 features"):
        fitted.transform(rows[:, :3])
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        fitted.transform(rows[:0])
    with pytest.raises(ValueError, match="expected flat rows"):
        fitted.transform(np.zeros((2, 1, 2, 2)))


# --- quality --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_digits_keep_their_neighbours() -> None:
    digits = load_digits()
    X = digits.data.astype(np.float32)
    trust, accuracy = [], []
    for seed in range(3):
        z = pb.ParametricUMAP(random_state=seed, progress=False).fit_transform(X)
        trust.append(trustworthiness(X, z, n_neighbors=15))
        accuracy.append(cross_val_score(KNeighborsClassifier(15), z, digits.target, cv=5).mean())
    assert np.median(trust) >= 0.980
    assert np.median(accuracy) >= 0.965


@pytest.mark.slow
def test_numbers_order_the_map() -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(600, 10)), random.uniform(size=600)
    explained = []
    for weight in (0.0, 0.8):
        z = pb.ParametricUMAP(random_state=0, progress=False, target_weight=weight).fit_transform(X, y)
        explained.append(cross_val_score(KNeighborsRegressor(10), z, y, cv=5).mean())
    # numbers that have nothing to do with the features: an encoder can follow them in part only
    assert explained[0] < 0.05
    assert explained[1] > 0.2
