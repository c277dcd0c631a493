"""Running a trained module over many rows: no gradients, evaluation mode, memory bounded by a chunk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pullback.estimators.projection import Projection
from pullback.estimators.scaling import Scaling, chunk_slices
from pullback.estimators.targets import most_likely_classes
from pullback.inputs import Table

WIDEST_LAYER = 512
"""Assumed width of the hidden layers when the rows of a chunk are counted."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the modes of all parts are as before afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def device_of(module: nn.Module) -> torch.device:
    """Where a module lives; the CPU if it has no parameters."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def over_rows(
    module: nn.Module,
    function: Callable[[Tensor], Tensor],
    table: Table,
    scaling: Scaling | Projection,
    *,
    draws: int = 1,
    rows: int | None = None,
) -> np.ndarray:
    """``function`` of the scaled rows, chunk by chunk, in the precision of the scaling.

    Args:
        module: put into evaluation mode meanwhile.
        function: scaled rows ``(b, p)`` to ``(b, ...)``.
        table: the data.
        scaling: to the units of the module.
        draws: copies of each row that the function makes.
        rows: most rows of a chunk; None bounds the memory alone.
    """
    device, dtype = device_of(module), scaling.dtype
    parts = []
    with evaluating(module):
        for part in chunk_slices(len(table), draws * max(table.n_features, WIDEST_LAYER), most=rows):
            x = scaling.apply(table.rows(part)).to(device=device, dtype=dtype)
            parts.append(function(x).cpu().numpy())
    return np.concatenate(parts)


def decoded(
    module: Any,
    z: Tensor,
    scaling: Scaling,
    *,
    library: float | None,
    generator: torch.Generator | None = None,
) -> np.ndarray:
    """Data ``(n, p)`` at latent points, in data units: expected, or drawn where there is a generator.

    Args:
        module: a model of `pullback.models`.
        z: latent points ``(n, d)``.
        scaling: to the units of the module.
        library: total of a row of counts, where the likelihood asks for one.
        generator: source of the likelihood's noise.
    """
    device, dtype = device_of(module), scaling.offset.dtype
    width, likelihood = len(scaling.offset), module.likelihood
    parts = []
    with evaluating(module):
        for part in chunk_slices(len(z), max(width, WIDEST_LAYER)):
            params = module.decode(z[part].to(device=device, dtype=dtype))
            if generator is None:
                y = likelihood.mean(params, library=library)
            else:
                y = likelihood.sample(params, generator, library=library)
            if y.shape[1] != width:
                parts.append(most_likely_classes(y.cpu().numpy(), likelihood))
            else:
                parts.append(scaling.undo(y.cpu()).numpy())
    return np.concatenate(parts)


def check_networks(module: Any, x: Tensor) -> None:
    """Raise ``ValueError`` unless encoder and decoder take and give rows of the widths that the model needs.

    Args:
        module: an untrained model.
        x: a few scaled rows.
    """
    width = module.likelihood.n_params(x.shape[1])
    d = module.latent_dim
    with evaluating(module):
        z = _tried("encoder", module.encode, x, f"a module (n, {x.shape[1]}) -> codes of latent_dim={d}")
        wanted = f"a module (n, {d}) -> (n, {width})"
        params = _tried("decoder", module.decode, z, wanted)
    if tuple(params.shape) != (len(x), width):
        raise ValueError(
            f"decoder: expected {wanted} for the {type(module.likelihood).__name__} likelihood, "
            f"got output {tuple(params.shape)}"
        )


def _tried(name: str, function: Callable[[Tensor], Tensor], x: Tensor, expected: str) -> Tensor:
    try:
        return function(x)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name}: expected {expected}, it failed on {tuple(x.shape)}: {error}") from error
