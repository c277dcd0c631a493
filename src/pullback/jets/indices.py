"""Packed multi-indices: each symmetric derivative is stored once.

Second derivatives keep a <= b and third derivatives a <= b <= c, in the order of
``itertools.combinations_with_replacement``. In that order the pairs that begin with a are one block, so are
the triples that begin with (a, b), and the pairs with both entries >= a are the tail of the list: a rule can
walk over blocks with views and needs no gather.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, product

import torch
from torch import Tensor

from pullback.graph import transforms_active


def count(d: int, order: int) -> int:
    """Number of packed derivative rows of orders 1 to ``order`` in ``d`` variables."""
    rows = d if order > 0 else 0
    if order > 1:
        rows += d * (d + 1) // 2
    if order > 2:
        rows += d * (d + 1) * (d + 2) // 6
    return rows


@dataclass(frozen=True)
class Indices:
    """Index vectors of one latent dimension, on one device.

    Attributes:
        i, j: first and second entry of each pair, (d2,).
        a, b, c: entries of each triple, (d3,).
        ab, ac, bc: positions of the pairs of each triple among the pairs, (d3,).
        full2, full3: position of every index (a, b) or (a, b, c) among the packed ones, (d²,) and (d³,).
    """

    i: Tensor
    j: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    ab: Tensor
    ac: Tensor
    bc: Tensor
    full2: Tensor
    full3: Tensor


def indices(d: int, device: torch.device) -> Indices:
    """The index vectors of ``d`` variables, kept a dimension and device."""
    # tensors made inside of a function transform end with it
    return _made(d, device) if transforms_active() else _kept(d, device)


@lru_cache(maxsize=64)
def _kept(d: int, device: torch.device) -> Indices:
    return _made(d, device)


def _made(d: int, device: torch.device) -> Indices:
    pairs = list(combinations_with_replacement(range(d), 2))
    triples = list(combinations_with_replacement(range(d), 3))
    at2 = {pair: k for k, pair in enumerate(pairs)}
    at3 = {triple: k for k, triple in enumerate(triples)}
    columns = [
        [i for i, _ in pairs],
        [j for _, j in pairs],
        [a for a, _, _ in triples],
        [b for _, b, _ in triples],
        [c for _, _, c in triples],
        [at2[a, b] for a, b, _ in triples],
        [at2[a, c] for a, _, c in triples],
        [at2[b, c] for _, b, c in triples],
        [at2[min(a, b), max(a, b)] for a, b in product(range(d), repeat=2)],
    ]
    columns.append([at3[_ordered(a, b, c)] for a, b, c in product(range(d), repeat=3)])
    with torch.inference_mode(False):
        return Indices(*(torch.tensor(column, dtype=torch.long, device=device) for column in columns))


def _ordered(*abc: int) -> tuple[int, int, int]:
    a, b, c = sorted(abc)
    return a, b, c


@lru_cache(maxsize=64)
def pair_starts(d: int) -> tuple[int, ...]:
    """Position of (a, a) among the pairs for a = 0 .. d; the last entry is their number."""
    return tuple(a * d - a * (a - 1) // 2 for a in range(d + 1))


@lru_cache(maxsize=64)
def triple_starts(d: int) -> dict[tuple[int, int], int]:
    """Position of (a, b, b) among the triples."""
    starts: dict[tuple[int, int], int] = {}
    for k, (a, b, _) in enumerate(combinations_with_replacement(range(d), 3)):
        starts.setdefault((a, b), k)
    return starts
