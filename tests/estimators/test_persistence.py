"""A saved model comes back to the bit, from settings and tensors alone; the unknown is refused by name."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, RobustScaler, StandardScaler
from torch import nn

import pullback as pb
from pullback import HVAE, RHVAE, VAE, Autoencoder
from pullback.ambient import LowRank
from pullback.estimators import registry
from pullback.estimators.registry import KIND, describe, is_omitted, rebuild
from pullback.io import CONFIG_FILE, TENSOR_FILE, FormatError, load_model, save_model
from pullback.models import (
    Bernoulli,
    Categorical,
    Gaussian,
    NegativeBinomial,
    Poisson,
    WeightedGaussian,
)
from pullback.training import LinearWarmup

BOTH = pytest.mark.parametrize("cls", [Autoencoder, VAE])
ALL = pytest.mark.parametrize("cls", [Autoencoder, VAE, HVAE, RHVAE])
TINY = {"hidden": (8,), "max_epochs": 2, "progress": False, "random_state": 0}


@pytest.fixture
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 5)) + 10


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})


class Net(nn.Sequential):
    """A user's network that says how it is made."""

    def __init__(self, width: int, out: int, hidden: tuple[int, ...] = (3,)):
        super().__init__(nn.Linear(width, hidden[0]), nn.Tanh(), nn.Linear(hidden[0], out))
        self.options = {"width": width, "out": out, "hidden": hidden}

    def config(self) -> dict:
        return self.options


class Silent(nn.Linear):
    """A user's network that does not say how it is made."""


class Swish(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


def check_same(found, model, X: object) -> None:
    assert type(found) is type(model)
    assert found.transform(X).tobytes() == model.transform(X).tobytes()
    assert found.embedding_.tobytes() == model.embedding_.tobytes()
    assert (
        found.inverse_transform(model.embedding_).tobytes()
        == model.inverse_transform(model.embedding_).tobytes()
    )
    assert found.score(X) == model.score(X)
    assert found.sample(5, random_state=1).x.tobytes() == model.sample(5, random_state=1).x.tobytes()
    assert found.history_ == model.history_
    for name in (
        "n_features_in_",
        "image_shape_",
        "library_",
        "converged_",
        "message_",
        "n_epochs_",
        "best_epoch_",
    ):
        assert getattr(found, name) == getattr(model, name)
    for name in ("training_index_", "validation_index_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(model, name))
    assert not any(module.training for module in found.module_.modules())


@ALL
def test_round_trip(cls, X: np.ndarray, dtype: torch.dtype, tmp_path: Path) -> None:
    X = X.astype(str(dtype).removeprefix("torch."))
    model = cls(2, **TINY).fit(X)
    folder = model.save(tmp_path / "model")
    found = pb.load(folder)
    check_same(found, model, X)
    assert found.get_params() == model.get_params()
    z = torch.zeros(1, 2, dtype=dtype)
    assert torch.equal(found.metric().tensor(z), model.metric().tensor(z))
    refitted = found.fit(X)
    assert refitted.embedding_.tobytes() == model.embedding_.tobytes()


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {"activation": "tanh", "normalization": "batch", "hidden": [6, 7]},
        {"activation": nn.GELU, "normalization": "magnitude"},
        {"scale": "standard", "validation_fraction": 0.0},
        {"scale": StandardScaler(with_mean=False)},
        {"scale": MinMaxScaler(feature_range=(-1, 1))},
        {"scale": RobustScaler(quantile_range=(10.0, 90.0))},
        {"likelihood": Gaussian(0.5)},
        {"likelihood": Gaussian("per_feature", n_features=5)},
        {"likelihood": Gaussian("network")},
        {"likelihood": WeightedGaussian(LowRank(torch.eye(5)[:, :3], provenance="behavioral_fisher"))},
        {"random_state": None},
        {"patience": None, "gradient_clip": 1.0, "weight_decay": 0.1, "lr_schedule": "cosine"},
    ],
    ids=str,
)
def test_options_come_back(cls, options: dict, X: np.ndarray, tmp_path: Path) -> None:
    model = cls(2, **TINY | options).fit(X)
    check_same(pb.load(model.save(tmp_path / "model")), model, X)


@BOTH
@pytest.mark.parametrize(
    "likelihood",
    [
        "poisson",
        "negative_binomial",
        "bernoulli",
        Poisson(),
        Poisson(library=7.0),
        NegativeBinomial("network", library="observed"),
        Bernoulli(strict=False),
        Categorical(2),
        Categorical(5, one_hot=True, n_features=1),
    ],
    ids=str,
)
def test_likelihoods_come_back(cls, likelihood: object, tmp_path: Path) -> None:
    X = np.eye(5)[np.random.default_rng(0).integers(0, 5, size=30)]
    model = cls(2, **TINY, likelihood=likelihood).fit(X)
    check_same(pb.load(model.save(tmp_path / "model")), model, X)


@BOTH
def test_images_and_names_come_back(cls, X: np.ndarray, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((30, 1, 6, 5))
    model = cls(2, **TINY).fit(images)
    check_same(pb.load(model.save(tmp_path / "images")), model, images)
    frame = pd.DataFrame(X, columns=[*"abcdé"])
    named = cls(2, **TINY).fit(frame)
    found = pb.load(named.save(tmp_path / "names"))
    check_same(found, named, frame)
    assert list(found.feature_names_in_) == [*"abcdé"]
    with pytest.raises(ValueError, match="feature names should match"):
        found.transform(frame.rename(columns={"a": "z"}))


def test_a_model_is_loaded_in_another_process(X: np.ndarray, tmp_path: Path) -> None:
    model = VAE(2, **TINY).fit(X)
    model.save(tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    code = """
        import sys, numpy as np, pullback as pb
        z = pb.load(sys.argv[1] + "/model").transform(np.load(sys.argv[1] + "/X.npy"))
        np.save(sys.argv[1] + "/z.npy", z)
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], env=environment, check=True)
    assert np.load(tmp_path / "z.npy").tobytes() == model.embedding_.tobytes()


@BOTH
def test_the_folder_is_readable_and_holds_no_code(cls, X: np.ndarray, tmp_path: Path) -> None:
    folder = cls(2, **TINY).fit(X).save(tmp_path / "model")
    assert sorted(os.listdir(folder)) == [CONFIG_FILE, TENSOR_FILE]
    config = json.loads((folder / CONFIG_FILE).read_text())
    assert config["class"] == cls.__name__
    assert config["options"]["hidden"] == [8]
    assert config["fitted"]["n_features_in_"] == 5
    assert b"pullback.models" not in (folder / TENSOR_FILE).read_bytes()


@BOTH
def test_overwriting_is_asked_for(cls, X: np.ndarray, tmp_path: Path) -> None:
    model = cls(2, **TINY).fit(X)
    model.save(tmp_path / "model")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "model")
    other = cls(1, **TINY).fit(X)
    check_same(pb.load(other.save(tmp_path / "model", overwrite=True)), other, X)


# --- the user's own modules ---------------------------------------------------------------------------------


@ALL
def test_registered_modules_are_rebuilt_with_their_weights(cls, X: np.ndarray, tmp_path: Path) -> None:
    pb.register_module("net", Net)
    width = 2 if cls is Autoencoder else 4
    model = cls(2, **TINY, encoder=Net(5, width, (6,)), decoder=Net(2, 5)).fit(X)
    folder = model.save(tmp_path / "model")
    assert load_model(folder)[0]["options"]["encoder"] == {
        KIND: "registered",
        "name": "net",
        "config": {"width": 5, "out": width, "hidden": [6]},
    }
    before = torch.get_rng_state()
    found = pb.load(folder)
    assert torch.equal(before, torch.get_rng_state())
    check_same(found, model, X)
    registry._REGISTERED.clear()
    with pytest.raises(
        FormatError, match=r"(en|de)coder: saved with 'net', which is not registered here; call"
    ):
        pb.load(folder)


def test_registration_by_factory_and_config(X: np.ndarray, tmp_path: Path) -> None:
    pb.register_module(
        "silent",
        Silent,
        factory=lambda sizes: Silent(*sizes),
        config=lambda module: {"sizes": [module.in_features, module.out_features]},
    )
    model = Autoencoder(2, **TINY, encoder=Silent(5, 2)).fit(X)
    check_same(pb.load(model.save(tmp_path / "model")), model, X)


def test_a_class_that_cannot_be_rebuilt_is_refused_when_saving(X: np.ndarray, tmp_path: Path) -> None:
    pb.register_module("silent", Silent)
    model = Autoencoder(2, **TINY, encoder=Silent(5, 2)).fit(X)
    with pytest.raises(TypeError, match=r"encoder: 'silent' cannot be made again from \{\}.*config\(\)"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@BOTH
def test_unregistered_modules_are_passed_again(cls, X: np.ndarray, tmp_path: Path) -> None:
    width = 4 if cls is VAE else 2
    model = cls(2, **TINY, encoder=Silent(5, width)).fit(X)
    folder = model.save(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"encoder: saved with .*Silent, whose code is not in the file; pass load"
    ):
        pb.load(folder)
    given = Silent(5, width)
    weights = given.weight.detach().clone()
    check_same(pb.load(folder, modules={"encoder": given}), model, X)
    assert torch.equal(given.weight, weights)
    with pytest.raises(FormatError, match="the stored tensors do not fit"):
        pb.load(folder, modules={"encoder": Silent(5, 7)})
    for wrong in ("decoder", "metric"):
        with pytest.raises(ValueError, match=rf"modules: expected some of \['encoder'\].*got '{wrong}'"):
            pb.load(folder, modules={"encoder": given, wrong: given})


def test_own_likelihoods_and_activations(X: np.ndarray, tmp_path: Path) -> None:
    class Wide(Gaussian):
        """A user's likelihood."""

    model = VAE(2, **TINY, likelihood=Wide(2.0)).fit(X)
    folder = model.save(tmp_path / "likelihood")
    check_same(pb.load(folder, modules={"likelihood": Wide(2.0)}), model, X)
    swish = VAE(2, **TINY, activation=Swish).fit(X)
    with pytest.raises(
        TypeError, match=r"activation: expected a name or a registered class.*register_module"
    ):
        swish.save(tmp_path / "activation")
    pb.register_module("swish", Swish)
    check_same(pb.load(swish.save(tmp_path / "activation")), swish, X)


def test_options_that_only_matter_for_fitting_are_named_when_left_out(
    X: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = VAE(2, **TINY | {"random_state": np.random.RandomState(0)}, beta=lambda step: 0.5).fit(X)
    folder = model.save(tmp_path / "model")
    found = pb.load(folder)
    check_same(found, model, X)
    assert found.beta == 1.0
    assert found.random_state is None
    assert "beta: not stored with the model" in caplog.text
    assert "random_state: not stored with the model" in caplog.text


def test_names_belong_to_one_class(as_users_run: None) -> None:
    pb.register_module("net", Net)
    again = type("Net", (), {"__module__": Net.__module__, "__qualname__": Net.__qualname__})
    pb.register_module("net", again)  # a notebook cell that runs twice
    with pytest.raises(ValueError, match=r"'net' belongs to .*Net, got .*Silent; choose another"):
        pb.register_module("net", Silent)
    with pytest.raises(TypeError, match="cls: expected a class, got Net"):
        pb.register_module("other", Net(1, 1))
    with pytest.raises(TypeError, match="name: expected a name for Net"):
        pb.register_module("", Net)


# --- descriptions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 2.5, "text", (1, 2), {"kl": 1.0, "nested": (1, None)}, (Bernoulli(strict=False),)],
    ids=str,
)
def test_plain_values_travel_through_json(value: object) -> None:
    stored = json.loads(json.dumps(describe("option", value)))
    found = rebuild("option", stored, n_features=3)
    assert repr(found) == repr(value)
    assert not is_omitted(stored)


def test_paths_and_numpy_numbers_become_plain(tmp_path: Path) -> None:
    assert describe("checkpoint_dir", tmp_path) == str(tmp_path)
    assert describe("lr", np.float64(0.5)) == 0.5
    assert type(describe("latent_dim", np.int64(2))) is int


def test_what_has_no_form_is_left_out_by_name() -> None:
    for value in (object(), [object()], {"a": object()}, FunctionTransformer(), {1: 2}):
        assert is_omitted(describe("option", value))
    assert describe("option", Silent(1, 1))["class"].endswith("Silent")


# --- damage -------------------------------------------------------------------------------------------------


def edited(folder: Path, change) -> Path:
    config, tensors = load_model(folder)
    change(config, tensors)
    return save_model(folder, config, tensors, overwrite=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c, t: c.update({"class": "os.system"}),
            r"holds a 'os\.system', expected one of Autoencoder, VAE, HVAE, RHVAE",
        ),
        (lambda c, t: c.pop("class"), "expected an entry 'class', found none"),
        (lambda c, t: c["fitted"].pop("library_"), "expected an entry 'library_', found none"),
        (lambda c, t: t.pop("scaling.offset"), r"expected an entry 'scaling\.offset', found none"),
        (lambda c, t: t.pop("module.decoder.layers.0.weight"), "the stored tensors do not fit"),
        (lambda c, t: t.update({"module.more": torch.zeros(1)}), "the stored tensors do not fit"),
        (lambda c, t: c["options"].update({"colour": 1}), "VAE knows no colour"),
        (lambda c, t: c["options"].update({"hidden": [9]}), "the stored tensors do not fit"),
        (
            lambda c, t: c["options"].update({"scale": {KIND: "eval", "name": "x"}}),
            "scale: unknown 'eval' 'x'",
        ),
        (
            lambda c, t: c["options"].update({"scale": {KIND: "scaler", "name": "x"}}),
            "scaler: expected one of",
        ),
        (
            lambda c, t: c["options"].update({"likelihood": {KIND: "likelihood", "name": "x"}}),
            "unknown 'likelihood'",
        ),
        (lambda c, t: c["fitted"].update({"dtype": "int8"}), "dtype: expected one of float32, float64"),
    ],
)
def test_edited_models_are_refused(X: np.ndarray, tmp_path: Path, change, message: str) -> None:
    folder = edited(VAE(2, **TINY).fit(X).save(tmp_path / "model"), change)
    with pytest.raises(ValueError, match=message):
        pb.load(folder)


@pytest.mark.parametrize("cls", [Autoencoder, VAE])
def test_a_class_loads_its_own_models(X: np.ndarray, tmp_path: Path, cls: Any) -> None:
    model = cls(2, **TINY).fit(X)
    again = cls.load(model.save(tmp_path / "model"))
    assert type(again) is cls
    assert again.transform(X).tolist() == model.transform(X).tolist()


def test_absent_and_truncated_models(X: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        pb.load(tmp_path / "none")
    folder = VAE(2, **TINY).fit(X).save(tmp_path / "model")
    (folder / TENSOR_FILE).write_bytes((folder / TENSOR_FILE).read_bytes()[:-8])
    with pytest.raises(FormatError, match="truncated or altered"):
        pb.load(folder)


@pytest.mark.parametrize("name", ["array.embedding_", "array.training_index_", "scaling.scale"])
def test_a_model_without_one_of_its_arrays_is_refused(X: np.ndarray, tmp_path: Path, name: str) -> None:
    config, tensors = load_model(VAE(2, **TINY).fit(X).save(tmp_path / "model"))
    del tensors[name]
    folder = save_model(tmp_path / "less", config, tensors)
    with pytest.raises(FormatError, match=f"expected an entry '{name}', found none"):
        pb.load(folder)


PENALTIES = {
    "isometry": pb.IsometryPenalty(
        pb.ScalarWeightSchedule(0.0, 2.0, "linear", steps=9),
        reference=torch.diag(torch.tensor([0.5, 1.5])),
        ambient=pb.ambient.LowRank(torch.ones(5, 2, dtype=torch.float64)),
        latents=pb.LatentSampling("both", rows=0.25),
    ),
    "softmax": pb.SoftmaxAssignmentSparsityPenalty(0.7, LinearWarmup(4, 2.0), majorizer="soft"),
    "ard": pb.ARDPenalty(2, [0.5, 2.0]),
    "nested prefix": pb.NestedPrefixPenalty([1, 2], [0.1, 0.2]),
    "blocks": pb.BlockOrthogonalityPenalty([[0], [1]], 0.1),
    "incoherence": pb.DecoderIncoherencePenalty([4, 4], cooccurrence=torch.ones(2, 2)),
    "harmonics": pb.HarmonicRoughnessPenalty(torch.arange(3)),
    "ridge": pb.IvaeRidgeMeanGaugePenalty(torch.ones(4, 1)),
    "edges": pb.TotalVariationPenalty(edges=torch.tensor([[0, 1]])),
    "nuclear": pb.NuclearNormPenalty(),
    "atoms": pb.OrderedBetaBernoulliPenalty(2.0),
    "sum": pb.SumPenalty([pb.OrthogonalityPenalty(0.2), pb.ARDPenalty(2)]),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_come_back_from_plain_settings(name: str) -> None:
    described = json.loads(json.dumps(describe("penalties", [PENALTIES[name]])))
    assert not is_omitted(described)
    (again,) = rebuild("penalties", described, n_features=5)
    assert type(again) is type(PENALTIES[name])
    assert json.dumps(describe("penalties", [again])) == json.dumps(described)


def test_a_model_with_penalties_is_saved_loaded_cloned_and_fitted_again(
    X: np.ndarray, tmp_path: Path
) -> None:
    model = Autoencoder(2, penalties=[PENALTIES["isometry"], PENALTIES["ard"]], **TINY).fit(X)
    assert {"isometry", "ard", "validation/isometry"} <= set(model.history_)
    again = pb.load(model.save(tmp_path / "run"))
    check_same(again, model, X)
    assert again.penalties[0].latents == pb.LatentSampling("both", rows=0.25)
    check_same(clone(again).fit(X), model, X)


def test_a_penalty_of_functions_is_left_out_and_said(
    X: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Autoencoder(2, penalties=[pb.IsometryPenalty(lambda step: 0.1)], **TINY).fit(X)
    again = pb.load(model.save(tmp_path / "run"))
    assert "penalties: not stored with the model" in caplog.text
    check_same(again, model, X)
