"""The ambient metric W = U Uᵀ as the gauge uses it: Uᵀ v and W v, never W.

The ambients are those of `pullback.ambient`; the object that weights a likelihood is the object passed here.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.ambient import Diagonal, Euclidean, Gaussian, LowRank
from pullback.typing import Ambient, Map


def is_constant(ambient: Ambient) -> bool:
    """Whether W is the same at each value of the decoder."""
    if isinstance(ambient, LowRank):
        return isinstance(ambient.factor, Tensor)
    return isinstance(ambient, Euclidean | Diagonal | Gaussian)


def check_constant(ambient: Ambient) -> None:
    """Raise ``TypeError`` where W moves with the point, whose derivative a jet of the decoder lacks."""
    if not is_constant(ambient):
        raise TypeError(
            "ambient: expected Euclidean, Diagonal, Gaussian or LowRank with a factor tensor for given "
            f"jets, got {type(ambient).__name__}, whose W moves with the point; pass decoder= and points"
        )


def check_fits(ambient: Ambient, n: int, p: int) -> None:
    """Raise ``ValueError`` with both shapes where a weight or factor is made for other data."""
    if isinstance(ambient, LowRank) and isinstance(ambient.factor, Tensor):
        shape = tuple(ambient.factor.shape)
        if shape[-2] != p or (len(shape) == 3 and shape[0] != n):
            raise ValueError(
                f"factors: expected (n, p, r) or (p, r) with n={n}, p={p} from the Jacobian, got {shape}; "
                "pass a factor U, not W"
            )
    weight = getattr(ambient, "weight", getattr(ambient, "sigma", None))
    if isinstance(weight, Tensor) and weight.numel() not in (1, p):
        raise ValueError(
            f"ambient: expected a weight for p={p} features of the Jacobian, got {tuple(weight.shape)}"
        )


def whiten(ambient: Ambient, v: Float[Tensor, "n p k"]) -> Float[Tensor, "n r k"]:
    """Uᵀ v of (n, p, k): |Uᵀ v|² = vᵀ W v. For constant ambients."""
    if isinstance(ambient, LowRank):
        return ambient.project(v)
    if isinstance(ambient, Diagonal):
        return _column(_double(ambient.weight).to(v).sqrt()) * v
    if isinstance(ambient, Gaussian):
        return v / _column(_double(ambient.sigma).to(v))
    return v


def unwhiten(ambient: Ambient, m: Float[Tensor, "n r k"]) -> Float[Tensor, "n p k"]:
    """U m of (n, r, k), so that W v = U (Uᵀ v)."""
    if isinstance(ambient, LowRank):
        assert isinstance(ambient.factor, Tensor)
        return ambient.factor.to(m) @ m
    return whiten(ambient, m)


def _column(weight: Tensor) -> Tensor:
    return weight.unsqueeze(-1) if weight.ndim else weight


def _double(number: Tensor | float | int) -> Tensor:
    """A tensor as it is, a number in double precision."""
    return number if isinstance(number, Tensor) else torch.tensor(number, dtype=torch.float64)


def row_traces(ambient: Ambient, n: int, p: int) -> Float[Tensor, " n"]:
    """tr W a point, (n,), of a constant ambient."""
    if isinstance(ambient, LowRank):
        assert isinstance(ambient.factor, Tensor)
        return ambient.factor.square().sum((-2, -1)).expand(n)
    if isinstance(ambient, Diagonal):
        return _double(ambient.weight).expand(p).sum().expand(n)
    if isinstance(ambient, Gaussian):
        return _double(ambient.sigma).expand(p).pow(-2).sum().expand(n)
    return torch.full((n,), float(p), dtype=torch.float64)


def embedding(decoder: Map, ambient: Ambient, like: Tensor) -> tuple[Map, Ambient] | None:
    """A map and a constant ambient with the same pullback metric; None where no flattening exists."""
    if is_constant(ambient):
        return decoder, ambient
    flattening = ambient.flattening()
    if flattening is None:
        return None
    flattening = flattening.to(like)
    if isinstance(decoder, nn.Module):
        return nn.Sequential(decoder, flattening), Euclidean()
    return (lambda z: flattening(decoder(z))), Euclidean()
