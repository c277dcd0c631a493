"""Where derivatives come from, what happens without them, and what bad ones are told."""

import logging
import warnings

import pytest
import torch

from penalties.checks import draw, relative
from penalties.decoders import decoder, known
from pullback import ambient
from pullback.jets import Jet
from pullback.penalties import (
    DegenerateMetricError,
    DuchonRadialSource,
    IsometryPenalty,
    MissingJetError,
    ReferenceScaleWarning,
    UnnormalisedPriorError,
    factor_from_flat,
    jet_from_flat,
)


def test_a_missing_derivative_is_named() -> None:
    J, H, v = draw(3, 4, 2), draw(3, 4, 2, 2), draw(3, 2)
    penalty = IsometryPenalty()
    with pytest.raises(
        MissingJetError, match=r"grad_target needs the second jet \(n, p, d, d\); only the first"
    ):
        penalty.grad_target(Jet(None, J))
    with pytest.raises(MissingJetError, match=r"hvp needs the third jet.*only the first and second"):
        penalty.hvp(Jet(None, J, H), v)
    with pytest.raises(MissingJetError, match=r"value needs the first jet.*none is there.*decoder="):
        penalty.value(draw(3, 2))
    with pytest.raises(MissingJetError, match="third"):
        penalty.curvature(Jet(None, J, H), kind="loewner")
    penalty.curvature(Jet(None, J, H))


def test_zero_is_only_on_request_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    J, H, v = draw(3, 4, 2), draw(3, 4, 2, 2), draw(3, 2)
    penalty = IsometryPenalty(missing="zero")
    with caplog.at_level(logging.WARNING):
        assert not penalty.grad_target(Jet(None, J)).any()
        assert not penalty.hvp(Jet(None, J, H), v).any()
        assert not penalty.grad_target(v).any()
        assert penalty.value(v).item() == 0
        assert not penalty.psd_majorizer_hvp(Jet(None, J), v).any()
        assert not penalty.curvature(Jet(None, J)).dense().any()
        assert penalty.evaluate(Jet(None, J)).value.item() == 0
    assert len(caplog.records) == 1
    assert penalty.value(Jet(None, J)).item() > 0
    with pytest.raises(MissingJetError):
        penalty.pullback_metric(v)


def test_a_degenerate_metric(caplog: pytest.LogCaptureFixture) -> None:
    flat = Jet(None, torch.zeros(3, 4, 2), torch.zeros(3, 4, 2, 2), torch.zeros(3, 4, 2, 2, 2))
    with pytest.raises(DegenerateMetricError, match="degenerate='zero'"):
        IsometryPenalty().penalize(lambda z: 0 * z, draw(3, 2))
    for call in (IsometryPenalty().value, IsometryPenalty().evaluate, IsometryPenalty().grad_target):
        with pytest.raises(DegenerateMetricError, match="all decoder Jacobians vanish"):
            call(flat)
    penalty = IsometryPenalty(degenerate="zero")
    with caplog.at_level(logging.WARNING):
        assert penalty.value(flat).item() == 0
        assert not penalty.grad_target(flat).any()
        assert not penalty.grad_jacobian(flat).any()
        assert not penalty.evaluate(flat).grad_jacobian.any()
        assert penalty.penalize(lambda z: 0 * z, draw(3, 2)).item() == 0
        statistics = penalty.statistics(flat)
        assert penalty.value_of(statistics).item() == penalty.surrogate(flat, statistics).item() == 0
        assert not penalty.hvp(flat, draw(3, 2)).any()
        assert not penalty.curvature(flat, kind="loewner").dense().any()
    assert len(caplog.records) == 1


def test_order_of_the_sources() -> None:
    net, other, z = decoder(2), decoder(2, h=5), draw(4, 2)
    own, foreign = IsometryPenalty(decoder=net), IsometryPenalty(decoder=other)
    assert relative(own.value(z, jet=known(other, z)), foreign.value(z)) <= 1e-14
    attached = own.with_jet(known(other, z))
    assert relative(attached.grad_target(z), foreign.grad_target(z)) <= 1e-13
    assert relative(own.grad_target(z), IsometryPenalty(decoder=net).grad_target(z)) == 0
    assert relative(attached.with_jet(None).value(z), own.value(z)) == 0
    # what a given jet lacks comes from the decoder
    part = Jet(None, known(net, z).jacobian)
    assert relative(own.grad_target(z, jet=part), own.grad_target(z)) <= 1e-13


def test_attached_parts() -> None:
    net, z = decoder(2), draw(4, 2)
    whole, v = known(net, z), draw(4, 2, seed=1)
    penalty = IsometryPenalty()
    penalty.refresh_caches(whole.jacobian, whole.hessian)
    expected = IsometryPenalty(decoder=net)
    assert relative(penalty.grad_target(z), expected.grad_target(z)) <= 1e-13
    with pytest.raises(MissingJetError):
        penalty.hvp(z, v)
    penalty.set_third_decoder_derivative(whole.third)
    assert relative(penalty.hvp(z, v), expected.hvp(z, v)) <= 1e-12
    penalty.set_jacobian_second_cache(None)
    with pytest.raises(MissingJetError):
        penalty.grad_target(z)
    penalty.set_jacobian_cache(2 * whole.jacobian)
    assert relative(penalty.value(z), expected.value(z)) <= 1e-13
    penalty.refresh_caches(None)
    with pytest.raises(MissingJetError):
        penalty.value(z)


def test_a_radial_source() -> None:
    source = DuchonRadialSource(draw(9, 2), draw(9, 5, seed=1), tail=draw(3, 5, seed=2))
    z, v = draw(4, 2, seed=3), draw(4, 2, seed=4)
    by_source, by_decoder = IsometryPenalty(source=source), IsometryPenalty(decoder=source)
    for method in ("value", "grad_target", "grad_jacobian"):
        assert relative(getattr(by_source, method)(z), getattr(by_decoder, method)(z)) <= 1e-12
    assert relative(by_source.hvp(z, v), by_decoder.hvp(z, v)) <= 1e-12
    bare = DuchonRadialSource(source.centers, source.coefficients)
    partial = IsometryPenalty(source=bare)
    with pytest.raises(MissingJetError, match=r"needs the first jet.*only the second is there"):
        partial.grad_target(z)
    slope = partial.grad_target(z, jet=Jet(None, source.jet(z).jacobian))
    assert relative(slope, by_source.grad_target(z)) <= 1e-13


def test_flat_arrays() -> None:
    J, H, K = (draw(3, 4, *(2,) * k, seed=k) for k in (1, 2, 3))
    target = jet_from_flat(J.flatten(1), H.flatten(1), K.flatten(1), d=2)
    assert torch.equal(target.jacobian, J)
    assert torch.equal(target.hessian, H)
    assert torch.equal(target.third, K)
    assert torch.equal(jet_from_flat(J.flatten(1), third=K.flatten(2), d=2).third, K)
    assert jet_from_flat(torch.zeros(0, 8), d=2).jacobian.shape == (0, 4, 2)
    U = draw(3, 4, 5)
    assert torch.equal(factor_from_flat(U.flatten(1), 4), U)


J, H, K = (draw(3, 4, *(2,) * k) for k in (1, 2, 3))
NOT_FINITE = H.clone()
NOT_FINITE[2, 1, 0, 0] = float("nan")
INFINITE = J.clone()
INFINITE[1, 0, 0] = float("inf")
LOW = ambient.LowRank
BAD = [
    (
        lambda: IsometryPenalty(ambient=LOW(draw(2, 3, 3))).value(Jet(None, J)),
        ValueError,
        r"n=3, p=4.*\(2, 3, 3\)",
    ),
    (
        lambda: IsometryPenalty(ambient=LOW(draw(3, 3))).value(Jet(None, J)),
        ValueError,
        "pass a factor U, not W",
    ),
    (lambda: IsometryPenalty(ambient=ambient.Diagonal(torch.ones(3))).value(Jet(None, J)), ValueError, "p=4"),
    (
        lambda: IsometryPenalty(ambient=ambient.Bernoulli()).value(Jet(None, J)),
        TypeError,
        "moves with the point",
    ),
    (
        lambda: IsometryPenalty().grad_target(Jet(None, J, H[:2])),
        ValueError,
        r"hessian: expected \(3, 4, 2, 2\)",
    ),
    (
        lambda: IsometryPenalty().value(draw(5, 2), jet=Jet(None, J)),
        ValueError,
        r"target \(5, 2\), got \(3, 4, 2\)",
    ),
    (lambda: IsometryPenalty().value(Jet(None, J[0])), ValueError, r"jacobian: expected \(n, p, d\)"),
    (lambda: IsometryPenalty().grad_target(Jet(None, J, NOT_FINITE)), ValueError, "hessian.*row 2"),
    (lambda: IsometryPenalty().evaluate(Jet(None, J, NOT_FINITE)), ValueError, "hessian.*row 2"),
    (lambda: IsometryPenalty().curvature(Jet(None, J, NOT_FINITE)), ValueError, "hessian.*row 2"),
    (
        lambda: IsometryPenalty().curvature(Jet(None, J, H, K / 0), kind="loewner"),
        ValueError,
        "third.*row 0",
    ),
    (lambda: IsometryPenalty().pullback_metric(Jet(None, INFINITE)), ValueError, "jacobian.*row 1"),
    (lambda: IsometryPenalty().statistics(Jet(None, INFINITE)), ValueError, "jacobian.*row 1"),
    (lambda: IsometryPenalty().hvp(Jet(None, J, H, K), draw(3, 2) / 0), ValueError, "v: expected finite"),
    (lambda: IsometryPenalty().value([[0.0]]), TypeError, "target: expected a Jet or points"),
    (lambda: IsometryPenalty().value(draw(3, 2), jet=3), TypeError, "jet: expected a Jet, got int"),
    (lambda: IsometryPenalty().with_jet(J), TypeError, "jet: expected a Jet, got Tensor"),
    (lambda: IsometryPenalty(source=3), TypeError, "source: expected"),
    (lambda: IsometryPenalty(latent_dim=0), ValueError, "latent_dim: expected"),
    (lambda: IsometryPenalty(reference=[[1.0]]), TypeError, "reference: expected a torch.Tensor"),
    (lambda: IsometryPenalty().value(Jet(None, INFINITE)), ValueError, "jacobian.*row 1"),
    (lambda: IsometryPenalty().evaluate(Jet(None, INFINITE, H)), ValueError, "jacobian.*row 1"),
    (lambda: IsometryPenalty(decoder=torch.sqrt).value(-draw(3, 2).abs()), ValueError, "jacobian.*row 0"),
    (lambda: IsometryPenalty(decoder=torch.sin).value(draw(3, 2) / 0), ValueError, "target.*row 0"),
    (lambda: IsometryPenalty(decoder=3), TypeError, "decoder: expected a map"),
    (lambda: IsometryPenalty(missing="no"), ValueError, "missing: expected one of 'raise', 'zero'"),
    (lambda: IsometryPenalty(degenerate="no"), ValueError, "degenerate"),
    (lambda: IsometryPenalty(reduction="no"), ValueError, "reduction"),
    (lambda: IsometryPenalty(estimator="no"), ValueError, "estimator"),
    (lambda: IsometryPenalty(probes=0), ValueError, "probes"),
    (lambda: IsometryPenalty(float("inf")), ValueError, "weight"),
    (lambda: IsometryPenalty(reference=torch.zeros(2, 3)), ValueError, "reference: expected"),
    (lambda: IsometryPenalty(reference=torch.tensor([[1.0, 1], [0, 1]])), ValueError, "symmetric"),
    (
        lambda: IsometryPenalty(reference=-torch.eye(2), reference_scale="normalize"),
        ValueError,
        "positive mean",
    ),
    (
        lambda: IsometryPenalty(reference=torch.eye(3)).value(Jet(None, J)),
        ValueError,
        r"reference: expected \(2, 2\)",
    ),
    (
        lambda: IsometryPenalty().hvp(Jet(None, J, H, draw(3, 4, 2, 2, 2)), draw(2, 2)),
        ValueError,
        "v: expected",
    ),
    (lambda: IsometryPenalty().value(Jet(None, J), torch.zeros(2)), ValueError, "rho: expected one"),
    (lambda: IsometryPenalty().value(Jet(None, J), 1000.0), ValueError, "rho"),
    (lambda: IsometryPenalty().value(draw(6)), ValueError, "reshape"),
    (lambda: IsometryPenalty().log_normalizer(0.0, 3), UnnormalisedPriorError, "schedule"),
    (lambda: IsometryPenalty().neg_log_prior(Jet(None, J)), UnnormalisedPriorError, "validation grid"),
    (lambda: jet_from_flat(torch.zeros(3, 7), d=2), ValueError, "jacobian: expected n=3"),
    (lambda: jet_from_flat(torch.zeros(3, 8), torch.zeros(2, 16), d=2), ValueError, "hessian"),
    (lambda: jet_from_flat(torch.zeros(3, 8), torch.zeros(3, 12), d=2), ValueError, "4·4 entries"),
    (lambda: jet_from_flat(torch.zeros(3, 8), d=0), ValueError, "d: expected"),
    (lambda: factor_from_flat(torch.zeros(3, 8), 0), ValueError, "p: expected"),
    (lambda: factor_from_flat(torch.zeros(3, 7), 4), ValueError, "factor"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input_is_named(as_users_run: None, number: int) -> None:
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()


def test_references_of_another_size_warn() -> None:
    with pytest.warns(ReferenceScaleWarning, match=r"stays at least 0\.5"):
        as_given = IsometryPenalty(reference=2 * torch.eye(2))
    plane = Jet(None, torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
    assert as_given.value(plane).item() == pytest.approx(0.5 * 3 * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normal = IsometryPenalty(reference=2 * torch.eye(2), reference_scale="normalize")
    assert normal.value(plane).item() == 0
