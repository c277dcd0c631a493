"""Linear models that a dictionary is compared with."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import NMF, PCA

from pullback.charts import circle, line, sphere
from pullback.models.dictionary.clustering import seed_of
from pullback.models.dictionary.codes import SparseCodes
from pullback.models.dictionary.nmf import fit_parts
from pullback.models.dictionary.rivals import active_scalars, fit_topk, linear_rivals
from pullback.models.dictionary.scores import fraction_unexplained


def rays(n: int = 300, k: int = 6) -> torch.Tensor:
    """One of k orthogonal directions a row, of any length, and a little noise."""
    g = torch.Generator().manual_seed(0)
    rows = torch.zeros(n, 8, dtype=torch.float64)
    rows[torch.arange(n), torch.arange(n) % k] = 1 + torch.rand(n, generator=g, dtype=torch.float64)
    return rows + 0.01 * torch.randn(n, 8, generator=g, dtype=torch.float64)


def test_one_latent_a_row_explains_rays() -> None:
    rows = rays()
    found = fit_topk(rows, 16, 1, generator=torch.Generator().manual_seed(0), steps=400)
    assert fraction_unexplained(rows, found.reconstruct(rows)) < 0.02
    latents, values = found.codes(rows)
    assert latents.shape == values.shape == (300, 1)
    assert (values >= 0).all()
    torch.testing.assert_close(found.decoder.norm(dim=0), torch.ones(16).double())
    again = fit_topk(rows, 16, 1, generator=torch.Generator().manual_seed(0), steps=400)
    assert torch.equal(found.encoder, again.encoder)


def test_rivals_are_principal_axes_and_a_sparse_autoencoder() -> None:
    rows = rays()
    found = linear_rivals(rows, (1, 3, 20), n_latents=16, generator=torch.Generator().manual_seed(0))
    explained = PCA(3).fit(rows.numpy()).explained_variance_ratio_
    np.testing.assert_allclose(found["PCA"], [(1, 1 - explained[0]), (3, 1 - explained.sum())], atol=1e-10)
    assert dict(found["TopK autoencoder, 16 latents"])[1] < 0.1


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_parts_of_rows_that_are_not_negative_are_those_of_scikit_learn() -> None:
    rows = rays().clamp_min(0)
    found = fit_parts(rows, 3, generator=torch.Generator().manual_seed(0))
    seed = seed_of(torch.Generator().manual_seed(0))
    model = NMF(3, init="nndsvda", max_iter=200, random_state=seed)
    codes = model.fit_transform(rows.numpy())
    assert not found.split
    np.testing.assert_allclose(found.reconstruct().numpy(), codes @ model.components_, rtol=1e-12)
    assert found.scalars == (codes > 0).sum(1).mean()


def test_signed_rows_are_split_into_parts() -> None:
    """Rays to both sides need two parts each, of which a row uses one."""
    rows = rays(300, 3).clamp_min(0)
    rows[::2] *= -1
    found = fit_parts(rows, 6, generator=torch.Generator().manual_seed(0))
    assert found.split
    assert (found.codes >= 0).all()
    assert (found.decoder > 0.1).any(1).sum() == (found.decoder < -0.1).any(1).sum() == 3
    assert fraction_unexplained(rows, found.reconstruct()) < 0.01
    assert 1 <= found.scalars < 3


def test_the_names_of_rivals_tell_what_was_factored() -> None:
    source = torch.Generator().manual_seed(0)
    signed = linear_rivals(rays(60), (1, 2), n_latents=4, generator=source)
    assert [name for name in signed if "NMF" in name] == ["NMF of [Z⁺, Z⁻]"]
    plain = linear_rivals(rays(60).clamp_min(0), (1, 2), n_latents=4, generator=source)["NMF"]
    assert all(0 < scalars <= count for (scalars, _), count in zip(plain, (1, 2, 4), strict=True))
    assert 0 < plain[2][1] < plain[1][1] < plain[0][1] < 1


def test_rows_of_zeros_have_no_parts() -> None:
    assert linear_rivals(torch.zeros(20, 3), (1,), n_latents=2)["NMF"] == []


def test_scalars_count_weights_and_coordinates_of_atoms_in_use() -> None:
    nan = float("nan")
    codes = SparseCodes(
        torch.tensor([[0, 2], [1, -1], [2, 0]]),
        torch.tensor([[1.0, 0.5], [2.0, 0.0], [1.0, 0.01]]),
        torch.full((3, 2, 3), nan),
        torch.full((3, 2, 2), nan),
        torch.zeros(3),
        torch.ones(3, dtype=torch.bool),
        3,
    )
    # a circle and a sphere, a line, a sphere with a circle that is too faint to count
    assert active_scalars([circle(), line(), sphere()], codes) == pytest.approx((2 + 3 + 1 + 3) / 3)


def test_more_active_latents_than_there_are() -> None:
    with pytest.raises(ValueError, match="k: expected at most n_latents = 2, got 3"):
        fit_topk(rays(), 2, 3)
