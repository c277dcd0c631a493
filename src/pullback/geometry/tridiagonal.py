"""Symmetric block-tridiagonal systems, one for every curve of a batch."""

from functools import lru_cache
from math import prod

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import get_lapack_funcs
from torch import Tensor

DENSE_LIMIT = 256
DENSE_NUMBERS = 2**23
(_SOLVE_BAND,) = get_lapack_funcs(("gbsv",), dtype=np.float64)


def solve_block_tridiagonal(
    diagonal: Float[Tensor, "m K d d"], upper: Float[Tensor, "m L d d"], right: Float[Tensor, "m K d *r"]
) -> Float[Tensor, "m K d *r"]:
    """x with A x = right, where A has blocks D_k on the diagonal, U_k above and U_kᵀ below it.

    On the CPU all systems form one band matrix (they do not couple), factorised by LAPACK in float64 with row
    interchanges, which an indefinite matrix needs: O(m K d³). On other devices the systems are solved densely
    while K d <= 256, else by block elimination.

    Args:
        diagonal: D_k, K blocks a curve.
        upper: U_k, L = K - 1 blocks a curve.
        right: right-hand sides, (m, K, d), or r of them a curve, (m, K, d, r).
    Returns: solutions; NaN for a curve whose matrix is singular or not finite, which spoils no other.
    """
    if diagonal.device.type == "cpu":
        return _banded(diagonal, upper, right)
    if diagonal.shape[1] * diagonal.shape[2] <= DENSE_LIMIT:
        return _dense(diagonal, upper, right)
    return _eliminated(diagonal, upper, right)


@lru_cache(maxsize=32)
def _band_rows(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of LAPACK's band storage (with fill-in) for entry (a, b) of the blocks D, U and Uᵀ."""
    width = 2 * d - 1
    a, b = np.meshgrid(np.arange(d), np.arange(d), indexing="ij")
    return 2 * width + a - b, 2 * width + a - b - d, 2 * width + a - b + d


def _banded(diagonal: Tensor, upper: Tensor, right: Tensor) -> Tensor:
    m, K, d, _ = diagonal.shape
    width = 2 * d - 1
    # Column j = (curve, node, component) of the band lies last; LAPACK wants it contiguous.
    band = np.zeros((m, K, d, 3 * width + 1))
    on, above, below = _band_rows(d)
    columns = np.broadcast_to(np.arange(d), (d, d))
    D = diagonal.double().numpy()
    band[:, :, columns, on] = D
    if K > 1:
        U = upper.double().numpy()
        band[:, 1:, columns, above] = U
        band[:, :-1, columns, below] = U.swapaxes(2, 3)
    flat = band.reshape(m * K * d, 3 * width + 1).T
    sides = right.double().numpy().reshape(m * K * d, prod(right.shape[3:]))
    solution, info = _SOLVE_BAND(width, width, flat, sides, overwrite_ab=1)[2:]
    if info > 0:
        size = max(1, DENSE_NUMBERS // (K * d) ** 2)
        parts = zip(*(part.double().split(size) for part in (diagonal, upper, right)), strict=True)
        return torch.cat([_dense(*part) for part in parts]).to(right.dtype)
    found = torch.from_numpy(solution.reshape(right.shape)).to(right.dtype)
    if bool(torch.isfinite(found).all()):
        return found
    known = torch.isfinite(diagonal.sum((1, 2, 3)) + upper.sum((1, 2, 3)) + right.flatten(1).sum(1))
    if not bool(known.all()):
        found = torch.full_like(found, torch.nan)
        if bool(known.any()):
            found[known] = _banded(diagonal[known], upper[known], right[known])
    return found


def _dense(diagonal: Tensor, upper: Tensor, right: Tensor) -> Tensor:
    m, K, d, _ = diagonal.shape
    matrix = diagonal.new_zeros(m, K, d, K, d)
    k = torch.arange(K, device=diagonal.device)
    matrix[:, k, :, k] = diagonal.transpose(0, 1)
    if K > 1:
        matrix[:, k[:-1], :, k[1:]] = upper.transpose(0, 1)
        matrix[:, k[1:], :, k[:-1]] = upper.transpose(0, 1).mT
    sides = right.reshape(m, K * d, prod(right.shape[3:]))
    solution, info = torch.linalg.solve_ex(matrix.reshape(m, K * d, K * d), sides)
    return torch.where((info == 0)[:, None, None], solution, torch.nan).reshape(right.shape)


def _eliminated(diagonal: Tensor, upper: Tensor, right: Tensor) -> Tensor:
    """Block elimination, pivoting inside the blocks."""
    (K, d), count = diagonal.shape[1:3], prod(right.shape[3:])
    carry, reduced = [], []
    for k in range(K):
        D, r = diagonal[:, k], right[:, k].reshape(len(right), d, count)
        if k:
            lower = upper[:, k - 1].mT
            D, r = D - lower @ carry[-1], r - lower @ reduced[-1]
        sides = torch.cat([upper[:, k], r], dim=-1) if k < K - 1 else r
        solved, info = torch.linalg.solve_ex(D, sides)
        solved = torch.where((info == 0)[:, None, None], solved, torch.nan)
        carry.append(solved[..., :-count])
        reduced.append(solved[..., -count:])
    x = [reduced[-1]]
    for k in range(K - 2, -1, -1):
        x.append(reduced[k] - carry[k] @ x[-1])
    return torch.stack(x[::-1], dim=1).reshape(right.shape)
