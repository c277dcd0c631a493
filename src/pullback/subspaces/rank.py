"""How many directions a quantity needs."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.draws import source_of
from pullback.linalg import marchenko_pastur_quantile, widened
from pullback.subspaces.arguments import check_names, check_quantities
from pullback.subspaces.crossvalidation import MIN_GAIN, rank_errors, supported_rank
from pullback.subspaces.moments import Moments
from pullback.subspaces.sources import Source, Standardize, as_source
from pullback.subspaces.statistics import SufficientStatistics
from pullback.validation import check_choice, check_whole

Method = Literal["cv", "parallel", "variance", "gavish_donoho"]
METHODS = ("cv", "parallel", "variance", "gavish_donoho")
DEFAULT_THRESHOLD = 0.9
DRAWS, LEVEL = 20, 0.95
"""Permutations of parallel analysis and the quantile that a singular value must exceed."""
RANK = 1e-10


def k_per_q(
    targets: Mapping[str, Tensor] | Sequence[SufficientStatistics],
    threshold: float | int | Mapping[str, float | int] | None = None,
    *,
    method: Method | None = None,
    Z: Tensor | None = None,
    default_threshold: float | int | None = None,
    per_quantity: bool = True,
    folds: int = 5,
    kmax: int | None = None,
    min_gain: float | int = MIN_GAIN,
    generator: torch.Generator | None = None,
) -> dict[str, int] | int:
    """Numbers of directions of several quantities.

    "cv" is the number of directions of the codes that predict the quantity: the smallest within one standard
    error of the best error on held-out rows, and 0 where it gains less than ``min_gain``. The others look at
    the quantity alone. "parallel" counts leading singular values above those of independently permuted
    columns (Horn 1965, "A rationale and test for the number of factors in factor analysis"). "gavish_donoho"
    counts those above the optimal hard threshold for white noise of unknown level (Gavish, Donoho 2014, "The
    optimal hard threshold for singular values is 4/√3"). "variance" counts how many reach a share of the
    variance, noise included.

    Args:
        targets: name -> (B, ...), or the list that `fold_statistics` returns.
        threshold: share of the variance in (0, 1], one for all or name -> share; selects "variance".
        method: None is "cv" where Z or folds are given, else "parallel".
        Z: codes, (B, D), for "cv".
        default_threshold: for names that ``threshold`` leaves out; None is .9.
        per_quantity: False returns the largest number alone.
        folds: of the rows, for "cv".
        kmax: largest number that "cv" tries.
        min_gain: share of the variance that directions must predict at least, for "cv".
        generator: of folds and permutations; None draws the same ones every time.
    Returns: name -> k, 0 for constant quantities; or the largest.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; unknown names.
    Example:
        >>> import torch
        >>> g = torch.Generator().manual_seed(0)
        >>> signal = torch.randn(200, 2, generator=g) @ torch.randn(2, 16, generator=g)
        >>> noise = 0.3 * torch.randn(200, 16, generator=g)
        >>> k_per_q({"field": signal + noise}), k_per_q({"field": signal + noise}, 0.99)
        ({'field': 2}, {'field': 10})

    When to use: "cv" for anything that is read from codes. "parallel" and "gavish_donoho" take noise that is
    smooth along the columns, as in fields, for signal; "cv" does not.
    """
    chosen = _method(targets, threshold, method, Z)
    if chosen == "variance":
        share = DEFAULT_THRESHOLD if threshold is None else threshold
        found = _by_variance(_rows(targets), share, default_threshold)
    elif chosen == "cv":
        source = _source(targets, Z, folds, generator)
        found = {q: cross_validated(source, q, kmax, min_gain)[0] for q in source.moments}
    elif chosen == "parallel":
        found = {q: _parallel(y, generator) for q, y in _rows(targets).items()}
    else:
        found = {q: _gavish_donoho(y) for q, y in _rows(targets).items()}
    return found if per_quantity else max(found.values())


def effective_rank(Y: Float[Tensor, "b m"]) -> float:
    """exp of the entropy of the shares of variance (Roy, Vetterli 2007): a description, which noise inflates.

    Example:
        >>> import torch
        >>> round(effective_rank(torch.cat([torch.eye(3), -torch.eye(3)])), 6)
        3.0
    """
    shares = _shares(Y)
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def participation_ratio(Y: Float[Tensor, "b m"]) -> float:
    """(Σ l)²/Σ l² of the variances l along principal axes: a description, which noise inflates.

    Example:
        >>> import torch
        >>> round(participation_ratio(torch.cat([torch.eye(3), -torch.eye(3)])), 6)
        3.0
    """
    return float(1 / _shares(Y).square().sum())


def cross_validated(
    source: Source,
    name: str,
    kmax: int | None,
    min_gain: float | int = MIN_GAIN,
    standardize: Standardize = "quantity",
) -> tuple[int, Tensor | None]:
    """The rank of one quantity by its error on folds, and the mean errors; 0 for a constant one."""
    if kmax is not None:
        check_whole("kmax", kmax)
    if bool(source.moments[name].constant.all()):
        return 0, None
    (group,) = source.groups({name: None}, standardize)
    parts, scale = source.fold_moments(name), group.scale[0]
    most = min(*parts[0].zy.shape, kmax or parts[0].zy.shape[0])
    errors = rank_errors(parts, scale, most)
    return supported_rank(errors, min_gain), errors.mean(0)


def covariance_ranks(sizes: Float[Tensor, "q k"], moments: Moments, scale: Float[Tensor, "q m"]) -> list[int]:
    """How many singular values of S_zy of each quantity stand out from the rounding of the input."""
    spread = (moments.yy * scale.square()).sum(-1, keepdim=True) / moments.n
    rounding = (moments.rounding * scale).square().sum(-1, keepdim=True)
    relative = (rounding / spread).sqrt().clamp_min(RANK)
    return (sizes > relative * sizes[..., :1]).sum(-1).tolist()


def share_of(name: str, share: object) -> float:
    """A share of variance in (0, 1]."""
    if isinstance(share, bool) or not isinstance(share, float | int) or not 0 < share <= 1:
        raise ValueError(f"{name}: expected a share of the variance in (0, 1], got {share!r}")
    return float(share)


def shares_by_name(
    name: str,
    share: float | int | Mapping[str, float | int],
    default: float | int | None,
    names: Sequence[str],
    otherwise: float | int,
) -> dict[str, float]:
    """A share for each name; names that a dict leaves out take the default."""
    rest = otherwise if default is None else share_of(f"default of {name}", default)
    if not isinstance(share, Mapping):
        return dict.fromkeys(names, share_of(name, share))
    check_names(name, {*share, *names}, names, "the targets")
    return {q: share_of(f"{name}[{q!r}]", share[q]) if q in share else rest for q in names}


def _method(targets: object, threshold: object, method: str | None, Z: object) -> str:
    if method is not None:
        check_choice("method", method, METHODS)
    folds = not isinstance(targets, Mapping)
    if method is None:
        method = "variance" if threshold is not None else "cv" if (Z is not None or folds) else "parallel"
    if threshold is not None and method != "variance":
        raise ValueError(f"threshold: expected None with method={method!r}, got {threshold!r}")
    if folds and method != "cv":
        raise TypeError(f"targets: expected a dict with method={method!r}, got {type(targets).__name__}")
    if method == "cv" and Z is None and not folds:
        raise ValueError("Z: expected codes with method='cv', got None")
    return method


def _source(
    targets: Mapping[str, Tensor] | Sequence[SufficientStatistics],
    Z: Tensor | None,
    folds: int,
    generator: torch.Generator | None,
) -> Source:
    if isinstance(targets, Mapping):
        assert Z is not None
        return as_source(Z, targets, folds=folds, generator=generator)
    if Z is not None:
        raise ValueError("Z: expected None where statistics of folds are given, got codes")
    return as_source(targets, None)


def _rows(targets: object) -> dict[str, Tensor]:
    return check_quantities(targets, None)


def _varying(y: Tensor) -> Tensor:
    """Centred columns that vary beyond rounding, float64."""
    wide = widened(y.detach())
    centred = wide - wide.mean(0)
    resolution = 8 * torch.finfo(y.dtype).eps * wide.abs().amax(0)
    return centred[:, centred.square().sum(0) > len(y) * resolution.square()]


def _by_variance(
    targets: Mapping[str, Tensor],
    threshold: float | int | Mapping[str, float | int],
    default: float | int | None,
) -> dict[str, int]:
    shares = shares_by_name("threshold", threshold, default, list(targets), DEFAULT_THRESHOLD)
    return {q: _variance(y, shares[q]) for q, y in targets.items()}


def _variance(y: Tensor, share: float) -> int:
    centred = _varying(y)
    if centred.numel() == 0:
        return 0
    sizes = torch.linalg.svdvals(centred)
    if share == 1:
        return int((sizes > sizes[0] * max(centred.shape) * torch.finfo(y.dtype).eps).sum())
    reached = sizes.square().cumsum(0)
    return 1 + int((reached < share * reached[-1] * (1 - 1e-12)).sum())


def _parallel(y: Tensor, generator: torch.Generator | None) -> int:
    centred = _varying(y)
    if centred.numel() == 0:
        return 0
    source = source_of(generator, y.device)
    sizes = _spectrum(centred)
    draws = []
    for _ in range(DRAWS):
        order = torch.rand(centred.shape, generator=source, device=source.device).argsort(0)
        draws.append(_spectrum(centred.gather(0, order.to(centred.device))))
    above = sizes > torch.stack(draws).quantile(LEVEL, dim=0)
    return int(above.long().cumprod(0).sum())


def _spectrum(centred: Tensor) -> Tensor:
    """Squared singular values, descending, through the smaller Gram matrix: only large ones are compared."""
    n, m = centred.shape
    gram = centred.mT @ centred if m <= n else centred @ centred.mT
    return torch.linalg.eigvalsh(gram).flip(0)


def _gavish_donoho(y: Tensor) -> int:
    centred = _varying(y)
    n, p = len(centred) - 1, centred.shape[1]
    if min(n, p) < 1:
        return 0
    sizes = torch.linalg.svdvals(centred)[: min(n, p)]
    beta = min(n, p) / max(n, p)
    level = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
    middle = sizes.sort().values
    half = len(middle) // 2
    median = middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) / 2
    return int((sizes > level / math.sqrt(marchenko_pastur_quantile(beta)) * median).sum())


def _shares(Y: Tensor) -> Tensor:
    y = check_quantities({"Y": Y}, None)["Y"]
    centred = _varying(y)
    if centred.numel() == 0:
        raise ValueError("Y: expected columns that vary, got constant ones")
    values = torch.linalg.svdvals(centred).square()
    return values / values.sum()
