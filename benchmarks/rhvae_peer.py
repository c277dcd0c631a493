"""What the benchmarks of the Riemannian VAE share: digits, networks, figures of quality, pythae as a peer.

pythae is run through its public classes with the very networks of our side wrapped in its interfaces.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor, nn

from pullback.models import MLP

EPOCHS, BATCH, TRAIN = 60, 100, 1200


@dataclass(frozen=True)
class Digits:
    """Binarised digits: rows of training and of test, with their labels."""

    train: Tensor
    test: Tensor
    train_labels: np.ndarray
    test_labels: np.ndarray


def digits() -> Digits:
    """1200 rows of training and 597 of test."""
    source = load_digits()
    order = np.random.RandomState(0).permutation(len(source.data))
    x = torch.as_tensor(source.data[order] / 16 > 0.5).float()
    y = source.target[order]
    return Digits(x[:TRAIN], x[TRAIN:], y[:TRAIN], y[TRAIN:])


def networks(p: int, d: int, hidden: int, seed: int) -> tuple[MLP, MLP]:
    """Encoder to mean and log σ, and decoder to logits, one hidden ReLU layer each."""
    draw = torch.Generator().manual_seed(seed)
    encoder = MLP(p, 2 * d, hidden=(hidden,), activation="relu", generator=draw)
    return encoder, MLP(d, p, hidden=(hidden,), activation="relu", generator=draw)


def batches(x: Tensor, seed: int, epochs: int) -> Any:
    """Lists of batches, one list an epoch."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield x[torch.randperm(len(x), generator=draw)].split(BATCH)


def frechet(real: Tensor, made: Tensor, pca: PCA) -> float:
    """|μ - m|² + tr(A + B - 2 (AB)^½) of normal laws fitted to projections on principal components."""
    a, b = pca.transform(real.double().numpy()), pca.transform(made.double().numpy())
    A, B = np.cov(a.T), np.cov(b.T)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(A + B) - 2 * np.trace(sqrtm(A @ B).real))


@torch.no_grad()
def quadrature(decoder: nn.Module, x: Tensor, nodes: int = 201, radius: float = 6.0) -> Tensor:
    """log p(x) of each row for d = 2 and Bernoulli logits: a rectangle rule over [-radius, radius]²."""
    line = torch.linspace(-radius, radius, nodes, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    logits = decoder(z.float()).double()
    joint = -nn.functional.softplus(logits).sum(1) - 0.5 * z.square().sum(1) - math.log(2 * math.pi)
    return torch.logsumexp(x.double() @ logits.T + joint, 1) + 2 * math.log(2 * radius / (nodes - 1))


class PythaeSide:
    """pythae's RHVAE and VAE on networks of ours. Raises ImportError where pythae is not installed."""

    def __init__(self) -> None:
        from pythae.models import RHVAE, VAE, RHVAEConfig, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder, BaseMetric
        from pythae.samplers import RHVAESampler, RHVAESamplerConfig

        class Encoder(BaseEncoder):
            def __init__(self, net: nn.Module):
                super().__init__()
                self.net = net

            def forward(self, x: Tensor) -> Any:
                mean, log_std = self.net(x).chunk(2, 1)
                return ModelOutput(embedding=mean, log_covariance=2 * log_std)

        class Decoder(BaseDecoder):
            def __init__(self, net: nn.Module):
                super().__init__()
                self.net = net

            def forward(self, z: Tensor) -> Any:
                return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))

        class Metric(BaseMetric):
            def __init__(self, net: nn.Module):
                super().__init__()
                self.net = net

            def forward(self, x: Tensor) -> Any:
                return ModelOutput(L=self.net(x))

        self._wrap = Encoder, Decoder, Metric
        self._rhvae, self._rhvae_config, self._vae, self._vae_config = RHVAE, RHVAEConfig, VAE, VAEConfig
        self._sampler, self._sampler_config = RHVAESampler, RHVAESamplerConfig

    def vae(self, encoder: MLP, decoder: MLP) -> Any:
        """Bernoulli likelihood."""
        wrap_encoder, wrap_decoder, _ = self._wrap
        config = self._vae_config(
            input_dim=(encoder.in_features,), latent_dim=decoder.in_features, reconstruction_loss="bce"
        )
        return self._vae(config, wrap_encoder(encoder), wrap_decoder(decoder))

    def rhvae(self, encoder: MLP, decoder: MLP, metric: nn.Module, **options: Any) -> Any:
        """Bernoulli likelihood; ``options`` go to its configuration (eps_lf, temperature ...)."""
        wrap_encoder, wrap_decoder, wrap_metric = self._wrap
        config = self._rhvae_config(
            input_dim=(encoder.in_features,),
            latent_dim=decoder.in_features,
            reconstruction_loss="bce",
            **options,
        )
        return self._rhvae(config, wrap_encoder(encoder), wrap_decoder(decoder), wrap_metric(metric))

    @staticmethod
    def step(model: Any, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        """Forward, backward and update on one batch."""
        optimizer.zero_grad(set_to_none=True)
        loss = model({"data": x}).loss
        loss.backward()
        optimizer.step()
        return loss.detach()

    def fit(self, model: Any, x: Tensor, seed: int, epochs: int = EPOCHS) -> list[float]:
        """Train as its trainer does, the metric renewed after each epoch. Mean loss of each epoch.

        The last is NaN, and training ends, where the flow left the numbers.
        """
        torch.manual_seed(seed)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        model.train()
        losses = []
        for epoch in batches(x, seed, epochs):
            try:
                losses.append(float(np.mean([float(self.step(model, rows, optimizer)) for rows in epoch])))
            except ValueError:  # by the check of a distribution's arguments
                losses.append(math.nan)
                break
            model.update()
        model.eval()
        return losses

    def sampler(self, model: Any, **options: Any) -> Any:
        """Its sampler on the volume of the inverse metric."""
        return self._sampler(model, self._sampler_config(**options))
