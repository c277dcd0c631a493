"""Parametric UMAP as functions: neighbours, graph, sampled edges and loss. No training here."""

from pullback.models.umap.blocks import BlockSampler
from pullback.models.umap.curve import curve_parameters
from pullback.models.umap.edges import EdgeBatch, EdgeSampler
from pullback.models.umap.graph import check_graph, fuzzy_graph, graph_of
from pullback.models.umap.jitter import jitter_scale
from pullback.models.umap.loss import full_cross_entropy, umap_loss, umap_loss_at
from pullback.models.umap.module import UMAPModule
from pullback.models.umap.neighbours import nearest
from pullback.models.umap.supervision import intersect_labels

__all__ = [
    "BlockSampler",
    "EdgeBatch",
    "EdgeSampler",
    "UMAPModule",
    "check_graph",
    "curve_parameters",
    "full_cross_entropy",
    "fuzzy_graph",
    "graph_of",
    "intersect_labels",
    "jitter_scale",
    "nearest",
    "umap_loss",
    "umap_loss_at",
]
