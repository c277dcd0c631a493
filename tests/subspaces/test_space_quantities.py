"""Functions of data, pooling, grids and latent sizes."""

import logging
from fractions import Fraction
from math import ceil

import pytest
import torch
from torch.nn import functional

from pullback.subspaces import (
    compute_Q,
    ensure_dim,
    input_to_quantity,
    minimal_latent_dim,
    optimal_bins,
    pool,
    solve_dims,
    to_device,
)
from space_cases import normal

FREE = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.45, 0.6, 0.7, 0.8, 0.9)


def mass(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1).sum(1)


def scaled(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    return factor * x.flatten(1)


def anything(**arguments: torch.Tensor) -> torch.Tensor:
    return torch.stack([value.flatten(1).mean(1) for value in arguments.values()], dim=1)


def test_functions_get_what_they_name() -> None:
    quantities = compute_Q(mass, anything, double=scaled)
    x, other = normal(4, 3), normal(4, 2, seed=1)
    found = quantities(x=x, other=other)
    assert list(found) == ["mass", "anything", "double"]
    torch.testing.assert_close(found["double"], 2 * x)
    assert found["anything"].shape == (4, 2)
    assert torch.equal(compute_Q(scaled)(x=x, factor=3.0)["scaled"], 3 * x)


def test_annotations_are_not_compared() -> None:
    def same(x: "torch.Tensor") -> torch.Tensor:
        return x

    def loose(x) -> torch.Tensor:
        return x

    assert set(compute_Q(same, loose)(x=normal(2, 2))) == {"same", "loose"}


def test_quantities_are_pooled() -> None:
    x = normal(3, 1, 8, 8)
    found = input_to_quantity({"field": (2, 4), "mass": 5}, "max", mass, field=lambda x: x)(x=x)
    assert torch.equal(found["field"], functional.adaptive_max_pool2d(x, (2, 4)))
    assert found["mass"].shape == (3, 1)


@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 7), 1), ((3, 2, 7), 1), ((3, 2, 5, 7), 2), ((2, 2, 4, 5, 6), 3)]
)
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_pooling_is_that_of_torch_and_never_finer(
    shape: tuple[int, ...], axes: int, mode: str, n: int
) -> None:
    x = normal(*shape)
    size = tuple(min(n, s) for s in shape[len(shape) - axes :])
    reference = getattr(functional, f"adaptive_{mode}_pool{axes}d")
    channels = x.unsqueeze(1) if x.ndim == 2 else x
    expected = reference(channels, size)
    assert torch.equal(pool(x, n, mode), expected.squeeze(1) if x.ndim == 2 else expected)


def test_channels_are_alone_and_vectors_stay(dtype: torch.dtype) -> None:
    x = normal(4, 3, 6, 6, dtype=dtype)
    alone = torch.cat([pool(x[:, i : i + 1], 2) for i in range(3)], dim=1)
    assert torch.equal(pool(x, 2), alone)
    assert torch.equal(pool(x[:, :, 0, 0], 2, spatial_dims=0), x[:, :, 0, 0])
    assert torch.equal(pool(x[:, 0], 2, spatial_dims=2), pool(x[:, :1], 2)[:, 0])
    assert torch.equal(pool(x[:, :1, 0, 0], 4), x[:, :1, 0, 0])
    assert pool(torch.arange(8).reshape(2, 4), 2).dtype == torch.get_default_dtype()
    assert pool(torch.ones(2, 4, dtype=torch.bool), 2).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_axes_are_inserted_after_the_batch() -> None:
    def shapes(a: torch.Tensor, b: torch.Tensor, *rest: torch.Tensor, **more: torch.Tensor):
        return (
            tuple(a.shape),
            tuple(b.shape),
            [tuple(r.shape) for r in rest],
            {k: tuple(m.shape) for k, m in more.items()},
        )

    x = normal(2, 5)
    assert ensure_dim(shapes, dims=4)(x, x, x, c=x) == (
        (2, 1, 1, 5),
        (2, 1, 1, 5),
        [(2, 1, 1, 5)],
        {"c": (2, 1, 1, 5)},
    )
    for call in (lambda f: f(x, x), lambda f: f(a=x, b=x)):
        assert call(ensure_dim(dims=3, targets=["b"])(shapes))[:2] == ((2, 5), (2, 1, 5))
    assert ensure_dim(dims=3, targets=[])(shapes)(x, x)[:2] == ((2, 5), (2, 5))
    assert ensure_dim(shapes, dims=3).__name__ == "shapes"


def test_tensors_are_moved_wherever_they_stand() -> None:
    def devices(a: torch.Tensor, b: torch.Tensor) -> tuple[str, str]:
        return a.device.type, b.device.type

    x = torch.ones(2)
    assert to_device(devices, device="meta")(x, b=x) == ("meta", "meta")
    assert to_device(device="meta", targets=["b"])(devices)(x, x) == ("cpu", "meta")
    assert to_device(devices)(x, x) == ("cpu", "cpu")


def checkerboard(side: int) -> torch.Tensor:
    cells = (torch.arange(side).unsqueeze(1) + torch.arange(side)) % 2 * 2.0 - 1
    return normal(40, 1, 1, 1) * cells


def wave(periods: int) -> torch.Tensor:
    """Waves of random phase along one axis of 32 x 32 pixels."""
    phase = normal(40, 1, 1, 1) * 10
    return torch.cos(2 * torch.pi * periods * torch.arange(32) / 32 + phase).expand(40, 1, 32, 32)


@pytest.mark.parametrize(("field", "share", "n"), [
    (checkerboard(16), 0.95, 16),
    (wave(2), 0.80, 8),
    (normal(40), 0.95, 1),
    (normal(40, 1), 0.95, 1),
    (torch.full((40, 1, 8, 8), 0.3), 0.95, 1),
])  # fmt: skip
def test_grids_keep_what_they_claim(field: torch.Tensor, share: float, n: int) -> None:
    assert optimal_bins({"f": field}, 16, share) == n
    assert optimal_bins({"f": 1e-9 * field}, 16, share, per_quantity=True) == {"f": n}


def test_white_fields_need_fine_grids() -> None:
    assert optimal_bins({"f": normal(50, 1, 32, 32)}, 32, 0.95) > 16
    components = normal(50, 6)
    assert optimal_bins({"f": components}, 16, spatial_dims=0) == 1


def test_a_grid_out_of_reach_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="pullback"):
        assert optimal_bins({"f": checkerboard(16)}, 15) == 15
    assert len(caplog.records) == 1
    with pytest.raises(ValueError, match="no grid up to 15"):
        optimal_bins({"f": checkerboard(16)}, 15, strict=True)


def test_dimensions_of_pooled_fields() -> None:
    Y = {"low": normal(60, 1, 1, 1) * torch.ones(8, 8), "board": checkerboard(8)[:40].repeat(2, 1, 1, 1)[:60]}
    assert solve_dims(Y, 8, 0.95, 0.9, pool_per_quantity=True, k_per_quantity=True) == {
        "low": (1, 1),
        "board": (8, 1),
    }
    assert solve_dims(Y, 8, 0.95, 0.9) == {"low": (8, 1), "board": (8, 1)}
    assert solve_dims({"m": normal(30)}, 8, 0.95, None, method="parallel")["m"][0] == 1


def test_sizes_are_exact_for_every_pair() -> None:
    for k in range(1, 200):
        for free in FREE:
            exact = ceil(Fraction(k) / (1 - Fraction(str(free))))
            assert minimal_latent_dim({"a": k}, free_frac=free) == exact
    assert minimal_latent_dim(36, Q=1, free_frac=0.55) == 80
    assert minimal_latent_dim({"a": 1, "b": 4}, free_frac=0.3, num_heads=4) == 8
    assert minimal_latent_dim(5, Q=2, free_frac=0) == 10
