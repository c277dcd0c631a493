"""Numbers of directions against a known rank, and how they stand in the face of noise, units and size."""

import pytest
import torch

from pullback.subspaces import effective_rank, fold_statistics, k_per_q, participation_ratio
from space_cases import factors, normal

ROWS = [(100, 0.1), (100, 0.5), (100, 1.0), (400, 0.5), (400, 1.0)]
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "noise"), ROWS)
def test_the_rank_of_equal_factors_is_found(n: int, noise: float, seed: int) -> None:
    z, y = factors(n, noise, seed)
    assert k_per_q({"q": y}, Z=z) == {"q": 5}
    assert k_per_q({"q": y}) == k_per_q({"q": y}, method="gavish_donoho") == {"q": 5}
    if noise >= 0.5:
        assert k_per_q({"q": y}, 0.9)["q"] >= 15


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [100, 400])
def test_noise_that_is_smooth_along_columns_needs_codes(n: int, seed: int) -> None:
    z, y = factors(n, 1.0, seed, smooth=0.9)
    assert k_per_q({"q": y}, Z=z, per_quantity=False) == 5
    assert k_per_q({"q": y}, method="gavish_donoho", per_quantity=False) > 10


@pytest.mark.slow
def test_pure_noise_has_no_direction() -> None:
    found = [k_per_q({"q": normal(200, 16, seed=s + 500)}, Z=normal(200, 20, seed=s))["q"] for s in range(40)]
    assert sum(k > 0 for k in found) <= 2


@pytest.mark.parametrize("units", [1e-12, 1e-6, 1e12])
@pytest.mark.parametrize("method", ["cv", "parallel", "gavish_donoho", "variance"])
def test_units_do_not_matter(units: float, method: str) -> None:
    z, y = factors(100, 0.5, 0)
    codes = z if method == "cv" else None
    assert k_per_q({"q": units * y}, method=method, Z=codes) == k_per_q({"q": y}, method=method, Z=codes)


@pytest.mark.parametrize("method", ["cv", "parallel", "gavish_donoho", "variance"])
def test_constants_have_none(method: str, dtype: torch.dtype) -> None:
    codes = normal(50, 3, dtype=dtype) if method == "cv" else None
    flat = torch.full((50, 4), 0.1, dtype=dtype)
    assert k_per_q({"flat": flat, "zero": flat * 0}, method=method, Z=codes) == {"flat": 0, "zero": 0}


@pytest.mark.parametrize("rows", [1562, 1563])
def test_there_is_no_cliff_in_size(rows: int) -> None:
    assert k_per_q({"q": normal(rows, 64, seed=1, dtype=torch.float32)}, 0.9) == {"q": 55}


def test_small_ranks_are_not_drowned_by_a_floor() -> None:
    y = 1e-6 * normal(60, 2) @ normal(2, 16, seed=1)
    assert k_per_q({"q": y}, 1.0) == {"q": 2}
    assert k_per_q({"q": y.float()}, 1.0) == {"q": 2}


def test_shares_by_name_and_the_largest() -> None:
    y = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5])).double()
    both = {"a": torch.cat([y, -y]), "b": torch.cat([y, -y])}
    assert k_per_q(both, {"a": 0.5}) == {"a": 1, "b": 2}
    assert k_per_q(both, {"a": 0.5}, default_threshold=0.999) == {"a": 1, "b": 4}
    assert k_per_q(both, {"a": 0.5}, default_threshold=0.999, per_quantity=False) == 4


def test_folds_bound_and_generators() -> None:
    z, y = factors(100, 0.5, 0)
    assert k_per_q(fold_statistics(z, {"q": y})) == {"q": 5}
    assert k_per_q({"q": y}, Z=z, kmax=3) == {"q": 3}
    assert k_per_q({"q": y}, Z=z, min_gain=0.999) == {"q": 0}
    assert k_per_q({"q": y}, generator=torch.Generator().manual_seed(7)) == {"q": 5}


def test_descriptions_are_inflated_by_noise() -> None:
    _, y = factors(400, 1.0, 0)
    assert effective_rank(y) == pytest.approx(30, abs=3)
    assert participation_ratio(y) == pytest.approx(16, abs=2)
