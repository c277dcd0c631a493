"""The Hamiltonian VAE as a scikit-learn estimator."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pullback import models
from pullback.estimators.flows import flow_bound, flow_ends, flow_options, shortest
from pullback.estimators.variational import VariationalModel
from pullback.inputs import Table


class HVAE(VariationalModel):
    """A VAE whose posterior is refined by a tempered Hamiltonian flow, leapfrog steps in flat space.

    z_0 ~ q(z | x) and a momentum ρ_0 are carried to z_K, ρ_K; training maximises the bound
    E[log p(x, z_K) N(ρ_K; 0, I) - log q(z_0 | x) N(ρ_0; 0, I/β_0) - (d/2) log(β_K/β_0)]. `transform` gives
    the means of q(z_0 | x); `score_samples` the bound.

    A. L. Caterini, A. Doucet and D. Sejdinovic, Hamiltonian variational auto-encoder, NeurIPS 2018.

    Args:
        latent_dim, hidden, activation, normalization, encoder, decoder, likelihood, scale: as for `VAE`.
        n_steps: leapfrog steps of the flow.
        step_size: ε of a step.
        beta0: inverse temperature at the start, in (0, 1].
        tempering: "quadratic" (up to 1), "null" (β_0 throughout), or a function (beta0, k, n_steps) -> β_k.
        learn_step_size, learn_beta0: train ε and β_0 with the model.
        beta: weight of the KL term, a number or a function of the step. With another weight than 1 the loss
            is no bound; `score_samples` always is one.
        warmup_epochs: epochs over which the weight rises from 0 to ``beta``.
        free_bits: nats of the KL term per latent coordinate that cost nothing; a flow's KL term is not split
            over coordinates, so that they are counted together.
        penalties, partition: as for `VAE`; penalties see the end points of the flow.
        max_epochs, batch_size, lr, lr_schedule, weight_decay, gradient_clip, patience: as for `VAE`.
        validation_fraction, device, precision, checkpoint_dir, resume, progress, callbacks, random_state: as
            for `VAE`.

    Attributes:
        step_size_, beta0_: ε and β_0 of the trained model.

    `sample` has two methods: "prior", z ~ N(0, I); and "posterior", draws of q(z_0 | x) of the rows of ``X``
    in turn, carried by the flow. All other attributes: `LatentModel`.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
        >>> model = HVAE(2, hidden=(16,), max_epochs=3, progress=False, random_state=0).fit(X)
        >>> np.asarray(model.sample(3, method="posterior", X=X, random_state=0)).shape
        (3, 5)
    """

    STATE_VALUES: ClassVar[tuple[str, ...]] = ("step_size_", "beta0_")

    step_size_: float
    beta0_: float

    def __init__(
        self,
        latent_dim: Any = 2,
        *,
        hidden: Any = (128, 128),
        activation: Any = "silu",
        normalization: Any = "none",
        encoder: Any = None,
        decoder: Any = None,
        likelihood: Any = "gaussian",
        scale: Any = "auto",
        n_steps: Any = 3,
        step_size: Any = 1e-2,
        beta0: Any = 0.3,
        tempering: Any = "quadratic",
        learn_step_size: Any = False,
        learn_beta0: Any = False,
        beta: Any = 1.0,
        warmup_epochs: Any = 0,
        free_bits: Any = 0.0,
        penalties: Any = (),
        partition: Any = None,
        max_epochs: Any = 200,
        batch_size: Any = 128,
        lr: Any = 2e-3,
        lr_schedule: Any = "constant",
        weight_decay: Any = 0.0,
        gradient_clip: Any = 100.0,
        patience: Any = 30,
        validation_fraction: Any = 0.1,
        device: Any = "auto",
        precision: Any = None,
        checkpoint_dir: Any = None,
        resume: Any = False,
        progress: Any = None,
        callbacks: Any = None,
        random_state: Any = None,
    ):
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.activation = activation
        self.normalization = normalization
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.scale = scale
        self.n_steps = n_steps
        self.step_size = step_size
        self.beta0 = beta0
        self.tempering = tempering
        self.learn_step_size = learn_step_size
        self.learn_beta0 = learn_beta0
        self.beta = beta
        self.warmup_epochs = warmup_epochs
        self.free_bits = free_bits
        self.penalties = penalties
        self.partition = partition
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.gradient_clip = gradient_clip
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.device = device
        self.precision = precision
        self.checkpoint_dir = checkpoint_dir
        self.resume = resume
        self.progress = progress
        self.callbacks = callbacks
        self.random_state = random_state

    def _assemble(self, vae: models.VAE, generator: torch.Generator) -> nn.Module:
        learned = {"learn_step_size": self.learn_step_size, "learn_beta0": self.learn_beta0}
        return models.HVAE(vae, **flow_options(self), **learned)

    def _free_bits(self) -> float:
        return self.free_bits * self.latent_dim

    def _log_density(self, x: Tensor) -> Tensor:
        return flow_bound(self.module_, x, self.SCORE_DRAWS)

    def _posterior(
        self, table: Table, rows: np.ndarray, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        ends = flow_ends(self.module_, table, self.scaling_, rows, generator)
        return ends.z, ends.log_density, {}

    def _after_training(self, table: Table) -> None:
        module = self.module_
        step_size = module.log_step_size.exp() if self.learn_step_size else module.step_size
        beta0 = torch.sigmoid(module.logit_beta0) if self.learn_beta0 else module.beta0
        self.step_size_, self.beta0_ = shortest(step_size), shortest(beta0)
