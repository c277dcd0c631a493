"""What a report says of a model that has learned its own metric: its flow, its reach, its sampler."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from pullback.estimators.latent_metrics import metric_of
from pullback.plots.field import latent_tensor

SAMPLES = 300


@dataclass(frozen=True)
class FlowMeasures:
    """The numbers of a flow on a learned metric, and of the sampler of its volume."""

    step_size: float
    halvings: int  # of the step size, while training
    residual: float  # last increment of the fixed points, the largest over training rows
    reach: float  # median over codes of the weight of the nearest centroid
    contrast: float  # median over codes of tr g⁻¹ over its value far from all centroids
    sampler_acceptance: float  # mean over chains
    sampler_r_hat: float | None  # largest over coordinates
    sampler_converged: bool
    sampler_message: str


def is_learned(model: Any) -> bool:
    """Whether the model's own metric is one that it has learned."""
    return "learned" in getattr(model, "METRICS", ())[:1]


def decoder_metric(model: Any) -> Any:
    """The metric that the decoder pulls back, in double precision, whatever the model's own is."""
    if is_learned(model):
        return metric_of(model, "pullback", dtype=torch.float64)
    return metric_of(model, dtype=torch.float64)


def quiet_samples(model: Any, count: int, method: str, random_state: int) -> Any:
    """Samples whose chains may not have converged: what they say of themselves is shown, not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.sample(count, method=method, random_state=random_state)


def flow_measures(model: Any, metric: Any, codes: np.ndarray, samples: Any) -> FlowMeasures:
    """The numbers, of a model whose ``metric`` is learned and whose volume was sampled."""
    z = latent_tensor(metric, codes)
    traces = metric.inverse(z).diagonal(dim1=-2, dim2=-1).sum(-1)
    found, r_hat = samples.diagnostics, samples.diagnostics["r_hat"]
    return FlowMeasures(
        step_size=float(model.step_size_),
        halvings=int(model.module_.halvings),
        residual=float(model.residual_),
        reach=float(metric.coverage(z).median()),
        contrast=float(traces.median()) / (z.shape[1] * float(metric.regularization)),
        sampler_acceptance=float(found["acceptance"].mean()),
        sampler_r_hat=None if r_hat is None else float(r_hat.max()),
        sampler_converged=bool(found["converged"]),
        sampler_message=str(found["message"]),
    )
