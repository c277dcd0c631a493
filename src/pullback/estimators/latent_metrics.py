"""The metric of a fitted model's latent space, whatever the model calls the method that gives it."""

from typing import Any

from pullback.typing import Metric


def gives_metric(model: Any) -> bool:
    """Whether a model has a metric of its latent space."""
    return callable(_method(model))


def metric_of(model: Any, kind: str | None = None, **options: Any) -> Metric:
    """``model.metric(...)``, or ``model.latent_metric(...)`` where ``metric`` is an option of the model.

    Args:
        model: a fitted estimator.
        kind: as there; None is the model's own.
        **options: ``dtype`` and ``device``.
    """
    return _method(model)(*(() if kind is None else (kind,)), **options)


def _method(model: Any) -> Any:
    return getattr(model, "latent_metric", None) or getattr(model, "metric", None)
