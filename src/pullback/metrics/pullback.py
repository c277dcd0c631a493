"""The metric that a decoder pulls back from data space."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from pullback.ambient import Categorical, Euclidean, LowRank, Paired
from pullback.jets.jet import derivatives
from pullback.metrics import embedded, paired
from pullback.metrics.base import BaseMetric, Points, Tensors
from pullback.metrics.chunks import by_chunks
from pullback.metrics.compact import compact
from pullback.metrics.decoders import (
    as_rows,
    check_eval,
    coupled_layers,
    input_width,
    output_width,
    width_at,
    with_rows,
)
from pullback.products import column_products, gram
from pullback.typing import Ambient, Map


class PullbackMetric(BaseMetric):
    """g(z) = Jᵀ W J with J the Jacobian of a decoder and W an ambient metric.

    Where the ambient has a flattening map phi (all but the learned ambients, `Paired`, and factors that
    change with z), the metric is that of the embedding F = phi∘f and geometry differentiates F alone.

    Args:
        decoder: a `Map` (n, d) -> (n, p), module or function; outputs of more axes, (n, c, h, w), are
            flattened. A module must be in eval mode if it holds dropout or batch normalisation.
        ambient: metric of data space; None is `pullback.ambient.Euclidean`.
    Raises:
        TypeError: ``decoder`` is not callable.
        ValueError: a `LowRank` ambient with one factor a row, an ambient for another number of outputs (at
            the first point where the layers do not tell it); later, at a point: the rank of a `LowRank` is
            below d, or the decoder is in train mode.
    Example:
        >>> import torch
        >>> metric = PullbackMetric(lambda z: torch.stack([z[:, 0], z[:, 1], z[:, 0] ** 2], dim=1))
        >>> metric.tensor(torch.tensor([[1.0, 0.0]]))
        tensor([[[5., 0.],
                 [0., 1.]]])
    """

    def __init__(self, decoder: Map, ambient: Ambient | None = None):
        if not callable(decoder):
            raise TypeError(f"decoder: expected a map (n, d) -> (n, p), got {type(decoder).__name__}")
        self.decoder = decoder
        self.ambient = Euclidean() if ambient is None else ambient
        if isinstance(self.ambient, LowRank) and getattr(self.ambient.factor, "ndim", 2) == 3:
            n, p, r = self.ambient.factor.shape  # type: ignore[union-attr]
            raise ValueError(
                f"ambient: expected a factor (p, r) = ({p}, {r}) or a function of z, got one factor for each "
                f"of {n} rows; geometry needs the metric at points that are no rows"
            )
        self._rows = with_rows(decoder)
        self.dim = input_width(decoder)
        self._coupled = coupled_layers(decoder)
        self._fits = False
        self._check_width(output_width(decoder), self.ambient)
        self._flattening = self.ambient.flattening()
        if self._flattening is not None:
            _follow(self._flattening, decoder)

    @property
    def embedding(self) -> Map | None:
        """F = phi∘f, or None where the ambient has no flattening."""
        self._check_mode()
        if self._flattening is None:
            return None
        if isinstance(self._flattening, nn.Identity):
            return self._rows
        if not isinstance(self.decoder, nn.Module):
            return self._flattened
        if self._by_groups and isinstance(self._rows, nn.Sequential) and self._rows is not self.decoder:
            return nn.Sequential(self.decoder, self._flattening, self._rows[-1])
        return nn.Sequential(self._rows, self._flattening)  # type: ignore[arg-type]

    @property
    def _by_groups(self) -> bool:
        """Whether the ambient couples the last axis of an output of several axes."""
        return isinstance(self.ambient, Categorical)

    def _flattened(self, z: Tensor) -> Tensor:
        # Moving a module to the dtype of z would leave a tensor of a transform in it.
        if isinstance(self.ambient, LowRank):
            return self.ambient.whiten(self._rows(z))
        assert self._flattening is not None
        return as_rows(self._flattening(self.decoder(z) if self._by_groups else self._rows(z)))

    def compact_embedding(self) -> Map | None:
        """`embedding` with its trailing linear layers replaced by the R of their QR: at most as wide as their
        input.

        |W(h - h')| = |R(h - h')| for W = QR, so no length changes; a decoder of 20 000 genes costs as much as
        its last hidden layer is wide. The layers are copies: compute with it, do not train it.
        """
        embedding = self.embedding
        return compact(embedding) if isinstance(embedding, nn.Module) else embedding

    def _check_mode(self) -> None:
        check_eval("decoder", self._coupled)

    def _check(self, z: Tensor, *, rank: bool = True) -> None:
        self._check_mode()
        super()._check(z, rank=rank)
        if self._fits or len(z) == 0:
            return
        ambient = self.ambient.at(z[:1]) if isinstance(self.ambient, LowRank) else self.ambient
        if getattr(ambient, "features", None) is not None:
            self._check_width(width_at(self._rows, z), ambient)
        self._fits = True

    def _check_width(self, p: int | None, ambient: Ambient) -> None:
        """Raise ``ValueError`` where the ambient is made for other than p outputs; None is not known."""
        features = getattr(ambient, "features", None)
        if None not in (p, features) and features != p:
            raise ValueError(
                f"ambient: expected one for the p={p} outputs of the decoder, got {type(ambient).__name__} "
                f"for {features}"
            )

    def tensor(self, z: Points) -> Tensors:
        """g = MᵀM with M = UᵀJ or the Jacobian of phi∘f, never p x p."""
        self._check(z)
        return self._gram(z)

    def _gram(self, z: Tensor) -> Tensor:
        if self._by_factor:
            return self._from_factor(z, gram)
        if self.embedding is not None:
            return embedded.reduce_jacobian(self.embedding, z, gram)
        size = embedded.points_at_once(self._rows, z, 2 + 3 * z.shape[1])
        return by_chunks(self._weighted, z, size, self._rows)

    def _weighted(self, z: Tensor) -> Tensor:
        y, J = derivatives(self._rows, z, 1)
        g = column_products(J, self.ambient.apply(y, J))
        return (g + g.mT) / 2

    @property
    def _by_factor(self) -> bool:
        """Whether W = U Uᵀ with a U that changes with z."""
        return isinstance(self.ambient, LowRank) and self._flattening is None

    def _factors(self, z: Tensor) -> list[tuple[int, int]] | None:
        if not isinstance(self.ambient, LowRank):
            return None
        factor = self.ambient.at(z[:1]).factor
        assert isinstance(factor, Tensor)
        return [(factor.shape[-2], factor.shape[-1])]

    def _from_factor(self, z: Tensor, reduction: Callable[[Tensor], Tensor]) -> Tensor:
        """``reduction`` of M = U(z)ᵀJ, a bounded number of points at a time."""
        ambient = self.ambient
        assert isinstance(ambient, LowRank)

        def part(z: Tensor) -> Tensor:
            return reduction(ambient.at(z).whiten(derivatives(self._rows, z, 1)[1]))

        r = sum(rank for _, rank in self._factors(z) or ())
        size = embedded.points_at_once(self._rows, z, 2 + z.shape[1] + r)
        return by_chunks(part, z, size, self._rows)

    def logdet(self, z: Points) -> Float[Tensor, " n"]:
        """2 Σ ln|diag R| from QR of M (JᵀJ would square the condition); -inf where the rank is below d."""
        if not self._by_factor:
            return super().logdet(z)
        self._check(z)
        return self._from_factor(z, embedded.log_determinant)

    def inverse(self, z: Points) -> Tensors:
        """R⁻¹ R⁻ᵀ from QR of M."""
        if not self._by_factor:
            return super().inverse(z)
        self._check(z)
        return self._sound(z, self._from_factor(z, embedded.inverse_gram))

    def derivative(self, z: Points) -> Float[Tensor, "n d d d"]:
        """∂_c g_ab as [n, a, b, c]."""
        self._check(z, rank=False)
        if isinstance(self.ambient, Paired):
            return paired.first_derivative(self._rows, self.ambient, z)
        return super().derivative(z)

    def second_derivative(self, z: Points) -> Float[Tensor, "n d d d d"]:
        """∂_c ∂_e g_ab as [n, a, b, c, e]."""
        self._check(z, rank=False)
        if isinstance(self.ambient, Paired):
            return paired.second_derivative(self._rows, self.ambient, z)
        return super().second_derivative(z)

    def __repr__(self) -> str:
        return f"PullbackMetric({type(self.decoder).__name__}, ambient={type(self.ambient).__name__})"


def _follow(flattening: nn.Module, decoder: Map) -> None:
    """Give the flattening the device and dtype of the decoder's parameters."""
    if isinstance(decoder, nn.Module):
        like = next((p for p in decoder.parameters() if p.is_floating_point()), None)
        if like is not None:
            flattening.to(device=like.device, dtype=like.dtype)
