"""The variational autoencoder as a scikit-learn estimator."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pullback import models
from pullback.estimators.evaluation import over_rows
from pullback.estimators.variational import VariationalModel, antithetic_nodes, log_normal
from pullback.inputs import Table


class VAE(VariationalModel):
    """Latent variable model of data, p(x | z) with z ~ N(0, I), and an encoder for its posterior.

    Training maximises the evidence lower bound E_q[log p(x | z)] - beta KL(q(z | x) || N(0, I)); `transform`
    gives the posterior means.

    D. P. Kingma and M. Welling, Auto-encoding variational Bayes, ICLR 2014; with a learned noise scale:
    O. Rybkin, K. Daniilidis and S. Levine, Simple and effective VAE training with calibrated decoders, 2021.

    Args:
        latent_dim: number of latent coordinates.
        hidden: widths of the hidden layers of the default encoder; the decoder has the same. For images
            (n, channels, height, width) of 16 pixels a side or more, two convolutions stand before them, and
            the last width is used.
        activation: of the default networks, by name or class; smooth ones have a curvature.
        normalization: "none", "batch", or "magnitude" (tables only); see `pullback.models.MLP`.
        encoder, decoder: your own modules, ``(n, p) -> (n, 2 latent_dim)``, mean and log σ side by side, and
            ``(n, latent_dim) -> (n, p)`` (or as many outputs as the likelihood asks for). They are copied and
            never changed.
        likelihood: "gaussian" (one noise scale, learned), "bernoulli" (data 0 or 1), "poisson" or
            "negative_binomial" (counts; the encoder is given log-normalised counts), or a module of
            `pullback.models`: Categorical, Bernoulli(strict=False) for grey values, ...
        scale: units of the network, fitted on the training rows: "auto" ("global" for Gaussian data, else
            "none"), "global" (centred and divided by one number: distances keep their proportions),
            "standard", "minmax", "maxabs", "center", "none", or a scaler of scikit-learn.
        beta: weight of the KL divergence, a number or a function of the step.
        warmup_epochs: epochs over which the weight rises from 0 to ``beta``.
        free_bits: nats of KL per coordinate that cost nothing.
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

    `sample` has two methods: "prior", z ~ N(0, I); and "posterior", z ~ q(z | x) of the rows of ``X``, taken
    in turn. All attributes: `LatentModel`.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
        >>> model = VAE(2, hidden=(16,), max_epochs=5, progress=False, random_state=0).fit(X)
        >>> model.transform(X).shape, np.asarray(model.sample(3, random_state=0)).shape
        ((60, 2), (3, 5))
        >>> model.metric().tensor(torch.zeros(1, 2)).shape
        torch.Size([1, 2, 2])
    """

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
        return vae

    def _log_density(self, x: Tensor) -> Tensor:
        """Evidence lower bound, its expectation over the same latent noise for every row.

        One set of nodes makes the bound of a row independent of the rows around it.
        """
        model, q = self.module_, self.module_.posterior(x)
        noise = antithetic_nodes(self.SCORE_DRAWS, model.latent_dim).to(x)
        z = q.mean + torch.exp(q.log_std) * noise.unsqueeze(1)
        params = model.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return model.likelihood.log_prob(x, params).mean(0) - q.kl().sum(1)

    def _posterior(
        self, table: Table, rows: np.ndarray, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        moments = torch.from_numpy(over_rows(self.module_, self._moments, table, self.scaling_)[rows])
        mean, log_std = moments.unbind(1)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + torch.exp(log_std) * noise, log_normal(noise) - log_std.sum(1), {}

    def _moments(self, x: Tensor) -> Tensor:
        q = self.module_.posterior(x)
        return torch.stack([q.mean, q.log_std], dim=1)
