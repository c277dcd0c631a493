"""Options of a dictionary, checked before any work."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullback.charts import CHARTS, as_chart
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.sweep_options import SweepOptions
from pullback.validation import check_choice, check_positive, check_whole

GATES = ("softmax", "amplitude")
INITS = ("auto", "cluster", "pure", "random")
SOLVERS = ("alternating", "adam")
MOST_SOFT = 64


def given_number(model: Any) -> int | None:
    """K, or None where it is to be counted."""
    if isinstance(model.n_atoms, str):
        check_choice("n_atoms", model.n_atoms, ("auto",))
        return None
    check_whole("n_atoms", model.n_atoms)
    return int(model.n_atoms)


def checked_options(model: Any, K: int | None) -> SweepOptions:
    """Options of the sweeps.

    Args:
        model: the estimator.
        K: number of atoms, None where it is not known yet.
    Raises:
        ValueError, TypeError: naming the option.
    """
    check_choice("gate", model.gate, GATES)
    check_choice("solver", model.solver, SOLVERS)
    check_whole("n_restarts", model.n_restarts)
    check_whole("max_sweeps", model.max_sweeps)
    soft = model.gate == "softmax"
    if soft and K is not None and K > MOST_SOFT:
        raise ValueError(
            f"n_atoms: expected at most {MOST_SOFT} with gate='softmax', got {K}; use gate='amplitude'"
        )
    m = _active(model.n_active, K, soft)
    for name, positive in (("entropy", False), ("tau", True), ("isometry", False)):
        value = getattr(model, name)
        if not callable(value):
            check_positive(name, value, zero=not positive)
    check_positive("tol", model.tol, zero=True)
    for name in ("max_seconds", "open_cost"):
        if getattr(model, name) is not None:
            check_positive(name, getattr(model, name), zero=True)
    smoothness = model.smoothness
    if isinstance(smoothness, str):
        check_choice("smoothness", smoothness, ("reml",))
    else:
        check_positive("smoothness", smoothness, zero=True)
    check_charts(model.charts, K, soft)
    if isinstance(model.init, str):
        check_choice("init", model.init, INITS)
    return SweepOptions(
        gate=model.gate,
        n_active=m,
        entropy=model.entropy,
        tau=model.tau,
        smoothness=None if isinstance(smoothness, str) else float(smoothness),
        isometry=model.isometry,
        max_sweeps=int(model.max_sweeps),
        max_seconds=None if model.max_seconds is None else float(model.max_seconds),
        tol=float(model.tol),
        open_cost=None if model.open_cost is None else float(model.open_cost),
    )


def _active(n_active: Any, K: int | None, soft: bool) -> int:
    """m; None for 3, or as many as there are atoms."""
    if n_active is None:
        return 3 if K is None else min(3, K)
    if soft:
        raise ValueError(f"n_active: only used by gate='amplitude', got {n_active} with gate='softmax'")
    check_whole("n_active", n_active)
    if K is not None and int(n_active) > K:
        raise ValueError(f"n_active: expected 1 .. {K}, as many as there are atoms, got {n_active}")
    return int(n_active)


def check_charts(charts: Any, K: int | None, soft: bool) -> None:
    """Raise unless charts are "auto", one chart, a list of K or a function."""
    if isinstance(charts, str):
        check_choice("charts", charts, ("auto", *CHARTS))
        found = [charts]
    elif isinstance(charts, list | tuple):
        if K is None:
            raise ValueError("charts: expected one kind or 'auto' for n_atoms='auto', got a list")
        if len(charts) != K:
            raise ValueError(f"charts: expected {K} charts, one an atom, got {len(charts)}")
        found = [as_chart(chart, name="charts").name for chart in charts]
    elif callable(charts) and not hasattr(charts, "jet"):
        return
    else:
        found = [as_chart(charts, name="charts").name]  # type: ignore[arg-type]
    if soft and "line" in found:
        raise ValueError("charts: expected no 'line' with gate='softmax', got one; use gate='amplitude'")


def read_init(model: Any, K: int, n: int) -> Any:
    """The start as the fit takes it: a name, groups of rows, or a layout with decoders.

    Raises:
        ValueError: groups of another length or out of range; a dictionary of another size.
    """
    init = model.init
    if isinstance(init, str):
        return ("cluster" if model.gate == "softmax" else "pure") if init == "auto" else init
    if hasattr(init, "components_"):
        charts = tuple(atom.chart for atom in init.atoms_)
        if len(charts) != K:
            raise ValueError(f"init: expected a dictionary of {K} atoms, got one of {len(charts)}")
        return Layout(charts), torch.as_tensor(init.components_).double()
    groups = torch.as_tensor(init if isinstance(init, Tensor) else np.asarray(init))
    if groups.ndim != 1 or len(groups) != n or groups.is_floating_point():
        shape = tuple(groups.shape)
        raise ValueError(
            f"init: expected one of {', '.join(map(repr, INITS))}, a dictionary or ({n},) groups, got {shape}"
        )
    counts = [int((groups == k).sum()) for k in range(K)]
    if min(counts) < 4 or int(groups.max()) >= K:
        raise ValueError(f"init: expected groups 0 .. {K - 1} of at least 4 rows each, got sizes {counts}")
    return groups


def read_labels(labels: Any, K: int, n: int) -> dict[int, Tensor] | None:
    """Values by atom, float64.

    Raises:
        ValueError: a plain array with several atoms, an unknown atom, another length, fewer than two known.
    """
    if labels is None:
        return None
    if not isinstance(labels, dict):
        if K > 1:
            raise ValueError(
                f"labels: expected {{atom: values}} with {K} atoms, got a plain array; pass {{atom: values}}"
            )
        labels = {0: labels}
    found = {}
    for atom, values in labels.items():
        column = torch.as_tensor(np.asarray(values, dtype=np.float64))
        if atom not in range(K):
            raise ValueError(f"labels: expected atoms 0 .. {K - 1}, got {atom!r}")
        if column.ndim != 1 or len(column) != n:
            raise ValueError(
                f"labels: expected ({n},) values for atom {atom}, got shape {tuple(column.shape)}"
            )
        if int((~torch.isnan(column)).sum()) < 2:
            raise ValueError(f"labels: expected at least 2 known values for atom {atom}, got fewer")
        found[int(atom)] = column
    return found


def read_row_weights(row_weights: Any, n: int) -> Tensor | None:
    """w, (n,).

    Raises:
        ValueError: negative, or another length.
    """
    if row_weights is None:
        return None
    weights = torch.as_tensor(np.asarray(row_weights, dtype=np.float64))
    if weights.ndim != 1 or len(weights) != n:
        raise ValueError(f"row_weights: expected ({n},), got shape {tuple(weights.shape)}")
    check_positive("row_weights", weights, zero=True)
    if not bool((weights > 0).any()):
        raise ValueError("row_weights: expected a positive one, got zeros only")
    return weights
