"""Constructor options as JSON and back: plain values, known objects, and classes that the user registered.

A saved model names its objects; it never contains their code. What is neither plain, nor known, nor
registered is left out by name, and whoever loads the model is told what to pass.
"""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback import ambient, penalties
from pullback.estimators.scaling import build_transformer, describe_transformer
from pullback.estimators.subspace_partition import SubspacePartition
from pullback.io import FormatError
from pullback.models.blocks import ACTIVATIONS
from pullback.models.likelihoods import Bernoulli, Categorical, Gaussian, NegativeBinomial, Poisson
from pullback.models.weighted import WeightedGaussian
from pullback.training import LinearWarmup

KIND = "$kind"
"""Key that tells a described object from a user's dictionary."""


@dataclass(frozen=True)
class Registration:
    """How to take an object apart into plain settings and to put it together again."""

    cls: type
    factory: Callable[..., Any]
    config: Callable[[Any], Mapping[str, Any]] | None = None

    def settings(self, value: Any) -> dict[str, Any]:
        """Keyword arguments with which ``factory`` makes ``value`` again, parameters aside."""
        if self.config is not None:
            return dict(self.config(value))
        return dict(value.config()) if callable(getattr(value, "config", None)) else {}


_REGISTERED: dict[str, Registration] = {}


def register_module(
    name: str,
    cls: type,
    *,
    factory: Callable[..., Any] | None = None,
    config: Callable[[Any], Mapping[str, Any]] | None = None,
) -> None:
    """Make models that use your own class savable and loadable under a name.

    Saving writes the name and the keyword arguments that rebuild the object; loading calls ``factory`` with
    them and fills in the stored parameters. Register in the program that saves and in the one that loads.

    Args:
        name: what the file will say.
        cls: your class: a module for ``encoder``, ``decoder`` or ``likelihood``, or any option of a model.
        factory: makes the object from keyword arguments; the class itself if not given.
        config: returns these keyword arguments, as plain values; the object's own ``config()`` if not given,
            and no arguments if it has none.

    Raises:
        ValueError: the name belongs to another class.
        TypeError: ``cls`` is not a class.

    Example:
        >>> from torch import nn
        >>> class Wide(nn.Sequential):
        ...     def __init__(self, width=8):
        ...         super().__init__(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 3))
        ...         self.width = width
        ...     def config(self):
        ...         return {"width": self.width}
        >>> register_module("wide", Wide)
    """
    if not isinstance(cls, type):
        raise TypeError(f"cls: expected a class, got {cls!r}; pass type(module)")
    if not isinstance(name, str) or not name:
        raise TypeError(f"name: expected a name for {cls.__name__}, got {name!r}")
    known = _REGISTERED.get(name)
    # A class defined again under its old name (a notebook cell run twice) replaces itself.
    if known and _full_name(known.cls) != _full_name(cls):
        raise ValueError(
            f"name: {name!r} belongs to {_full_name(known.cls)}, got {_full_name(cls)}; choose another"
        )
    _REGISTERED[name] = Registration(cls, factory or cls, config)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


_LIKELIHOODS: dict[type, tuple[str, ...]] = {
    Gaussian: ("scale",),
    Bernoulli: ("strict",),
    Poisson: ("library",),
    NegativeBinomial: ("dispersion", "library"),
    Categorical: ("n_classes", "one_hot", "n_features"),
    WeightedGaussian: ("weight",),
}
_PER_FEATURE = ("Gaussian", "NegativeBinomial")

_PARTS: dict[str, tuple[type, ...]] = {
    "penalty": (
        penalties.ARDPenalty,
        penalties.BlockOrthogonalityPenalty,
        penalties.DecoderIncoherencePenalty,
        penalties.HarmonicRoughnessPenalty,
        penalties.IsometryPenalty,
        penalties.IvaeRidgeMeanGaugePenalty,
        penalties.NestedPrefixPenalty,
        penalties.NuclearNormPenalty,
        penalties.OrderedBetaBernoulliPenalty,
        penalties.OrthogonalityPenalty,
        penalties.SoftmaxAssignmentSparsityPenalty,
        penalties.SumPenalty,
        penalties.TotalVariationPenalty,
    ),
    "latents": (penalties.LatentSampling,),
    "schedule": (penalties.ScalarWeightSchedule, LinearWarmup),
    "ambient": (
        ambient.Euclidean,
        ambient.Diagonal,
        ambient.Gaussian,
        ambient.LowRank,
        ambient.Bernoulli,
        ambient.Poisson,
        ambient.NegativeBinomial,
        ambient.Categorical,
        ambient.LearnedGaussian,
    ),
}
"""Objects that are made again from arguments that they hold under the arguments' names."""
DTYPES = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64}
LARGEST = 10_000
"""Entries up to which a tensor among the options is written out."""


def describe(name: str, value: Any) -> Any:
    """An option as JSON-able settings; what has none becomes ``{"$kind": "omitted", "class": ...}``.

    Raises:
        TypeError: a registered class asks for arguments that its settings do not give.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return describe(name, value.item())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [describe(name, item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: describe(name, item) for key, item in value.items()}
    for label, entry in _REGISTERED.items():
        if value is entry.cls:
            return {KIND: "class", "name": label}
        if type(value) is entry.cls:
            return {KIND: "registered", "name": label, "config": _rebuilding(name, label, entry, value)}
    if options := _LIKELIHOODS.get(type(value)):
        return {
            KIND: "likelihood",
            "name": type(value).__name__,
            "config": {option: describe(name, getattr(value, option)) for option in options},
        }
    for kind, classes in _PARTS.items():
        if type(value) in classes:
            options = penalties.options_of(value)
            config = {option: describe(name, item) for option, item in options.items()}
            return {KIND: kind, "name": type(value).__name__, "config": config}
    if type(value) is SubspacePartition:
        given = value.get_params(deep=False)
        # functions are code: the file names their quantities, whose values another fit must bring
        given["quantities"] = dict.fromkeys(value.quantities)
        config = {option: describe(name, item) for option, item in given.items()}
        return {KIND: "partition", "name": "SubspacePartition", "config": config}
    if isinstance(value, Tensor) and value.numel() <= LARGEST:
        dtype = str(value.dtype).removeprefix("torch.")
        return {KIND: "tensor", "name": dtype, "config": {"values": value.tolist()}}
    if scaler := describe_transformer(value):
        return {KIND: "scaler", "name": scaler["scaler"], "config": scaler["options"]}
    for label, kind in ACTIVATIONS.items():
        if value is kind:
            return label
    return {KIND: "omitted", "class": _full_name(value if isinstance(value, type) else type(value))}


def _rebuilding(name: str, label: str, entry: Registration, value: Any) -> dict[str, Any]:
    settings = entry.settings(value)
    try:
        inspect.signature(entry.factory).bind(**settings)
    except TypeError as error:
        raise TypeError(
            f"{name}: {label!r} cannot be made again from {settings} ({error}); give {entry.cls.__name__} "
            "a method config() that returns its keyword arguments, or register it with config= or factory="
        ) from error
    return {key: describe(name, item) for key, item in settings.items()}


def is_omitted(description: Any) -> bool:
    """Whether the option, or a part of it, was left out of the file."""
    if isinstance(description, list):
        return any(is_omitted(item) for item in description)
    return isinstance(description, dict) and (
        description.get(KIND) == "omitted" or any(is_omitted(item) for item in description.values())
    )


def rebuild(name: str, description: Any, *, n_features: int) -> Any:
    """The option that `describe` wrote; lists come back as tuples.

    Raises:
        FormatError: a kind or a name that this program does not know.
    """
    if isinstance(description, list):
        return tuple(rebuild(name, item, n_features=n_features) for item in description)
    if not isinstance(description, dict):
        return description
    if KIND not in description:
        return {key: rebuild(name, item, n_features=n_features) for key, item in description.items()}
    kind, label = description[KIND], description.get("name")
    options = rebuild(name, description.get("config", {}), n_features=n_features)
    if kind in ("registered", "class"):
        if label not in _REGISTERED:
            raise FormatError(
                f"{name}: saved with {label!r}, which is not registered here; call "
                f"pullback.register_module({label!r}, YourClass) before loading"
            )
        entry = _REGISTERED[label]
        return entry.cls if kind == "class" else entry.factory(**options)
    if kind == "likelihood" and label in (known := {cls.__name__: cls for cls in _LIKELIHOODS}):
        more: Any = {"n_features": n_features} if label in _PER_FEATURE else {}
        return known[label](**options, **more)
    for cls in _PARTS.get(str(kind), ()):
        if cls.__name__ == label:
            return cls(**options)
    if kind == "partition" and label == "SubspacePartition":
        return SubspacePartition(**options)
    if kind == "tensor" and label in DTYPES:
        return torch.tensor(options["values"], dtype=DTYPES[str(label)])
    if kind == "scaler":
        return build_transformer(str(label), options)
    raise FormatError(f"{name}: unknown {kind!r} {label!r}; the file may come from a newer pullback")
