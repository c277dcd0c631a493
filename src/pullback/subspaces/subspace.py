"""One quantity's part of a latent space, with its decoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.arguments import check_codes
from pullback.subspaces.bases import oriented
from pullback.subspaces.decoders import fit_decoder
from pullback.subspaces.ridge import Criterion
from pullback.subspaces.sources import Group, Source

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
class Spans:
    """What was found for the quantities of a group.

    Attributes:
        k: how many directions each has.
        basis: orthonormal columns, (q, D, c), the first k of which count.
        target: directions of the quantities, (q, m).
        explained: per direction, (q, c).
        ridges: λ of each, None for encodings.
        cv_errors: mean errors of each on folds, None where k was given.
    """

    k: list[int]
    basis: Float[Tensor, "q d c"]
    target: Float[Tensor, "q m"]
    explained: Float[Tensor, "q c"]
    ridges: list[float] | None = None
    cv_errors: list[Tensor | None] | None = None


def assembled(
    source: Source, group: Group, spans: Spans, *, kind: Kind, criterion: Criterion
) -> dict[str, Subspace]:
    """Subspaces of a group: with signs, decoders, and the dtype of the input."""
    found: dict[str, Subspace] = {}
    for k in dict.fromkeys(spans.k):
        places = [i for i, own in enumerate(spans.k) if own == k]
        some = group.at(places)
        every = len(places) == len(spans.k)
        basis, target, explained = (
            x if every else x[places] for x in (spans.basis, spans.target, spans.explained)
        )
        W = oriented(basis[..., :k].mT)
        A, strengths = _decoders(source, some, W, criterion)
        largest = target.gather(-1, target.abs().argmax(-1, keepdim=True))
        V = torch.where(largest < 0, -target, target)
        moments, dtype = some.moments, source.dtype
        z_mean, columns = moments.z_mean.to(dtype), moments.constant
        rows = zip(
            *(x.to(dtype) for x in (W, A, V, moments.y_mean, explained[..., :k])),
            strengths,
            columns.tolist() if bool(columns.any()) else [()] * len(places),
            strict=True,
        )
        for i, q, (w, a, v, y_mean, share, strength, constant) in zip(places, some.names, rows, strict=True):
            error = None if spans.cv_errors is None else spans.cv_errors[i]
            found[q] = Subspace(
                w,
                a,
                v,
                z_mean,
                y_mean,
                k,
                share,
                None if spans.ridges is None else spans.ridges[i],
                strength,
                None if error is None else error.to(dtype),
                kind,
                tuple(column for column, is_constant in enumerate(constant) if is_constant),
            )
    return found


def _decoders(
    source: Source, group: Group, W: Float[Tensor, "q k d"], criterion: Criterion
) -> tuple[Float[Tensor, "q k m"], list[float]]:
    """Decoders of a group and the strengths of their ridges; by themselves where rows are read again."""
    if criterion == "gcv":
        A, strengths = fit_decoder(W, group.moments, group.scale, criterion, None)
        return A, strengths.tolist()
    assert source.rows is not None
    each = [
        fit_decoder(W[i], group.moments.at(i), group.scale[i], criterion, source.rows[q])
        for i, q in enumerate(group.names)
    ]
    return torch.stack([A for A, _ in each]), [float(strength) for _, strength in each]


def with_bases(
    source: Source, parts: Mapping[str, Subspace], W: Mapping[str, Tensor], criterion: Criterion
) -> dict[str, Subspace]:
    """Subspaces with other orthonormal bases and their decoders fitted again."""
    found: dict[str, Subspace] = {}
    for group in source.groups({q: len(basis) for q, basis in W.items()}):
        old = [parts[q] for q in group.names]
        spans = Spans(
            [part.k for part in old],
            widened(torch.stack([W[q] for q in group.names])).mT,
            widened(torch.stack([part.V for part in old])),
            widened(torch.stack([part.explained for part in old])),
            None if old[0].kind == "encoding" else [cast(float, part.ridge) for part in old],
            [part.cv_error for part in old],
        )
        found |= assembled(source, group, spans, kind=old[0].kind, criterion=criterion)
    return found
