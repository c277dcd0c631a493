"""Jacobians of encoders as arrays, and what is made of them: the names of glass-box-umap, in its order."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.attribution.network import quiet, rows_at_once, take_apart
from pullback.jets import JacobianVerification
from pullback.jets.affine import AffineMap, affine_rows, choose_map, report_check
from pullback.jets.checks import check_dtype
from pullback.jets.jet import jet
from pullback.jets.verification import PROBES, Residuals, derivative_error
from pullback.validation import check_choice, check_finite, check_whole

Array = np.ndarray | Tensor


def compute_jacobian(
    model: nn.Module, x: Tensor, batch_size: int = 1024, *, map: AffineMap = "derivative"
) -> Float[Tensor, "n d *dims"]:
    """Jacobian of a model at each point.

    Args:
        model: (n, *dims) -> (n, d). It is evaluated in eval mode; its own mode is as before afterwards.
        x: (n, *dims).
        batch_size: points at a time.
        map: "derivative", or "local_linear" with the scale of layer norms held constant.
    Returns:
        (n, d, *dims), without gradients.
    Raises:
        ValueError: "local_linear" of a net that is not linear piece by piece.
        TypeError: another precision than that of the model.
    Warns:
        AttributionWarning: a part of the model that is not known by its rule detaches something, so that
            the result is not the derivative.
    Example:
        >>> import torch
        >>> compute_jacobian(torch.nn.Linear(3, 2), torch.zeros(5, 3)).shape
        torch.Size([5, 2, 3])
    """
    check_choice("map", map, ("derivative", "local_linear"))
    check_whole("batch_size", batch_size)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    if not isinstance(x, Tensor) or x.ndim < 2 or not x.is_floating_point():
        raise ValueError(
            f"x: expected (n, *dims) floating point, got {getattr(x, 'shape', type(x).__name__)}"
        )
    check_finite("x", x)
    check_dtype(model, x)
    dims = tuple(x.shape[1:])
    net = model if len(dims) == 1 else nn.Sequential(nn.Unflatten(1, dims), model)
    flat = x.detach().reshape(len(x), math.prod(dims))
    with _evaluating(net), quiet(flat):
        network = take_apart(net, None)
        choose_map(network.steps, map)
        d = network(flat[:1] if len(flat) else flat.new_zeros(1, flat.shape[1])).shape[1]
        result = flat.new_empty(len(flat), d, flat.shape[1])
        forward = flat.shape[1] < d and map == "derivative"
        size = min(batch_size, rows_at_once(d * flat.shape[1], flat.element_size()))
        for low in range(0, len(flat), size):
            part = flat[low : low + size]
            if forward:
                result[low : low + size] = jet(net, part, 1, lowest=1).jacobian  # type: ignore[union-attr]
            else:
                rows, *_ = affine_rows(network.layers, part, d, map)
                result[low : low + size] = rows.transpose(0, 1)
        if map == "derivative" and any(step.rule is None for step in network.steps):
            _check_derivative(net, flat, result)
    return result.reshape(len(x), d, *dims)


def _check_derivative(net: nn.Module, x: Tensor, jacobian: Tensor) -> None:
    """Warn if the part of the model without a rule gave something else than the derivative."""
    error = derivative_error(net, x[:PROBES], jacobian[:PROBES])
    report_check(
        Residuals().result(x.dtype, error), take_apart(net, None).steps, None, x.dtype, False, stacklevel=4
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def project_jacobian(jacobian: Array, proj_tensor: Array) -> Array:
    """Σ_k J_ik P_kj: a Jacobian by projected features as one by the raw features.

    Args:
        jacobian: J, (n, d, k).
        proj_tensor: P, (k, p), such as ``pca.components_``.
    Returns:
        (n, d, p).
    Raises:
        ValueError: widths that do not fit.
    Example:
        >>> project_jacobian(torch.ones(4, 2, 3), torch.ones(3, 5)).shape
        torch.Size([4, 2, 5])
    """
    _check_kind("jacobian", jacobian, 3, "(n, d, k)")
    _check_kind("proj_tensor", proj_tensor, 2, "(k, p)")
    if jacobian.shape[2] != proj_tensor.shape[0]:
        raise ValueError(
            f"proj_tensor: expected ({jacobian.shape[2]}, p) from the Jacobian's width, got "
            f"{tuple(proj_tensor.shape)}"
        )
    return jacobian @ proj_tensor  # type: ignore[operator]


def reduce_contributions(contributions: Array, method: Literal["l2"] = "l2") -> Array:
    """√Σ_i C_ij²: (n, d, p) to (n, p), numpy or torch alike.

    Raises:
        ValueError: another method.
    Example:
        >>> reduce_contributions(np.array([[[3.0], [4.0]]])).tolist()
        [[5.0]]
    """
    check_choice("method", method, ("l2",))
    _check_kind("contributions", contributions, 3, "(n, d, p)")
    total = contributions[:, 0] * contributions[:, 0]
    for i in range(1, contributions.shape[1]):
        total = total + contributions[:, i] * contributions[:, i]
    return total.sqrt() if isinstance(total, Tensor) else np.sqrt(total)


def verify_jacobian(
    Z: Array, J: Array, X: Array, offset: Array | None = None, *, tolerance: float | None = None
) -> JacobianVerification:
    """Does J x + offset give back Z?

    Args:
        Z: outputs, (n, d).
        J: (n, d, p).
        X: inputs, (n, p).
        offset: (n, d) or (d,); None: 0, as for a homogeneous net without biases.
        tolerance: of the pointwise error; None: 1e-12 in float64, 1e-5 in float32.
    Returns:
        `JacobianVerification`.
    Raises:
        ValueError: shapes that do not fit.
    Example:
        >>> verify_jacobian(np.ones((1, 1)), np.ones((1, 1, 2)), np.full((1, 2), 0.5)).passed
        True
    """
    _check_kind("Z", Z, 2, "(n, d)")
    _check_kind("J", J, 3, "(n, d, p)")
    _check_kind("X", X, 2, "(n, p)")
    z, j, x = (torch.as_tensor(array).detach().cpu() for array in (Z, J, X))
    expected = (*z.shape, x.shape[1])
    if tuple(j.shape) != expected or len(x) != len(z):
        raise ValueError(f"J: expected {expected} from Z and X, got {tuple(j.shape)}, X {tuple(x.shape)}")
    b = torch.zeros_like(z) if offset is None else torch.as_tensor(offset).detach().cpu().to(z)
    if b.shape not in (z.shape, z.shape[1:]):
        raise ValueError(f"offset: expected {tuple(z.shape)}, got {tuple(b.shape)}")
    residuals = Residuals()
    residuals.add(z, j, b.expand_as(z), x)
    return residuals.result(z.dtype, None, tolerance)


def _check_kind(name: str, array: Any, ndim: int, shape: str) -> None:
    if not isinstance(array, np.ndarray | Tensor):
        raise TypeError(f"{name}: expected an array or a tensor, got {type(array).__name__}")
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {shape}, got shape {tuple(array.shape)}")
