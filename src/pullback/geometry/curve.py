"""Length and energy of given curves."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.geometry.route import Speeds, route_of
from pullback.metrics import BaseMetric, as_metric
from pullback.validation import check_finite


def check_curves(name: str, points: Any, dim: int | None) -> Float[Tensor, "m N d"]:
    """``points`` as a batch of curves (m, N, d); one curve (N, d) becomes a batch of one."""
    if not isinstance(points, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor (m, N, d), got {type(points).__name__}")
    curves = points.unsqueeze(0) if points.ndim == 2 else points
    if curves.ndim != 3 or not points.is_floating_point():
        kind = str(points.dtype).removeprefix("torch.")
        raise ValueError(f"{name}: expected (m, N, d) floating point, got shape {tuple(points.shape)} {kind}")
    if curves.shape[1] < 2:
        raise ValueError(f"{name}: expected at least two nodes a curve, got {curves.shape[1]}")
    if dim is not None and curves.shape[2] != dim:
        raise ValueError(f"{name}: expected curves in {dim} dimensions, got shape {tuple(points.shape)}")
    check_finite(name, curves)
    return curves


def _speeds(metric: Any, points: Any) -> Speeds:
    known: BaseMetric = as_metric(metric)
    curves = check_curves("points", points, known.dim)
    return route_of(known, trainable=torch.is_grad_enabled()).speeds(curves)


def curve_length(metric: Any, points: Float[Tensor, "*m N d"]) -> Float[Tensor, " m"]:
    """Length L = ∫ |ż|_g dt of curves through equally spaced nodes.

    A not-a-knot cubic spline joins the nodes (straight lines for fewer than four), and its speed, from one
    Jacobian-vector product a point, is integrated with five Lobatto points an interval. A sum of chords in
    data space would be too short by about κ²L²/(24 n²).

    Args:
        metric: any object with ``tensor``.
        points: (m, N, d), or one curve (N, d); N >= 2.
    Returns: (m,), differentiable with respect to the points and the metric's parameters; not finite for a
        curve that leaves the domain of the metric.
    Raises:
        ValueError: fewer than two nodes, another dimension than the metric's, or non-finite nodes.
    Example:
        >>> import torch
        >>> from pullback.metrics import EuclideanMetric
        >>> t = torch.linspace(0, 1, 65, dtype=torch.float64) * torch.pi
        >>> arc = torch.stack([torch.cos(t), torch.sin(t)], dim=-1)
        >>> round(curve_length(EuclideanMetric(2), arc).item(), 6)
        3.141593
    """
    return _speeds(metric, points).length()


def curve_energy(metric: Any, points: Float[Tensor, "*m N d"]) -> Float[Tensor, " m"]:
    """Energy E = ∫ g(ż, ż) dt of curves (no factor ½): L² <= E, with equality at constant speed.

    Args:
        metric, points: as for `curve_length`.
    Returns: (m,).
    Example:
        >>> import torch
        >>> from pullback.metrics import EuclideanMetric
        >>> curve_energy(EuclideanMetric(1), torch.linspace(0, 3, 5)[:, None])
        tensor([9.])
    """
    return _speeds(metric, points).energy()
