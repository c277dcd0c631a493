"""An embedding as chains that can be explained: raw features to coordinates, and back where it decodes."""

from typing import Any

import torch
from torch import nn

from pullback.attribution import Preprocessing
from pullback.estimators.chains import Chain, Rescale, code_names, dense, raw_names, read_codes
from pullback.estimators.evaluation import device_of
from pullback.estimators.reading import read_table


def embedding_chain(model: Any) -> Chain:
    """From raw rows to the embedding; the mean of the training data contributes nothing."""
    projection = model._projection
    axes = projection.components
    return Chain(
        model.module_.encoder,
        lambda X: dense(model, read_table(model, X, reset=False).rows(slice(None))),
        preprocessing=Preprocessing(
            projection.scaling.offset, 1 / projection.scaling.scale, matrix=axes, basis=axes
        ),
        baseline=dense(model, projection.scaling.offset),
        feature_names=raw_names(model),
        output_names=code_names(model),
    )


def unembedding_chain(model: Any) -> Chain:
    """From points of the embedding to data, through the decoder."""
    if model.module_.decoder is None:
        raise ValueError(
            "direction: expected 'encode' for a model without a decoder, got 'decode'; "
            "pass decoder=True and fit again"
        )
    projection, device = model._projection, device_of(model.module_)
    steps: list[nn.Module] = [model.module_.decoder]
    if projection.components is not None:
        back = nn.utils.skip_init(nn.Linear, projection.width, len(projection.scaling.offset), bias=False)
        back.weight = nn.Parameter(projection.components.T.contiguous(), requires_grad=False)
        steps.append(back)
    module = nn.Sequential(*steps, Rescale(projection.scaling)).to(device).eval()
    return Chain(
        module,
        lambda Z: dense(model, read_codes(model, Z)),
        baseline=dense(model, torch.from_numpy(model.embedding_.mean(axis=0))),
        feature_names=code_names(model),
        output_names=raw_names(model),
    )
