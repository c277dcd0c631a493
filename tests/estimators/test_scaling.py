"""Scalings against scikit-learn, on dense and sparse tables, with constant features and large offsets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PowerTransformer, RobustScaler, StandardScaler

from pullback.estimators import scaling as module
from pullback.estimators.scaling import build_transformer, chunk_slices, describe_transformer, fit_scaling
from pullback.inputs import read_input

SKLEARN = {"standard": StandardScaler(), "minmax": MinMaxScaler(), "maxabs": MaxAbsScaler()}
TRANSFORMERS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    MinMaxScaler(feature_range=(-1, 2)),
    MaxAbsScaler(),
    RobustScaler(),
    RobustScaler(with_centering=False, quantile_range=(10, 90)),
    RobustScaler(with_scaling=False),
]


def data(dtype: torch.dtype) -> np.ndarray:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 6)) * [1, 1e-3, 1e3, 5, 1, 1] + [0, 1, -1e3, 1e4, 0.1, 0]
    X[:, 4] = 0.1
    X[:, 5] = 0.0
    return X.astype(np.float64 if dtype == torch.float64 else np.float32)


@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_named_scalings_are_those_of_scikit_learn(name: str, form, dtype: torch.dtype) -> None:
    X = data(dtype)
    table, index = read_input(form(X)), np.arange(40)
    scaling = fit_scaling(name, table, index)
    wanted = SKLEARN[name].fit(X[:40].astype(np.float64)).transform(X.astype(np.float64))
    found = scaling.apply(table.rows(slice(None)))
    assert found.dtype == dtype
    tolerance = (
        1e-9 if dtype == torch.float64 else 3e-3
    )  # 1e4 with a spread of 5 has three digits left in float32
    np.testing.assert_allclose(found.numpy(), wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=str)
def test_transformers_are_re_expressed_exactly(transformer, dtype: torch.dtype) -> None:
    X = data(torch.float64)
    table = read_input(X.astype(np.float32) if dtype == torch.float32 else X)
    scaling = fit_scaling(transformer, table, np.arange(40))
    wanted = transformer.fit(table.values[:40]).transform(table.values)
    tolerance = 1e-9 if dtype == torch.float64 else 3e-3
    np.testing.assert_allclose(scaling.apply(table.rows(slice(None))), wanted, atol=tolerance, rtol=tolerance)
    assert scaling.offset.dtype == scaling.scale.dtype == dtype


def test_the_transformer_that_is_given_stays_unfitted() -> None:
    transformer = StandardScaler()
    fit_scaling(transformer, read_input(data(torch.float64)), np.arange(40))
    assert not hasattr(transformer, "mean_")


def test_global_scaling_keeps_the_proportions_of_distances(dtype: torch.dtype) -> None:
    X = torch.from_numpy(data(dtype))
    scaled = fit_scaling("global", read_input(X), np.arange(50)).apply(X)
    before, after = torch.pdist(X.double()), torch.pdist(scaled.double())
    torch.testing.assert_close(after / after.max(), before / before.max(), atol=1e-6, rtol=1e-6)
    assert scaled.mean(0).abs().max() < 1e-3
    assert abs(scaled.square().mean().item() - 1) < 1e-5


def test_center_and_none() -> None:
    X = torch.from_numpy(data(torch.float64))
    centred = fit_scaling("center", read_input(X), np.arange(50))
    torch.testing.assert_close(centred.apply(X), X - X.mean(0))
    nothing = fit_scaling("none", read_input(X), np.arange(50))
    assert torch.equal(nothing.apply(X), X)
    assert nothing.log_volume() == 0


@pytest.mark.parametrize("name", [*SKLEARN, "global", "center", "none"])
def test_undo_and_volume(name: str) -> None:
    X = torch.from_numpy(data(torch.float64))
    scaling = fit_scaling(name, read_input(X), np.arange(50))
    torch.testing.assert_close(scaling.undo(scaling.apply(X)), X)
    jacobian = torch.autograd.functional.jacobian(lambda x: scaling.apply(x[None])[0], X[0])
    torch.testing.assert_close(
        torch.tensor(-scaling.log_volume(), dtype=torch.float64), torch.linalg.slogdet(jacobian).logabsdet
    )


@settings(max_examples=40, deadline=None)
@given(
    X=arrays(np.float64, (7, 3), elements=st.floats(-1e6, 1e6, allow_subnormal=False)),
    name=st.sampled_from(["global", "standard", "minmax", "maxabs", "center", "none"]),
)
def test_any_finite_data_give_finite_scaled_data(X: np.ndarray, name: str) -> None:
    scaling = fit_scaling(name, read_input(X), np.arange(7))
    scaled = scaling.apply(torch.from_numpy(X))
    assert bool(torch.isfinite(scaled).all())
    assert bool((scaling.scale > 0).all())


def test_only_the_given_rows_count() -> None:
    X = np.zeros((10, 2))
    X[5:] = 1e6
    assert fit_scaling("minmax", read_input(X), np.arange(5)).scale.tolist() == [1, 1]


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    table, index = read_input(sparse.csr_array(data(torch.float64))), np.arange(50)
    whole = {name: fit_scaling(name, table, index) for name in ("global", "standard", "minmax", "maxabs")}
    monkeypatch.setattr(module, "CHUNK_VALUES", 40)
    assert [part.stop - part.start for part in chunk_slices(50, 6)] == [6] * 8 + [2]
    for name, scaling in whole.items():
        chunked = fit_scaling(name, table, index)
        torch.testing.assert_close(chunked.offset, scaling.offset, rtol=1e-14, atol=0)
        torch.testing.assert_close(chunked.scale, scaling.scale, rtol=1e-12, atol=0)


def test_what_is_no_scaling_is_refused() -> None:
    table, index = read_input(data(torch.float64)), np.arange(50)
    with pytest.raises(ValueError, match="scale: expected one of 'global', 'standard'"):
        fit_scaling("unit", table, index)
    with pytest.raises(TypeError, match=r"got PowerTransformer.*before it in a Pipeline"):
        fit_scaling(PowerTransformer(), table, index)
    with pytest.raises(ValueError, match="got clip=True"):
        fit_scaling(MinMaxScaler(clip=True), table, index)
    with pytest.raises(ValueError, match="squares are finite"):
        fit_scaling("standard", read_input(np.array([[1e200], [-1e200]])), np.arange(2))


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=str)
def test_transformers_travel_as_plain_settings(transformer) -> None:
    settings = describe_transformer(transformer)
    assert settings is not None
    again = build_transformer(settings["scaler"], settings["options"])
    assert (type(again), again.get_params()) == (type(transformer), transformer.get_params())
    assert describe_transformer(PowerTransformer()) is None
    assert describe_transformer("standard") is None
    with pytest.raises(ValueError, match="scaler: expected one of 'StandardScaler'"):
        build_transformer("PowerTransformer", {})
