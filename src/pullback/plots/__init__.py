"""Figures. Still ones take ``ax=None`` and return the Axes; `interactive_embedding` makes a page."""

from pullback.plots.atoms import atom_gallery, coordinate_dial, coverage, plot_atom, speed_curve
from pullback.plots.conditions import condition_map
from pullback.plots.contributions import plot_contributions
from pullback.plots.curved import curvature_map
from pullback.plots.dictionaries import atom_usage, coactivation, error_curve, evidence_bars, restart_spread
from pullback.plots.ellipses import indicatrices
from pullback.plots.embedding import plot_embedding
from pullback.plots.explorer import EmbeddingPage, interactive_embedding
from pullback.plots.fan import distance_balls, geodesic_fan
from pullback.plots.latent import latent_map, magnification_map
from pullback.plots.live import LiveView
from pullback.plots.partitions import SubspaceTrace, angle_curves, leak_matrix, readout_scatter
from pullback.plots.paths import decoded_strip, geodesic_paths
from pullback.plots.reconstruction import reconstructions
from pullback.plots.shares import path_attribution
from pullback.plots.training import loss_curves

__all__ = [
    "EmbeddingPage",
    "LiveView",
    "SubspaceTrace",
    "angle_curves",
    "atom_gallery",
    "atom_usage",
    "coactivation",
    "condition_map",
    "coordinate_dial",
    "coverage",
    "curvature_map",
    "decoded_strip",
    "distance_balls",
    "error_curve",
    "evidence_bars",
    "geodesic_fan",
    "geodesic_paths",
    "indicatrices",
    "interactive_embedding",
    "latent_map",
    "leak_matrix",
    "loss_curves",
    "magnification_map",
    "path_attribution",
    "plot_atom",
    "plot_contributions",
    "plot_embedding",
    "readout_scatter",
    "reconstructions",
    "restart_spread",
    "speed_curve",
]
