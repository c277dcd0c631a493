"""Autoencoder and VAE: the bound and its constants, log p(x) against closed form and quadrature."""

import math

import pytest
import scipy.stats
import torch
from torch import nn

from pullback.models import MLP, VAE, Autoencoder, Bernoulli, Gaussian, GaussianPosterior, Poisson
from pullback.models.marginal import log_mean_weight


class LinearGaussian:
    """x | z ~ N(A z + b, I) with its true posterior: p(x) = N(b, A Aᵀ + I)."""

    def __init__(self, dtype: torch.dtype):
        generator = torch.Generator().manual_seed(4)
        self.A = torch.randn(5, 2, generator=generator, dtype=dtype)
        self.b = torch.randn(5, generator=generator, dtype=dtype)
        decoder, encoder = nn.Linear(2, 5, dtype=dtype), nn.Linear(5, 4, dtype=dtype)
        covariance = torch.linalg.inv(torch.eye(2, dtype=dtype) + self.A.T @ self.A)
        with torch.no_grad():
            decoder.weight.copy_(self.A)
            decoder.bias.copy_(self.b)
            encoder.weight[:2] = covariance @ self.A.T
            encoder.bias[:2] = -covariance @ self.A.T @ self.b
            encoder.weight[2:] = 0
            # wider than the posterior, so that importance weights have bounded variance
            encoder.bias[2:] = 0.5 * torch.log(1.5 * covariance.diagonal())
        self.model = VAE(encoder, decoder, Gaussian())

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        covariance = (self.A @ self.A.T + torch.eye(5)).double().numpy()
        exact = scipy.stats.multivariate_normal(self.b.double().numpy(), covariance).logpdf(
            x.double().numpy()
        )
        return torch.from_numpy(exact)


@pytest.fixture
def rows(generator):
    return torch.randn(6, 5, generator=generator, dtype=torch.float64) * 1.5


def test_quadrature_is_the_closed_form_of_the_linear_model(dtype, rows):
    linear = LinearGaussian(dtype)
    result = linear.model.log_likelihood(rows.to(dtype), method="quadrature")
    assert result.value.dtype == dtype
    exact = linear.log_density(rows)
    torch.testing.assert_close(
        result.value.double(), exact, rtol=0, atol=1e-4 if dtype == torch.float32 else 5e-6
    )
    assert bool((result.standard_error < 1e-3).all())


@pytest.mark.slow
def test_importance_is_the_closed_form_within_its_standard_error(rows, generator):
    linear = LinearGaussian(torch.float64)
    result = linear.model.log_likelihood(rows, 20_000, generator=generator)
    error = (result.value - linear.log_density(rows)).abs()
    assert bool((error <= 4 * result.standard_error).all())
    assert bool((result.standard_error < 0.02).all())


@pytest.mark.slow
def test_standard_error_is_the_spread_of_repetitions(rows, generator):
    linear = LinearGaussian(torch.float64)
    repeats = [linear.model.log_likelihood(rows, 400, generator=generator) for _ in range(60)]
    spread = torch.stack([repeat.value for repeat in repeats]).std(0)
    stated = torch.stack([repeat.standard_error for repeat in repeats]).mean(0)
    ratio = stated / spread
    assert bool(((ratio > 0.7) & (ratio < 1.4)).all())


def test_bound_is_below_the_log_density_and_meets_it_at_the_posterior(rows, generator):
    linear = LinearGaussian(torch.float64)
    noise = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    for row, exact in zip(rows, linear.log_density(rows), strict=True):
        assert linear.model.elbo(row.expand(4000, -1), noise).mean() < exact
    # p(x | z) = N(b, I) does not depend on z: the posterior is the prior and the bound is the log density
    with torch.no_grad():
        for module in (linear.model.encoder, linear.model.decoder):
            module.weight.zero_()
        linear.model.encoder.bias.zero_()
    exact = scipy.stats.multivariate_normal(linear.b.numpy()).logpdf(rows.numpy())
    torch.testing.assert_close(linear.model.elbo(rows, noise[:6]), torch.from_numpy(exact))


def test_one_dimension_by_quadrature(dtype):
    decoder = nn.Linear(1, 3, dtype=dtype)
    model = VAE(nn.Linear(3, 2, dtype=dtype), decoder, Gaussian(0.7))
    x = torch.tensor([[0.3, -1.0, 0.2]], dtype=dtype)
    covariance = (decoder.weight @ decoder.weight.T + 0.49 * torch.eye(3)).detach().double().numpy()
    exact = scipy.stats.multivariate_normal(decoder.bias.detach().double().numpy(), covariance).logpdf(
        x.double().numpy()
    )
    assert model.log_likelihood(x, method="quadrature").value.item() == pytest.approx(exact, abs=1e-4)


def test_chunks_do_not_change_the_result(rows):
    linear = LinearGaussian(torch.float64)
    whole = linear.model.log_likelihood(rows, method="quadrature")
    parts = linear.model.log_likelihood(rows, method="quadrature", chunk_size=777)
    torch.testing.assert_close(whole.value, parts.value, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole.standard_error, parts.standard_error, rtol=0, atol=1e-9)
    sampled = linear.model.log_likelihood(rows, 50, generator=torch.Generator().manual_seed(2), chunk_size=4)
    assert sampled.value.shape == (6,)
    assert linear.model.log_likelihood(rows[:0], 10).value.shape == (0,)


def test_log_mean_weight_keeps_the_far_tail(dtype):
    log_weights = torch.tensor([[-2000.0], [-2001.0]], dtype=dtype)
    value, error = log_mean_weight(log_weights)
    assert value.item() == pytest.approx(-2000 + math.log((1 + math.exp(-1)) / 2), abs=1e-3)
    assert math.isfinite(error.item())
    assert math.isnan(log_mean_weight(log_weights[:1])[1].item())


def test_posterior_has_torchs_density_and_divergence(dtype, generator):
    mean, log_std, noise = (torch.randn(6, 3, generator=generator, dtype=dtype) for _ in range(3))
    q = GaussianPosterior(mean, log_std)
    reference = torch.distributions.Normal(mean, torch.exp(log_std))
    prior = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    z = q.sample(noise)
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z).sum(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(q.widened(3.0).sample(noise), mean + 3 * (z - mean))
    torch.testing.assert_close(
        q.kl(), torch.distributions.kl_divergence(reference, prior), rtol=1e-5, atol=1e-6
    )


def test_divergence_near_the_prior_does_not_cancel():
    small = torch.full((1, 1), 1e-4)
    kl = GaussianPosterior(torch.zeros(1, 1), small).kl().item()
    assert kl == pytest.approx(1e-8, rel=0.05)


def test_loss_terms_are_the_parts_of_the_bound(dtype, generator):
    model = VAE(MLP(5, 4, hidden=(8,)), MLP(2, 5, hidden=(8,)), Bernoulli()).to(dtype)
    x = torch.randint(2, (7, 5), generator=generator).to(dtype)
    noise = torch.randn(7, 2, generator=generator, dtype=dtype)
    terms = model.loss_terms(x, noise)
    assert {name: tuple(term.shape) for name, term in terms.items()} == {"reconstruction": (7,), "kl": (7, 2)}
    torch.testing.assert_close(model.elbo(x, noise), -terms["reconstruction"] - terms["kl"].sum(1))
    q = model.posterior(x)
    z = q.sample(noise)
    torch.testing.assert_close(terms["reconstruction"], -model.likelihood.log_prob(x, model.decode(z)))
    out = model.evaluate(x, noise)
    assert torch.equal(out.z, z)
    assert torch.equal(out.codes, model.encode(x))


def test_encoder_may_return_mean_and_scale_apart():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.log_std = nn.Linear(5, 2), nn.Linear(5, 2)

        def forward(self, x):
            return self.mean(x), self.log_std(x)

    model = VAE(Heads(), nn.Sequential(nn.Linear(2, 5)), Gaussian())
    x = torch.zeros(3, 5)
    assert torch.equal(model.encode(x), model.encoder.mean(x))


def test_autoencoder_scores_its_reconstruction(dtype, generator):
    model = Autoencoder(MLP(5, 2, hidden=(8,)), MLP(2, 5, hidden=(8,)), Gaussian()).to(dtype)
    x = torch.randn(4, 5, generator=generator, dtype=dtype)
    error = (x - model.reconstruct(x)).square().sum(1)
    terms = model.loss_terms(x)
    torch.testing.assert_close(terms["reconstruction"], 0.5 * error + 2.5 * math.log(2 * math.pi))
    assert (model.latent_dim, model.noise_features) == (2, 0)
    assert torch.equal(model.evaluate(x).codes, model.encode(x))


def test_reconstructed_counts_keep_their_total(generator):
    model = Autoencoder(MLP(5, 2), MLP(2, 5), Poisson("observed"))
    x = torch.randint(9, (4, 5), generator=generator).float()
    torch.testing.assert_close(model.reconstruct(x).sum(1), x.sum(1))
    assert model.embedding_map(20.0)(torch.zeros(3, 2)).exp().sum(1).tolist() == pytest.approx(
        [20.0] * 3, rel=1e-5
    )


def test_embedding_map_and_ambient_give_the_models_metric(generator):
    from pullback.metrics import PullbackMetric

    model = VAE(MLP(6, 4), MLP(2, 6), Bernoulli()).double()
    metric = PullbackMetric(model.embedding_map(), ambient=model.likelihood.ambient())
    z = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: model.decode(row.unsqueeze(0))[0]))(z)
    s = torch.sigmoid(model.decode(z))
    weighted = jacobian * (s * (1 - s)).unsqueeze(-1)
    torch.testing.assert_close(metric.tensor(z), jacobian.mT @ weighted)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: VAE(nn.Linear(4, 6), nn.Linear(3, 4), Gaussian()).log_likelihood(
                torch.zeros(1, 4), method="quadrature"
            ),
            "expected 'importance' for latent_dim=3",
        ),
        (
            lambda: VAE(nn.Linear(4, 6), nn.Linear(3, 4), Gaussian()).log_likelihood(
                torch.zeros(1, 4), method="ais"
            ),
            "method: expected one of 'importance', 'quadrature'",
        ),
        (
            lambda: VAE(nn.Linear(4, 5), nn.Linear(2, 4), Gaussian()).encode(torch.zeros(1, 4)),
            r"expected output \(n, 4\)",
        ),
        (
            lambda: Autoencoder(nn.Linear(4, 3), nn.Linear(2, 4), Gaussian()).encode(torch.zeros(1, 4)),
            r"\(n, 2\), got \(1, 3\)",
        ),
        (lambda: Autoencoder(nn.Linear(4, 2), nn.Identity(), Gaussian()), "latent_dim: expected a number"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_use_says_what_is_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
