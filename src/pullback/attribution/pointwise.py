"""Why a point lands where it does: contributions of its features to its latent coordinates."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.attribution.assemble import assemble, power_of
from pullback.attribution.local import local_derivative, local_parts
from pullback.attribution.network import quiet
from pullback.attribution.paths import path_parts
from pullback.attribution.question import KinkMargin, Question, choose_method, read_question, read_rows
from pullback.attribution.result import AffineMap, Attribution, Method, Reduction, Source
from pullback.jets.affine import IGNORES_MAGNITUDE, choose_map
from pullback.jets.verification import PROBES, derivative_error
from pullback.validation import check_choice, check_shape

AT_ZERO = 1e-6


def contributions(
    net: nn.Module,
    x: Float[Tensor, "n p"],
    *,
    baseline: Tensor | None = None,
    map: AffineMap | None = None,
    method: Method = "auto",
    reduction: Reduction | None = None,
    preprocessing: Any = None,
    feature_groups: Any = None,
    tol: float = 1e-6,
    max_pieces: int = 10_000,
    kink_margin: KinkMargin = "relative",
    strict: bool = False,
    out: Tensor | None = None,
    chunk_size: int | None = None,
) -> Attribution:
    """Contribution of each input feature to each output: Σ_j C_ij + offset_i = f_i(x).

    "local": C_ij = A_ij (x_j - x0_j), with f(x) = A x + b around x; the offset is A x0 + b. "path":
    C_ij = (x_j - x0_j) ∫_0^1 ∂f_i/∂x_j (x0 + t (x - x0)) dt, the offset is f(x0) (integrated gradients:
    Sundararajan, Taly and Yan 2017); it is exact through all pieces of a net that is linear piece by piece,
    and a quadrature with bounded error elsewhere.

    Args:
        net: a module (n, k) -> (n, d), in eval mode.
        x: rows of raw features, (n, p).
        baseline: x0, (p,), whose features contribute 0; None: zeros of what the net sees, that is 0, or the
            mean of the preprocessing.
        map: for "local" in nets with a layer norm: "derivative" (predicts moves; the offset takes what the
            sum lacks) or "local_linear" (exact sum). A path always takes the derivative.
        method: "auto" is "local" where the net is linear piece by piece (norms aside), else "path".
        reduction: None, (n, d, p); "l2", √Σ_i C_ij², (n, p); "mean_l2", its mean over rows, (p,).
        preprocessing: what stands before the net: a fitted StandardScaler, PCA, a Pipeline of them, or
            (mean, matrix). Contributions are then those of the raw features.
        feature_groups: {name: columns}, or a label for each feature: contributions are added within groups,
            before any norm.
        tol: of a quadrature, bound on |Σ_j C_ij - change of f_i| / Σ_j |C_ij|.
        max_pieces: of a path; one with more becomes a quadrature. Also the most intervals of a quadrature.
        kink_margin: as in `local_affine`; None leaves it out.
        strict: raise, instead of warn, if the result fails its check.
        out: tensor to write the values to.
        chunk_size: rows at a time; None bounds the memory in use.
    Returns:
        `Attribution`, without gradients.
    Raises:
        ValueError: options that do not fit the net (the message says which do), rows that are not finite, a
            path from a point where the net is not continuous, or a failed check and ``strict``.
        TypeError: no module, no tensor, or another precision than the net's.
    Warns:
        AttributionWarning: the check failed.
        HomogeneityWarning: f(c x) = f(x).
    Gotchas: paths in float32 are integrated by a float64 copy of the net; what is left is the rounding of
        the net's own forward pass, so that the check allows 1e-5 there, whatever ``tol``.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).double()
        >>> x = torch.ones(1, 3, dtype=torch.float64)
        >>> found = contributions(net, x)
        >>> torch.allclose(found.values.sum(-1) + found.offset, net(x))
        True
        >>> found.exact, found.method
        (True, 'local')
    """
    x = read_rows("x", x)
    question = read_question(
        net,
        x,
        reduction=reduction,
        preprocessing=preprocessing,
        feature_groups=feature_groups,
        tol=tol,
        max_pieces=max_pieces,
        kink_margin=kink_margin,
        strict=strict,
        out=out,
        chunk_size=chunk_size,
    )
    return attribute_points(question, x, baseline=baseline, map=map, method=method)


def attribute_points(
    question: Question,
    x: Float[Tensor, "n p"],
    *,
    baseline: Tensor | None,
    map: AffineMap | None,
    method: Method,
    source: Source | None = None,
) -> Attribution:
    """`contributions` of a checked question."""
    check_choice("map", map, (None, "derivative", "local_linear"))
    if question.reduction == "distance":
        raise ValueError(
            f"reduction: 'distance' is of pairs of points, got single points {tuple(x.shape)}; call "
            "contributions_between(net, a, b, reduction='distance')"
        )
    network = question.network
    chosen = choose_method(network, method)
    x0 = read_baseline(baseline, question, x)
    probe = None
    with quiet(x):
        power = power_of(question, x)
        if chosen == "local":
            map = choose_map(network.steps, map)
            parts = local_parts(question, x, x0, map)
            if map == "derivative" and len(x):
                first = x[:PROBES]
                probe = derivative_error(
                    network, first, local_derivative(network, first, question.outputs, map)
                )
        else:
            map = "derivative"
            refuse_jump(question, x, x0, power)
            parts = path_parts(question, x, x0.expand_as(x), pairs=False)
        return assemble(
            question, x, parts,
            map=map, method=chosen, baseline=x0, power=power, derivative_error=probe, source=source,
        )  # fmt: skip


def read_baseline(baseline: Any, question: Question, x: Tensor) -> Float[Tensor, " p"]:
    """x0 in the precision of ``x``: zeros of what the net sees where none is given."""
    if baseline is None:
        front = question.network.preprocessing
        return x.new_zeros(x.shape[1]) if front is None else front.mean
    x0 = torch.as_tensor(baseline).detach().to(x)
    check_shape("baseline", x0, (x.shape[1],), "one point of raw features")
    if not bool(torch.isfinite(x0).all()):
        raise ValueError("baseline: expected finite numbers, got NaN or infinity")
    return x0


def refuse_jump(question: Question, x: Tensor, x0: Tensor, power: int | None) -> None:
    """Raise ``ValueError`` for a path from the point at which a net of homogeneity 0 is not continuous."""
    if power != 0 or not len(x):
        return
    seen = question.network.enter(torch.cat([x0.unsqueeze(0), x[:PROBES]])).norm(dim=1)
    if seen[0] <= AT_ZERO * seen[1:].amax():
        raise ValueError(
            f"method: expected a net that is continuous at the baseline for method='path', got one that "
            f"{IGNORES_MAGNITUDE}; or pass another baseline, or method='local' with a map"
        )
