"""The objective: terms, weights, free bits, penalties and regularisers, and what it refuses."""

import pytest
import torch
from torch import nn

from pullback.models import MLP, Autoencoder, Gaussian
from pullback.training import LinearWarmup, Objective
from training.scenarios import MeanOutput, Spread, rows, vae


@pytest.fixture
def batch(dtype, generator):
    model = vae().to(dtype)
    return model, rows(9).to(dtype), torch.randn(9, 2, generator=generator, dtype=dtype)


def test_total_of_a_vae_is_its_negative_bound(batch):
    model, x, noise = batch
    loss = Objective(model)(x, noise)
    torch.testing.assert_close(loss.total, -model.elbo(x, noise).mean())
    torch.testing.assert_close(loss.terms["kl"], model.posterior(x).kl().sum(1).mean())


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.4, 10.0])
def test_free_bits_are_the_larger_of_floor_and_batch_mean_per_dimension(batch, floor):
    model, x, noise = batch
    loss = Objective(model, free_bits=floor, weights={"kl": 0.5})(x, noise)
    terms = model.loss_terms(x, noise)
    clamped = terms["kl"].mean(0).clamp_min(floor).sum()
    torch.testing.assert_close(loss.total, terms["reconstruction"].mean() + 0.5 * clamped)


def test_weights_follow_the_step(batch):
    model, x, noise = batch
    objective = Objective(model, weights={"kl": LinearWarmup(10, final=2.0), "reconstruction": 3})
    terms = model.loss_terms(x, noise)
    for step, beta in ((0, 0.0), (5, 1.0), (10, 2.0), (99, 2.0)):
        expected = 3 * terms["reconstruction"].mean() + beta * terms["kl"].sum(1).mean()
        torch.testing.assert_close(objective(x, noise, step).total, expected)


def test_a_penalty_scores_the_decoder_at_the_decoded_points_and_trains_both_sides(batch):
    model, x, noise = batch
    objective = Objective(model, penalties=[MeanOutput(2.0)], weights={"reconstruction": 0.0, "kl": 0.0})
    loss = objective(x, noise)
    z = model.posterior(x).sample(noise)
    torch.testing.assert_close(loss.terms["mean_output"], 2.0 * model.decoder(z).mean(0).square().sum())
    torch.testing.assert_close(loss.total, loss.terms["mean_output"])
    loss.total.backward()
    for part in (model.encoder, model.decoder):
        assert all(parameter.grad.abs().sum() > 0 for parameter in part.parameters())


def test_two_penalties_of_one_name_are_told_apart_and_weighted(batch):
    model, x, noise = batch
    objective = Objective(model, penalties=[MeanOutput(), MeanOutput()], weights={"mean_output_2": 4.0})
    loss = objective(x, noise)
    assert {"mean_output", "mean_output_2"} <= set(loss.terms)
    expected = Objective(model)(x, noise).total + 5 * loss.terms["mean_output"]
    torch.testing.assert_close(loss.total, expected)


def test_a_regulariser_sees_codes_and_quantities(batch):
    model, x, noise = batch

    class Match(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones((), dtype=x.dtype))

        def terms(self, model, x, z, reduce, *, quantities=None):
            return {"match": self.gain * (z[:, :1] - quantities).square().mean()}

    match = Match()
    objective = Objective(model, partition=match)
    quantities = x[:, :1]
    loss = objective(x, noise, quantities=quantities)
    torch.testing.assert_close(loss.terms["match"], (model.encode(x)[:, :1] - quantities).square().mean())
    assert any(parameter is match.gain for parameter in objective.parameters())
    assert Objective(model, partition=Spread())(x, noise).terms["spread"].shape == ()


def test_an_autoencoder_has_one_term(dtype):
    model = Autoencoder(MLP(12, 2, hidden=()), MLP(2, 12, hidden=()), Gaussian()).to(dtype)
    x = rows(5).to(dtype)
    loss = Objective(model)(x)
    assert set(loss.terms) == {"reconstruction"}
    torch.testing.assert_close(loss.total, model.loss_terms(x)["reconstruction"].mean())
    assert Objective(model).noise_features == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Objective(vae(), free_bits=-1.0), ValueError, "free_bits: expected a finite number >= 0"),
        (
            lambda: Objective(vae(), penalties=[object()]),
            TypeError,
            r"or with penalize\(decoder, z\)",
        ),
        (
            lambda: Objective(vae(), partition=object()),
            TypeError,
            r"partition: expected .*SubspacePartition.* or an object with terms",
        ),
        (
            lambda: Objective(vae(), weights={"kl": "high"}),
            TypeError,
            "weights: expected a number or a function",
        ),
        (
            lambda: Objective(vae(), weights={"KL": 1.0})(rows(2), torch.zeros(2, 2)),
            ValueError,
            r"weights: expected names among \['kl', 'reconstruction'\], got \['KL'\]",
        ),
        (
            lambda: Objective(
                Autoencoder(MLP(12, 2, hidden=()), MLP(2, 12, hidden=()), Gaussian()), free_bits=0.1
            )(rows(2)),
            ValueError,
            "free_bits: expected 0 for a model without a 'kl' term",
        ),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_use_says_what_is_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_description_tells_objectives_apart_and_is_plain(batch):
    model, _, _ = batch
    base = Objective(model, weights={"kl": LinearWarmup(10)}).describe()
    assert base == Objective(model, weights={"kl": LinearWarmup(10)}).describe()
    assert base != Objective(model, weights={"kl": LinearWarmup(20)}).describe()
    assert base != Objective(model, weights={"kl": LinearWarmup(10)}, free_bits=0.1).describe()
    other = vae()
    other.encoder.layers[1] = nn.Tanh()
    assert base != Objective(other, weights={"kl": LinearWarmup(10)}).describe()
