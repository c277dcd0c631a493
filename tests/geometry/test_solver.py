"""What the solver returns where it does not converge."""

import pytest
import torch

from pullback.geometry import curve_length, geodesic
from pullback.geometry.reference import Sphere
from pullback.metrics import PullbackMetric, from_tensor
from surfaces import torn

SPHERE = PullbackMetric(Sphere().embedding)
BY_TENSOR = from_tensor(Sphere().tensor, 2)


@pytest.mark.parametrize(
    "metric",
    [pytest.param(SPHERE, id="embedding"), pytest.param(BY_TENSOR, marks=pytest.mark.slow, id="tensor")],
)
def test_a_curve_without_a_certificate_is_never_longer_than_its_line(metric, dtype):
    """Across the pole of the chart the shortest way leads through infinity."""
    a = torch.tensor([[0.87, -3.7], [-1.8, -1.8], [0.1, 0.2]], dtype=dtype)
    b = torch.tensor([[-0.13, 2.57], [1.08, 0.89], [0.3, -0.2]], dtype=dtype)
    path = geodesic(metric, a, b, max_nodes=65)
    t = torch.linspace(0, 1, 65, dtype=dtype)[:, None]
    line = curve_length(metric, torch.lerp(a[:, None], b[:, None], t))
    assert bool(path.converged[2])
    assert (path.length <= line * (1 + 1e-4)).all()
    assert torch.isfinite(path.points).all()
    assert torch.isfinite(path.velocity_start).all()
    lost = ~path.converged
    assert (path.residual[lost] > 1e-6).all()
    assert torch.equal(path.points[:, 0], a)
    assert torch.equal(path.points[:, -1], b)


def test_pairs_of_which_no_start_stays_in_the_domain_spoil_no_other():
    z = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    path = geodesic(from_tensor(torn, 2), z[[0, 1]], z[[1, 2]], starts=("line", "graph"))
    assert path.converged.tolist() == [False, True]
    assert torch.isfinite(path.points).all()
    assert path.message.startswith("1 of 2 curves not converged: 1 left the domain")
