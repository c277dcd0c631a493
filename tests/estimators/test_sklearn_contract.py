"""The estimators are scikit-learn estimators: its own checks, none excepted, and its tools around them."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pullback import HVAE, RHVAE, VAE, Autoencoder

TINY = {"hidden": (4,), "max_epochs": 2, "progress": False}
ESTIMATORS = [
    Autoencoder(1, **TINY),
    VAE(1, **TINY),
    VAE(1, scale="standard", validation_fraction=0, **TINY),
    HVAE(1, **TINY),
    RHVAE(1, **TINY),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


@pytest.fixture
def iris() -> tuple[np.ndarray, np.ndarray]:
    return load_iris(return_X_y=True)


@pytest.mark.parametrize("cls", [Autoencoder, VAE])
def test_pipeline(cls, iris: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = iris
    model = cls(2, hidden=(16,), max_epochs=60, lr=1e-2, progress=False, random_state=0)
    pipeline = make_pipeline(StandardScaler(), model, LogisticRegression())
    assert pipeline.fit(X, y).score(X, y) > 0.85
    two = make_pipeline(PCA(3, svd_solver="full"), model).fit(X)
    again = two.inverse_transform(two.transform(X))
    assert np.mean((again - X) ** 2) < 0.2 * X.var(axis=0).mean()


def test_grid_search_over_options_uses_the_score(iris: tuple[np.ndarray, np.ndarray]) -> None:
    X, _ = iris
    grid = {"lr": [1e-6, 1e-2], "scale": ["global", "standard"]}
    search = GridSearchCV(VAE(1, **TINY | {"max_epochs": 30}, random_state=0), grid, cv=3).fit(X)
    assert search.best_params_["lr"] == 1e-2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(cross_val_score(Autoencoder(1, **TINY, random_state=0), X, cv=2)) == 2


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_clone_carries_every_option(estimator) -> None:
    changed = clone(estimator).set_params(latent_dim=3, scale=StandardScaler(), scale__with_std=False)
    again = clone(changed)
    assert again.latent_dim == 3
    assert again.scale is not changed.scale
    assert again.get_params()["scale__with_std"] is False
    assert not hasattr(again, "module_")


@pytest.mark.parametrize("cls", [Autoencoder, VAE, HVAE, RHVAE])
def test_pandas_in_pandas_out(cls) -> None:
    frame = load_iris(as_frame=True).data.iloc[::3]
    model = cls(2, **TINY, random_state=0).set_output(transform="pandas").fit(frame)
    name = cls.__name__.lower()
    assert list(model.get_feature_names_out()) == [f"{name}0", f"{name}1"]
    assert list(model.feature_names_in_) == list(frame.columns)
    for found in (model.transform(frame), model.fit_transform(frame)):
        assert isinstance(found, pd.DataFrame)
        assert list(found.columns) == [f"{name}0", f"{name}1"]
        assert found.index.equals(frame.index)
        assert found.to_numpy().tolist() == model.embedding_.tolist()


def test_names_are_checked_as_everywhere_in_scikit_learn() -> None:
    frame = load_iris(as_frame=True).data
    model = VAE(1, **TINY).fit(frame)
    with pytest.raises(ValueError, match="feature names should match those that were passed during fit"):
        model.transform(frame[frame.columns[::-1]])
    with pytest.warns(UserWarning, match="X does not have valid feature names, but VAE was fitted with"):
        model.transform(frame.to_numpy())
    with pytest.warns(UserWarning, match="X has feature names, but VAE was fitted without"):
        VAE(1, **TINY).fit(frame.to_numpy()).transform(frame)
    with pytest.raises(ValueError, match="X has 3 features, but VAE is expecting 4 features as input"):
        VAE(1, **TINY).fit(frame.to_numpy()).transform(frame.to_numpy()[:, :3])


@pytest.mark.parametrize("cls", [Autoencoder, VAE, HVAE, RHVAE])
def test_nothing_works_before_fit(cls, iris: tuple[np.ndarray, np.ndarray], tmp_path) -> None:
    X, _ = iris
    model = cls()
    for use in (
        lambda: model.transform(X),
        lambda: model.inverse_transform(X),
        lambda: model.score(X),
        lambda: model.score_samples(X),
        lambda: model.sample(2),
        lambda: model.metric(),
        lambda: model.save(tmp_path / "model"),
        lambda: model.get_feature_names_out(),
    ):
        with pytest.raises(NotFittedError):
            use()


def test_quantities_can_be_routed(iris: tuple[np.ndarray, np.ndarray]) -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        model = Autoencoder(1, **TINY).set_fit_request(quantities=True)
        assert model.get_metadata_routing().fit.requests == {"quantities": True}
