"""Codes of rows: which atoms, how much of each, and where on them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

from pullback.models.dictionary.layout import Layout, Places


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes inside a fit; no table of rows by atoms, except in the softmax gate, where every atom is active.

    Attributes:
        atoms: (n, m), -1 = empty.
        weights: a, (n, m), 0 where empty.
        coords: t, (n, m, c_max), padded.
        logits: (n, K) in the softmax gate, where atoms are 0 .. K-1 in order; None otherwise.
    """

    atoms: Int[Tensor, "n m"]
    weights: Float[Tensor, "n m"]
    coords: Float[Tensor, "n m c"]
    logits: Float[Tensor, "n k"] | None = None

    def __len__(self) -> int:
        return len(self.atoms)

    @staticmethod
    def softmax(logits: Float[Tensor, "n k"], coords: Float[Tensor, "n k c"], tau: float = 1.0) -> "Codes":
        """Codes of the softmax gate."""
        atoms = torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
        return Codes(atoms, torch.softmax(logits / tau, 1), coords, logits)

    def rows(self, at: Tensor | slice) -> "Codes":
        """The codes of some rows."""
        logits = None if self.logits is None else self.logits[at]
        return Codes(self.atoms[at], self.weights[at], self.coords[at], logits)

    def where(self, taken: Bool[Tensor, " n"], other: "Codes") -> "Codes":
        """Rows of these codes where ``taken``, of the others elsewhere."""
        column = taken.unsqueeze(1)
        logits = None
        if self.logits is not None and other.logits is not None:
            logits = torch.where(column, self.logits, other.logits)
        return Codes(
            torch.where(column, self.atoms, other.atoms),
            torch.where(column, self.weights, other.weights),
            torch.where(column.unsqueeze(2), self.coords, other.coords),
            logits,
        )

    def scaled(self, factors: Float[Tensor, " k"]) -> "Codes":
        """Weights times a factor of each atom."""
        return replace(self, weights=self.weights * factors.to(self.weights)[self.atoms.clamp_min(0)])

    def usage(self, K: int) -> Float[Tensor, " k"]:
        """Share of rows in which each atom is the largest (softmax gate) or open."""
        if self.logits is not None:
            return torch.bincount(self.weights.argmax(1), minlength=K).to(self.weights) / max(1, len(self))
        taken = self.atoms[self.atoms >= 0]
        return torch.bincount(taken, minlength=K).to(self.weights) / max(1, len(self))


def join(parts: list[Codes]) -> Codes:
    """Codes of consecutive rows."""
    if len(parts) == 1:
        return parts[0]
    logits = [part.logits for part in parts if part.logits is not None]
    return Codes(
        torch.cat([part.atoms for part in parts]),
        torch.cat([part.weights for part in parts]),
        torch.cat([part.coords for part in parts]),
        torch.cat(logits) if logits else None,
    )


def decode(layout: Layout, B: Float[Tensor, "k p"], codes: Codes) -> Float[Tensor, "n p"]:
    """Σ_k a_k Φ_k(t_k) B_k, differentiable in B, weights and coordinates; atom by atom.

    Args:
        layout: of the atoms.
        B: decoders, (M_tot, p).
        codes: of n rows.
    """
    value = Places.of(layout, codes.atoms).values(codes.coords.to(B)) * codes.weights.to(B).unsqueeze(2)
    result = B.new_zeros(len(codes), B.shape[1])
    if codes.logits is not None:
        for k, chart in enumerate(layout.charts):
            result = result + value[:, k, : chart.M] @ B[layout.block(k)]
        return result
    for k in codes.atoms.unique().tolist():
        if k >= 0:
            row, slot = (codes.atoms == k).nonzero(as_tuple=True)
            part = value[row, slot, : layout.charts[k].M] @ B[layout.block(k)]
            result = result.index_add(0, row, part)
    return result


Numbers = Float[Tensor, "n m"] | Float[np.ndarray, "n m"]
Places3 = Float[Tensor, "n m c"] | Float[np.ndarray, "n m c"]


@dataclass(frozen=True, eq=False)
class SparseCodes:
    """Codes as they are given to users, tensors or arrays, sorted by weight within a row.

    Attributes:
        indices: atoms, (n, m), -1 = empty.
        weights: a, (n, m), 0 where empty.
        coords: t, (n, m, c_max), NaN beyond an atom's own coordinates.
        coord_sd: standard deviations of the steps along the chart, (n, m, d_max), NaN likewise.
        residual: |z - ẑ|, (n,).
        converged: whether a row's code is stationary, (n,).
        n_atoms: K.
    """

    indices: Int[Tensor, "n m"] | Int[np.ndarray, "n m"]
    weights: Numbers
    coords: Places3
    coord_sd: Float[Tensor, "n m d"] | Float[np.ndarray, "n m d"]
    residual: Float[Tensor, " n"] | Float[np.ndarray, " n"]
    converged: Bool[Tensor, " n"] | Bool[np.ndarray, " n"]
    n_atoms: int

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, K), of the table of weights."""
        return len(self), self.n_atoms

    @property
    def dtype(self) -> Any:
        """Of weights and coordinates."""
        return self.weights.dtype

    def __getitem__(self, rows: Any) -> "SparseCodes":
        """The codes of some rows."""
        at = rows[0] if isinstance(rows, tuple) else rows
        at = [at] if isinstance(at, int | np.integer) else at
        names = ("indices", "weights", "coords", "coord_sd", "residual", "converged")
        return SparseCodes(*[getattr(self, name)[at] for name in names], n_atoms=self.n_atoms)

    def numpy(self) -> "SparseCodes":
        """The same with NumPy arrays."""
        names = ("indices", "weights", "coords", "coord_sd", "residual", "converged")
        arrays = (torch.as_tensor(getattr(self, name)).detach().cpu().numpy() for name in names)
        return SparseCodes(*arrays, n_atoms=self.n_atoms)

    def plain(self, like: Tensor) -> Codes:
        """Codes that can be decoded, in the dtype and on the device of ``like``."""
        atoms = torch.as_tensor(self.indices, device=like.device)
        coords = torch.as_tensor(self.coords).to(like).nan_to_num()
        return Codes(atoms, torch.as_tensor(self.weights).to(like), coords)

    def of_atom(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows that use an atom, its slot in them and its coordinates there, padded."""
        indices, coords = torch.as_tensor(self.indices), torch.as_tensor(self.coords)
        row, slot = (indices == k).nonzero(as_tuple=True)
        return row, slot, coords[row, slot]

    def to_csr(self) -> sparse.csr_matrix:
        """Weights as a sparse matrix, (n, K)."""
        indices, weights = np.asarray(self.numpy().indices), np.asarray(self.numpy().weights)
        row, slot = np.nonzero(indices >= 0)
        return sparse.csr_matrix((weights[row, slot], (row, indices[row, slot])), shape=self.shape)

    def to_array(self) -> Float[Tensor, "n k"] | Float[np.ndarray, "n k"]:
        """Weights as a dense matrix, (n, K)."""
        if isinstance(self.weights, np.ndarray):
            return self.to_csr().toarray()
        dense = self.weights.new_zeros(len(self), self.n_atoms + 1)
        indices = torch.as_tensor(self.indices)
        dense.scatter_add_(1, torch.where(indices < 0, self.n_atoms, indices), self.weights)
        return dense[:, :-1]

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        dense = np.asarray(self.to_csr().toarray())
        return dense if dtype is None else dense.astype(dtype)  # type: ignore[arg-type]
