"""A fitted dictionary as settings and tensors, and back."""

import os
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback import charts as rooms
from pullback.ambient.base import Constant
from pullback.ambient.fisher import Gaussian
from pullback.ambient.linear import Diagonal, Euclidean, LowRank
from pullback.estimators.dictionary_rows import Frame, Given
from pullback.estimators.registry import KIND, describe, is_omitted, rebuild
from pullback.io import FormatError, load_model
from pullback.models.dictionary.alarms import Alarm
from pullback.models.dictionary.codes import SparseCodes
from pullback.models.dictionary.decoder_step import Moments
from pullback.models.dictionary.diagnostics import FitDiagnostics, GaugeCheck
from pullback.models.dictionary.evidence import Evidence
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.topology import Topology, TopologyCandidate
from pullback.models.dictionary.transforming import Encoder
from pullback.typing import Chart

NAME = "ManifoldDictionary"
KNOWN = (rooms.Circle, rooms.Interval, rooms.Plane, rooms.Sphere, rooms.Torus, rooms.Line, rooms.Points)
CODES = ("indices", "weights", "coords", "coord_sd", "residual", "converged")
AMBIENTS = {cls.__name__: cls for cls in (Euclidean, Diagonal, Gaussian, LowRank)}
SIZES = ("gate", "n_active", "entropy", "tau", "open_cost", "s2", "scale", "share")


def described_chart(chart: Any) -> dict[str, Any]:
    """Name and arguments of a chart.

    Raises:
        TypeError: a chart of another room.
    """
    if type(chart) not in KNOWN:
        raise TypeError(f"charts: expected one of pullback.charts to save, got {type(chart).__name__}")
    return {"chart": type(chart).__name__, **asdict(chart)}


def rebuilt_chart(settings: dict[str, Any]) -> Chart:
    """The chart of its description."""
    by_name = {cls.__name__: cls for cls in KNOWN}
    settings = dict(settings)
    name = settings.pop("chart", None)
    if name not in by_name or set(settings) != {f.name for f in fields(by_name[name])}:
        raise FormatError(
            f"charts: expected one of {', '.join(by_name)}, got {name!r}; from a newer pullback?"
        )
    chart: Any = by_name[name](**settings)
    return chart


def described_topology(topology: Topology | None) -> dict[str, Any] | None:
    """Verdict and table of evidence, without the fits of its charts."""
    if topology is None:
        return None
    plain = {field.name: getattr(topology, field.name) for field in fields(topology)}
    table = [{"name": entry.name, "evidence": asdict(entry.evidence)} for entry in topology.table]
    return plain | {"table": table}


def rebuilt_topology(settings: dict[str, Any] | None) -> Topology | None:
    """The verdict of its description."""
    if settings is None:
        return None
    table = tuple(
        TopologyCandidate(entry["name"], Evidence(**entry["evidence"]), None) for entry in settings["table"]
    )
    plain = {name: value for name, value in settings.items() if name != "table"}
    return Topology(table=table, **plain)


def _option(name: str, value: Any) -> Any:
    if name == "charts" and not isinstance(value, str):
        given = value if isinstance(value, list | tuple) else [value]
        if all(isinstance(chart, str) or type(chart) in KNOWN for chart in given):
            listed = [chart if isinstance(chart, str) else described_chart(chart) for chart in given]
            return {"listed": listed, "many": isinstance(value, list | tuple)}
        return {"listed": None, "many": False}
    if name in ("init", "callback") and not isinstance(value, str | None):
        return None
    if name == "ambient":  # the frame holds what all rows share of it
        return None
    return describe(name, value)


def _restored_option(name: str, value: Any, features: int) -> Any:
    if name == "charts" and isinstance(value, dict):
        if value["listed"] is None:
            return "auto"
        found = [c if isinstance(c, str) else rebuilt_chart(c) for c in value["listed"]]
        return found if value["many"] else found[0]
    if name == "init" and value is None:
        return "auto"
    return None if is_omitted(value) else rebuild(name, value, n_features=features)


def described_ambient(ambient: Constant | None) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """A metric as its class with plain options, and its tensors.

    Raises:
        TypeError: a metric that no file can hold.
    """
    if ambient is None:
        return None, {}
    if type(ambient).__name__ not in AMBIENTS or type(ambient) is not AMBIENTS[type(ambient).__name__]:
        described = describe("ambient", ambient)
        if is_omitted(described):
            raise TypeError(
                f"ambient: expected a metric of pullback.ambient to save, got {type(ambient).__name__}; "
                "register_module makes it known"
            )
        return described, {}
    given = {field.name: getattr(ambient, field.name) for field in fields(ambient)}  # type: ignore[arg-type]
    tensors = {f"ambient.{name}": value for name, value in given.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in given.items() if not isinstance(value, Tensor)}
    plain = {name: v.item() if isinstance(v, np.generic) else v for name, v in plain.items()}
    return {"class": type(ambient).__name__, **plain}, tensors


def rebuilt_ambient(settings: dict[str, Any] | None, tensors: dict[str, Tensor]) -> Constant | None:
    """The metric of its description.

    Raises:
        FormatError: a class that is not known.
    """
    if settings is None:
        return None
    if KIND in settings:
        return rebuild("ambient", settings, n_features=0)
    plain = dict(settings)
    name = plain.pop("class", None)
    if name not in AMBIENTS:
        raise FormatError(f"ambient: expected one of {', '.join(AMBIENTS)}, got {name!r}")
    kept: dict[str, Any] = {
        key.removeprefix("ambient."): value for key, value in tensors.items() if key.startswith("ambient.")
    }
    return AMBIENTS[name](**plain, **kept)


def dictionary_state(model: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of a fitted dictionary."""
    encoder, frame, told = model._encoder, model._frame, model.diagnostics_
    names = getattr(model, "feature_names_in_", None)
    ambient, measuring = described_ambient(frame.ambient)
    plain = {
        field.name: getattr(told, field.name)
        for field in fields(told)
        if field.name not in ("usage", "topology", "gauge", "alarms")
    }
    config = {
        "class": NAME,
        "options": {name: _option(name, value) for name, value in model.get_params(deep=False).items()},
        "fitted": {
            "n_features_in_": int(model.n_features_in_),
            "feature_names_in_": None if names is None else [str(name) for name in names],
            "charts": [described_chart(chart) for chart in encoder.layout.charts],
            "encoder": {name: getattr(encoder, name) for name in SIZES},
            "groups": [name if isinstance(name, str | int | float) else str(name) for name in frame.groups],
            "ambient": ambient,
            "by_row": frame.by_row,
            "tensors": isinstance(model.components_, Tensor),
            "diagnostics": plain,
            "topology": [described_topology(topology) for topology in told.topology],
            "gauge": [asdict(check) for check in told.gauge],
            "alarms": [asdict(alarm) for alarm in told.alarms],
            "rho": float(model._rho),
            "seen": int(model._seen),
        },
    }
    tensors = {
        "components": torch.as_tensor(model.components_),
        "encoder": encoder.B,
        "lam": model._lam,
        "usage": torch.as_tensor(np.asarray(told.usage)),
    }
    tensors |= measuring
    tensors |= {f"codes.{name}": torch.as_tensor(getattr(model.codes_, name)) for name in CODES}
    for name in ("offset", "means"):
        if getattr(frame, name) is not None:
            tensors[name] = getattr(frame, name)
    moments = model._moments
    if moments is not None:
        tensors |= {f"moments.{name}": getattr(moments, name) for name in ("XX", "XZ", "ZZ")}
        config["fitted"]["moments"] = {"rows": moments.rows, "latents": moments.latents}
    return config, tensors


def restored_dictionary(cls: type, directory: str | os.PathLike) -> Any:
    """The fitted dictionary that a folder holds.

    Raises:
        FormatError: another kind of model, or parts that are not known.
    """
    config, tensors = load_model(directory)
    if config.get("class") != NAME:
        raise FormatError(f"{directory}: holds a {config.get('class')!r}, expected {NAME}")
    try:
        return _filled(cls, config, tensors)
    except KeyError as error:
        raise FormatError(
            f"{directory}: expected an entry {error}, found none; not a saved dictionary?"
        ) from error


def _filled(cls: type, config: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    fitted, features = config["fitted"], config["fitted"]["n_features_in_"]
    options = {name: _restored_option(name, value, features) for name, value in config["options"].items()}
    known = set(cls._get_param_names())  # type: ignore[attr-defined]
    if unknown := sorted(set(options) - known):
        raise FormatError(f"options: {NAME} knows no {', '.join(unknown)}; written by a newer pullback?")
    model = cls(**options)
    model.n_features_in_ = features
    if fitted["feature_names_in_"] is not None:
        model.feature_names_in_ = np.asarray(fitted["feature_names_in_"], dtype=object)
    layout = Layout(tuple(rebuilt_chart(chart) for chart in fitted["charts"]))
    model._encoder = Encoder(layout, tensors["encoder"], **fitted["encoder"])
    model._frame = Frame(
        tensors.get("offset"),
        tensors.get("means"),
        tuple(fitted["groups"]),
        rebuilt_ambient(fitted["ambient"], tensors),
        bool(fitted.get("by_row", False)),
    )
    model.ambient = None if model._frame.by_row else model._frame.ambient
    model._lam, model._rho, model._seen = tensors["lam"], fitted["rho"], fitted["seen"]
    model._moments = None
    if "moments" in fitted:
        sums = {name: tensors[f"moments.{name}"] for name in ("XX", "XZ", "ZZ")}
        model._moments = Moments(**sums, **fitted["moments"])
    like = Given(tensors["components"], bool(fitted["tensors"]))
    model._publish(tensors["components"].double(), like)
    model.components_ = like.returned(tensors["components"])
    parts = [like.returned(tensors[f"codes.{name}"]) for name in CODES]
    model.codes_ = SparseCodes(*parts, n_atoms=layout.K)
    model.diagnostics_ = _diagnostics(fitted, tensors)
    return model


def _diagnostics(fitted: dict[str, Any], tensors: dict[str, Tensor]) -> FitDiagnostics:
    plain: dict[str, Any] = fitted["diagnostics"]
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
    return FitDiagnostics(
        **plain,
        usage=tensors["usage"].numpy(),
        topology=tuple(rebuilt_topology(topology) for topology in fitted["topology"]),
        gauge=tuple(GaugeCheck(**check) for check in fitted["gauge"]),
        alarms=tuple(Alarm(**alarm) for alarm in fitted["alarms"]),
    )
