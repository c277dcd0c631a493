"""Sums, multiples, ensembles, noise, conformal factors and users' metrics: what is theirs alone."""

import math

import pytest
import torch
from torch import nn

from metric_cases import AMBIENTS, OnlyTensor, centroids, decoder, numbers
from pullback import ambient as A
from pullback.geometry import distance, geodesic
from pullback.geometry.reference import FisherNormal, PoincareDisk, Sphere
from pullback.jets import reference_jet
from pullback.jets.taylor import layers_of, survey
from pullback.metrics import (
    BaseMetric,
    ConformalMetric,
    EnsembleMetric,
    EuclideanMetric,
    ExpectedPullbackMetric,
    PullbackMetric,
    SumMetric,
    from_tensor,
)

Z = numbers(5, 2)


# sums
def test_sums_and_multiples_are_those_of_the_tensors():
    g, h = PullbackMetric(decoder()), PullbackMetric(decoder(seed=1), A.Poisson())
    combined = 2 * (g + 3 * h) + sum([g, h]) * 0.5
    assert type(combined) is SumMetric
    assert combined.weights == (2, 6, 0.5, 0.5)
    expected = 2.5 * g.tensor(Z) + 6.5 * h.tensor(Z)
    torch.testing.assert_close(combined.tensor(Z), expected)
    assert combined.embedding(Z).shape == (5, 4 * 6)
    assert all(layer.rule is not None for layer in survey(layers_of(combined.embedding)))
    assert combined.dim == 2


def test_a_multiple_scales_distances_by_the_root():
    sphere, (a, b) = PullbackMetric(Sphere().embedding), 0.4 * numbers(2, 3, 2)
    torch.testing.assert_close(distance(4.0 * sphere, a, b), 2 * distance(sphere, a, b), rtol=1e-9, atol=0)


def test_a_users_object_joins_a_sum_from_either_side():
    euclidean = EuclideanMetric(2)
    for metric in (euclidean + OnlyTensor(), OnlyTensor() + euclidean):
        assert metric.embedding is None
        assert metric.compact_embedding() is None
        torch.testing.assert_close(metric.tensor(Z), euclidean.tensor(Z) + OnlyTensor().tensor(Z))


def test_a_function_with_numbers_of_its_own_joins_a_network():
    """The coarse stage in single precision must not be tried where it cannot be copied."""
    shift = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    metric = PullbackMetric(lambda z: torch.sin(z + shift)) + PullbackMetric(decoder())
    path = geodesic(metric, numbers(2, 2, seed=2), numbers(2, 2, seed=3), starts="line")
    assert bool(path.converged.all())


def test_the_determinant_of_a_sum_keeps_its_digits():
    """Both members see nearly one direction; the sum of their tensors has lost the other in float32."""
    first = numbers(30, 1)
    layers = []
    for seed in (2, 3):
        layer = nn.Linear(2, 30, bias=False)
        columns = torch.cat([first, first + 1e-4 * numbers(30, 1, seed=seed)], dim=1)
        layer.weight = nn.Parameter(columns.float(), requires_grad=False)
        layers.append(layer)
    stacked = torch.cat([layer.weight for layer in layers]).double()
    truth = 2 * torch.linalg.qr(stacked).R.diagonal().abs().log().sum().item()
    metric = PullbackMetric(layers[0]) + PullbackMetric(layers[1])
    assert metric.logdet(torch.zeros(1, 2)).item() == pytest.approx(truth, abs=5e-3)


# ensembles and noise
def test_expected_metric_is_the_mean_over_draws_of_the_noise(generator):
    mean, scale = decoder(), nn.Sequential(decoder(seed=1), nn.Softplus())
    jets = [reference_jet(f, Z, 1).jacobian for f in (mean, scale)]
    noise = torch.randn(20_000, 1, 6, 1, generator=generator, dtype=torch.float64)
    J = jets[0] + noise * jets[1]
    sampled = (J.mT @ J).mean(0)
    seen = ExpectedPullbackMetric(mean, scale).tensor(Z)
    torch.testing.assert_close(seen, jets[0].mT @ jets[0] + jets[1].mT @ jets[1])
    assert ((sampled - seen).abs().amax((1, 2)) / seen.abs().amax((1, 2))).max() < 0.02


@pytest.mark.parametrize("name", [name for name in AMBIENTS if name != "LowRank of z"])
def test_ensemble_is_the_mean_of_its_members(name):
    members = [decoder(seed=k) for k in range(4)]
    mean = torch.stack([PullbackMetric(f, AMBIENTS[name]).tensor(Z) for f in members]).mean(0)
    torch.testing.assert_close(
        EnsembleMetric(members, AMBIENTS[name]).tensor(Z), mean, rtol=1e-13, atol=1e-13
    )


def test_a_wide_ensemble_computes_with_a_narrow_embedding():
    metric = EnsembleMetric([decoder(p=500, seed=k) for k in range(3)])
    assert metric.embedding(Z).shape == (5, 1500)
    assert metric.compact_embedding()(Z).shape == (5, 21)
    torch.testing.assert_close(
        PullbackMetric(metric.compact_embedding()).tensor(Z), metric.tensor(Z), rtol=1e-12, atol=1e-12
    )


def test_an_ensemble_of_one_is_its_member():
    a, b = numbers(2, 2, seed=2), numbers(2, 2, seed=3)
    one = geodesic(EnsembleMetric([decoder()]), a, b, starts="line")
    torch.testing.assert_close(one.length, geodesic(PullbackMetric(decoder()), a, b, starts="line").length)


# conformal factors
def test_the_disk_is_conformal_to_the_plane():
    disk = ConformalMetric(EuclideanMetric(2), lambda z: math.log(2) - torch.log1p(-z.square().sum(-1)))
    z = 0.3 * Z
    torch.testing.assert_close(disk.tensor(z), PoincareDisk().tensor(z))
    a, b = 0.3 * numbers(4, 2, seed=2), 0.3 * numbers(4, 2, seed=3)
    torch.testing.assert_close(distance(disk, a, b), PoincareDisk().distance(a, b), rtol=1e-7, atol=0)


def test_a_hill_of_the_factor_bends_geodesics_around_it():
    hill = ConformalMetric(EuclideanMetric(2), lambda z: 2 * torch.exp(-4 * z.square().sum(-1, keepdim=True)))
    a, b = torch.tensor([[-1.0, 0.05]]).double(), torch.tensor([[1.0, 0.05]]).double()
    path = geodesic(hill, a, b, starts="line")
    assert bool(path.converged.all())
    assert path.points[0, :, 1].abs().max() > 0.3


# learned parameters
def test_learned_gaussian_has_the_fisher_rao_distance():
    """A decoder that is the identity on (μ, log σ): a product of two hyperbolic planes."""
    metric = PullbackMetric(nn.Identity(), A.LearnedGaussian())
    a, b = 0.5 * numbers(3, 4, seed=2), 0.5 * numbers(3, 4, seed=3)
    pairs = [
        FisherNormal().distance(*(torch.stack([z[:, k], z[:, 2 + k].exp()], dim=1) for z in (a, b)))
        for k in (0, 1)
    ]
    path = geodesic(metric, a, b, starts="line")
    assert bool(path.converged.all())
    torch.testing.assert_close(path.length, torch.hypot(*pairs), rtol=1e-7, atol=0)


def test_counts_of_learned_dispersion_have_the_distance_of_fixed_dispersion_where_it_is_fixed():
    theta = 3.0
    net = decoder()

    def learned(z):
        eta = net(z)
        return torch.cat([eta, torch.full_like(eta, math.log(theta))], dim=1)

    a, b = numbers(3, 2, seed=2), numbers(3, 2, seed=3)
    two, one = (
        geodesic(metric, a, b, starts="line")
        for metric in (
            PullbackMetric(learned, A.LearnedNegativeBinomial()),
            PullbackMetric(net, A.NegativeBinomial(theta)),
        )
    )
    assert bool(two.converged.all())
    torch.testing.assert_close(two.length, one.length, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", AMBIENTS)
def test_tensor_is_that_of_w_to_the_last_digits(name):
    """Acceptance 13: through the flattening map, and Jᵀ W J with W applied to the columns, to 1e-13."""
    f, ambient = decoder(), AMBIENTS[name]
    state = reference_jet(f, Z, 1)
    at = ambient.at(Z) if isinstance(ambient, A.LowRank) else ambient
    expected = state.jacobian.mT @ at.apply(state.value, state.jacobian)
    seen = PullbackMetric(f, ambient).tensor(Z)
    assert ((seen - expected).abs().amax((1, 2)) / expected.abs().amax((1, 2))).max() <= 1e-13


# users' metrics
class Learned(nn.Module):
    """A user's metric with parameters and nothing but `tensor`."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.3, 0.7], dtype=torch.float64))

    def tensor(self, z):
        return torch.diag_embed(torch.exp(self.scale * z.sin()))


@pytest.mark.parametrize("by_function", [True, False])
def test_distances_of_a_users_metric_have_gradients(by_function):
    mine = Learned()
    metric = from_tensor(mine.tensor, 2) if by_function else mine
    a, b = numbers(3, 2, seed=2).requires_grad_(), numbers(3, 2, seed=3)
    wanted = [a, mine.scale]
    found = torch.autograd.grad(distance(metric, a, b, starts="line").sum(), wanted)
    for tensor, gradient in zip(wanted, found, strict=True):
        step = 1e-5 * numbers(*tensor.shape, seed=6)
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                tensor += sign * step
                ends.append(distance(metric, a, b, starts="line").sum().item())
                tensor -= sign * step
        assert (gradient * step).sum().item() == pytest.approx((ends[0] - ends[1]) / 2, rel=1e-4)


# bad input
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SumMetric([]), ValueError, "metrics: expected a list of at least one metric"),
        (lambda: SumMetric(OnlyTensor()), ValueError, "metrics: expected a list"),
        (lambda: SumMetric([nn.Linear(2, 3)]), TypeError, "metric: expected an object with tensor"),
        (lambda: SumMetric([OnlyTensor()], [1, 2]), ValueError, "weights: expected 1 like metrics, got 2"),
        (lambda: SumMetric([OnlyTensor()], ["a"]), TypeError, "weights: expected numbers, got str"),
        (lambda: -1.0 * EuclideanMetric(2), ValueError, "weights: expected a finite number > 0, got -1.0"),
        (lambda: EuclideanMetric(2) * math.nan, ValueError, "weights: expected a finite number > 0"),
        (lambda: EuclideanMetric(2) * "b", TypeError, "weights: expected numbers"),
        (lambda: EuclideanMetric(2) + 3, TypeError, "metric: expected an object with tensor"),
        (
            lambda: EuclideanMetric(2) + EuclideanMetric(3),
            ValueError,
            r"metrics: expected one latent dimension, got \[2, 3\]",
        ),
        (lambda: EnsembleMetric([]), ValueError, "decoders: expected a list of at least one"),
        (lambda: EnsembleMetric(decoder()), ValueError, "decoders: expected a list .* got Sequential"),
        (lambda: EnsembleMetric([decoder(), 3]), TypeError, "decoders: expected maps .* got int at 1"),
        (lambda: ExpectedPullbackMetric(3, decoder()), TypeError, "mean: expected a map"),
        (lambda: ExpectedPullbackMetric(decoder(), None), TypeError, "scale: expected a map"),
        (lambda: ConformalMetric(decoder(), torch.sum), TypeError, "wrap a decoder in PullbackMetric"),
        (lambda: ConformalMetric(EuclideanMetric(2), 2.0), TypeError, "log_factor: expected a map"),
        (
            lambda: ConformalMetric(EuclideanMetric(2), lambda z: z).tensor(Z),
            ValueError,
            r"log_factor: expected \(5,\) or \(5, 1\) for z \(5, 2\), got \(5, 2\)",
        ),
        (lambda: PullbackMetric(decoder(p=5), A.LearnedGaussian()).tensor(Z), ValueError, "even number"),
        (lambda: PullbackMetric(decoder(p=5), A.LearnedGaussian()).derivative(Z), ValueError, "even number"),
    ],
)
def test_bad_input_names_the_argument(call, error, message, as_users_run):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kind", ["sum", "ensemble", "expected", "conformal"])
def test_train_mode_is_refused_in_every_combination(kind):
    train = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.1), nn.Linear(4, 3)).double()
    metric: BaseMetric = {
        "sum": lambda: PullbackMetric(train) + EuclideanMetric(2),
        "ensemble": lambda: EnsembleMetric([train]),
        "expected": lambda: ExpectedPullbackMetric(nn.Linear(2, 3).double(), train),
        "conformal": lambda: ConformalMetric(PullbackMetric(train), lambda z: z.sum(-1)),
    }[kind]()
    for method in (metric.tensor, metric.logdet, metric.derivative):
        with pytest.raises(ValueError, match=r"decoder is in train mode; call decoder\.eval\(\)"):
            method(Z)
    with pytest.raises(ValueError, match=r"decoder is in train mode; call decoder\.eval\(\)"):
        geodesic(metric, Z[:1], Z[1:2])


def test_metrics_of_centroids_and_decoders_can_be_mixed(dtype):
    z = Z.to(dtype)
    mixed = centroids(dtype, 2, "mean") + 0.1 * PullbackMetric(decoder(dtype))
    assert mixed.dim == 2
    assert mixed.embedding is None
    path = geodesic(mixed, z[:2], z[2:4], starts="line")
    assert bool(path.converged.all())
    assert path.points.dtype == dtype
