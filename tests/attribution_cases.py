"""Networks and rows that the tests of attribution share."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from jet_cases import PIECEWISE, dense, golden_layer, seeded
from pullback.jets import Residual, Stack

WIDTH = 64


def golden_net() -> nn.Module:
    return nn.Sequential(
        golden_layer(3, 3, 1, 1.0), nn.PReLU(init=0.25, dtype=torch.float64), golden_layer(3, 2, 2, 0.7)
    )


def golden_pair() -> tuple[Tensor, Tensor]:
    f64 = {"dtype": torch.float64}
    return torch.tensor([[0.5, -1.0, 2.0]], **f64), torch.tensor([[-1.5, 0.5, -0.5]], **f64)


def _convolutional() -> nn.Module:
    net = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.LeakyReLU(),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.AvgPool2d(2),
        nn.Dropout(0.3),
        nn.Flatten(),
        Residual(nn.Sequential(nn.Linear(16, 16), nn.ReLU6(), nn.Linear(16, 16))),
        Stack(nn.Linear(16, 3), nn.Sequential(nn.Linear(16, 3), nn.Hardtanh(-0.2, 0.2)), scales=(1.0, 2.0)),
        nn.Linear(6, 2),
    )
    net[2].running_mean.normal_()
    net[2].running_var.uniform_(0.5, 2.0)
    return net


FLAT = {
    **{name: (lambda name=name: dense(PIECEWISE[name], WIDTH, p=2)) for name in PIECEWISE},
    "convolutional": _convolutional,
    "batch norm": lambda: nn.Sequential(
        nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)
    ),
    "residual first": lambda: nn.Sequential(
        Residual(nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, WIDTH))), nn.Linear(WIDTH, 2)
    ),
    "activation first": lambda: nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 2)),
    "linear": lambda: nn.Linear(WIDTH, 2),
    "more outputs than inputs": lambda: nn.Sequential(nn.Linear(WIDTH, 9), nn.ReLU(), nn.Linear(9, 80)),
}
"""Nets that are linear piece by piece."""


def encoder(activation: type[nn.Module], *, norm: bool = False, bias: bool = True, h: int = 32) -> nn.Module:
    """Three hidden layers on digits, two outputs, float64."""

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        width = WIDTH
        for _ in range(3):
            layers.append(nn.Linear(width, h, bias=bias))
            layers += [nn.LayerNorm(h, bias=bias)] if norm else []
            layers.append(activation())
            width = h
        return nn.Sequential(*layers, nn.Linear(width, 2, bias=bias))

    return seeded(build).double().eval()


def glassbox(h: int = 32) -> nn.Module:
    """Without biases and with layer norms: it sees no magnitude."""

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(WIDTH, h, bias=False), nn.PReLU()]
        for _ in range(2):
            layers += [nn.LayerNorm(h, eps=1e-12, bias=False), nn.Linear(h, h, bias=False), nn.PReLU()]
        return nn.Sequential(*layers, nn.Linear(h, 2, bias=False))

    return seeded(build).double().eval()


class Attention(nn.Module):
    """Softmax attention over eight tokens, in primitive operations."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.values, self.head = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.unflatten(1, (8, 8))
        k = self.keys(tokens)
        weights = torch.softmax(k @ k.mT / 2, dim=-1)
        return self.head((weights @ self.values(tokens)).flatten(1))


class Primitives(nn.Module):
    """ReLU and GELU as functions: no rule knows this module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        return self.second(torch.relu(a) + nn.functional.gelu(a))


class Detached(nn.Module):
    """A scale that gradients do not see."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        return self.second(a / a.square().mean(1, keepdim=True).sqrt().detach())


def digits(n: int | None = None) -> Tensor:
    """Handwritten digits, (n, 64), float64, spread over all rows."""
    x = torch.from_numpy(load_digits().data)
    return x if n is None else x[:: len(x) // n][:n]


def digit_labels() -> Tensor:
    return torch.from_numpy(load_digits().target)


def digit_pairs(n: int) -> tuple[Tensor, Tensor]:
    x = digits()
    generator = torch.Generator().manual_seed(0)
    i, j = (torch.randint(0, len(x), (n,), generator=generator) for _ in range(2))
    return x[i], x[j]


def sum_error(values: Tensor, value: Tensor, offset: Tensor | None = None) -> float:
    """Largest |value - Σ_j C_ij - offset| / (Σ_j |C_ij| + |offset|)."""
    rest = torch.zeros_like(value) if offset is None else offset
    size = values.abs().sum(-1) + rest.abs() + torch.finfo(value.dtype).tiny
    return float(((values.sum(-1) + rest - value).abs() / size).max()) if value.numel() else 0.0


def rotation(d: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))[0]
