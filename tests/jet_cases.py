"""Networks, maps and tolerances that the tests of jets share."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pullback.jets import Jet, Product, Residual, Sine, Stack, reference_jet

SMOOTH: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "softplus beta": lambda: nn.Softplus(beta=2.5),
    "softplus threshold": lambda: nn.Softplus(beta=5.0, threshold=3.0),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu tanh": lambda: nn.GELU(approximate="tanh"),
    "mish": nn.Mish,
    "elu": lambda: nn.ELU(0.7),
    "selu": nn.SELU,
    "celu": nn.CELU,
    "celu alpha": lambda: nn.CELU(1.7),
    "logsigmoid": nn.LogSigmoid,
    "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
    "sine": lambda: Sine(2.0),
}
PIECEWISE: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "leaky relu": lambda: nn.LeakyReLU(0.2),
    "prelu": nn.PReLU,
    "prelu per channel": lambda: nn.PReLU(7, init=0.3),
    "randomised relu": nn.RReLU,
    "hardtanh": lambda: nn.Hardtanh(-0.4, 0.6),
    "relu6": nn.ReLU6,
}


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The module that ``build`` makes, from a seed, without touching the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def dense(activation: Callable[[], nn.Module], d: int, p: int = 5, h: int = 7, depth: int = 2) -> nn.Module:
    """Linear layers with ``depth`` activations between, float64, in eval mode."""

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        width = d
        for _ in range(depth):
            layers += [nn.Linear(width, h), activation()]
            width = h
        return nn.Sequential(*layers, nn.Linear(width, p))

    return seeded(build).double().eval()


def _batch_norm(module: nn.Module) -> nn.Module:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return module


def _convolutional() -> nn.Module:
    return _batch_norm(
        nn.Sequential(
            nn.Linear(3, 2 * 4 * 4),
            nn.Unflatten(1, (2, 4, 4)),
            nn.Conv2d(2, 3, 3, padding=1),
            nn.SiLU(),
            nn.BatchNorm2d(3),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1),
            nn.Tanh(),
            nn.AvgPool2d(4),
            nn.Flatten(),
        )
    )


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 4)),
    "layer norm first": lambda: nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 4)),
    "layer norm plain": lambda: nn.Sequential(
        nn.Linear(3, 6), nn.Tanh(), nn.LayerNorm(6, elementwise_affine=False), nn.Linear(6, 4)
    ),
    "rms norm": lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.RMSNorm(6, eps=1.0), nn.Linear(6, 4)),
    "group norm": lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.GroupNorm(2, 6), nn.Linear(6, 4)),
    "instance norm": lambda: nn.Sequential(
        nn.Linear(3, 12), nn.Tanh(), nn.Unflatten(1, (2, 6)), nn.InstanceNorm1d(2, affine=True), nn.Flatten()
    ),
    "batch norm": lambda: _batch_norm(
        nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 4))
    ),
    "residual": lambda: nn.Sequential(
        nn.Linear(3, 6), nn.Tanh(), Residual(nn.Sequential(nn.Linear(6, 6), nn.SiLU())), nn.Linear(6, 4)
    ),
    "residual first": lambda: nn.Sequential(
        Residual(nn.Sequential(nn.Linear(3, 3), nn.Tanh())), Residual(nn.Tanh()), nn.Linear(3, 4)
    ),
    "residual of identity": lambda: nn.Sequential(nn.Linear(3, 6), Residual(nn.Identity()), nn.Tanh()),
    "product": lambda: nn.Sequential(
        nn.Linear(3, 6), Product(nn.Linear(6, 4), nn.Sequential(nn.Linear(6, 4), nn.Sigmoid())), nn.Tanh()
    ),
    "product of lines": lambda: Product(nn.Linear(3, 4), nn.Linear(3, 4)),
    "stack": lambda: nn.Sequential(
        nn.Linear(3, 6),
        Stack(nn.Linear(6, 2), nn.Sequential(nn.Tanh(), nn.Linear(6, 3)), nn.Tanh(), scales=(1.0, 0.5, 2.0)),
        nn.SiLU(),
    ),
    "stack first": lambda: Stack(
        nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)), nn.Linear(3, 2), nn.Identity()
    ),
    "glu": lambda: nn.Sequential(nn.Linear(3, 8), nn.GLU(), nn.Tanh(), nn.Linear(4, 8), nn.GLU()),
    "log softmax": lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.LogSoftmax(dim=-1), nn.Linear(6, 4)),
    "log softmax first": lambda: nn.Sequential(nn.Linear(3, 6), nn.LogSoftmax(dim=1)),
    "convolutional": _convolutional,
    "dropout": lambda: nn.Sequential(
        nn.Linear(3, 6), nn.Dropout(0.5), nn.Tanh(), nn.Identity(), nn.Linear(6, 4)
    ),
    "linear": lambda: nn.Linear(3, 4),
    "nested containers": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(3, 6), nn.Tanh()), nn.Sequential(nn.Sequential(nn.Linear(6, 4)))
    ),
}


def block(name: str) -> nn.Module:
    return seeded(BLOCKS[name]).double().eval()


def points(n: int, d: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative(found: Tensor | None, expected: Tensor | None) -> float:
    """Largest difference over the largest entry."""
    assert found is not None
    assert expected is not None
    assert found.shape == expected.shape
    scale = expected.abs().max().item()
    return (found.detach() - expected.detach()).abs().max().item() / (scale or 1.0)


def jet_difference(found: Jet, expected: Jet) -> float:
    """Largest relative difference over all orders that ``expected`` has."""
    pairs = [
        (found.value, expected.value),
        (found.jacobian, expected.jacobian),
        (found.hessian, expected.hessian),
        (found.third, expected.third),
    ]
    return max(relative(a, b) for a, b in pairs if b is not None)


def reference_jacobian(f: nn.Module, x: Tensor) -> Tensor:
    jacobian = reference_jet(f, x, 1).jacobian
    assert jacobian is not None
    return jacobian.detach()


def golden_layer(i: int, o: int, k: int, slope: float) -> nn.Linear:
    """weight[r, q] = sin(1 + (r i + q) slope), bias[r] = cos(k + r)."""
    layer = nn.Linear(i, o, dtype=torch.float64)
    with torch.no_grad():
        for r in range(o):
            layer.bias[r] = math.cos(k + r)
            for q in range(i):
                layer.weight[r, q] = math.sin(1 + (r * i + q) * slope)
    return layer
