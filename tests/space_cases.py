"""Recorded cases, planted problems and random batches for the tests of subspaces."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = np.load(Path(__file__).parent / "golden" / "space.npz", allow_pickle=False)
CASES = ("f64_a", "f64_b", "f32_a", "f64_c")
PARTS = ("full", "batch")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def rotation(dim: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(dim, dim, seed=seed)).Q


def bases(sizes: dict[str, int], dim: int, seed: int = 0) -> dict[str, Tensor]:
    """Orthonormal rows of each name; different names overlap."""
    return {
        q: torch.linalg.qr(normal(dim, k, seed=seed + 17 * i)).Q.mT for i, (q, k) in enumerate(sizes.items())
    }


def blocks(sizes: dict[str, int], dim: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Rows of the identity, in order."""
    rows = iter(torch.eye(dim, dtype=dtype).split([*sizes.values(), dim - sum(sizes.values())]))
    return {q: next(rows) for q in sizes}


def off(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest entry."""
    found, expected = found.detach(), expected.detach()
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300))


def r2(predicted: Tensor, y: Tensor) -> float:
    return float(1 - (predicted - y).square().sum() / (y - y.mean(0)).square().sum())


@dataclass(frozen=True)
class Case:
    """One recorded case."""

    name: str

    def __getitem__(self, key: str) -> Tensor:
        return torch.as_tensor(GOLDEN[f"{self.name}/{key}"])

    @property
    def names(self) -> list[str]:
        return [str(q) for q in GOLDEN[f"{self.name}/names"]]

    @property
    def k(self) -> dict[str, int]:
        return dict(zip(self.names, self["k"].tolist(), strict=True))

    def all(self, key: str) -> dict[str, Tensor]:
        return {q: self[f"{q}/{key}"] for q in self.names}

    def rows(self, part: str) -> tuple[Tensor, dict[str, Tensor]]:
        n = len(self["Z"]) if part == "full" else int(self["batch_rows"])
        return self["Z"][:n], {q: y[:n] for q, y in self.all("Y").items()}

    @property
    def single(self) -> bool:
        return self["Z"].dtype == torch.float32


@dataclass(frozen=True, eq=False)
class Planted:
    """Codes of a given condition number, 16 columns that follow three directions T, and fresh rows."""

    z: Tensor
    y: Tensor
    z_test: Tensor
    y_test: Tensor
    T: Tensor


def planted(condition: float, n: int, seed: int, fresh: int = 5000) -> Planted:
    D = 32
    g = seeded(seed)
    turn = torch.linalg.qr(torch.randn(D, D, generator=g, dtype=torch.float64)).Q
    M = turn * torch.logspace(0, -math.log10(condition) / 2, D, dtype=torch.float64) @ turn.mT
    T = torch.randn(D, 3, generator=g, dtype=torch.float64)
    T = T / (T.mT @ M.mT @ M @ T).diagonal().sqrt()
    z = torch.randn(n + fresh, D, generator=g, dtype=torch.float64) @ M
    signal = z @ T @ torch.randn(3, 16, generator=g, dtype=torch.float64)
    y = signal + 0.3 * signal.std(0) * torch.randn(signal.shape, generator=g, dtype=torch.float64)
    return Planted(z[:n], y[:n], z[n:], y[n:], T)


def oracle(data: Planted) -> float:
    """R² on fresh rows of the best reader of the true directions."""
    S, mean = (data.z - data.z.mean(0)) @ data.T, data.y.mean(0)
    C = torch.linalg.lstsq(S, data.y - mean).solution
    return r2((data.z_test - data.z.mean(0)) @ data.T @ C + mean, data.y_test)


def factors(n: int, noise: float, seed: int, smooth: float = 0.0) -> tuple[Tensor, Tensor]:
    """Codes (n, 20) whose first five columns are equal factors of 64 noisy columns."""
    g = seeded(seed)
    F = torch.linalg.qr(torch.randn(64, 5, generator=g, dtype=torch.float64)).Q
    z = torch.randn(n, 20, generator=g, dtype=torch.float64)
    e = torch.randn(n, 64, generator=g, dtype=torch.float64)
    columns = [e[:, 0]]
    for j in range(1, 64):
        columns.append(smooth * columns[-1] + math.sqrt(1 - smooth**2) * e[:, j])
    return z, math.sqrt(64 / 5) * z[:, :5] @ F.mT + noise * torch.stack(columns, dim=1)
