"""`pb.explain`: every estimator and plain modules, in raw features, both directions, pairs and groups."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import pullback as pb
from attribution_cases import encoder, sum_error
from pullback.models import VAE as VAEModule
from pullback.models import Gaussian

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)) @ np.diag([1.0, 5.0, 0.2, 2.0, 1.0, 9.0]) + np.arange(6)
COUNTS = RNG.poisson(4.0, size=(60, 6)).astype(np.float64)
IMAGES = RNG.random(size=(30, 1, 16, 16)).astype(np.float32)
QUICK = {"hidden": (8,), "max_epochs": 2, "progress": False, "random_state": 0}
ESTIMATORS = [pb.Autoencoder, pb.VAE, pb.HVAE, pb.RHVAE]


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_estimators_are_explained_in_raw_features(cls, activation):
    model = cls(2, activation=activation, **QUICK).fit(X)
    e = pb.explain(model, X)
    z = torch.from_numpy(model.transform(X))
    torch.testing.assert_close(e.value, z, rtol=1e-12, atol=1e-12)
    assert sum_error(e.values, z, e.offset) <= (1e-12 if activation == "relu" else 1e-6)
    assert e.values.shape == (60, 2, 6)
    assert (e.method, e.exact) == (("local", True) if activation == "relu" else ("path", False))
    assert e.output_names == tuple(model.get_feature_names_out())
    expected = X[model.training_index_].mean(0)
    np.testing.assert_allclose(e.baseline, expected, rtol=1e-12)
    np.testing.assert_allclose(model.feature_mean_, expected, rtol=1e-12)
    half = e.values[:5] / (torch.from_numpy(X[:5]) - e.baseline).unsqueeze(1)
    if activation == "relu":
        moved = X[:5].copy()
        moved[:, 1] += 1e-6
        slope = (model.transform(moved) - model.transform(X[:5])) / 1e-6
        np.testing.assert_allclose(half[:, :, 1], slope, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_decoding_says_which_coordinate_moves_which_feature(cls):
    model = cls(2, activation="relu", **QUICK).fit(X)
    z = model.embedding_[:7]
    e = pb.explain(model, z, direction="decode")
    x = torch.from_numpy(model.inverse_transform(z))
    assert e.values.shape == (7, 6, 2)
    assert sum_error(e.values, x, e.offset) <= 1e-12
    assert e.exact
    assert e.feature_names == tuple(model.get_feature_names_out())
    np.testing.assert_allclose(e.baseline, model.embedding_.mean(0))


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_counts_pass_their_normalisation_along_paths(likelihood):
    model = pb.VAE(2, likelihood=likelihood, activation="relu", **QUICK).fit(COUNTS)
    e = pb.explain(model, COUNTS[:9])
    assert e.method == "path"
    assert not e.exact
    assert e.verification.passed
    assert sum_error(e.values, torch.from_numpy(model.transform(COUNTS[:9])), e.offset) <= 1e-6
    with pytest.raises(ValueError, match="LogNormalise"):
        pb.explain(model, COUNTS, method="local")
    back = pb.explain(model, model.embedding_[:5], direction="decode")
    assert back.verification.passed
    expected = torch.from_numpy(model.inverse_transform(model.embedding_[:5]))
    torch.testing.assert_close(back.value, expected, rtol=1e-10, atol=1e-10)


def test_pixels_have_names():
    model = pb.Autoencoder(2, activation="relu", **QUICK).fit(IMAGES)
    e = pb.explain(model, IMAGES[:4], reduction="l2")
    assert e.values.shape == (4, 256)
    assert e.feature_names[17] == "pixel 1,1"
    assert e.exact
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 2))
    plain = pb.explain(net, IMAGES[:4])
    assert plain.feature_names == e.feature_names
    assert sum_error(plain.values, net(torch.from_numpy(IMAGES[:4])).detach(), plain.offset) <= 2e-6
    assert not plain.baseline.any()


def test_frames_give_names_and_their_groups():
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = pb.Autoencoder(2, activation="relu", **QUICK).fit(frame)
    e = pb.explain(model, frame, feature_groups={"ends": ["a", "f"]})
    assert e.feature_names == ("ends", "b", "c", "d", "e")
    whole = pb.explain(model, frame)
    assert whole.feature_names == tuple("abcdef")
    torch.testing.assert_close(e.values[:, :, 0], whole.values[:, :, 0] + whole.values[:, :, 5])
    top = whole.top(3)
    norms = whole.values.square().sum(1).sqrt().mean(0)
    assert top.names[0] == "abcdef"[int(norms.argmax())]
    torch.testing.assert_close(top.size, norms.sort(descending=True).values[:3])
    net = encoder(nn.ReLU)
    rows = pd.DataFrame(RNG.normal(size=(3, 64)), columns=[f"g{k}" for k in range(64)])
    assert pb.explain(net, rows).feature_names[5] == "g5"


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_pairs_and_groups_of_explained_rows(activation):
    model = pb.Autoencoder(2, activation=activation, **QUICK).fit(X)
    e = pb.explain(model, X, reduction="l2")
    z = torch.from_numpy(model.transform(X))
    pair = e.between([0, 1, 2], 5, reduction="distance")
    torch.testing.assert_close(pair.values.sum(1), (z[:3] - z[5]).norm(dim=1), rtol=1e-5, atol=1e-7)
    assert pair.method == "path"
    assert pair.exact == (activation == "relu")
    torch.testing.assert_close(e.between(-1, 0).value, (z[59] - z[0])[None], rtol=1e-10, atol=1e-12)
    labels = np.where(np.arange(60) % 3 == 0, "x", np.where(np.arange(60) % 3 == 1, "y", "z"))
    apart = e.separation(labels, "x", "y")
    distance = (z[labels == "x"].mean(0) - z[labels == "y"].mean(0)).norm()
    torch.testing.assert_close(apart.values.sum() + apart.offset, distance, rtol=1e-5, atol=1e-7)
    assert apart.groups == ("x", "y")
    rest = e.separation(labels, "x")
    distance = (z[labels == "x"].mean(0) - z[labels != "x"].mean(0)).norm()
    torch.testing.assert_close(rest.values.sum() + rest.offset, distance, rtol=1e-5, atol=1e-7)
    two = e.separation(labels == "x")
    assert two.groups == (False, True)
    torch.testing.assert_close(two.values, rest.values, rtol=1e-5, atol=1e-7)


def test_own_encoders_that_give_pairs():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.spread = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.mean(x), self.spread(x)

    model = pb.VAE(2, encoder=Two(), decoder=nn.Linear(2, 6), **QUICK).fit(X)
    e = pb.explain(model, X[:5])
    assert e.verification.passed
    assert sum_error(e.values, torch.from_numpy(model.transform(X[:5])), e.offset) <= 1e-6
    assert isinstance(model.module_, VAEModule)


def test_layer_norms_ask_for_a_map_and_options_pass_through():
    model = pb.Autoencoder(2, activation="relu", normalization="magnitude", **QUICK).fit(X)
    with pytest.raises(ValueError, match="net contains RMSNorm"):
        pb.explain(model, X)
    e = pb.explain(model, X, map="local_linear", baseline=np.zeros(6), chunk_size=7, kink_margin=None)
    assert e.map == "local_linear"
    assert e.kink_margin is None
    assert not e.baseline.any()
    assert pb.explain(model, X[:4], method="path").verification.passed


def test_saved_models_keep_their_mean_and_older_ones_ask_for_it(tmp_path):
    model = pb.Autoencoder(2, activation="relu", scale="minmax", **QUICK).fit(X.astype(np.float32))
    again = pb.load(model.save(tmp_path / "model"))
    first, second = pb.explain(model, X.astype(np.float32)), pb.explain(again, X.astype(np.float32))
    assert torch.equal(first.values, second.values)
    assert first.values.dtype == torch.float32
    again.feature_mean_ = None  # as after loading a folder that holds none
    older = pb.load(again.save(tmp_path / "older"))
    with pytest.raises(ValueError, match=r"pass baseline=X\.mean"):
        pb.explain(older, X.astype(np.float32))
    found = pb.explain(older, X.astype(np.float32), baseline=model.feature_mean_)
    assert torch.equal(found.values, first.values)


def test_expected_grey_values_are_explained():
    x = np.clip(RNG.random(size=(40, 5)), 0, 1)
    model = pb.VAE(2, likelihood=pb.models.Bernoulli(strict=False), **QUICK).fit(x)
    e = pb.explain(model, model.embedding_[:4], direction="decode")
    assert e.verification.passed
    torch.testing.assert_close(e.value, torch.from_numpy(model.inverse_transform(model.embedding_[:4])))
    assert type(Gaussian()) is not type(model.module_.likelihood)
