"""Geodesics of trained decoders against a dense reference (the acceptance of the solver)."""

import pytest
import torch

from g1 import dense_reference, digits_decoder
from pullback.geometry import curve_length, geodesic
from pullback.geometry import solver as module
from pullback.geometry.newton import Descent


@pytest.fixture(scope="module")
def model():
    return digits_decoder()


@pytest.fixture(scope="module")
def reference(model):
    return dense_reference(model)


def test_few_pairs_in_both_precisions_agree_and_are_certified(model):
    """Acceptance 18 on a part of the pairs: float32 within 1e-3 of float64, every curve certified."""
    rows = slice(18, 32)
    exact = model.double()
    path = geodesic(exact.metric(), exact.start[rows], exact.end[rows], data=exact.codes)
    single = geodesic(model.metric(), model.start[rows], model.end[rows], data=model.codes)
    assert bool(path.converged.all())
    assert bool(single.converged.all())
    assert single.length.dtype == torch.float32
    assert (single.length.double() / path.length - 1).abs().max() < 1e-3
    t = torch.linspace(0, 1, 257, dtype=torch.float64)[:, None]
    lines = torch.lerp(exact.start[rows, None], exact.end[rows, None], t)
    saved = 1 - path.length / curve_length(exact.metric(), lines)
    assert saved.min() > -1e-6
    assert saved.max() > 0.05


@pytest.mark.slow
def test_defaults_reach_the_dense_reference(model, reference):
    """Acceptance 1: all converged, 100 % within 1 %, at least 98 % within 0.1 %."""
    exact = model.double()
    path = geodesic(exact.metric(), exact.start, exact.end, data=exact.codes)
    ratio = curve_length(exact.metric(), path.at(torch.linspace(0, 1, 2001))) / reference.length
    assert bool(path.converged.all())
    assert ratio.max() < 1.01
    assert (ratio < 1.001).double().mean() >= 0.98


@pytest.mark.slow
def test_nothing_wrong_is_certified_on_a_coarse_mesh(model, reference):
    """Acceptance 1: at 33 nodes a curve that jumps over a fold does not say that it converged."""
    exact = model.double()
    coarse = geodesic(exact.metric(), exact.start, exact.end, data=exact.codes, nodes=33, max_nodes=33)
    off = coarse.length / reference.length - 1
    assert not bool((coarse.converged & (off.abs() > 0.01)).any())
    assert not bool(coarse.converged.all())


@pytest.mark.slow
def test_paths_that_were_spoiled_are_flagged(model):
    exact = model.double()
    spoiled = geodesic(exact.metric(), exact.start, exact.end, data=exact.codes, max_iter=1, max_nodes=65)
    good = geodesic(exact.metric(), exact.start, exact.end, data=exact.codes)
    wrong = (spoiled.length / good.length - 1).abs() > 1e-4
    assert bool(wrong.any())
    assert not bool((wrong & spoiled.converged).any())
    assert "by residual" in spoiled.message


@pytest.mark.slow
def test_all_pairs_of_fifty_digits_in_one_call(model):
    """Acceptance 2 and 18: 1225 pairs, all converged, L at 65 nodes within 1 % of L at 129 nodes, both of the
    same curves and of a search of its own; alone or among others, in chunks or not, 1e-9.
    """
    exact = model.double()
    z = exact.codes[torch.randperm(len(exact.codes), generator=torch.Generator().manual_seed(0))[:50]]
    i, j = torch.triu_indices(50, 50, offset=1)
    path = geodesic(exact.metric(), z[i], z[j], data=exact.codes)
    fine = geodesic(exact.metric(), z[i], z[j], starts=path.points, nodes=129)
    assert bool(path.converged.all())
    change = (path.length / fine.length - 1).abs()
    assert change.max() < 0.01
    assert torch.quantile(change, 0.99) < 1e-3
    other = geodesic(exact.metric(), z[i], z[j], data=exact.codes, nodes=129)
    assert (path.length / other.length - 1).abs().max() < 0.01
    some = torch.arange(0, 1225, 5)
    alone = [geodesic(exact.metric(), z[i[k]], z[j[k]], data=exact.codes).length for k in some]
    torch.testing.assert_close(torch.cat(alone), path.length[some], rtol=1e-9, atol=0)
    parts = geodesic(exact.metric(), z[i], z[j], data=exact.codes, chunk_size=97)
    torch.testing.assert_close(parts.length, path.length, rtol=1e-9, atol=0)


@pytest.mark.slow
def test_eight_dimensions_from_the_line(caplog):
    """Acceptance 3: all converged; L at 65 and 129 nodes agree to 1e-6."""
    exact = digits_decoder(8).double()
    with caplog.at_level("INFO", logger="pullback"):
        path = geodesic(exact.metric(), exact.start, exact.end)
    fine = geodesic(exact.metric(), exact.start, exact.end, nodes=129)
    assert "straight lines alone" in caplog.text
    assert bool(path.converged.all())
    assert (path.length / fine.length - 1).abs().max() < 1e-6


@pytest.mark.slow
def test_all_pairs_of_fifty_digits_in_eight_dimensions():
    """1225 pairs in one call: all converged; 65 and 129 nodes agree to 1e-6 for 99 %, to 2e-5 for all."""
    exact = digits_decoder(8).double()
    z = exact.codes[torch.randperm(len(exact.codes), generator=torch.Generator().manual_seed(0))[:50]]
    i, j = torch.triu_indices(50, 50, offset=1)
    path = geodesic(exact.metric(), z[i], z[j], starts="line")
    fine = geodesic(exact.metric(), z[i], z[j], starts="line", nodes=129)
    assert bool(path.converged.all())
    assert bool(fine.converged.all())
    change = (path.length / fine.length - 1).abs()
    assert torch.quantile(change, 0.99) < 1e-6
    assert change.max() < 2e-5


@pytest.mark.slow
def test_newton_takes_few_steps(model, monkeypatch):
    """Acceptance 5: median at most 8 a curve and stage, fine stage at most 40 for every pair."""
    stages: list[torch.Tensor] = []
    advance = module.advance

    def counted(descent: Descent, **options) -> None:
        before = descent.iterations.clone()
        advance(descent, **options)
        stages.append((descent.points.shape[1], (descent.iterations - before)))

    monkeypatch.setattr(module, "advance", counted)
    exact = model.double()
    path = geodesic(exact.metric(), exact.start, exact.end, data=exact.codes)
    assert bool(path.converged.all())
    fine = [steps for nodes, steps in stages if nodes == 65]
    assert sum(int(steps.max()) for steps in fine) <= 40
    coarse = [steps for nodes, steps in stages if nodes == 33]
    assert sum(float(steps.double().median()) for steps in coarse) <= 8
    assert float(path.iterations.double().median()) <= 16


@pytest.mark.slow
def test_float32_on_all_pairs(model):
    """Acceptance 18: within 1e-3 of float64 on all pairs."""
    exact = model.double()
    path = geodesic(exact.metric(), exact.start, exact.end, data=exact.codes)
    single = geodesic(model.metric(), model.start, model.end, data=model.codes)
    assert bool(single.converged.all())
    assert (single.length.double() / path.length - 1).abs().max() < 1e-3
