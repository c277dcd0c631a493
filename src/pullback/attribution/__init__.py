"""Which input features make a latent coordinate, a distance, a cluster: contributions that add up."""

from pullback.attribution.pairs import contributions_between
from pullback.attribution.pointwise import contributions
from pullback.attribution.result import Attribution, Separation, TopFeatures

__all__ = ["Attribution", "Separation", "TopFeatures", "contributions", "contributions_between"]
