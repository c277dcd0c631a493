"""A fitted estimator as settings and tensors, and back.

Everything that `transform`, `inverse_transform`, `sample` and `metric` need is stored; options that only
matter for another fit (penalties, a schedule) are stored where they have a plain or registered form.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from pullback.estimators.registry import describe, is_omitted, rebuild
from pullback.estimators.reserving import Partition
from pullback.estimators.scaling import Scaling
from pullback.io import FormatError, load_model

logger = logging.getLogger(__name__)

NETWORKS = ("encoder", "decoder", "likelihood")
PLAIN = ("converged_", "message_", "n_epochs_", "best_epoch_")
ARRAYS = ("embedding_",)
ABSENT = ("components_", "feature_mean_")
"""Arrays that a model may be without: no projection, or saved before means were kept."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def describe_state(estimator: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of a fitted estimator.

    Raises:
        TypeError: the default networks use an activation that has no name.
    """
    options = {name: describe(name, value) for name, value in estimator.get_params(deep=False).items()}
    if is_omitted(options.get("activation")) and None in (estimator.encoder, estimator.decoder):
        raise TypeError(
            f"activation: expected a name or a registered class, got {estimator.activation!r}; "
            "call pullback.register_module(name, cls) first"
        )
    if is_omitted(options.get("tempering")):
        raise TypeError(
            f"tempering: expected 'quadratic', 'null' or an object of a registered class, got "
            f"{estimator.tempering!r}; call pullback.register_module(name, cls) first"
        )
    names = getattr(estimator, "feature_names_in_", None)
    values, arrays = estimator._state_names()
    fitted = {
        "n_features_in_": int(estimator.n_features_in_),
        "feature_names_in_": None if names is None else [str(name) for name in names],
        "image_shape_": estimator.image_shape_,
        "dtype": str(estimator.scaling_.offset.dtype).removeprefix("torch."),
        **{name: getattr(estimator, name) for name in (*PLAIN, *values)},
    }
    tensors = {f"module.{name}": value for name, value in estimator.module_.state_dict().items()}
    tensors |= {"scaling.offset": estimator.scaling_.offset, "scaling.scale": estimator.scaling_.scale}
    for name in (*ARRAYS, *arrays):
        tensors |= _packed(f"array.{name}", getattr(estimator, name))
    partition = getattr(estimator, "partition_", None)
    if partition is not None:
        fitted["partition"] = partition.config()
        tensors |= {f"partition.{name}": value for name, value in partition.state().items()}
    for term, values in estimator.history_.items():
        tensors[f"history.{term}"] = torch.tensor(values, dtype=torch.float64)
    return {"class": type(estimator).__name__, "options": options, "fitted": fitted}, tensors


def restored(
    directory: str | os.PathLike, known: Mapping[str, type[Any]], modules: Mapping[str, nn.Module]
) -> Any:
    """The fitted estimator that a folder holds, of one of the ``known`` classes; see `pullback.load`."""
    config, tensors = load_model(directory)
    try:
        name, settings, fitted = config["class"], config["options"], config["fitted"]
        if name not in known:
            raise FormatError(
                f"{directory}: holds a {name!r}, expected one of {', '.join(known)}; from a newer pullback?"
            )
        # A registered class may draw its first weights, soon replaced, from the global generator.
        with torch.random.fork_rng(devices=[]):
            estimator = restore_options(known[name], settings, modules, fitted["n_features_in_"])
            restore_state(estimator, fitted, tensors)
    except KeyError as error:
        raise FormatError(
            f"{directory}: expected an entry {error}, found none; not a saved estimator?"
        ) from error
    return estimator


def restore_options(
    cls: type, settings: Mapping[str, Any], modules: Mapping[str, nn.Module], n_features: int
) -> Any:
    """An unfitted estimator with the stored options.

    Raises:
        ValueError: a module is missing, or one is given that the model does not use.
    """
    known = cls._get_param_names()  # type: ignore[attr-defined]
    if unknown := sorted(set(settings) - set(known)):
        raise FormatError(
            f"options: {cls.__name__} knows no {', '.join(unknown)}; written by a newer pullback?"
        )
    for name in modules:
        if name not in NETWORKS or settings.get(name) in (None, False):
            used = [network for network in NETWORKS if isinstance(settings.get(network), dict)]
            raise ValueError(
                f"modules: expected some of {used}, which the model was trained with, got {name!r}"
            )
    options: dict[str, Any] = {}
    for name, description in settings.items():
        if name in modules:
            options[name] = modules[name]
        elif not is_omitted(description):
            options[name] = rebuild(name, description, n_features=n_features)
        elif name in NETWORKS:
            raise ValueError(
                f"{name}: saved with {description.get('class', 'a class')}, whose code is not in the file; "
                f"pass load(..., modules={{{name!r}: module}}) or register its class before saving"
            )
        else:
            logger.warning("%s: not stored with the model; set it before fitting again", name)
    return cls(**options)


def restore_state(estimator: Any, fitted: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Fill a fresh estimator with its fitted attributes.

    Raises:
        FormatError: the stored tensors do not fit the module that the options describe.
    """
    dtype = DTYPES.get(fitted["dtype"])
    if dtype is None:
        raise FormatError(f"dtype: expected one of {', '.join(DTYPES)}, got {fitted['dtype']!r}")
    estimator.n_features_in_ = fitted["n_features_in_"]
    if fitted["feature_names_in_"] is not None:
        estimator.feature_names_in_ = np.asarray(fitted["feature_names_in_"], dtype=object)
    shape = fitted["image_shape_"]
    estimator.image_shape_ = None if shape is None else tuple(shape)
    values, arrays = estimator._state_names()
    for name in (*PLAIN, *values):
        setattr(estimator, name, fitted[name])
    estimator.scaling_ = Scaling(tensors["scaling.offset"], tensors["scaling.scale"])
    for name in (*ARRAYS, *arrays):
        array = _unpacked(f"array.{name}", tensors)
        if array is None and name not in ABSENT:
            raise KeyError(f"array.{name}")
        setattr(estimator, name, array)
    estimator.history_ = {term: values.tolist() for term, values in _under("history.", tensors).items()}
    reserved = fitted.get("partition")
    estimator.partition_ = (
        None if reserved is None else Partition.restored(reserved, _under("partition.", tensors))
    )
    module = estimator._new_module(dtype, seed=0)
    try:
        module.load_state_dict(_under("module.", tensors))
    except RuntimeError as error:
        raise FormatError(f"module: the stored tensors do not fit the networks; {error}") from error
    estimator.module_ = module.eval().requires_grad_(False)


def _packed(name: str, value: Any) -> dict[str, Tensor]:
    """An array, a sparse matrix as its three arrays, or nothing for None."""
    if value is None:
        return {}
    if sparse.issparse(value):
        parts = {"data": value.data, "indices": value.indices, "indptr": value.indptr}
        return {f"{name}.{part}": torch.from_numpy(np.ascontiguousarray(v)) for part, v in parts.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(value))}


def _unpacked(name: str, tensors: Mapping[str, Tensor]) -> Any:
    """What `_packed` took apart; sparse matrices are square."""
    if name in tensors:
        return tensors[name].numpy()
    parts = [tensors.get(f"{name}.{part}") for part in ("data", "indices", "indptr")]
    if any(part is None for part in parts):
        return None
    arrays = tuple(part.numpy() for part in parts if part is not None)
    n = len(arrays[2]) - 1
    return sparse.csr_matrix(arrays, shape=(n, n))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
