"""Integrators: recorded steps, the exact flow, reversibility, volume, order, and what cannot be solved."""

from itertools import pairwise

import pytest
import torch

from golden_cases import CASES, Case
from metric_cases import centroids
from pullback import EuclideanMetric
from pullback.dynamics import (
    explicit_momentum_step,
    generalized_leapfrog,
    hamiltonian,
    implicit_momentum_step,
    implicit_position_step,
    leapfrog,
)

SOLVED = {"tolerance": 1e-14, "max_iterations": 100}


def quartic(z):
    return (z**4).sum(1) / 4 + z.square().sum(1) / 2


def numbers(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(z, rho, metric, steps, **options):
    """So many steps, each with what the one before carries."""
    carry = None
    for _ in range(steps):
        step = generalized_leapfrog(z, rho, metric, carry=carry, **options)
        z, rho, carry = step.z, step.rho, step.carry
    return step


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_step_are_the_recorded_ones(name):
    case = Case(name)
    step = case.settings[4]
    z, rho, metric, potential = case["z"], case["rho"], case.metric, case.potential()
    first = implicit_momentum_step(z, rho, metric, potential=potential, step_size=step)
    torch.testing.assert_close(first.value, case["leap1"], rtol=1e-14, atol=1e-14)
    assert first.iterations.tolist() == [3] * len(z)
    last = explicit_momentum_step(
        case["leap2_pythae_frozenG"], case["leap1"], metric, potential=potential, step_size=step
    )
    torch.testing.assert_close(last, case["leap3"], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_position_step_differs_from_the_one_with_a_frozen_metric(name):
    case = Case(name)
    step, frozen = case.settings[4], case["leap2_pythae_frozenG"]
    velocity = case.metric.velocity(case["z"], case["leap1"])
    torch.testing.assert_close(case["z"] + step * velocity, frozen)
    moved = implicit_position_step(case["z"], case["leap1"], case.metric, step_size=step).value
    error = (moved - frozen)[:-1].abs().max()
    assert {"a": 1e-6, "b": 1e-4, "c": 1e-3}[name] < error < 0.1


@pytest.mark.parametrize("name", CASES)
def test_converged_step_is_the_recorded_one(name):
    case = Case(name)
    n = len(case["exact_eps"])
    z, rho, rows = case["z"][:n], case["rho"][:n], slice(0, n)
    step = generalized_leapfrog(
        z, rho, case.metric, potential=case.potential(rows), step_size=case["exact_eps"][:, None], **SOLVED
    )
    found = torch.cat([step.z, step.rho, step.rho_half], dim=1)
    torch.testing.assert_close(found, case["exact_step_z_rho_rhohalf"], rtol=1e-12, atol=1e-12)
    assert bool(step.converged.all())


@pytest.mark.parametrize(
    "name", [CASES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in CASES[1:])]
)
def test_many_steps_follow_the_recorded_flow(name):
    case = Case(name)
    d = case.settings[0]
    expected = case["hamilton_ode_t0.1_0.2_0.3"][2:, 2]
    z, rho = case["z"][:2], case["rho"][:2]
    errors = []
    for steps in (100, 400):
        end = run(
            z, rho, case.metric, steps, potential=case.potential(slice(0, 2)), step_size=0.3 / steps, **SOLVED
        )
        errors.append((torch.cat([end.z, end.rho], dim=1) - expected).abs().max().item())
    assert errors[0] <= 5e-5
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.02)
    assert end.z.shape[1] == d


TARGETS = [(1, "mean"), (2, "mean"), (3, "mean")]


@pytest.mark.parametrize(("d", "kind"), TARGETS)
def test_reversible(d, kind):
    metric, z, rho = centroids(torch.float64, d, kind), numbers(6, d), numbers(6, d, 1)
    options = {"potential": quartic, "step_size": 0.05, "tolerance": 1e-10, "max_iterations": 50}
    there = run(z, rho, metric, 10, **options)
    back = run(there.z, -there.rho, metric, 10, **options)
    assert bool(there.converged.all())
    assert (there.z - z).abs().max() > 0.1
    assert (back.z - z).abs().max() <= 1e-8
    assert (back.rho + rho).abs().max() <= 1e-8
    # three iterations are no reversible sampler
    there = run(z, rho, metric, 10, potential=quartic, step_size=0.05)
    back = run(there.z, -there.rho, metric, 10, potential=quartic, step_size=0.05)
    assert (back.z - z).abs().max() > 1e-8


def log_volume(metric, d, iterations, step_size, steps=1):
    """log |det| of the steps at one point."""
    start = torch.cat([numbers(1, d, 3), numbers(1, d, 4)], dim=1)

    def stepped(both):
        end = run(
            both[None, :d],
            both[None, d:],
            metric,
            steps,
            potential=quartic,
            step_size=step_size,
            **iterations,
        )
        return torch.cat([end.z, end.rho], dim=1)[0]

    return torch.linalg.slogdet(torch.autograd.functional.jacobian(stepped, start[0])).logabsdet.item()


@pytest.mark.parametrize(("d", "kind"), TARGETS)
@pytest.mark.parametrize("by_dimension", [False, True])
def test_volume_is_kept(d, kind, by_dimension):
    metric = centroids(torch.float64, d, kind)
    step = torch.linspace(0.04, 0.06, d, dtype=torch.float64) if by_dimension else 0.05
    assert abs(log_volume(metric, d, {"max_iterations": 40}, step)) <= 1e-12
    assert abs(log_volume(metric, d, {"max_iterations": 40}, step, steps=10)) <= 1e-8
    assert abs(log_volume(metric, d, {"max_iterations": 3}, step)) <= 1e-4
    assert abs(log_volume(metric, d, {"max_iterations": 1}, step)) > 1e-5


@pytest.mark.parametrize(("d", "kind"), TARGETS)
def test_energy_is_kept_to_second_order(d, kind):
    metric, z, rho = centroids(torch.float64, d, kind), numbers(5, d), numbers(5, d, 1)
    before = hamiltonian(z, rho, metric, potential=quartic)
    errors = []
    for steps in (20, 40, 80):
        end = run(z, rho, metric, steps, potential=quartic, step_size=0.4 / steps, **SOLVED)
        after = hamiltonian(end.z, end.rho, metric, potential=quartic)
        errors.append((after - before).abs().max())
    orders = [torch.log2(one / other).item() for one, other in pairwise(errors)]
    assert all(1.9 <= order <= 2.1 for order in orders)


def test_explicit_on_the_flat_metric():
    z, rho = numbers(4, 3), numbers(4, 3, 1)
    flat = generalized_leapfrog(z, rho, EuclideanMetric(3), potential=quartic, step_size=0.1)
    plain = leapfrog(z, rho, potential=quartic, step_size=0.1)
    # a flat metric that does not say so takes the implicit way to the same end
    implicit = generalized_leapfrog(z, rho, 1.0 * EuclideanMetric(3), potential=quartic, step_size=0.1)
    for name in ("z", "rho", "rho_half"):
        assert torch.equal(getattr(flat, name), getattr(plain, name))
        torch.testing.assert_close(getattr(flat, name), getattr(implicit, name), rtol=1e-14, atol=1e-14)
    half = rho - 0.05 * (z**3 + z)
    torch.testing.assert_close(plain.rho_half, half)
    torch.testing.assert_close(plain.z, z + 0.1 * half)
    assert plain.residual.tolist() == [0] * 4


def test_carry_saves_evaluations_and_changes_nothing():
    metric, z, rho = centroids(torch.float64, 2, "mean"), numbers(4, 2), numbers(4, 2, 1)
    calls = []

    def counted(z):
        calls.append(len(z))
        return quartic(z)

    with torch.no_grad():
        end = run(z, rho, metric, 4, potential=counted, step_size=0.05)
    assert len(calls) == 5
    for _ in range(4):
        step = generalized_leapfrog(z, rho, metric, potential=quartic, step_size=0.05)
        z, rho = step.z, step.rho
    torch.testing.assert_close(end.z, z, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(end.rho, rho, rtol=1e-14, atol=1e-14)


def test_rows_do_not_depend_on_their_neighbours():
    metric, z, rho = centroids(torch.float64, 2, "sum"), numbers(30, 2), 3 * numbers(30, 2, 1)
    options = {"potential": quartic, "step_size": 0.2, "tolerance": 1e-8, "max_iterations": 60}
    together = generalized_leapfrog(z, rho, metric, **options)
    assert len(set(together.iterations.tolist())) > 1
    for row in range(0, 30, 7):
        alone = generalized_leapfrog(z[row : row + 1], rho[row : row + 1], metric, **options)
        torch.testing.assert_close(alone.z[0], together.z[row], rtol=1e-12, atol=1e-12)
        assert alone.iterations.item() == together.iterations[row].item()


def test_an_equation_without_a_solution_is_reported_and_harms_no_other_row():
    metric = centroids(torch.float64, 2, "sum")
    z, rho = numbers(3, 2), numbers(3, 2, 1)
    rho[1] *= 1e6
    options = {"potential": quartic, "step_size": 0.05, "tolerance": 1e-10, "max_iterations": 50}
    step = generalized_leapfrog(z, rho, metric, **options)
    assert step.converged.tolist() == [True, False, True]
    assert bool(torch.isfinite(step.momentum_point.value).all())
    alone = generalized_leapfrog(z[:1], rho[:1], metric, **options)
    torch.testing.assert_close(alone.z[0], step.z[0], rtol=1e-13, atol=1e-13)
    plain = generalized_leapfrog(z, rho, metric, potential=quartic, step_size=0.05)
    assert plain.converged.tolist()[1] is False


def test_truncated_gradients_differ_and_values_do_not():
    z, rho = numbers(4, 2).requires_grad_(), numbers(4, 2, 1)
    metric = centroids(torch.float64, 2, "sum")
    ends = [
        generalized_leapfrog(z, rho, metric, potential=quartic, step_size=0.1, backprop=backprop)
        for backprop in ("exact", "truncated")
    ]
    assert torch.equal(ends[0].z, ends[1].z)
    assert torch.equal(ends[0].rho, ends[1].rho)
    one, other = (torch.autograd.grad(end.rho.square().sum(), z)[0] for end in ends)
    assert (one - other).abs().max() > 1e-3


def test_exact_gradients():
    metric = centroids(torch.float64, 2, "mean")

    def end(z, rho):
        step = generalized_leapfrog(z, rho, metric, potential=quartic, step_size=0.1)
        return torch.cat([step.z, step.rho])

    z, rho = numbers(2, 2).requires_grad_(), numbers(2, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(end, (z, rho))
