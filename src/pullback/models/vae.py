"""The variational autoencoder with a diagonal Gaussian posterior (Kingma and Welling 2014)."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.jets.once import differentiable_once
from pullback.models import densities, marginal
from pullback.models.autoencoder import Evaluation, check_width, find_latent_dim
from pullback.models.marginal import LogLikelihood
from pullback.validation import check_choice, check_whole


@dataclass(frozen=True)
class GaussianPosterior:
    """q(z | x) = N(mean, diag σ²), one row a data point.

    Attributes:
        mean: ``(b, d)``.
        log_std: log σ ``(b, d)``.
    """

    mean: Float[Tensor, "b d"]
    log_std: Float[Tensor, "b d"]

    def sample(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """z = mean + σ · noise, with gradients to both."""
        return self.mean + torch.exp(self.log_std) * noise

    def log_prob(self, z: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """log q(z | x), every constant included."""
        return densities.normal(z, self.mean, self.log_std).sum(-1)

    def log_prob_of(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """log q at ``sample(noise)``, in fewer steps than from the point itself."""
        return densities.standard_normal(noise) - self.log_std.sum(1)

    def path_log_prob(self, z: Float[Tensor, "b d"], noise: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """log q at z = ``sample(noise)``, with a gradient to z alone and not to the parameters of q.

        The gradient that is left out, the score of q, has mean zero under q: an estimate of a bound keeps its
        mean and loses much of its variance (Roeder, Wu and Duvenaud 2017, "Sticking the landing").
        """
        return _PathLogProb.apply(z, noise, self.log_std.detach())  # type: ignore[return-value]

    def widened(self, factor: float) -> "GaussianPosterior":
        """The same mean with σ times ``factor``."""
        return GaussianPosterior(self.mean, self.log_std + math.log(factor))

    def kl(self) -> Float[Tensor, "b d"]:
        """KL(q || N(0, I)) per dimension: ½(mean² + σ² - 1) - log σ."""
        return 0.5 * (self.mean.square() + torch.expm1(2 * self.log_std)) - self.log_std


class _PathLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(noise, log_std)
        return densities.standard_normal(noise) - log_std.sum(1)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        noise, log_std = ctx.saved_tensors
        return torch.exp(-log_std).mul_(noise).mul_(-g.unsqueeze(1)), None, None


class VAE(nn.Module):
    """Latent variable model p(x | z) N(z; 0, I) with an encoder for q(z | x).

    The evidence lower bound is log p(x | z) - KL(q || p) with z = mean + σ · noise. Every constant is
    included, so that it bounds log p(x).

    Args:
        encoder: any module ``(n, p) -> (n, 2d)``, mean and log σ side by side (or the pair of them).
        decoder: any module ``(n, d) -> (n, q)``, q as ``likelihood.n_params(p)`` says.
        likelihood: a module of `pullback.models.likelihoods`.
        latent_dim: d; read from the decoder's ``in_features`` where it has them.
    Example:
        >>> import torch
        >>> from pullback.models import MLP, VAE, Bernoulli
        >>> model = VAE(MLP(5, 4), MLP(2, 5), Bernoulli())
        >>> model.elbo(torch.ones(3, 5), torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    encoder: nn.Module
    decoder: nn.Module
    likelihood: Any

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, likelihood: nn.Module, *, latent_dim: int | None = None
    ):
        super().__init__()
        self.latent_dim = find_latent_dim(encoder, decoder, latent_dim)
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood

    @property
    def noise_features(self) -> int:
        """Standard normal numbers that a row of data needs."""
        return self.latent_dim

    def posterior(self, x: Float[Tensor, "b p"]) -> GaussianPosterior:
        """q(z | x)."""
        output = self.encoder(x)
        if isinstance(output, tuple):
            output = torch.cat(output, dim=-1)
        return GaussianPosterior(*check_width("encoder", output, 2 * self.latent_dim).chunk(2, dim=1))

    def encode(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
        """Posterior means."""
        return self.posterior(x).mean

    def decode(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n q"]:
        """Parameters of the likelihood."""
        return self.decoder(z)

    def reconstruct(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n r"]:
        """Expected data at the posterior mean of x; counts keep the total of their row."""
        return self.likelihood.mean(self.decode(self.encode(x)), library=self.likelihood.library_size(x))

    def evaluate(self, x: Float[Tensor, "b p"], noise: Float[Tensor, "b d"]) -> Evaluation:
        """Loss terms, the sampled latent points and the posterior means of a batch."""
        q = self.posterior(x)
        z = q.sample(noise)
        terms = {"reconstruction": -self.likelihood.log_prob(x, self.decode(z)), "kl": q.kl()}
        return Evaluation(terms=terms, z=z, codes=q.mean)

    def loss_terms(self, x: Float[Tensor, "b p"], noise: Float[Tensor, "b d"]) -> dict[str, Tensor]:
        """``{"reconstruction": (b,), "kl": (b, d)}`` in nats."""
        return self.evaluate(x, noise).terms

    def elbo(self, x: Float[Tensor, "b p"], noise: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Evidence lower bound of each row with one draw of z, in nats."""
        terms = self.loss_terms(x, noise)
        return -terms["reconstruction"] - terms["kl"].sum(1)

    @torch.no_grad()
    def log_likelihood(
        self,
        x: Float[Tensor, "b p"],
        n_samples: int = 200,
        method: Literal["importance", "quadrature"] = "importance",
        *,
        generator: torch.Generator | None = None,
        chunk_size: int | None = None,
        nodes: int = 201,
        radius: float = 6.0,
    ) -> LogLikelihood:
        """log p(x) of each row with a standard error.

        Args:
            x: data.
            n_samples: draws a row ("importance").
            method: "importance" for any dimension; "quadrature" for d <= 2, on a grid of ``nodes`` a side
                over [-radius, radius]: an exact reference.
            generator: source of the draws.
            chunk_size: rows ("importance") or grid nodes ("quadrature") at a time.
        """
        check_choice("method", method, ("importance", "quadrature"))
        check_whole("n_samples", n_samples)
        if method == "quadrature":
            return marginal.quadrature(
                x,
                self.decode,
                self.likelihood,
                latent_dim=self.latent_dim,
                nodes=nodes,
                radius=radius,
                chunk_size=chunk_size,
            )
        return marginal.importance(
            x,
            self.decode,
            self.likelihood,
            posterior=self.posterior,
            latent_dim=self.latent_dim,
            n_samples=n_samples,
            generator=generator,
            chunk_size=chunk_size,
        )

    def embedding_map(self, library: Tensor | float | None = None) -> nn.Sequential:
        """Decoder and link: the map whose pullback by ``likelihood.ambient()`` is the model's metric."""
        return nn.Sequential(self.decoder, self.likelihood.link(library))
