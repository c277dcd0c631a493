"""A fitted estimator as a chain that can be explained: how rows are read, what scales them, the network.

An estimator takes part by a method ``_encoder_chain() -> Chain``, and by ``_decoder_chain() -> Chain`` where
it maps latent points back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.attribution import Preprocessing
from pullback.estimators.evaluation import device_of, evaluating
from pullback.estimators.scaling import Scaling
from pullback.estimators.targets import check_targets
from pullback.inputs import read_input
from pullback.jets import register_jet_rule
from pullback.jets.rules import Affine
from pullback.models.likelihoods import Bernoulli, Gaussian


@dataclass(frozen=True, eq=False)
class Chain:
    """A map with everything that stands around it.

    Attributes:
        module: (n, k) -> (n, d), in eval mode, on flat rows.
        read: what a user hands in to dense rows (n, p), in the precision and on the device of the module.
        preprocessing: from raw rows to what the module sees, or None.
        baseline: point whose features contribute nothing, (p,), or None where none is known.
        feature_names, output_names: of the p inputs and the d outputs, or None.
        ignores_magnitude: whether it is meant to (counts whose depth is no property of the sample).
    """

    module: nn.Module
    read: Callable[[Any], Tensor]
    preprocessing: Preprocessing | None = None
    baseline: Float[Tensor, " p"] | None = None
    feature_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    ignores_magnitude: bool = False


class Leading(nn.Module):
    """The first ``width`` features: the means of a network that gives means and spreads.

    Example:
        >>> Leading(1)(torch.tensor([[1.0, 2.0]])).tolist()
        [[1.0]]
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x: Float[Tensor, "n q"]) -> Float[Tensor, "n d"]:
        return x[..., : self.width]


class Rescale(nn.Module):
    """x ⊙ scale + offset: units of the network to data units.

    Example:
        >>> Rescale(Scaling(torch.tensor([1.0]), torch.tensor([2.0])))(torch.tensor([[3.0]])).tolist()
        [[7.0]]
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, scaling: Scaling):
        super().__init__()
        self.register_buffer("scale", scaling.scale)
        self.register_buffer("offset", scaling.offset)

    def forward(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        return x * self.scale + self.offset


class Encoding(nn.Module):
    """`encode` of a model as a module, for encoders whose own output is something else."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
        return self.model.encode(x)  # type: ignore[operator]


class Expected(nn.Module):
    """Expected data of a likelihood, with one total where the data are counts."""

    def __init__(self, likelihood: nn.Module, library: float | None):
        super().__init__()
        self.likelihood, self.library = likelihood, library

    def forward(self, params: Float[Tensor, "n q"]) -> Float[Tensor, "n p"]:
        return self.likelihood.mean(params, library=self.library)  # type: ignore[operator]


register_jet_rule(Leading, Affine(lambda module, x: x[..., : module.width], fresh=False))
register_jet_rule(Rescale, Affine(lambda module, x: x * module.scale))


def encoder_chain(model: Any) -> Chain:
    """From raw rows to the codes of a latent-variable model."""
    mean = getattr(model, "feature_mean_", None)
    return Chain(
        encoder_module(model.module_, model.scaling_.offset),
        lambda X: read_rows(model, X),
        preprocessing=Preprocessing(model.scaling_.offset, 1 / model.scaling_.scale),
        baseline=None if mean is None else dense(model, torch.from_numpy(mean)),
        feature_names=raw_names(model),
        output_names=code_names(model),
        ignores_magnitude=model.library_ is not None,
    )


def decoder_chain(model: Any) -> Chain:
    """From latent points to expected data, in data units."""
    likelihood, library = model.module_.likelihood, model._decoding_library()
    p = len(model.scaling_.offset)
    if type(likelihood) is Gaussian:
        mean = [Leading(p)] if likelihood.scale == "network" else []
    else:
        mean = [nn.Sigmoid()] if type(likelihood) is Bernoulli else [Expected(likelihood, library)]
    to_data = Rescale(model.scaling_).to(device_of(model.module_))
    module = nn.Sequential(model.module_.decoder, *mean, to_data).eval()
    with evaluating(module):
        width = module[:-1](dense(model, torch.zeros(1, model._n_features_out))).shape[1]
    if width != p:
        raise ValueError(
            f"direction: expected a model whose decoder gives {p} numbers a row, got {width} "
            f"({type(likelihood).__name__}: classes have no expected value)"
        )
    return Chain(
        module,
        lambda Z: dense(model, read_codes(model, Z)),
        baseline=dense(model, torch.from_numpy(model.embedding_.mean(axis=0))),
        feature_names=code_names(model),
        output_names=raw_names(model),
    )


def encoder_module(model: Any, like: Tensor) -> nn.Module:
    """The encoder as layers that give the codes, as far as it can be taken apart."""
    d = model.latent_dim
    probe = torch.zeros(1, len(like), dtype=like.dtype, device=device_of(model))
    with evaluating(model):
        output = model.encoder(probe)
        if isinstance(output, Tensor) and output.ndim == 2:
            means = model.encode(probe)
            if output.shape[1] == d and torch.equal(output, means):
                return model.encoder
            if output.shape[1] == 2 * d and torch.equal(output[:, :d], means):
                return nn.Sequential(model.encoder, Leading(d)).eval()
    return Encoding(model).eval()


def dense(model: Any, rows: Tensor) -> Tensor:
    """Rows in the precision and on the device of a model."""
    return rows.to(device=device_of(model.module_), dtype=model.scaling_.offset.dtype)


def read_rows(model: Any, X: Any) -> Tensor:
    """Data as rows, checked as `transform` checks them."""
    table = model._read(X, reset=False)
    if model.library_ is not None:
        check_targets(table, model.scaling_, model.module_.likelihood)
    return dense(model, table.rows(slice(None)))


def read_codes(model: Any, Z: Any) -> Tensor:
    """Latent points as rows, their width checked."""
    table = read_input(Z, estimator=model)
    if table.n_features != model._n_features_out:
        raise ValueError(f"Z: expected (n, {model._n_features_out}), got {table.shape}")
    return table.rows(slice(None))


def raw_names(model: Any) -> tuple[str, ...] | None:
    """Names of the features that a model was fitted to; those of pixels say where they are."""
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        return tuple(str(name) for name in names)
    return None if model.image_shape_ is None else pixel_names(model.image_shape_)


def pixel_names(shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Names of the pixels of images (channels, height, width) as flat rows.

    Example:
        >>> pixel_names((1, 1, 2))
        ('pixel 0,0', 'pixel 0,1')
        >>> pixel_names((2, 1, 1))
        ('channel 0 pixel 0,0', 'channel 1 pixel 0,0')
    """
    places = np.ndindex(*shape)
    if shape[0] == 1:
        return tuple(f"pixel {row},{column}" for _, row, column in places)
    return tuple(f"channel {channel} pixel {row},{column}" for channel, row, column in places)


def code_names(model: Any) -> tuple[str, ...]:
    """Names of the latent coordinates."""
    return tuple(str(name) for name in model.get_feature_names_out())
