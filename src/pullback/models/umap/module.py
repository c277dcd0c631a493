"""A parametric UMAP as a module: a map into the embedding, and perhaps one back."""

from jaxtyping import Float
from torch import Tensor, nn

from pullback.models.umap.quick import quick_pass


class UMAPModule(nn.Module):
    """An encoder, and a decoder where there is one.

    Args:
        encoder: rows (n, p) -> embedding (n, d).
        decoder: embedding (n, d) -> rows (n, p), or None.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> UMAPModule(nn.Linear(3, 2)).latent_dim
        2
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module | None = None):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Float[Tensor, "n *p"]) -> Float[Tensor, "n d"]:
        """Rows in the embedding."""
        return quick_pass(self.encoder, x) if self.training else self.encoder(x)

    def decode(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n *p"]:
        """Points of the embedding as rows.

        Raises:
            TypeError: there is no decoder.
        """
        if self.decoder is None:
            raise TypeError("decode: this model was made without a decoder; pass decoder=True when fitting")
        return self.decoder(z)

    @property
    def latent_dim(self) -> int:
        """d, from the encoder's last linear layer.

        Raises:
            ValueError: the encoder has no linear layer to read it from.
        """
        widths = [getattr(module, "out_features", None) for module in self.encoder.modules()]
        widths = [width for width in widths if isinstance(width, int)]
        if not widths:
            raise ValueError("encoder: expected a linear layer that tells the latent dimension, got none")
        return widths[-1]

    def forward(self, x: Float[Tensor, "n *p"]) -> Float[Tensor, "n d"]:
        return self.encode(x)
