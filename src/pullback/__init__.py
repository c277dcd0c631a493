"""See, shape and sample the geometry of a latent space."""
from pullback._version import __version__
__all__ = ["__version__"]
