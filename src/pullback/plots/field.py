"""The magnification field over the box of the codes, and which part of that box lies off the data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import KDTree
from torch import Tensor, nn

from pullback.geometry import magnification
from pullback.metrics import PullbackMetric, SumMetric

MARGIN = 0.1
RESOLUTION = 100
QUANTILE = 0.99
FADE_END = 2.0
"""Remoteness at which a field has faded to white."""
LEAST_RATIO = 1e-12
"""Smallest over largest eigenvalue of a metric that counts as one."""


@dataclass(frozen=True)
class Field:
    """Values on a regular grid of a latent space of one or two dimensions.

    ``nats`` is log sqrt det g at the grid points, rows along the second axis (one row where d = 1), and
    ``reference`` its median over the codes: ``nats - reference`` compares a place with the typical sample.
    ``remoteness`` is the distance to the nearest code over the largest usual one: above 1 is off the data.
    """

    box: np.ndarray  # (d, 2)
    nats: np.ndarray  # (rows, columns)
    remoteness: np.ndarray  # (rows, columns)
    reference: float

    @property
    def off_data(self) -> np.ndarray:
        """Which grid points lie off the data, ``(rows, columns)``."""
        return self.remoteness > 1

    @property
    def veil(self) -> np.ndarray:
        """How far each grid point fades to white: 0 on the data, 1 from `FADE_END` on."""
        return veil_of(self.remoteness)

    @property
    def relative(self) -> np.ndarray:
        """log10 of the magnification over that of the typical sample, ``(rows, columns)``."""
        return decades(self.nats, self.reference)


def veil_of(remoteness: np.ndarray) -> np.ndarray:
    """A smooth step from 0 on the data to 1 at `FADE_END`."""
    step = np.clip((remoteness - 1) / (FADE_END - 1), 0, 1)
    return step * step * (3 - 2 * step)


def latent_box(points: Float[np.ndarray, "n d"], margin: float = MARGIN) -> Float[np.ndarray, "d 2"]:
    """Smallest box around the points, widened by ``margin`` of its side on every side."""
    low, high = points.min(0), points.max(0)
    side = np.where(high > low, high - low, 1.0)
    return np.stack([low - margin * side, high + margin * side], axis=1)


def fit_box(box: Float[np.ndarray, "2 2"], aspect: float) -> Float[np.ndarray, "2 2"]:
    """The box widened along one axis until its width is ``aspect`` times its height."""
    side = box[:, 1] - box[:, 0]
    wanted = np.maximum(side, [side[1] * aspect, side[0] / aspect]).astype(box.dtype)
    grow = (wanted - side) / 2
    return np.stack([box[:, 0] - grow, box[:, 1] + grow], axis=1)


def grid_points(box: Float[np.ndarray, "d 2"], resolution: int = RESOLUTION) -> Float[np.ndarray, "m d"]:
    """Centres of the cells of a regular grid over the box, the first axis running fastest."""
    steps = ((np.arange(resolution) + 0.5) / resolution).astype(box.dtype)
    axes = [low + (high - low) * steps for low, high in box]
    mesh = np.meshgrid(*axes[::-1], indexing="ij")[::-1]
    return np.stack([m.ravel() for m in mesh], axis=1)


def remoteness(
    points: Float[np.ndarray, "m d"], codes: Float[np.ndarray, "n d"], quantile: float = QUANTILE
) -> Float[np.ndarray, " m"]:
    """Distance to the nearest code over the ``quantile`` of the codes' own nearest-neighbour distances."""
    tree = KDTree(codes)
    spacing = tree.query(codes, k=2)[0][:, 1] if len(codes) > 1 else np.zeros(1)
    return tree.query(points)[0] / max(
        float(np.quantile(spacing, quantile)), float(np.finfo(codes.dtype).tiny)
    )


def off_data_share(codes: Float[np.ndarray, "n d"], resolution: int = RESOLUTION) -> float:
    """Share of the grid over the codes' box (margin 10 %) that lies off the data; d <= 2."""
    return float((remoteness(grid_points(latent_box(codes), resolution), codes) > 1).mean())


def light_metric(metric: Any) -> Any:
    """The same metric at the cost of the decoders' last hidden layers, however many outputs they have."""
    embedding = metric.compact_embedding() if isinstance(metric, PullbackMetric | SumMetric) else None
    return metric if embedding is None else PullbackMetric(embedding)


def latent_tensor(metric: Any, z: np.ndarray) -> Tensor:
    """Latent points as a tensor of the precision and on the device of the metric's numbers, if it has any."""
    tensor, like = torch.from_numpy(np.array(z)), _numbers(metric)
    return tensor if like is None else tensor.to(device=like.device, dtype=like.dtype)


def _numbers(metric: Any) -> Tensor | None:
    """A parameter of the metric's decoder, or one of its centroids, or of the metric that it is built on."""
    for source in (getattr(metric, "decoder", None), getattr(metric, "embedding", None)):
        if isinstance(source, nn.Module):
            for parameter in source.parameters():
                if parameter.is_floating_point():
                    return parameter
    centroids, base = getattr(metric, "centroids", None), getattr(metric, "base", None)
    return centroids if isinstance(centroids, Tensor) else None if base is None else _numbers(base)


def tensor_at(
    metric: Any, z: Float[np.ndarray, "n d"], *, chunk_size: int = 2500
) -> Float[np.ndarray, "n d d"]:
    """g at each point in float64, evaluated in chunks."""
    metric = light_metric(metric)
    with torch.no_grad():
        parts = [metric.tensor(chunk).double() for chunk in latent_tensor(metric, z).split(chunk_size)]
    return torch.cat(parts).cpu().numpy()


def regular(g: Float[np.ndarray, "n k k"]) -> Bool[np.ndarray, " n"]:
    """Where a tensor is finite and positive definite by more than rounding."""
    finite = np.asarray(np.isfinite(g).all((1, 2)))
    values = np.linalg.eigvalsh(np.where(finite[:, None, None], g, 0.0))
    return finite & (values[:, 0] > LEAST_RATIO * values[:, -1])


def magnification_at(
    metric: Any, z: Float[np.ndarray, "n d"], *, chunk_size: int = 2500
) -> Float[np.ndarray, " n"]:
    """log sqrt det g in nats at each point, evaluated in chunks."""
    metric = light_metric(metric)
    parts = [magnification(metric, chunk).detach() for chunk in latent_tensor(metric, z).split(chunk_size)]
    return torch.cat(parts).double().cpu().numpy()


def typical(nats: Float[np.ndarray, " n"]) -> float:
    """The median of the finite values: the magnification at the typical sample; 0 where there is none."""
    finite = nats[np.isfinite(nats)]
    return float(np.median(finite)) if finite.size else 0.0


def decades(nats: np.ndarray, reference: float) -> np.ndarray:
    """log10 of a magnification over the reference."""
    return (nats - reference) / np.log(10.0)


def magnification_field(
    metric: Any,
    codes: Float[np.ndarray, "n d"],
    *,
    box: Float[np.ndarray, "d 2"] | None = None,
    resolution: int = RESOLUTION,
    reference: float | None = None,
) -> Field:
    """Evaluate the magnification on a grid over ``box`` (None: the codes' box, margin 10 %); d <= 2."""
    box = latent_box(codes) if box is None else box
    points = grid_points(box, resolution)
    shape = (resolution, resolution) if len(box) == 2 else (1, resolution)
    nats = magnification_at(metric, points)
    if reference is None:
        reference = typical(magnification_at(metric, codes[:: 1 + len(codes) // 2000]))
    return Field(box, nats.reshape(shape), remoteness(points, codes).reshape(shape), reference)
