"""Ambient metrics: W by its action, the Fisher information, and the flattening maps."""

import math

import pytest
import torch
from torch import nn

from pullback import ambient as A

THETA = torch.tensor([0.4, 1.5, 7.0, 30.0, 2.0], dtype=torch.float64)
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 4.0, 0.1], dtype=torch.float64)
FACTOR = torch.randn(5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

AMBIENTS = {
    "Euclidean": A.Euclidean(),
    "Diagonal": A.Diagonal(WEIGHT),
    "LowRank": A.LowRank(FACTOR),
    "Gaussian": A.Gaussian(WEIGHT),
    "Gaussian scalar": A.Gaussian(0.3),
    "Bernoulli": A.Bernoulli(),
    "Poisson": A.Poisson(),
    "NegativeBinomial": A.NegativeBinomial(THETA),
    "NegativeBinomial scalar": A.NegativeBinomial(2.5),
    "Categorical": A.Categorical(3),
    "LearnedGaussian": A.LearnedGaussian(),
    "LearnedNegativeBinomial": A.LearnedNegativeBinomial(),
}
CURVED = ("LearnedGaussian", "LearnedNegativeBinomial")


def outputs(name: str, dtype: torch.dtype = torch.float64, n: int = 4) -> torch.Tensor:
    width = 6 if name in CURVED else 5
    return 2 * torch.randn(n, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(
        dtype
    )


def full_matrix(ambient, y: torch.Tensor) -> torch.Tensor:
    eye = torch.eye(y.shape[1], dtype=y.dtype).expand(len(y), -1, -1)
    return ambient.apply(y, eye)


@pytest.mark.parametrize("name", AMBIENTS)
def test_action_is_a_symmetric_positive_form_and_agrees_in_all_shapes(name, dtype):
    ambient, y = AMBIENTS[name], outputs(name, dtype)
    W = full_matrix(ambient, y)
    assert W.dtype == dtype
    tolerance = 1e-13 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(W, W.mT, rtol=tolerance, atol=tolerance)
    assert torch.linalg.eigvalsh(W).min() > -10 * tolerance * W.abs().max()
    v = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    expected = (W @ v.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(ambient.apply(y, v), expected, rtol=10 * tolerance, atol=10 * tolerance)
    torch.testing.assert_close(
        ambient.quadratic(y, v), (v * expected).sum(-1), rtol=20 * tolerance, atol=20 * tolerance
    )


@pytest.mark.parametrize(
    "name", [name for name, ambient in AMBIENTS.items() if isinstance(ambient, A.Constant)]
)
def test_a_constant_weight_is_known_by_its_root(name, dtype):
    """W v = U(Uᵀv), |Uᵀv|² = vᵀWv and tr W, for one vector a row and for several."""
    ambient, y = AMBIENTS[name], outputs(name, dtype)
    W = full_matrix(ambient, y)
    near = {"rtol": 1e-12, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    for shape in ((4, 5), (4, 5, 3)):
        v = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
        short = ambient.whiten(v)
        torch.testing.assert_close(ambient.unwhiten(short), ambient.apply(y, v), **near)
        torch.testing.assert_close(short.square().sum(1), (v * ambient.apply(y, v)).sum(1), **near)
    traces = ambient.row_traces(4, 5)
    assert traces.shape == (4,)
    torch.testing.assert_close(traces.to(dtype), W.diagonal(dim1=1, dim2=2).sum(1), **near)
    flattening = ambient.flattening().to(dtype)
    torch.testing.assert_close(flattening(y), ambient.whiten(y), **near)


def test_a_factor_of_its_own_for_each_row_is_a_root_too():
    U = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ambient, v = A.LowRank(U), outputs("LowRank")
    torch.testing.assert_close(ambient.whiten(v), torch.einsum("npr,np->nr", U, v))
    torch.testing.assert_close(ambient.apply(v, v), torch.einsum("npr,nqr,nq->np", U, U, v))
    torch.testing.assert_close(ambient.row_traces(4, 5), torch.einsum("npr,npr->n", U, U))
    moving = A.LowRank(lambda z: U)
    assert not moving.constant
    with pytest.raises(TypeError, match=r"factor: a function of z has no value at a data point; call"):
        moving.whiten(v)


@pytest.mark.parametrize("name", [name for name in AMBIENTS if name not in CURVED])
def test_flattening_pulls_the_flat_metric_back_to_w(name):
    """W(y) = (d phi)ᵀ (d phi), to 1e-13 (acceptance 13)."""
    ambient, y = AMBIENTS[name], outputs(name)
    phi = ambient.flattening()
    J = torch.func.vmap(torch.func.jacrev(lambda row: phi(row[None])[0]))(y)
    torch.testing.assert_close(J.mT @ J, full_matrix(ambient, y), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["Bernoulli", "Poisson", "NegativeBinomial", "Categorical"])
def test_flattening_and_its_derivative_are_finite_far_out(name, dtype):
    far = torch.tensor([[-80.0, -60.0, 0.0, 60.0, 80.0]], dtype=dtype, requires_grad=True)
    phi = AMBIENTS[name].flattening()
    value = phi(far)
    (slope,) = torch.autograd.grad(value.sum(), far)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()


def test_bernoulli_flattening_has_its_true_slope_at_zero():
    eta = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(A.BernoulliFlattening()(eta).sum(), eta)
    assert slope.item() == pytest.approx(0.5, rel=1e-15)


def fisher_by_summation(name: str, y: torch.Tensor) -> torch.Tensor:
    """Σ_x p(x) (∂ log p)(∂ log p)ᵀ per feature, by summing over the support."""
    if name == "Bernoulli":
        x = torch.arange(2, dtype=y.dtype)
        distribution = lambda eta: torch.distributions.Bernoulli(logits=eta)  # noqa: E731
    elif name == "Poisson":
        x = torch.arange(400, dtype=y.dtype)
        distribution = lambda eta: torch.distributions.Poisson(torch.exp(eta))  # noqa: E731
    else:
        x = torch.arange(20_000, dtype=y.dtype)
        distribution = lambda eta: torch.distributions.NegativeBinomial(THETA, logits=eta - torch.log(THETA))  # noqa: E731
    eta = y.expand(len(x), *y.shape).clone().requires_grad_()
    log_p = distribution(eta).log_prob(x[:, None, None])
    (score,) = torch.autograd.grad(log_p.sum(), eta)
    return (log_p.exp().detach() * score.square()).sum(0)


@pytest.mark.parametrize("name", ["Bernoulli", "Poisson", "NegativeBinomial"])
def test_action_is_the_fisher_information_summed_over_the_support(name):
    y = outputs(name, n=2).clamp(-2, 2)
    W = AMBIENTS[name].apply(y, torch.ones_like(y))
    torch.testing.assert_close(fisher_by_summation(name, y), W, rtol=2e-12, atol=2e-13)


def negative_binomial_scores(eta: float, log_theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of counts and the scores with respect to (log μ, log θ), by summation over counts."""
    y = torch.tensor([eta, log_theta], dtype=torch.float64).expand(400_000, 2).clone().requires_grad_()
    x = torch.arange(len(y), dtype=torch.float64)
    theta, ratio = torch.exp(y[:, 1]), y[:, 0] - y[:, 1]
    log_p = (
        torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
        + x * nn.functional.logsigmoid(ratio)
        + theta * nn.functional.logsigmoid(-ratio)
    )
    (score,) = torch.autograd.grad(log_p.sum(), y)
    return log_p.exp().detach(), score


@pytest.mark.parametrize("mu", [0.02, 1.0, 30.0, 500.0])
@pytest.mark.parametrize("theta", [0.05, 0.7, 4.0, 50.0])
def test_learned_dispersion_is_the_fisher_information_summed_over_counts(mu, theta):
    y = torch.tensor([[math.log(mu), math.log(theta)]], dtype=torch.float64)
    p, score = negative_binomial_scores(*y[0].tolist())
    assert p.sum().item() == pytest.approx(1, abs=1e-9)
    information = score.mT @ (p.unsqueeze(1) * score)
    weights = A.LearnedNegativeBinomial().apply(y, torch.ones_like(y))[0]
    torch.testing.assert_close(information.diagonal(), weights, rtol=1e-7, atol=0)
    assert abs(information[0, 1]) <= 1e-7 * weights.prod().sqrt()


@pytest.mark.parametrize(
    ("mu", "theta", "expected", "tolerance"),
    [  # 40-digit quadrature of the beta integral
        (1e-3, 1e4, 4.999499050161788e-15, 1e-12),
        (1.0, 1.0, 0.08224052646501251, 1e-12),
        (10.0, 0.1, 0.27455655748988655, 1e-11),
        (1e4, 0.01, 0.1190552658562174, 1e-8),
        (1e4, 1e-4, 0.0017403725381428495, 1e-7),
        (1e4, 1e4, 0.12499583302087917, 1e-12),
    ],
)
def test_information_about_the_dispersion_keeps_its_digits(mu, theta, expected, tolerance):
    """θ² (ψ'(θ) - E ψ'(y+θ) - μ/(θ(μ+θ))), whose terms cancel to 1e-10 of their size in the first row."""
    y = torch.tensor([[math.log(mu), math.log(theta)]], dtype=torch.float64)
    seen = A.LearnedNegativeBinomial().apply(y, torch.ones_like(y))[0, 1].item()
    assert seen == pytest.approx(expected, rel=tolerance, abs=0)
    single = A.LearnedNegativeBinomial().apply(y.float(), torch.ones(1, 2))[0, 1].item()
    assert single == pytest.approx(expected, rel=1e-4, abs=0)


@pytest.mark.parametrize("name", CURVED)
def test_weights_of_pairs_have_the_partial_derivatives_of_autograd(name):
    u, v = (3 * torch.randn(50, generator=torch.Generator().manual_seed(k)).double() for k in (0, 1))
    u.requires_grad_()
    v.requires_grad_()
    for weight in zip(*(AMBIENTS[name].pair_weights(u, v, order) for order in (0, 1, 2)), strict=True):
        w, first, second = weight
        assert (len(w), len(first), len(second)) == (1, 3, 6)

        def gradient(value):
            if not value.requires_grad:
                return torch.zeros_like(u), torch.zeros_like(u)
            found = torch.autograd.grad(value.sum(), (u, v), create_graph=True, allow_unused=True)
            return [torch.zeros_like(u) if g is None else g for g in found]

        w_u, w_v = gradient(w[0])
        expected = (w[0], w_u, w_v, *gradient(w_u), gradient(w_v)[1])
        for a, b in zip(second, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
        for a, b in zip(first, expected[:3], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_pairs_need_an_even_number_of_outputs():
    with pytest.raises(ValueError, match="y: expected an even number of outputs"):
        A.LearnedNegativeBinomial().apply(torch.zeros(2, 3), torch.zeros(2, 3))


def kl_of_learned_counts(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Σ_x p_a (log p_a - log p_b), by summation."""
    x = torch.arange(20_000, dtype=torch.float64)[:, None, None]

    def log_p(y):
        eta, log_theta = y.chunk(2, dim=-1)
        theta = log_theta.exp()
        return torch.distributions.NegativeBinomial(theta, logits=eta - log_theta).log_prob(x)

    p = log_p(a)
    return (p.exp() * (p - log_p(b))).sum(0).sum(-1)


def kl_of(name: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    D = torch.distributions
    if name == "Bernoulli":
        return D.kl_divergence(D.Bernoulli(logits=a), D.Bernoulli(logits=b)).sum(-1)
    if name == "Poisson":
        return D.kl_divergence(D.Poisson(a.exp()), D.Poisson(b.exp())).sum(-1)
    if name == "Gaussian":
        return D.kl_divergence(D.Normal(a, WEIGHT), D.Normal(b, WEIGHT)).sum(-1)
    if name == "Categorical":
        return 3 * D.kl_divergence(D.Categorical(logits=a), D.Categorical(logits=b))
    if name == "LearnedNegativeBinomial":
        return kl_of_learned_counts(a, b)
    if name == "LearnedGaussian":
        (ma, la), (mb, lb) = a.chunk(2, dim=-1), b.chunk(2, dim=-1)
        return D.kl_divergence(D.Normal(ma, la.exp()), D.Normal(mb, lb.exp())).sum(-1)
    mu, nu = a.exp(), b.exp()
    # Same inverse dispersion: the binomial coefficients cancel in the log ratio.
    return (mu * torch.log(mu / nu) - (mu + THETA) * torch.log((mu + THETA) / (nu + THETA))).sum(-1)


@pytest.mark.parametrize(
    "name", ["Gaussian", "Bernoulli", "Poisson", "NegativeBinomial", "Categorical", *CURVED]
)
def test_twice_the_divergence_of_near_points_is_the_squared_length(name):
    """2 KL(y - Δ/2, y + Δ/2) / ds² within 1e-3 of 1 at |Δ| = 1e-3 (acceptance 13)."""
    y = outputs(name).clamp(-1.5, 1.5)
    step = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    step = 1e-3 * step / step.norm(dim=-1, keepdim=True)
    ratio = 2 * kl_of(name, y - step / 2, y + step / 2) / AMBIENTS[name].quadratic(y, step)
    assert (ratio - 1).abs().max() < 1e-3


def test_low_rank_with_one_factor_a_row_and_with_a_function_of_z():
    factors = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y, v = outputs("LowRank"), outputs("LowRank") + 1
    per_row = A.LowRank(factors)
    expected = (factors @ factors.mT @ v.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(per_row.apply(y, v), expected)
    torch.testing.assert_close(per_row.apply(y, v.unsqueeze(-1)).squeeze(-1), expected)
    assert per_row.flattening() is None
    z = torch.ones(4, 2, dtype=torch.float64)
    by_place = A.LowRank(lambda z: factors * z[:, :1, None])
    assert by_place.flattening() is None
    torch.testing.assert_close(by_place.at(2 * z).apply(y, v), 4 * expected)
    with pytest.raises(TypeError, match=r"ambient\.at\(z\)"):
        by_place.apply(y, v)


def test_low_rank_flattening_is_a_frozen_linear_layer():
    layer = A.LowRank(FACTOR).flattening()
    assert type(layer) is nn.Linear
    assert layer.bias is None
    assert not layer.weight.requires_grad
    torch.testing.assert_close(layer(outputs("LowRank")), outputs("LowRank") @ FACTOR)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: A.Diagonal(torch.tensor([1.0, 0.0, 2.0])), r"weight: .* at index \(1,\)"),
        (lambda: A.Gaussian(torch.tensor([1.0, 2.0, -3.0])), r"sigma: .* at index \(2,\)"),
        (lambda: A.Gaussian(0.0), "sigma: "),
        (lambda: A.NegativeBinomial(torch.tensor([1.0, math.nan])), r"dispersion: .* at index \(1,\)"),
        (lambda: A.Categorical(0), "count: "),
        (lambda: A.LowRank(torch.ones(4)), "pass a factor U, not W"),
        (lambda: A.LowRank(torch.full((4, 2), math.inf)), "factor: "),
    ],
)
def test_bad_options_are_named(make, message, as_users_run):
    with pytest.raises(ValueError, match=message):
        make()


def test_low_rank_of_something_else_is_a_type_error(as_users_run):
    with pytest.raises(TypeError, match="factor: expected a tensor or a function"):
        A.LowRank("W")
