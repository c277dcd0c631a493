"""What every estimator asks of what it is handed: rows with names as in scikit-learn, a device, a seed."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from sklearn.utils.validation import validate_data

from pullback.estimators.known_values import read_columns
from pullback.inputs import Table, read_input
from pullback.training.distributed import started_by_torchrun


def read_table(
    estimator: Any,
    X: Any,
    *,
    reset: bool,
    minimum_rows: int = 1,
    quantities: Mapping[str, Any] | None = None,
) -> Table:
    """Rows for an estimator; names and number of features are noted (``reset``) or compared.

    Args:
        estimator: which has a ``partition``, or not.
        X: in any form that `read_input` takes. Columns that hold quantities of the partition are no features.
        reset: whether it is fitted to them.
        minimum_rows: how many there must be.
        quantities: those that are given beside X.
    Raises:
        ValueError: other features than in fit, images where there were rows, or what `read_input` refuses.
    """
    X = without_quantities(estimator, X, quantities) if reset else features_of(estimator, X)
    table = read_input(X, minimum_rows=minimum_rows, estimator=estimator)
    named: Any = table.values
    if table.feature_names is not None:
        named = X if hasattr(X, "columns") else pd.DataFrame(columns=table.feature_names)
    validate_data(estimator, named, reset=reset, skip_check_array=True)
    if not reset and table.image_shape not in (None, estimator.image_shape_):
        shape = estimator.image_shape_
        wanted = "flat rows (n, p)" if shape is None else f"images {shape}"
        raise ValueError(f"X: expected {wanted} as in fit, got images {table.image_shape}")
    return table


def without_quantities(estimator: Any, X: Any, quantities: Mapping[str, Any] | None) -> Any:
    """Data of a fit without the columns that its quantities come from."""
    aside = read_columns(getattr(estimator, "partition", None), X, quantities)
    if aside and len(aside) == len(X.columns):
        raise ValueError("X: expected features beside the columns of quantities, got none")
    return X.drop(columns=aside) if aside else X


def features_of(estimator: Any, X: Any) -> Any:
    """Data for a fitted estimator without columns of quantities that are no features of it."""
    known = getattr(estimator, "feature_names_in_", ())
    aside = [
        name for name in read_columns(getattr(estimator, "partition", None), X, None) if name not in known
    ]
    return X.drop(columns=aside) if aside else X


def check_seed_agrees(random_state: Any) -> None:
    """Raise ``ValueError`` where processes that must draw the same numbers were given no seed."""
    if random_state is None and started_by_torchrun():
        raise ValueError(
            "random_state: expected a number under torchrun, where processes must agree, got None"
        )


def training_device(device: str, dtype: torch.dtype) -> str:
    """The device to train on: "auto" must not choose Apple's GPU, which knows no float64, for such rows."""
    wide = dtype == torch.float64 and not torch.cuda.is_available()
    return "cpu" if wide and device == "auto" else device
