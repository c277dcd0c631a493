"""Losses and solvers of subspaces beside spacelearn 0.1.0: how many times less CPU time the same job takes.

Both sides take the same inputs in turn, in one process, with one torch thread, by process CPU time. Ratios
are smallest / median / largest over the rounds. The loss step is its combined loss, forward and backward to
the codes, with stability on either side; its exact mode decomposes fully, its inexact default keeps 6
directions above 100 000 elements. It works in the precision of the input where ours sums in float64, so that
solving is measured for both precisions. The table is printed at the end; nothing is asserted about time.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from benchmarks.timing import ratios, table, worded
from torch import Tensor

from pullback.subspaces import combined_loss, solve_subspaces

ROUNDS = 5
SIZES = {
    (256, 64, 16, 3, 4): (1.5, 1.5),
    (256, 512, 64, 8, 16): (2.0, 1.5),
    (1024, 256, 64, 4, 16): (2.0, 1.5),
    (4096, 512, 256, 8, 32): (2.0, 1.5),
}
"""Rows, latent dimensions, columns, quantities, directions; ratio asked of exact mode and of the default."""
SOLVE = 2.0
Batch = tuple[Tensor, dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    yield from table()


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip("spacelearn", reason="pip install spacelearn==0.1.0 into .venv-peers")


def drawn(size: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Batch:
    B, D, m, Q, k = size
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g).to(dtype)

    names = [f"q{i}" for i in range(Q)]
    Z = draw(B, D)
    Y = {q: Z @ draw(D, m) / D**0.5 + 0.3 * draw(B, m) for q in names}
    W, W_prev = ({q: torch.linalg.qr(draw(D, k)).Q.mT.contiguous() for q in names} for _ in range(2))
    return Z, W, {q: draw(k, m) for q in names}, Y, W_prev


@pytest.mark.parametrize("mode", ["svd", "auto"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_loss_step(lines: list[str], peer: Any, size: tuple[int, ...], mode: str) -> None:
    Z, W, A, Y, W_prev = drawn(size)
    peer.settings.config.solver_mode = mode

    def theirs() -> None:
        z = Z.clone().requires_grad_()
        peer.combined_loss(z, W, A, Y, W_prev).backward()

    def ours() -> None:
        z = Z.clone().requires_grad_()
        combined_loss(z, W, A, Y, W_prev).total.backward()

    word = "exact" if mode == "svd" else "default"
    lines.append(
        worded(f"loss step {size}, {word}", ratios(theirs, ours, ROUNDS), SIZES[size][mode == "auto"])
    )


@pytest.mark.parametrize("kind", ["encoding", "readout"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_solve(lines: list[str], peer: Any, size: tuple[int, ...], dtype: torch.dtype, kind: Any) -> None:
    Z, _, _, Y, _ = drawn(size, dtype)
    k = size[-1]
    peer.settings.config.solver_mode = "svd"

    def theirs() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return peer.solve_subspaces(Z, Y, k=k)

    def ours() -> Any:
        return solve_subspaces(Z, Y, k=k, kind=kind)

    if kind == "encoding":
        first, second = theirs(), ours()
        for q in Y:
            a, b = first.W[q].double(), second.W[q].double()
            assert (a.mT @ a - b.mT @ b).norm() <= 2e-2
    word = str(dtype).removeprefix("torch.")
    lines.append(worded(f"solve {size}, {word}, {kind}", ratios(theirs, ours, 3), SOLVE))
