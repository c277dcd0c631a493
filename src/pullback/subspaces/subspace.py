"""One quantity's part of a latent space, with its decoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.arguments import check_codes
from pullback.subspaces.bases import oriented
from pullback.subspaces.decoders import solve_decoders
from pullback.subspaces.moments import stacked
from pullback.subspaces.ridge import Criterion
from pullback.subspaces.sources import Source, column_scale

Kind = Literal["readout", "encoding"]
KINDS = ("readout", "encoding")


@dataclass(frozen=True, eq=False)
class Subspace:
    """A subspace of the codes and a linear decoder to its quantity: y ≈ (z - z̄) Wᵀ A + ȳ.

    (R W, R A) with R orthogonal is the same subspace. Signs are fixed so that the largest entry of every row
    is positive.

    Attributes:
        W: orthonormal rows, (k, D).
        A: decoder, (k, m).
        V: the direction of the quantity that the first direction of the codes goes with, unit norm, (m,).
        z_mean, y_mean: (D,) and (m,).
        k: how many directions; 0 where cross-validation found none that predicts better than the mean.
        explained: per direction; of a read-out the share of the quantity's variance that its ridge regression
            fits, of an encoding the share of the squared cross-covariance; (k,).
        ridge: λ of the span, in units of S_zz; None for an encoding.
        decoder_ridge: μ of the decoder, in units of W S_zz Wᵀ.
        cv_error: 1 - R² on held-out rows with 0, 1, ... directions, where k was chosen by it.
        kind: "readout" or "encoding".
        constant: columns of the quantity that do not vary, left out; the decoder gives their mean.
    """

    W: Float[Tensor, "k d"]
    A: Float[Tensor, "k m"]
    V: Float[Tensor, " m"]
    z_mean: Float[Tensor, " d"]
    y_mean: Float[Tensor, " m"]
    k: int
    explained: Float[Tensor, " k"]
    ridge: float | None
    decoder_ridge: float
    cv_error: Float[Tensor, " c"] | None
    kind: Kind
    constant: tuple[int, ...] = ()

    def predict(self, Z: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
        """The quantity of codes, (B, m)."""
        codes = check_codes(Z)
        if codes.shape[1] != len(self.z_mean):
            raise ValueError(f"Z: expected (B, {len(self.z_mean)}), got {tuple(codes.shape)}")
        return (codes - self.z_mean) @ self.W.mT @ self.A + self.y_mean


@dataclass(frozen=True, eq=False)
class Span:
    """What a solver found of a quantity, in float64.

    Attributes:
        W: orthonormal rows, (k, D).
        target: a direction of the quantity, of either sign, (m,).
        explained: per direction, (k,).
        scale: factor of every column, (m,).
        ridge: λ, None for an encoding.
        cv_error: mean errors on folds, None where k was given.
    """

    W: Float[Tensor, "k d"]
    target: Float[Tensor, " m"]
    explained: Float[Tensor, " k"]
    scale: Float[Tensor, " m"]
    ridge: float | None = None
    cv_error: Float[Tensor, " c"] | None = None


def assembled(
    source: Source, spans: Mapping[str, Span], *, kind: Kind, criterion: Criterion
) -> dict[str, Subspace]:
    """Subspaces from their spans: with signs, decoders, and the dtype of the input."""
    bases = {q: oriented(span.W) for q, span in spans.items()}
    decoders = solve_decoders(source, bases, {q: span.scale for q, span in spans.items()}, criterion)
    found = {}
    for q, span in spans.items():
        moments, (A, strength) = source.moments[q], decoders[q]
        V = oriented(span.target.unsqueeze(0)).squeeze(0)
        numbers = (bases[q], A, V, moments.z_mean, moments.y_mean, span.explained)
        # tensors of their own: parts of a batch would keep all of it, and cannot be saved
        W, A, V, z_mean, y_mean, explained = (
            number.to(source.dtype).clone(memory_format=torch.contiguous_format) for number in numbers
        )
        found[q] = Subspace(
            W,
            A,
            V,
            z_mean,
            y_mean,
            len(W),
            explained,
            span.ridge,
            strength,
            None if span.cv_error is None else span.cv_error.to(source.dtype),
            kind,
            tuple((span.scale == 0).nonzero().flatten().tolist()),
        )
    return found


def with_bases(
    source: Source, parts: Mapping[str, Subspace], W: Mapping[str, Tensor], criterion: Criterion
) -> dict[str, Subspace]:
    """Subspaces of one kind with other orthonormal bases and their decoders fitted again."""
    spans = {}
    for q, basis in W.items():
        old = parts[q]
        scale = column_scale(stacked([source.moments[q]]), [q], "quantity")[0]
        spans[q] = Span(
            widened(basis), widened(old.V), widened(old.explained), scale, old.ridge, old.cv_error
        )
    return assembled(source, spans, kind=next(iter(parts.values())).kind, criterion=criterion)
