"""Energy shares: they add up, and say what they should."""

import numpy as np
import pytest
import torch
from torch import nn

from metric_cases import AMBIENTS, FACTOR, P, decoder
from pullback import ambient as A
from pullback.geometry import curve_energy, energy_shares, geodesic, shares_of_difference
from pullback.geometry import shares as module
from pullback.geometry.reference import PoincareDisk, Sphere
from pullback.geometry.route import route_of
from pullback.metrics import (
    EnsembleMetric,
    EuclideanMetric,
    ExpectedPullbackMetric,
    PullbackMetric,
    as_metric,
)


def curves(m: int = 3, nodes: int = 9, d: int = 2) -> torch.Tensor:
    return torch.randn(m, nodes, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", AMBIENTS)
@pytest.mark.parametrize("by", ["feature", "factor"])
def test_shares_sum_to_the_discrete_energy(name, by):
    """Acceptance 14: to 1e-14 relative, for every ambient."""
    if by == "factor" and not name.startswith("LowRank"):
        pytest.skip("factors belong to LowRank")
    metric, path = PullbackMetric(decoder(), AMBIENTS[name]), curves()
    seen = energy_shares(metric, path, by=by)
    energy = route_of(metric, trainable=True).discrete_energy(path)
    assert (seen.values.sum(1) / energy - 1).abs().max() <= 1e-14
    assert (seen.energy / energy - 1).abs().max() <= 1e-14
    torch.testing.assert_close(seen.fraction.sum(1), torch.ones(3, dtype=torch.float64))
    assert seen.values.shape == (3, 4 if by == "factor" else P)
    assert (seen.total_variation >= seen.signed.abs() - 1e-12).all()
    if by == "factor" or not name.startswith("LowRank"):
        assert (seen.values >= 0).all()


@pytest.mark.parametrize("name", AMBIENTS)
def test_shares_of_an_ensemble_are_means_over_its_members(name):
    """Acceptance 14, and member by member."""
    members = [decoder(seed=k) for k in range(3)]
    metric, path = EnsembleMetric(members, AMBIENTS[name]), curves()
    seen = energy_shares(metric, path)
    energy = route_of(metric, trainable=True).discrete_energy(path)
    assert (seen.values.sum(1) / energy - 1).abs().max() <= 1e-14
    each = [energy_shares(PullbackMetric(f, AMBIENTS[name]), path) for f in members]
    for field in ("values", "signed", "total_variation"):
        mean = torch.stack([getattr(one, field) for one in each]).mean(0)
        torch.testing.assert_close(getattr(seen, field), mean)


def test_shares_of_a_noisy_decoder_and_of_sums():
    mean, scale, path = decoder(), decoder(seed=1), curves()
    metric = ExpectedPullbackMetric(mean, scale)
    seen = energy_shares(metric, path)
    first, second = (energy_shares(PullbackMetric(f), path) for f in (mean, scale))
    torch.testing.assert_close(seen.values, first.values + second.values)
    torch.testing.assert_close(seen.signed, first.signed)
    torch.testing.assert_close(seen.total_variation, first.total_variation)
    twice = energy_shares(2.0 * PullbackMetric(mean), path)
    torch.testing.assert_close(twice.values, 2 * first.values)
    torch.testing.assert_close(twice.signed, first.signed)
    joined = energy_shares(PullbackMetric(mean) + EuclideanMetric(2), path)
    assert joined.values.shape == (3, P + 2)
    torch.testing.assert_close(joined.values[:, :P], first.values)
    factors = energy_shares(EnsembleMetric([mean, scale], A.LowRank(FACTOR)), path, by="factor")
    assert factors.values.shape == (3, 4)


@pytest.mark.parametrize("metric", [PullbackMetric(decoder()), PoincareDisk(), EuclideanMetric(2)])
def test_shares_of_latent_coordinates_sum_to_the_energy_of_the_tensor_path(metric):
    path = 0.1 * curves()
    seen = energy_shares(metric, path, by="latent")
    step = path.diff(dim=1)
    g = metric.tensor(((path[:, 1:] + path[:, :-1]) / 2).flatten(0, 1)).unflatten(0, (3, 8))
    torch.testing.assert_close(seen.energy, 8 * torch.einsum("mka,mkab,mkb->m", step, g, step))
    torch.testing.assert_close(seen.signed, path[:, -1] - path[:, 0])
    torch.testing.assert_close(seen.total_variation, step.abs().sum(1))


def test_each_share_is_its_formula():
    f, path = decoder(), curves()
    weight = torch.linspace(0.5, 2, P, dtype=torch.float64)
    seen = energy_shares(PullbackMetric(f, A.Diagonal(weight)), path)
    y = f(path)
    torch.testing.assert_close(seen.values, 8 * weight * y.diff(dim=1).square().sum(1))
    torch.testing.assert_close(seen.signed, y[:, -1] - y[:, 0])
    torch.testing.assert_close(seen.total_variation, y.diff(dim=1).abs().sum(1))
    low = energy_shares(PullbackMetric(f, A.LowRank(FACTOR)), path)
    steps = y.diff(dim=1)
    torch.testing.assert_close(low.values, 8 * (steps * (steps @ FACTOR @ FACTOR.mT)).sum(1))
    factors = energy_shares(PullbackMetric(f, A.LowRank(FACTOR)), path, by="factor")
    torch.testing.assert_close(factors.values, 8 * (steps @ FACTOR).square().sum(1))
    torch.testing.assert_close(factors.signed, (y[:, -1] - y[:, 0]) @ FACTOR)


def test_a_feature_that_only_rises_and_one_that_comes_back(dtype):
    t = torch.linspace(0, 1, 101, dtype=dtype)
    metric = PullbackMetric(lambda z: torch.cat([z, torch.sin(torch.pi * z)], dim=1))
    seen = energy_shares(metric, t[:, None], feature_names=["rises", "returns"])
    assert seen.values.dtype == dtype
    torch.testing.assert_close(seen.signed[0], torch.tensor([1.0, 0.0], dtype=dtype), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.total_variation[0], torch.tensor([1.0, 2.0], dtype=dtype))
    expected = torch.tensor([1.0, torch.pi**2 / 2], dtype=dtype)
    torch.testing.assert_close(seen.values[0], expected, rtol=1e-3, atol=0)
    assert seen.feature_names == ("rises", "returns")


def test_geodesics_decoders_of_images_and_embeddings_are_split():
    metric = PullbackMetric(Sphere().embedding)
    z = curves(4, 2)
    path = geodesic(metric, z[:, 0], z[:, 1])
    seen = energy_shares(metric, path)
    assert seen.values.shape == (4, 3)
    torch.testing.assert_close(seen.energy, curve_energy(metric, path.points), rtol=2e-3, atol=0)
    flat = energy_shares(EuclideanMetric(2), z)
    torch.testing.assert_close(flat.values, (z[:, 1] - z[:, 0]).square())
    images = PullbackMetric(lambda w: decoder()(w).unflatten(1, (1, 2, 3)))
    torch.testing.assert_close(
        energy_shares(images, curves()).values, energy_shares(PullbackMetric(decoder()), curves()).values
    )
    learned = PullbackMetric(nn.Sequential(decoder(), nn.Unflatten(1, (1, 2, 3))), A.LearnedGaussian())
    assert energy_shares(learned, curves()).values.shape == (3, 6)


def test_chunks_change_nothing(monkeypatch):
    metric = PullbackMetric(decoder())
    whole = energy_shares(metric, curves(7))
    monkeypatch.setattr(module, "SHARE_BUDGET", 2 * 9 * P)
    torch.testing.assert_close(energy_shares(metric, curves(7)).values, whole.values, rtol=1e-13, atol=0)


def test_means_over_groups():
    seen = energy_shares(PullbackMetric(decoder()), curves(5), feature_names=list("abcdef"))
    groups = np.array(["B", "A", "B", "A", "B"])
    mean = seen.mean(groups)
    assert mean.groups == ("A", "B")
    torch.testing.assert_close(mean.values[0], seen.values[[1, 3]].mean(0))
    torch.testing.assert_close(mean.energy[1], seen.energy[[0, 2, 4]].mean())
    torch.testing.assert_close(mean.fraction.sum(1), torch.ones(2, dtype=torch.float64))
    assert mean.feature_names == tuple("abcdef")
    assert seen.mean().groups == ("all",)
    torch.testing.assert_close(seen.mean().signed[0], seen.signed.mean(0))
    assert seen.mean(torch.tensor([3, 1, 3, 1, 1])).groups == (1, 3)
    assert seen.mean([None, "a", None, "a", "a"]).values.shape == (2, P)
    with pytest.raises(ValueError, match="groups: expected one label for each of 5 paths, got 2"):
        seen.mean(["A", "B"])


def test_a_path_without_energy_has_no_fractions():
    seen = energy_shares(PullbackMetric(Sphere().embedding), torch.zeros(2, 5, 2, dtype=torch.float64))
    assert (seen.fraction == 0).all()
    assert (seen.energy == 0).all()
    assert len(energy_shares(PullbackMetric(decoder()), curves(3)[:0])) == 0


def test_what_a_detour_saves():
    metric = PullbackMetric(Sphere().embedding)
    z = curves(4, 2)
    path = geodesic(metric, z[:, 0], z[:, 1])
    line = torch.lerp(z[:, :1], z[:, 1:], torch.linspace(0, 1, 65, dtype=torch.float64)[:, None])
    saved = shares_of_difference(metric, line, path)
    assert (saved.energy > 0).all()
    torch.testing.assert_close(saved.values.sum(1), saved.energy)
    torch.testing.assert_close(saved.fraction.sum(1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(
        saved.values, energy_shares(metric, line).values - energy_shares(metric, path).values
    )
    assert saved.signed.abs().max() < 1e-12
    nothing = shares_of_difference(metric, line, line)
    assert (nothing.fraction == 0).all()


def test_bad_arguments_are_named(as_users_run):
    metric = PullbackMetric(decoder())
    with pytest.raises(ValueError, match="by: expected 'latent' for a metric without features"):
        energy_shares(PoincareDisk(), curves())
    with pytest.raises(ValueError, match="by: expected 'feature' or 'latent' without a LowRank"):
        energy_shares(metric, curves(), by="factor")
    with pytest.raises(ValueError, match="path: expected curves in 2 dimensions"):
        energy_shares(metric, curves(d=3))
    with pytest.raises(TypeError, match="feature_names: expected a sequence of names"):
        energy_shares(metric, curves(), feature_names="abcdef")
    with pytest.raises(ValueError, match="path_b: expected 3 paths like path_a, got 2"):
        shares_of_difference(metric, curves(3), curves(2))
    assert as_metric(metric) is metric
