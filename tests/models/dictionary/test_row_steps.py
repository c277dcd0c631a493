"""Row steps of both gates against autograd, plain data space and their promises."""

import pytest
import torch

from pullback.models.dictionary.alone import spread
from pullback.models.dictionary.codes import Codes, decode
from pullback.models.dictionary.gram import Projected, projected
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.objective import objective
from pullback.models.dictionary.row_step import step_rows
from pullback.models.dictionary.softmax_step import step_softmax
from pullback.penalties.gershgorin import absolute_row_sums
from pullback.penalties.softmax_rows import assign, dense_hessian, fisher_metric
from sums import codes_of, drawn, golden_rows, layout_of, oracle


def tangent_norm(layout: Layout, codes: Codes, slope: torch.Tensor) -> torch.Tensor:
    """Squared norms of gradients by stored coordinates, along the charts."""
    total = torch.zeros(len(codes), dtype=torch.float64)
    for k, chart in enumerate(layout.charts):
        row, slot = (codes.atoms == k).nonzero(as_tuple=True)
        part, t = slope[row, slot, : chart.c], codes.coords[row, slot, : chart.c]
        if chart.name == "sphere":
            part = part - (part * t).sum(1, keepdim=True) * t
        total.index_add_(0, row, part.square().sum(1))
    return total


def test_amplitude_steps_know_their_objective_and_its_gradient() -> None:
    layout, Z, B, codes = drawn()
    taken = step_rows(layout, Z @ B.mT, B @ B.mT, codes, steps=1)
    still = step_rows(layout, Z @ B.mT, B @ B.mT, codes, steps=0)
    rows = (Z - decode(layout, B, codes)).square().sum(1) / 2
    torch.testing.assert_close(still.value + Z.square().sum(1) / 2, rows)
    weights, coords = codes.weights.clone().requires_grad_(), codes.coords.clone().requires_grad_()
    free = Codes(codes.atoms, weights, coords)
    value = objective(layout, Z, B, free, lam=torch.zeros(layout.K).double(), rho=0.0)
    by_weight, by_coord = torch.autograd.grad(value, (weights, coords))
    by_weight = torch.where(codes.atoms < 0, 0.0, by_weight)
    square = by_weight.square().sum(1) + tangent_norm(layout, codes, by_coord)
    torch.testing.assert_close(taken.slope, square.sqrt())


@pytest.mark.parametrize("free", [True, False], ids=["weights", "coordinates"])
def test_no_row_gets_worse_and_rows_come_to_rest(free: bool) -> None:
    layout, Z, B, codes = drawn()
    C, G = Z @ B.mT, B @ B.mT
    start = step_rows(layout, C, G, codes, steps=1, free_weights=free)
    before, damping = step_rows(layout, C, G, codes, steps=0).value, None
    for _ in range(12):
        taken = step_rows(layout, C, G, codes, damping, steps=2, free_weights=free)
        assert bool((taken.value <= before).all())
        codes, damping, before = taken.codes, taken.damping, taken.value
    assert float(taken.slope.median()) <= 0.02 * float(start.slope.median())
    assert bool(taken.converged.any())
    empty = codes.atoms < 0
    assert bool((codes.weights[empty] == 0).all())
    assert bool((codes.weights[~empty] > 0).all())


def test_chunks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from pullback.models.dictionary import row_step, softmax_step

    layout, Z, B, codes = drawn()
    whole = step_rows(layout, Z @ B.mT, B @ B.mT, codes)
    soft_layout, soft_Z, soft_B, soft = drawn(line=False)
    soft_whole = step_softmax(soft_layout, projected(soft_Z, soft_B), soft)
    monkeypatch.setattr(row_step, "ENTRIES", 9000)
    monkeypatch.setattr(softmax_step, "ENTRIES", 9000)
    parts = step_rows(layout, Z @ B.mT, B @ B.mT, codes)
    torch.testing.assert_close(parts.codes.coords, whole.codes.coords)
    torch.testing.assert_close(parts.value, whole.value)
    soft_parts = step_softmax(soft_layout, projected(soft_Z, soft_B), soft)
    torch.testing.assert_close(soft_parts.codes.weights, soft_whole.codes.weights)


@pytest.mark.parametrize("entropy", [0.0, 0.3])
@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_softmax_steps_know_their_objective_and_its_gradient(entropy: float, tau: float) -> None:
    layout, Z, B, codes = drawn(line=False)
    codes = Codes.softmax(codes.logits, codes.coords, tau)
    taken = step_softmax(layout, Projected(Z, B), codes, steps=1, tau=tau, entropy=entropy)
    still = step_softmax(layout, Projected(Z, B), codes, steps=0, tau=tau, entropy=entropy)
    logits, coords = codes.logits.clone().requires_grad_(), codes.coords.clone().requires_grad_()
    free = Codes.softmax(logits, coords, tau)
    options = {"lam": torch.zeros(layout.K).double(), "rho": 0.0, "entropy": entropy, "tau": tau}
    value = objective(layout, Z, B, free, **options)
    assert float(still.value.sum()) == pytest.approx(value.item())
    by_logit, by_coord = torch.autograd.grad(value, (logits, coords))
    square = by_logit.square().sum(1) + tangent_norm(layout, codes, by_coord)
    torch.testing.assert_close(taken.slope, square.sqrt())
    assert bool((taken.value <= still.value).all())


def test_projection_changes_no_step() -> None:
    rows = golden_rows("mix_train")
    layout = layout_of(rows.kinds)
    scale = spread(rows.Z)
    B = oracle(layout, rows, scale).B
    wide = torch.linalg.qr(
        torch.randn(512, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ).Q.mT
    Z, B = rows.Z[:200] / scale @ wide, B @ wide
    codes = codes_of(layout, rows, softmax=True, noise=0.3).rows(slice(0, 200))
    short = projected(Z, B)
    assert short.Y.shape == (200, layout.total)
    one = step_softmax(layout, Projected(Z, B), codes, steps=3)
    two = step_softmax(layout, short, codes, steps=3)
    assert one.codes.logits is not None
    assert two.codes.logits is not None
    assert float((one.codes.logits - two.codes.logits).abs().max()) <= 1e-10


def test_entropy_is_bounded_by_row_sums_and_not_by_the_fisher_matrix() -> None:
    logits = 3 * torch.randn(20000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = assign(logits, 1.0)
    H = dense_hessian(at, 1.0)
    log = at.a.log()
    mean = (at.a * log).sum(1, keepdim=True) + 1
    L = log + 1
    a = at.a.unsqueeze(2) * at.a.unsqueeze(1) * (L.unsqueeze(2) + L.unsqueeze(1) + 1 - 2 * mean.unsqueeze(2))
    torch.testing.assert_close(H, a + torch.diag_embed(at.a * (mean - L - 1)), atol=1e-12, rtol=0)
    bound = absolute_row_sums(at, 1.0)
    torch.testing.assert_close(bound, H.abs().sum(2), atol=1e-12, rtol=0)
    assert float(torch.linalg.eigvalsh(torch.diag_embed(bound) - H).min()) >= -1e-9
    assert float(torch.linalg.eigvalsh(fisher_metric(at, 1.0) - H).min()) < -0.1
    assert float((torch.linalg.eigvalsh(H)[:, 0] < -1e-12).double().mean()) > 0.5
    sharp = assign(torch.tensor([[0.95, 0.05]], dtype=torch.float64).log(), 1.0)
    assert float(torch.linalg.eigvalsh(fisher_metric(sharp, 1.0) - dense_hessian(sharp, 1.0)).min()) < -0.01
