"""The volume sampler against quadrature on the same support."""

import pytest
import torch
from torch import Tensor, nn

from pullback.dynamics import Chains, volume_sampler
from pullback.dynamics.chains import GeneratorNoise, run_chains
from pullback.dynamics.hmc import FlatKernel
from pullback.dynamics.priors import spherical_logprior
from pullback.dynamics.volume import VolumePotential
from pullback.metrics import BaseMetric, CentroidMetric, EuclideanMetric, PullbackMetric, from_tensor


def learned_metric(
    d: int = 2, *, n: int = 12, dtype: torch.dtype = torch.float64, **options
) -> CentroidMetric:
    draw = torch.Generator().manual_seed(5)
    c = 0.8 * torch.randn(n, d, generator=draw)
    L = torch.randn(n, d, d, generator=draw).tril()
    settings = {"temperature": 0.7, "regularization": 0.02} | options
    return CentroidMetric(c.to(dtype), L.to(dtype), **settings)


def moments(
    metric: BaseMetric, density: str, centres: Tensor, reach: float, support: str
) -> tuple[Tensor, ...]:
    """Mean, variance and mean log density by quadrature on a grid."""
    low, high = centres.amin(0) - reach, centres.amax(0) + reach
    if support == "prior":
        low, high = torch.full((2,), -6.0).double(), torch.full((2,), 6.0).double()
    n = 601
    sides = [a + (b - a) * (torch.arange(n).double() + 0.5) / n for a, b in zip(low, high, strict=True)]
    z = torch.cartesian_prod(*sides)
    log_density = (-0.5 if density == "inverse_volume" else 0.5) * metric.logdet(z)
    if support == "prior":
        log_density = log_density + spherical_logprior(z)
    weight = log_density.exp()
    if support == "balls":
        weight = weight * (torch.cdist(z, centres).amin(1) <= reach)
    weight = weight / weight.sum()
    mean = weight @ z
    return mean, weight @ (z - mean).square(), weight @ log_density


def assert_moments(chains: Chains, mean: Tensor, variance: Tensor, log_density: Tensor) -> None:
    n = len(chains.z)
    assert bool(((chains.z.mean(0) - mean).abs() <= 4 * (variance / n).sqrt()).all()), chains.z.mean(0)
    torch.testing.assert_close(chains.z.var(0), variance, rtol=0.08, atol=0)
    error = 4 * chains.log_density.std() / n**0.5
    assert float((chains.log_density.mean() - log_density).abs()) <= float(error)


@pytest.mark.parametrize(
    ("support", "density"),
    [
        ("balls", "inverse_volume"),
        ("box", "inverse_volume"),
        ("prior", "inverse_volume"),
        ("prior", "volume"),
    ],
)
def test_moments_are_those_of_quadrature(support: str, density: str) -> None:
    metric = learned_metric()
    chains = volume_sampler(
        metric, 4000, density=density, support=support, radius=1.5, n_steps=80, n_leapfrog=10
    )
    assert chains.converged, chains.message
    assert int(chains.divergences.sum()) == 0
    assert_moments(chains, *moments(metric, density, metric.centroids, 1.5 * 0.7, support))
    reach = 1.5 * 0.7 + 1e-12
    if support == "balls":
        assert float(torch.cdist(chains.z, metric.centroids).amin(1).max()) <= reach
    if support == "box":
        assert bool((chains.z <= metric.centroids.amax(0) + reach).all())


def test_volume_of_a_learned_metric_lies_at_the_rim() -> None:
    """Long paths leave the support, and the result says so; short ones are right."""
    metric = learned_metric()
    settings = {"density": "volume", "support": "box", "radius": 1.5}
    long = volume_sampler(metric, 500, **settings, n_leapfrog=15)
    assert not long.converged
    short = volume_sampler(metric, 4000, **settings, n_steps=200, n_leapfrog=3, step_size=0.25)
    assert_moments(short, *moments(metric, "volume", metric.centroids, 1.5 * 0.7, "box"))


def test_a_metric_without_centroids() -> None:
    """π ∝ √det G of the sphere's metric in stereographic coordinates, on balls around given points."""
    sphere = from_tensor(lambda z: torch.eye(2).to(z) * (4 / (1 + z.square().sum(-1)) ** 2)[:, None, None], 2)
    start = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-1.0, 0.3]], dtype=torch.float64)
    chains = volume_sampler(
        sphere, 3000, density="volume", start=start, scale=0.6, n_steps=40, n_leapfrog=6, step_size=0.25
    )
    assert_moments(chains, *moments(sphere, "volume", start, 1.2, "balls"))


@pytest.mark.parametrize("kind", ["decoder", "constant", "no graph"])
def test_gradient_of_any_metric(kind: str) -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    pulled = PullbackMetric(decoder)

    class Untraced:
        """A metric whose log det has no graph, as one computed elsewhere."""

        dim = 2
        tensor, inverse, derivative = pulled.tensor, pulled.inverse, pulled.derivative

        def logdet(self, z: Tensor) -> Tensor:
            return pulled.logdet(z.detach()).detach()

    from pullback.metrics import as_metric

    metric = {"decoder": pulled, "constant": EuclideanMetric(2), "no graph": as_metric(Untraced())}[kind]
    z = torch.randn(5, 2, dtype=torch.float64)
    value, gradient = VolumePotential(metric, "volume", prior=True).value_and_gradient(z)
    point = z.clone().requires_grad_()
    known = pulled.logdet(point) if kind != "constant" else 0 * point.sum(1)
    wanted = -known / 2 - spherical_logprior(point)
    (slope,) = torch.autograd.grad(wanted.sum(), point)
    torch.testing.assert_close(value, wanted.detach())
    torch.testing.assert_close(gradient, slope)


def test_the_flat_metric_gives_the_prior_and_the_uniform_law() -> None:
    prior = volume_sampler(EuclideanMetric(3), 2000, support="prior", n_steps=30)
    torch.testing.assert_close(prior.z.var(0), torch.ones(3), rtol=0.12, atol=0)
    torch.testing.assert_close(prior.log_density, spherical_logprior(prior.z))
    box = volume_sampler(
        EuclideanMetric(1), 2000, support="box", start=torch.zeros(1, 1), scale=1.0, radius=1.0, n_leapfrog=3
    )
    assert float(box.z.var()) == pytest.approx(1 / 3, rel=0.08)


def test_points_without_volume_are_rejections() -> None:
    """A tensor that is positive definite only for z_1 < 1, whose log det raises for all points elsewhere."""

    def tensor(z: Tensor) -> Tensor:
        return torch.eye(2).to(z) * (1 - z[:, 0])[:, None, None]

    start = torch.zeros(1, 2, dtype=torch.float64)
    options = {"n_steps": 10, "n_leapfrog": 4, "step_size": 0.2}
    chains = volume_sampler(from_tensor(tensor, 2), 10, start=start, scale=1.0, **options)
    assert float(chains.z[:, 0].max()) < 1
    assert float(chains.acceptance.mean()) > 0.1
    assert int(chains.divergences.sum()) > 0


def test_chains_start_at_as_many_centroids_as_there_are() -> None:
    metric = learned_metric(n=10)
    near = {"n_steps": 1, "n_leapfrog": 1, "step_size": 1e-6}
    seen = (
        torch.cdist(volume_sampler(metric, 25, **near).z, metric.centroids).argmin(1).bincount(minlength=10)
    )
    assert int(seen.min()) == 2
    assert int(seen.max()) == 3


def test_a_chain_does_not_depend_on_its_neighbours() -> None:
    metric = learned_metric()
    potential = VolumePotential(metric, "inverse_volume", prior=False)
    noise = GeneratorNoise(torch.zeros(6, 2).double(), torch.Generator().manual_seed(3))
    drawn = [noise() for _ in range(10)]

    def run(rows: list[int]) -> Chains:
        numbers = iter(drawn)
        return run_chains(
            FlatKernel(potential, n_leapfrog=5),
            metric.centroids[rows],
            n_steps=10,
            step_size=0.2,
            noise=lambda: tuple(part[rows] for part in next(numbers)),
        )

    together = run(list(range(6)))
    for rows in ([4], [1, 3]):
        torch.testing.assert_close(run(rows).z, together.z[rows], rtol=1e-10, atol=1e-10)


def test_seeds_and_precision(dtype: torch.dtype) -> None:
    metric, few = learned_metric(dtype=dtype), {"n_steps": 8, "n_leapfrog": 4}

    def run(seed: int) -> Chains:
        return volume_sampler(metric, 5, generator=torch.Generator().manual_seed(seed), **few)

    before = torch.get_rng_state()
    first = run(1)
    assert torch.equal(first.z, run(1).z)
    assert not torch.equal(first.z, run(2).z)
    assert torch.equal(volume_sampler(metric, 5, **few).z, volume_sampler(metric, 5, **few).z)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.z.dtype == first.log_density.dtype == dtype
    torch.testing.assert_close(first.log_density, -metric.logdet(first.z) / 2, rtol=1e-5, atol=1e-5)


def test_single_and_double_precision_agree() -> None:
    single, double = (
        volume_sampler(learned_metric(dtype=dtype), 2000, n_steps=60, n_leapfrog=8)
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single.variance.double(), double.variance, rtol=0.03, atol=0)
    assert abs(float(single.acceptance.mean()) - float(double.acceptance.mean())) < 0.01


@pytest.mark.parametrize("d", [1, 2, 4])
def test_edges_of_the_metric(d: int, dtype: torch.dtype) -> None:
    """One centroid, equal centroids, no reach, no floor: all defined, nothing leaves the support."""
    one = {"n": 1, "temperature": 0.5}
    cases = [
        learned_metric(d, dtype=dtype, **one),
        learned_metric(d, dtype=dtype, temperature=1e-4),
        learned_metric(d, dtype=dtype, regularization=1e-10),
        learned_metric(d, dtype=dtype, temperature=1e3),
    ]
    same = learned_metric(d, dtype=dtype)
    cases.append(
        CentroidMetric(torch.ones_like(same.centroids), same.factors, temperature=0.5, regularization=0.01)
    )
    cases.append(
        CentroidMetric(same.centroids, torch.zeros_like(same.factors), temperature=0.5, regularization=0.01)
    )
    for metric in cases:
        chains = volume_sampler(metric, 20, n_steps=20, n_leapfrog=5)
        assert bool(torch.isfinite(chains.z).all())
        assert bool(torch.isfinite(chains.log_density).all())
        reach = 2 * metric.temperature * (1 + 1e-4)
        assert float(torch.cdist(chains.z, metric.centroids).amin(1).max()) <= reach
        assert float(chains.acceptance.mean()) > 0.2


def test_more_volume_where_the_data_are() -> None:
    """Against uniform points of the same support."""
    metric = learned_metric(6, n=40, temperature=1.2)
    here = volume_sampler(metric, 300, n_steps=40)
    radius = 2 * 1.2 * torch.rand(4000, 1, generator=torch.Generator().manual_seed(0)).double() ** (1 / 6)
    direction = nn.functional.normalize(
        torch.randn(4000, 6, generator=torch.Generator().manual_seed(1)).double()
    )
    around = metric.centroids[torch.arange(4000) % 40] + radius * direction
    assert float(here.log_density.mean()) > float(-metric.logdet(around).mean() / 2) + 1


METRIC = learned_metric()
FLAT = EuclideanMetric(2)


@pytest.mark.parametrize(
    ("metric", "options", "error", "message"),
    [
        (3, {}, TypeError, "metric: expected an object with tensor(z)"),
        (METRIC, {"n": 0}, ValueError, "n: expected a whole number >= 1"),
        (METRIC, {"n": 2.0}, TypeError, "n: expected a whole number"),
        (METRIC, {"density": "mass"}, ValueError, "'inverse_volume', 'volume'"),
        (METRIC, {"support": "ball"}, ValueError, "'balls', 'box', 'prior'"),
        (METRIC, {"radius": 0.0}, ValueError, "radius: expected a finite number > 0"),
        (METRIC, {"radius": "far"}, TypeError, "radius: expected a number"),
        (METRIC, {"scale": -1.0}, ValueError, "scale: expected a finite number > 0"),
        (METRIC, {"step_size": 0}, ValueError, "step_size"),
        (METRIC, {"n_steps": 0}, ValueError, "n_steps"),
        (METRIC, {"n_leapfrog": 0}, ValueError, "n_leapfrog"),
        (METRIC, {"jitter": -0.1}, ValueError, "jitter"),
        (METRIC, {"generator": 5}, TypeError, "generator"),
        (METRIC, {"start": torch.zeros(3, 3)}, ValueError, "start: expected (n, 2)"),
        (METRIC, {"start": torch.zeros(3, 2)}, ValueError, "float64 like centroids, got torch.float32"),
        (METRIC, {"start": torch.full((1, 2), 50.0).double()}, ValueError, "within the support 'balls'"),
        (FLAT, {}, ValueError, "scale: expected a length"),
        (FLAT, {"scale": 1.0}, ValueError, "start: expected points (N, d), the centres of support 'balls'"),
        (FLAT, {"scale": 1.0, "start": torch.zeros(0, 2)}, ValueError, "start: expected at least one point"),
        (from_tensor(lambda z: -z[:, :, None] * z[:, None], 2), {"support": "prior"}, ValueError, "definite"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(metric: object, options: dict, error: type[Exception], message: str) -> None:
    settings = {"n": 3, "n_steps": 2} | options
    with pytest.raises(error) as caught:
        volume_sampler(metric, settings.pop("n"), **settings)
    assert message in str(caught.value)
