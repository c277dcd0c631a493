"""A VAE whose posterior is refined by a tempered Hamiltonian flow: what HVAE and RHVAE have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.draws import source_of
from pullback.dynamics import Flow, ModelPotential, quadratic_tempering, spherical_logprior, tempered_flow
from pullback.dynamics.leapfrog import Backprop, check_options
from pullback.dynamics.place import METHODS, Method, MomentumLogPrior
from pullback.dynamics.potential import LogPrior
from pullback.dynamics.tempering import Tempering, schedule
from pullback.models import marginal
from pullback.models.autoencoder import Evaluation
from pullback.models.elbo import LOG_PROPOSAL, LOG_TARGET, Elbo, check_weights, log_proposal, log_target
from pullback.models.marginal import LogLikelihood
from pullback.models.vae import VAE, GaussianPosterior
from pullback.validation import check_choice, check_positive, check_whole

FLOW_ROWS = 4096
"""Rows that flow at a time where nothing is trained."""


@dataclass(frozen=True)
class FlowOutput:
    """What a model with a flow makes of data.

    Attributes:
        encoder: q(z_0 | x).
        decoder: parameters of the likelihood at z_K.
        flow: the way from z_0 to z_K.
    """

    encoder: GaussianPosterior
    decoder: Tensor
    flow: Flow


class FlowModel(VAE):
    """Latent variable model p(x | z) N(z; 0, I); q(z_K | x) is q(z_0 | x) carried by a tempered flow.

    Args:
        vae: encoder, decoder and likelihood; its modules become this model's.
        n_steps: K, leapfrog steps.
        step_size: ε.
        beta0: inverse temperature at the start, in (0, 1].
        tempering: (beta0, k, K) -> β_k.
        fixed_point_steps: iterations of each implicit step.
        tolerance: of the fixed points; None takes exactly ``fixed_point_steps``.
        gradient, backprop: see `pullback.dynamics.generalized_leapfrog`.
        path_gradient: train with the gradient that leaves out the score of q(z_0 | x), whose mean is zero:
            its variance is much lower. The value of the bound is the same.
    """

    def __init__(
        self,
        vae: VAE,
        *,
        n_steps: int = 3,
        step_size: float = 1e-2,
        beta0: float = 0.3,
        tempering: Tempering = quadratic_tempering,
        fixed_point_steps: int = 3,
        tolerance: float | None = None,
        gradient: Method = "closed",
        backprop: Backprop = "exact",
        path_gradient: bool = True,
    ):
        if not isinstance(vae, VAE):
            raise TypeError(f"vae: expected a pullback.models.VAE, got {type(vae).__name__}")
        super().__init__(vae.encoder, vae.decoder, vae.likelihood, latent_dim=vae.latent_dim)
        schedule(tempering, beta0, n_steps)
        check_options(fixed_point_steps, tolerance, backprop, name="fixed_point_steps")
        check_choice("gradient", gradient, METHODS)
        check_positive("step_size", step_size)
        self.n_steps, self.fixed_point_steps = n_steps, fixed_point_steps
        self.tempering, self.tolerance = tempering, tolerance
        self.gradient, self.backprop = gradient, backprop
        self.path_gradient = path_gradient
        self._drawn = 0
        self.register_buffer("step_size", torch.tensor(float(step_size), dtype=torch.float64))
        self.register_buffer("beta0", torch.tensor(float(beta0), dtype=torch.float64))

    step_size: Tensor
    beta0: Tensor

    def extra_repr(self) -> str:
        """Options, which tell one run from another."""
        schedule = getattr(self.tempering, "__name__", type(self.tempering).__name__)
        return (
            f"n_steps={self.n_steps}, step_size={float(self.step_size):g}, beta0={float(self.beta0):g}, "
            f"tempering={schedule}, fixed_point_steps={self.fixed_point_steps}, tolerance={self.tolerance}, "
            f"gradient={self.gradient!r}, backprop={self.backprop!r}, path_gradient={self.path_gradient}"
        )

    @property
    def noise_features(self) -> int:
        """Standard normal numbers that a row needs: for z_0 and for ρ_0."""
        return 2 * self.latent_dim

    def draw_noise(
        self, x: Float[Tensor, "b p"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b e"]:
        """Standard normal ``(b, 2d)``, for z_0 and for ρ_0.

        Without a generator a model in training mode draws other numbers at every call (the same ones in the
        same order for every new model), because a bound that always sees the same noise is fitted to it. In
        evaluation mode every call gets the same.
        """
        if generator is None and self.training:
            generator = torch.Generator(device=x.device).manual_seed(self._drawn)
            self._drawn += 1
        noise = torch.empty(len(x), self.noise_features, dtype=x.dtype, device=x.device)
        return noise.normal_(generator=source_of(generator, x.device))

    @abstractmethod
    def flow_metric(self) -> Any:
        """The metric of the flow, with gradients to what it is made of where gradients are enabled."""

    def flow_options(self) -> dict[str, Any]:
        """The options of the model's flow."""
        return {
            "n_steps": self.n_steps,
            "step_size": self._step_size(),
            "beta0": self._beta0(),
            "fixed_point_steps": self.fixed_point_steps,
            "tolerance": self.tolerance,
            "tempering": self.tempering,
            "gradient": self.gradient,
            "backprop": self.backprop,
        }

    def _step_size(self) -> Any:
        return float(self.step_size)

    def _beta0(self) -> Any:
        return float(self.beta0)

    def flow(
        self,
        x: Float[Tensor, "b p"],
        noise: Float[Tensor, "b e"],
        *,
        metric: Any = None,
        position_logprior: LogPrior = spherical_logprior,
        momentum_logprior: MomentumLogPrior | None = None,
        **options: Any,
    ) -> FlowOutput:
        """Carry draws of q(z_0 | x) along the flow.

        Args:
            x: data; they drive the flow.
            noise: standard normal ``(b, 2d)``, for z_0 and for ρ_0.
            metric: in place of the model's.
            position_logprior, momentum_logprior: in place of N(0, I) and N(0, G).
            options: in place of the model's; see `flow_options`.
        """
        q = self.posterior(x)
        if noise.shape != (len(x), self.noise_features):
            raise ValueError(
                f"noise: expected ({len(x)}, {self.noise_features}) for z_0 and ρ_0, got {tuple(noise.shape)}"
            )
        first, second = noise.chunk(2, dim=1)
        flow = tempered_flow(
            q.sample(first),
            self.flow_metric() if metric is None else metric,
            potential=ModelPotential(self.decoder, self.likelihood, x, position_logprior),
            noise=second,
            momentum_logprior=momentum_logprior,
            **{**self.flow_options(), **options},
        )
        assert flow.decoder_output is not None
        return FlowOutput(q, flow.decoder_output, flow)

    def forward(
        self,
        x: Float[Tensor, "b p"],
        noise: Float[Tensor, "b e"] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> FlowOutput:
        """Posterior, flow, and decoder output at its end, for one draw of each row (see `draw_noise`)."""
        return self.flow(x, self.draw_noise(x, generator) if noise is None else noise)

    def reconstruct(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n r"]:
        """Expected data at the end of the flow without noise: from the posterior mean, at rest."""
        output = self.flow(x, x.new_zeros(len(x), self.noise_features))
        return self.likelihood.mean(output.decoder, library=self.likelihood.library_size(x))

    def evaluate(self, x: Float[Tensor, "b p"], noise: Float[Tensor, "b e"]) -> Evaluation:
        """Loss terms, the end points of the flow and the posterior means of a batch."""
        bound = flow_elbo(self, x, noise=noise, path_gradient=self.path_gradient, return_outputs=True)
        terms, output = bound.terms, bound.outputs
        self.keep(output.flow)
        prior = terms["position"] + terms["momentum"]
        kl = terms["posterior"] + terms["initial_momentum"] + terms["tempering"] - prior
        losses = {"reconstruction": -terms["likelihood"], "kl": kl}
        return Evaluation(terms=losses, z=output.flow.z_final, codes=output.encoder.mean)

    def keep(self, flow: Flow) -> None:
        """What a subclass notes about the flow of a batch."""

    def loss(
        self,
        x: Float[Tensor, "b p"],
        x_out: Float[Tensor, "b q"] | None = None,
        *,
        noise: Float[Tensor, "b e"] | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Float[Tensor, ""]:
        """-ELBO of a batch; options as for `flow_elbo`."""
        return -flow_elbo(self, x, x_out, noise=noise, generator=generator, **options).value

    def elbo(self, x: Float[Tensor, "b p"], noise: Float[Tensor, "b e"]) -> Float[Tensor, " b"]:
        """Evidence lower bound of each row with one draw, in nats."""
        return flow_elbo(self, x, noise=noise).per_sample

    @torch.no_grad()
    def log_likelihood(
        self,
        x: Float[Tensor, "b p"],
        n_samples: int = 200,
        method: Literal["importance", "quadrature"] = "importance",
        *,
        flow: bool = False,
        generator: torch.Generator | None = None,
        chunk_size: int | None = None,
        nodes: int = 201,
        radius: float = 6.0,
    ) -> LogLikelihood:
        """log p(x) of each row with a standard error; as for a VAE, and also through the flow.

        Args:
            x, n_samples, method, generator, chunk_size, nodes, radius: see `VAE.log_likelihood`.
            flow: "importance" weighs the ends of the flow instead of draws of q(z_0 | x).
        """
        if not flow or method == "quadrature":
            return super().log_likelihood(
                x,
                n_samples,
                method,
                generator=generator,
                chunk_size=chunk_size,
                nodes=nodes,
                radius=radius,
            )
        check_choice("method", method, ("importance", "quadrature"))
        check_whole("n_samples", n_samples)
        source, parts = source_of(generator, x.device), []
        for part in x.split(chunk_size or FLOW_ROWS):
            weights = []
            for draws in torch.arange(n_samples).split(max(1, FLOW_ROWS // max(1, len(part)))):
                noise = x.new_empty(len(draws) * len(part), self.noise_features).normal_(generator=source)
                bound = flow_elbo(self, part.repeat(len(draws), 1), noise=noise)
                weights.append(bound.per_sample.view(len(draws), len(part)))
            parts.append(torch.stack(marginal.log_mean_weight(torch.cat(weights))))
        value, error = torch.cat(parts, dim=1)
        return LogLikelihood(value, error, "importance")


def flow_elbo(
    model: FlowModel,
    x: Float[Tensor, "b p"],
    x_out: Float[Tensor, "b q"] | None = None,
    *,
    metric: Any = None,
    noise: Float[Tensor, "b e"] | None = None,
    generator: torch.Generator | None = None,
    logp_weights: Sequence[float | int] = (1, 1, 1),
    logq_weights: Sequence[float | int] = (1, 1, 1),
    position_logprior: LogPrior = spherical_logprior,
    momentum_logprior: MomentumLogPrior | None = None,
    path_gradient: bool = False,
    return_outputs: bool = False,
    **options: Any,
) -> Elbo:
    """The bound of a model with a flow; see `riemannian_hamiltonian_elbo`."""
    check_weights("logp_weights", logp_weights, LOG_TARGET)
    check_weights("logq_weights", logq_weights, LOG_PROPOSAL)
    if x_out is not None and len(x_out) != len(x):
        raise ValueError(f"x_out: expected {len(x)} rows like x, got {len(x_out)}")
    if noise is None:
        noise = model.draw_noise(x, generator)
    output = model.flow(
        x,
        noise,
        metric=metric,
        position_logprior=position_logprior,
        momentum_logprior=momentum_logprior,
        **options,
    )
    flow = output.flow
    assert flow.log_likelihood is not None
    fit = flow.log_likelihood if x_out is None else model.likelihood.log_prob(x_out, output.decoder)
    target = log_target(flow, fit, position_logprior=position_logprior, momentum_logprior=momentum_logprior)
    q, drawn = output.encoder, noise[:, : model.latent_dim]
    posterior = q.path_log_prob(flow.z_init, drawn) if path_gradient else q.log_prob_of(drawn)
    proposal = log_proposal(flow, posterior)
    terms = {**target, **proposal}
    weights = [*logp_weights, *(-weight for weight in logq_weights)]
    first, *others = zip(weights, terms.values(), strict=True)
    per_sample = first[1] if first[0] == 1 else first[0] * first[1]
    for weight, term in others:
        per_sample = torch.add(per_sample, term, alpha=weight)
    return Elbo(
        value=per_sample.mean(),
        per_sample=per_sample,
        terms=terms,
        outputs=output if return_outputs else None,
        is_bound=all(weight == 1 for weight in (*logp_weights, *logq_weights)),
    )
