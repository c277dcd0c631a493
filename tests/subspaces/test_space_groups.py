"""Quantities solved side by side against each by itself, and what comes out of a batch."""

import pytest
import torch
from torch import Tensor

from pullback.subspaces import SufficientStatistics, fit_decoders, solve_subspaces, sources
from pullback.subspaces.moments import WIDTH, row_moments
from pullback.subspaces.scatter import Codes
from space_cases import bases, normal


def quantities(Z: Tensor) -> dict[str, Tensor]:
    """Two of one width, one with a constant column, one of another width, one of a single column."""
    Y = {q: Z @ normal(Z.shape[1], m, seed=i) for i, (q, m) in enumerate({"a": 4, "b": 4, "c": 6}.items())}
    Y["constant"] = torch.cat([Y["a"].flip(1)[:, :3], torch.full((len(Z), 1), 7.0).to(Z)], dim=1)
    Y["column"] = Z[:, 0] ** 3
    return {q: y + 0.1 * normal(*y.shape, seed=9) for q, y in Y.items()} | {"constant": Y["constant"]}


@pytest.mark.parametrize("kind", ["readout", "encoding"])
@pytest.mark.parametrize("criterion", ["gcv", "loo"])
@pytest.mark.parametrize("k", [1, 3, None])
def test_side_by_side_is_each_by_itself(kind, criterion, k, monkeypatch: pytest.MonkeyPatch) -> None:
    Z = normal(90, 12)
    Y = quantities(Z)
    together = solve_subspaces(Z, Y, k=k, kind=kind, criterion=criterion).parts
    monkeypatch.setattr(sources, "TOGETHER", 1)
    apart = solve_subspaces(Z, Y, k=k, kind=kind, criterion=criterion).parts
    assert list(together) == list(apart) == list(Y)
    for q, one in together.items():
        alone = solve_subspaces(Z, {q: Y[q]}, k=k, kind=kind, criterion=criterion).parts[q]
        for other in (apart[q], alone):
            assert one.k == other.k
            assert one.constant == other.constant == ((3,) if q == "constant" else ())
            assert one.decoder_ridge == pytest.approx(other.decoder_ridge, rel=1e-6)
            for name in ("W", "A", "V", "z_mean", "y_mean", "explained"):
                torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["readout", "encoding"])
def test_parts_have_tensors_of_their_own(kind) -> None:
    Z = normal(60, 8, dtype=torch.float32)
    space = solve_subspaces(Z, {str(i): Z[:, i : i + 2] for i in range(5)}, k=2, kind=kind)
    for part in space.parts.values():
        for tensor in (part.W, part.A, part.V, part.y_mean, part.explained):
            assert tensor.is_contiguous()
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_wide_quantities_meet_the_codes_in_parts() -> None:
    Z, Y = normal(40, 3), {str(i): normal(40, WIDTH // 2 + 1, seed=i) for i in range(3)}
    for q, known in row_moments(Z, Y).items():
        torch.testing.assert_close(known.zy, (Z - Z.mean(0)).mT @ (Y[q] - Y[q].mean(0)))


@pytest.mark.parametrize("rows", [30, 1100])
@pytest.mark.parametrize("formed", [False, True])
def test_coordinates_from_rows_and_from_their_scatter(rows: int, formed: bool) -> None:
    Z = 5 + normal(rows, 12)
    codes, W = Codes.of(Z), torch.stack([normal(2, 12, seed=i) for i in range(3)])
    if formed:
        assert codes.scatter.shape == (12, 12)
    inside = codes.projected(W)
    for i, basis in enumerate(W):
        S = (Z - Z.mean(0)) @ basis.mT
        torch.testing.assert_close(inside.scatter[i], S.mT @ S)
        torch.testing.assert_close(inside.mean[i], (Z @ basis.mT).mean(0))


@pytest.mark.parametrize("ridge", [0.0, 0.1, "gcv", "loo"])
@pytest.mark.parametrize("rows", [60, 1100])
def test_decoders_carry_gradients_of_their_bases(ridge, rows: int) -> None:
    Z = normal(rows, 10)
    Y = {"a": Z @ normal(10, 3, seed=1), "b": Z @ normal(10, 3, seed=2)}
    W = {q: basis.contiguous().requires_grad_() for q, basis in bases({"a": 2, "b": 2}, 10).items()}
    sum(A.square().sum() for A in fit_decoders(W, Z, Y, ridge=ridge).values()).backward()
    other = "gcv" if ridge == "loo" else ridge
    for q in Y:
        own = W[q].detach().clone().requires_grad_()
        statistics = SufficientStatistics.from_tensors(Z, {q: Y[q]})
        fit_decoders({q: own}, statistics, ridge=other)[q].square().sum().backward()
        # leaving rows out may choose a neighbouring strength
        torch.testing.assert_close(W[q].grad, own.grad, rtol=1e-6 if other == ridge else 0.1, atol=1e-6)
