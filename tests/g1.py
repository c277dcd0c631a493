"""The standard decoder of the geodesic tests and benchmarks: an autoencoder of the handwritten digits.

64-64-64-d and d-64-64-64 with tanh, trained for 400 epochs with noise on the code; its latents are standardised
by absorbing mean and scale into the decoder. Pairs come half from below the lower and half from above the upper
quartile of latent distances.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


@dataclass(frozen=True)
class TrainedDecoder:
    decoder: nn.Sequential
    codes: Tensor
    start: Tensor
    end: Tensor

    def double(self) -> "TrainedDecoder":
        decoder = nn.Sequential(*[nn.Linear(m.in_features, m.out_features) if isinstance(m, nn.Linear) else nn.Tanh() for m in self.decoder])
        decoder.load_state_dict(self.decoder.state_dict())
        return TrainedDecoder(decoder.double(), self.codes.double(), self.start.double(), self.end.double())


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _train(x: Tensor, dim: int, seed: int, epochs: int) -> tuple[nn.Sequential, nn.Sequential]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder, decoder = _mlp((64, 64, 64, dim)), _mlp((dim, 64, 64, 64))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(256):
            batch = x[rows]
            z = encoder(batch)
            noisy = z + 0.02 * torch.randn(z.shape, generator=generator)
            loss = (decoder(noisy) - batch).square().sum(1).mean() + 1e-3 * z.square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder, decoder


@lru_cache(maxsize=4)
def digits_decoder(dim: int = 2, seed: int = 0, pairs: int = 50, epochs: int = 400) -> TrainedDecoder:
    """The trained decoder (float32), the standardised codes of all digits and the pairs."""
    x = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    encoder, decoder = _train(x, dim, seed, epochs)
    with torch.no_grad():
        codes = encoder(x)
        mean, scale = codes.mean(0), codes.std(0)
        first = decoder[0]
        first.bias += first.weight @ mean
        first.weight *= scale
        codes = (codes - mean) / scale
    generator = torch.Generator().manual_seed(seed + 1)
    candidates = torch.randint(len(x), (4000, 2), generator=generator)
    candidates = candidates[candidates[:, 0] != candidates[:, 1]]
    distance = (codes[candidates[:, 0]] - codes[candidates[:, 1]]).norm(dim=1)
    low, high = torch.quantile(distance, torch.tensor([0.25, 0.75]))
    near, far = candidates[distance < low], candidates[distance > high]
    chosen = torch.cat([near[: pairs // 2], far[: pairs - pairs // 2]])
    decoder.requires_grad_(False)
    return TrainedDecoder(decoder, codes, codes[chosen[:, 0]], codes[chosen[:, 1]])
