"""Decoders by gradients: the objective of the alternation, reached from the same start."""

import numpy as np
import pytest
import torch

import pullback as pb
from planted import Planted, planted
from pullback.models.dictionary.decoder_step import gather
from pullback.models.dictionary.gradient_fit import AdamDecoders, descend
from pullback.models.dictionary.iterate import SweepState
from pullback.models.dictionary.objective import objective
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions
from sums import codes_of, layout_of

KINDS = ("circle", "interval")
GATES = ["softmax", "amplitude"]


def drawn(gate: str) -> Planted:
    return planted(150, "single" if gate == "softmax" else "additive", kinds=KINDS, p=10, seed=1)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("weighted", [False, True])
def test_it_reaches_the_objective_of_the_alternation(gate: str, weighted: bool) -> None:
    rows = drawn(gate)
    layout = layout_of(KINDS)
    start = codes_of(layout, rows, softmax=gate == "softmax", noise=0.5, m=2)
    # with λ fixed objectives compare
    options = SweepOptions(gate=gate, n_active=2, smoothness=0.01, max_sweeps=24, tol=0.0, gauge=False)  # type: ignore[arg-type]
    weights = torch.linspace(0.2, 1.0, 150, dtype=torch.float64) if weighted else None
    one = alternate(layout, rows.Z, start, options, row_weights=weights)
    two = descend(layout, rows.Z, start, options, row_weights=weights)
    assert two.path[0] == pytest.approx(one.path[0], rel=1e-9)
    assert two.path[-1] < 0.3 * two.path[0]
    assert two.path[-1] == pytest.approx(one.path[-1], rel=0.03)
    assert two.s2**0.5 == pytest.approx(0.05 if weights is None else one.s2**0.5, rel=0.1)
    assert (two.converged, two.sweeps) == (False, 24)
    assert "max_sweeps" in two.message


@pytest.mark.parametrize("gate", GATES)
def test_steps_follow_the_gradient_of_the_regression(gate: str) -> None:
    """∂F/∂B with codes held is A B - XᵀZ."""
    rows = drawn(gate)
    layout = layout_of(KINDS)
    codes = codes_of(layout, rows, softmax=gate == "softmax", noise=0.2, m=2)
    lam, rho = torch.tensor([0.3, 0.02], dtype=torch.float64), 1e-3
    moments = gather(layout, codes, rows.Z)
    rule = AdamDecoders(layout, rows.Z, SweepOptions(gate=gate, n_active=2))  # type: ignore[arg-type]
    first = rule(codes, moments, lam, rho)
    assert rule.module is not None
    B = (rule.module.B.detach() + 0.1).requires_grad_()
    (found,) = torch.autograd.grad(objective(layout, rows.Z, B, codes, lam=lam, rho=rho), B)
    torch.testing.assert_close(found, first.A @ B.detach() - moments.XZ, atol=1e-9, rtol=1e-9)
    moved = codes_of(layout, rows, softmax=gate == "softmax", noise=0.0, m=2)
    sums = gather(layout, moved, rows.Z)
    values = [rule(moved, sums, lam, rho) for _ in range(12)]
    assert values[-1].rss < values[0].rss


def test_budgets_and_rest_are_told() -> None:
    rows = drawn("softmax")
    layout = layout_of(KINDS)
    start = codes_of(layout, rows, softmax=True, noise=0.3)
    told: list[SweepState] = []

    def stop(state: SweepState) -> None:
        told.append(state)
        if state.sweep == 2:
            raise KeyboardInterrupt

    options = SweepOptions(gate="softmax", smoothness=0.01)
    broken = descend(layout, rows.Z, start, options, callback=stop)
    assert "interrupted" in broken.message
    assert broken.sweeps == len(told) == 3
    short = descend(layout, rows.Z, start, SweepOptions(gate="softmax", max_seconds=0.0))
    assert (short.sweeps, short.converged) == (1, False)
    assert "max_seconds" in short.message
    rested = descend(layout, rows.Z, start, SweepOptions(gate="softmax", smoothness=0.01, tol=0.01))
    assert rested.converged
    assert rested.sweeps < 40


@pytest.mark.parametrize(
    "gate", [gate if gate == "softmax" else pytest.param(gate, marks=pytest.mark.slow) for gate in GATES]
)
def test_the_estimator_takes_it(gate: str) -> None:
    rows = drawn(gate)
    options = {"gate": gate, "n_restarts": 1, "max_sweeps": 12, "random_state": 0}
    model = pb.ManifoldDictionary(2, list(KINDS), solver="adam", **options).fit(rows.Z.numpy())
    assert sorted(atom.chart.name for atom in model.atoms_) == sorted(KINDS)
    assert model.diagnostics_.fvu < 0.2
    assert not model.converged_
    assert "not_converged" in {alarm.code for alarm in model.diagnostics_.alarms}
    assert len(model.diagnostics_.objective) == model.diagnostics_.n_sweeps == 12
    assert np.isfinite(model.transform(rows.Z.numpy()).weights).all()
