"""How close a dictionary comes to a known truth: reconstruction, usage, coordinates, contributions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata
from torch import Tensor

from pullback.linalg import widened
from pullback.validation import check_choice, check_points, check_shape

KINDS = ("circle", "interval", "sphere", "torus", "plane")
CLEARLY_ACTIVE = 0.25
"""A coordinate is scored where the true amplitude is above this share of its largest."""
SUPPORT = 0.05
"""An estimated amplitude counts as active above this share of its largest."""


@dataclass(frozen=True)
class DictionaryScores:
    """A fitted dictionary against the truth, atoms in the order of the truth.

    Attributes:
        fvu: share of variance not explained.
        clean_fvu: the same against rows without noise; NaN where they are not known.
        assignment: share of rows whose largest atom is the true one.
        support_f1: of the pairs (row, active atom).
        coordinates: score of each true atom in [0, 1]; NaN where the kinds differ or no atom is matched.
        contributions: R² of each true atom's share of the rows; NaN where none is matched or none is known.
        matched: fitted atom of each true one, -1 where there is none, (K,).
    """

    fvu: float
    clean_fvu: float
    assignment: float
    support_f1: float
    coordinates: tuple[float, ...]
    contributions: tuple[float, ...]
    matched: Int[Tensor, " K"]


def fraction_unexplained(
    Z: Float[Tensor, "n p"],
    reconstruction: Float[Tensor, "n p"],
    clean: Float[Tensor, "n p"] | None = None,
) -> float:
    """FVU = Σ|z - ẑ|² / Σ|z - z̄|², against ``clean`` in both sums where rows without noise are known.

    Below the share that is noise FVU measures overfitting: on planted data compare the clean one.

    Args:
        Z: rows, (n, p).
        reconstruction: ẑ, (n, p).
        clean: rows before noise was added, (n, p).
    Raises:
        TypeError, ValueError: no tables of finite numbers of one shape.
    Example:
        >>> import torch
        >>> fraction_unexplained(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [1.0]]))
        0.5
    """
    check_points("Z", Z)
    check_shape("reconstruction", check_points("reconstruction", reconstruction), Z.shape)
    if clean is not None:
        check_shape("clean", check_points("clean", clean), Z.shape)
    truth = widened(Z if clean is None else clean)
    spread = (truth - truth.mean(0)).square().sum()
    return float((truth - widened(reconstruction)).square().sum() / spread)


def match_atoms(truth: Float[Tensor, "n K"], estimate: Float[Tensor, "n L"]) -> Int[Tensor, " K"]:
    """The fitted atom of each true atom: the assignment with the largest sum of cosines of usage columns.

    Args:
        truth: amplitudes, (n, K).
        estimate: amplitudes, (n, L).
    Returns: places in 0..L-1, -1 for atoms that are left over where L < K.
    Raises:
        TypeError, ValueError: no tables of finite numbers of one length.
    Example:
        >>> import torch
        >>> match_atoms(torch.eye(3), torch.eye(3)[:, [2, 0, 1]]).tolist()
        [1, 2, 0]
    """
    check_points("truth", truth)
    check_points("estimate", estimate)
    if len(truth) != len(estimate):
        raise ValueError(f"estimate: expected {len(truth)} rows as truth, got {len(estimate)}")
    cosines = _unit_columns(truth).mT @ _unit_columns(estimate)
    rows, columns = linear_sum_assignment(-cosines.cpu().numpy())
    matched = torch.full((truth.shape[1],), -1)
    matched[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return matched.to(truth.device)


def assignment_share(
    truth: Float[Tensor, "n K"], estimate: Float[Tensor, "n L"], matched: Int[Tensor, " K"] | None = None
) -> float:
    """Share of rows whose largest true atom is matched with their largest fitted one.

    Args:
        truth, estimate: amplitudes.
        matched: of `match_atoms`; None matches here.
    Example:
        >>> import torch
        >>> assignment_share(torch.eye(3), torch.eye(3)[:, [2, 0, 1]])
        1.0
    """
    matched = match_atoms(truth, estimate) if matched is None else matched
    return float((matched[truth.argmax(1)] == estimate.argmax(1)).double().mean())


def support_f1(
    truth: Float[Tensor, "n K"], estimate: Float[Tensor, "n L"], matched: Int[Tensor, " K"] | None = None
) -> float:
    """F1 = 2 TP / (2 TP + FP + FN) over all pairs (row, atom), atoms above .05 of the largest being active.

    Fitted atoms without a partner count as false positives where they are active, true ones as misses.

    Args:
        truth, estimate: amplitudes.
        matched: of `match_atoms`; None matches here.
    Example:
        >>> import torch
        >>> support_f1(torch.eye(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
        0.8
    """
    matched = match_atoms(truth, estimate) if matched is None else matched
    true = truth > 0
    active = estimate > SUPPORT * estimate.max()
    pair = matched >= 0
    hits = int((true[:, pair] & active[:, matched[pair]]).sum())
    total = int(true.sum()) + int(active.sum())
    return 2 * hits / total if total else math.nan


def coordinate_score(
    kind: str,
    truth: Float[Tensor, "n c"],
    estimate: Float[Tensor, "n e"],
    *,
    fitted: str | None = None,
) -> float:
    """Agreement of coordinates up to the symmetries of a manifold, 1 for equal ones.

    circle: max over the sign of |mean exp i(t ∓ t̂)|; interval: |Spearman's correlation|, a fitted circle
    being cut opposite to its mean direction; sphere: mean cosine after the best rotation or reflection;
    torus: mean of two circle scores, the better pairing; plane: R² of the affine regression of true on fitted
    ones.

    Args:
        kind: of the truth: "circle" (angles), "interval", "sphere" (unit vectors), "torus" (two angles),
            "plane".
        truth: (n, c), c = 1, 1, 3, 2, 2.
        estimate: (n, e).
        fitted: kind of the fitted atom; None is ``kind``.
    Returns: the score; NaN where the kinds differ, save the circle that was fitted to an interval.
    Raises:
        TypeError, ValueError: an unknown kind, no tables of finite numbers of one length.
    Example:
        >>> import torch
        >>> t = torch.linspace(0, 6, 50).unsqueeze(1)
        >>> round(coordinate_score("circle", t, 1 - t), 6)
        1.0
    """
    check_choice("kind", kind, KINDS)
    a, b = widened(check_points("truth", truth)), widened(check_points("estimate", estimate))
    if len(a) != len(b):
        raise ValueError(f"estimate: expected {len(a)} rows as truth, got {len(b)}")
    fitted = kind if fitted is None else fitted
    if kind == "interval" and fitted == "circle":
        return _rank_score(a, _cut(b))
    if fitted != kind or len(a) < 2:
        return math.nan
    if kind == "circle":
        return _circle_score(a[:, 0], b[:, 0])
    if kind == "interval":
        return _rank_score(a, b)
    if kind == "sphere":
        return float(torch.linalg.svdvals(a.mT @ b).sum() / len(a))
    if kind == "torus":
        pairings = permutations(range(2))
        return max(sum(_circle_score(a[:, i], b[:, order[i]]) for i in range(2)) / 2 for order in pairings)
    design = torch.cat([b, torch.ones_like(b[:, :1])], 1)
    rest = a - design @ torch.linalg.lstsq(design, a, driver="gelsd").solution
    return float(1 - rest.square().sum() / (a - a.mean(0)).square().sum())


def contribution_r2(truth: Float[Tensor, "n p"], estimate: Float[Tensor, "n p"]) -> float:
    """1 - Σ|a g - â ĝ|² / Σ|a g|² of one atom's contributions: free of the gauge of its coordinate.

    Args:
        truth, estimate: what the atom adds to each row, (n, p).
    Example:
        >>> import torch
        >>> contribution_r2(torch.ones(3, 2), torch.full((3, 2), 0.5))
        0.75
    """
    check_shape("estimate", check_points("estimate", estimate), check_points("truth", truth).shape)
    a, b = widened(truth), widened(estimate)
    return float(1 - (a - b).square().sum() / a.square().sum())


def effective_atoms(amplitudes: Float[Tensor, "n K"]) -> float:
    """Mean of exp H(a/Σa): how many atoms a row uses; rows without any are left out.

    Example:
        >>> import torch
        >>> round(effective_atoms(torch.tensor([[1.0, 1.0], [1.0, 0.0]])), 6)
        1.5
    """
    a = widened(check_points("amplitudes", amplitudes)).clamp_min(0)
    a = a[a.sum(1) > 0]
    if not len(a):
        return math.nan
    shares = a / a.sum(1, keepdim=True)
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum(1)).mean())


def score_dictionary(
    Z: Float[Tensor, "n p"],
    truth: Float[Tensor, "n K"],
    kinds: Sequence[str],
    coordinates: Sequence[Tensor],
    *,
    estimate: Float[Tensor, "n L"],
    fitted_kinds: Sequence[str],
    fitted_coordinates: Sequence[Tensor],
    contributions: Sequence[Tensor],
    clean: Float[Tensor, "n p"] | None = None,
    parts: Sequence[Tensor] | None = None,
) -> DictionaryScores:
    """All scores of a fitted dictionary against the truth that rows were drawn from.

    Args:
        Z: rows, (n, p).
        truth: true amplitudes, (n, K).
        kinds: of the true atoms.
        coordinates: true ones, K of (n, c).
        estimate: fitted amplitudes, (n, L).
        fitted_kinds, fitted_coordinates: of the fitted atoms; rows where an atom is closed may hold anything
            finite.
        contributions: what each fitted atom adds to the rows, L of (n, p).
        clean: rows before noise.
        parts: true contributions, K of (n, p).
    """
    matched = match_atoms(truth, estimate)
    scores, shares = [], []
    for k, kind in enumerate(kinds):
        j = int(matched[k])
        rows = truth[:, k] > CLEARLY_ACTIVE * truth[:, k].max()
        none = j < 0 or not bool(rows.any())
        scores.append(
            math.nan
            if none
            else coordinate_score(
                kind, coordinates[k][rows], fitted_coordinates[j][rows], fitted=fitted_kinds[j]
            )
        )
        shares.append(math.nan if none or parts is None else contribution_r2(parts[k], contributions[j]))
    reconstruction = torch.stack(tuple(contributions)).sum(0)
    return DictionaryScores(
        fvu=fraction_unexplained(Z, reconstruction),
        clean_fvu=math.nan if clean is None else fraction_unexplained(Z, reconstruction, clean),
        assignment=assignment_share(truth, estimate, matched),
        support_f1=support_f1(truth, estimate, matched),
        coordinates=tuple(scores),
        contributions=tuple(shares),
        matched=matched,
    )


def _unit_columns(amplitudes: Tensor) -> Tensor:
    a = widened(amplitudes)
    return a / a.norm(dim=0).clamp_min(torch.finfo(a.dtype).tiny)


def _circle_score(a: Tensor, b: Tensor) -> float:
    return max(float(torch.polar(torch.ones_like(a), a - sign * b).mean().abs()) for sign in (1, -1))


def _rank_score(a: Tensor, b: Tensor) -> float:
    first, second = a[:, 0], b[:, 0]
    if bool((first == first[0]).all() | (second == second[0]).all()):
        return 0.0
    ranks = torch.from_numpy(np.stack([rankdata(x.cpu().numpy()) for x in (first, second)]))
    return abs(float(torch.corrcoef(ranks)[0, 1]))


def _cut(angles: Tensor) -> Tensor:
    """Angles from a cut opposite to their mean direction."""
    middle = torch.atan2(angles.sin().mean(), angles.cos().mean())
    return (angles - middle + math.pi) % (2 * math.pi)
