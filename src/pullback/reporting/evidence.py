"""What a report looks at: the data, their codes and reconstructions, as arrays, read once."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted

from pullback.estimators import ParametricUMAP
from pullback.estimators.latent_metrics import gives_metric, metric_of
from pullback.estimators.reading import features_of
from pullback.inputs import Table, read_input
from pullback.plots.arguments import check_labels
from pullback.plots.field import decades, light_metric, magnification_at, typical
from pullback.plots.labels import Labels, read_labels
from pullback.plots.plane import Plane, plane_of
from pullback.reporting.learned import is_learned
from pullback.validation import check_whole

MAX_CELLS = 40_000_000
"""Most entries of one array of decoded rows that a report keeps in memory."""


@dataclass(frozen=True)
class Before:
    """The same model trained without its penalties, at the sampled rows."""

    metric: Any
    codes: np.ndarray  # (m, d)
    y: np.ndarray  # (m, p) reconstructions, in the units of the evidence


@dataclass(frozen=True)
class Observed:
    """What a fitted model that only encodes makes of its data; ``rows`` are the sampled rows.

    Codes are in float64, where a geodesic can be certified to 1e-6.
    """

    model: Any
    n: int
    codes: np.ndarray  # (n, d), all of them
    rows: np.ndarray  # (m,) indices into the data
    x: np.ndarray  # (m, p) sampled rows; counts as log(1 + counts at one depth)
    centre: np.ndarray  # (p,) mean of the sampled rows
    spread: np.ndarray  # (p,) their standard deviation
    unit_scale: np.ndarray  # (p,) what features are divided by before errors are added up
    units: str  # how to say so
    feature_names: tuple[str, ...]
    sample_names: tuple[str, ...]  # of the sampled rows
    image_shape: tuple[int, int, int] | None
    labels: Labels | None  # of the sampled rows
    plane: Plane
    random_state: int

    @property
    def learned(self) -> bool:
        """Whether the model's metric is one that it has learned, and not that of its decoder."""
        return is_learned(self.model)

    @property
    def shown_codes(self) -> np.ndarray:
        """Codes of the sampled rows, ``(m, d)``."""
        return self.codes[self.rows]

    @property
    def drawn(self) -> np.ndarray:
        """Rows that stand for the samples when the pointer rests on them, ``(m, p)``: their own."""
        return self.x

    @property
    def carried(self) -> np.ndarray:
        """Share of the variance of each feature that neighbours on the map have in common, ``(p,)``."""
        return common_share(self.x, self.shown_codes)


@dataclass(frozen=True)
class Evidence(Observed):
    """A fitted model's view of its data, both ways: its codes, its reconstructions and its metric."""

    metric: Any
    y: np.ndarray  # (m, p) reconstructions of the sampled rows, in the units of x
    nats: np.ndarray  # (m,) magnification at the sampled rows
    before: Before | None = None

    @property
    def drawn(self) -> np.ndarray:
        """What the decoder makes of each sample, ``(m, p)``."""
        return self.y

    @property
    def carried(self) -> np.ndarray:
        """Spread of each feature in the reconstructions over that in the data, ``(p,)``."""
        safe = np.where(self.spread > 0, self.spread, 1.0)
        return np.where(self.spread > 0, self.y.std(0) / safe, 0.0)

    @property
    def decades(self) -> np.ndarray:
        """Magnification at the sampled rows over that of the typical one, log10, ``(m,)``."""
        return decades(self.nats, typical(self.nats))

    @property
    def errors(self) -> np.ndarray:
        """Root mean squared error of each sampled row in units of ``unit_scale``, ``(m,)``."""
        return np.sqrt((((self.x - self.y) / self.unit_scale) ** 2).mean(1))

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Decoded rows ``(k, p)`` in the units of ``x``."""
        return _in_units(self.model, decode_rows(self.model, z), None)


def only_encodes(model: Any) -> bool:
    """Whether a model is one that has no decoder, as a `ParametricUMAP` unless it was given one."""
    return isinstance(model, ParametricUMAP) and not hasattr(model, "inverse_transform")


def check_model(model: Any, argument: str = "model") -> None:
    """Raise ``TypeError`` unless the model encodes, decodes and measures; unless it is fitted, too."""
    missing = [] if callable(getattr(model, "transform", None)) else ["transform"]
    if not only_encodes(model):
        missing += [] if callable(getattr(model, "inverse_transform", None)) else ["inverse_transform"]
        missing += [] if gives_metric(model) else ["metric"]
    if missing or isinstance(model, type):
        name = getattr(model, "__name__", type(model).__name__)
        lacking = f"without {', '.join(missing)}" if missing else "as a class; make one and fit it"
        raise TypeError(f"{argument}: expected a fitted model such as VAE, got {name} {lacking}")
    check_is_fitted(model)


def decode_rows(model: Any, z: np.ndarray, chunk_size: int = 1000) -> np.ndarray:
    """The model's ``inverse_transform`` as flat rows ``(k, p)``."""
    parts = [z[i : i + chunk_size] for i in range(0, len(z), chunk_size)]
    return np.concatenate(
        [np.asarray(model.inverse_transform(part)).reshape(len(part), -1) for part in parts]
    )


def _dense(table: Table, rows: np.ndarray) -> np.ndarray:
    return table.rows(rows).numpy()


def _in_units(model: Any, values: np.ndarray, depths: np.ndarray | None) -> np.ndarray:
    """Counts as log(1 + counts at one depth); all else as it is."""
    library = getattr(model, "library_", None)
    if library is None:
        return values
    depth = float(library)
    if depths is not None:
        values = values * (depth / np.maximum(depths, 1e-12))[:, None]
    return np.log1p(values)


def _unit_scale(model: Any, x: np.ndarray, *, is_image: bool) -> tuple[np.ndarray, str]:
    """What features are divided by before errors are added up, and how to say so."""
    scaling = getattr(model, "scaling_", None)
    if getattr(model, "library_", None) is None and scaling is not None:
        return scaling.scale.numpy().astype(x.dtype), "in the units the model was trained in"
    if is_image:
        return np.ones(x.shape[1], dtype=x.dtype), "in data units"
    spread = x.std(0)
    what = "log counts" if getattr(model, "library_", None) is not None else "features"
    return np.where(spread > 0, spread, 1.0).astype(x.dtype), f"of {what} scaled to unit variance"


def observe(
    model: Any,
    X: Any,
    *,
    labels: Any = None,
    label_name: str | None = None,
    feature_names: Any = None,
    max_points: int = 2000,
    random_state: int = 0,
) -> Observed:
    """Encode everything and sample at most ``max_points`` rows.

    Raises:
        TypeError: the model cannot encode.
        sklearn.exceptions.NotFittedError: it is not fitted.
        ValueError: X has another width than the model, holds NaN, or the labels are of another length.
    """
    check_model(model)
    check_whole("max_points", max_points, minimum=10)
    table = read_input(features_of(model, X))
    n, p = table.shape
    width = int(getattr(model, "n_features_in_", p))
    if p != width:
        raise ValueError(f"X: expected {width} features as in fit, got {p}")
    if n < 3:
        raise ValueError(f"X: expected at least 3 rows to report on, got {n}")
    read = None if labels is None else read_labels(check_labels(labels, n), label_name or _name_of(labels))
    names = _feature_names(model, table, feature_names, p)
    codes = _codes(model, X, "model")
    rows = _sample_rows(n, min(max_points, max(10, MAX_CELLS // p)), random_state)
    x = _dense(table, rows)
    x = _in_units(model, x, x.sum(1))
    shape = table.image_shape or getattr(model, "image_shape_", None)
    unit_scale, units = _unit_scale(model, x, is_image=shape is not None)
    samples = [f"row {row}" for row in rows] if table.sample_names is None else table.sample_names[rows]
    return Observed(
        model=model,
        n=n,
        codes=codes,
        rows=rows,
        x=x,
        centre=x.mean(0),
        spread=x.std(0),
        unit_scale=unit_scale,
        units=units,
        feature_names=names,
        sample_names=tuple(str(name) for name in samples),
        image_shape=None if shape is None else (int(shape[0]), int(shape[1]), int(shape[2])),
        labels=None if read is None else read.take(rows),
        plane=plane_of(codes, _free_pair(model)),
        random_state=random_state,
    )


def gather(model: Any, X: Any, *, before: Any = None, **options: Any) -> Evidence:
    """`observe`, and decode the sampled rows.

    Raises:
        TypeError: the model cannot encode and decode.
    """
    seen = observe(model, X, **options)
    codes = seen.shown_codes
    other = None
    if before is not None:
        width = int(getattr(model, "n_features_in_", seen.x.shape[1]))
        other = _codes_before(before, X, width, codes.shape[1])
    metric = light_metric(metric_of(model, dtype=torch.float64))
    return Evidence(
        **{part.name: getattr(seen, part.name) for part in fields(seen)},
        metric=metric,
        y=_in_units(model, decode_rows(model, codes), None),
        nats=magnification_at(metric, codes),
        before=None if other is None else _before(before, other[seen.rows]),
    )


def common_share(
    x: Float[np.ndarray, "m p"], z: Float[np.ndarray, "m d"], neighbours: int = 10
) -> Float[np.ndarray, " p"]:
    """1 - Σ (x - mean over the nearest on the map)² / Σ (x - mean)² of each feature, not below 0.

    The share of a feature's variance that the map sorts the rows by.
    """
    used = min(neighbours, len(z) - 1)
    near = NearestNeighbors(n_neighbors=used).fit(z).kneighbors(return_distance=False)
    total = ((x - x.mean(0)) ** 2).sum(0)
    # one neighbour at a time: (m, neighbours, p) would be large
    smooth = sum((x[near[:, k]] for k in range(used)), np.zeros_like(x)) / used
    lost = ((x - smooth) ** 2).sum(0)
    return np.where(total > 0, np.maximum(1 - lost / np.where(total > 0, total, 1.0), 0), 0.0)


def _free_pair(model: Any) -> tuple[int, int] | None:
    """The two coordinates of a map that no quantity has, where there are two: they are the map."""
    partition = getattr(model, "partition_", None)
    if partition is None or not only_encodes(model) or partition.loss.n_free != 2:
        return None
    return partition.loss.latent_dim - 2, partition.loss.latent_dim - 1


def _codes(model: Any, X: Any, argument: str) -> np.ndarray:
    codes = np.asarray(model.transform(X), dtype=np.float64)
    if not np.isfinite(codes).all():
        bad = int(np.flatnonzero(~np.isfinite(codes).all(1))[0])
        raise ValueError(
            f"{argument}: expected finite codes, got NaN or infinity for row {bad}; fit again with a lower lr"
        )
    return codes


def _codes_before(model: Any, X: Any, p: int, d: int) -> np.ndarray:
    check_model(model, "before")
    width = int(getattr(model, "n_features_in_", p))
    if width != p:
        raise ValueError(f"before: expected a model of the same {p} features, got one of {width}")
    codes = _codes(model, X, "before")
    if codes.shape[1] != d:
        raise ValueError(f"before: expected {d} latent dimensions as in model, got {codes.shape[1]}")
    return codes


def _before(model: Any, codes: np.ndarray) -> Before:
    metric = light_metric(metric_of(model, dtype=torch.float64))
    return Before(metric, codes, _in_units(model, decode_rows(model, codes), None))


def _sample_rows(n: int, count: int, random_state: int) -> np.ndarray:
    if n <= count:
        return np.arange(n)
    return np.sort(np.random.default_rng(random_state).choice(n, count, replace=False))


def _name_of(labels: Any) -> str:
    name = getattr(labels, "name", None)
    return name if isinstance(name, str) else "label"


def _feature_names(model: Any, table: Table, given: Any, p: int) -> tuple[str, ...]:
    for names in (given, table.feature_names, getattr(model, "feature_names_in_", None)):
        if names is not None:
            if len(names) != p:
                raise ValueError(f"feature_names: expected {p} names, got {len(names)}")
            return tuple(str(name) for name in names)
    return tuple(f"x{i + 1}" for i in range(p))
