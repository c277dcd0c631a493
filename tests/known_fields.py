"""Images with known quantities, for training and benchmarks of partitions: digits, and blobs under noise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Fields:
    """Images ``(n, 1, h, w)`` and what is asked of their latent space.

    Attributes:
        train, test: images.
        functions: quantities of images.
        sizes, latent_dim: of the partition.
    """

    train: Tensor
    test: Tensor
    functions: dict[str, Callable[[Tensor], Tensor]]
    sizes: dict[str, int]
    latent_dim: int

    def quantities(self, images: Tensor) -> dict[str, Tensor]:
        """name -> (n, m)."""
        return {name: function(images).flatten(1) for name, function in self.functions.items()}


def mass(x: Tensor) -> Tensor:
    """Sum of the pixels."""
    return x.flatten(1).sum(1, keepdim=True)


def centre(x: Tensor) -> Tensor:
    """Mean position on [-1, 1]², weighted by pixels above 0."""
    weight = x[:, 0].clamp_min(0)
    total = weight.sum((1, 2)).clamp_min(1e-3)
    axis = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
    across, down = (weight * axis).sum((1, 2)), (weight * axis.unsqueeze(1)).sum((1, 2))
    return torch.stack([across, down], dim=1) / total.unsqueeze(1)


def gradient(x: Tensor, bins: int | None = None) -> Tensor:
    """Norm of forward differences, averaged over bins x bins windows."""
    image = x[:, 0]
    across, down = image.diff(dim=2)[:, :-1], image.diff(dim=1)[:, :, :-1]
    norm = (across.square() + down.square() + 1e-12).sqrt()
    return norm if bins is None else functional.adaptive_avg_pool2d(norm, bins)


def functions(bins: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """The three quantities, with pooled gradients."""
    return {"mass": mass, "centre": centre, "gradient": lambda x: gradient(x, bins)}


def digits(seed: int) -> Fields:
    """1300 and 497 digits of 8 x 8 pixels in [0, 1]."""
    X = torch.from_numpy(load_digits().data).float().reshape(-1, 1, 8, 8) / 16
    X = X[torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))]
    return Fields(X[:1300], X[1300:], functions(5), {"mass": 1, "centre": 2, "gradient": 8}, 16)


def blobs(seed: int) -> Fields:
    """2000 and 1000 turned Gaussian blobs of 16 x 16 pixels under a smooth random field."""
    rng, n, side = np.random.default_rng(seed), 3000, 16

    def drawn(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (n, 1, 1))

    cx, cy, s, e = drawn(-0.5, 0.5), drawn(-0.5, 0.5), drawn(0.18, 0.4), drawn(0.6, 1.7)
    turn, height = drawn(0, np.pi), drawn(0.5, 1.5)
    axis = np.linspace(-1, 1, side)
    x, y = axis[None, None] - cx, axis[None, :, None] - cy
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    images = height * (0.25 / s) ** 2 * np.exp(-((u * e / s) ** 2 + (v / (e * s)) ** 2) / 2)
    k = np.fft.fftfreq(side)
    amplitude = 1 / (k[:, None] ** 2 + k[None] ** 2 + 0.01)
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, side, side))) * amplitude).real
    X = torch.from_numpy(images + 0.05 * field / field.std()).float().unsqueeze(1)
    return Fields(X[:2000], X[2000:], functions(3), {"mass": 1, "centre": 2, "gradient": 4}, 10)
