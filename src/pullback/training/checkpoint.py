"""Checkpoints: everything a run needs to go on as if it had never stopped, in one file without pickle.

The file holds the weights, the best weights, the optimiser's moments, the states of all random streams, the
sums of the epoch under way, and as metadata the counters, the history and a description of the run. A
checkpoint of another run is refused.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pullback.io import FormatError, load_tensors, save_tensors
from pullback.training.batches import Batches, Streams
from pullback.training.objective import Trainable
from pullback.training.options import TrainingOptions

FILE_NAME = "checkpoint.safetensors"
KIND = "training checkpoint"
VERSION = 1


@dataclass
class RunState:
    """Where a run stands; with weights, optimiser and random streams it determines all that follows.

    Attributes:
        epoch: epochs done.
        batch: batches done in the epoch under way.
        step: optimiser steps done.
        seconds: time spent in training.
        history: one number an epoch for each loss.
        best_epoch, best_loss, best: epoch with the lowest loss, that loss, and the weights after it.
        sums: Σ rows · terms over the batches of the epoch under way, and their rows.
        rows: rows in ``sums``.
        names: terms in ``sums``.
        initial: losses of the untrained model: of the first batch, and of the held-out rows.
        order: state of the order stream at the start of the epoch under way.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    sums: Tensor | None = None
    rows: int = 0
    names: list[str] = field(default_factory=list)
    initial: dict[str, float] = field(default_factory=dict)
    order: Tensor | None = None


def copied(module: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def describe_run(
    objective: Trainable, options: TrainingOptions, batches: Batches, seed: int
) -> dict[str, Any]:
    """What must agree for a checkpoint to continue a run: objective, options of the steps, data, seed."""
    steering = ["batch_size", "lr", "lr_schedule", "weight_decay", "gradient_clip", "precision"]
    if options.lr_schedule != "constant":
        steering.append("max_epochs")
    described: dict[str, Any] = {name: getattr(options, name) for name in steering}
    described |= objective.describe()
    described["data rows"] = batches.size
    described["data checksum"] = batches.digest()
    described["random seed"] = seed
    return json.loads(json.dumps(described))


def check_same_run(path: Path, stored: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` that names each difference between the run of a checkpoint and this one."""
    names = [name for name in {**stored, **present} if stored.get(name) != present.get(name)]
    if not names:
        return
    short = {"data rows", "random seed", *TrainingOptions.__dataclass_fields__, "free_bits", "weights"}
    parts = [
        f"{name}: {stored.get(name)} there, {present.get(name)} here" if name in short else name
        for name in names
    ]
    raise ValueError(
        f"checkpoint_dir: {path} belongs to another run, which differs in {'; '.join(parts)}; "
        "choose another folder, or resume=False to start anew"
    )


def _flat_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The optimiser's moments by name, and its settings as plain values."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}/{key}": value for index, moments in state["state"].items() for key, value in moments.items()
    }
    return tensors, state["param_groups"]


def _fill_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split("/")
        moments.setdefault(int(index), {})[key] = value
    for group in groups:
        group["betas"] = tuple(group["betas"])
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}/")
    }


def save_checkpoint(
    path: Path,
    state: RunState,
    *,
    objective: Trainable,
    optimizer: torch.optim.Optimizer,
    streams: Streams,
    layers: Mapping[str, Tensor],
    scaler: Mapping[str, Any],
    run: Mapping[str, Any],
) -> None:
    """Write a checkpoint, atomically.

    Args:
        path: the file; its folder must exist.
        state: where the run stands.
        objective: holds the weights.
        optimizer: holds the moments.
        streams: order and noise.
        layers: states of the default generators, ``(processes, bytes)`` each.
        scaler: state of the loss scaler of half precision; empty elsewhere.
        run: description by `describe_run`.
    """
    moments, groups = _flat_optimizer(optimizer)
    tensors = {
        **_prefixed("weights", objective.state_dict()),
        **_prefixed("best", state.best),
        **_prefixed("optimizer", moments),
        **_prefixed("layers", layers),
        "streams/order": streams.order.get_state() if state.order is None else state.order,
        "streams/noise": streams.noise.get_state(),
    }
    if state.sums is not None:
        tensors["sums"] = state.sums
    metadata = {
        "kind": KIND,
        "version": VERSION,
        "run": dict(run),
        "optimizer": groups,
        "scaler": dict(scaler),
        **{name: getattr(state, name) for name in COUNTERS},
    }
    save_tensors(path, tensors, metadata)


COUNTERS = (
    "epoch",
    "batch",
    "step",
    "seconds",
    "history",
    "best_epoch",
    "best_loss",
    "rows",
    "names",
    "initial",
)


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint holds beyond what was restored in place."""

    state: RunState
    layers: dict[str, Tensor]
    scaler: dict[str, Any]


def load_checkpoint(
    path: Path,
    *,
    objective: Trainable,
    optimizer: torch.optim.Optimizer,
    streams: Streams,
    run: Mapping[str, Any],
) -> Loaded:
    """Read a checkpoint into objective, optimiser and streams; return the rest.

    Raises:
        FormatError: the file is no checkpoint, damaged, or of another version.
        ValueError: it belongs to another run.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("kind") != KIND or metadata.get("version") != VERSION:
        raise FormatError(f"{path}: not a training checkpoint of version {VERSION}")
    check_same_run(path, metadata["run"], run)
    objective.load_state_dict(_under("weights", tensors))
    _fill_optimizer(optimizer, _under("optimizer", tensors), metadata["optimizer"])
    streams.order.set_state(tensors["streams/order"])
    streams.noise.set_state(tensors["streams/noise"])
    device = next(objective.parameters()).device
    best = {name: value.to(device) for name, value in _under("best", tensors).items()}
    sums = tensors.get("sums")
    state = RunState(
        **{name: metadata[name] for name in COUNTERS},
        best=best,
        sums=None if sums is None else sums.to(device),
    )
    return Loaded(state, _under("layers", tensors), metadata["scaler"])
