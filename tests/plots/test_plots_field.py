"""The magnification field, the share of the map that lies off the data, and the plane that is shown."""

import numpy as np
import pytest
import torch

from pullback.metrics import EuclideanMetric, PullbackMetric
from pullback.plots.field import (
    fit_box,
    grid_points,
    latent_box,
    latent_tensor,
    magnification_at,
    magnification_field,
    off_data_share,
    remoteness,
)
from pullback.plots.plane import plane_of


def lattice(count: int) -> np.ndarray:
    axis = np.linspace(0, 1, count)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def test_off_data_share_of_a_filled_square() -> None:
    # Everything within one lattice step h of the unit square is on the data; the box has area 1.2^2.
    h = 1 / 50
    expected = 1 - (1 + 4 * h + np.pi * h**2) / 1.44
    assert off_data_share(lattice(51)) == pytest.approx(expected, abs=0.02)


def test_off_data_share_in_one_dimension() -> None:
    codes = np.linspace(0, 1, 101)[:, None]
    assert off_data_share(codes) == pytest.approx(1 - 1.02 / 1.2, abs=0.02)


def test_remoteness_is_relative_to_the_usual_spacing() -> None:
    codes = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    points = np.array([[3.0, 0.0], [1.0, 0.5], [0.0, 0.0]])
    np.testing.assert_allclose(remoteness(points, codes), [1.0, 0.5, 0.0])


def test_coinciding_codes_leave_everything_else_off_the_data() -> None:
    assert off_data_share(np.zeros((5, 2))) > 0.99


def test_magnification_of_a_linear_map(dtype: torch.dtype) -> None:
    decoder = torch.nn.Linear(2, 3, bias=False, dtype=dtype)
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]], dtype=dtype))
    metric = PullbackMetric(decoder.requires_grad_(False))
    codes = np.random.default_rng(0).normal(size=(7, 2))
    np.testing.assert_allclose(magnification_at(metric, codes, chunk_size=3), np.log(6.0), rtol=1e-6)
    assert latent_tensor(metric, codes).dtype == dtype


def test_field_is_laid_out_in_rows_along_the_second_axis() -> None:
    class Ramp:
        def tensor(self, z: torch.Tensor) -> torch.Tensor:
            return torch.eye(2, dtype=z.dtype) * torch.exp(z[:, 1])[:, None, None]

        def inverse(self, z: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(self.tensor(z))

        def logdet(self, z: torch.Tensor) -> torch.Tensor:
            return 2 * z[:, 1]

    codes = np.array([[0.0, 0.0], [1.0, 2.0], [0.5, 1.0]])
    field = magnification_field(Ramp(), codes, resolution=20)
    assert field.nats.shape == (20, 20)
    np.testing.assert_allclose(field.nats[:, 0], field.nats[:, -1])
    assert (np.diff(field.nats[:, 0]) > 0).all()
    assert field.reference == pytest.approx(1.0)
    np.testing.assert_allclose(field.relative, (field.nats - 1.0) / np.log(10))
    assert ((field.veil > 0) == (field.remoteness > 1)).all()


def test_boxes() -> None:
    codes = np.array([[0.0, -1.0], [10.0, 1.0]], dtype=np.float32)
    box = latent_box(codes)
    np.testing.assert_allclose(box, [[-1, 11], [-1.2, 1.2]], rtol=1e-6)
    fitted = fit_box(box, 1.25)
    side = fitted[:, 1] - fitted[:, 0]
    assert side[0] / side[1] == pytest.approx(1.25, rel=1e-6)
    np.testing.assert_allclose(fitted.mean(1), box.mean(1), rtol=1e-5, atol=1e-6)
    assert (fitted[:, 0] <= box[:, 0]).all()
    assert (fitted[:, 1] >= box[:, 1]).all()
    points = grid_points(box, 10)
    assert points.shape == (100, 2)
    assert points.dtype == np.float32
    assert (np.diff(points[:10, 0]) > 0).all()
    assert np.ptp(points[:10, 1]) == 0


def test_one_dimension_has_a_field_of_one_row() -> None:
    field = magnification_field(EuclideanMetric(1), np.linspace(0, 1, 9)[:, None], resolution=30)
    assert field.nats.shape == (1, 30)
    np.testing.assert_array_equal(field.nats, 0.0)


@pytest.mark.parametrize("d", [1, 2])
def test_plane_of_few_dimensions_is_the_space_itself(d: int) -> None:
    codes = np.random.default_rng(0).normal(size=(20, d))
    plane = plane_of(codes)
    assert plane.exact
    assert plane.axis_names == tuple(f"latent {i + 1}" for i in range(d))
    np.testing.assert_array_equal(plane.project(codes), codes)


def test_plane_of_many_dimensions_holds_the_largest_variance() -> None:
    generator = np.random.default_rng(0)
    scales = np.array([0.1, 3.0, 0.2, 2.0])
    codes = generator.normal(size=(20_000, 4)) * scales + 5
    plane = plane_of(codes)
    assert not plane.exact
    assert plane.share == pytest.approx((9 + 4) / (scales**2).sum(), abs=0.01)
    np.testing.assert_allclose(plane.basis @ plane.basis.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(np.abs(plane.basis[:, [1, 3]]), np.eye(2), atol=0.02)
    assert plane.project(codes).var(0) == pytest.approx([9, 4], rel=0.05)
    assert plane.project(codes[None, :5]).shape == (1, 5, 2)
