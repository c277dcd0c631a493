"""The cross entropy: against its plain formula and its full sum, with exact gradients wherever points lie."""

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from pullback.models.umap import full_cross_entropy, fuzzy_graph, umap_loss, umap_loss_at

A, B = 1.58, 0.895


def plain(head, tail, negative_head, negative_tail, strength):
    """The same from powers and logarithms."""
    q = A * ((head - tail).square().sum(1) + 1e-12) ** B
    r = A * ((negative_head - negative_tail).square().sum(1) + 1e-3) ** B
    terms = torch.cat([torch.log1p(q), strength * (torch.log1p(r) - torch.log(r))])
    return terms.mean()


def pairs(d, dtype=torch.float64, seed=0):
    """Codes, and places of 30 edges and 60 random pairs among which some are one point with itself."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(20, d, generator=generator, dtype=torch.float64).to(dtype)
    places = torch.randint(20, (2, 90), generator=generator)
    places[:, 0], places[:, 40] = 3, 5
    return codes, places


def ends(codes, places, edges=30):
    head, tail = codes[places]
    return head[:edges], tail[:edges], head[edges:], tail[edges:]


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("strength", [1.0, 0.3, 0.0])
def test_value_and_gradient_are_those_of_the_formula(d, strength, dtype):
    codes, places = pairs(d, dtype)
    truth_codes = codes.double().clone().requires_grad_()
    truth = plain(*ends(truth_codes, places), strength)
    truth.backward()
    rtol, atol = (1e-12, 1e-13) if dtype == torch.float64 else (1e-5, 1e-6)
    for form in ("ends", "places", "sum"):
        own = codes.detach().clone().requires_grad_()
        if form == "ends":
            value = umap_loss(*ends(own, places), A, B, repulsion_strength=strength)
        elif form == "places":
            value = umap_loss_at(own, places, 30, A, B, repulsion_strength=strength)
        else:
            value = umap_loss_at(own, places, 30, A, B, repulsion_strength=strength, reduction="sum") / 90
        value.backward()
        assert value.dtype == own.grad.dtype == dtype
        torch.testing.assert_close(value.double(), truth, rtol=rtol, atol=atol)
        torch.testing.assert_close(own.grad.double(), truth_codes.grad, rtol=rtol, atol=atol)


def test_gradcheck():
    codes, places = pairs(2)
    codes.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: umap_loss_at(z, places, 30, A, B, repulsion_strength=0.7), [codes]
    )
    four = [part.detach().requires_grad_() for part in ends(codes, places)]
    assert torch.autograd.gradcheck(lambda *parts: umap_loss(*parts, A, B, reduction="sum"), four)


@pytest.mark.parametrize("between", [0.0, 1e-30, 1e-12, 1e-4, 1e4, 1e12, 1e18])
def test_finite_at_every_distance(between, dtype):
    codes = torch.tensor([[0.0, 0.0], [between, 0.0]], dtype=dtype, requires_grad=True)
    places = torch.tensor([[0, 0, 0], [1, 1, 0]])
    value = umap_loss_at(codes, places, 1, A, B)
    value.backward()
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(codes.grad).all())


def test_slopes_draw_edges_together_and_push_others_apart():
    codes = torch.tensor([[0.0], [1.0]], requires_grad=True)
    ends_ = torch.tensor([[0], [1]])
    (pull,) = torch.autograd.grad(umap_loss_at(codes, ends_, 1, A, B), codes)
    (push,) = torch.autograd.grad(umap_loss_at(codes, ends_, 0, A, B), codes)
    assert pull[0] < 0 < pull[1]
    assert push[1] < 0 < push[0]


def test_full_cross_entropy_is_its_sum_over_pairs():
    graph = fuzzy_graph(np.random.default_rng(0).normal(size=(12, 3)), n_neighbors=4)
    z = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for i in range(12):
        for j in range(i + 1, 12):
            w, square = graph[i, j], float((z[i] - z[j]).square().sum())
            near, far = np.log(A) + B * np.log(square + 1e-12), np.log(A) + B * np.log(square + 1e-3)
            total += w * np.log1p(np.exp(near)) + 0.4 * (1 - w) * np.log1p(np.exp(-far))
    value = full_cross_entropy(z, graph, A, B, repulsion_strength=0.4)
    np.testing.assert_allclose(float(value), total, rtol=1e-12)


def test_weighted_pairs_of_the_loss_make_the_full_cross_entropy():
    """With memberships 0 and 1 the sum over all edges and all other pairs is the full one."""
    edges = np.triu(np.random.default_rng(0).random((10, 10)) < 0.3, 1)
    graph = fuzzy_graph(np.random.default_rng(0).normal(size=(10, 3)), n_neighbors=3)
    full = type(graph)((edges | edges.T).astype(float))
    z = torch.randn(10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near, far = np.argwhere(edges), np.argwhere(np.triu(~edges, 1))
    places = torch.from_numpy(np.concatenate([near, far]).T.copy())
    value = umap_loss_at(z, places, len(near), A, B, repulsion_strength=0.4, reduction="sum")
    torch.testing.assert_close(
        value, full_cross_entropy(z, full, A, B, repulsion_strength=0.4), rtol=1e-12, atol=0
    )


def test_softplus_keeps_small_memberships():
    """Far apart, an edge costs log q, where log(1 + q) in float32 would round p to 0."""
    codes = torch.tensor([[0.0], [1e10]])
    value = umap_loss_at(codes, torch.tensor([[0], [1]]), 1, A, B)
    torch.testing.assert_close(
        value, softplus(torch.tensor(np.log(A) + B * np.log(1e20), dtype=torch.float32))
    )


@pytest.mark.usefixtures("as_users_run")
def test_bad_reduction():
    codes, places = pairs(2)
    with pytest.raises(ValueError, match="'mean', 'sum'"):
        umap_loss_at(codes, places, 30, A, B, reduction="none")
    with pytest.raises(ValueError, match="'mean', 'sum'"):
        umap_loss(*ends(codes, places), A, B, reduction="none")
