"""HVAE and RHVAE: the bound against known densities, recorded metrics, gradients, weights, training steps."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from golden_cases import CASES, Case, Encoder, linear
from pullback import CentroidMetric, EuclideanMetric
from pullback.dynamics import null_tempering, quadratic_tempering
from pullback.models import (
    HVAE,
    MLP,
    RHVAE,
    VAE,
    Bernoulli,
    Gaussian,
    MetricNetwork,
    hamiltonian_elbo,
    potential_energy,
    potential_energy_gradient,
    riemannian_hamiltonian_elbo,
    select_centroids,
    training_step,
    update_metric,
)
from pullback.models.flow_model import flow_elbo
from pullback.training import Objective, TrainingOptions, fit


def linear_schedule(beta0, k, n_steps):
    return beta0 + (1 - beta0) * k / n_steps


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class LinearGaussian:
    """x | z ~ N(A z + b, I), so that p(x) = N(b, A Aᵀ + I), with a fixed and wrong posterior."""

    def __init__(self):
        self.A, self.b = numbers(5, 2, seed=1), numbers(5, seed=2)
        decoder, encoder = nn.Linear(2, 5).double(), nn.Linear(5, 4).double()
        with torch.no_grad():
            decoder.weight.copy_(self.A)
            decoder.bias.copy_(self.b)
            encoder.weight.zero_()
            encoder.bias.copy_(torch.tensor([0.2, -0.1, math.log(0.7), math.log(0.9)]))
        self.vae = VAE(encoder, decoder, Gaussian()).requires_grad_(False)

    def log_density(self, x):
        law = torch.distributions.MultivariateNormal(self.b, self.A @ self.A.T + torch.eye(5))
        return law.log_prob(x)


def learned_metric(d=2, n=6):
    factors = torch.tril(numbers(n, d, d, seed=3)) + 2 * torch.eye(d)
    return CentroidMetric(numbers(n, d, seed=4), factors, temperature=1.2, regularization=0.1)


@pytest.mark.parametrize("tempering", [quadratic_tempering, null_tempering, linear_schedule])
@pytest.mark.parametrize(("beta0", "n_steps"), [(1.0, 1), (0.3, 3)])
@pytest.mark.parametrize("metric", [learned_metric(), EuclideanMetric(2)], ids=["learned", "flat"])
@torch.no_grad()
def test_mean_weight_is_the_density_of_a_linear_model(tempering, beta0, n_steps, metric):
    model, n = LinearGaussian(), 100_000
    x = numbers(1, 5, seed=5)
    bound = hamiltonian_elbo if isinstance(metric, EuclideanMetric) else riemannian_hamiltonian_elbo
    options = {} if isinstance(metric, EuclideanMetric) else {"metric": metric}
    log_w = bound(
        HVAE(model.vae, n_steps=n_steps, beta0=beta0, step_size=0.05, tempering=tempering),
        x.expand(n, 5),
        noise=numbers(n, 4, seed=6),
        **options,
    ).per_sample
    w = (log_w - log_w.max()).exp()
    estimate = log_w.max() + w.mean().log()
    error = w.std() / w.mean() / math.sqrt(n)
    exact = model.log_density(x).item()
    assert abs(estimate.item() - exact) <= 4 * error
    assert error < 0.02
    assert log_w.mean() < exact


@torch.no_grad()
def test_a_wrong_proposal_would_be_noticed():
    """With N(ρ_0; 0, G) in place of N(ρ_0; 0, G/β_0) the "bound" exceeds what it should bound."""
    model, n, beta0 = LinearGaussian(), 20_000, 0.3
    # at these data the proposal is about right
    x = (model.A @ torch.tensor([0.2, -0.1], dtype=torch.float64) + model.b).unsqueeze(0)
    bound = riemannian_hamiltonian_elbo(
        HVAE(model.vae, step_size=0.05, beta0=beta0),
        x.expand(n, 5),
        noise=numbers(n, 4, seed=6),
        metric=learned_metric(),
        return_outputs=True,
    )
    flow, d = bound.outputs.flow, 2
    square = torch.einsum("na,nab,nb->n", flow.rho_init, flow.inverse_init, flow.rho_init)
    wrong = -0.5 * (square + flow.logdet_init + d * math.log(2 * math.pi)) - d / 2 * math.log(beta0)
    right = bound.terms["initial_momentum"] + bound.terms["tempering"]
    gap = (right - wrong).mean().item()
    assert gap == pytest.approx(d * (1 / (2 * beta0) + 0.5 * math.log(beta0) - 0.5), abs=0.05)
    assert bound.value.item() + gap > model.log_density(x).item() > bound.value.item()


def small(d=2, n=5, *, h=6, kind="mean", likelihood=None, dtype=torch.float64, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = (MLP(*sizes, hidden=(h,), activation="tanh") for sizes in ((4, 2 * d), (d, 4)))
        vae = VAE(*networks, likelihood or Gaussian())
        network = MetricNetwork(4, d, (h,))
        return RHVAE(
            vae.to(dtype), network.to(dtype), numbers(n, 4, seed=7, dtype=dtype), reduction=kind, **options
        )


@pytest.mark.parametrize(
    ("d", "kind"),
    [(2, "mean"), (1, "sum"), (3, "sum")]
    + [pytest.param(d, kind, marks=pytest.mark.slow) for d, kind in ((1, "mean"), (3, "mean"), (2, "sum"))],
)
def test_gradients_of_the_bound(d, kind):
    model = small(d, 3, h=2, kind=kind, step_size=0.1, n_steps=2)
    x, noise = numbers(2, 4, seed=8), numbers(2, 2 * d, seed=9)
    names = [name for name, _ in model.named_parameters()]

    def bound(*values):
        return torch.func.functional_call(
            Bound(model),
            {f"model.{name}": value for name, value in zip(names, values, strict=True)},
            (x, noise),
        )

    assert torch.autograd.gradcheck(bound, [p.detach().clone().requires_grad_() for p in model.parameters()])


class Bound(nn.Module):
    """The bound as a function of the parameters."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, noise):
        return riemannian_hamiltonian_elbo(self.model, x, noise=noise).value


@pytest.mark.parametrize("likelihood", [Gaussian(), Gaussian("shared"), Bernoulli()])
@pytest.mark.parametrize("gradient", ["closed", "autograd"])
def test_flat_flow_is_that_of_a_metric_without_factors(likelihood, gradient):
    model = small(likelihood=likelihood, regularization=1.0, gradient=gradient)
    for parameter in model.metric_network.parameters():
        parameter.requires_grad_(False)
    flat = HVAE(model, gradient=gradient)
    zero = CentroidMetric(model.centroids, 0 * model.factors, temperature=1.0, regularization=1.0)
    x, noise = (numbers(3, 4, seed=8) > 0).double(), numbers(3, 4, seed=9)
    one = riemannian_hamiltonian_elbo(model, x, noise=noise, metric=zero)
    other = hamiltonian_elbo(flat, x, noise=noise)
    torch.testing.assert_close(one.per_sample, other.per_sample, rtol=1e-12, atol=1e-12)
    # the closed form can be differentiated once, which is what training needs
    weights = [p for p in flat.parameters() if p.requires_grad]
    first, second = (torch.autograd.grad(bound.value, weights, allow_unused=True) for bound in (one, other))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("phase", ["train", "eval"])
def test_metric_at_the_recorded_points(name, phase):
    case = Case(name)
    d, T, ridge, *_ = case.settings
    x = case["x"]
    network = MetricNetwork(x.shape[1], d, (12,)).double()
    for own, theirs in ((network.trunk[0], "layers.0"), (network.diagonal, "diag"), (network.lower, "lower")):
        own.load_state_dict(linear(case, f"metric.{theirs}").state_dict())
    vae = VAE(Encoder(case), nn.Linear(d, x.shape[1]).double(), Gaussian())
    data = x if phase == "train" else case["xt"]
    model = RHVAE(vae, network, data, temperature=T, regularization=ridge, reduction="sum")
    close = {"rtol": 1e-12, "atol": 1e-12}
    metric, z = update_metric(model), case[f"{phase}/z"]
    torch.testing.assert_close(metric.inverse(z), case[f"{phase}/G_inv"], **close)
    torch.testing.assert_close(metric.logdet(z), case[f"{phase}/G_log_det"], **close)
    torch.testing.assert_close(model.metric().inverse(z), case[f"{phase}/G_inv"], **close)
    q = model.posterior(x)
    torch.testing.assert_close(q.mean, case[f"{phase}/mu"], **close)
    torch.testing.assert_close(2 * q.log_std, case[f"{phase}/log_var"], **close)
    torch.testing.assert_close(q.sample(case[f"{phase}/eps0"]), case[f"{phase}/z0"], **close)
    output = case.potential().at(z).output
    decoded = output.sigmoid() if case.settings[-1] else output
    torch.testing.assert_close(decoded, case[f"{phase}/recon_x"], **close)
    if phase == "train":
        torch.testing.assert_close(network(x), case["train/metric_L"], **close)
    else:
        torch.testing.assert_close(metric.M, case["M"], **close)
        torch.testing.assert_close(metric.centroids, case["c"], **close)


def test_log_probability_of_the_noise_is_that_of_the_point():
    q = small().posterior(numbers(3, 4, seed=8))
    noise = numbers(3, 2, seed=9)
    torch.testing.assert_close(q.log_prob_of(noise), q.log_prob(q.sample(noise)), rtol=1e-12, atol=1e-12)


def test_path_gradient_leaves_out_a_score_of_mean_zero():
    model, n = small(h=2), 40_000
    x, noise = numbers(1, 4, seed=8).expand(n, 4), numbers(n, 4, seed=9)
    parameters = list(model.encoder.parameters())
    values, means = [], []
    for path in (False, True):
        evaluated = flow_elbo(model, x, noise=noise, path_gradient=path)
        values.append(evaluated.per_sample)
        means.append(torch.cat([g.flatten() for g in torch.autograd.grad(evaluated.value, parameters)]))
    torch.testing.assert_close(*values)
    q, drawn = model.posterior(x[:1]), noise[:, :2]
    # what is left out: the gradient of log q(z | x) at fixed z
    fixed = q.sample(drawn).detach()
    score = torch.autograd.grad(q.log_prob(fixed).mean(), parameters)
    score = torch.cat([g.flatten() for g in score])
    torch.testing.assert_close(means[0], means[1] - score, rtol=1e-9, atol=1e-10)
    assert 0 < score.abs().max() < 5 / n**0.5


def test_weights_are_those_of_the_named_parts():
    model, x, noise = small(), numbers(3, 4, seed=8), numbers(3, 4, seed=9)
    whole = riemannian_hamiltonian_elbo(model, x, noise=noise)
    assert whole.is_bound
    target, proposal = ("likelihood", "position", "momentum"), ("posterior", "initial_momentum", "tempering")
    for k in range(3):
        for kind, names, sign in (("logp_weights", target, 1), ("logq_weights", proposal, -1)):
            weights = [1.0, 1.0, 1.0]
            weights[k] = 0.25
            part = riemannian_hamiltonian_elbo(model, x, noise=noise, **{kind: weights})
            assert not part.is_bound
            expected = whole.per_sample - sign * 0.75 * whole.terms[names[k]]
            torch.testing.assert_close(part.per_sample, expected)
    first = {"logp_weights": (0, 1, 1)}
    part = riemannian_hamiltonian_elbo(model, x, noise=noise, **first)
    torch.testing.assert_close(part.per_sample, whole.per_sample - whole.terms["likelihood"])


def test_other_data_may_be_bounded():
    model, x, noise = small(), numbers(3, 4, seed=8), numbers(3, 4, seed=9)
    out = numbers(3, 4, seed=10)
    plain, other = (
        riemannian_hamiltonian_elbo(model, x, y, noise=noise, return_outputs=True) for y in (None, out)
    )
    assert torch.equal(plain.outputs.flow.z_final, other.outputs.flow.z_final)
    expected = model.likelihood.log_prob(out, other.outputs.decoder)
    torch.testing.assert_close(other.terms["likelihood"], expected)
    same = riemannian_hamiltonian_elbo(model, x, x, noise=noise)
    torch.testing.assert_close(same.per_sample, plain.per_sample)


def test_loss_terms_sum_to_the_bound():
    model, x, noise = small(), numbers(3, 4, seed=8), numbers(3, 4, seed=9)
    evaluation = model.evaluate(x, noise)
    total = sum(evaluation.terms.values())
    torch.testing.assert_close(-total, riemannian_hamiltonian_elbo(model, x, noise=noise).per_sample)
    torch.testing.assert_close(-total, model.elbo(x, noise))
    torch.testing.assert_close(total.mean(), model.loss(x, noise=noise))
    assert evaluation.z.shape == evaluation.codes.shape == (3, 2)


def test_truncated_gradients_are_named_and_differ():
    x, noise = numbers(3, 4, seed=8), numbers(3, 4, seed=9)
    exact, cut = small(step_size=0.2), small(step_size=0.2, backprop="truncated")
    values, slopes = [], []
    for model in (exact, cut):
        bound = riemannian_hamiltonian_elbo(model, x, noise=noise, return_outputs=True)
        values.append(bound.value)
        slopes.append(torch.autograd.grad(bound.value, model.decoder.parameters(), allow_unused=True)[0])
    assert bound.outputs.flow.info.backprop == "truncated"
    torch.testing.assert_close(values[0], values[1])
    assert (slopes[0] - slopes[1]).abs().max() > 1e-6


def test_output_and_reconstruction_are_of_the_end_of_the_flow():
    model, x = small().eval(), numbers(3, 4, seed=8)
    output = model(x)
    torch.testing.assert_close(output.decoder, model.decoder(output.flow.z_final))
    again = model(x)
    assert torch.equal(output.flow.z_final, again.flow.z_final)
    still = model.flow(x, torch.zeros(3, 4, dtype=torch.float64))
    torch.testing.assert_close(model.reconstruct(x), model.likelihood.mean(still.decoder))
    assert (still.flow.z_final - still.encoder.mean).abs().max() > 1e-6


def test_no_state_is_stale():
    model = small()
    assert model.centroids.abs().max() > 0
    torch.testing.assert_close(model.metric().factors, update_metric(model).factors)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = training_step(model, numbers(8, 4, seed=8), optimizer)
    fresh = update_metric(model)
    torch.testing.assert_close(model.centroids, fresh.centroids)
    torch.testing.assert_close(model.factors, fresh.factors)
    assert step.residual < 1e-3
    assert step.step_size == 0.01
    assert set(step.terms) >= {"likelihood", "position", "momentum", "posterior"}
    given = CentroidMetric(
        0 * fresh.centroids.detach(), fresh.factors.detach(), temperature=1.0, regularization=0.1
    )
    model.update_metric_(given)
    assert model.centroids.abs().max() == 0


def test_learning_lowers_the_loss():
    model, x = small(likelihood=Bernoulli(), dtype=torch.float32), (numbers(64, 4, seed=8) > 0.5).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = [training_step(model, x, optimizer).loss for _ in range(60)]
    assert losses[-1] < losses[0] - 0.3


def test_no_two_steps_see_the_same_noise():
    """A bound whose noise never changes is fitted to that noise."""
    x = numbers(8, 4, seed=8)
    before = torch.get_rng_state()
    runs = []
    for _ in range(2):
        model = small()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        losses = [training_step(model, x, optimizer).loss for _ in range(3)]
        losses += [model.loss(x).item() for _ in range(2)]
        assert len(set(losses)) == 5
        runs.append(losses)
    assert runs[0] == runs[1]
    model.eval()
    assert model.loss(x).item() == model.loss(x).item()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_not_finite_changes_no_weight():
    model, x = small(), numbers(8, 4, seed=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    step = training_step(model, x * torch.nan, optimizer)
    assert math.isnan(step.loss)
    assert math.isinf(step.residual)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    # the metric of broken networks is no error within the bound, and one for whoever asks for it
    with torch.no_grad():
        model.metric_network.diagonal.bias.fill_(torch.nan)
    assert math.isnan(model.loss(x).item())
    with pytest.raises(ValueError, match="factors: expected finite"):
        update_metric(model)


def test_evaluation_begins_with_the_present_metric():
    model, x = small(), numbers(8, 4, seed=8)
    model.loss(x).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    fresh = update_metric(model)
    assert not torch.equal(model.centroids, fresh.centroids)
    model.eval()
    torch.testing.assert_close(model.metric().centroids, fresh.centroids)
    torch.testing.assert_close(model.metric().factors, fresh.factors)
    # what is given in evaluation stays
    model.update_metric_(
        CentroidMetric(0 * fresh.centroids, fresh.factors, temperature=1.0, regularization=0.1)
    )
    model.eval()
    assert model.centroids.abs().max() == 0


def test_regularizer_and_own_loss():
    model, x = small(), numbers(8, 4, seed=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def spread(outputs, power):
        return outputs.flow.z_final.abs().pow(power).mean()

    def drawn():
        return torch.Generator().manual_seed(5)

    plain = training_step(model, x, optimizer, generator=drawn())
    settings = {"regularizer": spread, "regularizer_strength": 3.0, "regularizer_kwargs": {"power": 2}}
    step = training_step(model, x, optimizer, generator=drawn(), **settings)
    assert step.loss == pytest.approx(plain.loss + 3 * step.terms["regularizer"])

    def halved(model, x, x_out):
        weights = {"logp_weights": (0.5, 1, 1), "generator": drawn()}
        return riemannian_hamiltonian_elbo(model, x, x_out, return_outputs=True, **weights)

    own = training_step(model, x, optimizer, loss=halved)
    assert own.loss == pytest.approx(plain.loss + 0.5 * plain.terms["likelihood"])


def test_a_flow_that_does_not_converge_halves_the_step(caplog):
    model, x = small(kind="sum", step_size=2.0), numbers(8, 4, seed=8)
    with torch.no_grad():
        model.metric_network.diagonal.bias.fill_(1.0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    with caplog.at_level("INFO", "pullback.models.rhvae"):
        step = training_step(model, x, torch.optim.SGD(model.parameters(), lr=0.0))
    assert step.step_size == float(model.step_size) < 2.0
    assert step.residual <= 1e-3
    assert math.log2(2.0 / step.step_size) == int(math.log2(2.0 / step.step_size)) > 0
    assert "halved" in caplog.text
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name])
    fixed = small(kind="sum", step_size=2.0, adapt_step_size=False)
    assert training_step(fixed, x, torch.optim.SGD(fixed.parameters(), lr=0.0)).step_size == 2.0


def test_the_step_has_a_floor():
    model = small(step_size=1.5e-6)
    model.train()
    assert model.refuses(math.nan)
    assert float(model.step_size) == 1e-6
    assert not model.refuses(math.nan)


def test_learned_step_and_temperature():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = VAE(MLP(4, 4, hidden=(6,)), MLP(2, 4, hidden=(6,)), Gaussian())
    model = HVAE(vae, learn_step_size=True, learn_beta0=True, step_size=0.05, beta0=0.3)
    x, noise = numbers(3, 4, dtype=torch.float32), numbers(3, 4, seed=1, dtype=torch.float32)
    fixed = HVAE(vae, step_size=0.05, beta0=0.3)
    torch.testing.assert_close(model.elbo(x, noise), fixed.elbo(x, noise))
    model.loss(x, noise=noise).backward()
    assert model.log_step_size.grad.abs() > 0
    assert model.logit_beta0.grad.abs() > 0


def test_potential_energy():
    model, x, z = small(), numbers(3, 4, seed=8), numbers(3, 2, seed=9)
    expected = (
        -model.likelihood.log_prob(x, model.decode(z)) + 0.5 * z.square().sum(1) + math.log(2 * math.pi)
    )
    torch.testing.assert_close(potential_energy(model, x, z), expected)
    closed, finite = (potential_energy_gradient(model, x, z, method=m) for m in ("autograd", "finite"))
    torch.testing.assert_close(closed, finite, rtol=1e-7, atol=1e-7)
    # not z alone: the decoder is differentiated, too
    assert (closed - z).abs().max() > 0.1


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("make", [small, lambda **o: HVAE(small(**o))], ids=["RHVAE", "HVAE"])
def test_log_likelihood_by_importance_is_that_by_quadrature(make, flow):
    model, x = make(likelihood=Bernoulli()), (numbers(20, 4, seed=8) > 0).double()
    exact = model.log_likelihood(x, method="quadrature")
    found = model.log_likelihood(x, 2000, flow=flow)
    assert found.standard_error.max() < 0.1
    assert abs((found.value - exact.value).mean()) <= 0.03
    assert bool(((found.value - exact.value).abs() <= 5 * found.standard_error + 1e-3).all())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [HVAE, RHVAE])
def test_log_likelihood_of_handwritten_digits(kind):
    order = np.random.RandomState(0).permutation(1797)
    x = torch.tensor((load_digits().data / 16 > 0.5)[order], dtype=torch.float32)
    train, test = x[:1200], x[1200:1260]
    draw = torch.Generator().manual_seed(0)
    options = {"hidden": (128,), "activation": "relu", "generator": draw}
    vae = VAE(MLP(64, 4, **options), MLP(2, 64, **options), Bernoulli())
    network = MetricNetwork(64, 2, init="identity", generator=draw)
    model = HVAE(vae) if kind is HVAE else RHVAE(vae, network, select_centroids(train, random_state=0))
    fit(
        Objective(model),
        train,
        TrainingOptions(max_epochs=60, batch_size=100, progress=False),
        generator_seed=0,
    )
    exact = model.log_likelihood(test, method="quadrature").value.mean().item()
    assert -21.5 < exact < -19.0
    for flow in (False, True):
        found = model.log_likelihood(test, 1000, flow=flow, generator=draw)
        assert abs(found.value.mean().item() - exact) <= 0.03
        assert found.standard_error.mean().item() < 0.04
    assert model.elbo(test, torch.randn(60, 4, generator=draw)).mean().item() < exact


EXTREMES = {
    "temperature to 0": {"temperature": 1e-3},
    "temperature large": {"temperature": 1e6},
    "regularization to 0": {"regularization": 1e-12},
    "one centroid": {"n": 1},
    "one dimension": {"d": 1},
}


@pytest.mark.parametrize("name", list(EXTREMES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_are_defined(name, dtype):
    options = dict(EXTREMES[name])
    model = small(options.pop("d", 2), options.pop("n", 5), dtype=dtype, **options)
    step = training_step(
        model, numbers(6, 4, seed=8, dtype=dtype), torch.optim.SGD(model.parameters(), lr=1e-3)
    )
    assert math.isfinite(step.loss)
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_extreme_centroids_and_identical_points():
    model = small()
    model.centroids_data.fill_(0.5)
    x = torch.full((6, 4), 0.5, dtype=torch.float64)
    assert math.isfinite(training_step(model, x, torch.optim.SGD(model.parameters(), lr=1e-3)).loss)
    model.centroids_data.fill_(1e6)
    assert math.isfinite(training_step(model, x, torch.optim.SGD(model.parameters(), lr=1e-6)).loss)


def test_state_is_saved_and_loaded():
    model, other = small(), small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    model.update_metric_()
    model.step_size.fill_(0.005)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.metric().factors, model.metric().factors)
    assert float(other.step_size) == 0.005
