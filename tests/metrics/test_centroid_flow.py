"""The written-out derivatives of a flow on a centroid metric against autograd of plain operations."""

import pytest
import torch

from metric_cases import centroids, numbers
from pullback.metrics import CentroidMetric
from pullback.metrics.centroid_local import CentroidAt
from pullback.metrics.local import TensorAt

CASES = [(d, kind) for d in (1, 2, 3, 4, 6) for kind in ("mean", "sum")]
N = 3


def local(z, c, L, kind):
    metric = CentroidMetric(c, L, temperature=1.2, regularization=0.1, reduction=kind)
    found = metric.local(z)
    assert isinstance(found, CentroidAt)
    return found


def inputs(d, count):
    plain = centroids(torch.float64, d, "mean")
    points = [numbers(N, d, seed=20 + k) for k in range(count)]
    return [t.clone().requires_grad_() for t in (*points, plain.centroids[:4], plain.factors[:4])]


@pytest.mark.parametrize(("d", "kind"), CASES)
def test_all_that_is_known_at_a_point(d, kind):
    def known(z, p, noise, c, L):
        here = local(z, c, L, kind)
        parts = (here.inverse, here.logdet, here.rest_gradient, here.force(p), here.velocity(p))
        return (*parts, here.kinetic_gradient(p), here.momentum(noise))

    assert torch.autograd.gradcheck(known, inputs(d, 3))
    z, p, _, c, L = inputs(d, 3)
    here, plain = (
        local(z, c, L, kind),
        TensorAt(CentroidMetric(c, L, temperature=1.2, regularization=0.1, reduction=kind), z),
    )
    for name in ("inverse", "logdet", "rest_gradient"):
        torch.testing.assert_close(getattr(here, name), getattr(plain, name), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(here.force(p), plain.force(p), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("d", "kind"), CASES)
@pytest.mark.parametrize("count", [1, 3])
def test_iterates_are_those_of_the_plain_loop(d, kind, count):
    def iterates(z, p, base, c, L):
        here = local(z, c, L, kind)
        momentum = here.momentum_iterates(p, base, half_step=0.1, count=count)[0]
        return momentum, here.position_iterates(p, half_step=0.1, count=count)[0]

    assert torch.autograd.gradcheck(iterates, inputs(d, 3))
    z, p, base, c, L = inputs(d, 3)
    here = local(z, c, L, kind)
    # a step that is a tensor takes the plain loop
    step = torch.tensor(0.1, dtype=torch.float64)
    for name, arguments in (("momentum_iterates", (p, base)), ("position_iterates", (p,))):
        fused, plain = (getattr(here, name)(*arguments, half_step=half, count=count) for half in (0.1, step))
        for one, other in zip(fused, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-14)


def test_parts_that_nothing_depends_on_may_be_left_out():
    for name in ("inverse", "logdet", "rest_gradient"):
        for d in (2, 4):
            z, c, L = inputs(d, 1)
            found = torch.autograd.grad(getattr(local(z, c, L, "mean"), name).sum(), (z, c, L))
            metric = CentroidMetric(c, L, temperature=1.2, regularization=0.1)
            expected = torch.autograd.grad(getattr(TensorAt(metric, z), name).sum(), (z, c, L))
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_a_second_derivative_is_refused_instead_of_wrong():
    z, c, L = inputs(2, 1)
    # of a sum with something else the part of the metric would silently be missing
    total = local(z, c, L, "mean").logdet.sum() + z.square().sum()
    with pytest.raises(RuntimeError, match="can be taken once"):
        torch.autograd.grad(total, z, create_graph=True)


@pytest.mark.parametrize("d", [2, 5])
def test_a_point_that_is_not_finite_spoils_no_other(d):
    metric = centroids(torch.float64, d, "mean")
    z = numbers(4, d)
    z[1, 0] = torch.nan
    here = metric.local(z)
    sound = torch.tensor([True, False, True, True])
    for values in (here.logdet, here.rest_gradient, here.momentum(numbers(4, d))):
        assert torch.isfinite(values.reshape(4, -1)).all(1).tolist() == sound.tolist()
    expected = metric.local(z[sound]).rest_gradient
    torch.testing.assert_close(here.rest_gradient[sound], expected, rtol=1e-13, atol=1e-14)


def test_many_centroids_take_the_sums_in_chunks(monkeypatch):
    metric, z, p = centroids(torch.float64, 3, "mean"), numbers(5, 3), numbers(5, 3, seed=9)
    whole = metric.local(z)
    monkeypatch.setattr("pullback.metrics.centroid.LOCAL_WEIGHTS", 10)
    parts = metric.local(z)
    assert isinstance(parts, TensorAt)
    torch.testing.assert_close(whole.kinetic_gradient(p), parts.kinetic_gradient(p), rtol=1e-12, atol=1e-13)
