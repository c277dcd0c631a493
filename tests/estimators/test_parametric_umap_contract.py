"""ParametricUMAP is a scikit-learn estimator: its own checks, none excepted, and its tools around it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pullback import ParametricUMAP

TINY = {"epochs": 2, "n_neighbors": 3, "progress": False, "encoder_kwargs": {"hidden_size": 8}}


@parametrize_with_checks([ParametricUMAP(**TINY), ParametricUMAP(1, standardize=True, decoder=True, **TINY)])
def test_scikit_learn_checks_of_embeddings(estimator, check) -> None:
    check(estimator)


@pytest.fixture
def frame() -> pd.DataFrame:
    return load_iris(as_frame=True).data


@pytest.mark.slow
def test_a_pipeline_and_a_search_over_options(frame) -> None:
    y = load_iris().target
    steps = (StandardScaler(), ParametricUMAP(random_state=0, epochs=30, progress=False))
    pipeline = make_pipeline(*steps, LogisticRegression())
    grid = {"parametricumap__target_weight": [0.0, 0.5], "parametricumap__n_neighbors": [5, 15]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(frame, y)
    assert search.best_score_ > 0.85
    assert len(search.cv_results_["params"]) == 4


def test_frames_lists_and_names(frame) -> None:
    model = ParametricUMAP(**TINY, random_state=0).set_output(transform="pandas").fit(frame)
    found = model.transform(frame)
    assert (
        list(found.columns) == list(model.get_feature_names_out()) == ["parametricumap0", "parametricumap1"]
    )
    assert found.index.equals(frame.index)
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(frame[frame.columns[::-1]])
    rows = frame.to_numpy().tolist()
    listed = ParametricUMAP(**TINY, random_state=0).fit(rows)
    assert np.abs(listed.embedding_ - model.embedding_).max() < 1e-12


def test_clone_carries_every_option() -> None:
    changed = clone(ParametricUMAP(**TINY)).set_params(n_components=3, callbacks=[print], decoder=True)
    again = clone(changed)
    assert again.get_params()["n_components"] == 3
    assert again.callbacks == [print]
    assert not hasattr(again, "module_")


def test_nothing_works_before_fit(frame, tmp_path) -> None:
    model = ParametricUMAP(decoder=True)
    for use in (
        lambda: model.transform(frame),
        lambda: model.inverse_transform(frame),
        lambda: model.contributions(frame),
        lambda: model.contributions_between(frame, frame),
        lambda: model.compute_jacobian(frame),
        lambda: model.compute_contributions(frame),
        lambda: model.latent_metric(),
        lambda: model.to("cpu"),
        lambda: model.save(tmp_path / "model"),
        lambda: model.get_feature_names_out(),
    ):
        with pytest.raises(NotFittedError):
            use()
