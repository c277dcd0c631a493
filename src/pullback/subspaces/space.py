"""The subspaces of several quantities with their decoders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.subspaces.arguments import per_name
from pullback.subspaces.bases import orthogonalize
from pullback.subspaces.encoding import solve_encodings
from pullback.subspaces.rank import cross_validated
from pullback.subspaces.readout import solve_readouts
from pullback.subspaces.ridge import Criterion
from pullback.subspaces.sources import Data, as_source
from pullback.subspaces.subspace import KINDS, Kind, Subspace, with_bases
from pullback.validation import check_choice

Orthogonal = Literal["none", "polar", "ordered"]


@dataclass(frozen=True, eq=False)
class Space:
    """Subspaces of several quantities; ``space[name]`` is (W, A, V).

    Attributes:
        parts: name -> `Subspace`.
        orthogonal: "none", or how the bases were made orthogonal to each other.
    """

    parts: dict[str, Subspace]
    orthogonal: Orthogonal = "none"

    @property
    def W(self) -> dict[str, Tensor]:
        """Bases, name -> (k, D)."""
        return {q: part.W for q, part in self.parts.items()}

    @property
    def A(self) -> dict[str, Tensor]:
        """Decoders, name -> (k, m)."""
        return {q: part.A for q, part in self.parts.items()}

    @property
    def V(self) -> dict[str, Tensor]:
        """Leading directions of the quantities, name -> (m,)."""
        return {q: part.V for q, part in self.parts.items()}

    def predict(self, Z: Float[Tensor, "b d"]) -> dict[str, Tensor]:
        """All quantities of codes, name -> (B, m)."""
        return {q: part.predict(Z) for q, part in self.parts.items()}

    def keys(self) -> list[str]:
        """The names."""
        return list(self.parts)

    def values(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(W, A, V) of every quantity."""
        return [self[q] for q in self.parts]

    def items(self) -> list[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
        """Names with (W, A, V)."""
        return [(q, self[q]) for q in self.parts]

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        part = self.parts[name]
        return part.W, part.A, part.V

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __contains__(self, name: object) -> bool:
        return name in self.parts


def solve_subspaces(
    Z: Data,
    Y: Mapping[str, Tensor] | None = None,
    *,
    k: int | Mapping[str, int] | None = None,
    kind: Kind = "readout",
    orthogonal: Orthogonal = "none",
    criterion: Criterion = "gcv",
    folds: int = 5,
    generator: torch.Generator | None = None,
) -> Space:
    """Subspaces and ridge decoders of several quantities, the covariance of the codes decomposed once.

    Args:
        Z: codes (B, D), `SufficientStatistics`, or a list of them, one a fold.
        Y: name -> (B, m); None with statistics.
        k: a number is an upper bound, lowered to the rank of cov(z, y); a dict is exact; None takes what
            cross-validation supports.
        kind: "readout" or "encoding", see `readout_subspace` and `encoding_subspace`.
        orthogonal: "polar" or "ordered" makes the bases orthogonal to each other (see `orthogonalize`) and
            fits the decoders again.
        criterion: of the ridge, see `readout_subspace`; "gcv" needs no more than moments, and "loo" reads the
            rows again for every strength.
        folds: of the rows, where k is None.
        generator: of the folds; None draws the same ones every time.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; k above the rank in a dict; more
            directions than dimensions, or shared ones, where orthogonal bases are asked for.
    Example:
        >>> import torch
        >>> z = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        >>> space = solve_subspaces(z, {"mass": z[:, 0], "centre": z[:, 1:3]}, k=2)
        >>> {q: tuple(W.shape) for q, (W, A, V) in space.items()}
        {'mass': (1, 4), 'centre': (2, 4)}
    """
    check_choice("kind", kind, KINDS)
    check_choice("orthogonal", orthogonal, ("none", "polar", "ordered"))
    source = as_source(Z, Y, folds=folds if k is None else None, generator=generator)
    how = source.criterion(criterion)
    sizes = dict.fromkeys(source.moments) if k is None else per_name("k", k, source.moments)
    bound = not isinstance(k, Mapping)
    if kind == "readout":
        parts = solve_readouts(source, sizes, how, at_most=bound)
    else:
        sizes = {q: cross_validated(source, q, None)[0] if own is None else own for q, own in sizes.items()}
        parts = solve_encodings(source, sizes, how, at_most=bound)
    if orthogonal != "none":
        some = {q: part.W for q, part in parts.items() if part.k}
        if some:
            parts |= with_bases(source, parts, orthogonalize(some, method=orthogonal), how)
    return Space(parts, orthogonal)


def subspaces(
    Z: Data,
    Y: Mapping[str, Tensor] | None = None,
    k: int | Mapping[str, int] | None = None,
    *,
    kind: Kind = "readout",
    criterion: Criterion = "gcv",
    folds: int = 5,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The bases of `solve_subspaces` alone: name -> orthonormal rows (k, D).

    Args:
        Z, Y, k, kind, criterion, folds, generator: see `solve_subspaces`.
    Example:
        >>> import torch
        >>> z = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        >>> subspaces(z, {"centre": z[:, 1:3]}, 2)["centre"].shape
        torch.Size([2, 4])
    """
    return solve_subspaces(Z, Y, k=k, kind=kind, criterion=criterion, folds=folds, generator=generator).W
