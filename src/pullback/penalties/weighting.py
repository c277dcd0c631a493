"""What the gauge asks of an ambient metric W = U Uᵀ.

The ambients are those of `pullback.ambient`; the object that weights a likelihood is the object passed here.
"""

from torch import Tensor, nn

from pullback.ambient import Constant, Euclidean, LowRank
from pullback.typing import Ambient, Map


def checked_constant(ambient: Ambient) -> Constant:
    """The ambient, or ``TypeError`` where W moves with the point, whose derivative a jet of the decoder
    lacks."""
    if isinstance(ambient, Constant) and ambient.constant:
        return ambient
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


def embedding(decoder: Map, ambient: Ambient, like: Tensor) -> tuple[Map, Constant] | None:
    """A map and a constant ambient with the same pullback metric; None where no flattening exists."""
    if isinstance(ambient, Constant) and ambient.constant:
        return decoder, ambient
    flattening = ambient.flattening()
    if flattening is None:
        return None
    flattening = flattening.to(like)
    if isinstance(decoder, nn.Module):
        return nn.Sequential(decoder, flattening), Euclidean()
    return (lambda z: flattening(decoder(z))), Euclidean()
