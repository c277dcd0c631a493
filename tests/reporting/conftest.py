"""A small model with a known decoder that follows the estimators' contract: a page takes a second."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from torch import nn

import pullback as pb
from pullback.metrics import PullbackMetric


class Bent(BaseEstimator):
    """A decoder A tanh(C z) of fixed random matrices; codes are least-squares coordinates along A C."""

    def __init__(self, latent_dim: int = 2, width: int = 6, image_shape: tuple[int, int, int] | None = None):
        self.latent_dim = latent_dim
        self.width = width
        self.image_shape = image_shape

    def fit(self, X: Any = None) -> "Bent":
        generator = torch.Generator().manual_seed(1)
        inner, outer = nn.Linear(self.latent_dim, 12), nn.Linear(12, self.width)
        with torch.no_grad():
            for layer, size in ((inner, 0.25), (outer, 1.0)):
                layer.weight.copy_(size * torch.randn(layer.weight.shape, generator=generator))
                layer.bias.zero_()
        self.module_ = nn.Sequential(inner, nn.Tanh(), outer).requires_grad_(False).eval()
        # Solved once: a least-squares solver may differ in the last bits from one call to the next.
        self.encoder_ = torch.linalg.pinv(outer.weight.detach() @ inner.weight.detach()).T.contiguous()
        self.n_features_in_ = self.width
        self.image_shape_ = self.image_shape
        self.history_ = {
            "loss": [9.0, 5.0, 4.0, 3.8],
            "kl": [0.1, 0.4, 0.5, 0.5],
            "validation/loss": [9.5, 6.0, 5.0, 4.9],
        }
        self.converged_ = True
        self.message_ = "the validation loss stopped falling"
        self.encoded_ = 0
        return self

    def data(self, n: int, seed: int = 0) -> np.ndarray:
        """n rows of data on the surface, with a little noise."""
        generator = torch.Generator().manual_seed(seed)
        x = self.module_(torch.randn(n, self.latent_dim, generator=generator))
        x = (x + 0.02 * torch.randn(x.shape, generator=generator)).numpy()
        return x if self.image_shape is None else x.reshape(n, *self.image_shape)

    def transform(self, X: Any) -> np.ndarray:
        self.encoded_ += 1
        x = torch.as_tensor(np.array(X, dtype=np.float32)).reshape(len(X), -1)
        return (x @ self.encoder_).numpy()

    def inverse_transform(self, Z: Any) -> np.ndarray:
        return self.module_(torch.as_tensor(np.array(Z, dtype=np.float32))).numpy()

    def metric(self, kind: str = "pullback", *, dtype: torch.dtype | None = None) -> PullbackMetric:
        return PullbackMetric(copy.deepcopy(self.module_).to(dtype or torch.float32))


@pytest.fixture(scope="session")
def digits() -> tuple[pb.VAE, np.ndarray, np.ndarray]:
    """A VAE of handwritten digits as pictures, with small dense networks; the pictures and the digits."""
    found = pb.data.load("digits")
    pictures = found.X[:400].reshape(-1, 1, 8, 8).astype("float32")
    encoder, decoder = pb.models.MLP(64, 4, hidden=(32,)), pb.models.MLP(2, 64, hidden=(32,))
    model = pb.VAE(encoder=encoder, decoder=decoder, max_epochs=10, progress=False, random_state=0)
    return model.fit(pictures), pictures, found.y[:400]


@pytest.fixture
def bent() -> Callable[..., Bent]:
    """Makes a fitted model of a latent dimension, a width and perhaps an image shape."""

    def make(latent_dim: int = 2, width: int = 6, image_shape: tuple[int, int, int] | None = None) -> Bent:
        return Bent(latent_dim, width, image_shape).fit()

    return make
