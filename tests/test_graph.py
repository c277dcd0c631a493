"""Computations that leave no graph behind and make it again."""

import gc

import torch
from torch import Tensor

from pullback.ambient import LearnedNegativeBinomial
from pullback.graph import recomputed, transforms_active


def function(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([(a.sin() * b).cumsum(0), a * b * b])


def drawn(seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(5, generator=g, dtype=torch.float64, requires_grad=True)


def test_same_derivatives_as_kept() -> None:
    a, b = drawn(0), drawn(1)
    assert torch.autograd.gradcheck(lambda *at: recomputed(function, *at), (a, b))
    assert torch.autograd.gradgradcheck(lambda *at: recomputed(function, *at), (a, b))
    of_one = torch.autograd.grad(recomputed(function, a, b.detach()).sum(), a)[0]
    torch.testing.assert_close(of_one, torch.autograd.grad(function(a, b).sum(), a)[0], rtol=0, atol=0)


def test_behind_other_nodes_and_under_transforms() -> None:
    a, b = drawn(0), drawn(1)
    (seen,) = torch.autograd.grad(recomputed(function, a.exp(), b).sum(), a)
    (expected,) = torch.autograd.grad(function(a.exp(), b).sum(), a)
    torch.testing.assert_close(seen, expected)
    assert not transforms_active(a)
    found = torch.func.jacfwd(lambda at: recomputed(function, at, b))(a)
    torch.testing.assert_close(found, torch.func.jacrev(lambda at: function(at, b))(a))


def test_constants() -> None:
    a = drawn(0)
    value = recomputed(lambda at: torch.ones(3, dtype=at.dtype), a)
    (seen,) = torch.autograd.grad(value.sum(), a, allow_unused=True)
    assert seen is None or not seen.any()


def test_nothing_waits_for_the_garbage_collector() -> None:
    """What is computed again is freed at once: it would add up over chunks of points."""

    def alive() -> int:
        return sum(issubclass(type(held), Tensor) for held in gc.get_objects())

    y = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        before = alive()
        parts = LearnedNegativeBinomial().weights(y, 2)
        sum(part.sum() for half in parts for part in half).backward()
        del parts
        assert alive() <= before + 1  # the gradient
    finally:
        gc.enable()
