"""The Riemannian Hamiltonian VAE as a scikit-learn estimator."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from pullback import models
from pullback.estimators.anchors import choose_anchors
from pullback.estimators.evaluation import device_of
from pullback.estimators.flows import flow_bound, flow_ends, flow_options, judge_flow, shortest
from pullback.estimators.networks import make_metric_network, read_widths
from pullback.estimators.sampling import posterior_draws, prior_volume_draws, volume_draws
from pullback.estimators.variational import VariationalModel, check_data
from pullback.inputs import Table

LEAST_COVERAGE = 0.05
PRECISIONS = (None, "32-true", "64-true")


class RHVAE(VariationalModel):
    """A VAE that learns a metric of its latent space, on which a Hamiltonian flow refines the posterior.

    The metric is g⁻¹(z) = s Σ_i exp(-|z - c_i|²/T²) L_i L_iᵀ + λ I: centroids c_i are the codes of chosen
    rows of the data, and a network gives the factors L_i of the same rows. `metric` returns it, for
    `pullback.geometry`; `sample` draws from its volume, which is where the data are. `transform` gives the
    means of q(z_0 | x); `score_samples` the bound through the flow.

    C. Chadebec, C. Mantoux and S. Allassonnière, Geometry-aware Hamiltonian variational auto-encoder, 2020.

    Args:
        latent_dim, hidden, activation, normalization, encoder, decoder, likelihood, scale: as for `VAE`.
        n_steps: leapfrog steps of the flow.
        step_size: ε of a step, halved while training where the implicit steps do not converge.
        beta0: inverse temperature at the start, in (0, 1].
        tempering: "quadratic" (up to 1), "null" (β_0 throughout), or a function (beta0, k, n_steps) -> β_k.
        temperature: T, the reach of a centroid in latent units; √latent_dim if None.
        regularization: λ, of the metric far from all centroids.
        reduction: "mean" (s = 1/N) or "sum" (s = 1).
        n_centroids: how many rows the metric is anchored at; None is 64, or all training rows where there are
            fewer.
        centroids: which rows of the training data: "kmedoids" (rows nearest to centres of k-means), "kmeans"
            (the centres), "random", "all"; or the rows themselves, data as for ``fit``.
        metric_hidden: widths of the hidden layers of the network of the factors; for images of 16 pixels a
            side or more, two convolutions stand before the last of them.
        fixed_point_steps: iterations of each implicit step.
        backprop: "truncated" takes the fixed points of the implicit steps as constants beyond their start;
            "exact" differentiates through all iterations. The bound is the same, and so was its value after
            training wherever it was measured; with the truncated gradient, which is biased, a step costs a
            fifth less and the metric stays more even over the centroids, so that "volume" draws more like
            the data.
        adapt_step_size: whether ε may be halved.
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
        centroids_data_: rows that the metric is anchored at, in data units ``(N, p)``.
        step_size_: ε of the trained model.
        residual_: by how much the fixed points still moved in their last iteration, the largest over
            training rows.
        coverage_: median over the training codes of max_i exp(-|z - c_i|²/T²); near 0 the metric does not
            reach the data.

    `sample` has four methods. "prior": z ~ N(0, I). "posterior": draws of q(z_0 | x) of the rows of ``X`` in
    turn, carried by the flow. "volume": (det g)^-½ within reach of the centroids, by Hamiltonian Monte Carlo.
    "rhmc": Riemannian Hamiltonian Monte Carlo on the exact posterior p(z | x) of the rows of ``X`` in turn,
    or without ``X`` on (det g)^-½ N(0, I). Markov chains run in double precision, take ``options`` (see
    `pullback.dynamics.volume_sampler` and `sample_rhmc`), and put their diagnostics into the result. All
    other attributes: `LatentModel`.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
        >>> model = RHVAE(2, hidden=(16,), max_epochs=3, progress=False, random_state=0).fit(X)
        >>> model.metric().inverse(torch.zeros(1, 2)).shape
        torch.Size([1, 2, 2])
        >>> samples = model.sample(3, method="volume", random_state=0)
        >>> samples.x.shape, samples.diagnostics["converged"]
        ((3, 5), True)
    """

    STATE_ARRAYS: ClassVar[tuple[str, ...]] = ("centroids_data_",)
    STATE_VALUES: ClassVar[tuple[str, ...]] = ("step_size_", "residual_", "coverage_")
    METHODS: ClassVar[tuple[str, ...]] = ("prior", "posterior", "volume", "rhmc")
    METRICS: ClassVar[tuple[str, ...]] = ("learned", "pullback", "euclidean")

    centroids_data_: np.ndarray
    step_size_: float
    residual_: float
    coverage_: float

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
        temperature: Any = None,
        regularization: Any = 1e-2,
        reduction: Any = "mean",
        n_centroids: Any = None,
        centroids: Any = "kmedoids",
        metric_hidden: Any = (128,),
        fixed_point_steps: Any = 3,
        backprop: Any = "truncated",
        adapt_step_size: Any = True,
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
        self.temperature = temperature
        self.regularization = regularization
        self.reduction = reduction
        self.n_centroids = n_centroids
        self.centroids = centroids
        self.metric_hidden = metric_hidden
        self.fixed_point_steps = fixed_point_steps
        self.backprop = backprop
        self.adapt_step_size = adapt_step_size
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

    def _before_building(self, table: Table, seed: int) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision: expected one of {', '.join(map(repr, PRECISIONS))}, in which a metric can be "
                f"factorised, got {self.precision!r}"
            )
        self.centroids_data_ = choose_anchors(self, table, seed)

    def _assemble(self, vae: models.VAE, generator: torch.Generator) -> nn.Module:
        anchors = self.scaling_.apply(torch.from_numpy(self.centroids_data_))
        network = self._new_metric_network(generator)
        return models.RHVAE(
            # the networks are made in single precision, whatever the data are in
            vae.to(anchors.dtype),
            network.to(anchors.dtype),
            anchors,
            temperature=self.temperature,
            regularization=self.regularization,
            reduction=self.reduction,
            fixed_point_steps=self.fixed_point_steps,
            backprop=self.backprop,
            adapt_step_size=self.adapt_step_size,
            **flow_options(self),
        )

    def _new_metric_network(self, generator: torch.Generator) -> nn.Module:
        return self._seen_by_encoder(
            make_metric_network(
                self._network_options(),
                self.n_features_in_,
                self.latent_dim,
                read_widths("metric_hidden", self.metric_hidden),
                generator=generator,
            )
        )

    def _free_bits(self) -> float:
        return self.free_bits * self.latent_dim

    def _log_density(self, x: Tensor) -> Tensor:
        return flow_bound(self.module_, x, self.SCORE_DRAWS)

    def _draw(
        self,
        n: int,
        method: str,
        table: Table | None,
        generator: torch.Generator,
        options: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        if method not in ("volume", "rhmc"):
            return super()._draw(n, method, table, generator, options)
        if method == "volume":
            check_data(method, table, needed=False)
        # Apple's GPUs know no float64.
        own = device_of(self.module_)
        device = torch.device("cpu") if own.type == "mps" else own
        model = self._module_in(torch.float64, device)
        metric = model.metric()
        seed = int(torch.randint(2**62, (), generator=generator))
        chance = torch.Generator(device).manual_seed(seed)
        if method == "volume":
            found = volume_draws(metric, n, chance, options)
        elif table is None:
            found = prior_volume_draws(metric, n, chance, options)
        else:
            rows = np.arange(n) % len(table)
            x = self.scaling_.apply(table.rows(slice(0, n))).to(device=device, dtype=torch.float64)
            z, log_density, diagnostics = posterior_draws(model, metric, x, rows, chance, options)
            found = z, log_density, {"rows": rows, **diagnostics}
        z, log_density, diagnostics = found
        return z.to(self.scaling_.offset.dtype), log_density.to(self.scaling_.offset.dtype), diagnostics

    def _posterior(
        self, table: Table, rows: np.ndarray, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        ends = flow_ends(self.module_, table, self.scaling_, rows, generator)
        return ends.z, ends.log_density, ends.diagnostics()

    def _after_training(self, table: Table) -> None:
        # Normalisation by batches would have left a metric that this mode of the networks does not have.
        self.module_.update_metric_()
        self.step_size_ = shortest(self.module_.step_size)
        codes = torch.from_numpy(self.embedding_[self.training_index_])
        metric = self._module_in(None, "cpu").metric()
        self.coverage_ = float(metric.coverage(codes).median())
        found = judge_flow(self.module_, table, self.scaling_, self.training_index_).diagnostics()
        self.residual_ = found["residual"]
        if not found["converged"]:
            warnings.warn(found["message"], ConvergenceWarning, stacklevel=4)
        if self.coverage_ < LEAST_COVERAGE:
            warnings.warn(
                f"the learned metric equals λI at the data (median coverage {self.coverage_:.2g}); "
                f"raise temperature (now {float(self.module_.temperature):.3g})",
                ConvergenceWarning,
                stacklevel=4,
            )
