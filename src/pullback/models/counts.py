"""Likelihoods of counts: Poisson and negative binomial, with the ways to treat the total of a row.

Three readings of the decoder's output η, by ``library``:

- ``None``: log mean = η, feature by feature;
- ``"observed"``: mean = ℓ · softmax(η), ℓ the total of the row: the latent code describes proportions;
- a number: the same with one fixed ℓ.
"""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from pullback import ambient
from pullback.jets import JetState, register_jet_rule
from pullback.jets.rules import log_softmax
from pullback.models import densities
from pullback.models.links import PairLink
from pullback.models.support import bad_entry, check_feature_count, drawn_on
from pullback.typing import Ambient
from pullback.validation import check_choice, check_finite, check_positive

LibraryOption = float | Literal["observed"] | None
Library = Tensor | float | int | None
SMALLEST_LIBRARY = 1e-8
"""A row without counts has total 0; its density is the limit of small totals, and finite."""


class LogRate(nn.Module):
    """η -> log(ℓ softmax η) with one fixed total ℓ: the log means that the ambient of counts expects."""

    def __init__(self, library: float):
        super().__init__()
        self.log_library = math.log(library)

    def extra_repr(self) -> str:
        return f"library={math.exp(self.log_library):g}"

    def forward(self, y: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        return torch.log_softmax(y, dim=-1) + self.log_library


def _log_rate_jet(module: Any, state: JetState) -> JetState:
    shares = log_softmax(state, -1)
    return replace(shares, value=shares.value + module.log_library)


register_jet_rule(LogRate, _log_rate_jet)


def log_mean_of_counts(eta: Float[Tensor, "*n p"], library: Library) -> Float[Tensor, "..."]:
    """log μ: η itself without a library size, else log ℓ + log_softmax(η), ℓ one number or one a row."""
    if library is None:
        return eta
    size = torch.as_tensor(library).to(eta)
    size = size.unsqueeze(-1) if size.ndim else size
    return torch.log_softmax(eta, dim=-1) + torch.log(size.clamp_min(SMALLEST_LIBRARY))


def check_counts(x: Tensor) -> None:
    """Raise ``ValueError`` unless every entry is a whole number >= 0."""
    check_finite("x", x)
    bad_entry(x, x < 0, "counts expected, found negative numbers", "")
    bad_entry(
        x,
        x != torch.floor(x),
        "counts expected, found non-integers",
        "use raw counts, neither log nor scaled",
    )


class _Counts(nn.Module):
    """Handling of the library size, common to the families of counts."""

    def __init__(self, library: LibraryOption | int):
        super().__init__()
        if isinstance(library, str):
            check_choice("library", library, ("observed",))
        elif library is not None:
            check_positive("library", library)
        self.library = library

    def library_size(self, x: Num[Tensor, "*b p"]) -> Tensor | None:
        """Observed totals of the rows ``(b,)`` where they set the scale, else None."""
        return x.sum(-1) if self.library == "observed" else None

    def _size(self, library: Library) -> Library:
        """The library size to use: the argument, or the fixed one of the options."""
        if self.library is None:
            if library is not None:
                raise ValueError(
                    f"library: expected None, got {library!r}; the decoder gives log means itself"
                )
            return None
        if library is not None:
            return library
        if isinstance(self.library, str):
            raise ValueError(
                "library: expected a number or one a row, got None; "
                "with library='observed' give a total, for instance the median total of the data"
            )
        return self.library

    def _fixed_link(self, library: Library) -> nn.Module:
        size = self._size(library)
        if size is None:
            return nn.Identity()
        if isinstance(size, Tensor) and size.numel() != 1:
            raise ValueError(f"library: expected one number for all points, got shape {tuple(size.shape)}")
        check_positive("library", size)
        return LogRate(float(size))

    def link(self, library: Library = None) -> nn.Module:
        """Decoder output to log means, with one fixed library size for the whole computation."""
        return self._fixed_link(library)

    def check(self, x: Num[Tensor, "n p"]) -> None:
        """Raise ``ValueError`` unless the targets are counts."""
        check_counts(x)


class Poisson(_Counts):
    """log p = Σ_i x_i log μ_i - μ_i - lgΓ(x_i + 1).

    Args:
        library: how the means get their scale; see the head of this file.
    Example:
        >>> import torch
        >>> Poisson().log_prob(torch.ones(1, 1), torch.zeros(1, 1))
        tensor([-1.])
    """

    def __init__(self, library: LibraryOption | int = None):
        super().__init__(library)

    def extra_repr(self) -> str:
        return f"library={self.library!r}"

    def n_params(self, p: int) -> int:
        """Width of the decoder's output for p features."""
        return p

    def log_prob(
        self, x: Num[Tensor, "*b p"], params: Float[Tensor, "*n q"], library: Library = None
    ) -> Float[Tensor, "..."]:
        """log p(x | params), summed over features: ``(b,)``; ``library`` replaces the observed totals."""
        log_rate = log_mean_of_counts(
            params, self._size(self.library_size(x) if library is None else library)
        )
        return densities.poisson(x, log_rate).sum(-1).to(params.dtype)

    def mean(self, params: Float[Tensor, "*n p"], library: Library = None) -> Float[Tensor, "*n p"]:
        """μ."""
        return torch.exp(log_mean_of_counts(params, self._size(library)))

    def sample(
        self,
        params: Float[Tensor, "*n p"],
        generator: torch.Generator | None = None,
        library: Library = None,
    ) -> Float[Tensor, "*n p"]:
        """Counts drawn from ``generator``."""
        rate = self.mean(params, library)
        return drawn_on(rate, generator, lambda r: torch.poisson(r, generator=generator))

    def ambient(self) -> Ambient:
        """Fisher metric on the log rates."""
        return ambient.Poisson()


class NegativeBinomial(_Counts):
    """Counts with mean μ and variance μ + μ²/θ; the formula is `densities.negative_binomial`.

    Args:
        dispersion: inverse dispersion θ, kept in [1e-4, 1e5]: "per_feature" is a parameter a feature,
            "network" reads log θ behind log μ from the decoder, ``(b, 2p)``.
        library: how the means get their scale; see the head of this file.
        n_features: number of features p; needed for "per_feature".
    Example:
        >>> import torch
        >>> NegativeBinomial(n_features=1).log_prob(torch.ones(1, 1), torch.zeros(1, 1))
        tensor([-1.3863], grad_fn=<ToCopyBackward0>)
    """

    def __init__(
        self,
        dispersion: Literal["per_feature", "network"] = "per_feature",
        *,
        library: LibraryOption | int = None,
        n_features: int | None = None,
    ):
        super().__init__(library)
        check_choice("dispersion", dispersion, ("per_feature", "network"))
        self.dispersion = dispersion
        if dispersion == "per_feature":
            check_feature_count("dispersion", dispersion, n_features)
            self.log_dispersion = nn.Parameter(torch.zeros(n_features or 0))

    def extra_repr(self) -> str:
        return f"dispersion={self.dispersion!r}, library={self.library!r}"

    def n_params(self, p: int) -> int:
        """Width of the decoder's output for p features."""
        return 2 * p if self.dispersion == "network" else p

    def split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """(η, log θ) of the decoder's output."""
        if self.dispersion == "network":
            eta, log_theta = params.chunk(2, dim=-1)
            return eta, log_theta
        return params, self.log_dispersion

    def log_prob(
        self, x: Num[Tensor, "*b p"], params: Float[Tensor, "*n q"], library: Library = None
    ) -> Float[Tensor, "..."]:
        """log p(x | params), summed over features: ``(b,)``; ``library`` replaces the observed totals."""
        eta, log_theta = self.split(params)
        log_mean = log_mean_of_counts(eta, self._size(self.library_size(x) if library is None else library))
        return densities.negative_binomial(x, log_mean, log_theta).sum(-1).to(params.dtype)

    def mean(self, params: Float[Tensor, "*n q"], library: Library = None) -> Float[Tensor, "*n p"]:
        """μ."""
        return torch.exp(log_mean_of_counts(self.split(params)[0], self._size(library)))

    def theta(self, params: Tensor) -> Tensor:
        """Inverse dispersion as it enters the density, within its bounds."""
        low, high = (math.log(bound) for bound in densities.DISPERSION_RANGE)
        return torch.exp(self.split(params)[1].clamp(low, high))

    def sample(
        self,
        params: Float[Tensor, "*n q"],
        generator: torch.Generator | None = None,
        library: Library = None,
    ) -> Float[Tensor, "*n p"]:
        """Counts drawn from ``generator``: a Poisson whose rate is μ times a gamma of shape θ and mean 1."""
        mean = self.mean(params, library)
        theta = self.theta(params).expand(mean.shape).contiguous()
        gamma = drawn_on(theta, generator, lambda t: torch._standard_gamma(t, generator=generator)) / theta
        return drawn_on(mean * gamma, generator, lambda rate: torch.poisson(rate, generator=generator))

    def ambient(self) -> Ambient:
        """Fisher metric on the log means with the dispersions as they are now, or on (log μ, log θ)."""
        if self.dispersion == "network":
            return ambient.LearnedNegativeBinomial()
        return ambient.NegativeBinomial(self.theta(self.log_dispersion).detach())

    def link(self, library: Library = None) -> nn.Module:
        """Decoder output to log means, with one fixed library size; a network's log θ is bounded."""
        link = self._fixed_link(library)
        if self.dispersion != "network":
            return link
        return PairLink(link, *(math.log(bound) for bound in densities.DISPERSION_RANGE))
