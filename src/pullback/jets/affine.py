"""The affine map that a network is around each point: f(x) = A(x) x + b(x).

In a network of linear layers and piecewise-linear activations A and b are constant on each linear region and
A is the derivative. A layer norm splits the two: the derivative predicts small moves, the map with the norm's
scale held constant ("local_linear") adds up exactly; neither is both.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.jets.checks import check_dtype, check_mode, check_output
from pullback.jets.margin import exact_margin, relative_margin
from pullback.jets.modules import Residual, Stack
from pullback.jets.rules import MAX_POOLS, Affine, Piecewise
from pullback.jets.sweep import NORMS, AffineMap, Kinks, Offset, Sweep
from pullback.jets.taylor import Layer, layers_of, survey
from pullback.jets.verification import (
    AttributionWarning,
    HomogeneityWarning,
    JacobianVerification,
    Residuals,
    derivative_error,
    derivative_tolerance,
    homogeneity,
)
from pullback.validation import check_choice, check_points, check_whole

KinkMargin = Literal["relative", "exact"]
CHUNK_BYTES = 32 * 2**20
IGNORES_MAGNITUDE = (
    "ignores the magnitude of x - baseline (f(cx) = f(x)); remove LayerNorm, or add a norm-preserving input"
)


@dataclass(frozen=True, eq=False)
class LocalAffine:
    """f(x) = linear x + offset at each point.

    Attributes:
        linear: A, (n, d, p).
        offset: b, (n, d).
        value: f(x) from the network's own forward pass, (n, d).
        map: which map A is: "derivative" or "local_linear".
        piecewise_linear: whether the network is linear piece by piece (layer norms aside).
        homogeneity: k of f(c x) = c^k f(x), 0 or 1, or None.
        kink_margin: (n,). "relative": smallest distance of a hidden unit to its kink over the root mean
            square of its layer. "exact": radius of the ball around x in which A is constant (in nets without
            layer norm). Infinite without kinks.
        verification: check against the network's own forward pass.
    """

    linear: Float[Tensor, "n d p"]
    offset: Float[Tensor, "n d"]
    value: Float[Tensor, "n d"]
    map: AffineMap
    piecewise_linear: bool
    homogeneity: int | None
    kink_margin: Float[Tensor, " n"]
    verification: JacobianVerification


def local_affine(
    net: nn.Module,
    x: Float[Tensor, "n p"],
    *,
    map: AffineMap | None = None,
    kink_margin: KinkMargin = "relative",
    strict: bool = False,
    chunk_size: int | None = None,
) -> LocalAffine:
    """Matrix and offset of a network at each point, by one forward and one reverse sweep.

    Args:
        net: a module (n, p) -> (n, d).
        x: points, (n, p).
        map: "derivative" or "local_linear"; None where the two coincide (no layer norm).
        kink_margin: "relative" costs nothing; "exact" needs the Jacobian of every hidden unit.
        strict: raise, instead of warn, if the result fails its check.
        chunk_size: points at a time; None bounds the memory in use.
    Returns:
        `LocalAffine`, differentiable unless grad mode is off.
    Raises:
        ValueError: no map was named for a net with a layer norm; "local_linear" of a net that is not
            piecewise linear; dropout or batch norm in train mode; the check failed and ``strict``.
        TypeError: ``net`` is not a module, or its dtype differs from ``x``.
    Warns:
        AttributionWarning: the check failed.
        HomogeneityWarning: f(c x) = f(x), so that J x = 0.
    Gotchas: at a kink the piece is one-sided: ReLU takes slope 0 at 0, PReLU slope 1.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).double()
        >>> x = torch.ones(1, 3, dtype=torch.float64)
        >>> at = local_affine(net, x)
        >>> torch.allclose(at.linear @ x[0] + at.offset, net(x))
        True
    """
    layers, steps, x = _checked(net, x, kink_margin, chunk_size)
    chosen = choose_map(steps, map)
    exact_sum = chosen == "local_linear" or not splits(steps)
    residuals = Residuals()
    with torch.autocast(x.device.type, enabled=False):
        parts = []
        for part in x.split(chunk_size or _chunk(net, x)) if x.shape[0] else (x,):
            value = net(part)
            check_output(value, part)
            linear, offset, margin = _sweep(layers, part, value, chosen, kink_margin)
            if not exact_sum:
                offset = value - torch.bmm(linear, part.unsqueeze(-1)).squeeze(-1)
            residuals.add(value.detach(), linear.detach(), offset.detach(), part.detach())
            parts.append((linear, offset, value, margin))
        linear, offset, value, margin = (torch.cat(column) for column in zip(*parts, strict=True))
        probe = derivative_error(net, x.detach(), linear.detach()) if chosen == "derivative" else None
        power = homogeneity(net, x.detach())
    verification = residuals.result(x.dtype, probe)
    report_check(verification, steps, power, x.dtype, strict)
    flat = all(is_flat(step) for step in steps)
    return LocalAffine(linear, offset, value, chosen, flat, power, margin, verification)


def _checked(
    net: nn.Module, x: Tensor, kink_margin: str, chunk_size: int | None
) -> tuple[list[Layer], list[Layer], Tensor]:
    if not isinstance(net, nn.Module):
        raise TypeError(f"net: expected an nn.Module, got {type(net).__name__}")
    x = check_points("x", x, finite=False)
    check_mode(net, "net.eval()")
    check_dtype(net, x)
    check_choice("kink_margin", kink_margin, ("relative", "exact"))
    if chunk_size is not None:
        check_whole("chunk_size", chunk_size)
    layers = layers_of(net)
    return layers, list(survey(layers)), x


def is_flat(step: Layer) -> bool:
    """Whether a step is linear piece by piece, or a norm."""
    kind = type(step.module)
    return (
        isinstance(step.rule, Affine | Piecewise)
        or kind in MAX_POOLS
        or kind in NORMS
        or kind in (Residual, Stack)
    )


def splits(steps: list[Layer]) -> bool:
    """Whether derivative and local linear map differ, or no local linear map exists."""
    return any(type(step.module) in NORMS or not is_flat(step) for step in steps)


def choose_map(steps: list[Layer], map: AffineMap | None) -> AffineMap:
    """The map that is meant, where the net leaves a choice or none."""
    check_choice("map", map, (None, "derivative", "local_linear"))
    curved = next((step for step in steps if not is_flat(step)), None)
    if map == "local_linear" and curved is not None:
        raise ValueError(
            f"map: {type(curved.module).__name__} at layer {curved.path or '(itself)'} is not piecewise "
            'linear; use method="path" (or map="derivative" for the Jacobian alone)'
        )
    norm = next((step for step in steps if type(step.module) in NORMS), None)
    if map is None and norm is not None:
        raise ValueError(
            f"map: net contains {type(norm.module).__name__} at layer {norm.path or '(itself)'}: pass "
            'map="derivative" (predicts moves) or map="local_linear" (exact sum)'
        )
    return map or "derivative"


def _sweep(
    layers: list[Layer], x: Tensor, value: Tensor, chosen: AffineMap, kink_margin: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Matrix, offset and kink margin of a chunk."""
    n, d = value.shape
    rows, shift, kinks, _ = affine_rows(layers, x, d, chosen)
    return rows.transpose(0, 1), shift.expand(d, n).T, margin_of(kinks, x, kink_margin)


def affine_rows(
    layers: list[Layer], x: Tensor, d: int, chosen: AffineMap, *, own: bool = False
) -> tuple[Float[Tensor, "d n p"], Float[Tensor, "d _"], list[Kinks], Float[Tensor, "n d"]]:
    """Rows of A and the offset b of each output, the kinks of the activations, and the value.

    Args:
        own: whether the value comes from the layers' own forward pass.
    """
    sweep, offset = Sweep(chosen, own=own), Offset()
    value = sweep.record(layers, x)
    rows = torch.eye(d, dtype=x.dtype, device=x.device).unsqueeze(1)
    rows = sweep.pull(rows, offset).expand(-1, x.shape[0], -1)
    shift = x.new_zeros(d, 1) if offset.total is None else offset.total
    return rows, shift, sweep.kinks, value


def margin_of(kinks: list[Kinks], x: Tensor, kind: str) -> Tensor:
    """The "relative" or "exact" distance of each point to the nearest kink, (n,)."""
    return exact_margin(kinks, x) if kind == "exact" else relative_margin(kinks, x)


def _chunk(net: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        d = net(x[:1]).numel() if x.shape[0] else 1
    rows = CHUNK_BYTES // max(1, x.element_size() * d * x.shape[1])
    return min(max(rows, 16), 4096)


def report_check(
    verification: JacobianVerification,
    steps: list[Layer],
    power: int | None,
    dtype: torch.dtype,
    strict: bool,
    *,
    what: str = "A x + b",
    stacklevel: int = 3,
) -> None:
    """Warn, or raise if ``strict``, where the check failed; warn where the net ignores magnitudes."""
    kinds = ", ".join(dict.fromkeys(type(step.module).__name__ for step in steps))
    problem = ""
    if not verification.passed:
        problem = (
            f"{what} differs from the network by {verification.pointwise_error:.1e}, tolerance "
            f"{verification.tolerance:.0e}; layers: {kinds}"
        )
    elif (verification.derivative_error or 0.0) > derivative_tolerance(dtype):
        problem = (
            f"the result is not the derivative: central differences differ by "
            f"{verification.derivative_error:.1e}; a layer may detach part of its input; layers: {kinds}"
        )
    if problem and strict:
        raise ValueError(problem)
    if problem:
        warnings.warn(problem, AttributionWarning, stacklevel=stacklevel)
    if power == 0:
        warnings.warn(f"encoder {IGNORES_MAGNITUDE}", HomogeneityWarning, stacklevel=stacklevel)
