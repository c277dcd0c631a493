"""The quick pass: the network's own values and gradients."""

import pytest
import torch
from torch import nn

from pullback.models.umap.quick import quick_pass


def net(dtype: torch.dtype, slopes: int = 1) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(5, 6), nn.PReLU(slopes), nn.Linear(6, 6), nn.PReLU(slopes), nn.Linear(6, 2)]
        return nn.Sequential(*layers).to(dtype)


def gradients(values: torch.Tensor, x: torch.Tensor, module: nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(values.sin().sum(), [x, *module.parameters()]))


@pytest.mark.parametrize("slopes", [1, 6])
@pytest.mark.parametrize("slope", [0.25, 0.0, -0.5, 2.0])
def test_values_and_gradients_are_those_of_the_network(slopes, slope, dtype):
    module = net(dtype, slopes)
    for layer in (module[1], module[3]):
        nn.init.constant_(layer.weight, slope)
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[0] = 0
    x.requires_grad_()
    assert torch.equal(quick_pass(module, x), module(x))
    for quick, plain in zip(
        gradients(quick_pass(module, x), x, module), gradients(module(x), x, module), strict=True
    ):
        torch.testing.assert_close(quick, plain)


def test_gradcheck():
    module = net(torch.float64)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows, *_: quick_pass(module, rows), [x, *module.parameters()])


@pytest.mark.parametrize("where", ["net", "layer"])
def test_hooks_are_called(where):
    module = net(torch.float64)
    seen = []
    target = module if where == "net" else module[1]
    target.register_forward_hook(lambda *parts: seen.append(parts))
    quick_pass(module, torch.zeros(2, 5, dtype=torch.float64))
    assert len(seen) == 1


def test_other_modules_take_their_usual_way():
    assert quick_pass(nn.Identity(), torch.ones(2, 3)).tolist() == torch.ones(2, 3).tolist()
