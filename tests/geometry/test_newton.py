"""The damped Newton iteration on its own."""

import torch

from pullback.geometry.newton import DAMPING_HOPELESS, advance, begin, correct, euler_lagrange
from pullback.geometry.reference import Sphere
from pullback.geometry.route import Extrinsic, Intrinsic, Route
from pullback.geometry.starts import straight_lines
from pullback.metrics import as_metric, from_tensor


def bent(m: int = 4, nodes: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    a, b = (0.5 * torch.randn(m, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    curves = straight_lines(a, b, nodes)
    curves[:, 1:-1] += 0.02 * torch.randn(m, nodes - 2, 2, generator=generator, dtype=torch.float64)
    return curves


def descent_of(route: Route, curves: torch.Tensor, damping: float = 1e-3):
    return begin(route.energy(curves[:, 0], curves[:, -1]), curves, damping=damping)


def test_a_flat_metric_is_solved_by_one_undamped_step():
    curves = bent()
    descent = descent_of(Extrinsic(lambda z: z), curves, damping=0.0)
    advance(descent, tol=1e-9, steps=5)
    assert descent.iterations.tolist() == [1] * 4
    torch.testing.assert_close(descent.points, straight_lines(curves[:, 0], curves[:, -1], 9))


def test_energy_never_rises_and_the_ends_stay():
    curves = bent()
    for route in (Extrinsic(Sphere().embedding), Intrinsic(as_metric(from_tensor(Sphere().tensor, 2)))):
        descent = descent_of(route, curves)
        energies = [descent.energy]
        for _ in range(6):
            advance(descent, tol=1e-12, steps=1)
            energies.append(descent.energy.clone())
        stacked = torch.stack(energies)
        assert (stacked.diff(dim=0) <= 1e-12 * stacked[0]).all()
        assert torch.equal(descent.points[:, [0, -1]], curves[:, [0, -1]])
        assert (descent.residual < 1e-8).all()


def test_finished_curves_wait_for_the_others():
    curves = bent()
    descent = descent_of(Extrinsic(Sphere().embedding), curves)
    advance(descent, tol=1e-8, steps=30)
    again = descent_of(Extrinsic(Sphere().embedding), torch.cat([descent.points[:2], curves[2:]]))
    advance(again, tol=1e-6, steps=30)
    assert again.iterations[:2].tolist() == [0, 0]
    assert (again.iterations[2:] > 0).all()
    assert (again.residual <= 1e-6).all()


def test_a_curve_outside_of_the_domain_is_given_up_at_once():
    curves = bent()
    curves[1, 3, 0] = 50.0
    route = Extrinsic(lambda z: torch.where(z.abs() > 10, torch.nan, z))
    descent = descent_of(route, curves)
    assert descent.energy[1] == torch.inf
    assert descent.damping[1] == DAMPING_HOPELESS
    advance(descent, tol=1e-8, steps=20)
    assert torch.equal(descent.points[1], curves[1])
    assert (descent.residual[[0, 2, 3]] <= 1e-8).all()


def test_the_last_correction_doubles_the_digits():
    route = Extrinsic(Sphere().embedding)
    descent = descent_of(route, bent(nodes=17))
    advance(descent, tol=1e-3, steps=20)
    before = descent.residual.clone()
    correct(descent, tol=1e-3)
    energy, system = descent.problem.model(descent.points)
    after = euler_lagrange(system, energy)
    assert (after <= 100 * before**2 + 1e-12).all()


def test_rows_and_put_are_inverse():
    descent = descent_of(Extrinsic(Sphere().embedding), bent())
    index = torch.tensor([2, 0])
    part = descent.rows(index)
    advance(part, tol=1e-8, steps=20)
    descent.put(index, part)
    torch.testing.assert_close(descent.points[index], part.points)
    torch.testing.assert_close(descent.system.gradient[index], part.system.gradient)
    assert (descent.residual[[1, 3]] > 1e-8).all()
