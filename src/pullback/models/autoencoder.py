"""The plain autoencoder: an encoder, a decoder and a likelihood that scores the reconstruction."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from pullback.validation import check_whole


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a batch, for an objective.

    Attributes:
        terms: named losses, one row each: ``(b,)``, or ``(b, k)`` for a term with parts.
        z: latent points that were decoded ``(b, d)``.
        codes: latent points that `encode` returns ``(b, d)``.
    """

    terms: dict[str, Tensor]
    z: Tensor
    codes: Tensor


def find_latent_dim(encoder: nn.Module, decoder: nn.Module, latent_dim: int | None) -> int:
    """The latent dimension as given, or as the decoder states it (its input width), or the encoder's output.

    Raises:
        ValueError: nothing states it; the message asks for ``latent_dim``.
    """
    if latent_dim is not None:
        check_whole("latent_dim", latent_dim)
        return latent_dim
    first = decoder[0] if isinstance(decoder, nn.Sequential) and len(decoder) else decoder
    width = getattr(first, "in_features", None)
    if width is None:
        raise ValueError(
            f"latent_dim: expected a number, because {type(decoder).__name__} does not state its in_features"
        )
    return int(width)


def check_width(name: str, tensor: Tensor, width: int) -> Tensor:
    """Return ``tensor`` if it is ``(n, width)``; raise ``ValueError`` with both shapes otherwise."""
    if tensor.ndim != 2 or tensor.shape[1] != width:
        raise ValueError(f"{name}: expected output (n, {width}), got {tuple(tensor.shape)}")
    return tensor


class Autoencoder(nn.Module):
    """Reconstruction through a latent space: loss -log p(x | decoder(encoder(x))).

    Args:
        encoder: any module ``(n, p) -> (n, d)``.
        decoder: any module ``(n, d) -> (n, q)``, q as ``likelihood.n_params(p)`` says.
        likelihood: a module of `pullback.models.likelihoods`.
        latent_dim: d; read from the decoder's ``in_features`` where it has them.
    Example:
        >>> import torch
        >>> from pullback.models import MLP, Autoencoder, Gaussian
        >>> model = Autoencoder(MLP(5, 2), MLP(2, 5), Gaussian())
        >>> model.reconstruct(torch.zeros(3, 5)).shape
        torch.Size([3, 5])
    """

    noise_features = 0
    encoder: nn.Module
    decoder: nn.Module
    likelihood: Any

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, likelihood: nn.Module, *, latent_dim: int | None = None
    ):
        super().__init__()
        self.latent_dim = find_latent_dim(encoder, decoder, latent_dim)
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood

    def encode(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
        """Codes."""
        return check_width("encoder", self.encoder(x), self.latent_dim)

    def decode(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n q"]:
        """Parameters of the likelihood."""
        return self.decoder(z)

    def reconstruct(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n r"]:
        """Expected data at the code of x; counts keep the total of their row."""
        return self.likelihood.mean(self.decode(self.encode(x)), library=self.likelihood.library_size(x))

    def evaluate(self, x: Float[Tensor, "b p"], noise: Tensor | None = None) -> Evaluation:
        """Loss terms and codes of a batch; ``noise`` is not used."""
        z = self.encode(x)
        terms = {"reconstruction": -self.likelihood.log_prob(x, self.decode(z))}
        return Evaluation(terms=terms, z=z, codes=z)

    def loss_terms(self, x: Float[Tensor, "b p"], noise: Tensor | None = None) -> dict[str, Tensor]:
        """``{"reconstruction": (b,)}`` in nats."""
        return self.evaluate(x, noise).terms

    def embedding_map(self, library: Tensor | float | None = None) -> nn.Sequential:
        """Decoder and link: the map whose pullback by ``likelihood.ambient()`` is the model's metric."""
        return nn.Sequential(self.decoder, self.likelihood.link(library))
