"""The recorded results: equal where they are right, different where they are known to be wrong."""

import pytest
import torch

from pullback.subspaces import (
    alignment_loss,
    combined_loss,
    disentanglement_loss,
    encoding_subspace,
    fit_decoders,
    isotropy_loss,
    k_per_q,
    minimal_latent_dim,
    optimal_bins,
    pool,
    principal_directions,
    solve_dims,
    stability_loss,
    subspace_change,
)
from space_cases import CASES, GOLDEN, PARTS, Case, off


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_projectors_and_read_outs(case: Case) -> None:
    limit = 1e-5 if case.single else 1e-10
    found = encoding_subspace(case["Z"], case.all("Y"), case.k)
    decoders = fit_decoders({q: found[q].W for q in found}, case["Z"], case.all("Y"), ridge=0.0)
    for q, part in found.items():
        assert part.W.dtype == case["Z"].dtype
        assert off(part.W.mT @ part.W, case[f"{q}/CHECK_projector"]) <= limit
        assert off(part.W.mT @ decoders[q], case[f"{q}/CHECK_readout_WtA"]) <= limit
        assert off(torch.outer(part.V, part.V), torch.outer(*[case[f"{q}/V"]] * 2)) <= max(limit, 1e-7)


def test_leading_pairs(case: Case) -> None:
    for q, (w, v) in principal_directions(case["Z"], case.all("Y")).items():
        limit = 1e-5 if case.single else 1e-7
        assert off(torch.outer(w, v), case[f"{q}/CHECK_rank1_w1v1"]) <= limit
        assert w.norm().item() == pytest.approx(1, abs=1e-6 if case.single else 1e-14)


def test_change_of_subspaces(case: Case) -> None:
    limit = 1e-5 if case.single else 1e-10
    for q, change in subspace_change(case.all("W_prev"), case.all("W")).items():
        assert off(change.cosines, case[f"{q}/CHECK_principal_cos"]) <= limit
        assert off(change.chordal2, case[f"{q}/CHECK_chordal2"]) <= limit
        assert off(change.similarity_matrix, case[f"{q}/change_similarity_matrix"]) <= limit


@pytest.mark.parametrize("part", PARTS)
def test_alignment_in_raw_units(case: Case, part: str) -> None:
    Z, Y = case.rows(part)
    z = Z.clone().requires_grad_()
    loss = alignment_loss(z, case.all("W"), case.all("A"), Y, normalize="none")
    (slope,) = torch.autograd.grad(loss, z)
    assert off(loss, case[f"{part}/align_ref"]) <= (1e-5 if case.single else 1e-10)
    assert off(slope, case[f"{part}/align_ref_grad"]) <= (2e-5 if case.single else 1e-10)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("key", ["iso_orth_ndir2", "iso_orth_ndir_eq_free"])
def test_isotropy_of_the_spectrum(case: Case, part: str, key: str) -> None:
    z = case.rows(part)[0].clone().requires_grad_()
    n_dir = 2 if key.endswith("2") else z.shape[1] - sum(case.k.values())
    if n_dir > len(z) - 1:
        with pytest.raises(ValueError, match=r"n_dir: expected .* got 25"):
            isotropy_loss(z, case.all("W_orth"), n_dir=n_dir)
        return
    loss = isotropy_loss(z, case.all("W_orth"), n_dir=n_dir)
    (slope,) = torch.autograd.grad(loss, z)
    limit = 2e-5 if case.single else 1e-7
    assert off(loss, case[f"{part}/{key}"]) <= limit
    assert off(slope, case[f"{part}/{key}_grad"]) <= limit


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_ranks_by_variance(case: Case, share: float) -> None:
    word = next(w for w in (str(share), str(share)[1:]) if f"{case.name}/k_per_q_{w}" in GOLDEN.files)
    assert list(k_per_q(case.all("Y"), share).values()) == case[f"k_per_q_{word}"].tolist()
    assert k_per_q(case.all("Y"), share, per_quantity=False) == case[f"k_per_q_max_{word}"].item()


def test_singular_values_of_targets(case: Case) -> None:
    for q, y in case.all("Y").items():
        found = torch.linalg.svdvals((y - y.mean(0)).double())
        recorded = case[f"{q}/svals_centred_Y"].double()
        assert off(found[: len(recorded)], recorded) <= (1e-5 if case.single else 1e-10)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("key", ["X", "S"])
def test_pooling_is_exact(mode: str, n: int, key: str) -> None:
    found = pool(torch.as_tensor(GOLDEN[f"x/pool/{key}"]), n, mode)
    assert torch.equal(found, torch.as_tensor(GOLDEN[f"x/pool/{key}_{mode}_{n}"]))


def test_ranks_of_pooled_images() -> None:
    images = {q: torch.as_tensor(GOLDEN[f"x/dims/{q}"]) for q in "ab"}
    pooled = {q: pool(x, 4) for q, x in images.items()}
    key = next(key for key in GOLDEN.files if key.startswith("x/dims/k_per_q_pool4"))
    assert list(k_per_q(pooled, 0.9).values()) == GOLDEN[key].tolist() == [10, 11]


def test_sizes_are_whole_numbers() -> None:
    table = GOLDEN["x/minimal_latent_dim_k_free_heads_value_exact"]
    assert table.shape == (240, 5)
    wrong = 0
    for k, free, heads, value, exact in table.tolist():
        sizes = {"a": int(k), "b": 3}
        found = minimal_latent_dim(sizes, free_frac=round(free, 6), num_heads=int(heads) or None)
        assert found == exact
        wrong += value != exact
    assert wrong == 3


@pytest.mark.parametrize("part", PARTS)
def test_what_was_wrong_is_not_matched(case: Case, part: str) -> None:
    Z, Y = case.rows(part)
    W = case.all("W")
    assert off(disentanglement_loss(Z, W), case[f"{part}/DIFFER_disent"]) > 1e-3
    assert off(disentanglement_loss(Z, W), case[f"{part}/DIFFER_disent_original"]) > 1e-3
    assert off(isotropy_loss(Z, W), case[f"{part}/DIFFER_iso_overlapping_ndir32"]) > 1e-3
    if part == "full":
        total = combined_loss(Z, W, case.all("A"), Y).total
        assert off(total, case["full/DIFFER_combined"]) > 1e-3


def test_stability_has_no_gauge_where_the_recorded_one_had(case: Case) -> None:
    assert not torch.equal(case["DIFFER_stability"], case["DIFFER_stability_gauge_flipped"])
    W, before = case.all("W"), case.all("W_prev")
    flipped = {q: -basis for q, basis in W.items()}
    assert off(stability_loss(flipped, before), stability_loss(W, before)) <= 1e-6
    for q, change in subspace_change(before, W).items():
        assert (
            abs(change.mean_angle_deg - case[f"{q}/DIFFER_change_mean_angle_deg"].item()) > 1e-3
            or change.dim_new == 1
        )


def test_bins_and_dimensions_differ() -> None:
    images = {q: torch.as_tensor(GOLDEN[f"x/dims/{q}"]) for q in "ab"}
    found = solve_dims(images, 8, 0.95, 0.9, pool_per_quantity=True, k_per_quantity=True)
    recorded = GOLDEN["x/dims/DIFFER_solve_dims_pool1_k1"]
    assert [list(pair) for pair in found.values()] != recorded.tolist()
    assert optimal_bins(images, 16, 0.95, per_quantity=True) == {"a": 10, "b": 8}
