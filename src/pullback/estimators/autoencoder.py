"""The autoencoder as a scikit-learn estimator."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pullback import models
from pullback.estimators.base import LatentModel
from pullback.estimators.samples import refuse_options
from pullback.inputs import Table


class Autoencoder(LatentModel):
    """Reconstruct data through a few latent coordinates.

    Training minimises the mean of -log p(x | decoder(encoder(x))); `transform` is the encoder.

    Args:
        latent_dim: number of latent coordinates.
        hidden: widths of the hidden layers of the default encoder; the decoder has the same. For images
            (n, channels, height, width) of 16 pixels a side or more, two convolutions stand before them, and
            the last width is used.
        activation: of the default networks, by name or class; smooth ones have a curvature.
        normalization: "none", "batch", or "magnitude" (tables only); see `pullback.models.MLP`.
        encoder, decoder: your own modules, ``(n, p) -> (n, latent_dim)`` and ``(n, latent_dim) -> (n, p)``
            (or as many outputs as the likelihood asks for). They are copied and never changed.
        likelihood: "gaussian" (one noise scale, learned), "bernoulli" (data 0 or 1), "poisson" or
            "negative_binomial" (counts; the encoder is given log-normalised counts), or a module of
            `pullback.models`: Categorical, Bernoulli(strict=False) for grey values, ...
        scale: units of the network, fitted on the training rows: "auto" ("global" for Gaussian data, else
            "none"), "global" (centred and divided by one number: distances keep their proportions),
            "standard", "minmax", "maxabs", "center", "none", or a scaler of scikit-learn.
        penalties: objects of `pullback.penalties` added to the loss.
        partition: a `SubspacePartition`, which reserves latent coordinates for known quantities.
        max_epochs, batch_size, lr, lr_schedule, weight_decay: of the optimiser; see
            `pullback.training.TrainingOptions`.
        gradient_clip: largest norm of the gradient. The default touches no ordinary step; it keeps an outlier
            (exp of an extrapolated log σ) from throwing the weights away. None never clips.
        patience: epochs without improvement on held-out rows before training stops; None trains to the end.
        validation_fraction: share of rows held out (none of fewer than 20 rows).
        device: "auto", "cpu", "cuda", ...
        precision: None is that of the data; "bf16-mixed" and others of Lightning Fabric.
        checkpoint_dir: folder for checkpoints; with ``resume=True`` a fit continues from the last one.
        resume: see ``checkpoint_dir``.
        progress: show a progress bar; None does so in a terminal.
        callbacks: functions (step, loss, estimator) called after each epoch, as for `ParametricUMAP`.
        random_state: int, RandomState or None. The same one gives the same bits.

    Attributes:
        code_mean_, code_factor_: Gaussian N(mean, L Lᵀ) of the training codes, from which `sample` draws.

    `sample` has one method: "prior", the Gaussian of the training codes (Ghosh et al. 2020, ex-post density
    estimation). All other attributes: `LatentModel`.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
        >>> model = Autoencoder(2, hidden=(16,), max_epochs=5, progress=False, random_state=0).fit(X)
        >>> z = model.transform(X)
        >>> z.shape, model.inverse_transform(z).shape
        ((60, 2), (60, 5))
    """

    STATE_ARRAYS: ClassVar[tuple[str, ...]] = ("code_mean_", "code_factor_")

    code_mean_: np.ndarray
    code_factor_: np.ndarray

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

    def _build(self, likelihood: nn.Module, generator: torch.Generator) -> nn.Module:
        encoder = self._new_encoder(self.latent_dim, generator)
        decoder = self._new_decoder(likelihood, generator)
        return models.Autoencoder(encoder, decoder, likelihood, latent_dim=self.latent_dim)

    def _weights(self, steps_per_epoch: int) -> dict[str, Any]:
        return {}

    def _log_density(self, x: Tensor) -> Tensor:
        return self.module_.likelihood.log_prob(x, self.module_.decode(self.module_.encode(x)))

    def _after_training(self, table: Table) -> None:
        self.code_mean_, self.code_factor_ = fit_gaussian(self.embedding_)

    def _draw(
        self,
        n: int,
        method: str,
        table: Table | None,
        generator: torch.Generator,
        options: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        refuse_options(method, options)
        if table is not None:
            raise ValueError(
                "X: expected None for method='prior', got data; it draws from the training codes"
            )
        mean, factor = torch.from_numpy(self.code_mean_), torch.from_numpy(self.code_factor_)
        noise = torch.randn(n, len(mean), generator=generator, dtype=mean.dtype)
        log_volume = torch.linalg.slogdet(factor).logabsdet
        log_density = -0.5 * (noise.square().sum(1) + len(mean) * math.log(2 * math.pi)) - log_volume
        return mean + noise @ factor.T, log_density, {}


def fit_gaussian(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and a factor L of the covariance L Lᵀ of points ``(n, d)``.

    Directions without spread are given a millionth of the largest, so that the density exists.
    """
    wide = z.astype(np.float64)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(wide, rowvar=False)))
    largest = float(values.max()) if values.max() > 0 else 1.0
    floor = 1e-12 * largest
    factor = vectors * np.sqrt(np.maximum(values, floor))
    return wide.mean(axis=0).astype(z.dtype), factor.astype(z.dtype)
