"""Encoder and decoder in one module."""

import pytest
import torch
from torch import nn

from pullback.models.umap import UMAPModule


def test_encode_decode_and_width():
    encoder, decoder = nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 3)), nn.Linear(3, 4)
    module = UMAPModule(encoder, decoder)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module.encode(x), encoder(x))
    assert torch.equal(module(x), encoder(x))
    assert torch.equal(module.decode(module.encode(x)), decoder(encoder(x)))
    assert module.latent_dim == 3
    assert set(module.state_dict()) == {
        *(f"encoder.{name}" for name in encoder.state_dict()),
        *(f"decoder.{name}" for name in decoder.state_dict()),
    }


def test_without_a_decoder_there_is_no_way_back():
    with pytest.raises(TypeError, match="without a decoder"):
        UMAPModule(nn.Linear(4, 2)).decode(torch.zeros(1, 2))


def test_a_width_that_cannot_be_read_is_said():
    with pytest.raises(ValueError, match="linear layer"):
        _ = UMAPModule(nn.Identity()).latent_dim
