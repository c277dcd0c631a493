"""The networks of an embedding: made by name, or the user's own, and checked before they train."""

from typing import Any

import torch
from torch import Tensor, nn

from pullback.estimators.evaluation import device_of, evaluating
from pullback.estimators.networks import own_copy
from pullback.models.blocks import MLP
from pullback.models.encoders import create_encoder
from pullback.models.umap import UMAPModule

DECODER_WIDTHS = (128, 128, 128)


def new_module(
    model: Any, width: int, image_shape: tuple[int, int, int] | None, generator: torch.Generator
) -> UMAPModule:
    """Untrained networks as the options of a `pullback.ParametricUMAP` say.

    Args:
        model: the estimator.
        width: numbers that the encoder sees of a row.
        image_shape: of rows that are flattened images.
        generator: source of the weights.
    """
    if model.encoder is not None:
        encoder = own_copy("encoder", model.encoder)
    else:
        shape: Any = width if image_shape is None else image_shape
        options = dict(model.encoder_kwargs or {})
        encoder = create_encoder(
            model.encoder_name, shape, model.n_components, generator=generator, **options
        )
    return UMAPModule(encoder, _new_decoder(model, width, generator))


def _new_decoder(model: Any, width: int, generator: torch.Generator) -> nn.Module | None:
    if not wants_decoder(model):
        return None
    if isinstance(model.decoder, bool):
        # smooth, so that the metric that it pulls back has a curvature
        widths = DECODER_WIDTHS
        return MLP(model.n_components, width, hidden=widths, activation="silu", generator=generator)
    return own_copy("decoder", model.decoder)


def wants_decoder(model: Any) -> bool:
    """Whether a decoder is asked for."""
    return model.decoder is not None and model.decoder is not False


def check_widths(module: UMAPModule, rows: Any, d: int) -> None:
    """Raise ``ValueError`` unless encoder and decoder take and give rows of the right widths.

    Args:
        module: the networks.
        rows: what the encoder sees, a tensor or an object with ``rows(index)``.
        d: dimensions of the embedding.
    """
    some = rows[:2] if isinstance(rows, Tensor) else rows.rows(torch.arange(2))
    some = some.to(device_of(module))
    k = some.shape[1]
    steps: list[Any] = [("encoder", module.encode, some, k, d)]
    if module.decoder is not None:
        steps.append(("decoder", module.decode, some.new_zeros(2, d), d, k))
    with evaluating(module):
        for name, function, x, before, after in steps:
            wanted = f"{name}: expected a module (n, {before}) -> (n, {after})"
            try:
                found = tuple(function(x).shape)
            except (RuntimeError, TypeError) as error:
                raise ValueError(f"{wanted}, it failed on {tuple(x.shape)}: {error}") from error
            if found != (2, after):
                raise ValueError(f"{wanted}, got output {found} of 2 rows")
