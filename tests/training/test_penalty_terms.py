"""Penalties as terms: where they are scored, with which weight, and the same on every process."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pullback import ambient
from pullback.models import MLP, Autoencoder, Bernoulli, Gaussian, NegativeBinomial
from pullback.penalties import (
    ARDPenalty,
    DecoderIncoherencePenalty,
    IsometryPenalty,
    LatentSampling,
    OrthogonalityPenalty,
    ScalarWeightSchedule,
    SoftmaxAssignmentSparsityPenalty,
    SumPenalty,
)
from pullback.training import LinearWarmup, Objective, TrainingOptions, fit
from pullback.training.penalty_terms import generator_of
from training.scenarios import rows, vae


def model(likelihood: nn.Module | None = None, width: int = 12) -> Autoencoder:
    generator = torch.Generator().manual_seed(2)
    parts = MLP(width, 2, hidden=(6,), generator=generator), MLP(2, width, hidden=(6,), generator=generator)
    return Autoencoder(*parts, likelihood or Gaussian("shared")).double()


X = rows(9).double()


def test_a_gauge_is_scored_at_the_codes_and_its_weight_stands_in_front() -> None:
    net = model()
    objective = Objective(net, penalties=[IsometryPenalty(0.7)])
    loss = objective(X)
    z = net.encode(X)
    torch.testing.assert_close(loss.terms["isometry"], IsometryPenalty(decoder=net.decoder).value(z) / 9)
    plain = Objective(net)(X).total
    torch.testing.assert_close(loss.total, plain + 0.7 * loss.terms["isometry"])
    torch.testing.assert_close(
        Objective(net, penalties=[IsometryPenalty(0.7)], weights={"isometry": 2.0})(X).total,
        plain + 2 * loss.terms["isometry"],
    )


def test_weights_and_temperatures_follow_the_step() -> None:
    ramp = ScalarWeightSchedule(0.0, 1.0, "linear", steps=10)
    cooling = ScalarWeightSchedule(2.0, 0.5, "linear", steps=10)
    objective = Objective(
        model(), penalties=[IsometryPenalty(ramp), SoftmaxAssignmentSparsityPenalty(cooling, LinearWarmup(4))]
    )
    for step, weight, temperature in ((0, 0.0, 2.0), (5, 0.5, 1.25), (10**12, 1.0, 0.5)):
        loss = objective(X, step=step)
        assert objective.weight("isometry", step) == weight
        assert objective.penalties[1].penalty.temperature == temperature
        parts = {name: objective.weight(name, step) * term for name, term in loss.terms.items()}
        torch.testing.assert_close(loss.total, sum(parts.values()))
    assert objective.weight("softmax_assignment_sparsity", 2) == 0.5
    # what the user gave is as it was
    assert ramp.iter_count == 0


def test_points_between_the_codes_are_the_same_in_a_step_and_new_in_the_next() -> None:
    net = model()
    objective = Objective(net, penalties=[IsometryPenalty(latents=LatentSampling("both", rows=0.5))], seed=4)
    first, again, next_step = (objective(X, step=k).terms["isometry"] for k in (3, 3, 4))
    assert torch.equal(first, again)
    assert first != next_step
    points = LatentSampling("both", rows=0.5).draw(net.encode(X), generator_of(4, 3))
    expected = IsometryPenalty(reduction="mean").penalize(net.decoder, points)
    torch.testing.assert_close(first, expected)
    assert (
        Objective(net, penalties=[IsometryPenalty(latents="both")], seed=5)(X, step=3).terms["isometry"]
        != first
    )


def test_the_metric_of_data_space_is_the_likelihoods() -> None:
    net = model(Bernoulli())
    z = net.encode(X)
    own = Objective(net, penalties=[IsometryPenalty()])(X).terms["isometry"]
    shared = IsometryPenalty(decoder=net.decoder, ambient=ambient.Bernoulli(), reduction="mean")
    torch.testing.assert_close(own, shared.value(z))
    flat = Objective(net, penalties=[IsometryPenalty(ambient=ambient.Euclidean())])(X).terms["isometry"]
    torch.testing.assert_close(flat, IsometryPenalty(decoder=net.decoder, reduction="mean").value(z))
    assert own != flat
    uneven = model(Gaussian("per_feature", n_features=12))
    with torch.no_grad():
        uneven.likelihood.log_scale.copy_(torch.linspace(-1, 1, 12))
    found = Objective(uneven, penalties=[IsometryPenalty()])(X).terms["isometry"]
    expected = IsometryPenalty(decoder=uneven.decoder, ambient=uneven.likelihood.ambient(), reduction="mean")
    torch.testing.assert_close(found, expected.value(uneven.encode(X)))


def test_counts_are_decoded_to_one_library() -> None:
    net = model(NegativeBinomial("per_feature", library="observed", n_features=12))
    term = Objective(net, penalties=[IsometryPenalty()], library=50.0)(X).terms["isometry"]
    embedding = net.embedding_map(50.0)
    expected = IsometryPenalty(ambient=net.likelihood.ambient(), reduction="mean")
    torch.testing.assert_close(term, expected.penalize(embedding, net.encode(X)))


def test_penalties_of_a_target_see_the_codes_or_the_last_layer() -> None:
    net = model()
    given = [ARDPenalty(2, 0.5), OrthogonalityPenalty(0.3), DecoderIncoherencePenalty([2, 4], 0.2)]
    objective = Objective(net, penalties=[*given, SumPenalty([OrthogonalityPenalty(2.0)])])
    terms, z = objective(X).terms, net.encode(X)
    torch.testing.assert_close(terms["ard"], ARDPenalty(2, 0.5).value(z) / 9)
    torch.testing.assert_close(terms["orthogonality"], OrthogonalityPenalty().value(z) / 9)
    torch.testing.assert_close(terms["sum"], 2 * terms["orthogonality"])
    blocks = net.decoder.layers[-1].weight.mT
    torch.testing.assert_close(terms["decoder_incoherence"], DecoderIncoherencePenalty([2, 4]).value(blocks))
    assert [objective.weight(name, 0) for name in ("ard", "orthogonality", "sum")] == [1.0, 0.3, 1.0]


def test_a_decoder_without_a_matrix_has_no_coefficients() -> None:
    class Wave(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.sin(z).repeat(1, 6)

    net = Autoencoder(MLP(12, 2, hidden=()), Wave(), Gaussian(), latent_dim=2)
    with pytest.raises(TypeError, match="penalties: expected a decoder with a linear layer"):
        Objective(net, penalties=[DecoderIncoherencePenalty([1, 1])])(X.float())


def test_a_gauge_trains_decoder_and_encoder_and_shrinks() -> None:
    net = model()
    objective = Objective(net, penalties=[IsometryPenalty(LinearWarmup(20, 5.0), latents="both")])
    objective(X, step=20).terms["isometry"].backward()
    for part in (net.encoder, net.decoder.layers[0]):
        assert all(parameter.grad.abs().sum() > 0 for parameter in part.parameters())
    net.zero_grad()
    data = torch.randn(200, 12, generator=torch.Generator().manual_seed(0)).double()
    options = TrainingOptions(max_epochs=40, batch_size=50, lr=1e-2, progress=False, patience=None)
    result = fit(objective, data, options, validation=data[:50], generator_seed=0)
    # unweighted, so that epochs of a ramp compare
    values = result.history["isometry"]
    assert values[-1] < 0.2 * values[0]
    assert result.history["validation/isometry"][-1] < 0.2 * values[0]


def test_descriptions_tell_penalties_apart() -> None:
    def describe(*penalties) -> list:
        return Objective(vae(), penalties=list(penalties)).describe()["penalties"]

    base = describe(IsometryPenalty(0.5, latents="both"))
    assert base == describe(IsometryPenalty(0.5, latents="both"))
    for other in (
        IsometryPenalty(0.6, latents="both"),
        IsometryPenalty(0.5),
        IsometryPenalty(LinearWarmup(7, 0.5), latents="both"),
        IsometryPenalty(0.5, latents="both", reference=torch.diag(torch.tensor([0.5, 1.5]))),
    ):
        assert base != describe(other)
    assert describe(SumPenalty([OrthogonalityPenalty(1.0)])) != describe(
        SumPenalty([OrthogonalityPenalty(2.0)])
    )
    assert replace(Objective(vae(), penalties=[ARDPenalty(2)]).penalties[0], name="x").name == "x"
