"""Encoders by name: shapes, exactness, where weights come from, and the register."""

import pytest
import torch
from torch import nn

from pullback.jets import local_affine
from pullback.models import ScaleLayerNorm, create_encoder, register_encoder, view_registry
from pullback.models.encoders import _REGISTRY
from pullback.models.umap import UMAPModule

FLAT = ["default", "batchnorm", "glassbox", "residual"]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(n: int = 5, p: int = 6, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, p, generator=source(), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("dims", [6, (1, 2, 3)], ids=str)
def test_every_encoder_makes_rows_of_the_asked_width(name, dims, dtype):
    encoder = create_encoder(name, dims, 3, hidden_size=8, generator=source()).to(dtype).eval()
    x = rows(dtype=dtype)
    assert encoder(x if dims == 6 else x.reshape(5, *dims)).shape == (5, 3)
    assert encoder(x).dtype == dtype
    assert UMAPModule(encoder).latent_dim == 3


def test_convolutions_see_images_as_flat_rows():
    encoder = create_encoder("conv", (1, 8, 8), 2, channels=(4, 4), hidden=(8,), generator=source())
    assert encoder(torch.zeros(3, 64)).shape == (3, 2)
    widths = [
        m.out_features for m in create_encoder("conv", (1, 8, 8), 2).modules() if isinstance(m, nn.Linear)
    ]
    assert widths == [512, 512, 2]


@pytest.mark.parametrize("name", ["default", "batchnorm", "residual"])
def test_fitted_encoders_are_exactly_piecewise_linear(name):
    encoder = create_encoder(name, 6, 2, hidden_size=8, dropout_rate=0.2, generator=source()).double()
    encoder(rows(50))
    found = local_affine(encoder.eval(), rows())
    assert found.piecewise_linear
    assert float(found.verification.pointwise_error) <= 1e-12


@pytest.mark.parametrize(
    ("name", "sees_length"), [("default", True), ("residual", True), ("glassbox", False)]
)
def test_which_encoders_see_the_length_of_a_row(name, sees_length):
    encoder = create_encoder(name, 6, 2, generator=source()).double().eval()
    with torch.no_grad():
        gap = (encoder(5 * rows()) - encoder(rows())).norm() / encoder(rows()).norm()
    assert bool(gap > 0.1) == sees_length
    if not sees_length:
        assert float(gap) < 1e-9


def test_layers_of_the_default_and_of_the_others():
    kinds = [type(layer).__name__ for layer in create_encoder("default", 4, 2, dropout_rate=0.1)]
    assert kinds == ["Linear", "PReLU", "Dropout"] * 3 + ["Linear"]
    kinds = [type(layer).__name__ for layer in create_encoder("batchnorm", 4, 2)]
    assert kinds == ["Linear", "PReLU", "BatchNorm1d"] * 2 + ["Linear", "PReLU", "Linear"]
    glassbox = create_encoder("glassbox", 4, 2)
    kinds = [type(layer).__name__ for layer in glassbox]
    assert kinds == ["Linear", "PReLU", "ScaleLayerNorm"] * 2 + ["Linear", "PReLU", "Linear"]
    assert not any(name.endswith("bias") for name, _ in glassbox.named_parameters())


def test_scale_layer_norm_is_its_formula(dtype):
    norm = ScaleLayerNorm(6).to(dtype)
    norm.norm.weight.data = torch.arange(1.0, 7.0, dtype=dtype)
    x = rows(dtype=dtype)
    centred = x - x.mean(1, keepdim=True)
    expected = norm.norm.weight * centred / (x.var(1, unbiased=False, keepdim=True) + 1e-12).sqrt()
    torch.testing.assert_close(norm(x), expected)
    assert norm.jet_layers() == [norm.norm]


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = create_encoder("default", 6, 2, generator=source(1))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    same, other = (create_encoder("default", 6, 2, generator=source(seed)) for seed in (1, 2))
    for p, q in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(p, q)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_the_global_generator_is_left_alone_when_a_factory_fails():
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="dropout_rate"):
        create_encoder("default", 6, 2, dropout_rate=1.0, generator=source())
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture
def clean():
    known = dict(_REGISTRY)
    yield
    _REGISTRY.clear()
    _REGISTRY.update(known)


@pytest.mark.usefixtures("clean")
def test_a_factory_of_ones_own():
    @register_encoder("mine")
    class Mine(nn.Linear):
        def __init__(self, input_dims, n_components, *, bias=True):
            super().__init__(input_dims, n_components, bias)

    assert view_registry()["mine"] is Mine
    assert register_encoder("mine")(Mine) is Mine
    assert create_encoder("mine", 4, 2, bias=False).bias is None
    with pytest.raises(ValueError, match="'mine' is taken"):
        register_encoder("mine")(lambda input_dims, n_components: nn.Linear(4, 2))
    register_encoder("none")(lambda input_dims, n_components: None)
    with pytest.raises(TypeError, match="expected the factory to make a module, got NoneType"):
        create_encoder("none", 4, 2)


def test_the_register_is_read_only():
    with pytest.raises(TypeError):
        view_registry()["mine"] = nn.Linear  # type: ignore[index]
    assert set(FLAT) | {"conv"} <= set(view_registry())


BAD = [
    (lambda: create_encoder("deep", 4, 2), ValueError, "encoder_name: expected one of 'batchnorm'"),
    (lambda: create_encoder("default", 0, 2), ValueError, "input_dims"),
    (lambda: create_encoder("default", 4, 0), ValueError, "n_components"),
    (lambda: create_encoder("default", 4, 2, hidden_size=0), ValueError, "hidden_size"),
    (lambda: create_encoder("conv", 4, 2), ValueError, "(channels, height, width)"),
    (lambda: register_encoder(nn.Linear), TypeError, "name: expected a text"),
    (lambda: register_encoder("mine")(3), TypeError, "factory"),
]


@pytest.mark.parametrize(("call", "kind", "words"), BAD)
@pytest.mark.usefixtures("as_users_run")
def test_bad_input(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
