"""What an estimator does with a flow: its options, its bound, its end points, and how well it was solved."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullback.dynamics import null_tempering, quadratic_tempering
from pullback.estimators.evaluation import WIDEST_LAYER, device_of, evaluating
from pullback.estimators.scaling import Scaling, chunk_slices
from pullback.estimators.variational import antithetic_nodes
from pullback.inputs import Table
from pullback.models import FlowModel
from pullback.models.elbo import log_proposal
from pullback.validation import check_choice

TEMPERINGS = {"quadratic": quadratic_tempering, "null": null_tempering}
ADVICE = "reduce step_size or raise temperature"
JUDGED_ROWS = 4096
"""Rows on which a trained flow is judged."""


def resolve_tempering(tempering: Any) -> Any:
    """The schedule of a name, or the function (β_0, k, K) -> β_k that was given."""
    if callable(tempering):
        return tempering
    if not isinstance(tempering, str):
        raise TypeError(
            f"tempering: expected a name or a function (beta0, k, K), got {tempering!r} "
            f"of type {type(tempering).__name__}"
        )
    check_choice("tempering", tempering, TEMPERINGS)
    return TEMPERINGS[tempering]


def flow_options(estimator: Any) -> dict[str, Any]:
    """The options that every model with a flow has."""
    return {
        "n_steps": estimator.n_steps,
        "step_size": estimator.step_size,
        "beta0": estimator.beta0,
        "tempering": resolve_tempering(estimator.tempering),
    }


def flow_bound(model: FlowModel, x: Float[Tensor, "b p"], draws: int) -> Float[Tensor, " b"]:
    """Evidence lower bound of each row, its expectation over the same noise for every row."""
    noise = antithetic_nodes(draws, model.noise_features).to(x)
    bound = model.elbo(x.repeat_interleave(draws, dim=0), noise.repeat(len(x), 1))
    return bound.unflatten(0, (len(x), draws)).mean(1)


@dataclass(frozen=True)
class FlowEnds:
    """Where flows from q(z_0 | x) end.

    Attributes:
        z: z_K ``(n, d)``.
        log_density: log q̄(z_K, ρ_K | x) ``(n,)``.
        residual: largest last increment of the fixed points ``(n,)``.
        converged: whether they were solved ``(n,)``.
    """

    z: Tensor
    log_density: Tensor
    residual: Tensor
    converged: Tensor

    def diagnostics(self) -> dict[str, Any]:
        """How well the flows were solved, for `Samples` and for warnings."""
        missed, worst = int((~self.converged).sum()), float(self.residual.max())
        message = f"fixed points moved by at most {worst:.2g} in their last iteration"
        if missed:
            message = (
                f"the fixed points of {missed / len(self.z):.1%} of the rows have not converged "
                f"(they moved by up to {worst:.2g}); {ADVICE}"
            )
        return {"residual": worst, "converged": missed == 0, "message": message}


def flow_ends(
    model: FlowModel, table: Table, scaling: Scaling, rows: np.ndarray, generator: torch.Generator
) -> FlowEnds:
    """Carry a draw of q(z_0 | x) of each of these rows along the flow, chunk by chunk."""
    device, dtype = device_of(model), scaling.offset.dtype
    noise = torch.randn(len(rows), model.noise_features, generator=generator, dtype=dtype)
    parts = []
    with evaluating(model):
        for part in chunk_slices(len(rows), max(table.n_features, WIDEST_LAYER)):
            x = scaling.apply(table.rows(rows[part])).to(device=device, dtype=dtype)
            output = model.flow(x, noise[part].to(device))
            start = output.encoder.log_prob(output.flow.z_init)
            density = torch.stack(list(log_proposal(output.flow, start).values())).sum(0)
            info = output.flow.info
            parts.append((output.flow.z_final, density, info.residual, info.converged))
    return FlowEnds(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def judge_flow(model: FlowModel, table: Table, scaling: Scaling, index: np.ndarray) -> FlowEnds:
    """Flows of some rows of the training data, the same ones whenever they are asked for."""
    chosen = np.linspace(0, len(index) - 1, min(len(index), JUDGED_ROWS)).round().astype(int)
    return flow_ends(model, table, scaling, index[chosen], torch.Generator().manual_seed(0))


def shortest(value: Tensor) -> float:
    """A number of any precision as the shortest decimal that rounds to it: 0.01, not 0.0099999998."""
    return float(str(value.detach().cpu().numpy()))
