"""Samples of a run: drawn as asked on the command line, and as the columns of a table."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import typer
from sklearn.exceptions import ConvergenceWarning

from pullback.estimators import Samples
from pullback.run_folder import resolve_again, values_of
from pullback.run_paths import feature_columns


def draw_samples(
    model: Any,
    record: dict[str, Any],
    number: int,
    *,
    method: str,
    observe: str,
    data: str | None,
    seed: int,
    options: dict[str, Any],
) -> tuple[Samples, dict[str, Any]]:
    """Samples of a trained model, and the columns that say where they come from.

    Raises:
        typer.BadParameter: a method that starts from data without any, or data for one that does not.
    """
    if method == "posterior" and data is None:
        raise typer.BadParameter("--data: expected the rows whose posterior is sampled, got none")
    if data is not None and method not in ("posterior", "rhmc"):
        raise typer.BadParameter(f"--data: --method {method} draws without data")
    dataset = None if data is None else resolve_again(data, record)
    with warnings.catch_warnings():
        # What chains have to say of themselves is printed with the other facts.
        warnings.simplefilter("ignore", ConvergenceWarning)
        samples = model.sample(
            number,
            method=method,
            X=None if dataset is None else values_of(dataset),
            observe=observe,
            random_state=seed,
            options=options,
        )
    origin = {} if dataset is None else {"from": np.asarray(dataset.samples)[samples.diagnostics["rows"]]}
    return samples, origin


def sample_columns(model: Any, samples: Samples, origin: dict[str, Any]) -> dict[str, Any]:
    """One row a sample: the row of the data it started from, latent point, log-density, features."""
    return {
        **origin,
        "z": samples.z,
        "log_density": samples.log_density,
        **feature_columns(model, samples.x),
    }


def facts(out: Path, method: str, samples: Samples) -> dict[str, Any]:
    """What a draw says of itself."""
    found = samples.diagnostics
    known: dict[str, Any] = {"out": str(out), "rows": len(samples), "method": method}
    if "acceptance" in found:
        known["acceptance"] = round(float(found["acceptance"].mean()), 3)
    if "converged" in found:
        known |= {"converged": bool(found["converged"]), "message": found["message"]}
    return known
