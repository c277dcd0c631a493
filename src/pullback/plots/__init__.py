"""Still figures: every function takes ``ax=None`` and returns the Axes."""

from pullback.plots.latent import latent_map, magnification_map
from pullback.plots.paths import decoded_strip, geodesic_paths
from pullback.plots.reconstruction import reconstructions
from pullback.plots.training import loss_curves

__all__ = [
    "decoded_strip",
    "geodesic_paths",
    "latent_map",
    "loss_curves",
    "magnification_map",
    "reconstructions",
]
