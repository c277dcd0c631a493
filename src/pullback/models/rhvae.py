"""The Riemannian Hamiltonian VAE: a flow on a metric that is learned with the model."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.dynamics import Flow
from pullback.metrics import CentroidMetric
from pullback.models.elbo import Elbo
from pullback.models.flow_model import FlowModel, flow_elbo
from pullback.models.vae import VAE
from pullback.validation import check_choice, check_finite, check_positive, check_tensor

logger = logging.getLogger(__name__)

LARGEST_RESIDUAL = 1e-3
SMALLEST_STEP = 1e-6


class RHVAE(FlowModel):
    """VAE with a tempered flow on g⁻¹(z) = s Σ_i w_i(z) M_i + λ I, a metric learned with the model.

    Centroids c_i are the encoder's means of fixed data, M_i = L_i L_iᵀ what a network makes of the same data.

    Chadebec, Mantoux and Allassonnière 2020, "Geometry-aware Hamiltonian variational auto-encoder".

    Args:
        vae: encoder, decoder, likelihood; its modules become this model's.
        metric_network: x -> L(x).
        centroids_data: the data of the centroids, as the encoder takes them.
        temperature: T, the reach of a centroid; √d if not given.
        regularization: λ.
        reduction: "mean" (s = 1/N) or "sum" (s = 1).
        adapt_step_size: halve ε where a fixed point has not converged (see `refuses`).
        options: n_steps, step_size, beta0, tempering, fixed_point_steps, tolerance, gradient, backprop; see
            `pullback.models.FlowModel`.
    Example:
        >>> import torch
        >>> from pullback.models import MLP, VAE, Bernoulli, MetricNetwork
        >>> vae, data = VAE(MLP(5, 4), MLP(2, 5), Bernoulli()), torch.eye(5)
        >>> model = RHVAE(vae, MetricNetwork(5, 2), data)
        >>> model.metric().inverse(torch.zeros(1, 2)).shape
        torch.Size([1, 2, 2])
    """

    centroids_data: Tensor
    centroids: Tensor
    factors: Tensor
    temperature: Tensor
    regularization: Tensor

    def __init__(
        self,
        vae: VAE,
        metric_network: nn.Module,
        centroids_data: Float[Tensor, "N p"],
        *,
        temperature: float | None = None,
        regularization: float = 1e-2,
        reduction: Literal["mean", "sum"] = "mean",
        adapt_step_size: bool = True,
        **options: Any,
    ):
        super().__init__(vae, **options)
        d, n = self.latent_dim, len(check_tensor("centroids_data", centroids_data))
        wide = math.sqrt(d) if temperature is None else temperature
        check_positive("temperature", wide)
        check_positive("regularization", regularization)
        check_choice("reduction", reduction, ("mean", "sum"))
        if n == 0:
            raise ValueError("centroids_data: expected at least one row, got none")
        check_finite("centroids_data", centroids_data)
        check_network(metric_network, centroids_data, d)
        self.metric_network = metric_network
        self.reduction: Literal["mean", "sum"] = reduction
        self.adapt_step_size = adapt_step_size
        self.residual: float = 0.0
        self._first_step_size = float(self.step_size)
        self._flow: Flow | None = None
        self.register_buffer("centroids_data", centroids_data)
        self.register_buffer("centroids", centroids_data.new_zeros(n, d))
        self.register_buffer("factors", centroids_data.new_zeros(n, d, d))
        self.register_buffer("temperature", torch.tensor(float(wide), dtype=torch.float64))
        self.register_buffer("regularization", torch.tensor(float(regularization), dtype=torch.float64))
        self.update_metric_()
        self.metric()  # says now what is wrong with temperature or regularization in this precision

    def train(self, mode: bool = True) -> "RHVAE":
        """As for every module; on the way from training to evaluation the metric is brought up to date."""
        ends = self.training and not mode
        super().train(mode)
        if ends:
            self.update_metric_()
        return self

    def metric(self) -> CentroidMetric:
        """The learned metric as of the last `update_metric_`, without gradient."""
        return CentroidMetric(self.centroids, self.factors, **self._metric_options())

    def _metric_options(self) -> dict[str, Any]:
        return {
            "temperature": float(self.temperature),
            "regularization": float(self.regularization),
            "reduction": self.reduction,
        }

    def flow_metric(self) -> CentroidMetric:
        """`update_metric` where gradients are recorded, else the metric as of the last update.

        Numbers that are not finite are no error here: they show in the loss, on which training ends.
        """
        held = (self.centroids, self.factors)
        parts = self.metric_parts() if torch.is_grad_enabled() else held
        return CentroidMetric._trusted(*parts, **self._metric_options())

    def metric_parts(self) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d d"]]:
        """Centroids and factors of the present networks, with gradients."""
        data = self.centroids_data
        return self.encode(data), self.metric_network(data)

    @torch.no_grad()
    def update_metric_(self, metric: CentroidMetric | None = None) -> None:
        """Write centroids and factors of the present networks, or of ``metric``, to the buffers."""
        centroids, factors = self.metric_parts() if metric is None else (metric.centroids, metric.factors)
        self.centroids.copy_(centroids)
        self.factors.copy_(factors)

    def after_step(self) -> None:
        """Keep the metric up to date; the training loop calls it after each step of the optimiser."""
        self.update_metric_()

    def keep(self, flow: Flow) -> None:
        """Note the flow whose residual `refuses` looks at."""
        self._flow = flow if self.training else None

    def refuses(self, loss: float, largest: Callable[[float], float] = float) -> bool:
        """Whether the batch has to be evaluated again, with half the step size.

        It does if the momentum's fixed point moved by more than 1e-3 in its last iteration, or if the loss is
        not finite, until ε is 1e-6. A bound with a smaller step is as valid as before.

        Args:
            loss: of the batch.
            largest: the largest value over all processes.
        """
        flow, self._flow = self._flow, None
        # A process may have no row of a batch.
        moved = None if flow is None else flow.info.momentum_residual
        found = math.nan if moved is None else float(moved.amax()) if len(moved) else 0.0
        sound = math.isfinite(loss) and math.isfinite(found)
        self.residual = largest(found if sound else math.inf)
        if not self.adapt_step_size or self.residual <= LARGEST_RESIDUAL:
            return False
        # Of a step size in float32, the smallest one is only about so small.
        if float(self.step_size) <= SMALLEST_STEP * (1 + 1e-6):
            return False
        halved = max(float(self.step_size) / 2, SMALLEST_STEP)
        self.step_size.fill_(halved)
        logger.info("fixed point moved by %.2g: step size halved to %.3g", self.residual, halved)
        return True

    @property
    def halvings(self) -> int:
        """How often ε was halved since the model was made."""
        return round(math.log2(self._first_step_size / float(self.step_size)))

    def remark(self) -> str:
        """What the end of training should say about the step size; empty if it is as it was."""
        count = self.halvings
        times = "once" if count == 1 else f"{count} times"
        return f"step size halved {times} to {float(self.step_size):.3g}" if count else ""

    def extra_repr(self) -> str:
        """Options, which tell one run from another."""
        return (
            f"{super().extra_repr()}, temperature={float(self.temperature):g}, "
            f"regularization={float(self.regularization):g}, reduction={self.reduction!r}, "
            f"adapt_step_size={self.adapt_step_size}"
        )


@torch.no_grad()
def check_network(network: object, x: Tensor, d: int) -> None:
    """Raise unless a network makes matrices ``(n, d, d)`` of rows."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"metric_network: expected a torch.nn.Module, got {type(network).__name__}")
    found = network(x[:1])
    if not isinstance(found, Tensor) or tuple(found.shape[1:]) != (d, d):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"metric_network: expected (n, {d}, {d}) for latent_dim={d}, got {got}")


def check_model(model: object) -> None:
    """Raise ``TypeError`` unless this is a model with a learned metric."""
    if not isinstance(model, RHVAE):
        raise TypeError(f"model: expected a pullback.models.RHVAE, got {type(model).__name__}")


def update_metric(model: RHVAE) -> CentroidMetric:
    """The learned metric of the present networks, with gradients to encoder and metric network.

    Example:
        >>> import torch
        >>> from pullback.models import MLP, VAE, Bernoulli, MetricNetwork
        >>> model = RHVAE(VAE(MLP(5, 4), MLP(2, 5), Bernoulli()), MetricNetwork(5, 2), torch.eye(5))
        >>> update_metric(model).factors.requires_grad
        True
    """
    check_model(model)
    return CentroidMetric(*model.metric_parts(), **model._metric_options())


def riemannian_hamiltonian_elbo(
    model: FlowModel,
    x: Float[Tensor, "b p"],
    x_out: Float[Tensor, "b q"] | None = None,
    *,
    metric: Any = None,
    noise: Float[Tensor, "b e"] | None = None,
    generator: torch.Generator | None = None,
    logp_weights: Sequence[float | int] = (1, 1, 1),
    logq_weights: Sequence[float | int] = (1, 1, 1),
    return_outputs: bool = False,
    **options: Any,
) -> Elbo:
    """Evidence lower bound on log p(x_out) through the flow on the learned metric.

    E[log p(x_out | z_K) + log p(z_K) + log N(ρ_K; 0, G(z_K)) - log q(z_0 | x) - log N(ρ_0; 0, G(z_0)/β_0)
    + (d/2) (log β_0 - log β_K)], valid for every schedule. Nothing is left out: log det G at the start
    depends on the parameters.

    Args:
        model: the model; one without a learned metric needs ``metric``.
        x: data that are encoded and drive the flow.
        x_out: data whose density is bounded; x if not given.
        metric: in place of the metric of the present networks, as from `update_metric`.
        noise: standard normal ``(b, 2d)`` for z_0 and ρ_0; drawn from ``generator`` if not given, and
            without either as `FlowModel.draw_noise` says.
        logp_weights: of (likelihood, position prior, momentum).
        logq_weights: of (posterior, momentum N(ρ_0; 0, G/β_0), tempering term).
        return_outputs: keep posterior, decoder output and flow.
        options: in place of the model's: n_steps, step_size, beta0, fixed_point_steps, tolerance, tempering,
            gradient, backprop, position_logprior, momentum_logprior.
    Returns:
        `pullback.models.elbo.Elbo`; with a weight other than 1 it is no bound and says so.
    Raises:
        ValueError: three weights are expected; x and x_out have as many rows; options out of range.
    Example:
        >>> import torch
        >>> from pullback.models import MLP, VAE, Bernoulli, MetricNetwork
        >>> model = RHVAE(VAE(MLP(5, 4), MLP(2, 5), Bernoulli()), MetricNetwork(5, 2), torch.eye(5))
        >>> riemannian_hamiltonian_elbo(model, torch.ones(3, 5)).per_sample.shape
        torch.Size([3])
    """
    return flow_elbo(
        model,
        x,
        x_out,
        metric=metric,
        noise=noise,
        generator=generator,
        logp_weights=logp_weights,
        logq_weights=logq_weights,
        return_outputs=return_outputs,
        **options,
    )


@dataclass(frozen=True)
class TrainingStep:
    """One step of an optimiser.

    Attributes:
        loss: before the step.
        terms: means of the parts of the bound, and of the regulariser.
        residual: last increment of the momentum's fixed point, the largest over the batch.
        step_size: ε that was used.
    """

    loss: float
    terms: dict[str, float]
    residual: float
    step_size: float


def training_step(
    model: RHVAE,
    x: Float[Tensor, "b p"],
    optimizer: torch.optim.Optimizer,
    *,
    x_out: Float[Tensor, "b q"] | None = None,
    loss: Callable[[RHVAE, Tensor, Tensor | None], Elbo] | None = None,
    generator: torch.Generator | None = None,
    regularizer: Callable[..., Tensor] | None = None,
    regularizer_strength: float = 1.0,
    regularizer_kwargs: dict[str, Any] | None = None,
) -> TrainingStep:
    """Loss, backward, optimiser, `update_metric_`, in a loop of your own.

    The batch is evaluated again with half the step size and the same noise where `RHVAE.refuses` says so. If
    the loss is not finite in the end, weights and step size stay as they were.

    Args:
        model: the model; changed in place.
        x: a batch.
        optimizer: of the model's parameters.
        x_out: see `riemannian_hamiltonian_elbo`.
        loss: (model, x, x_out) -> `Elbo` with outputs, in place of `riemannian_hamiltonian_elbo`.
        generator: source of the noise; if not given, every step draws other noise (`FlowModel.draw_noise`).
        regularizer: a function of the outputs, with ``regularizer_kwargs``, to a number that is added
            ``regularizer_strength`` times.
    Example:
        >>> import torch
        >>> from pullback.models import MLP, VAE, Bernoulli, MetricNetwork
        >>> model = RHVAE(VAE(MLP(5, 4), MLP(2, 5), Bernoulli()), MetricNetwork(5, 2), torch.eye(5))
        >>> training_step(model, torch.ones(3, 5), torch.optim.Adam(model.parameters())).step_size
        0.01
    """
    check_model(model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}")
    first, noise = float(model.step_size), model.draw_noise(x, generator) if loss is None else None
    while True:
        if loss is None:
            bound = riemannian_hamiltonian_elbo(
                model, x, x_out, noise=noise, path_gradient=model.path_gradient, return_outputs=True
            )
        else:
            bound = loss(model, x, x_out)
        total, terms = -bound.value, dict(bound.terms)
        if regularizer is not None:
            terms["regularizer"] = regularizer(bound.outputs, **(regularizer_kwargs or {}))
            total = total + regularizer_strength * terms["regularizer"]
        model._flow = None if bound.outputs is None else bound.outputs.flow
        used, value = float(model.step_size), float(total.detach())
        if bound.outputs is None or not model.refuses(value):
            break
    if math.isfinite(value):
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        model.update_metric_()
    else:
        model.step_size.fill_(first)
    rows = torch.stack([term.detach().expand(len(x)) for term in terms.values()])
    means = dict(zip(terms, rows.mean(1).tolist(), strict=True))
    return TrainingStep(value, means, model.residual, used)
