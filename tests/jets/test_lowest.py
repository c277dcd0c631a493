"""Jets from a lowest order on: the same numbers as the whole jet, in every kind of net."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from jet_cases import BLOCKS, block, dense, jet_difference, points, relative, seeded
from pullback.ambient import ScaleFlattening
from pullback.jets import Jet, PackedJet, jet
from pullback.jets.indices import count

NETS = {
    "dense": lambda: dense(nn.Tanh, 2),
    "linear": lambda: nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3)).double(),
    "activation last": lambda: nn.Sequential(dense(nn.Tanh, 2), nn.Softplus()),
    "scaled": lambda: nn.Sequential(
        dense(nn.Tanh, 2), ScaleFlattening(torch.linspace(1, 2, 5, dtype=torch.float64))
    ),
    "images": lambda: seeded(
        lambda: nn.Sequential(
            nn.Linear(2, 8), nn.SiLU(), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 1, 2), nn.Flatten()
        )
    ).double(),
    "unknown inside": lambda: nn.Sequential(
        dense(nn.Tanh, 2), nn.Softmax(-1), nn.Linear(5, 3, dtype=torch.float64)
    ),
    "unknown last": lambda: nn.Sequential(dense(nn.Tanh, 2), nn.Softmax(-1)),
    "function": lambda: lambda z: torch.cat([z.sin(), (z * z).sum(1, keepdim=True)], 1),
    **{name: (lambda name=name: nn.Sequential(nn.Linear(2, 3).double(), block(name))) for name in BLOCKS},
}
PARTS = ("value", "jacobian", "hessian", "third")
CASES = [(order, lowest) for order in (1, 2, 3) for lowest in range(1, order + 1)]


def _cut(full: Jet, lowest: int) -> Jet:
    return replace(full, **dict.fromkeys(PARTS[:lowest]))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("order", "lowest"), CASES)
def test_equals_the_upper_part_of_the_whole_jet(name, order, lowest):
    f, x = NETS[name](), points(5, 2)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            whole = jet(f, x, order)
            for size in (None, 2):
                found = jet(f, x, order, lowest=lowest, chunk_size=size)
                assert found.method == whole.method
                assert jet_difference(found, _cut(whole, lowest)) <= 1e-14


@pytest.mark.parametrize(("order", "lowest"), CASES)
def test_packed_rows_begin_at_the_lowest_order(order, lowest, dtype):
    f, x = dense(nn.SiLU, 3).to(dtype), points(4, 3, dtype)
    packed = jet(f, x, order, lowest=lowest, packed=True)
    assert isinstance(packed, PackedJet)
    assert packed.lowest == lowest
    assert packed.rows.dtype == dtype
    assert packed.rows.shape == (count(3, order) - count(3, lowest - 1), 4, 5)
    assert jet_difference(packed.unpack(), jet(f, x, order, lowest=lowest)) == 0


@pytest.mark.parametrize(("order", "lowest"), CASES)
@pytest.mark.parametrize("name", ["dense", "images", "unknown inside"])
def test_gradients_equal_those_of_the_whole_jet(name, order, lowest):
    f, x = NETS[name](), points(4, 2).requires_grad_()

    def gradients(found: Jet) -> list[torch.Tensor]:
        parts = [getattr(found, part) for part in PARTS[lowest : order + 1]]
        square = sum(part.square().sum() for part in parts)
        return torch.autograd.grad(square, [x, *f.parameters()], materialize_grads=True)

    found, expected = gradients(jet(f, x, order, lowest=lowest)), gradients(jet(f, x, order))
    for mine, whole in zip(found, expected, strict=True):
        assert relative(mine, whole) <= 1e-12 or float(whole.abs().max()) == 0 == float(mine.abs().max())


@pytest.mark.parametrize("name", ["dense", "linear", "function"])
def test_no_points_give_empty_tensors(name):
    f = NETS[name]()
    found = jet(f, torch.empty(0, 2, dtype=torch.float64), 2, lowest=1)
    p = jet(f, points(1, 2), 0).value.shape[1]
    assert found.value is None
    assert found.jacobian.shape == (0, p, 2)
    assert found.hessian.shape == (0, p, 2, 2)


def test_lowest_order_zero_is_the_whole_jet():
    f, x = dense(nn.Tanh, 2), points(3, 2)
    assert jet_difference(jet(f, x, 2, lowest=0), jet(f, x, 2)) == 0
    assert jet(f, x, 0, lowest=0).value.shape == (3, 5)


@pytest.mark.parametrize("lowest", [-1, 3, 1.0, True, "1", None])
def test_lowest_order_out_of_range(lowest, as_users_run):
    with pytest.raises(ValueError, match=r"lowest: expected a whole number from 0 to order=2, got"):
        jet(dense(nn.Tanh, 2), points(3, 2), 2, lowest=lowest)


def test_an_output_that_is_no_row_of_features_is_named():
    f = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Unflatten(1, (2, 2))).double()
    with pytest.raises(ValueError, match=r"append nn\.Flatten\(\)"):
        jet(f, points(3, 2), 1, lowest=1)
