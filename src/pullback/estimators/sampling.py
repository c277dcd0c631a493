"""Latent points that Markov chains draw on a learned metric, in double precision, with what they say of
themselves.

More chains run than are asked for where few are: R̂ and the effective sample size of one chain say little.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback.dynamics import Chains, ModelPotential, effective_sample_size, sample_rhmc, split_r_hat
from pullback.dynamics.history import verdict
from pullback.dynamics.volume import VolumePotential, volume_sampler
from pullback.estimators.evaluation import WIDEST_LAYER
from pullback.estimators.scaling import chunk_slices
from pullback.metrics import CentroidMetric

FEWEST_CHAINS = 64
CHAINS_PER_ROW = 4
SHARED = ("n_steps", "n_leapfrog", "step_size", "warmup", "target_acceptance", "jitter")
OPTIONS = {
    "volume": (*SHARED, "support", "radius"),
    "rhmc": (*SHARED, "tolerance", "max_iterations", "check_reversibility"),
}
# Beyond this acceptance it is the fixed points, and not the energy, that limit the step size.
RHMC = {"n_steps": 100, "n_leapfrog": 10, "step_size": 0.1, "warmup": 50, "target_acceptance": 0.95}

Drawn = tuple[Tensor, Tensor, dict[str, Any]]


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for options that the sampler of a method has not."""
    if unknown := [name for name in options if name not in OPTIONS[method]]:
        raise ValueError(
            f"options: expected some of {', '.join(OPTIONS[method])} for method={method!r}, "
            f"got {', '.join(unknown)}"
        )


def volume_draws(
    metric: CentroidMetric, n: int, generator: torch.Generator, options: Mapping[str, Any]
) -> Drawn:
    """n points from (det g)^-½ within reach of the centroids."""
    check_options("volume", options)
    chains = volume_sampler(metric, max(n, FEWEST_CHAINS), generator=generator, **options)
    return chains.z[:n], chains.log_density[:n], _diagnostics(chains, n)


def prior_volume_draws(
    metric: CentroidMetric, n: int, generator: torch.Generator, options: Mapping[str, Any]
) -> Drawn:
    """n points from (det g)^-½ N(0, I) by Riemannian Hamiltonian Monte Carlo, from random centroids."""
    check_options("rhmc", options)
    count, centroids = max(n, FEWEST_CHAINS), metric.centroids
    start = centroids[
        torch.randint(len(centroids), (count,), generator=generator, device=generator.device).to(
            centroids.device
        )
    ]
    potential = VolumePotential(metric, "inverse_volume", prior=True)
    chains = sample_rhmc(potential, metric, start, generator=generator, **(RHMC | dict(options)))
    return chains.z[:n], chains.log_density[:n], _diagnostics(chains, n)


def posterior_draws(
    model: Any,
    metric: CentroidMetric,
    x: Tensor,
    rows: np.ndarray,
    generator: torch.Generator,
    options: Mapping[str, Any],
) -> Drawn:
    """A point from p(z | x) for each of these rows of x, by Riemannian Hamiltonian Monte Carlo.

    Rows come in turn; each has several chains, which begin at draws of q(z | x) and are judged together.
    """
    check_options("rhmc", options)
    used = int(rows.max()) + 1
    per_row = max(CHAINS_PER_ROW, -(-len(rows) // used))
    options = RHMC | dict(options)
    parts, judged, failures = [], [], []
    for part in chunk_slices(used, per_row * max(x.shape[1], WIDEST_LAYER)):
        data = x[part].repeat_interleave(per_row, dim=0)
        q = model.posterior(data)
        noise = torch.empty_like(q.mean).normal_(generator=generator)
        potential = ModelPotential(model.decoder, model.likelihood, data)
        chains = sample_rhmc(
            potential, metric, q.sample(noise), generator=generator, keep_draws=True, **options
        )
        found = _by_row(chains, per_row)
        judged += found
        failures += _failures(chains, found, per_row, int(options["n_steps"]), first=part.start)
        # judged, the past of the chains is not needed any more, and of many rows it would be large
        parts.append(replace(chains, draws=None))
    # Chain c of row r stands at r per_row + c; the draws take the rows in turn.
    order = torch.from_numpy(rows * per_row + np.arange(len(rows)) // used)

    def chosen(name: str) -> Tensor:
        return torch.cat([getattr(chains, name) for chains in parts])[order.to(parts[0].z.device)]

    diagnostics = {
        name: chosen(name).cpu().numpy() for name in ("acceptance", "divergences", "step_size")
    } | {"chains": used * per_row, "r_hat": None, "effective_sample_size": None}
    if judged:
        diagnostics["r_hat"] = torch.stack([r_hat for _, r_hat in judged]).amax(0).cpu().numpy()
        diagnostics["effective_sample_size"] = torch.stack([ess for ess, _ in judged]).amin(0).cpu().numpy()
    message = parts[0].message if used == 1 else f"the chains of each of {used} rows agree"
    if failures:
        row, reason = failures[0]
        message = f"{len(failures)} of {used} rows, first row {row}: {reason}"
    diagnostics |= {"converged": not failures, "message": message}
    return chosen("z"), chosen("log_density"), diagnostics


def _of_rows(chains: Chains, per_row: int) -> list[slice]:
    return [slice(first, first + per_row) for first in range(0, len(chains.z), per_row)]


def _by_row(chains: Chains, per_row: int) -> list[tuple[Tensor, Tensor]]:
    """Effective sample size and R̂ of the chains of each row; none of fewer than 4 draws."""
    draws = chains.draws
    if draws is None or chains.r_hat is None:
        return []
    parts = [draws[:, own] for own in _of_rows(chains, per_row)]
    return [(effective_sample_size(part), split_r_hat(part)) for part in parts]


def _failures(
    chains: Chains, judged: list[tuple[Tensor, Tensor]], per_row: int, n_steps: int, *, first: int
) -> list[tuple[int, str]]:
    """Rows whose chains cannot be trusted, and why."""
    found = []
    for i, own in enumerate(_of_rows(chains, per_row)):
        assert chains.draws is not None
        ess, r_hat = judged[i] if judged else (None, None)
        acceptance, divergent = chains.acceptance[own], chains.divergences[own] / n_steps
        good, reason = verdict(acceptance, divergent, chains.draws[:, own], ess, r_hat)
        if not good:
            found.append((first + i, reason))
    return found


def _diagnostics(chains: Chains, n: int) -> dict[str, Any]:
    """What chains say of themselves: each of those that are returned, and all together."""
    each = ("acceptance", "divergences", "step_size", "reversibility_error")
    of_each = {name: value for name in each if (value := getattr(chains, name)) is not None}
    shared = {name: getattr(chains, name) for name in ("r_hat", "effective_sample_size")}
    return {
        **{name: value[:n].cpu().numpy() for name, value in of_each.items()},
        **{name: None if value is None else value.cpu().numpy() for name, value in shared.items()},
        "chains": len(chains.z),
        "converged": chains.converged,
        "message": chains.message,
    }
