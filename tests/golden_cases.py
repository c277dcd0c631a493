"""The recorded cases of golden/rhvae.npz: networks, data, points, metrics and potentials."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pullback.dynamics import ModelPotential
from pullback.metrics import CentroidMetric
from pullback.models import Bernoulli, Gaussian

GOLDEN = np.load(Path(__file__).parent / "golden" / "rhvae.npz", allow_pickle=False)
CASES = ("a", "b", "c")


class Decoder(nn.Module):
    """b(tanh a(z))."""

    def __init__(self, case: "Case"):
        super().__init__()
        self.a, self.b = linear(case, "decoder.a"), linear(case, "decoder.b")
        self.in_features = self.a.in_features

    def forward(self, z: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(z)))


class Encoder(nn.Module):
    """Mean m(h) and log σ = (v(h) - 1)/2 side by side, h = tanh l(x)."""

    def __init__(self, case: "Case"):
        super().__init__()
        self.l, self.m, self.v = (linear(case, f"encoder.{name}") for name in "lmv")

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.l(x))
        return torch.cat([self.m(h), (self.v(h) - 1) / 2], dim=1)


def linear(case: "Case", name: str) -> nn.Linear:
    weight = case[f"sd/{name}.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.load_state_dict({"weight": weight, "bias": case[f"sd/{name}.bias"]})
    return layer


@dataclass(frozen=True)
class Case:
    """One recorded case."""

    name: str

    def __getitem__(self, key: str) -> Tensor:
        return torch.as_tensor(GOLDEN[f"{self.name}/{key}"])

    @property
    def settings(self) -> tuple[int, float, float, float, float, int, bool]:
        """d, T, λ, √β_0, ε, K, whether the data are binary."""
        d, _, _, _, T, ridge, root, step, K, binary = self["cfg"].tolist()
        return int(d), T, ridge, root, step, int(K), bool(binary)

    @property
    def metric(self) -> CentroidMetric:
        _, T, ridge, *_ = self.settings
        factors = torch.linalg.cholesky(self["M"])
        return CentroidMetric(self["c"], factors, temperature=T, regularization=ridge, reduction="sum")

    @property
    def likelihood(self) -> nn.Module:
        return Bernoulli(strict=False) if self.settings[-1] else Gaussian()

    def potential(self, rows: slice = slice(None)) -> ModelPotential:
        return ModelPotential(Decoder(self).requires_grad_(False), self.likelihood, self["x"][rows])
