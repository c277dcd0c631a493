"""What linear models make of the same rows: principal axes, parts that only add up, a sparse autoencoder of k
active latents."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pullback.linalg import leading_singular
from pullback.models.dictionary.codes import SparseCodes
from pullback.models.dictionary.nmf import fit_parts
from pullback.models.dictionary.scores import fraction_unexplained
from pullback.typing import Chart
from pullback.validation import check_points, check_whole

BATCH, LEARNING_RATE = 256, 3e-3
STEPS = 1500
PARTS = (1, 2, 4, 8, 16, 32, 64)
USED = 0.05
"""Share of a row's largest weight from which on an atom counts as active."""


@dataclass(frozen=True, eq=False)
class TopKAutoencoder:
    """ẑ = b + D s with s the k largest of E (z - b), negative ones cut off.

    Attributes:
        encoder: E, (L, p).
        decoder: D, (p, L), columns of length 1.
        offset: b, (p,).
        k: active latents a row.
    """

    encoder: Float[Tensor, "l p"]
    decoder: Float[Tensor, "p l"]
    offset: Float[Tensor, " p"]
    k: int

    def codes(self, Z: Float[Tensor, "n p"]) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Active latents of rows and their values."""
        value, latent = ((Z - self.offset) @ self.encoder.mT).topk(self.k, dim=1)
        return latent, value.clamp_min(0)

    def reconstruct(self, Z: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        """ẑ of rows."""
        latent, value = self.codes(Z)
        return _decoded(latent, value, self.decoder, self.offset)


def fit_topk(
    Z: Float[Tensor, "n p"],
    n_latents: int,
    k: int,
    *,
    steps: int = STEPS,
    generator: torch.Generator | None = None,
) -> TopKAutoencoder:
    """Train a sparse autoencoder with k active latents a row, by Adam.

    Gao et al. 2024, "Scaling and evaluating sparse autoencoders"; encoder and decoder start as transposes of
    random rows, and latents that nothing used in a quarter of the training start again at the worst rows.

    Args:
        Z: rows, (n, p).
        n_latents: L.
        k: active ones, at most L.
        steps: of Adam, 256 rows each.
        generator: source of all draws.
    Raises:
        ValueError: no table of finite numbers, k above L.
    Example:
        >>> import torch
        >>> Z = torch.eye(4).repeat(50, 1)
        >>> found = fit_topk(Z, 8, 1, steps=400, generator=torch.Generator().manual_seed(0))
        >>> bool((found.reconstruct(Z) - Z).square().mean() < 0.02)
        True
    """
    check_points("Z", Z)
    check_whole("n_latents", n_latents)
    check_whole("k", k)
    if k > n_latents:
        raise ValueError(f"k: expected at most n_latents = {n_latents}, got {k}")
    n, p = Z.shape
    offset = Z.mean(0).clone()
    pick = torch.randint(n, (n_latents,), generator=generator)
    first = Z[pick] - offset + 1e-2 * Z.std() * torch.randn(n_latents, p, generator=generator, dtype=Z.dtype)
    decoder = functional.normalize(first, dim=1).mT.contiguous()
    encoder = decoder.mT.clone()
    parameters = [tensor.requires_grad_() for tensor in (encoder, decoder, offset)]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    used = torch.zeros(n_latents, dtype=torch.bool)
    for step in range(steps):
        rows = Z[torch.randint(n, (min(BATCH, n),), generator=generator)]
        value, latent = ((rows - offset) @ encoder.mT).topk(k, dim=1)
        value = value.clamp_min(0)
        error = (_decoded(latent, value, decoder, offset) - rows).square().sum(1)
        optimiser.zero_grad()
        error.mean().backward()
        optimiser.step()
        with torch.no_grad():
            decoder.copy_(functional.normalize(decoder, dim=0))
            used[latent[value > 0]] = True
            if (step + 1) % max(1, steps // 4) == 0 and step + 1 < steps:
                _revive(~used, rows, error, encoder, decoder, offset)
                used[:] = False
    return TopKAutoencoder(*(tensor.detach() for tensor in parameters), k=k)


def _decoded(latent: Tensor, value: Tensor, decoder: Tensor, offset: Tensor) -> Tensor:
    """b + Σ_j s_j D_j over the active latents of each row."""
    return offset + (decoder.mT[latent] * value.unsqueeze(2)).sum(1)


def _revive(
    dead: Tensor, rows: Tensor, error: Tensor, encoder: Tensor, decoder: Tensor, offset: Tensor
) -> None:
    """Point latents that nothing uses to the rows that are explained worst."""
    places = dead.nonzero()[:, 0][: len(rows)]
    if len(places):
        worst = error.topk(len(places)).indices
        fresh = functional.normalize(rows[worst] - offset, dim=1)
        encoder[places], decoder[:, places] = fresh, fresh.mT


def linear_rivals(
    Z: Float[Tensor, "n p"],
    counts: Sequence[int] = (1, 2, 4, 8),
    *,
    n_latents: int = 64,
    generator: torch.Generator | None = None,
) -> dict[str, list[tuple[float, float]]]:
    """Share of the variance of rows that linear models leave, for numbers of active scalars a row.

    Args:
        Z: rows, (n, p); fitted and judged on them.
        counts: active scalars: principal axes, and active latents of a sparse autoencoder.
        n_latents: of the autoencoders, and most parts of a factorisation with w >= 0; of those a row uses
            fewer, so that the weights that are not zero are counted.
        generator: source of all draws.
    Returns: "PCA", "TopK autoencoder, L latents" and "NMF", for signed rows "NMF of [Z⁺, Z⁻]" -> (scalars,
        FVU).
    """
    check_points("Z", Z)
    rows = Z.double()
    centred = rows - rows.mean(0)
    spread = centred.square().sum()
    kept = [count for count in counts if count <= min(Z.shape)]
    sizes = leading_singular(centred, max(kept))[1].square() / spread
    found = [(float(count), float(1 - sizes[:count].sum())) for count in kept]
    sparse = [
        (
            float(count),
            fraction_unexplained(
                rows, fit_topk(rows, n_latents, count, generator=generator).reconstruct(rows)
            ),
        )
        for count in kept
        if count <= n_latents
    ]
    many = [count for count in PARTS if count <= min(n_latents, *Z.shape)] if bool(rows.any()) else []
    parts = [fit_parts(rows, count, generator=generator) for count in many]
    added = [
        (one.scalars, fraction_unexplained(rows, one.reconstruct().to(rows))) for one in parts if one.scalars
    ]
    split = any(one.split for one in parts)
    return {
        "PCA": found,
        f"TopK autoencoder, {n_latents} latents": sparse,
        "NMF of [Z⁺, Z⁻]" if split else "NMF": added,
    }


def active_scalars(charts: Sequence[Chart], codes: SparseCodes) -> float:
    """Numbers that a row spends on average: a weight and the coordinates of every active atom.

    Args:
        charts: of the atoms.
        codes: of rows.
    """
    weights, indices = torch.as_tensor(codes.weights), torch.as_tensor(codes.indices)
    active = (indices >= 0) & (weights > USED * weights.amax(1, keepdim=True))
    cost = torch.tensor([1 + chart.d for chart in charts] + [0])
    return float((active * cost[indices]).sum() / max(1, len(codes)))
