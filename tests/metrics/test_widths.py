"""What does not fit a decoder is refused with its sizes: ambients, scales and points of another precision."""

import pytest
import torch
from torch import nn

from metric_cases import decoder, numbers
from pullback import ambient as A
from pullback.metrics import EnsembleMetric, ExpectedPullbackMetric, PullbackMetric

FOR_SEVEN = {
    "Diagonal": A.Diagonal(torch.ones(7)),
    "Gaussian": A.Gaussian(torch.ones(7)),
    "NegativeBinomial": A.NegativeBinomial(torch.ones(7)),
    "LowRank": A.LowRank(torch.eye(7)[:, :3]),
}


def outputs() -> int:
    return decoder()(numbers(1, 2)).shape[1]


@pytest.mark.parametrize("name", FOR_SEVEN)
def test_an_ambient_for_other_features_is_refused(name, as_users_run):
    told = rf"ambient: expected one for the p={outputs()} outputs of the decoder, got {name} for 7"
    assert outputs() != 7
    with pytest.raises(ValueError, match=told):
        PullbackMetric(decoder(), FOR_SEVEN[name])
    hidden = PullbackMetric(lambda z: decoder()(z), FOR_SEVEN[name])
    for method in (hidden.tensor, hidden.logdet, hidden.inverse, hidden.derivative):
        with pytest.raises(ValueError, match=told):
            method(numbers(3, 2))
    with pytest.raises(ValueError, match=told):
        EnsembleMetric([decoder(), decoder()], FOR_SEVEN[name])


def test_a_factor_that_moves_is_measured_at_the_first_point(as_users_run):
    metric = PullbackMetric(decoder(), A.LowRank(lambda z: torch.ones(len(z), 7, 3, dtype=z.dtype)))
    with pytest.raises(ValueError, match="got LowRank for 7"):
        metric.tensor(numbers(3, 2))


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: lambda z: f(z)])
def test_a_scale_of_other_width_than_the_mean_is_refused(wrap, as_users_run):
    with pytest.raises(ValueError, match=rf"scale: expected p={outputs()} outputs like mean, got 1"):
        ExpectedPullbackMetric(wrap(decoder()), wrap(decoder(p=1))).tensor(numbers(3, 2))


@pytest.mark.parametrize(
    "metric",
    [
        PullbackMetric(decoder()),
        PullbackMetric(nn.Sequential(decoder(), nn.Identity()), A.Diagonal(torch.ones(outputs()))),
        PullbackMetric(decoder(), A.LowRank(torch.eye(outputs())[:, :3])),
        ExpectedPullbackMetric(decoder(), decoder(seed=1)),
    ],
)
def test_points_of_another_precision_are_named(metric, as_users_run):
    for method in (metric.tensor, metric.logdet, metric.derivative):
        with pytest.raises(TypeError, match="x is float32 but f has float64 parameters"):
            method(numbers(3, 2).float())


@pytest.mark.parametrize("make", [A.Diagonal, A.Gaussian])
def test_float32_weights_lose_nothing_on_float64_decoders(make):
    weight = torch.rand(outputs(), generator=torch.Generator().manual_seed(0)) + 0.5
    net, z = decoder(), numbers(5, 2)
    single, exact = (PullbackMetric(net, make(w)) for w in (weight, weight.double()))
    J = torch.func.vmap(torch.func.jacrev(lambda row: net(row[None])[0]))(z)
    expected = J.mT @ make(weight.double()).apply(net(z), J)
    for metric in (single, exact):
        torch.testing.assert_close(metric.tensor(z), expected, rtol=1e-13, atol=1e-13)
