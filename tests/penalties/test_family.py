"""Every penalty of a target through the same checks, and against numbers of another package."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from penalties.cases import CASES
from penalties.checks import (
    check_contract,
    check_derivatives,
    check_differentiable,
    check_majorizer,
    draw,
    relative,
)
from pullback.penalties import (
    ARDPenalty,
    BlockOrthogonalityPenalty,
    DecoderIncoherencePenalty,
    HarmonicRoughnessPenalty,
    IvaeRidgeMeanGaugePenalty,
    NestedPrefixPenalty,
    NuclearNormPenalty,
    OrderedBetaBernoulliPenalty,
    OrthogonalityPenalty,
    ScalarWeightSchedule,
    SoftmaxAssignmentSparsityPenalty,
    SumPenalty,
    TotalVariationPenalty,
    UnnormalisedPriorError,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "gam.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {k: torch.from_numpy(file[k]) for k in file.files if file[k].dtype == np.float64}


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str) -> None:
    penalty = CASES[name].build()
    check_derivatives(penalty, CASES[name].target(), draw(penalty.rho_count, seed=2) / 3)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].columns == 4])
def test_differentiable(name: str) -> None:
    penalty = CASES[name].build()
    check_differentiable(penalty, CASES[name].target(), draw(penalty.rho_count, seed=2) / 3)


@pytest.mark.parametrize("name", CASES)
def test_majorizer(name: str) -> None:
    penalty = CASES[name].build()
    check_majorizer(penalty, CASES[name].target(), draw(penalty.rho_count, seed=2) / 3, CASES[name].bounds)


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_contract(CASES[name].build(), CASES[name].target())


PEER = {
    "ard": (lambda g: ARDPenalty(4, 0.6), 1e-12),
    "orthogonality": (lambda g: OrthogonalityPenalty(0.8, n_eff=12), 1e-12),
    "block_orthogonality": (lambda g: BlockOrthogonalityPenalty([[0, 1], [2, 3]], 0.8), 1e-12),
    "nuclear_norm": (lambda g: NuclearNormPenalty(0.8), 1e-12),
    "total_variation": (lambda g: TotalVariationPenalty(0.8), 1e-12),
    "ordered_beta_bernoulli": (lambda g: OrderedBetaBernoulliPenalty(1.5, 0.7), 1e-9),
    "ivae": (lambda g: IvaeRidgeMeanGaugePenalty(g["fam_aux"], 0.8), 1e-12),
    "harmonic_roughness": (
        lambda g: HarmonicRoughnessPenalty(row_weights=torch.ones(12).double(), weight=0.8),
        1e-12,
    ),
}


@pytest.mark.parametrize("name", PEER)
def test_equals_the_peer(golden: dict[str, Tensor], name: str) -> None:
    build, hessian_tolerance = PEER[name]
    penalty, T, v = build(golden), golden["fam_t"], golden["fam_v"]
    assert relative(penalty.value(T), golden[f"fam_{name}_out_value"].reshape(())) <= 1e-12
    assert relative(penalty.grad_target(T), golden[f"fam_{name}_out_grad"]) <= 1e-12
    assert relative(penalty.hvp(T, v), golden[f"fam_{name}_out_hvp"]) <= hessian_tolerance


def test_the_largest_singular_values_equal_the_peers(golden: dict[str, Tensor]) -> None:
    # what gamfit 0.1.274 returns for max_rank = 1, 2, 3 at weight 1
    for rank, value in ((1, 3.509167947009133), (2, 5.998432111673463), (3, 8.294564885495081)):
        found = NuclearNormPenalty(max_rank=rank).value(golden["fam_t"])
        assert found.item() == pytest.approx(value, rel=1e-12)


def test_blocks_that_span_the_same_are_aligned_as_kernels() -> None:
    B = draw(3, 5)
    Q = torch.linalg.qr(draw(3, 3, seed=1)).Q
    penalty = DecoderIncoherencePenalty([3, 3], 2.0, normalize="grams")
    assert penalty.value(torch.cat([B, 7 * Q @ B])).item() == pytest.approx(1.0)
    singles = draw(3, 5, seed=2)
    by_blocks = DecoderIncoherencePenalty([1, 1, 1]).value(singles)
    assert DecoderIncoherencePenalty([1, 1, 1], normalize="grams").value(singles) == pytest.approx(by_blocks)


def test_relevance_gradient_equals_the_peer(golden: dict[str, Tensor]) -> None:
    found = ARDPenalty(4, 0.6).grad_rho(golden["fam_t"])
    assert relative(found, golden["fam_ard_out_grad_rho"]) <= 1e-12


def test_peer_parameters_are_the_ones_compared_with() -> None:
    with np.load(GOLDEN, allow_pickle=False) as file:
        ordered = json.loads(str(file["fam_ordered_beta_bernoulli_descriptor"]))
    assert (ordered["alpha"], ordered["tau"], ordered["k_max"]) == (1.5, 0.7, 4)


def test_double_backward_of_total_variation_is_near_the_closed_form(golden: dict[str, Tensor]) -> None:
    T = golden["fam_t"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(TotalVariationPenalty(0.8).value(T), T, create_graph=True)
    (product,) = torch.autograd.grad(slope, T, golden["fam_v"])
    assert relative(product, golden["fam_total_variation_out_hvp"]) <= 1e-7


def test_values_that_can_be_computed_by_hand() -> None:
    two = torch.tensor([[2.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    assert DecoderIncoherencePenalty([1, 1], 2.0).value(two).item() == pytest.approx(0.36)
    assert DecoderIncoherencePenalty([1, 1], 2.0, normalize="none").value(two).item() == pytest.approx(36)
    assert HarmonicRoughnessPenalty(torch.tensor([1, 3])).value(two).item() == pytest.approx(2 + 81 * 12.5)
    assert NestedPrefixPenalty([1, 2]).value(two).item() == pytest.approx(5 + 9, abs=1e-5)
    same = IvaeRidgeMeanGaugePenalty(two).value(two @ two)
    assert same.item() == pytest.approx(0, abs=1e-4)


def test_empty_targets_are_zero() -> None:
    for penalty in (
        OrthogonalityPenalty(),
        NuclearNormPenalty(),
        TotalVariationPenalty(),
        OrderedBetaBernoulliPenalty(),
        BlockOrthogonalityPenalty([[0], [1]]),
        ARDPenalty(3),
        NestedPrefixPenalty([1, 3]),
        SoftmaxAssignmentSparsityPenalty(k_atoms=3, reduction="mean"),
        SumPenalty([OrthogonalityPenalty(), ARDPenalty(3)]),
    ):
        empty = torch.zeros(0, 3)
        assert penalty.value(empty).item() == 0
        assert penalty.grad_target(empty).shape == penalty.hvp(empty, empty).shape == (0, 3)
        assert penalty.psd_majorizer_hvp(empty, empty).shape == penalty.hessian_diag(empty).shape == (0, 3)
        assert not penalty.grad_rho(empty).any()
    for prior in (SoftmaxAssignmentSparsityPenalty(k_atoms=3, reduction="mean"), ARDPenalty(3)):
        assert prior.neg_log_prior(torch.zeros(0, 3)).item() == 0


def test_sums_act_on_what_their_members_do() -> None:
    blocks = [DecoderIncoherencePenalty([2, 3]), DecoderIncoherencePenalty([1, 4])]
    assert SumPenalty(blocks).tier == "beta"
    assert SumPenalty([OrthogonalityPenalty()]).tier == "psi"
    T, one = draw(5, 3), torch.tensor(0.3, dtype=torch.float64)
    assert SumPenalty([ARDPenalty(3), OrthogonalityPenalty()]).value(T, one) == pytest.approx(
        ARDPenalty(3).value(T, 0.3) + OrthogonalityPenalty().value(T, 0.3)
    )
    assert SumPenalty([ARDPenalty(3)]).neg_log_prior(T) == ARDPenalty(3).value(T)
    with pytest.raises(UnnormalisedPriorError, match="several priors"):
        SumPenalty([ARDPenalty(3), OrthogonalityPenalty()]).neg_log_prior(T)


def test_sum_adds_members_and_concatenates_strengths() -> None:
    T, v = draw(5, 3), draw(5, 3, seed=1)
    members = [OrthogonalityPenalty(0.4), ARDPenalty(3, 0.7), NestedPrefixPenalty([1, 3], 0.2, eps=0.3)]
    both, rho = SumPenalty(members), draw(6, seed=4) / 5
    assert both.rho_count == 6
    assert not both.row_block_diagonal
    check_derivatives(both, T, rho)
    check_majorizer(both, T, rho)
    assert both.hessian_diag(T) is None
    assert SumPenalty(members[1:]).psd_majorizer_diag(T).shape == (5, 3)
    assert both.grad_rho(T, rho)[0] == members[0].value(T, rho[0])
    with pytest.raises(ValueError, match="rho: expected 6 log-strengths"):
        both.value(T, rho[:5])
    with pytest.raises(UnnormalisedPriorError, match="several priors"):
        both.log_normalizer(0.0, 5)
    assert SumPenalty([ARDPenalty(3)]).log_normalizer(0.0, 5).item() == 0
    assert torch.allclose(both.hvp(T, v), sum(m.hvp(T, v) for m in members))


def test_schedules_replace_the_weight() -> None:
    ramp = ScalarWeightSchedule(0.0, 1.0, "linear", steps=4)
    penalty = OrthogonalityPenalty(5.0, schedule=ramp)
    T = draw(5, 3)
    assert penalty.weight == 0
    assert penalty.value(T).item() == 0
    assert penalty.grad_rho(T).item() == 0
    penalty.apply_schedule(2)
    assert (penalty.weight, ramp.iter_count) == (0.5, 3)
    assert relative(penalty.value(T), 0.5 * OrthogonalityPenalty().value(T)) <= 1e-15
    shared = OrthogonalityPenalty(ramp)
    assert shared.weight == 0.75
    cooled = SoftmaxAssignmentSparsityPenalty(ScalarWeightSchedule(2.0, 0.5, "linear", steps=3))
    cooled.apply_schedule(3)
    assert cooled.temperature == 0.5
    unchanged = OrthogonalityPenalty(0.3)
    unchanged.apply_schedule(7)
    assert unchanged.weight == 0.3


def test_quadratic_normalisers() -> None:
    weights = torch.tensor([0.0, 1.0, 2.0])
    rough = HarmonicRoughnessPenalty(row_weights=weights, weight=2.0, dim=5)
    assert rough.log_normalizer(0.5, 3).item() == pytest.approx(-5 * (np.log(2.0) + 0.5))
    gauge = IvaeRidgeMeanGaugePenalty(draw(7, 2), dim=3)
    assert gauge.log_normalizer(0.4, 7).item() == pytest.approx(-7.5 * 0.4)
    T = draw(7, 3, seed=1)
    total = gauge.neg_log_prior(T, 0.4)
    assert total.item() == pytest.approx(gauge.value(T, 0.4).item() - 3.0)
    with pytest.raises(UnnormalisedPriorError, match="schedule"):
        OrthogonalityPenalty().neg_log_prior(T)


def test_negative_strengths_have_no_majorizer() -> None:
    T = draw(5, 3)
    with pytest.raises(ValueError, match="weight: expected a strength >= 0"):
        OrthogonalityPenalty(-1.0).psd_majorizer_hvp(T, T)
    assert relative(OrthogonalityPenalty(-1.0).value(T), -OrthogonalityPenalty().value(T)) == 0


T23 = torch.zeros(2, 3)
BAD = [
    (lambda: OrthogonalityPenalty().value([[0.0]]), TypeError, "target: expected a torch.Tensor"),
    (lambda: OrthogonalityPenalty().value(torch.zeros(2, 3, 1)), ValueError, "target: expected"),
    (lambda: OrthogonalityPenalty().value(torch.zeros(2, 3).long()), ValueError, "floating point"),
    (lambda: OrthogonalityPenalty().value(torch.zeros(6)), ValueError, "reshape it"),
    (lambda: OrthogonalityPenalty(dim=4).value(torch.zeros(6)), ValueError, "rows of 4"),
    (lambda: OrthogonalityPenalty(dim=4).value(T23), ValueError, r"expected \(n, 4\)"),
    (lambda: OrthogonalityPenalty().value(T23 * float("nan")), ValueError, "row 0"),
    (lambda: OrthogonalityPenalty().hvp(T23, torch.zeros(3, 2)), ValueError, "v: expected the target's"),
    (lambda: OrthogonalityPenalty().value(T23, torch.zeros(2)), ValueError, "rho: expected one"),
    (lambda: ARDPenalty(3).value(T23, torch.zeros(2)), ValueError, "rho: expected 3"),
    (lambda: OrthogonalityPenalty().value(T23, 90.0), ValueError, "float32"),
    (lambda: OrthogonalityPenalty().value(T23.double(), 800.0), ValueError, "rescale the weight"),
    (lambda: OrthogonalityPenalty(float("nan")), ValueError, "weight: expected a finite"),
    (lambda: OrthogonalityPenalty(n_eff=0), ValueError, "n_eff"),
    (lambda: NestedPrefixPenalty([2, 1]), ValueError, "increasing"),
    (lambda: NestedPrefixPenalty([0, 1]), ValueError, "prefix_sizes"),
    (lambda: NestedPrefixPenalty([1, 5]).value(T23), ValueError, "at least 5 columns"),
    (lambda: NestedPrefixPenalty([1, 2], [1.0]), ValueError, "expected 2 numbers"),
    (lambda: DecoderIncoherencePenalty([1, 1]).value(T23), ValueError, "zeros in block 0"),
    (lambda: DecoderIncoherencePenalty([1, 2]).value(T23), ValueError, "3 rows of blocks"),
    (lambda: DecoderIncoherencePenalty([1, 1], cooccurrence=torch.ones(3, 3)), ValueError, "symmetric"),
    (lambda: DecoderIncoherencePenalty([1, 1], cooccurrence=-torch.ones(2, 2)), ValueError, "negative"),
    (lambda: OrderedBetaBernoulliPenalty(0.0), ValueError, "alpha"),
    (lambda: OrderedBetaBernoulliPenalty(1.0, 0.0), ValueError, "temperature"),
    (lambda: BlockOrthogonalityPenalty([[0], [0]]), ValueError, "at most once"),
    (lambda: BlockOrthogonalityPenalty([[0], [3]]).value(T23), ValueError, "below 3"),
    (lambda: IvaeRidgeMeanGaugePenalty(T23).value(torch.zeros(3, 3)), ValueError, "n=2 rows"),
    (lambda: IvaeRidgeMeanGaugePenalty(T23, ridge=0.0), ValueError, "ridge"),
    (lambda: IvaeRidgeMeanGaugePenalty(T23).log_normalizer(0.0, 2), ValueError, "dim"),
    (lambda: HarmonicRoughnessPenalty(), ValueError, "harmonics"),
    (lambda: HarmonicRoughnessPenalty(torch.ones(2)).value(torch.zeros(3, 3)), ValueError, "n=2 rows"),
    (lambda: HarmonicRoughnessPenalty(row_weights=-torch.ones(2)), ValueError, "row_weights"),
    (lambda: ARDPenalty(0), ValueError, "latent_dim"),
    (lambda: ARDPenalty(2, -1.0), ValueError, "weight"),
    (lambda: ARDPenalty(2, [1.0]), ValueError, "expected 2 numbers"),
    (lambda: NuclearNormPenalty(eps=0.0), ValueError, "eps"),
    (lambda: TotalVariationPenalty(edges=torch.zeros(3, 3).long()), ValueError, "edges"),
    (lambda: TotalVariationPenalty(edges=torch.tensor([[0, 9]])).value(T23), ValueError, "below n=2"),
    (lambda: ARDPenalty(2, schedule=lambda step: 1.0 - step).apply_schedule(1), ValueError, "weight: .*> 0"),
    (lambda: OrthogonalityPenalty(dim=0), ValueError, "dim: expected"),
    (lambda: OrthogonalityPenalty("strong"), TypeError, "weight: expected a number or a function"),
    (lambda: NestedPrefixPenalty([1, 2], [-1.0, 1.0]).psd_majorizer_diag(T23), ValueError, "got -1;"),
    (lambda: NuclearNormPenalty(max_rank=0), ValueError, "max_rank: expected"),
    (lambda: DecoderIncoherencePenalty([]), ValueError, "block_sizes: expected at least one"),
    (lambda: DecoderIncoherencePenalty([1], normalize="all"), ValueError, "'blocks', 'grams', 'none'"),
    (lambda: HarmonicRoughnessPenalty([1, 2]), TypeError, "harmonics: expected a torch.Tensor"),
    (lambda: TotalVariationPenalty(edges=[[0, 1]]), TypeError, "edges: expected a torch.Tensor"),
    (
        lambda: SumPenalty([DecoderIncoherencePenalty([2]), OrthogonalityPenalty()]),
        ValueError,
        "members: expected penalties of one tier, got beta and psi",
    ),
    (lambda: SumPenalty([]), ValueError, "members"),
    (lambda: SumPenalty([3]), TypeError, "members: expected penalties"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input_is_named(as_users_run: None, number: int) -> None:
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()
