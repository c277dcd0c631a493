"""Results written into an AnnData object that was handed in, where its users look for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

EMBEDDING_KEY = "X_pullback"
PARAMETERS_KEY = "pullback"


def write_results(adata: Any, codes: np.ndarray, name: str, options: Mapping[str, Any]) -> None:
    """Codes into ``obsm["X_pullback"]``, the model's name and plain options into ``uns["pullback"]``.

    Only numbers, text and sequences of them are written: an .h5ad file holds nothing else.
    """
    adata.obsm[EMBEDDING_KEY] = np.array(codes)
    plain = {key: value for key, value in options.items() if isinstance(value, bool | int | float | str)}
    sequences = {
        key: np.asarray(value)
        for key, value in options.items()
        if isinstance(value, list | tuple) and value and np.asarray(value).dtype.kind in "ifb"
    }
    adata.uns[PARAMETERS_KEY] = {"model": name, "params": {**plain, **sequences}}
