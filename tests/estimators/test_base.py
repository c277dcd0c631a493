"""What all estimators do alike: forms of input, precision, reproducibility, honest ends, clear errors."""

import copy
import os
import signal
import threading
import time
import tracemalloc
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from torch import nn

from pullback import HVAE, RHVAE, VAE, Autoencoder
from pullback.estimators import evaluation, scaling
from pullback.models import MLP, Bernoulli, Categorical, ConvEncoder, Gaussian, Poisson

BOTH = pytest.mark.parametrize("cls", [Autoencoder, VAE])
ALL = pytest.mark.parametrize("cls", [Autoencoder, VAE, HVAE, RHVAE])
TINY = {"hidden": (8,), "max_epochs": 2, "progress": False, "random_state": 0}


@pytest.fixture
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 5)) @ np.diag([3.0, 1, 1, 1, 0.1]) + 10


def as_anndata(x: np.ndarray) -> anndata.AnnData:
    return anndata.AnnData(x.copy())


# --- forms of input -----------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize(
    "form", [np.asarray, torch.from_numpy, np.ndarray.tolist, pd.DataFrame, sparse.csr_array, as_anndata]
)
def test_every_form_of_input_gives_the_same_bits(cls, form, X: np.ndarray) -> None:
    wanted = cls(2, **TINY).fit(X)
    model = cls(2, **TINY).fit(form(X))
    assert model.embedding_.tobytes() == wanted.embedding_.tobytes()
    assert model.transform(form(X)).tobytes() == wanted.embedding_.tobytes()
    assert model.score(form(X)) == wanted.score(X)


@ALL
def test_precision_follows_the_data(cls, X: np.ndarray, dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    model = cls(2, **TINY).fit(X.astype(name))
    assert {p.dtype for p in model.module_.parameters()} == {dtype}
    for found in (model.embedding_, model.transform(X), model.inverse_transform(model.embedding_)):
        assert found.dtype == name
    assert model.sample(2).x.dtype == name
    assert model.score_samples(X).dtype == name
    assert model.metric().tensor(torch.zeros(1, 2, dtype=dtype)).dtype == dtype


@BOTH
def test_integers_train_in_single_precision(cls, X: np.ndarray) -> None:
    assert cls(1, **TINY).fit(X.astype(int)).embedding_.dtype == np.float32


@BOTH
def test_sparse_data_are_never_dense_as_a_whole(cls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "CHUNK_VALUES", 2**17)
    matrix = sparse.random_array((3000, 2000), density=0.002, format="csr", dtype=np.float32, rng=0)
    model = cls(1, **TINY | {"max_epochs": 1, "batch_size": 64})
    tracemalloc.start()
    model.fit(matrix).score(matrix)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.embedding_.shape == (3000, 1)
    # numpy's part: the whole would be 24 MB, a chunk is half a megabyte
    assert peak < 6e6


@ALL
def test_chunks_do_not_change_results(cls, X: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cls(2, **TINY).fit(X)
    whole = model.transform(X), model.score_samples(X), model.inverse_transform(model.embedding_)
    monkeypatch.setattr(scaling, "CHUNK_VALUES", 1500)
    monkeypatch.setattr(evaluation, "WIDEST_LAYER", 1)
    parts = model.transform(X), model.score_samples(X), model.inverse_transform(model.embedding_)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@BOTH
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_images_go_in_and_come_out(cls, make) -> None:
    flat = load_digits().data[:60].astype(np.float32) / 16
    images = make(flat.reshape(60, 1, 8, 8))
    model = cls(2, **TINY).fit(images)
    assert isinstance(model.module_.encoder, MLP)
    assert model.image_shape_ == (1, 8, 8)
    assert model.n_features_in_ == 64
    z = model.transform(images)
    assert z.shape == (60, 2)
    np.testing.assert_array_equal(model.transform(flat), z)
    assert model.inverse_transform(z).shape == (60, 1, 8, 8)
    assert model.sample(3, random_state=0).x.shape == (3, 1, 8, 8)
    with pytest.raises(ValueError, match=r"expected images \(1, 8, 8\) as in fit, got images \(1, 4, 16\)"):
        model.transform(flat.reshape(60, 1, 4, 16))
    with pytest.raises(ValueError, match=r"expected flat rows \(n, p\) as in fit, got images"):
        cls(2, **TINY).fit(flat).transform(images)


def test_colour_images_with_a_scale_from_the_network() -> None:
    images = np.random.default_rng(0).random((30, 3, 17, 16)).astype(np.float32)
    model = VAE(2, likelihood=Gaussian("network"), **TINY).fit(images)
    assert isinstance(model.module_.encoder, ConvEncoder)
    assert model.sample(4, observe="sample").x.shape == (4, 3, 17, 16)
    assert np.isfinite(model.score(images))


@BOTH
def test_anndata_receives_codes_and_parameters(cls, X: np.ndarray, tmp_path) -> None:
    cells = as_anndata(X)
    cells.obs_names = pd.Index([f"c{i}" for i in range(40)], dtype=object)
    cells.var_names = pd.Index([f"g{i}" for i in range(5)], dtype=object)
    before = cells.X.copy()
    model = cls(2, **TINY).fit(cells)
    np.testing.assert_array_equal(cells.obsm["X_pullback"], model.embedding_)
    assert cells.uns["pullback"]["model"] == cls.__name__
    assert cells.uns["pullback"]["params"]["latent_dim"] == 2
    assert cells.uns["pullback"]["params"]["hidden"].tolist() == [8]
    np.testing.assert_array_equal(cells.X, before)
    assert list(model.feature_names_in_) == [f"g{i}" for i in range(5)]
    other = cells[10:20].copy()
    del other.obsm["X_pullback"]
    codes = model.transform(other)
    np.testing.assert_array_equal(other.obsm["X_pullback"], codes)
    other.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(again.obsm["X_pullback"], codes)
    assert again.uns["pullback"]["params"]["likelihood"] == "gaussian"
    other.var_names = [f"h{i}" for i in range(5)]
    with pytest.raises(ValueError, match="feature names should match those that were passed during fit"):
        model.transform(other)


# --- reproducibility ----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("seed", [0, 7])
def test_same_random_state_same_bits(cls, seed: int, X: np.ndarray) -> None:
    one = cls(2, **TINY | {"random_state": seed}).fit(X)
    two = cls(2, **TINY | {"random_state": seed}).fit(X)
    assert one.embedding_.tobytes() == two.embedding_.tobytes()
    assert one.history_ == two.history_
    assert one.sample(5, random_state=3).x.tobytes() == two.sample(5, random_state=3).x.tobytes()
    assert one.sample(5).x.tobytes() != one.sample(5).x.tobytes()
    other = cls(2, **TINY | {"random_state": seed + 1}).fit(X)
    assert one.embedding_.tobytes() != other.embedding_.tobytes()


@BOTH
def test_random_state_objects_move_on_and_none_is_fresh(cls, X: np.ndarray) -> None:
    def fitted(state: object) -> bytes:
        return cls(2, **TINY | {"random_state": state}).fit(X).embedding_.tobytes()

    shared = np.random.RandomState(5)
    first, second = fitted(shared), fitted(shared)
    assert first != second
    assert first == fitted(np.random.RandomState(5))
    assert fitted(None) != fitted(None)


@BOTH
def test_processes_of_torchrun_must_agree_on_a_seed(
    cls, X: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="random_state: expected a number under torchrun"):
        cls(2, **TINY | {"random_state": None}).fit(X)


@BOTH
@pytest.mark.parametrize("state", [None, 0])
def test_global_random_states_are_untouched(cls, state: object, X: np.ndarray, tmp_path) -> None:
    encoder = Drops(5, cls)
    before = np.random.get_state()[1].copy(), np.random.get_state()[2], torch.get_rng_state()  # noqa: NPY002
    model = cls(2, **TINY | {"random_state": state}, encoder=encoder).fit(X)
    model.transform(X)
    model.score(X)
    model.sample(3, observe="sample")
    model.metric().tensor(torch.zeros(1, 2, dtype=torch.float64))
    model.save(tmp_path / "model", overwrite=True)
    after = np.random.get_state()[1], np.random.get_state()[2], torch.get_rng_state()  # noqa: NPY002
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])


class Drops(nn.Sequential):
    """An encoder that draws random numbers while it trains."""

    def __init__(self, p: int, cls: type):
        super().__init__(nn.Linear(p, 8), nn.Dropout(0.5), nn.Linear(8, 4 if cls is VAE else 2))


@BOTH
def test_dropout_and_batch_norm_are_off_after_training(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY, normalization="batch").fit(X)
    assert not any(module.training for module in model.module_.modules())
    np.testing.assert_allclose(model.transform(X[:1]), model.transform(X)[:1], rtol=1e-10)
    model.module_.train()
    kept = copy.deepcopy(model.module_.state_dict())
    np.testing.assert_array_equal(model.transform(X), model.embedding_)
    assert all(module.training for module in model.module_.modules())
    assert all(torch.equal(kept[name], value) for name, value in model.module_.state_dict().items())


# --- splits, history, how it ends ---------------------------------------------------------------------------


@BOTH
def test_held_out_rows_neither_train_nor_scale(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY, validation_fraction=0.25, scale="standard").fit(X)
    assert (len(model.training_index_), len(model.validation_index_)) == (30, 10)
    assert sorted([*model.training_index_, *model.validation_index_]) == list(range(40))
    np.testing.assert_allclose(model.scaling_.offset, X[model.training_index_].mean(0), rtol=1e-12)
    changed = X.copy()
    changed[model.validation_index_] += 100
    again = cls(2, **TINY, validation_fraction=0.25, scale="standard", patience=None).fit(changed)
    same = cls(2, **TINY, validation_fraction=0.25, scale="standard", patience=None).fit(X)
    assert again.history_["loss"] == same.history_["loss"]
    assert again.history_["validation/loss"] != same.history_["validation/loss"]


@BOTH
@pytest.mark.parametrize(
    ("n", "fraction", "held_out"), [(19, 0.5, 0), (20, 0.1, 2), (40, 0.0, 0), (2, 0.1, 0)]
)
def test_small_tables_train_whole(cls, n: int, fraction: float, held_out: int, X: np.ndarray) -> None:
    model = cls(1, **TINY, validation_fraction=fraction).fit(X[:n])
    assert len(model.validation_index_) == held_out
    assert ("validation/loss" in model.history_) == (held_out > 0)


@BOTH
def test_history_has_every_term_of_every_epoch(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY | {"max_epochs": 5, "lr": 1e-2, "batch_size": 8}).fit(X)
    terms = {"loss", "reconstruction"} | ({"kl"} if cls is VAE else set())
    assert set(model.history_) == terms | {f"validation/{term}" for term in terms}
    assert all(len(values) == 5 for values in model.history_.values())
    assert model.n_epochs_ == 5
    assert model.history_["loss"][-1] < model.history_["loss"][0]


@BOTH
def test_a_run_that_settles_says_so(cls) -> None:
    X = np.random.default_rng(0).normal(size=(200, 2))
    model = cls(1, hidden=(8,), lr=2e-2, patience=5, progress=False, random_state=0).fit(X)
    assert model.converged_
    assert "stopped early" in model.message_
    assert model.n_epochs_ - model.best_epoch_ == 5


@BOTH
def test_a_short_run_says_what_is_missing_without_a_warning(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY).fit(X)
    assert not model.converged_
    assert "raise max_epochs" in model.message_


@BOTH
def test_divergence_is_a_warning_with_advice_and_a_usable_model(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY | {"max_epochs": 30, "lr": 1e6})
    with pytest.warns(ConvergenceWarning, match="Try a lower lr"):
        model.fit(X)
    assert not model.converged_
    assert np.isfinite(model.embedding_).all()
    assert np.isfinite(model.transform(X)).all()


def test_a_failure_in_the_first_epoch_leaves_a_usable_model(X: np.ndarray) -> None:
    for cls in (VAE, RHVAE):
        model = cls(2, **TINY | {"lr": 1e30, "gradient_clip": None, "batch_size": 8})
        with pytest.warns(ConvergenceWarning, match="in epoch 1; the weights are the initial ones"):
            model.fit(X)
        assert (model.n_epochs_, model.best_epoch_, model.converged_) == (0, 0, False)
        assert np.isfinite(model.transform(X)).all()


@BOTH
def test_ctrl_c_returns_the_best_model_so_far(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY | {"max_epochs": 10**6, "patience": None})
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.warns(ConvergenceWarning, match="interrupted by Ctrl-C"):
        model.fit(X)
    assert time.monotonic() - began < 20
    assert not model.converged_
    assert model.n_epochs_ > 1
    assert np.isfinite(model.transform(X)).all()


@BOTH
def test_a_stopped_fit_resumes_to_the_same_bits(cls, X: np.ndarray, tmp_path) -> None:
    options = TINY | {"max_epochs": 6, "patience": None}
    whole = cls(2, **options).fit(X)
    cls(2, **options | {"max_epochs": 3}, checkpoint_dir=tmp_path).fit(X)
    resumed = cls(2, **options, checkpoint_dir=tmp_path, resume=True).fit(X)
    assert resumed.history_ == whole.history_
    assert resumed.embedding_.tobytes() == whole.embedding_.tobytes()


# --- options ------------------------------------------------------------------------------------------------


@BOTH
def test_own_networks_are_copied_and_used(cls, X: np.ndarray) -> None:
    width = 4 if cls is VAE else 2
    encoder, decoder = nn.Sequential(nn.Linear(5, width)), MLP(2, 5, hidden=(3,))
    before = copy.deepcopy((encoder.state_dict(), decoder.state_dict()))
    model = cls(2, **TINY, encoder=encoder, decoder=decoder).fit(X)
    assert isinstance(model.module_.encoder, nn.Sequential)
    assert model.module_.encoder is not encoder
    assert model.module_.encoder[0].weight.dtype == torch.float64
    for old, module in zip(before, (encoder, decoder), strict=True):
        assert all(torch.equal(old[name], value) for name, value in module.state_dict().items())
        assert all(value.requires_grad for value in module.parameters())
    assert not torch.equal(model.module_.encoder[0].weight.float(), encoder[0].weight)
    assert clone(model).get_params()["encoder"] is not encoder


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"encoder": nn.Linear(4, 4)},
            ValueError,
            r"encoder: expected a module \(n, 5\) -> codes of latent_dim=2",
        ),
        ({"encoder": nn.Linear(5, 3)}, ValueError, r"encoder: expected output \(n, [24]\), got \(2, 3\)"),
        ({"decoder": nn.Linear(3, 5)}, ValueError, r"decoder: expected a module \(n, 2\) -> \(n, 5\)"),
        (
            {"decoder": nn.Linear(2, 1)},
            ValueError,
            r"decoder: expected .* for the Gaussian likelihood, got output \(2, 1\)",
        ),
        ({"encoder": len}, TypeError, r"encoder: expected a torch\.nn\.Module or None"),
        ({"likelihood": "cauchy"}, ValueError, "likelihood: expected one of 'gaussian', 'bernoulli'"),
        ({"likelihood": 3}, TypeError, "likelihood: expected a name or a module"),
        ({"scale": "unit"}, ValueError, "scale: expected one of 'auto', 'global'"),
        ({"latent_dim": 0}, ValueError, "latent_dim: expected a whole number >= 1"),
        ({"latent_dim": 1.5}, TypeError, "latent_dim: expected a whole number"),
        ({"validation_fraction": 1.0}, ValueError, r"validation_fraction: expected a number in \[0, 1\)"),
        ({"lr": -1.0}, ValueError, "lr: expected a finite number > 0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected a whole number >= 1"),
        ({"activation": "step"}, ValueError, "activation: expected one of"),
        ({"device": "tpu9"}, ValueError, "device"),
        ({"resume": True}, ValueError, "resume: expected a checkpoint_dir"),
        (
            {"hidden": 64},
            TypeError,
            r"hidden: expected the widths of the hidden layers, \(128, 128\), got 64",
        ),
        ({"hidden": "64"}, TypeError, "hidden: expected the widths"),
        ({"hidden": (0,)}, ValueError, "hidden: expected a whole number >= 1"),
        ({"random_state": "seed"}, ValueError, "cannot be used to seed"),
        ({"penalties": [3]}, TypeError, "penalties: expected objects of pullback.penalties or with penalize"),
        ({"partition": 3}, TypeError, "partition: expected .*SubspacePartition.* or an object with terms"),
    ],
)
def test_wrong_options_are_refused_by_name(
    cls, options: dict, error: type, message: str, X: np.ndarray, as_users_run: None
) -> None:
    with pytest.raises(error, match=message):
        cls(**{"latent_dim": 2} | TINY | options).fit(X)


@BOTH
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.array([[1.0, np.nan]] * 3), "Input X contains NaN"),
        (np.array([[1.0, np.inf]] * 3), "Input X contains infinity"),
        (np.zeros((0, 3)), "0 sample"),
        (np.zeros((3, 0)), "0 feature"),
        (np.zeros((1, 3)), r"1 sample\(s\) .* minimum of 2 is required by (VAE|Autoencoder)"),
        ([["a", "b"]] * 3, "expected numbers, got text"),
    ],
)
def test_wrong_data_are_refused(cls, bad: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(1, **TINY).fit(bad)


@ALL
def test_single_rows_and_single_columns(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY).fit(X[:, :1])
    assert model.transform(X[:1, :1]).shape == (1, 2)
    assert model.inverse_transform([[0.0, 0.0]]).shape == (1, 1)
    assert np.isfinite(model.score(X[:1, :1]))
    constant = cls(1, **TINY).fit(np.ones((5, 3)))
    np.testing.assert_allclose(constant.inverse_transform(constant.embedding_), np.ones((5, 3)), atol=0.5)


@BOTH
def test_latent_points_of_wrong_width(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY).fit(X)
    with pytest.raises(ValueError, match=r"Z: expected \(n, 2\), got \(1, 3\)"):
        model.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="contains NaN"):
        model.inverse_transform(np.full((1, 2), np.nan))


@BOTH
def test_scaling_is_undone(cls, X: np.ndarray) -> None:
    for scale in (
        "global",
        "standard",
        "minmax",
        "maxabs",
        "center",
        "none",
        StandardScaler(with_mean=False),
    ):
        model = cls(2, **TINY, scale=scale).fit(X)
        params = model.module_.decode(torch.from_numpy(model.embedding_))
        wanted = params * model.scaling_.scale + model.scaling_.offset
        np.testing.assert_allclose(model.inverse_transform(model.embedding_), wanted, rtol=1e-12)


@ALL
def test_the_score_is_stated_in_data_units(cls, X: np.ndarray) -> None:
    likelihood = Gaussian(1.0)
    model = cls(2, **TINY, likelihood=likelihood).fit(X)
    # the same data in other units: densities are divided by the change of volume
    other = cls(2, **TINY, likelihood=likelihood).fit(X * 100)
    np.testing.assert_allclose(
        model.score_samples(X) - other.score_samples(X * 100), np.full(40, 5 * np.log(100)), rtol=1e-8
    )
    assert model.score(X) == pytest.approx(model.score_samples(X).mean())


@BOTH
def test_metrics_of_the_latent_space(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY).fit(X.astype(np.float32))
    z = torch.from_numpy(model.embedding_[:4])
    rows = [
        torch.autograd.functional.jacobian(lambda y: model.module_.decode(y[None])[0], point) for point in z
    ]
    jacobian = torch.stack(rows)
    sigma = torch.exp(model.module_.likelihood.log_scale)
    wanted = jacobian.mT @ jacobian / sigma**2
    torch.testing.assert_close(model.metric().tensor(z), wanted, rtol=1e-4, atol=1e-5)
    wide = model.metric(dtype=torch.float64).tensor(z.double())
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), wanted, rtol=1e-4, atol=1e-5)
    assert model.module_.decode(z).dtype == torch.float32
    torch.testing.assert_close(model.metric("euclidean").tensor(z), torch.eye(2).expand(4, 2, 2))


@BOTH
def test_samples_are_decoded_draws(cls, X: np.ndarray) -> None:
    model = cls(2, **TINY).fit(X)
    samples = model.sample(7, random_state=1)
    assert np.asarray(samples) is samples.x
    np.testing.assert_array_equal(samples.x, model.inverse_transform(samples.z))
    assert samples.log_density.shape == (7,)
    assert samples.diagnostics["method"] == "prior"
    noisy = model.sample(2000, observe="sample", random_state=1)
    spread = (noisy.x - model.inverse_transform(noisy.z)) / model.scaling_.scale.numpy()
    sigma = float(torch.exp(model.module_.likelihood.log_scale))
    assert spread.std() == pytest.approx(sigma, rel=0.03)


@BOTH
def test_unknown_metrics_and_methods_are_refused(cls, X: np.ndarray, as_users_run: None) -> None:
    model = cls(2, **TINY).fit(X)
    with pytest.raises(ValueError, match="kind: expected one of 'pullback', 'euclidean'"):
        model.metric("hyperbolic")
    with pytest.raises(ValueError, match="method: expected one of 'prior'"):
        model.sample(2, method="rhmc")
    with pytest.raises(ValueError, match="observe: expected one of 'mean', 'sample'"):
        model.sample(2, observe="mode")
    with pytest.raises(ValueError, match="n_samples: expected a whole number >= 1"):
        model.sample(0)
    with pytest.raises(ValueError, match="X: expected None for method='prior'"):
        model.sample(2, X=X)


# --- other likelihoods --------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_counts(cls, likelihood: str, form) -> None:
    counts = np.random.default_rng(0).poisson(3.0, size=(40, 6)) * np.arange(1, 41)[:, None] % 50
    model = cls(2, **TINY, likelihood=likelihood).fit(form(counts))
    totals = counts[model.training_index_].sum(axis=1)
    assert model.library_ == np.median(totals)
    decoded = model.inverse_transform(model.embedding_)
    np.testing.assert_allclose(decoded.sum(axis=1), model.library_, rtol=1e-5)
    # the depth of a row is divided out
    np.testing.assert_allclose(model.transform(form(counts * 3)), model.transform(form(counts)), atol=1e-5)
    drawn = model.sample(5, observe="sample", random_state=0).x
    assert (drawn == np.round(drawn)).all()
    assert np.isfinite(model.score(form(counts)))
    assert torch.isfinite(model.metric().tensor(torch.zeros(1, 2))).all()


@BOTH
def test_counts_in_the_fixed_library_metric(cls) -> None:
    counts = np.random.default_rng(0).poisson(3.0, size=(40, 6)).astype(float)
    model = cls(2, **TINY, likelihood="poisson").fit(counts)
    z = torch.zeros(1, 2, dtype=torch.float64)

    def root_rates(point: torch.Tensor) -> torch.Tensor:
        return 2 * torch.sqrt(model.library_ * torch.softmax(model.module_.decoder(point[None])[0], dim=-1))

    jacobian = torch.autograd.functional.jacobian(root_rates, z[0])
    torch.testing.assert_close(model.metric().tensor(z)[0], jacobian.T @ jacobian)


@BOTH
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[1, -1], [2, 3]], r"X for the Poisson likelihood: x: counts expected, found negative"),
        ([[1, 0.5], [2, 3]], "counts expected, found non-integers"),
        (np.zeros((3, 2)), "expected counts, got rows without any"),
    ],
)
def test_what_are_no_counts_is_refused(cls, bad: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(1, **TINY, likelihood="poisson").fit(bad)


@BOTH
def test_negative_counts_are_refused_at_transform_too(cls) -> None:
    model = cls(1, **TINY, likelihood="poisson").fit(np.ones((4, 2)))
    with pytest.raises(ValueError, match="found negative numbers"):
        model.transform([[1.0, -1.0]])
    assert np.isfinite(model.transform([[0.0, 0.0]])).all()


@BOTH
@pytest.mark.parametrize("scale", ["global", "standard", "minmax", StandardScaler()])
def test_counts_are_not_scaled(cls, scale: object) -> None:
    with pytest.raises(ValueError, match=r"scale: expected 'auto' or 'none' for counts \(Poisson\)"):
        cls(1, **TINY, likelihood=Poisson("observed"), scale=scale).fit(np.ones((4, 2)))


@BOTH
def test_binary_data(cls) -> None:
    X = (np.random.default_rng(0).random((40, 6)) < 0.5).astype(float)
    model = cls(2, **TINY, likelihood="bernoulli").fit(X)
    probability = model.inverse_transform(model.embedding_)
    assert ((probability > 0) & (probability < 1)).all()
    assert set(np.unique(model.sample(20, observe="sample", random_state=0).x)) == {0.0, 1.0}
    assert cls(2, **TINY, likelihood="bernoulli", scale="minmax").fit(X * 255).module_ is not None
    grey = np.clip(X, 0.2, 0.8)
    with pytest.raises(ValueError, match=r"binarise, or Bernoulli\(strict=False\)"):
        cls(2, **TINY, likelihood="bernoulli").fit(grey)
    assert cls(2, **TINY, likelihood=Bernoulli(strict=False)).fit(grey).score(grey) < 0
    with pytest.raises(
        ValueError, match="scale: expected 'auto', 'none', 'minmax' or 'maxabs' for Bernoulli"
    ):
        cls(2, **TINY, likelihood="bernoulli", scale="standard").fit(X)


@BOTH
def test_categories(cls) -> None:
    X = np.random.default_rng(0).integers(0, 3, size=(40, 4)).astype(float)
    model = cls(2, **TINY | {"max_epochs": 100, "lr": 1e-2}, likelihood=Categorical(3)).fit(X)
    found = model.inverse_transform(model.transform(X))
    assert found.shape == X.shape
    assert set(np.unique(found)) <= {0.0, 1.0, 2.0}
    assert (found == X).mean() > (0.4 if cls is VAE else 0.5)  # by chance a third
    assert model.sample(3, observe="sample", random_state=0).x.shape == (3, 4)
    with pytest.raises(ValueError, match=r"'categorical' needs the number of classes"):
        cls(2, likelihood="categorical").fit(X)


@BOTH
def test_the_row_outside_the_support_is_found_in_any_chunk(cls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "CHUNK_VALUES", 20)
    counts = np.ones((30, 4))
    counts[22, 1] = -1
    with pytest.raises(ValueError, match=r"X\[20:\] for the Poisson likelihood: .* at row 2, column 1"):
        cls(1, **TINY, likelihood="poisson").fit(counts)


# --- penalties and partitions -------------------------------------------------------------------------------


class Size:
    """A penalty on the decoder's output."""

    name = "size"

    def penalize(self, decoder: nn.Module, z: torch.Tensor) -> torch.Tensor:
        return decoder(z).square().mean()


class Follows(nn.Module):
    """A partition that trains a readout of the first latent coordinate."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))

    def terms(self, model, x, z, reduce, *, quantities=None) -> dict[str, torch.Tensor]:
        return {"follows": (self.slope * z[:, 0] - quantities[:, 0]).square().mean()}


@ALL
def test_penalties_and_partitions_join_the_objective(cls, X: np.ndarray) -> None:
    partition = Follows()
    model = cls(2, **TINY, penalties=[Size()], partition=partition)
    model.fit(X, quantities={"mass": X[:, 0], "rest": X[:, 1:3]})
    assert {"size", "follows", "validation/follows"} <= set(model.history_)
    assert partition.slope == 0  # the user's object is copied, as the networks are
    with pytest.raises(
        ValueError, match=r"quantities: expected \(40,\) or \(40, k\) for 'mass', got shape \(3,\)"
    ):
        model.fit(X, quantities={"mass": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"quantities.*finite"):
        model.fit(X, quantities={"mass": np.full(40, np.nan)})
    with pytest.raises(ValueError, match="quantities: expected at least one"):
        model.fit(X, quantities={})


def test_no_warning_is_ever_raised_in_ordinary_use(X: np.ndarray) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = VAE(2, **TINY).fit(X)
        model.metric().tensor(torch.from_numpy(model.transform(X)))
        model.sample(3)
    assert [str(warning.message) for warning in seen] == []
