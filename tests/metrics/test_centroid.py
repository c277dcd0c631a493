"""The centroid metric against recorded numbers, autograd, sampling and shooting."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metric_cases import centroids, numbers
from pullback.geometry import curve_length, geodesic, magnification
from pullback.metrics import CentroidMetric, EuclideanMetric
from pullback.metrics.centroid_volume import CentroidVolume

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "rhvae.npz", allow_pickle=False)


def recorded(case: str, key: str) -> torch.Tensor:
    return torch.as_tensor(GOLDEN[f"{case}/{key}"])


def golden_metric(case: str) -> CentroidMetric:
    settings = recorded(case, "cfg")
    return CentroidMetric(
        recorded(case, "c"),
        torch.linalg.cholesky(recorded(case, "M")),
        temperature=float(settings[4]),
        regularization=float(settings[5]),
        reduction="sum",
    )


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_tensor_and_determinant_are_the_recorded_ones(case):
    metric, z = golden_metric(case), recorded(case, "z")
    close = {"rtol": 1e-13, "atol": 1e-13}
    torch.testing.assert_close(metric.tensor(z), recorded(case, "G"), **close)
    torch.testing.assert_close(metric.inverse(z), recorded(case, "G_inv"), **close)
    torch.testing.assert_close(metric.logdet(z), recorded(case, "logdetG"), **close)
    # recorded with 1e-10 added inside of the logarithm, which shows at the point far away
    seen = torch.log(torch.exp(-magnification(metric, z)) + 1e-10)
    torch.testing.assert_close(seen, recorded(case, "log_sqrt_det_G_inv"), rtol=0, atol=1e-9)
    gradient = recorded(case, "grad_log_sqrt_det_autograd")
    torch.testing.assert_close(-metric.logdet_gradient(z) / 2, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_velocity_is_the_recorded_one(case):
    metric, z, rho = golden_metric(case), recorded(case, "z"), recorded(case, "rho")
    torch.testing.assert_close(metric.velocity(z, rho), recorded(case, "dHdrho"), rtol=1e-12, atol=1e-12)


def test_geodesic_is_that_of_the_boundary_value_solver():
    metric, c = golden_metric("a"), recorded("a", "c")
    path = geodesic(metric, c[:1], c[1:2], starts="line", nodes=81, max_nodes=321, tol=1e-9)
    assert bool(path.converged.all())
    assert path.length.item() == pytest.approx(recorded("a", "geo_length").item(), rel=1e-9)
    nodes = path.points[0, ::8]
    # the nodes of a mesh are off by O(1/n²): extrapolated from two meshes
    coarse = geodesic(metric, c[:1], c[1:2], starts="line", nodes=41, max_nodes=41, tol=1e-9).points[0, ::4]
    expected = recorded("a", "geo_path_t0to1_11")
    assert (nodes - expected).abs().max() <= 1e-8
    assert ((4 * nodes - coarse) / 3 - expected).abs().max() <= 1e-9


def test_geodesic_is_that_of_the_hamiltonian_flow():
    """Shooting with dz/dt = g⁻¹p, dp/dt = force: nothing but `inverse` and `hamiltonian_force`."""
    metric = centroids(torch.float64, 2, "mean")
    z, v = numbers(3, 2, seed=2), 0.5 * numbers(3, 2, seed=3)
    p = (metric.tensor(z) @ v.unsqueeze(-1)).squeeze(-1)
    length = (p * v).sum(-1).sqrt()
    nodes, steps = [z], 96
    y = torch.cat([z, p], dim=1)

    def rates(y):
        x, q = y.chunk(2, dim=1)
        return torch.cat([metric.velocity(x, q), metric.hamiltonian_force(x, q)], dim=1)

    for _ in range(steps):
        k1 = rates(y)
        k2 = rates(y + k1 / (2 * steps))
        k3 = rates(y + k2 / (2 * steps))
        k4 = rates(y + k3 / steps)
        y = y + (k1 + 2 * k2 + 2 * k3 + k4) / (6 * steps)
        nodes.append(y[:, :2])
    flown = torch.stack(nodes, dim=1)
    torch.testing.assert_close(curve_length(metric, flown), length, rtol=1e-8, atol=0)
    path = geodesic(metric, z, y[:, :2], starts=flown)
    assert bool(path.converged.all())
    torch.testing.assert_close(path.length, length, rtol=1e-6, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("d", [1, 2, 3, 6, 10])
def test_gradients_are_those_of_autograd(d, reduction):
    metric = centroids(torch.float64, d, reduction)
    z, rho = numbers(4, d, seed=2).requires_grad_(), numbers(4, d, seed=3)
    kinetic = (metric.logdet(z) + (rho * metric.velocity(z, rho)).sum(-1)) / 2
    (expected,) = torch.autograd.grad(kinetic.sum(), z)
    found = metric.kinetic_gradient(z.detach(), rho)
    assert ((found - expected).abs().max() / expected.abs().max()) <= 1e-13


def test_gradients_reach_centroids_and_factors():
    c, L = numbers(5, 2).requires_grad_(), torch.tril(numbers(5, 2, 2, seed=2)).requires_grad_()
    z = numbers(3, 2, seed=3)

    def value(c, L):
        metric = CentroidMetric(c, L, temperature=1.1, regularization=0.2)
        return metric.tensor(z), metric.logdet(z), metric.derivative(z)

    assert torch.autograd.gradcheck(value, (c, L))


def test_no_centroid_pulls_far_away_and_none_is_needed_for_the_flat_metric(dtype):
    c = numbers(7, 3, dtype=dtype)
    metric = CentroidMetric(c, torch.zeros(7, 3, 3, dtype=dtype), temperature=1.0, regularization=1)
    z, p = numbers(4, 3, seed=2, dtype=dtype), numbers(4, 3, seed=3, dtype=dtype)
    flat = EuclideanMetric(3)
    torch.testing.assert_close(metric.tensor(z), flat.tensor(z))
    assert metric.logdet(z).abs().max() == 0
    assert metric.hamiltonian_force(z, p).abs().max() == 0
    bumpy = centroids(dtype, 3, "mean")
    far = torch.full((1, 3), 50.0, dtype=dtype)
    torch.testing.assert_close(bumpy.tensor(far), flat.tensor(far) / 0.1)
    assert bumpy.coverage(far).item() == 0
    assert bumpy.coverage(bumpy.centroids[:2]).tolist() == [1, 1]


def test_momenta_have_the_covariance_of_the_metric(generator):
    metric = centroids(torch.float64, 2, "mean")
    z = numbers(1, 2).expand(40_000, -1)
    drawn = metric.sample_momentum(z, generator)
    g = metric.tensor(z[:1])[0]
    error = ((g.diagonal()[:, None] * g.diagonal() + g.square()) / len(z)).sqrt()
    assert ((torch.cov(drawn.mT) - g) / error).abs().max() < 4


def test_memory_does_not_grow_with_the_number_of_centroids():
    """No array of points by centroids by d² is made: the largest one allocated is bounded by the block."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for part in result if isinstance(result, tuple | list) else (result,):
                if isinstance(part, torch.Tensor):
                    fresh = part.untyped_storage().nbytes() // part.element_size()
                    self.numbers = max(self.numbers, fresh)
            return result

    N, n, d = 10_000, 1000, 3
    metric = CentroidMetric(
        numbers(N, d), torch.tril(numbers(N, d, d, seed=2)), temperature=1.0, regularization=0.1
    )
    z = numbers(n, d, seed=3)
    expected = metric.tensor(z[:3])
    with Largest() as seen, torch.no_grad():
        tensor = metric.tensor(z)
    torch.testing.assert_close(tensor[:3], expected)
    assert seen.numbers <= 2**20


def test_one_bad_point_spoils_no_other():
    metric, z = centroids(torch.float64, 2, "mean"), numbers(3, 2)
    good = metric.tensor(z)
    z[1] = torch.nan
    seen = metric.tensor(z)
    torch.testing.assert_close(seen[[0, 2]], good[[0, 2]])
    assert torch.isnan(seen[1]).all()


@pytest.mark.parametrize("d", [1, 2, 3, 9])
@pytest.mark.parametrize("option", ["temperature", "regularization"])
def test_the_smallest_reach_and_floor_are_defined(d, option, dtype):
    """At a centroid and far from all of them."""
    settings = {"temperature": 1.0, "regularization": 1e-2} | {option: 1.2e-19}
    metric = CentroidMetric(numbers(5, d, dtype=dtype), torch.eye(d, dtype=dtype).expand(5, d, d), **settings)
    z = torch.cat([metric.centroids, torch.full((1, d), 60.0, dtype=dtype)])
    here = metric.local(z)
    for value in (
        *(f(z) for f in (metric.tensor, metric.logdet, metric.derivative, metric.logdet_gradient)),
        metric.kinetic_gradient(z, z),
        *(here.inverse, here.logdet, here.rest_gradient, here.momentum(torch.ones_like(z))),
        CentroidVolume(metric)(z)[0],
    ):
        assert bool(torch.isfinite(value).all())
    torch.testing.assert_close(here.logdet, metric.logdet(z))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature: expected a finite number > 0, got 0.0"),
        ({"temperature": 1e-20}, r"temperature: expected at least 1.1e-19 in torch.float32, got 1e-20"),
        ({"regularization": 1e-20}, r"regularization: expected at least 1.1e-19 in torch.float32"),
        ({"regularization": -1.0}, "regularization: expected a finite number > 0"),
        ({"reduction": "max"}, "reduction: expected one of 'mean', 'sum', got 'max'"),
        ({"centroids": torch.full((4, 2), torch.nan)}, "centroids: expected finite numbers"),
        ({"factors": torch.full((4, 2, 2), torch.inf)}, "factors: expected finite numbers"),
        ({"factors": torch.ones(3, 2, 2)}, r"factors: expected \(4, 2, 2\) .* like centroids \(4, 2\)"),
        ({"factors": torch.ones(4, 2, 2).double()}, r"factors: expected .*torch.float32"),
        ({"centroids": torch.zeros(0, 2)}, "centroids: expected at least one"),
    ],
)
def test_bad_input_names_the_argument(change, message, as_users_run):
    good = {
        "centroids": torch.zeros(4, 2),
        "factors": torch.ones(4, 2, 2),
        "temperature": 1.0,
        "regularization": 0.1,
    }
    with pytest.raises(ValueError, match=message):
        CentroidMetric(**(good | change))
    with pytest.raises(TypeError, match=r"centroids: expected a torch\.Tensor, got list"):
        CentroidMetric([[0.0]], **({k: v for k, v in good.items() if k != "centroids"}))
