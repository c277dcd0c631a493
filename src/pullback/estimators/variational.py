"""What the variational autoencoders share: the prior N(0, I), an encoder for q(z | x), a weighted KL term."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from pullback import models
from pullback.estimators.base import LatentModel
from pullback.estimators.samples import refuse_options
from pullback.inputs import Table
from pullback.training import LinearWarmup
from pullback.typing import Schedule
from pullback.validation import check_positive


class VariationalModel(LatentModel):
    """Base class of the variational autoencoders.

    A subclass says what its module makes of encoder, decoder and likelihood, what its bound is, and how
    its approximate posterior is drawn.
    """

    METHODS: ClassVar[tuple[str, ...]] = ("prior", "posterior")
    SCORE_DRAWS: ClassVar[int] = 32

    beta: Any
    warmup_epochs: int
    free_bits: float

    @abstractmethod
    def _assemble(self, vae: models.VAE, generator: torch.Generator) -> nn.Module:
        """The module, made of encoder, decoder and likelihood."""

    @abstractmethod
    def _posterior(
        self, table: Table, rows: np.ndarray, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """A draw of the approximate posterior for each of these rows, as `_draw` returns it."""

    def _build(self, likelihood: nn.Module, generator: torch.Generator) -> nn.Module:
        encoder = self._new_encoder(2 * self.latent_dim, generator)
        decoder = self._new_decoder(likelihood, generator)
        vae = models.VAE(encoder, decoder, likelihood, latent_dim=self.latent_dim)
        return self._assemble(vae, generator)

    def _weights(self, steps_per_epoch: int) -> dict[str, Any]:
        if not callable(self.beta):
            check_positive("beta", self.beta, zero=True)
        check_positive("warmup_epochs", self.warmup_epochs, zero=True)
        return {"kl": warmed_up(self.beta, self.warmup_epochs * steps_per_epoch)}

    def _free_bits(self) -> float:
        return self.free_bits

    def _draw(
        self,
        n: int,
        method: str,
        table: Table | None,
        generator: torch.Generator,
        options: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        refuse_options(method, options)
        check_data(method, table, needed=method == "posterior")
        if table is None:
            dtype = self.scaling_.offset.dtype
            z = torch.randn(n, self._n_features_out, generator=generator, dtype=dtype)
            return z, log_normal(z), {}
        rows = np.arange(n) % len(table)
        z, log_density, diagnostics = self._posterior(table, rows, generator)
        return z, log_density, {"rows": rows, **diagnostics}


def check_data(method: str, table: Table | None, *, needed: bool) -> None:
    """Raise ``ValueError`` where data are missing for a method, or where they are given to another."""
    if needed != (table is not None):
        wanted = "the data whose posterior is sampled" if table is None else "None"
        raise ValueError(f"X: expected {wanted} for method={method!r}")


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) of each row."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


def antithetic_nodes(count: int, dim: int) -> Tensor:
    """Standard normal points in pairs ± u, always the same: ``(count, dim)`` float64."""
    half = torch.randn(count // 2, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat([half, -half])


def warmed_up(beta: Any, steps: int) -> Any:
    """``beta``, or a schedule that raises it from 0 over the first ``steps``."""
    if steps == 0:
        return beta
    if not callable(beta):
        return LinearWarmup(steps, final=beta)
    ramp, schedule = LinearWarmup(steps), cast(Schedule, beta)
    return lambda step: ramp(step) * schedule(step)
