"""Nearest neighbours: the same as from the whole matrix, with fewer geodesics."""

import pytest
import torch
from torch import nn

from pullback.geometry import distance_matrix, nearest_neighbours
from pullback.geometry import neighbours as module
from pullback.geometry.reference import PoincareDisk, Sphere
from pullback.geometry.route import Extrinsic
from pullback.metrics import EuclideanMetric, PullbackMetric, from_tensor
from surfaces import torn

SPHERE = PullbackMetric(Sphere().embedding)


def points(n: int = 16, d: int = 2) -> torch.Tensor:
    return 0.6 * torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def net(d: int = 2) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(d, 16), nn.Tanh(), nn.Linear(16, 9)).double().requires_grad_(False)


def nearest(values: torch.Tensor, k: int, *, own: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if own:
        values = values.clone().fill_diagonal_(torch.inf)
    distance, index = values.sort(dim=1)
    return distance[:, :k], index[:, :k]


@pytest.mark.parametrize(
    "metric", [pytest.param(SPHERE, marks=pytest.mark.slow), PullbackMetric(net())], ids=["sphere", "net"]
)
@pytest.mark.parametrize("own", [True, False])
def test_neighbours_are_those_of_the_matrix(metric, own, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 100)
    z = points()
    other = None if own else points(11) + 0.05
    told = []
    found = nearest_neighbours(metric, z, other, k=3, progress=lambda done, n: told.append((done, n)))
    distance, index = nearest(distance_matrix(metric, z, other), 3, own=own)
    torch.testing.assert_close(found.distance, distance, rtol=1e-8, atol=0)
    assert torch.equal(found.index, index)
    assert bool(found.exact.all())
    assert bool(found.converged.all())
    assert found.message == "every other point is ruled out by its chord"
    assert found.geodesics < (16 * 15 // 2 if own else 16 * 11)
    assert told[-1] == (16, 16)


def test_a_metric_known_by_its_tensor_says_that_it_is_approximate():
    z = 0.8 * points(14) / points(14).norm(dim=1).max()
    found = nearest_neighbours(PoincareDisk(), z, k=2)
    distance, index = nearest(distance_matrix(PoincareDisk(), z), 2, own=True)
    torch.testing.assert_close(found.distance, distance, rtol=1e-8, atol=0)
    assert torch.equal(found.index, index)
    assert not bool(found.exact.any())
    assert found.message.startswith("approximate: the nearest of 8 candidates")
    whole = nearest_neighbours(PoincareDisk(), z, k=2, candidates=13)
    assert bool(whole.exact.all())
    assert whole.geodesics == 14 * 13 // 2
    assert whole.message == "all points were compared"


def test_a_limit_of_candidates_is_kept_and_said():
    # Two turns of a tight coil: chords across are far shorter than geodesics.
    coil = PullbackMetric(lambda z: torch.cat([torch.cos(6 * z), torch.sin(6 * z), z / 10], dim=1))
    z = torch.linspace(0, 2, 40, dtype=torch.float64)[:, None]
    exact = nearest_neighbours(coil, z, k=4)
    assert bool(exact.exact.all())
    assert (exact.index - torch.arange(40)[:, None]).abs().max() <= 4
    limited = nearest_neighbours(coil, z, k=4, candidates=4)
    assert not bool(limited.exact.all())
    assert limited.geodesics < exact.geodesics
    assert "approximate for" in limited.message


@pytest.mark.parametrize("d", [1, 3])
def test_other_dimensions_and_precisions(d, dtype):
    z = points(20, d).to(dtype)
    found = nearest_neighbours(EuclideanMetric(d), z, k=5)
    distance, index = nearest(torch.cdist(z, z), 5, own=True)
    assert found.distance.dtype == dtype
    assert torch.equal(found.index, index)
    torch.testing.assert_close(found.distance, distance, rtol=1e-4, atol=1e-5)


def test_equal_points_are_their_nearest():
    z = points(5).repeat(2, 1)
    found = nearest_neighbours(SPHERE, z, k=1)
    assert torch.equal(found.index[:, 0], (torch.arange(10) + 5) % 10)
    assert (found.distance == 0).all()
    assert bool(found.exact.all())


def test_what_is_not_certified_is_said():
    found = nearest_neighbours(SPHERE, points(8), k=2, nodes=5, max_nodes=5, gap_tol=1e-9)
    assert not bool(found.converged.all())
    assert "not certified" in found.message


def band(z: torch.Tensor) -> torch.Tensor:
    """A plane without the strip |z_0| < 0.3."""
    return torch.cat([torch.where(z[:, :1].abs() < 0.3, torch.nan, z[:, :1]), z[:, 1:]], dim=1)


BANKS = torch.tensor([[-1.0, 0.0], [-1.0, 0.5], [1.0, 0.0], [1.0, 0.4]], dtype=torch.float64)


@pytest.mark.parametrize("metric", [PullbackMetric(band), from_tensor(torn, 2)])
def test_points_out_of_reach_are_infinitely_far_neighbours(metric):
    found = nearest_neighbours(metric, BANKS, k=3)
    assert found.index[:, 0].tolist() == [1, 0, 3, 2]
    assert torch.equal(
        found.index.sort(dim=1).values, torch.tensor([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    )
    torch.testing.assert_close(found.distance[:, 0], torch.tensor([0.5, 0.5, 0.4, 0.4]).double())
    assert (found.distance[:, 1:] == torch.inf).all()
    assert bool(found.exact.all())
    assert found.converged.tolist() == [[True, False, False]] * 4
    assert "8 neighbours are reached by no curve" in found.message
    assert "not certified" not in found.message


def test_images_that_are_no_numbers_rule_nothing_out():
    def spoiled(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, torch.where(z[:, :1] > 0.9, torch.nan, 0.0)], dim=1)

    z = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.7], [1.0, 0.0]], dtype=torch.float64)
    found = nearest_neighbours(PullbackMetric(spoiled), z, k=1)
    assert found.index[:3, 0].tolist() == [1, 0, 0]
    assert bool(found.exact.all())
    # The last point was compared with all others.
    assert found.geodesics >= 3
    assert found.distance[3, 0] == torch.inf


def test_every_point_is_checked_even_if_it_is_far_from_all(as_users_run):
    fold = PullbackMetric(lambda z: torch.stack([z[:, 0] ** 3, z[:, 1]], dim=1))
    z = torch.tensor([[1.0, 0.0], [1.1, 0.0], [1.0, 0.1], [0.0, 50.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="not positive definite at row 3"):
        nearest_neighbours(fold, z[:3], z, k=1)
    with pytest.raises(ValueError, match="not positive definite at row 3"):
        nearest_neighbours(fold, z, k=1)


def test_wide_images_are_made_a_few_at_a_time(monkeypatch):
    z, seen = points(40), []
    other = points(30) + 0.05
    decoder = net()

    def told(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return decoder(x)

    whole = nearest_neighbours(PullbackMetric(decoder), z, other, k=2)
    for name, value in (("KEPT_ENTRIES", 100), ("ENTRY_BUDGET", 63)):
        monkeypatch.setattr(module, name, value)
    chords = module._Chords.over(Extrinsic(told), z, other)
    seen.clear()
    bound = chords.between(3, 9)
    assert max(seen) == 63 // 9
    expected = torch.cdist(decoder(z[3:9]), decoder(other))
    torch.testing.assert_close(bound, expected, rtol=1e-6, atol=1e-8)
    assert chords.block == 100 // 9
    parts = nearest_neighbours(PullbackMetric(decoder), z, other, k=2)
    assert torch.equal(parts.index, whole.index)
    assert torch.equal(parts.exact, whole.exact)


def test_bad_arguments_are_named(as_users_run):
    with pytest.raises(ValueError, match="k: expected at most the 15 points"):
        nearest_neighbours(SPHERE, points(), k=16)
    with pytest.raises(ValueError, match="candidates: expected a whole number >= 3"):
        nearest_neighbours(SPHERE, points(), k=3, candidates=2)
    with pytest.raises(TypeError, match="progress"):
        nearest_neighbours(SPHERE, points(), k=3, progress=1)
    with pytest.raises(ValueError, match="is not positive definite"):
        nearest_neighbours(from_tensor(lambda z: torch.diag_embed(z), 2), points(), k=3)
