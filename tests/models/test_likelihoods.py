"""Likelihoods: shapes, densities against torch.distributions, means, samples, the metric of their family."""

import math

import pytest
import torch
from torch import distributions

from pullback import ambient
from pullback.models import Bernoulli, Categorical, Gaussian, NegativeBinomial, Poisson, make_likelihood
from pullback.models.likelihoods import CategoricalGroups

P = 5


def families(dtype: torch.dtype) -> dict[str, tuple[torch.nn.Module, object]]:
    """Likelihood and, for decoder output y and data x, the same density by torch.distributions."""
    per_feature = Gaussian("per_feature", n_features=P)
    negative_binomial = NegativeBinomial(n_features=P)
    with torch.no_grad():
        per_feature.log_scale.copy_(torch.linspace(-1, 1, P))
        negative_binomial.log_dispersion.copy_(torch.linspace(-1, 2, P))
    theta = torch.exp(torch.linspace(-1, 2, P).to(dtype))

    def nb(y, x, log_mean):
        return distributions.NegativeBinomial(theta, logits=log_mean - torch.log(theta)).log_prob(x)

    def shares(y, x):
        return torch.log(x.sum(1, keepdim=True)) + torch.log_softmax(y, 1)

    return {
        "gaussian": (Gaussian(0.5), lambda y, x: distributions.Normal(y, 0.5).log_prob(x)),
        "gaussian shared": (Gaussian("shared"), lambda y, x: distributions.Normal(y, 1.0).log_prob(x)),
        "gaussian per feature": (
            per_feature,
            lambda y, x: distributions.Normal(y, torch.exp(torch.linspace(-1, 1, P).to(dtype))).log_prob(x),
        ),
        "gaussian network": (
            Gaussian("network"),
            lambda y, x: distributions.Normal(y[:, :P], torch.exp(y[:, P:])).log_prob(x),
        ),
        "bernoulli": (Bernoulli(), lambda y, x: distributions.Bernoulli(logits=y).log_prob(x)),
        "poisson": (Poisson(), lambda y, x: distributions.Poisson(torch.exp(y)).log_prob(x)),
        "poisson observed": (
            Poisson("observed"),
            lambda y, x: distributions.Poisson(torch.exp(shares(y, x))).log_prob(x),
        ),
        "poisson fixed": (
            Poisson(30),
            lambda y, x: distributions.Poisson(30 * torch.softmax(y, 1)).log_prob(x),
        ),
        "negative binomial": (negative_binomial, lambda y, x: nb(y, x, y)),
        "negative binomial network": (
            NegativeBinomial("network"),
            lambda y, x: distributions.NegativeBinomial(
                torch.exp(y[:, P:]), logits=y[:, :P] - y[:, P:]
            ).log_prob(x),
        ),
        "negative binomial observed": (
            NegativeBinomial(library="observed", n_features=P),
            lambda y, x: distributions.NegativeBinomial(
                torch.ones(P, dtype=dtype), logits=shares(y, x)
            ).log_prob(x),
        ),
        "categorical": (
            Categorical(3),
            lambda y, x: distributions.Categorical(logits=y.reshape(-1, P, 3)).log_prob(x),
        ),
    }


NAMES = list(families(torch.float64))


def batch(
    name: str, dtype: torch.dtype, generator: torch.Generator
) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor, object]:
    likelihood, reference = families(dtype)[name]
    likelihood.to(dtype)
    y = torch.randn(7, likelihood.n_params(P), generator=generator, dtype=dtype)
    if name.startswith("gaussian"):
        x = torch.randn(7, P, generator=generator, dtype=dtype)
    elif name == "bernoulli":
        x = torch.randint(2, (7, P), generator=generator).to(dtype)
    else:
        x = torch.randint(3, (7, P), generator=generator).to(dtype)
    x[:, 0] = x[:, 0].clamp_min(1)
    if name == "bernoulli":
        x[:, 0] = 1
    return likelihood, x, y, reference


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_is_that_of_torch_distributions(name, dtype, generator):
    likelihood, x, y, reference = batch(name, dtype, generator)
    likelihood.check(x)
    ours = likelihood.log_prob(x, y)
    assert ours.shape == (7,)
    assert ours.dtype == dtype
    torch.testing.assert_close(
        ours, reference(y, x).sum(1), rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_row_of_data_meets_many_decoded_points(name, generator):
    """Quadrature compares every row with every grid node."""
    likelihood, x, y, _ = batch(name, torch.float64, generator)
    table = likelihood.log_prob(x.unsqueeze(1), y.unsqueeze(0))
    assert table.shape == (7, 7)
    torch.testing.assert_close(table.diagonal(), likelihood.log_prob(x, y))


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_mean_and_belong_to_the_generator(name, generator):
    likelihood, _x, y, _ = batch(name, torch.float64, generator)
    library = 12.0 if getattr(likelihood, "library", None) == "observed" else None
    many = y[:1].expand(20_000, -1)
    with torch.no_grad():
        draws = likelihood.sample(many, torch.Generator().manual_seed(1), library)
        again = likelihood.sample(many, torch.Generator().manual_seed(1), library)
        mean = likelihood.mean(y[:1], library)
    before = torch.random.get_rng_state()
    assert torch.equal(draws, again)
    assert torch.equal(before, torch.random.get_rng_state())
    likelihood.check(draws)
    if name == "categorical":
        draws = torch.nn.functional.one_hot(draws.long(), 3).flatten(1).double()
    error = draws.std(0) / math.sqrt(len(draws)) + 1e-3
    assert bool(((draws.mean(0) - mean[0]).abs() <= 4.5 * error).all())


def fisher_by_sampling(likelihood, y, library=None):
    """E[score scoreᵀ] at one decoder output."""
    y = y.clone().requires_grad_(True)
    with torch.no_grad():
        x = likelihood.sample(y.expand(60_000, -1), torch.Generator().manual_seed(3), library)
    rows = y.expand(len(x), -1).clone().requires_grad_(True)
    options = {} if library is None else {"library": library}
    score = torch.autograd.grad(likelihood.log_prob(x, rows, **options).sum(), rows)[0]
    return score.T @ score / len(x)


@pytest.mark.parametrize(
    "name",
    [
        "gaussian",
        "gaussian per feature",
        "gaussian network",
        "bernoulli",
        "poisson",
        "negative binomial",
        "negative binomial network",
        "categorical",
    ],
)
def test_ambient_is_the_fisher_information(name, generator):
    likelihood, _x, y, _ = batch(name, torch.float64, generator)
    fisher = fisher_by_sampling(likelihood, y[:1])
    metric = likelihood.ambient()
    columns = likelihood.link()(y[:1]), torch.eye(y.shape[1], dtype=y.dtype)
    ours = metric.apply(columns[0], columns[1].unsqueeze(0))[0]
    scale = fisher.diagonal().max()
    assert ((ours - fisher).abs().max() / scale).item() < 0.06


def test_link_with_a_library_pulls_the_fisher_metric_of_the_proportions_back(generator):
    """W of the log means, pulled back through the link, is the information about the decoder's output."""
    likelihood = Poisson("observed")
    y = torch.randn(1, P, generator=generator, dtype=torch.float64)
    link = likelihood.link(40.0)
    jacobian = torch.func.jacrev(lambda row: link(row.unsqueeze(0))[0])(y[0])
    pulled = jacobian.T @ likelihood.ambient().apply(link(y), jacobian.unsqueeze(0))[0]
    fisher = fisher_by_sampling(likelihood, y, 40.0)
    assert ((pulled - fisher).abs().max() / fisher.diagonal().max()).item() < 0.06


def test_link_of_counts_passes_jets_layer_by_layer(generator):
    from pullback.jets import jet

    link = Poisson("observed").link(torch.tensor(40.0))
    net = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, P), link).double()
    z = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    ours = jet(net, z, order=2)
    first = torch.func.jacrev(lambda row: net(row.unsqueeze(0))[0])
    assert ours.method == "layerwise"
    torch.testing.assert_close(ours.value, net(z), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours.jacobian, torch.func.vmap(first)(z), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        ours.hessian, torch.func.vmap(torch.func.jacrev(first))(z), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize(
    ("likelihood", "library"),
    [(Gaussian("network"), None), (NegativeBinomial("network", library="observed"), 40.0)],
)
def test_links_of_pairs_pass_jets_layer_by_layer(likelihood, library, generator):
    from pullback.jets import contract_hessian, jet, reference_jet

    link = likelihood.link(library)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2 * P), link)
    net.double()
    net[2].bias.data[-1], net[2].bias.data[-2] = 30.0, -30.0
    z = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    ours, expected = jet(net, z, order=3), reference_jet(net, z, order=3)
    assert ours.method == "layerwise"
    assert ours.jacobian[:, -2:].abs().max() == 0
    for name in ("value", "jacobian", "hessian", "third"):
        torch.testing.assert_close(getattr(ours, name), getattr(expected, name), rtol=1e-11, atol=1e-11)
    covectors = torch.randn(4, 1, 2 * P, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        contract_hessian(net, z, covectors),
        torch.einsum("nqi,niab->nqab", covectors, expected.hessian),
        rtol=1e-11,
        atol=1e-11,
    )


def test_several_categories_have_a_block_metric_and_a_flattening(generator):
    metric = Categorical(3).ambient()
    assert isinstance(metric, CategoricalGroups)
    assert isinstance(Categorical(3, n_features=1).ambient(), ambient.Categorical)
    y = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    v = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    first, second = (ambient.Categorical().apply(y[:, s], v[:, s]) for s in (slice(3), slice(3, 6)))
    torch.testing.assert_close(metric.apply(y, v), torch.cat([first, second], 1))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: metric.flattening()(row.unsqueeze(0))[0]))(y)
    pushed = (jacobian @ v.unsqueeze(-1)).square().sum((1, 2))
    torch.testing.assert_close(metric.quadratic(y, v), pushed)


def test_learned_scales_stay_within_their_bounds():
    y = torch.tensor([[0.0, 100.0], [0.0, -100.0]])
    value = Gaussian("network").log_prob(torch.zeros(2, 1), y)
    torch.testing.assert_close(value, torch.tensor([-7.0, 7.0]) - 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(Gaussian("network").link()(y)[:, 1], torch.tensor([7.0, -7.0]))


def test_gradients_reach_scale_and_dispersion(generator):
    for likelihood in (
        Gaussian("shared"),
        Gaussian("per_feature", n_features=P),
        NegativeBinomial(n_features=P),
    ):
        x = torch.randint(3, (4, P), generator=generator).float()
        likelihood.log_prob(x, torch.zeros(4, P)).sum().backward()
        gradients = [parameter.grad for parameter in likelihood.parameters()]
        assert len(gradients) == 1
        assert gradients[0].abs().sum() > 0


def test_a_row_without_counts_is_finite_and_certain():
    for likelihood in (Poisson("observed"), NegativeBinomial(library="observed", n_features=P)):
        y = torch.zeros(1, P, requires_grad=True)
        value = likelihood.log_prob(torch.zeros(1, P), y)
        assert value.item() == pytest.approx(0, abs=1e-6)
        value.sum().backward()
        assert bool(torch.isfinite(y.grad).all())


def test_one_hot_and_index_say_the_same(generator):
    y = torch.randn(4, 6, generator=generator)
    index = torch.tensor([[0.0, 2], [1, 1], [2, 0], [0, 0]])
    hot = torch.nn.functional.one_hot(index.long(), 3).flatten(1).float()
    one_hot = Categorical(3, one_hot=True)
    one_hot.check(hot)
    assert one_hot.n_params(6) == 6
    torch.testing.assert_close(one_hot.log_prob(hot, y), Categorical(3).log_prob(index, y))
    draws = one_hot.sample(y, generator)
    one_hot.check(draws)


@pytest.mark.parametrize(
    ("likelihood", "value", "message"),
    [
        (Bernoulli(), 0.4, r"binarise, or Bernoulli\(strict=False\) for grey values \(then not a density\)"),
        (Bernoulli(strict=False), 1.5, r"expected grey values in \[0, 1\], got 1.5 at row 1, column 2"),
        (Poisson(), 1.5, "counts expected, found non-integers, got 1.5 at row 1, column 2"),
        (Poisson(), -1.0, "counts expected, found negative numbers, got -1"),
        (NegativeBinomial(n_features=3), 0.25, "counts expected, found non-integers"),
        (Categorical(3), 3.0, r"expected class indices 0 \.\. 2, got 3"),
        (Categorical(3), 0.5, "expected class indices"),
        (Categorical(3, one_hot=True), 1.0, "expected one-hot groups"),
        (Gaussian(), math.nan, "expected finite numbers, got nan at row 1, column 2"),
    ],
)
def test_targets_outside_the_support_are_refused(likelihood, value, message):
    x = torch.zeros(2, 3)
    if getattr(likelihood, "one_hot", False):
        x[:, 0] = 1
    x[1, 2] = value
    with pytest.raises(ValueError, match=message):
        likelihood.check(x)


def test_grey_values_pass_where_they_are_allowed():
    Bernoulli(strict=False).check(torch.full((2, 2), 0.4))
    assert Bernoulli(strict=False).log_prob(
        torch.full((1, 1), 0.5), torch.zeros(1, 1)
    ).item() == pytest.approx(-math.log(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Gaussian("learned"), "scale: expected one of 'shared', 'per_feature', 'network'"),
        (lambda: Gaussian(-1.0), "scale: expected a finite number > 0"),
        (lambda: Gaussian("per_feature"), "n_features: expected the number of features"),
        (lambda: NegativeBinomial(), "n_features: expected the number of features"),
        (lambda: Poisson("total"), "library: expected one of 'observed'"),
        (lambda: Poisson(0.0), "library: expected a finite number > 0"),
        (lambda: Poisson("observed").mean(torch.zeros(1, 2)), "median total"),
        (lambda: Poisson("observed").link(), "median total"),
        (lambda: Poisson("observed").link(torch.ones(3)), "expected one number for all points"),
        (lambda: Poisson().mean(torch.zeros(1, 2), 5.0), "the decoder gives log means itself"),
        (lambda: Gaussian().mean(torch.zeros(1, 2), 5.0), "only counts have a library size"),
        (lambda: make_likelihood("zero_inflated_poisson", 3), "zero-inflated counts are not offered"),
        (lambda: make_likelihood("zinb", 3), "zero-inflated counts are not offered"),
        (lambda: make_likelihood("normal", 3), "likelihood: expected one of 'gaussian'"),
        (lambda: make_likelihood("categorical", 3), r"pass Categorical\(n_classes\)"),
        (lambda: Categorical(1), "n_classes: expected a whole number >= 2"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_options_say_what_is_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_likelihoods_by_name():
    kinds = {
        "gaussian": Gaussian,
        "bernoulli": Bernoulli,
        "poisson": Poisson,
        "negative_binomial": NegativeBinomial,
    }
    for name, kind in kinds.items():
        assert type(make_likelihood(name, 4)) is kind
    own = Gaussian("shared")
    assert make_likelihood(own, 4) is own
    assert make_likelihood("poisson", 4).library == "observed"
