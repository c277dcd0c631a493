"""The metric of a chain of layers as one node, against the general way."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from penalties.checks import draw, relative
from penalties.decoders import reference
from pullback.ambient import Euclidean
from pullback.penalties import DegenerateMetricError, IsometryPenalty
from pullback.penalties.chain_metric import chain_metric, chain_of
from pullback.penalties.decoder_metric import pulled_metric
from pullback.penalties.sampled_gauge import exact_square


def chain(
    d: int, p: int, widths: tuple[int, ...], activations: list[nn.Module], dtype=torch.float64
) -> nn.Module:
    layers: list[nn.Module] = []
    with torch.random.fork_rng():
        torch.manual_seed(d)
        for k, (width, activation) in enumerate(zip(widths, activations, strict=True)):
            layers += [nn.Linear(d, width, bias=k != 1), activation]
            d = width
        return nn.Sequential(*layers, nn.Linear(d, p)).to(dtype)


CHAINS = {
    "two hidden layers": (6, 2, 30, (5, 7), [nn.SiLU(), nn.Softplus(beta=2)]),
    "by the Gram matrix": (40, 3, 50, (4,), [nn.Tanh()]),
    "many dimensions": (5, 6, 9, (8, 4, 6), [nn.GELU(), nn.ELU(), nn.Sigmoid()]),
    "one dimension": (4, 1, 3, (5, 5), [nn.Mish(), nn.SiLU()]),
    "few points, by rows": (2, 2, 30, (5, 20), [nn.Softplus(), nn.SiLU()]),
    "many dimensions, by rows": (2, 6, 9, (8, 30), [nn.GELU(), nn.Tanh()]),
}


@pytest.mark.parametrize("name", CHAINS)
def test_metric_and_gradients_equal_the_general_way(name: str, dtype: torch.dtype) -> None:
    n, *shape = CHAINS[name]
    net = chain(*shape, dtype=dtype)
    z = draw(n, shape[0]).to(dtype).requires_grad_()
    S = draw(n, shape[0], shape[0], seed=1).to(dtype)
    found, expected = chain_metric(net, z), pulled_metric(net, z, Euclidean())
    tolerance = 1e-13 if dtype == torch.float64 else 2e-5
    assert relative(found, expected) <= tolerance
    parts = [z, *(part for part in net.parameters() if part is not net[-1].bias)]
    slopes = [torch.autograd.grad((g * S).sum(), parts) for g in (found, expected)]
    for a, b in zip(*slopes, strict=True):
        assert relative(a, b) <= 10 * tolerance


def test_gradcheck() -> None:
    net = chain(2, 6, (4, 3), [nn.SiLU(), nn.Tanh()])

    assert gradcheck(lambda z: chain_metric(net, z), (draw(3, 2).requires_grad_(),))


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4)),
        nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)),
        nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.LayerNorm(3), nn.Linear(3, 4)),
        nn.Linear(2, 3),
        torch.sin,
    ],
    ids=["kinks", "no activation", "normalised", "one layer", "function"],
)
def test_other_maps_go_the_general_way(net) -> None:
    assert chain_of(net) is None
    assert chain_metric(net, torch.zeros(1, 2)) is None


def test_the_way_is_chosen_by_its_multiplications() -> None:
    by_gram = {}
    for name, (n, *shape) in CHAINS.items():
        metric = chain_metric(chain(*shape), draw(n, shape[0]).requires_grad_())
        assert metric is not None
        by_gram[name] = metric.grad_fn.by_gram
    assert [name for name, gram in by_gram.items() if not gram] == [
        "one dimension",
        "few points, by rows",
        "many dimensions, by rows",
    ]


def test_layers_that_do_nothing_are_passed_by_unless_they_are_random() -> None:
    body = nn.Sequential(nn.Linear(2, 3), nn.Identity(), nn.Tanh(), nn.Dropout(0.5))
    net = nn.Sequential(body, nn.Linear(3, 4)).double()
    assert chain_of(net) is None
    with pytest.raises(ValueError, match="randomises rows"):
        IsometryPenalty().penalize(net, draw(3, 2))
    found = chain_of(net.eval())
    assert found is not None
    assert [*found.linear, *found.activations] == [net[0][0], net[1], net[0][2]]


def test_another_precision_is_named_and_autocast_left_out() -> None:
    net = chain(2, 4, (3,), [nn.Tanh()])
    with pytest.raises(TypeError, match="parameters; call"):
        chain_metric(net, torch.zeros(1, 2))
    z = draw(3, 2).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(chain_metric(net.float(), z), (inside := chain_metric(net, z)))
        assert inside.dtype == torch.float32
    assert torch.equal(inside, chain_metric(net, z))


def test_hooks_are_not_passed_by() -> None:
    net = chain(2, 4, (3,), [nn.Tanh()])
    assert chain_of(net) is not None
    net[1].register_forward_hook(lambda module, args, output: 2 * output)
    assert chain_of(net) is None


@pytest.mark.parametrize("with_reference", [False, True], ids=["identity", "reference"])
def test_the_square_as_a_node(with_reference: bool) -> None:
    root = draw(5, 3, 3)
    g = (root @ root.mT).requires_grad_()
    wanted = reference(5, 3) if with_reference else None
    assert gradcheck(lambda at: exact_square(at, wanted, None)[0], (g,))
    one, many = exact_square(g, wanted, None), exact_square(g, wanted, lambda part: part)
    assert relative(one[0], many[0]) <= 1e-14
    with pytest.raises(DegenerateMetricError):
        exact_square(0 * g, None, None)


def test_a_training_gradient_equals_that_of_the_value() -> None:
    net, z = chain(2, 8, (5, 4), [nn.SiLU(), nn.Softplus()]), draw(6, 2)
    parts = [part for part in net.parameters() if part is not net[-1].bias]
    penalty = IsometryPenalty(0.7, decoder=net)
    found = torch.autograd.grad(penalty.penalize(net, z), parts)
    expected = torch.autograd.grad(penalty.value(z), parts)
    for a, b in zip(found, expected, strict=True):
        assert relative(a, b) <= 1e-12


def test_a_process_without_rows_gives_no_metric_and_zero_gradients() -> None:
    """With fewer points than processes a share of them is empty."""
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 7))
    z = torch.zeros(0, 2, requires_grad=True)
    metric = chain_metric(net, z)
    assert metric is not None
    assert metric.shape == (0, 2, 2)
    gradients = torch.autograd.grad(metric.sum(), [z, *net.parameters()], allow_unused=True)
    assert gradients[0].shape == (0, 2)
    assert all(g is None or g.abs().max() == 0 for g in gradients[1:])
