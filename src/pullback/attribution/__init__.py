"""Which input features make a latent coordinate, a distance, a cluster: contributions that add up."""

from pullback.attribution.result import Attribution, Separation, TopFeatures

__all__ = ["Attribution", "Separation", "TopFeatures"]
