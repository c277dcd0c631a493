"""A linearization agrees with jets, and its reverse sweep with the contraction that starts anew."""

import pytest
import torch
from torch import nn

from pullback.jets import Product, Residual, contract_hessian, jet
from pullback.jets.linearization import linearize


def net(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = {
            "smooth": lambda: [nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 7), nn.Softplus(), nn.Linear(7, 5)],
            "branches": lambda: [
                nn.Linear(3, 6),
                Residual(nn.Sequential(nn.Linear(6, 6), nn.SiLU())),
                Product(nn.Linear(6, 4), nn.Sequential(nn.Linear(6, 4), nn.Sigmoid())),
            ],
            "unknown layer": lambda: [nn.Linear(3, 6), nn.Tanh(), nn.Softmax(dim=-1), nn.Linear(6, 4)],
            "linear": lambda: [nn.Linear(3, 4)],
            "normalised": lambda: [nn.Linear(3, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 4)],
        }[kind]()
    return nn.Sequential(*layers)


@pytest.mark.parametrize("kind", ["smooth", "branches", "unknown layer", "linear", "normalised"])
def test_linearization_is_the_jet_and_its_pull_the_contraction(kind, dtype, generator):
    f = net(kind).to(dtype)
    x = torch.randn(6, 3, generator=generator, dtype=dtype)
    at = linearize(f, x)
    expected = jet(f, x, 1)
    tolerance = {"rtol": 1e-11, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(at.value, expected.value, **tolerance)
    torch.testing.assert_close(at.rows.permute(1, 2, 0), expected.jacobian, **tolerance)
    for shift in (0.0, 1.0):
        covectors = at.value + shift
        whole = contract_hessian(f, x, covectors.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(at.contract_hessian(covectors), whole, **tolerance)


def test_a_plain_function_is_linearized_too():
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    at = linearize(lambda z: z[:, :1] * z[:, 1:], x)
    assert at.rows.squeeze().tolist() == [2.0, 1.0]
    assert at.contract_hessian(torch.ones(1, 1, dtype=torch.float64)).tolist() == [[[0.0, 1.0], [1.0, 0.0]]]
