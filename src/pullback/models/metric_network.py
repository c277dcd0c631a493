"""A network from data to the Cholesky factors of the matrices of a learned metric."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.linalg import lower_triangular
from pullback.models.blocks import Activation, make_activation
from pullback.validation import check_choice, check_positive, check_whole


@dataclass(frozen=True)
class MetricParts:
    """The entries of the factors L.

    Attributes:
        diagonal: positive, ``(n, d)``.
        lower: below the diagonal, row by row, ``(n, d(d-1)/2)``.
    """

    diagonal: Float[Tensor, "n d"]
    lower: Float[Tensor, "n m"]


class MetricNetwork(nn.Module):
    """x -> L(x), lower triangular with a positive diagonal; M = L Lᵀ is the metric's matrix of a centroid.

    h = trunk(x); L_jj = exp(diagonal(h)_j) with the exponent kept within ± ``max_log_diagonal``; the entries
    below the diagonal are lower(h), row by row.

    Chadebec, Mantoux and Allassonnière 2020.

    Args:
        in_features: width of x, or of the trunk's output where a trunk is given.
        latent_dim: d.
        hidden: widths of the hidden layers.
        activation: a name (see `pullback.models.make_activation`) or a class; one for all hidden layers, or
            one for each.
        output_activation: after the heads, before exp; None for none.
        trunk: any module with rows as output in place of the hidden layers, such as a convolutional network.
        max_log_diagonal: bound of the exponents; exp(h)² overflows float32 at h > 44.
        init: of the heads: "glorot" uniform, or "identity", weights of 0, so that all M start as I and no
            centroid outweighs the others. Layers of the trunk that is made here are Glorot uniform, and all
            biases are 0.
        generator: source of the initial weights; None is PyTorch's own.
    Raises:
        ValueError: as many activations as there are not hidden layers, or heads of another width.
    Example:
        >>> import torch
        >>> MetricNetwork(5, 2)(torch.zeros(1, 5))
        tensor([[[1., 0.],
                 [0., 1.]]], grad_fn=<ViewBackward0>)
    """

    def __init__(
        self,
        in_features: int,
        latent_dim: int,
        hidden: Sequence[int] = (128,),
        activation: Activation | Sequence[Activation] = nn.ReLU,
        output_activation: Activation | None = None,
        *,
        trunk: nn.Module | None = None,
        max_log_diagonal: float = 8.0,
        init: Literal["glorot", "identity"] = "glorot",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        check_whole("in_features", in_features)
        check_whole("latent_dim", latent_dim)
        check_positive("max_log_diagonal", max_log_diagonal)
        check_choice("init", init, ("glorot", "identity"))
        several = isinstance(activation, Sequence) and not isinstance(activation, str)
        activations = list(activation) if several else [activation] * len(hidden)  # type: ignore[call-overload]
        if len(activations) != len(hidden):
            raise ValueError(
                f"activation: expected one, or one for each of {len(hidden)} hidden layers, "
                f"got {len(activations)}"
            )
        self.latent_dim, self.max_log_diagonal = latent_dim, float(max_log_diagonal)
        width = in_features
        if trunk is None:
            layers: list[nn.Module] = []
            for size, kind in zip(hidden, activations, strict=True):
                layers += [_glorot(width, size, generator), make_activation(kind)]  # type: ignore[arg-type]
                width = size
            trunk = nn.Sequential(*layers)
        self.trunk = trunk
        self.output_activation = (
            nn.Identity() if output_activation is None else make_activation(output_activation)
        )
        self.diagonal = _glorot(width, latent_dim, generator)
        self.lower = _glorot(width, latent_dim * (latent_dim - 1) // 2, generator)
        if init == "identity":
            nn.init.zeros_(self.diagonal.weight)
            self.lower.weight.data.zero_()

    def parts(self, x: Float[Tensor, "n p"]) -> MetricParts:
        """Diagonal and lower entries of L.

        Raises:
            ValueError: a head of another width than the latent dimension asks for.
        """
        h = self.trunk(x)
        raw, lower = self.output_activation(self.diagonal(h)), self.output_activation(self.lower(h))
        d = self.latent_dim
        wanted, full = d * (d - 1) // 2, d * (d + 1) // 2
        if lower.shape[1] != wanted:
            hint = " (n(n+1)/2 counts the diagonal)" if lower.shape[1] == full else ""
            raise ValueError(
                f"lower: expected d(d-1)/2 = {wanted} outputs for latent_dim={d}, got {lower.shape[1]}{hint}"
            )
        if raw.shape[1] != d:
            raise ValueError(f"diagonal: expected {d} outputs for latent_dim={d}, got {raw.shape[1]}")
        limit = self.max_log_diagonal
        return MetricParts(raw.clamp(-limit, limit).exp(), lower)

    def forward(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n d d"]:
        """L(x)."""
        parts = self.parts(x)
        return lower_triangular(parts.diagonal, parts.lower)


def _glorot(width: int, size: int, generator: torch.Generator | None) -> nn.Linear:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # d = 1 has nothing below
        layer: Any = nn.utils.skip_init(nn.Linear, width, size)
    if size:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
