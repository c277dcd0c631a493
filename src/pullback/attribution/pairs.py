"""Why two points lie apart: contributions of features to f(a) - f(b), and to the distance."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.attribution.assemble import assemble, power_of
from pullback.attribution.collecting import Part
from pullback.attribution.local import local_parts
from pullback.attribution.network import quiet
from pullback.attribution.paths import path_parts
from pullback.attribution.pointwise import read_baseline
from pullback.attribution.question import KinkMargin, Question, choose_method, read_question, read_rows
from pullback.attribution.result import AffineMap, Attribution, Method, Reduction
from pullback.jets.affine import choose_map
from pullback.validation import check_choice, check_pair


def contributions_between(
    net: nn.Module,
    a: Float[Tensor, "*n p"],
    b: Float[Tensor, "*m p"],
    *,
    baseline: Tensor | None = None,
    map: AffineMap | None = None,
    method: Method = "auto",
    reduction: Reduction | None = None,
    preprocessing: Any = None,
    feature_groups: Any = None,
    tol: float = 1e-6,
    max_pieces: int = 10_000,
    kink_margin: KinkMargin = None,
    strict: bool = False,
    out: Tensor | None = None,
    chunk_size: int | None = None,
) -> Attribution:
    """Contribution of each input feature to f(a) - f(b), row by row.

    "path": C_ij = (a_j - b_j) ∫_0^1 ∂f_i/∂x_j (b + t (a - b)) dt: sums to f(a) - f(b), needs no baseline, and
    a feature that is the same in both contributes 0. "local": A(a) (a - x0) - A(b) (b - x0), with the
    difference of the offsets; it depends on the baseline x0. The two differ by much.

    With ``reduction="distance"``: c_j = Σ_i u_i C_ij, u = (f(a) - f(b)) / |f(a) - f(b)|, which sums to
    |f(a) - f(b)| (plus u · offset for "local") and does not change under rotations of the latent space.

    Args:
        a, b: rows of raw features, (n, p) each, or (p,) for the same point in every row.
        baseline, map: for "local" alone.
        method: "auto" is "path".
        reduction: also "distance", (n, p). Pairs whose images coincide are flagged ``degenerate``, with 0.
        kink_margin: of ``a``, for "local" alone.
        preprocessing, feature_groups, tol, max_pieces, strict, out, chunk_size: as in `contributions`.
    Returns:
        `Attribution` of f(a) - f(b).
    Raises:
        ValueError: a and b of different shape, and as `contributions`.
    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).double()
        >>> a, b = torch.ones(1, 3).double(), torch.tensor([[-1.0, 0.5, 1.0]]).double()
        >>> found = contributions_between(net, a, b, reduction="distance")
        >>> torch.allclose(found.values.sum(-1), (net(a) - net(b)).norm(dim=1))
        True
        >>> found.values[0, 2].item() == 0
        True
    """
    a = a.unsqueeze(0) if isinstance(a, Tensor) and a.ndim == 1 and getattr(b, "ndim", 1) == 1 else a
    for name, rows in (("a", a), ("b", b)):
        if not (isinstance(rows, Tensor) and rows.ndim == 1):
            read_rows(name, rows)
    a, b = check_pair(("a", "b"), a, b)
    question = read_question(
        net,
        a,
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
    return attribute_pairs(question, a.detach(), b.detach(), baseline=baseline, map=map, method=method)


def attribute_pairs(
    question: Question,
    a: Float[Tensor, "n p"],
    b: Float[Tensor, "n p"],
    *,
    baseline: Tensor | None,
    map: AffineMap | None,
    method: Method,
) -> Attribution:
    """`contributions_between` of a checked question."""
    check_choice("map", map, (None, "derivative", "local_linear"))
    chosen = "path" if method == "auto" else choose_method(question.network, method)
    with quiet(a):
        power = power_of(question, a)
        if chosen == "path":
            parts = path_parts(question, a, b, pairs=True)
            return assemble(question, a, parts, map="derivative", method=chosen, baseline=None, power=power)
        map = choose_map(question.network.steps, map)
        x0 = read_baseline(baseline, question, a)
        parts = _differences(local_parts(question, a, x0, map), local_parts(question, b, x0, map))
        return assemble(question, a, parts, map=map, method=chosen, baseline=x0, power=power)


def _differences(first: Iterator[Part], second: Iterator[Part]) -> Iterator[Part]:
    """Contributions at a minus contributions at b, with the difference of the offsets."""
    for one, other in zip(first, second, strict=True):
        linear = one.linear.mul_(one.step).sub_(other.linear.mul_(other.step))
        offset = None
        if one.offset is not None and other.offset is not None:
            offset = one.offset - other.offset
        around = one.value.abs() + other.value.abs()
        value = one.value - other.value
        unit = torch.ones_like(one.step)
        yield Part(one.at, linear, unit, value, offset, around=around, margin=one.margin)
