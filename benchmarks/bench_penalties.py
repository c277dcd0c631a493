"""Penalties beside gamfit, and beside the plain way in torch: how many times less time the same numbers take.

Both sides take the same float64 inputs in turn, in one process, with one torch thread, by process CPU time.
Ratios are smallest / median / largest over the rounds. gamfit has no public way to give an isometry penalty
its derivatives, so its extension module is called as its signature says; results are compared first. The
table is printed at the end; nothing is asserted about time.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.timing import ratios, table, worded
from torch import Tensor, nn

from pullback.jets import Jet, reference_jet
from pullback.penalties import IsometryPenalty, SoftmaxAssignmentSparsityPenalty
from pullback.penalties.gershgorin import absolute_row_sums
from pullback.penalties.softmax_rows import assign, dense_hessian

ISOMETRY = {
    (100, 8, 2): 1.0,
    (1000, 16, 2): 2.1,
    (10000, 16, 2): 2.9,
    (1000, 64, 3): 5.8,
    (2000, 256, 4): 6.7,
    (500, 768, 8): 17.1,
}
SOFTMAX = {
    (100, 8): 0.8,
    (1000, 16): 2.0,
    (10000, 16): 1.8,
    (1000, 256): 2.5,
    (10000, 256): 2.1,
    (500, 4096): 2.3,
}
"""Sizes and the median ratio that is asked for."""


@pytest.fixture(scope="module")
def lines() -> Iterator[list[str]]:
    yield from table()


@pytest.fixture(scope="module")
def gamfit() -> Any:
    return pytest.importorskip("gamfit._rust", reason="pip install gamfit==0.1.274 into .venv-peers")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", ISOMETRY, ids=str)
def test_isometry(lines: list[str], gamfit: Any, size: tuple[int, int, int]) -> None:
    n, p, d = size
    J, H = draw(n, p, d), draw(n, p, d, d, seed=1)
    H = (H + H.mT) / 2
    latents = json.dumps({"t": {"n": n, "d": d}})
    penalty = json.dumps([{"kind": "isometry", "weight": 1.0, "target": "t", "p_out": p}])
    arrays = np.zeros(n * d), J.reshape(n, -1).numpy().copy(), H.reshape(n, -1).numpy().copy()
    jet, own = Jet(None, J, H), IsometryPenalty()

    def other() -> Any:
        return gamfit.analytic_penalty_value_grad(latents, penalty, arrays[0], None, *arrays[1:])

    def ours() -> Any:
        return own.evaluate(jet)

    value, slope, _, by_jacobian = other()
    found = ours()
    assert found.value.item() == pytest.approx(value, rel=1e-12)
    for a, b in ((found.grad_target, slope), (found.grad_jacobian, by_jacobian)):
        assert np.abs(a.numpy().ravel() - np.ravel(b)).max() <= 1e-12 * np.abs(b).max()
    lines.append(worded(f"isometry value + gradients {size}", ratios(other, ours), ISOMETRY[size]))


@pytest.mark.parametrize("size", SOFTMAX, ids=str)
def test_softmax(lines: list[str], gamfit: Any, size: tuple[int, int]) -> None:
    n, K = size
    z, v = draw(n, K), draw(n, K, seed=1)
    latents = json.dumps({"t": {"n": n, "d": K}})
    penalty = json.dumps(
        [{"kind": "softmax_assignment_sparsity", "temperature": 0.7, "k_atoms": K, "target": "t"}]
    )
    flat, direction = z.numpy().ravel().copy(), v.numpy().ravel().copy()
    own = SoftmaxAssignmentSparsityPenalty(0.7)

    def other() -> Any:
        first = gamfit.analytic_penalty_value_grad(latents, penalty, flat)
        return first, gamfit.analytic_penalty_hvp(latents, penalty, flat, direction)

    def ours() -> Any:
        return own.evaluate(z, v)

    (value, slope, *_), product = other()
    found = ours()
    assert found.value.item() == pytest.approx(value, rel=1e-12)
    assert np.abs(found.gradient.numpy().ravel() - np.ravel(slope)).max() <= 1e-11 * np.abs(slope).max()
    assert np.abs(found.product.numpy().ravel() - np.ravel(product)).max() <= 1e-11 * np.abs(product).max()
    lines.append(worded(f"softmax value + gradient + product {size}", ratios(other, ours), SOFTMAX[size]))


@pytest.mark.parametrize(("p", "d", "asked"), [(64, 3, 2.7), (256, 4, 3.4), (768, 8, 8.0)])
def test_decoder_without_second_derivatives(lines: list[str], p: int, d: int, asked: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(d, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, p)
        ).double()
    net.requires_grad_(False)
    z, own, given = draw(128, d), IsometryPenalty(decoder=net), IsometryPenalty()

    def other() -> Any:
        return given.evaluate(reference_jet(net, z, 2))

    a, b = own.evaluate(z), other()
    assert (a.grad_target - b.grad_target).abs().max() <= 1e-12 * b.grad_target.abs().max()
    found = ratios(other, lambda: own.evaluate(z))
    lines.append(worded(f"decoder, no second derivatives (128, {p}, {d})", found, asked))


@pytest.mark.parametrize(("n", "d", "asked"), [(500, 2, 18.0), (500, 4, 50.0)])
def test_solves_and_determinants(lines: list[str], n: int, d: int, asked: float) -> None:
    B = IsometryPenalty().curvature(Jet(None, draw(n, 16, d), draw(n, 16, d, d, seed=1)))
    B = B.add_blocks(torch.eye(d, dtype=torch.float64))
    v, whole = draw(n, d, seed=2), B.dense()

    def other() -> Any:
        L = torch.linalg.cholesky(whole)
        return torch.cholesky_solve(v.reshape(-1, 1), L), 2 * L.diagonal().log().sum()

    assert (other()[0].view(n, d) - B.solve(v)).abs().max() <= 1e-9
    lines.append(
        worded(
            f"solve + log det of {n * d} unknowns",
            ratios(other, lambda: (B.solve(v), B.logdet())),
            asked,
        )
    )


@pytest.mark.parametrize(("K", "asked"), [(256, 20.0), (1024, 75.0), (4096, 250.0)])
def test_majorizer(lines: list[str], K: int, asked: float) -> None:
    at = assign(draw(2 * (4096 // K), K), 1.0)

    def other() -> Any:
        return dense_hessian(at, 1.0).abs().sum(-1)

    assert torch.allclose(absolute_row_sums(at, 1.0), other(), rtol=1e-9)
    found = ratios(other, lambda: absolute_row_sums(at, 1.0))
    lines.append(worded(f"majorizer of {K} atoms, {len(at.a)} rows", found, asked))


@pytest.mark.parametrize("size", [(100, 8, 2), (1000, 16, 2)], ids=str)
def test_default_threads_take_no_longer(lines: list[str], size: tuple[int, int, int]) -> None:
    n, p, d = size
    jet, own = Jet(None, draw(n, p, d), draw(n, p, d, d, seed=1)), IsometryPenalty()
    taken = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        times = []
        for _ in range(200):
            began = time.perf_counter()
            own.evaluate(jet)
            times.append(time.perf_counter() - began)
        taken[threads] = sorted(times)[100]
    torch.set_num_threads(1)
    lines.append(f"two threads over one, wall time {size}: {taken[2] / taken[1]:.2f}   asked at most 1.2")
