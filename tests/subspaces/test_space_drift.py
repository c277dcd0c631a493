"""Principal angles between solutions, whatever their bases."""

import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pullback.subspaces import subspace_change
from space_cases import bases, normal, off


def plane(angle: float) -> torch.Tensor:
    """Two rows, the second turned out of the plane of the first two axes."""
    return torch.tensor([[1.0, 0, 0, 0], [0, math.cos(angle), math.sin(angle), 0]]).double()


@settings(max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.integers(0, 10**6))
def test_turning_inside_the_span_is_no_change(seed: int) -> None:
    W = bases({"a": 3}, 8, seed)["a"]
    turn = torch.linalg.qr(normal(3, 3, seed=seed + 1)).Q
    change = subspace_change(W, turn @ W)
    assert change.angles.max() <= 1e-6
    assert change.chordal2 <= 1e-12
    assert off(change.rotation @ turn @ W, W) <= 1e-12


def test_half_lost() -> None:
    change = subspace_change(torch.eye(4).double()[:2], torch.eye(4).double()[[0, 2]])
    assert change.angles.tolist() == pytest.approx([0, math.pi / 2])
    assert (change.max_angle_deg, change.mean_angle_deg) == pytest.approx((90, 45))
    assert change.chordal2.item() == pytest.approx(1)


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.5, 1.5])
def test_small_angles_are_not_lost(angle: float) -> None:
    assert subspace_change(plane(0.0), plane(angle)).angles[1].item() == pytest.approx(angle, rel=0.01)


def test_other_sizes_and_single_precision(dtype: torch.dtype) -> None:
    change = subspace_change(torch.eye(4, dtype=dtype)[:3], plane(0.3).to(dtype))
    assert (change.dim_old, change.dim_new, change.rotation) == (3, 2, None)
    assert change.angles.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert change.similarity_matrix.shape == (3, 2)
    assert {change.angles.dtype, change.cosines.dtype, change.chordal2.dtype} == {dtype}


def test_dicts_by_name() -> None:
    old, new = bases({"a": 2, "b": 1}, 5), bases({"a": 2, "b": 1}, 5, seed=4)
    found = subspace_change(old, dict(reversed(new.items())))
    assert off(found["a"].angles, subspace_change(old["a"], new["a"]).angles) == 0
    with pytest.raises(ValueError, match="missing 'b'"):
        subspace_change(old, {"a": new["a"]})
