"""The noise of a table: planted levels, the golden rows, and spectra that have no flat bulk."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planted import Golden, planted
from pullback.linalg import marchenko_pastur_quantile
from pullback.models.dictionary.noise import noise_level

GOLDEN = Golden()


@pytest.mark.parametrize("name", ["mix_train", "mix_test", "add_train", "add_test", "simplex_train"])
def test_golden_level_within_five_percent(name: str) -> None:
    level = noise_level(GOLDEN[f"{name}_Z"])
    assert level.sigma == pytest.approx(0.05, rel=0.02)
    assert 22 <= level.rank <= 26


@pytest.mark.parametrize("shape", [(400, 30), (30, 400), (60, 60)])
def test_level_and_rank_of_low_rank_rows(
    shape: tuple[int, int], dtype: torch.dtype, generator: torch.Generator
) -> None:
    n, p = shape
    signal = torch.randn(n, 3, generator=generator, dtype=dtype) @ torch.randn(
        3, p, generator=generator, dtype=dtype
    )
    level = noise_level(signal + 0.1 * torch.randn(n, p, generator=generator, dtype=dtype))
    assert level.rank == 3
    assert level.sigma == pytest.approx(0.1, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 1e3))
def test_level_scales_with_the_rows(scale: float) -> None:
    Z = planted(400, p=48, seed=2).Z
    one, other = noise_level(Z), noise_level(scale * Z + 5)
    assert one.sigma is not None
    assert other.sigma == pytest.approx(scale * one.sigma)
    assert other.rank == one.rank


def test_no_flat_bulk_no_level() -> None:
    g = torch.Generator().manual_seed(0)
    falling = torch.randn(300, 40, generator=g) * 0.8 ** torch.arange(40)
    assert noise_level(falling).sigma is None
    assert noise_level(GOLDEN["emb_E"]).sigma is None
    assert noise_level(torch.randn(50, 3, generator=g)).sigma is None
    assert noise_level(torch.ones(50, 8)).sigma is None


def test_quantiles_are_those_of_simulated_noise() -> None:
    for ratio in (0.1, 0.5, 1.0):
        x = np.random.default_rng(0).normal(size=(1000, int(1000 * ratio)))
        values = np.linalg.eigvalsh(x.T @ x / 1000)
        for level in (0.25, 0.5, 0.9):
            assert marchenko_pastur_quantile(ratio, level) == pytest.approx(
                float(np.quantile(values, level)), rel=0.02
            )
