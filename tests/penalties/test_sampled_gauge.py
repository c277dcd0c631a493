"""The gauge of a training step: probes with random signs, and sums over processes."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from penalties.checks import draw, relative
from penalties.decoders import CONSTANT, MOVING, decoder, reference
from pullback import ambient
from pullback.penalties import IsometryPenalty


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_probes_are_for_many_dimensions() -> None:
    penalty = IsometryPenalty()
    assert (penalty.estimator_for(16), penalty.estimator_for(17)) == ("exact", "hutchinson")
    assert IsometryPenalty(estimator="exact").estimator_for(500) == "exact"
    assert IsometryPenalty(estimator="hutchinson").estimator_for(1) == "hutchinson"


@pytest.mark.parametrize("with_reference", [False, True], ids=["identity", "reference"])
@pytest.mark.parametrize("name", [*CONSTANT, "Poisson", "Categorical"])
def test_many_probes_find_the_exact_value(name: str, with_reference: bool) -> None:
    n, d, net = 6, 3, decoder(3)
    W = {**CONSTANT, **MOVING}[name](n, 6)
    wanted = reference(n, d) if with_reference else None
    z = draw(n, d)
    exact = IsometryPenalty(0.7, ambient=W, reference=wanted).penalize(net, z)
    many = IsometryPenalty(0.7, ambient=W, reference=wanted, estimator="hutchinson", probes=4000)
    found = many.penalize(net, z, generator=seeded())
    assert relative(found.detach(), exact.detach()) <= 0.03
    parameters = [part for part in net.parameters() if part is not net[-1].bias or name in MOVING]
    a = torch.autograd.grad(found, parameters)
    b = torch.autograd.grad(exact, parameters)
    whole = [torch.cat([part.flatten() for part in parts]) for parts in (a, b)]
    assert float((whole[0] - whole[1]).norm() / whole[1].norm()) <= 0.1


def test_probes_cost_nothing_where_the_metric_matches() -> None:
    flat = nn.Linear(20, 30).double()
    with torch.no_grad():
        flat.weight.copy_(3 * torch.linalg.qr(draw(30, 20)).Q)
    assert IsometryPenalty().penalize(flat, draw(5, 20), generator=seeded()).item() < 1e-26


@pytest.mark.parametrize("probes", [1, 3])
def test_draws_follow_the_generator_and_have_gradients(probes: int) -> None:
    net, z = decoder(2), draw(4, 2).requires_grad_()
    W = ambient.LowRank(draw(4, 6, 5, seed=1), provenance="behavioral_fisher")
    penalty = IsometryPenalty(ambient=W, estimator="hutchinson", probes=probes)

    def value(at: Tensor) -> Tensor:
        return penalty.penalize(net, at, generator=seeded(3))

    assert torch.equal(value(z), value(z))
    assert value(z) != penalty.penalize(net, z, generator=seeded(4))
    assert gradcheck(value, (z,), eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["exact", "hutchinson"])
def test_two_processes_give_the_value_of_all_rows(estimator: str) -> None:
    """Rank by rank: what `reduce` adds is what the other rank would send."""
    net, z = decoder(2), draw(9, 2)
    penalty = IsometryPenalty(0.7, estimator=estimator, reduction="mean", probes=2)
    expected = penalty.penalize(net, z, reduce=lambda part: part, generator=seeded())
    assert relative(expected, penalty.penalize(net, z, generator=seeded())) <= 1e-13
    if estimator == "hutchinson":
        return  # each process draws for its own rows
    sent: list[list[Tensor]] = [[], []]
    for _ in range(3):  # a round fixes one sum more: the traces, then the squares
        for rank, rows in enumerate((z[:4], z[4:])):
            other, own = iter(list(sent[1 - rank])), []

            def add(part: Tensor, own=own, other=other) -> Tensor:
                own.append(part)
                return part + next(other, torch.zeros_like(part))

            found = penalty.penalize(net, rows, reduce=add)
            sent[rank] = own
    assert relative(found, expected) <= 1e-12


def test_metrics_without_a_flattening_need_the_exact_one(as_users_run: None) -> None:
    penalty = IsometryPenalty(ambient=ambient.LearnedGaussian(), estimator="hutchinson")
    with pytest.raises(TypeError, match="use estimator='exact'"):
        penalty.penalize(decoder(2), draw(3, 2))
