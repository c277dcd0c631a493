"""One quantity's part of a latent space, with its decoder."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.linalg import widened
from pullback.subspaces.arguments import check_codes
from pullback.subspaces.bases import oriented
from pullback.subspaces.decoders import fit_decoder
from pullback.subspaces.ridge import Criterion
from pullback.subspaces.sources import Source

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


def assembled(
    source: Source,
    name: str,
    span: Float[Tensor, "d k"],
    target: Float[Tensor, " m"],
    explained: Float[Tensor, " k"],
    *,
    kind: Kind,
    criterion: Criterion,
    scale: Float[Tensor, " m"],
    ridge: float | None = None,
    cv_error: Tensor | None = None,
) -> Subspace:
    """A subspace from any basis of its span: orthonormal, with signs, decoder, and the dtype of the input."""
    moments = source.moments[name]
    W = oriented(torch.linalg.qr(span).Q.mT)
    rows = None if source.rows is None else source.rows[name]
    A, strength = fit_decoder(W, moments, scale, criterion, rows)
    largest = target[target.abs().argmax()]
    V = torch.where(largest < 0, -target, target)
    numbers = (W, A, V, moments.z_mean, moments.y_mean)
    W, A, V, z_mean, y_mean = (number.to(source.dtype) for number in numbers)
    return Subspace(
        W,
        A,
        V,
        z_mean,
        y_mean,
        len(W),
        explained[: len(W)].to(source.dtype),
        ridge,
        strength,
        None if cv_error is None else cv_error.to(source.dtype),
        kind,
        tuple(moments.constant.nonzero().flatten().tolist()),
    )


def with_basis(source: Source, name: str, old: Subspace, W: Tensor, criterion: Criterion) -> Subspace:
    """The subspace with another basis and its decoder fitted again."""
    scale = source.scale(name, "quantity")
    return assembled(
        source,
        name,
        widened(W).mT,
        widened(old.V),
        old.explained,
        kind=old.kind,
        criterion=criterion,
        scale=scale,
        ridge=old.ridge,
        cv_error=old.cv_error,
    )
