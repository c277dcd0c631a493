"""Gradients that training needs: of decoders with codes held, and of codes themselves."""

import pytest
import torch

from planted import planted
from pullback import charts
from pullback.models.dictionary.alone import spread
from pullback.models.dictionary.amortised import AmortisedEncoder
from pullback.models.dictionary.codes import Codes, SparseCodes
from pullback.models.dictionary.gram import projected
from pullback.models.dictionary.module import ManifoldDictionaryModule
from pullback.models.dictionary.parametrization import coords_of, raw_of, raw_weight, raw_width, weight_of
from pullback.models.dictionary.row_step import step_rows
from pullback.models.dictionary.softmax_step import step_softmax
from pullback.penalties import IsometryPenalty
from sums import dense, layout_of, oracle


def fitted(gate: str, n: int = 40) -> tuple[ManifoldDictionaryModule, torch.Tensor]:
    """A module with the decoders of the true codes, and rows of its kind."""
    rows = planted(
        400, "simplex" if gate == "softmax" else "additive", p=24, kinds=("circle", "interval", "sphere")
    )
    layout, scale = layout_of(rows.kinds), spread(rows.Z)
    B = oracle(layout, rows, scale).B * scale
    module = ManifoldDictionaryModule(rows.kinds, 24, gate, decoders=B, scale=scale, entropy=0.01).double()  # type: ignore[arg-type]
    return module, rows.Z[:n]


def rested(module: ManifoldDictionaryModule, Z: torch.Tensor, codes: Codes) -> Codes:
    """Codes moved until they are stationary, atoms held."""
    rows, B = Z / module.scale, module.B.detach()
    if module.gate == "softmax":
        options = {"tau": module.tau, "entropy": module.entropy}
        return step_softmax(
            module.layout, projected(rows, B / module.scale), codes, steps=150, **options
        ).codes
    inner = Codes(codes.atoms, codes.weights / module.scale, codes.coords)
    found = step_rows(module.layout, rows @ B.mT, B @ B.mT, inner, steps=150).codes
    return Codes(found.atoms, found.weights * module.scale, found.coords)


@pytest.mark.parametrize("gate", ["softmax", "amplitude"])
def test_codes_carry_the_derivative_of_solving_for_them(gate: str) -> None:
    module, Z = fitted(gate)
    g = torch.Generator().manual_seed(0)
    V = torch.randn(Z.shape, generator=g, dtype=torch.float64)
    rows = Z.clone().requires_grad_()
    codes = module.encode(rows, differentiable="implicit")
    at = rested(
        module,
        Z,
        Codes(
            codes.atoms,
            codes.weights.detach(),
            codes.coords.detach(),
            None if codes.logits is None else codes.logits.detach(),
        ),
    )
    h = 1e-5
    ahead, behind = (rested(module, Z + s * h * V, at) for s in (1, -1))
    slope = (ahead.weights - behind.weights) / (2 * h)
    bend = torch.remainder(ahead.coords - behind.coords + 3, 2 * torch.pi) - 3
    bend = bend / (2 * h)
    # products with V of rows, one output at a time
    found_w, found_t = torch.zeros_like(slope), torch.zeros_like(bend)
    for s in range(codes.weights.shape[1]):
        (found,) = torch.autograd.grad(codes.weights[:, s].sum(), rows, retain_graph=True)
        found_w[:, s] = (found * V).sum(1)
        for j in range(codes.coords.shape[2]):
            (found,) = torch.autograd.grad(codes.coords[:, s, j].sum(), rows, retain_graph=True)
            found_t[:, s, j] = (found * V).sum(1)
    seen = at.weights > 0.1
    near = ((codes.weights.detach() - at.weights).abs() < 1e-8).all(1)
    assert float(near.double().mean()) > 0.3
    torch.testing.assert_close(found_w[near], slope[near], atol=2e-4, rtol=2e-3)
    chosen = near.unsqueeze(1) & seen
    torch.testing.assert_close(found_t[chosen], bend[chosen], atol=2e-3, rtol=5e-3)


@pytest.mark.parametrize("gate", [pytest.param("softmax", marks=pytest.mark.slow), "amplitude"])
def test_gradients_of_decoders_are_those_of_the_best_codes(gate: str) -> None:
    module, Z = fitted(gate)
    codes = rested(module, Z, module.encode(Z))
    if codes.logits is not None:
        # logits of atoms that a row does not use keep falling: only rows that use all of them rest
        used = codes.weights.amin(1) > 1e-2
        Z, codes = Z[used], codes.rows(used)
    assert len(Z) > 3
    module.loss(Z, codes).backward()
    block = module.decoders[0]
    assert block.grad is not None
    V = torch.randn(block.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slope, h = float((block.grad * V).sum()), 1e-5
    values = []
    for s in (1, -1):
        with torch.no_grad():
            block += s * h * V
            values.append(float(module.loss(Z, rested(module, Z, codes))))
            block -= s * h * V
    assert slope == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-3, abs=1e-6)


def test_training_by_gradients_lowers_the_misfit() -> None:
    module, Z = fitted("amplitude", 200)
    with torch.no_grad():
        for block in module.decoders:
            block += 0.05 * torch.randn(block.shape, generator=torch.Generator().manual_seed(2))
    gauge = IsometryPenalty(weight=1e-3)
    path = []
    chart = module.layout.charts[0]
    optimiser = torch.optim.SGD(module.parameters(), lr=0.2)
    for _ in range(6):
        optimiser.zero_grad()
        loss = module.loss(Z)
        path.append(loss.item())
        loss = loss + gauge.penalize(lambda t: chart.jet(t, 0).value @ module.decoders[0], chart.grid()) / 200
        loss.backward()
        optimiser.step()
    assert path[-1] < path[0]
    assert module(Z).shape == Z.shape


def test_modules_keep_dtype_and_decode_what_users_are_given() -> None:
    module = ManifoldDictionaryModule(
        ["circle", "line", charts.points(3)], 6, n_active=2, generator=torch.Generator().manual_seed(0)
    )
    Z = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    codes = module.encode(Z)
    assert codes.weights.dtype == torch.float32
    assert module(Z).dtype == torch.float32
    nan = torch.where(torch.zeros_like(codes.coords) == 0, codes.coords, torch.nan)
    given = SparseCodes(
        codes.atoms, codes.weights, nan, nan, Z.norm(dim=1), torch.ones(10, dtype=torch.bool), 3
    )
    torch.testing.assert_close(module.decode(given), module.decode(codes))
    weights, _ = dense(module.layout, Codes(codes.atoms, codes.weights.double(), codes.coords.double()))
    torch.testing.assert_close(given.to_array().double(), weights)
    assert (given.to_csr().toarray() == weights.numpy().astype("float32")).all()
    state = module.state_dict()
    assert len(state) == 3


@pytest.mark.parametrize("kind", ["circle", "torus", "interval", "plane", "sphere"])
def test_raw_numbers_stand_for_coordinates(kind: str) -> None:
    chart = charts.as_chart(kind)
    t = chart.retract(chart.grid(), torch.full((len(chart.grid()), chart.d), 0.05, dtype=torch.float64))
    raw = raw_of(chart, t)
    assert raw.shape[1] == raw_width(chart)
    torch.testing.assert_close(coords_of(chart, raw), t, atol=2e-6, rtol=0)
    weights = torch.tensor([1e-3, 0.5, 40.0], dtype=torch.float64)
    torch.testing.assert_close(weight_of(raw_weight(weights)), weights)


@pytest.mark.parametrize("gate", ["softmax", "amplitude"])
def test_a_network_learns_to_start_rows(gate: str) -> None:
    module, Z = fitted(gate, 200)
    codes = module.encode(Z)
    g = torch.Generator().manual_seed(0)
    network = AmortisedEncoder(24, (32,), module.layout.charts, gate, generator=g).double()  # type: ignore[arg-type]
    first = network.match(Z, codes).item()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = network.match(Z, codes) + module.loss(Z, network(Z))
        loss.backward()
        optimiser.step()
    assert network.match(Z, codes).item() < 0.6 * first
