"""Networks: shapes of any size, the same map as their layers, weights from the generator alone."""

import pytest
import torch
from torch import nn

from pullback.models import MLP, ConvDecoder, ConvEncoder, make_activation
from pullback.models.blocks import ACTIVATIONS

SIZES = [(1, 8, 8), (3, 28, 28), (1, 5, 7), (2, 1, 3), (1, 9, 16)]


@pytest.mark.parametrize("hidden", [(), (8,), (16, 8, 4)])
@pytest.mark.parametrize("normalization", ["none", "batch", "magnitude"])
def test_mlp_has_the_asked_widths(hidden, normalization):
    net = MLP(5, 3, hidden=hidden, normalization=normalization, dropout=0.1).eval()
    assert net(torch.randn(4, 5)).shape == (4, 3)
    assert [layer.out_features for layer in net.jet_layers() if isinstance(layer, nn.Linear)] == [*hidden, 3]


@pytest.mark.parametrize("activation", [*ACTIVATIONS, nn.Hardtanh])
def test_every_activation_makes_a_fresh_module(activation):
    assert make_activation(activation) is not make_activation(activation)
    assert MLP(2, 2, hidden=(4,), activation=activation)(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("channels", [(4,), (4, 6), (3, 4, 5)], ids=str)
def test_convolutions_take_and_give_flat_rows_of_any_image_size(shape, channels):
    size = shape[0] * shape[1] * shape[2]
    encoder = ConvEncoder(shape, 4, channels=channels, hidden=(8,))
    decoder = ConvDecoder(2, shape, channels=channels, hidden=(8,))
    assert encoder(torch.randn(3, size)).shape == (3, 4)
    assert decoder(torch.randn(3, 2)).shape == (3, size)
    assert (encoder.in_features, decoder.out_features) == (size, size)


@pytest.mark.parametrize(
    "net",
    [
        MLP(6, 4, hidden=(5,), normalization="magnitude"),
        ConvEncoder((1, 2, 3), 4, channels=(3,), hidden=(), normalization="batch"),
        ConvDecoder(6, (1, 3, 5), channels=(3,), hidden=(4,)),
    ],
)
def test_jet_layers_are_the_forward_pass(net, generator):
    net.eval()
    x = torch.randn(3, 6, generator=generator)
    y = x
    for layer in net.jet_layers():
        y = layer(y)
    assert torch.equal(net(x), y)


@pytest.mark.parametrize(
    "net",
    [
        MLP(2, 9, hidden=(6,), normalization="magnitude"),
        ConvDecoder(2, (1, 3, 3), channels=(3,), hidden=(4,)),
    ],
)
def test_decoders_have_layerwise_jets(net, generator):
    from pullback.jets import jet

    net = net.double().eval()
    z = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    ours = jet(net, z, order=2)
    first = torch.func.jacrev(lambda row: net(row.unsqueeze(0))[0])
    assert ours.method == "layerwise"
    torch.testing.assert_close(ours.jacobian, torch.func.vmap(first)(z), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        ours.hessian, torch.func.vmap(torch.func.jacrev(first))(z), rtol=1e-10, atol=1e-12
    )


def test_weights_come_from_the_generator_alone():
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        nets = (
            MLP(3, 2, generator=generator),
            ConvEncoder((1, 4, 4), 2, generator=generator),
            ConvDecoder(2, (1, 4, 4), generator=generator),
        )
        return torch.cat([parameter.flatten() for net in nets for parameter in net.parameters()])

    before = torch.random.get_rng_state()
    first = draw(0)
    assert torch.equal(first, draw(0))
    assert not torch.equal(first, draw(1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_have_pytorchs_own_distribution(generator):
    ours = MLP(50, 400, hidden=(), generator=generator).layers[0]
    bound = 1 / 50**0.5
    for tensor in (ours.weight, ours.bias):
        assert tensor.abs().max().item() <= bound
        assert tensor.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_magnitude_tames_long_rows_and_keeps_their_order():
    norm = MLP(4, 1, hidden=(4,), normalization="magnitude").layers[1]
    rows = torch.ones(3, 4) * torch.tensor([[0.1], [1.0], [100.0]])
    lengths = norm(rows).norm(dim=1)
    assert bool((lengths.diff() > 0).all())
    assert lengths[2].item() < 2.01
    torch.testing.assert_close(norm(rows), rows / torch.sqrt(rows.square().mean(1, keepdim=True) + 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MLP(2, 2, activation="swish"), ValueError, "activation: expected one of 'softplus', 'silu'"),
        (lambda: MLP(2, 2, activation=nn.Tanh()), TypeError, "pass a function that makes it"),
        (
            lambda: MLP(2, 2, normalization="layer"),
            ValueError,
            "normalization: expected one of 'none', 'batch'",
        ),
        (lambda: MLP(0, 2), ValueError, "in_features: expected a whole number >= 1, got 0"),
        (lambda: MLP(2, 2, hidden=(0,)), ValueError, "hidden: expected a whole number"),
        (lambda: MLP(2, 2, dropout=1.0), ValueError, "dropout: expected a probability"),
        (lambda: ConvEncoder((8, 8), 2), ValueError, r"image_shape: expected \(channels, height, width\)"),
        (lambda: ConvDecoder(2, (1, 8, 8), channels=()), ValueError, "channels: expected at least one width"),
        (
            lambda: ConvEncoder((1, 8, 8), 2, normalization="magnitude"),
            ValueError,
            "normalization: expected one of",
        ),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_options_say_what_is_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()
