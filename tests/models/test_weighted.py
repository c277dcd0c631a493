"""The normal likelihood that is weighed by the metric of data space."""

import math

import pytest
import torch
from torch import distributions

from pullback import IsometryPenalty
from pullback import ambient as A
from pullback.models import MLP, Autoencoder, Gaussian, WeightedGaussian
from pullback.training.penalty_terms import Scored

WEIGHT = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
FACTOR = torch.randn(4, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
CONSTANT = {
    "Euclidean": (A.Euclidean(), torch.ones(4).double()),
    "Diagonal": (A.Diagonal(WEIGHT), WEIGHT.rsqrt()),
    "one weight": (A.Diagonal(4.0), 0.5 * torch.ones(4).double()),
    "Gaussian": (A.Gaussian(WEIGHT), WEIGHT),
}


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", CONSTANT)
def test_diagonal_weights_give_the_density_and_the_draws_of_a_normal(name, dtype):
    weight, sigma = CONSTANT[name]
    likelihood, x, y = WeightedGaussian(weight), rows(5, 4).to(dtype), rows(5, 4, seed=1).to(dtype)
    expected = distributions.Normal(y, sigma.to(dtype)).log_prob(x).sum(-1)
    found = likelihood.log_prob(x, y)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected)
    many = likelihood.log_prob(x, torch.stack([y, y]))
    torch.testing.assert_close(many, expected.expand(2, -1))
    drawn = likelihood.sample(torch.zeros(20_000, 4, dtype=dtype), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.std(0), sigma.to(dtype), rtol=0.03, atol=0)
    assert torch.equal(likelihood.mean(y), y)
    assert likelihood.ambient() is weight
    assert likelihood.n_params(4) == 4


@pytest.mark.parametrize("provenance", [None, "behavioral_fisher", "whitened_structured"])
def test_a_factor_gives_the_density_of_what_it_sees(provenance):
    likelihood = WeightedGaussian(A.LowRank(FACTOR, provenance=provenance))
    x, y = rows(5, 4), rows(5, 4, seed=1)
    seen = distributions.Normal(y @ FACTOR, 1.0).log_prob(x @ FACTOR).sum(-1)
    torch.testing.assert_close(likelihood.log_prob(x, y), seen)
    free = torch.linalg.svd(FACTOR.mT)[2][-1]
    torch.testing.assert_close(likelihood.log_prob(x + 3 * free, y), seen)
    with pytest.raises(ValueError, match="weight: expected Euclidean, Diagonal or Gaussian to draw data"):
        likelihood.sample(y)


@pytest.mark.parametrize("provenance", ["output_fisher", "output_fisher_downstream"])
def test_the_information_of_an_output_measures_only(provenance):
    weight = A.LowRank(FACTOR, provenance=provenance)
    likelihood, x, y = WeightedGaussian(weight), rows(5, 4), rows(5, 4, seed=1)
    torch.testing.assert_close(likelihood.log_prob(x, y), Gaussian(1.0).log_prob(x, y))
    assert likelihood.ambient() is weight
    drawn = likelihood.sample(torch.zeros(20_000, 4), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.std(0), torch.ones(4), rtol=0.03, atol=0)


def test_the_gauge_of_a_model_measures_by_the_weight_that_trains_it():
    weight = A.LowRank(FACTOR.float(), provenance="behavioral_fisher")
    model = Autoencoder(MLP(4, 2, hidden=(8,)), MLP(2, 4, hidden=(8,)), WeightedGaussian(weight))
    z = rows(6, 2).float()
    gauge = IsometryPenalty(1.0)
    embedding, ambient = Scored(model, z, z, None).space(gauge)
    assert ambient is weight
    J = torch.func.vmap(torch.func.jacrev(lambda row: model.decoder(row[None])[0]))(z)
    M = weight.whiten(J)
    g = M.mT @ M
    mean = g.diagonal(dim1=1, dim2=2).mean()
    expected = (g / mean - torch.eye(2)).square().sum() / 2
    torch.testing.assert_close(gauge.penalize(embedding, z, ambient=ambient), expected)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (
            lambda: WeightedGaussian(A.Poisson()),
            TypeError,
            "weight: expected Euclidean, Diagonal, Gaussian or",
        ),
        (lambda: WeightedGaussian(A.LowRank(lambda z: FACTOR)), TypeError, "got LowRank"),
        (lambda: WeightedGaussian(A.LowRank(rows(3, 4, 2))), ValueError, r"expected one factor \(p, r\)"),
        (lambda: A.LowRank(FACTOR, provenance="guess"), ValueError, "provenance: expected one of"),
        (lambda: WeightedGaussian(A.Diagonal(WEIGHT)).check(rows(2, 3)), ValueError, "expected 4 features"),
        (lambda: WeightedGaussian(A.Euclidean()).check(math.nan * rows(2, 3)), ValueError, "finite"),
        (lambda: WeightedGaussian(A.Euclidean()).mean(rows(2, 3), 5.0), ValueError, "library"),
    ],
)
def test_bad_arguments_are_named(call, error, told, as_users_run):
    with pytest.raises(error, match=told):
        call()
