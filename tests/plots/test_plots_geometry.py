"""What the figures of geometry draw is what the metric says."""

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.collections import PolyCollection

from pullback import plots
from pullback.geometry import EnergyShares, distance, energy_shares, geodesic
from pullback.geometry.reference import PoincareDisk, Sphere
from pullback.metrics import EnsembleMetric, EuclideanMetric, PullbackMetric, from_tensor
from pullback.plots.conditions import condition_field, condition_limit, condition_ticks, shades
from pullback.plots.curved import curvature_at, curvature_field, some_codes, symmetric_limit
from pullback.plots.ellipses import ellipses_at, places, two_digits
from pullback.plots.fan import draw_rays, ring_parts
from pullback.plots.field import grid_points, latent_box, latent_tensor, light_metric, regular
from pullback.plots.plane import plane_of
from pullback.plots.rays import Rays, rays_from, round_radii, typical_length
from pullback.plots.shares import bars_of, signed_picture

RNG = np.random.default_rng(0)
CODES = RNG.uniform(-1, 1, size=(400, 2))
STRETCH = torch.nn.Linear(2, 2, bias=False, dtype=torch.float64).requires_grad_(False)
STRETCH.weight.copy_(torch.diag(torch.tensor([2.0, 1.0])))
STRETCHED = PullbackMetric(STRETCH)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def bump(z: torch.Tensor) -> torch.Tensor:
    """A hill on a plane: geodesics that pass it on both sides meet behind."""
    return torch.cat([z, 1.6 * torch.exp(-1.5 * z.square().sum(1, keepdim=True))], dim=1)


def random_net(d: int, p: int = 6) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(d)
    net = torch.nn.Sequential(torch.nn.Linear(d, 16), torch.nn.Tanh(), torch.nn.Linear(16, p))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return net.double().requires_grad_(False)


# Indicatrices


def test_ellipses_hold_the_steps_of_one_length() -> None:
    metric = PullbackMetric(random_net(2))
    plane = plane_of(CODES)
    found = ellipses_at(metric, CODES[:20], plane, 10.0, radius=0.3)
    steps = torch.as_tensor(found.outlines(16) - found.centres[:, None])
    g = metric.tensor(torch.as_tensor(CODES[:20]))
    lengths = torch.einsum("kna,kab,knb->kn", steps, g, steps).sqrt()
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.3))
    assert not found.shrunk.any()


def test_ellipses_of_a_slice_hold_the_steps_in_the_page() -> None:
    codes = RNG.normal(size=(30, 4))
    metric = PullbackMetric(random_net(4))
    plane = plane_of(codes)
    found = ellipses_at(metric, codes, plane, 10.0, radius=0.2)
    steps = torch.as_tensor((found.outlines(16) - found.centres[:, None]) @ plane.basis)
    lengths = torch.einsum("kna,kab,knb->kn", steps, metric.tensor(torch.as_tensor(codes)), steps).sqrt()
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.2))


def test_a_step_is_chosen_such_that_ellipses_fit_and_larger_ones_are_marked() -> None:
    def tensor(z: torch.Tensor) -> torch.Tensor:
        scale = torch.where(z[:, 0] > 0.93, 1e-4, 1.0)
        return scale[:, None, None] * torch.eye(2).to(z)

    z, room = places(CODES, plane_of(CODES), 12)
    found = ellipses_at(from_tensor(tensor, 2), z, plane_of(CODES), room)
    size = np.linalg.norm(found.axes, axis=2).max(1)
    assert (size <= 0.7 * room + 1e-12).all()
    np.testing.assert_array_equal(found.shrunk, found.centres[:, 0] > 0.93)
    assert 0 < found.shrunk.sum() < 0.1 * len(z)
    ax = plots.indicatrices(from_tensor(tensor, 2), CODES, number=12)
    assert "dashed: larger than drawn" in ax.get_title(loc="left")


def test_places_of_a_degenerate_metric_are_left_out() -> None:
    metric = from_tensor(lambda z: torch.diag_embed(torch.stack([z[:, 0] > 0, z[:, 0] < 9], 1).to(z)), 2)
    found = ellipses_at(metric, CODES, plane_of(CODES), 0.1)
    assert found.singular == int((CODES[:, 0] <= 0).sum())
    assert len(found.centres) == len(CODES) - found.singular


def test_indicatrices_of_a_stretched_plane() -> None:
    ax = plots.indicatrices(STRETCHED, CODES, at=np.zeros((1, 2)), radius=0.1, field=False)
    shapes = [shape for shape in ax.collections if isinstance(shape, PolyCollection)]
    corners = shapes[0].get_paths()[0].vertices
    np.testing.assert_allclose(np.abs(np.asarray(corners)).max(0), [0.05, 0.1], rtol=1e-2)


def test_places_stand_on_the_data_and_apart() -> None:
    z, room = places(CODES, plane_of(CODES), 10)
    assert len(z) > 50
    codes = RNG.normal(size=(500, 6))
    plane = plane_of(codes, (1, 4))
    z, room = places(codes, plane, 10)
    assert (z[:, None] == codes).all(2).any(1).all()
    page = plane.project(z)
    np.testing.assert_array_equal(page, z[:, [1, 4]])
    gaps = np.linalg.norm(page[:, None] - page, axis=2) + np.eye(len(page)) * 9
    assert gaps.min() >= 0.7 * room


@pytest.mark.parametrize(("value", "rounded"), [(0.1299, 0.12), (1.0, 1.0), (37.9, 37.0), (0.0, 1.0)])
def test_a_step_has_two_digits(value: float, rounded: float) -> None:
    assert two_digits(value) == rounded


# Geodesic fan and balls


def test_rays_of_a_flat_metric_are_straight_and_of_one_length() -> None:
    rays = rays_from(STRETCHED, np.zeros(2), plane_of(CODES), 2.0, count=12)
    steps = rays.points[:, -1] * [2.0, 1.0]
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 2.0, rtol=1e-6)
    np.testing.assert_allclose(rays.points, rays.points[:, -1:] * rays.lengths[:, None] / 2.0, atol=1e-9)
    assert rays.shortest is not None
    assert rays.shortest.all()


@pytest.mark.slow
def test_rays_end_where_the_distance_says() -> None:
    start = np.array([0.2, -0.1])
    rays = rays_from(PoincareDisk(), start, plane_of(CODES), 1.5, count=4)
    ends = torch.as_tensor(rays.at(1.0))
    expected = PoincareDisk().distance(torch.as_tensor(start).expand_as(ends), ends)
    # Between its nodes a ray is a straight line.
    torch.testing.assert_close(expected, torch.ones_like(expected), atol=2e-3, rtol=0)
    last = torch.as_tensor(rays.points[:, -1])
    known = PoincareDisk().distance(torch.as_tensor(start).expand_as(last), last)
    torch.testing.assert_close(known, torch.full_like(known, 1.5), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_ray_is_dotted_where_another_way_is_shorter() -> None:
    metric, start = PullbackMetric(bump), np.array([-1.6, 0.1])
    rays = rays_from(metric, start, plane_of(CODES), 4.0, count=24)
    assert rays.shortest is not None
    ends = torch.as_tensor(rays.points[:, -1])
    true = distance(metric, torch.as_tensor(start), ends, data=torch.as_tensor(3 * CODES)).numpy()
    clear = np.abs(true / 4.0 - 0.98) > 0.01
    np.testing.assert_array_equal(rays.shortest[clear, -1], true[clear] > 0.98 * 4.0)
    assert 2 <= (~rays.shortest[:, -1]).sum() <= 7
    assert rays.shortest[:, : rays.points.shape[1] // 3].all()
    ax = plt.subplots()[1]
    draw_rays(ax, rays, plane_of(CODES))
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert len(dotted) == int((~rays.shortest[:, -1]).sum())


@pytest.mark.slow
def test_rays_stop_where_they_leave_the_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pullback.plots.rays.MOST_STEPS", 8)
    monkeypatch.setattr("pullback.plots.rays.LEGS", 3)

    inside = from_tensor(
        lambda z: (1 / torch.where(z[:, 0] < 0.5, 1.0, torch.nan))[:, None, None] * torch.eye(2).to(z), 2
    )
    rays = rays_from(inside, np.zeros(2), plane_of(CODES), 1.0, count=3)
    assert rays.stopped == 1
    reached = np.nanmax(rays.points[..., 0])
    assert 0.3 < reached < 0.5
    ax = plots.geodesic_fan(inside, np.zeros(2), radius=1.0, directions=3)
    assert "1 of 3 could not be followed to their end" in ax.get_title(loc="left")


def test_rays_in_more_dimensions_leave_in_the_page() -> None:
    codes = RNG.normal(size=(60, 5))
    metric = PullbackMetric(random_net(5))
    plane = plane_of(codes)
    rays = rays_from(metric, codes[0], plane, 0.01, count=6)
    assert rays.shortest is None
    step = rays.points[:, -1] - codes[0]
    along = step @ plane.basis.T @ plane.basis
    assert np.linalg.norm(step - along) < 0.05 * np.linalg.norm(step)


def test_a_line_of_equal_distance_is_split_at_its_cut_points() -> None:
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    points = np.linspace(0, 1, 5)[:, None] * circle[:, None]
    shortest = np.ones((8, 5), dtype=bool)
    shortest[3, 3:] = False
    rays = Rays(points, 1.0, shortest)
    solid, beyond = ring_parts(rays, plane_of(CODES), 1.0)
    np.testing.assert_array_equal(np.isfinite(solid[:, 0]), [1, 1, 1, 0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(np.isfinite(beyond[:, 0]), [0, 0, 1, 1, 1, 0, 0, 0, 0])
    assert np.isfinite(ring_parts(rays, plane_of(CODES), 0.5)[0]).all()


def test_the_typical_length_is_the_median_way_to_the_codes() -> None:
    expected = np.median(np.linalg.norm(CODES[::3] * [2.0, 1.0], axis=1))
    assert typical_length(STRETCHED, np.zeros(2), CODES) == pytest.approx(expected, rel=1e-6)
    assert typical_length(EuclideanMetric(2), np.zeros(2), np.zeros((5, 2))) == 1.0


@pytest.mark.parametrize(
    ("radius", "radii"),
    [
        (26.0, [5, 10, 15, 20, 25]),
        (1.0, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.011, [0.002, 0.004, 0.006, 0.008, 0.01]),
    ],
)
def test_radii_are_round(radius: float, radii: list[float]) -> None:
    assert round_radii(radius) == radii


def test_balls_are_labelled_with_their_distance() -> None:
    ax = plots.distance_balls(STRETCHED, np.zeros(2), radii=[1.0, 3.0], directions=12)
    assert {text.get_text() for text in ax.texts} == {"1", "3"}
    outer = np.asarray(ax.lines[2].get_xydata())
    np.testing.assert_allclose(np.linalg.norm(outer * [2.0, 1.0], axis=1), 3.0, rtol=1e-6)


# Curvature


def test_curvature_of_a_sphere_is_one_on_the_data_and_unknown_far_off() -> None:
    field = curvature_field(PullbackMetric(Sphere().embedding), CODES, resolution=30)
    near = field.remoteness < 2
    np.testing.assert_allclose(field.values[near], 1.0, atol=1e-10)
    assert np.isnan(field.values[~near]).all()
    assert field.limit == pytest.approx(1.0)


def test_curvature_in_more_dimensions_is_that_of_the_page() -> None:
    codes = RNG.normal(size=(20, 3))
    metric = PullbackMetric(Sphere(3).embedding)
    np.testing.assert_allclose(curvature_at(metric, codes, plane_of(codes)), 1.0, atol=1e-10)


def test_curvature_is_unknown_where_the_metric_is_degenerate() -> None:
    metric = PullbackMetric(lambda z: torch.stack([z[:, 0], z[:, 1].clamp(min=0) ** 3, z[:, 0] ** 2], dim=1))
    found = curvature_at(metric, np.array([[0.3, 0.5], [0.3, -0.5]]), plane_of(CODES))
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


def test_the_scale_of_curvature_is_robust_and_symmetric() -> None:
    assert symmetric_limit(np.array([*np.linspace(-1, 1, 2001), 1e6, np.nan])) == pytest.approx(
        0.95, abs=2e-3
    )
    assert symmetric_limit(np.full(3, np.nan)) == 1.0
    image = plots.curvature_map(PullbackMetric(bump), CODES, resolution=16).images[0]
    low, high = image.get_clim()
    assert low == -high


def test_tensors_of_curvature_stay_affordable() -> None:
    assert len(some_codes(np.zeros((3000, 3)), 0)) == 500
    assert len(some_codes(np.zeros((3000, 32)), 0)) == 64
    ax = plots.curvature_map(PullbackMetric(random_net(3)), RNG.normal(size=(600, 3)))
    assert "500 of 600 codes, sampled" in ax.get_title(loc="left")


@pytest.mark.parametrize("draw", ["curvature_map", "geodesic_fan"])
def test_piecewise_linear_decoders_get_a_sentence_instead_of_zeros(draw: str) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    metric = PullbackMetric(net.double().requires_grad_(False))
    if draw == "curvature_map":
        ax = plots.curvature_map(metric, CODES)
    else:
        ax = plots.geodesic_fan(metric, np.zeros(2), codes=CODES)
    assert "linear piece by piece" in ax.texts[0].get_text()
    assert not ax.images
    assert not ax.lines


# Condition numbers


def test_the_map_of_condition_numbers_has_the_ratio_of_the_squared_stretches() -> None:
    image = plots.condition_map(STRETCHED, CODES, resolution=16).images[0]
    np.testing.assert_allclose(10 ** image.get_array().filled(np.nan), 4.0)
    assert image.get_clim() == pytest.approx((0.0, np.log10(4)))
    values = condition_field(PullbackMetric(bump), CODES, resolution=16).values
    slope = grid_points(latent_box(CODES), 16)
    steep = 1.6 * 3 * np.linalg.norm(slope, axis=1) * np.exp(-1.5 * (slope**2).sum(1))
    np.testing.assert_allclose(values.ravel(), 1 + steep**2, rtol=1e-6)


def test_the_scale_of_condition_numbers_is_robust_and_never_exaggerates() -> None:
    assert condition_limit(np.array([*np.linspace(1, 11, 1001), np.inf])) == pytest.approx(10.8)
    assert condition_limit(np.full(3, 1.01)) == condition_limit(np.full(3, np.inf)) == 2.0
    np.testing.assert_allclose(shades(np.array([1.0, 10.0, np.inf]), 100.0), [0, 1, 2])
    assert list(condition_ticks(20.0).values()) == ["1", "2", "5", "10", "20"]


# Path attribution


def three_features() -> EnergyShares:
    """One feature rises, one comes back, one falls."""

    def decode(z: torch.Tensor) -> torch.Tensor:
        return torch.stack([2 * z[:, 0], torch.sin(2 * torch.pi * z[:, 0]), -z[:, 0]], dim=1)

    line = torch.linspace(0, 1, 65).double()[:, None]
    return energy_shares(PullbackMetric(decode), line, feature_names=["up", "round", "down"])


def test_bars_are_shares_with_their_net_change() -> None:
    bars = bars_of(three_features(), 0, 2)
    assert bars.index.tolist() == [1, 0]
    total = 4 + 1 + 2 * np.pi**2
    np.testing.assert_allclose(bars.share, [2 * np.pi**2 / total, 4 / total], rtol=2e-3)
    np.testing.assert_allclose(bars.net, [0.0, 1.0], atol=1e-12)
    assert bars.others == 1
    assert bars.rest + bars.share.sum() == pytest.approx(1.0, abs=1e-12)


def test_attribution_draws_and_names_the_bars() -> None:
    ax = plots.path_attribution(three_features())
    assert [text.get_text() for text in ax.get_yticklabels()] == ["round", "up", "down"]
    texts = [text.get_text() for text in ax.texts]
    assert texts[1].endswith("↑ +2")
    assert texts[2].endswith("↓ -1")
    pale, solid = ax.patches[4].get_width(), ax.patches[5].get_width()  # type: ignore[attr-defined]
    assert pale == pytest.approx(solid)
    assert ax.patches[1].get_width() == pytest.approx(0.0, abs=1e-9)  # type: ignore[attr-defined]


def test_attribution_of_a_mean_over_groups() -> None:
    metric = PullbackMetric(random_net(2))
    z = torch.as_tensor(CODES[:8])
    shares = energy_shares(metric, geodesic(metric, z[:4], z[4:], data=z)).mean(["a", "b", "a", "b"])
    ax = plots.path_attribution(shares, 1, feature_names=[f"gene {i}" for i in range(6)], title="group b")
    assert ax.get_title(loc="left") == "group b"
    assert len(ax.get_yticklabels()) == 6


def test_a_picture_of_shares_keeps_the_sign_of_the_change() -> None:
    shares = three_features()
    picture = signed_picture(shares, 0, (1, 1, 3))
    np.testing.assert_allclose(np.abs(picture).sum(), 1.0)
    assert picture[0, 2] < 0 < picture[0, 0]


# Metrics of every kind


def test_the_figures_serve_metrics_of_several_decoders() -> None:
    metric = EnsembleMetric([random_net(2), random_net(2)])
    light = light_metric(metric)
    z = torch.as_tensor(CODES[:5])
    torch.testing.assert_close(light.tensor(z), metric.tensor(z))
    assert latent_tensor(metric, CODES.astype(np.float32)).dtype == torch.float64
    assert plots.distance_balls(metric, CODES[0], codes=CODES, directions=8).has_data()


def test_a_tensor_counts_as_metric_where_it_is_positive_definite() -> None:
    g = np.stack(
        [np.eye(2), np.zeros((2, 2)), np.diag([1.0, -1.0]), np.full((2, 2), np.nan), np.ones((2, 2))]
    )
    assert regular(g).tolist() == [True, False, False, False, False]
