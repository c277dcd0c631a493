"""Effective sample size and R-hat against processes for which they are known."""

import pytest
import torch
from torch import Tensor

from pullback.dynamics import effective_sample_size, split_r_hat
from pullback.dynamics.diagnostics import drift


def autoregressive(phi: float, *, steps: int = 4000, chains: int = 8, d: int = 3, seed: int = 0) -> Tensor:
    """x_t = φ x_{t-1} + √(1 - φ²) ε_t, started in its own distribution."""
    noise = torch.randn(steps, chains, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for t in range(1, steps):
        noise[t] = phi * noise[t - 1] + (1 - phi**2) ** 0.5 * noise[t]
    return noise


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.3, 0.6, 0.9])
def test_sample_size_of_an_autoregressive_process(phi: float) -> None:
    draws = autoregressive(phi)
    known = draws[..., 0].numel() * (1 - phi) / (1 + phi)
    torch.testing.assert_close(
        effective_sample_size(draws) / known, torch.ones(3).double(), rtol=0.15, atol=0
    )
    assert bool((split_r_hat(draws) < 1.01).all())


def test_the_mean_is_as_sure_as_the_sample_size_says() -> None:
    """The variance of the mean over many repetitions, without any formula."""
    draws = autoregressive(0.7, steps=400, chains=4 * 300, d=1).unflatten(1, (300, 4))
    spread = draws.mean((0, 2)).var(0)
    sizes = torch.stack([effective_sample_size(part) for part in draws.unbind(1)]).mean()
    assert float(1 / spread / sizes) == pytest.approx(1, rel=0.15)


def test_chains_at_other_places_or_of_other_width_are_seen() -> None:
    draws = autoregressive(0.3, steps=1000, chains=4)
    place = torch.tensor([0.0, 0.0, 1.0, 1.0]).unsqueeze(1)
    assert bool((split_r_hat(draws + place) > 1.1).all())
    assert bool((effective_sample_size(draws + place) < 100).all())
    width = torch.tensor([1.0, 1.0, 1.0, 5.0]).unsqueeze(1)
    assert bool((split_r_hat(draws * width) > 1.1).all())


def test_one_chain_that_drifts_is_seen() -> None:
    draws = autoregressive(0.3, steps=1000, chains=1)
    assert bool((split_r_hat(draws) < 1.02).all())
    assert bool((split_r_hat(draws + torch.linspace(0, 3, 1000)[:, None, None]) > 1.1).all())


def test_ranks_make_r_hat_independent_of_the_scale() -> None:
    draws = autoregressive(0.5, steps=200, chains=4)
    place = 0.3 * torch.arange(4.0).unsqueeze(1)
    torch.testing.assert_close(split_r_hat(draws + place), split_r_hat(5 + 1e3 * (draws + place)))
    # without ranks a Cauchy distribution would hide the shift of a chain
    heavy = torch.tan(torch.pi * (torch.rand(1000, 4, 1, generator=torch.Generator().manual_seed(0)) - 0.5))
    assert bool(split_r_hat(heavy) < 1.01)
    heavy[:, 0] += 4.0
    assert bool(split_r_hat(heavy) > 1.1)


def test_chains_that_never_move(dtype: torch.dtype) -> None:
    start = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    apart = start.expand(50, 5, 2)
    assert split_r_hat(apart).tolist() == [torch.inf] * 2
    torch.testing.assert_close(effective_sample_size(apart), torch.full((2,), 5.0, dtype=dtype))
    together = torch.full((50, 5, 2), 0.1, dtype=dtype)
    assert split_r_hat(together).tolist() == [torch.inf] * 2
    assert effective_sample_size(together).tolist() == [1.0] * 2


def test_one_stuck_chain_is_seen() -> None:
    draws = autoregressive(0.0, steps=500, chains=4)
    draws[:, 0] = 2.0
    assert bool((split_r_hat(draws) > 1.1).all())
    assert bool((effective_sample_size(draws) < 50).all())


def test_draws_of_two_values_are_no_exception() -> None:
    draws = torch.randint(0, 2, (400, 4, 1), generator=torch.Generator().manual_seed(0)).double()
    assert bool(split_r_hat(draws) < 1.02)
    assert 800 < float(effective_sample_size(draws)) < 3200


def test_precision_shape_and_graph(dtype: torch.dtype) -> None:
    draws = autoregressive(0.5, steps=300).to(dtype).requires_grad_()
    for found in (effective_sample_size(draws), split_r_hat(draws)):
        assert found.dtype == dtype
        assert found.shape == (3,)
        assert not found.requires_grad
    wanted = effective_sample_size(draws.detach().double())
    torch.testing.assert_close(effective_sample_size(draws).double(), wanted, rtol=1e-4, atol=0)


def test_the_fewest_draws_give_numbers() -> None:
    draws = autoregressive(0.0, steps=4, chains=1)
    assert bool(torch.isfinite(effective_sample_size(draws)).all())
    assert bool(torch.isfinite(split_r_hat(draws)).all())


def test_an_odd_number_of_draws_leaves_the_middle_out() -> None:
    draws = autoregressive(0.5, steps=101, chains=3)
    spoiled = draws.clone()
    spoiled[50] = 1e3
    torch.testing.assert_close(split_r_hat(draws), split_r_hat(spoiled))


def test_drift_of_all_chains_together() -> None:
    draws = autoregressive(0.3, steps=60, chains=500)
    assert drift(draws).tolist() == [0.0] * 3
    growing = draws * torch.linspace(0.5, 1.5, 60)[:, None, None]
    assert bool((drift(growing) > 0.5).all())
    moving = draws + torch.linspace(0, 1, 60)[:, None, None]
    torch.testing.assert_close(drift(moving), torch.full((3,), 0.5).double(), rtol=0.1, atol=0)
    assert drift(moving[:, :4]).tolist() == [0.0] * 3


@pytest.mark.parametrize("measure", [effective_sample_size, split_r_hat])
@pytest.mark.parametrize(
    ("draws", "error", "message"),
    [
        ([[1.0]], TypeError, "draws: expected a torch.Tensor"),
        (torch.zeros(10, 2), ValueError, "draws: expected (steps, chains, d)"),
        (torch.zeros(10, 0, 2), ValueError, "draws: expected (steps, chains, d)"),
        (torch.zeros(10, 2, 2).long(), ValueError, "int64"),
        (torch.zeros(3, 2, 2), ValueError, "at least 4 steps, got 3"),
        (torch.full((10, 2, 2), torch.nan), ValueError, "draws: expected finite numbers"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_bad_draws(measure, draws, error, message) -> None:
    with pytest.raises(error) as caught:
        measure(draws)
    assert message in str(caught.value)
