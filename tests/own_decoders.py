"""Decoders of the kinds that people bring: convolutions, normalisations, images, functions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 4


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build().double().eval().requires_grad_(False)


def convolutional(d: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(d, 8 * 2 * 2),
        nn.SiLU(),
        nn.Unflatten(1, (8, 2, 2)),
        nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 2, 3, padding=1),
    )


def normalised(d: int) -> nn.Module:
    layers = [nn.Linear(d, 48), nn.BatchNorm1d(48), nn.Tanh(), nn.Dropout(0.2)]
    layers += [nn.Linear(48, 40), nn.BatchNorm1d(40), nn.SiLU(), nn.Linear(40, 60)]
    return with_statistics(nn.Sequential(*layers))


def with_statistics(net: nn.Module) -> nn.Module:
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
    return net


class Own(nn.Module):
    """A decoder whose forward pass no container describes; it returns images (n, c, h, w)."""

    def __init__(self, d: int):
        super().__init__()
        self.first, self.norm = nn.Linear(d, 12 * 2 * 2), nn.BatchNorm2d(12)
        self.up, self.last = nn.ConvTranspose2d(12, 8, 2, stride=2), nn.Conv2d(8, 4, 3, padding=1)
        with_statistics(self)

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm(torch.tanh(self.first(z)).reshape(-1, 12, 2, 2))
        return self.last(F.silu(self.up(x)))


class Function:
    """A plain function of points, no module."""

    def __init__(self, d: int):
        self.net = convolutional(d).double()

    def __call__(self, z: Tensor) -> Tensor:
        return torch.stack([self.net(z), torch.sin(self.net(z))], dim=1)


def function(d: int) -> Function:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Function(d)


DECODERS = {
    "convolutional": lambda d: seeded(lambda: convolutional(d)),
    "normalised": lambda d: seeded(lambda: normalised(d)),
    "own module": lambda d: seeded(lambda: Own(d)),
    "function": function,
}


def ends(d: int, m: int = 3) -> tuple[Tensor, Tensor]:
    """Pairs of points to join."""
    z = 0.6 * torch.randn(2 * m, d, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return z[:m], z[m:]
