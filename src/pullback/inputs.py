"""What users hand in (arrays, tensors, data frames, sparse matrices, AnnData, images) as one table of rows.

A `Table` keeps sparse data sparse: only the rows that are asked for are ever made dense.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_array
from torch import Tensor

Values = np.ndarray | sparse.csr_matrix | sparse.csr_array


@dataclass(frozen=True)
class Table:
    """Rows of finite floating-point numbers, and the names that came with them.

    Attributes:
        values: ``(n, p)`` array, or CSR matrix, of float32 or float64.
        feature_names: ``(p,)`` strings, or None where the input had none.
        sample_names: ``(n,)`` strings, or None.
        image_shape: ``(channels, height, width)`` where the rows are flattened images, else None.
    """

    values: Values
    feature_names: np.ndarray | None = None
    sample_names: np.ndarray | None = None
    image_shape: tuple[int, int, int] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return cast(tuple[int, int], self.values.shape)

    @property
    def n_features(self) -> int:
        return self.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.values.dtype == np.float64 else torch.float32

    def rows(self, index: slice | np.ndarray) -> Tensor:
        """The rows of a slice or an index array, dense: ``(m, p)``, to be read and not written to."""
        chosen = self.values[index]
        return as_tensor(chosen if isinstance(chosen, np.ndarray) else chosen.toarray())


def as_tensor(array: np.ndarray) -> Tensor:
    """The tensor of an array, sharing its memory where torch can (it cannot share read-only memory)."""
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def is_anndata(X: object) -> bool:
    """Whether ``X`` is an AnnData object, found without importing the package."""
    return any(c.__name__ == "AnnData" and c.__module__.split(".")[0] == "anndata" for c in type(X).__mro__)


def read_input(X: object, *, minimum_rows: int = 1, estimator: object = None) -> Table:
    """Read what a user hands in as a `Table`; every value is checked to be a finite number.

    float32 and float64 keep their type; integers, booleans and half precision become float32.

    Args:
        X: ``(n, p)`` array, Tensor, DataFrame, scipy sparse matrix, nested list or AnnData, or images
            ``(n, channels, height, width)`` as an array or Tensor, which are flattened by row.
        minimum_rows: fewest rows to accept.
        estimator: named in the messages.

    Returns:
        The table. Dense float input is not copied.

    Raises:
        ValueError: wrong number of dimensions, no rows, NaN or infinity, text, complex or masked values.
        TypeError: not convertible to an array.

    Example:
        >>> table = read_input([[1, 2], [3, 4], [5, 6]])
        >>> len(table), table.n_features, table.dtype
        (3, 2, torch.float32)
        >>> read_input(torch.zeros(5, 1, 8, 8)).image_shape
        (1, 8, 8)
    """
    feature_names = sample_names = image_shape = None
    values: Any = X
    if is_anndata(X):
        values, feature_names, sample_names = _read_anndata(X)
    elif hasattr(X, "columns"):
        feature_names, sample_names = _frame_names(X)
    values = _plain(values)
    if getattr(values, "ndim", 2) == 4:
        channels, height, width = (int(size) for size in values.shape[1:])
        image_shape = (channels, height, width)
        values = values.reshape(len(values), -1)
    return Table(
        _checked(values, minimum_rows, estimator),
        feature_names=feature_names,
        sample_names=sample_names,
        image_shape=image_shape,
    )


def _read_anndata(X: Any) -> tuple[object, np.ndarray, np.ndarray]:
    if X.X is None:
        raise ValueError("X: expected an AnnData with a matrix, got one with X=None; pass adata.layers[...]")
    matrix = X.X
    if hasattr(matrix, "to_memory"):  # a sparse matrix on disk
        matrix = matrix.to_memory()
    elif not (isinstance(matrix, np.ndarray) or sparse.issparse(matrix)):
        matrix = np.asarray(matrix[:])
    return matrix, np.asarray(X.var_names, dtype=object), np.asarray(X.obs_names, dtype=object)


def _frame_names(frame: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    columns = list(frame.columns)
    features = np.asarray(columns, dtype=object) if all(isinstance(name, str) for name in columns) else None
    index = list(getattr(frame, "index", ()))
    named = index and all(isinstance(name, str) for name in index)
    return features, np.asarray(index, dtype=object) if named else None


def _plain(X: Any) -> Any:
    """Tensors and lists as arrays; what scikit-learn's check understands is left as it is."""
    if X is None or isinstance(X, str | bytes):
        raise TypeError(f"X: expected an array, Tensor, DataFrame, sparse matrix or AnnData, got {X!r}")
    if isinstance(X, list | tuple) and len(X) and all(isinstance(row, Tensor) for row in X):
        X = torch.stack(list(X))
    if isinstance(X, Tensor):
        return _plain_tensor(X.detach().cpu())
    if isinstance(X, list | tuple):
        try:
            X = np.asarray(X)
        except ValueError as error:
            raise ValueError(f"X: expected rows of one length, got rows that differ ({error})") from error
    if np.ma.is_masked(X):
        raise ValueError("X: expected numbers everywhere, got masked entries; fill them first, X.filled(...)")
    return X


def _plain_tensor(X: Tensor) -> Any:
    if X.dtype in (torch.float16, torch.bfloat16):
        X = X.float()
    if X.layout == torch.strided:
        return X.numpy()
    if X.ndim != 2:
        raise ValueError(f"X: expected a sparse tensor (n, p), got shape {tuple(X.shape)}; pass X.to_dense()")
    entries = X.to_sparse_coo().coalesce()
    rows, columns = entries.indices().numpy()
    return sparse.csr_array((entries.values().numpy(), (rows, columns)), shape=tuple(X.shape))


def _checked(values: Any, minimum_rows: int, estimator: object) -> Values:
    dtypes = list(values.dtypes) if hasattr(values, "columns") else [getattr(values, "dtype", None)]
    _refuse_text(values, dtypes)
    if getattr(values, "ndim", 2) == 3:
        raise ValueError(
            f"X: expected (n, p) or images (n, channels, height, width), got shape {tuple(values.shape)}; "
            "give images without channels one, X[:, None], and flatten other rows"
        )
    # Objects (decimals, mixed columns) and long doubles would lose digits in float32.
    wide = any(getattr(dtype, "kind", "") == "O" or _is_long_float(dtype) for dtype in dtypes)
    accepted: Any = [np.float64, np.float32] if wide else [np.float32, np.float64]
    form: Any = "csr"
    return check_array(
        values,
        accept_sparse=form,
        dtype=accepted,
        ensure_min_samples=minimum_rows,
        estimator=estimator,
        input_name="X",
    )


def _is_long_float(dtype: Any) -> bool:
    return getattr(dtype, "kind", "") == "f" and (getattr(dtype, "itemsize", None) or 8) >= 8


def _refuse_text(values: Any, dtypes: list[Any]) -> None:
    """Text and dates would be read as numbers, or fail without saying in which column."""
    kinds = [_kind(dtype) for dtype in dtypes]
    for kind in ("text", "categories", "dates"):
        if kind in kinds:
            where = ""
            if hasattr(values, "columns"):
                named = [
                    str(name) for name, found in zip(values.columns, kinds, strict=True) if found == kind
                ]
                where = f" in column {', '.join(map(repr, named[:3]))}" + (", ..." if len(named) > 3 else "")
            raise ValueError(f"X: expected numbers, got {kind}{where}; encode or drop what is not a number")


def _kind(dtype: Any) -> str:
    name, kind = str(dtype).lower(), getattr(dtype, "kind", None)
    if name == "category":
        return "categories"
    if name.startswith("str") or kind in ("S", "U"):
        return "text"
    return "dates" if kind in ("M", "m") else "numbers"
