"""Where a gauge is asked to hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penalties.checks import draw, relative
from pullback.penalties import LatentSampling


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_codes_are_themselves_and_a_share_is_drawn_without_replacement() -> None:
    codes = draw(8, 2)
    assert LatentSampling().draw(codes, seeded()) is codes
    few = LatentSampling(rows=0.5).draw(codes, seeded())
    assert few.shape == (4, 2)
    assert len({tuple(row) for row in few.tolist()} & {tuple(row) for row in codes.tolist()}) == 4
    assert LatentSampling(rows=3).draw(codes, seeded()).shape == (3, 2)
    assert LatentSampling(rows=99).draw(codes, seeded()).shape == (8, 2)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_mixtures_lie_on_lines_through_two_codes(n: int, rows: int, seed: int) -> None:
    codes = torch.arange(n, dtype=torch.float64).unsqueeze(1) * torch.tensor([[1.0, 0.0]]).double()
    found = LatentSampling("mixtures", rows=rows).draw(codes, seeded(seed))
    assert found.shape == (min(rows, n), 2)
    reach = 0.2 * (n - 1) + 1e-12
    assert (found[:, 0] >= -reach).all()
    assert (found[:, 0] <= n - 1 + reach).all()
    assert not found[:, 1].any()


def test_shares_of_mixtures_are_uniform_in_their_range() -> None:
    codes = torch.tensor([[0.0], [1.0]], dtype=torch.float64).repeat(10_000, 1)
    found = LatentSampling("mixtures", mix=(-0.2, 1.2)).draw(codes, seeded()).flatten()
    between = found[(found != 0) & (found != 1)]
    assert between.min() >= -0.2
    assert between.max() <= 1.2
    assert between.mean().item() == pytest.approx(0.5, abs=0.02)
    assert between.var().item() == pytest.approx(1.4**2 / 12, rel=0.04)


def test_both_holds_half_of_each_and_carries_gradients() -> None:
    codes = draw(7, 2).requires_grad_()
    found = LatentSampling("both").draw(codes, seeded())
    assert found.shape == (7, 2)
    rows = {tuple(row) for row in codes.tolist()}
    assert [tuple(row) in rows for row in found.tolist()][:4] == [True] * 4
    (slope,) = torch.autograd.grad(found.sum(), codes)
    # a mixture's shares sum to one
    assert relative(slope.sum(0), torch.tensor([7.0, 7.0]).double()) <= 1e-12
    assert torch.equal(found, LatentSampling("both").draw(codes, seeded()))
    assert not torch.equal(found, LatentSampling("both").draw(codes, seeded(1)))


@pytest.mark.parametrize("policy", ["mixtures", "both"])
def test_gradients_of_points_to_second_order(policy: str) -> None:
    def points(codes: torch.Tensor) -> torch.Tensor:
        return LatentSampling(policy, rows=0.7).draw(codes, seeded())

    codes = draw(7, 2).requires_grad_()
    assert torch.autograd.gradcheck(points, (codes,))
    assert torch.autograd.gradgradcheck(lambda z: points(z).sin(), (codes,))


def test_no_codes_give_no_points() -> None:
    for policy in ("codes", "mixtures", "both"):
        assert LatentSampling(policy).draw(torch.zeros(0, 2), seeded()).shape == (0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "everywhere"}, "policy: expected one of 'codes'"),
        ({"rows": 0}, "rows: expected"),
        ({"rows": 1.5}, "at most 1.0"),
        ({"rows": True}, "rows: expected a whole number"),
        ({"rows": "half"}, "rows: expected a whole number"),
        ({"mix": (1.0, 0.0)}, "mix: expected"),
        ({"mix": (0.0, float("inf"))}, "mix: expected finite"),
        ({"mix": (0.0, 1.0, 2.0)}, "mix: expected finite"),
    ],
)
def test_bad_options_are_named(as_users_run: None, options: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        LatentSampling(**options)
