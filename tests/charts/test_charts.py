"""Every chart against central differences, its own integrals and isometries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback import charts
from pullback.charts.spheres import frame
from pullback.typing import Chart

CASES: list[Chart] = [
    charts.circle(),
    charts.circle(5),
    charts.interval(),
    charts.interval(7, boundary="smooth"),
    charts.interval(1),
    charts.plane(),
    charts.plane(4, boundary="smooth"),
    charts.sphere(1),
    charts.sphere(),
    charts.torus(),
    charts.torus(2),
    charts.line(),
    charts.points(5),
]
every = pytest.mark.parametrize("chart", CASES, ids=str)


def inside(chart: Chart, n: int = 40, seed: int = 0) -> torch.Tensor:
    """Random coordinates away from ends."""
    draw = torch.Generator().manual_seed(seed)
    if chart.name == "sphere":
        x = torch.randn(n, 3, generator=draw, dtype=torch.float64)
        return x / x.norm(dim=1, keepdim=True)
    u = torch.rand(n, chart.c, generator=draw, dtype=torch.float64)
    if chart.name == "points":
        return (u * chart.M).floor()
    return u * 2 * math.pi if chart.name in ("circle", "torus") else 1.8 * u - 0.9


@every
def test_charts_follow_the_protocol_and_its_shapes(chart: Chart, dtype: torch.dtype) -> None:
    assert isinstance(chart, Chart)
    t = inside(chart).to(dtype)
    known = chart.jet(t, 2)
    M, d = chart.M, chart.d
    assert known.value.shape == (40, M)
    assert known.jacobian.shape == (40, M, d)
    assert known.hessian.shape == (40, M, d, d)
    assert chart.jet(t, 0).jacobian is None
    assert chart.jet(t).hessian is None
    assert {known.value.dtype, known.jacobian.dtype, known.hessian.dtype} == {dtype}
    moved = chart.retract(t, torch.full((40, d), 0.1, dtype=dtype))
    assert moved.shape == t.shape
    assert moved.dtype == dtype
    assert chart.grid().shape[1] == chart.c
    assert chart.roughness.shape == (M, M)
    assert float(torch.linalg.eigvalsh(chart.roughness).min()) > -1e-12


@every
def test_derivatives_are_those_of_central_differences_along_the_retraction(chart: Chart) -> None:
    t, h = inside(chart), 1e-5
    known = chart.jet(t, 2)
    for a in range(chart.d):
        step = torch.zeros(len(t), chart.d, dtype=torch.float64)
        step[:, a] = 1
        ahead, behind = (chart.jet(chart.retract(t, s * h * step), 1) for s in (1, -1))
        slope = (ahead.value - behind.value) / (2 * h)
        assert float((slope - known.jacobian[..., a]).abs().max()) <= 1e-8
        if chart.name != "sphere" and getattr(chart, "boundary", "clamp") == "clamp":
            bend = (ahead.jacobian - behind.jacobian) / (2 * h)
            assert float((bend - known.hessian[..., a]).abs().max()) <= 1e-6


def test_hessian_of_the_sphere_is_that_along_great_circles() -> None:
    chart, h = charts.sphere(), 1e-4
    t = inside(chart, 300)
    known = chart.jet(t, 2)
    E = frame(t)
    for v in ([1.0, 0.0], [0.0, 1.0], [0.6, 0.8]):
        along = torch.tensor(v, dtype=torch.float64)
        tangent = torch.einsum("a,nax->nx", along, E)
        points = [chart.jet(math.cos(s) * t + math.sin(s) * tangent, 0).value for s in (h, 0.0, -h)]
        second = (points[0] - 2 * points[1] + points[2]) / h**2
        closed = torch.einsum("nkab,a,b->nk", known.hessian, along, along)
        assert float((second - closed).abs().max()) <= 1e-6
    trace = known.hessian.diagonal(dim1=2, dim2=3).sum(-1)
    degree = torch.arange(3).repeat_interleave(2 * torch.arange(3) + 1)
    torch.testing.assert_close(trace, -(degree * (degree + 1)) * known.value, atol=1e-12, rtol=0)


def test_roughness_is_what_the_specification_lists() -> None:
    assert charts.circle().roughness.diagonal().tolist() == [0, 1, 1, 16, 16]
    S = charts.interval().roughness
    found = [float(S[i, j]) for i, j in ((2, 2), (3, 3), (2, 4), (4, 4))]
    assert found == pytest.approx([1, 25 / 3, 10 / 3, 115 / 3], abs=1e-12)
    assert float(S[:2].abs().max()) <= 1e-15
    assert charts.plane().roughness.diagonal().tolist() == [0, 0, 4, 0, 4, 4]
    assert charts.sphere().roughness.diagonal().tolist() == [0] + 3 * [1] + 5 * [9]
    assert sorted(charts.torus().roughness.diagonal().tolist()) == [0] + 4 * [1] + 4 * [4]


@pytest.mark.parametrize("chart", [charts.circle(3), charts.torus(), charts.sphere()], ids=str)
def test_basis_functions_of_closed_charts_are_orthogonal(chart: Chart) -> None:
    value = chart.jet(chart.grid(2000 if chart.name == "sphere" else 400), 0).value
    gram = value.mT @ value / len(value)
    assert float((gram - torch.diag(gram.diagonal())).abs().max()) <= 2e-3
    if chart.name == "sphere":
        degree = torch.arange(3).repeat_interleave(2 * torch.arange(3) + 1)
        assert gram.diagonal().tolist() == pytest.approx((1 / (2 * degree + 1)).tolist(), abs=2e-3)


@every
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), size=st.floats(-50, 50))
def test_retraction_stays_on_the_chart_and_within_its_step(chart: Chart, seed: int, size: float) -> None:
    t = inside(chart, 12, seed)
    moved = chart.retract(t, torch.full((12, chart.d), size, dtype=torch.float64))
    assert bool(torch.isfinite(moved).all())
    if chart.name == "sphere":
        torch.testing.assert_close(moved.norm(dim=1), torch.ones(12, dtype=torch.float64))
    elif chart.name in ("interval", "plane"):
        assert float(moved.abs().max()) <= 1
    elif chart.name in ("circle", "torus"):
        assert bool(((moved >= 0) & (moved < 2 * math.pi + 1e-12)).all())
    else:
        assert bool((moved == t).all())


@every
def test_alignment_undoes_an_isometry_of_the_chart(chart: Chart) -> None:
    t = inside(chart, 200)
    if chart.name in ("circle", "torus"):
        moved = (1.3 - t.flip(1)).remainder(2 * math.pi)
    elif chart.name == "sphere":
        moved = t[:, [1, 0, 2]] * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    elif chart.name == "points":
        moved = (t + 2).remainder(chart.M)
    elif chart.name == "plane":
        moved = 0.3 - t.flip(1)
    else:
        moved = -t
    found = chart.align(t, moved)
    assert found.score == pytest.approx(1.0, abs=1e-9)
    torch.testing.assert_close(found(t), moved)


def test_starts_from_an_embedding() -> None:
    angle = torch.linspace(0, 6, 50, dtype=torch.float64)
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    torch.testing.assert_close(charts.circle().from_embedding(ring)[:, 0], angle)
    both = torch.cat([ring, ring.flip(1)], 1)
    assert (
        charts.torus().align(charts.torus().from_embedding(both), angle[:, None].expand(-1, 2)).score > 0.999
    )
    ends = charts.interval().from_embedding(angle[:, None])
    torch.testing.assert_close(ends[[0, -1], 0], torch.tensor([-0.9604, 0.9604], dtype=torch.float64))
    cloud = inside(charts.sphere(), 500)
    assert charts.sphere().align(charts.sphere().from_embedding(cloud * 3), cloud).score > 0.99
    square = inside(charts.plane(), 300)
    assert charts.plane().align(charts.plane().from_embedding(7 * square), square).score > 0.99
    three = torch.tensor([0.0, 5.0, 9.0]).repeat_interleave(20).unsqueeze(1)
    assert charts.points(3).align(charts.points(3).from_embedding(three), three.div(4.0).round()).score == 1
    assert charts.line().from_embedding(ring).shape == (50, 0)


def test_charts_by_name_and_by_protocol() -> None:
    for name in charts.CHARTS:
        assert charts.as_chart(name).name == name
    own = charts.circle(3)
    assert charts.as_chart(own) is own
    assert charts.circle(3) == own
    assert len({charts.circle(3), own}) == 1
