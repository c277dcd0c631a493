"""Whether chains have mixed, and how many independent draws theirs are worth.

Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, "Rank-normalization, folding, and localization: an improved
R̂ for assessing convergence of MCMC".
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.validation import check_finite, check_tensor

FEWEST_DRAWS = 4
"""Each half of a chain needs a variance."""
FEWEST_CHAINS = 8
STANDARD_ERRORS = 4.0


def effective_sample_size(draws: Float[Tensor, "steps chains d"]) -> Float[Tensor, " d"]:
    """Number of independent draws that estimate the mean as well, for every coordinate.

    ESS = mn/τ of m chains of n draws with τ = 1 + 2 Σ_t ρ_t, ρ_t = 1 - (W - mean_chains γ_t)/V, where γ_t are
    autocovariances, W is the mean variance within a chain and V adds the variance between chains. Sums
    ρ_2k + ρ_2k+1 of neighbours enter up to the first that is not positive, each at most as large as the one
    before (Geyer 1992, "Practical Markov chain Monte Carlo"). Chains are split in halves, so that one chain
    that drifts is told from one that mixes.

    Args:
        draws: (steps, chains, d), at least 4 steps.
    Returns:
        (d,). It can exceed mn where neighbouring draws are anticorrelated, up to mn log₁₀(mn). Chains that
        never move count as one draw each; a coordinate with a single value everywhere as one draw.
    Raises:
        TypeError: no tensor.
        ValueError: another shape, fewer than 4 steps, non-finite draws.
    Example:
        >>> import torch
        >>> draws = torch.randn(1000, 4, 1, generator=torch.Generator().manual_seed(0))
        >>> bool(3000 < effective_sample_size(draws) < 5000)
        True
    """
    halves = _halves(_checked(draws))
    n, m, _ = halves.shape
    # Relative to a chain's first draw a chain that never moves is exactly zero.
    apart = halves - halves[0]
    means = apart.mean(0)
    covariance = _autocovariance(apart - means).mean(1)
    within = covariance[0] * n / (n - 1)
    between = (halves[0] + means).var(0, correction=1) if m > 1 else torch.zeros_like(within)
    between = torch.where((halves == halves[0, 0]).all(0).all(0), 0.0, between)
    total = covariance[0] + between
    moved = total > 0
    rho = 1 - (within - covariance) / torch.where(moved, total, 1.0)
    rho[0] = 1.0
    pairs = rho[: n - n % 2].unflatten(0, (-1, 2)).sum(1)
    pairs = torch.cummin(pairs, 0).values * (pairs > 0).cumprod(0)
    count = m * n
    tau = (2 * pairs.sum(0) - 1).clamp_min(1 / math.log10(max(count, 10)))
    # W = 0: every ρ_t is 1, and a half of a chain would count as n/(n - 1) draws.
    still = (within == 0) & moved
    tau = torch.where(still, torch.full_like(tau, 2 * n), tau)
    return torch.where(moved, count / tau, 1.0).to(draws.dtype)


def split_r_hat(draws: Float[Tensor, "steps chains d"]) -> Float[Tensor, " d"]:
    """Rank-normalised split R̂ of every coordinate: the spread of all draws over that within chains.

    R̂ = √(V/W) over the halves of all chains, the larger of two: of the normal scores of the ranks, which sees
    chains at different places, and of those of |z - median|, which sees chains of different width. Chains
    that have mixed have R̂ below 1.01; heavy tails do no harm.

    Args:
        draws: (steps, chains, d), at least 4 steps; one chain is compared with itself.
    Returns:
        (d,), at least √((n - 1)/n) for n draws a half; infinite where no chain ever moves.
    Raises:
        TypeError: no tensor.
        ValueError: another shape, fewer than 4 steps, non-finite draws.
    Example:
        >>> import torch
        >>> draws = torch.randn(1000, 4, 1, generator=torch.Generator().manual_seed(0))
        >>> bool(split_r_hat(draws) < 1.01)
        True
        >>> bool(split_r_hat(draws + torch.arange(4)[:, None]) > 1.1)
        True
    """
    halves = _halves(_checked(draws))
    folded = (halves - halves.flatten(0, 1).median(0).values).abs()
    worst = torch.maximum(_ratio(_normal_scores(halves)), _ratio(_normal_scores(folded)))
    still = (halves == halves[0]).all(0).all(0)
    return torch.where(still, torch.inf, worst).to(draws.dtype)


def drift(draws: Float[Tensor, "steps chains d"]) -> Float[Tensor, " d"]:
    """By how much mean or spread of all chains change from the first to the second half of the history.

    Chains are independent, so that the mean change has a standard error of its own. Unlike R̂ this sees chains
    that started at one point and all spread at the same slow pace.

    Returns:
        (d,), the larger of the change of the mean in standard deviations and the relative change of the
        variance; 0 where it is below four standard errors.
    """
    x = draws.double()
    x = x - x.flatten(0, 1).mean(0)
    largest = x.new_zeros(x.shape[2])
    if x.shape[1] < FEWEST_CHAINS:
        return largest.to(draws.dtype)
    # About the mean of all chains at the same time: paths of half a period swing from side to side together.
    apart = (x - x.mean(1, keepdim=True)).square()
    n, spread = len(x) // 2, apart.mean((0, 1))
    for values, scale in ((x, spread.sqrt()), (apart, spread)):
        change = values[len(x) - n :].mean(0) - values[:n].mean(0)
        error = change.std(0) / len(change) ** 0.5
        size = change.mean(0).abs()
        seen = (size > STANDARD_ERRORS * error) & (scale > 0)
        largest = torch.where(seen, torch.maximum(largest, size / scale), largest)
    return largest.to(draws.dtype)


def _checked(draws: Tensor) -> Tensor:
    check_tensor("draws", draws)
    if draws.ndim != 3 or not draws.is_floating_point() or draws.shape[1] < 1:
        kind = str(draws.dtype).removeprefix("torch.")
        raise ValueError(
            f"draws: expected (steps, chains, d) floating point, got {tuple(draws.shape)} {kind}"
        )
    if len(draws) < FEWEST_DRAWS:
        raise ValueError(f"draws: expected at least {FEWEST_DRAWS} steps, got {len(draws)}")
    check_finite("draws", draws.flatten(1))
    return draws.detach().double()


def _halves(draws: Tensor) -> Float[Tensor, "n m d"]:
    """Both halves of every chain as chains of their own; of an odd number the middle draw is left out."""
    n = len(draws) // 2
    return torch.cat([draws[:n], draws[len(draws) - n :]], dim=1)


def _autocovariance(centred: Float[Tensor, "n m d"]) -> Float[Tensor, "n m d"]:
    """γ_t = (1/n) Σ x_i x_{i+t}; by FFT, padded so that the ends do not meet."""
    n = len(centred)
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=0)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * n, dim=0)[:n] / n


def _normal_scores(x: Float[Tensor, "n m d"]) -> Float[Tensor, "n m d"]:
    """Φ⁻¹((r - 3/8)/(S + 1/4)) of the rank r among all S draws of a coordinate; equal draws share theirs."""
    scores = []
    for values in x.unbind(-1):
        _, where, counts = values.unique(return_inverse=True, return_counts=True)
        rank = counts.cumsum(0) - (counts - 1) / 2
        scores.append(torch.special.ndtri((rank - 0.375) / (values.numel() + 0.25))[where])
    return torch.stack(scores, dim=-1)


def _ratio(x: Float[Tensor, "n m d"]) -> Float[Tensor, " d"]:
    """√(V/W); 1 where all draws are equal, infinite where only those of every chain are."""
    n, apart = len(x), x - x[0]
    within = apart.var(0, correction=1).mean(0)
    between = (x[0] + apart.mean(0)).var(0, correction=1)
    total = (n - 1) / n * within + between
    equal = (x == x[0, 0]).all(0).all(0)
    ratio = torch.where(within > 0, (total / torch.where(within > 0, within, 1.0)).sqrt(), torch.inf)
    return torch.where(equal, 1.0, ratio)
