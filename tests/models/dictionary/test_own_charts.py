"""A chart of the user's own, by protocol alone."""

import math
from pathlib import Path

import pytest
import torch

import pullback as pb
from pullback.jets import Jet
from pullback.typing import Chart


class Spiral:
    """An angle from 0 to 3π with the basis 1, t cos t, t sin t."""

    name = "spiral"
    d = c = 1
    M = 3
    volume = 3 * math.pi
    step = 0.5
    roughness = torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))

    def jet(self, t: torch.Tensor, order: int = 1) -> Jet:
        x = t[:, 0]
        c, s, one = x.cos(), x.sin(), torch.ones_like(x)
        value = torch.stack([one, x * c, x * s], 1)
        J = torch.stack([0 * x, c - x * s, s + x * c], 1).unsqueeze(2) if order else None
        H = torch.stack([0 * x, -2 * s - x * c, 2 * c - x * s], 1)[:, :, None, None] if order > 1 else None
        return Jet(value, J, H)

    def retract(self, t: torch.Tensor, dt: torch.Tensor) -> torch.Tensor:
        return (t + dt.clamp(-self.step, self.step)).clamp(0, 3 * math.pi)

    def grid(self, n: int | None = None) -> torch.Tensor:
        return torch.linspace(0, 3 * math.pi, n or 40, dtype=torch.float64).unsqueeze(1)

    def from_embedding(self, Y: torch.Tensor) -> torch.Tensor:
        rank = Y[:, 0].argsort().argsort().to(Y)
        return (rank / len(Y) * 3 * math.pi).unsqueeze(1)

    def align(self, t_a: torch.Tensor, t_b: torch.Tensor) -> object:
        from pullback.charts.isometries import identity

        return identity(t_a, float(torch.corrcoef(torch.cat([t_a, t_b], 1).mT)[0, 1]))


def test_a_chart_of_ones_own_is_fitted_and_not_saved(tmp_path: Path) -> None:
    chart = Spiral()
    assert isinstance(chart, Chart)
    g = torch.Generator().manual_seed(0)
    t = 3 * math.pi * torch.rand(200, 1, generator=g, dtype=torch.float64)
    frame = torch.linalg.qr(torch.randn(6, 2, generator=g, dtype=torch.float64)).Q.mT
    Z = torch.cat([t * t.cos(), t * t.sin()], 1) @ frame
    Z = Z + 0.05 * torch.randn(Z.shape, generator=g, dtype=torch.float64)
    model = pb.ManifoldDictionary(1, chart, gate="softmax", n_restarts=1, max_sweeps=20).fit(Z)
    assert model.diagnostics_.fvu < 0.01
    codes = model.transform(Z)
    assert chart.align(codes.coords[:, 0], t).score > 0.95  # type: ignore[attr-defined]
    assert model.steer(Z, 0, [0.3]).shape == Z.shape
    with pytest.raises(TypeError, match=r"charts: expected one of pullback\.charts to save, got Spiral"):
        model.save(tmp_path / "m")
