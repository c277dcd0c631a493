"""Checks of codes, quantities and bases that the whole room shares."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pullback.validation import check_tensor

HALF = (torch.float16, torch.bfloat16)
ORTHONORMAL = 1e-3
"""Largest entry of W Wᵀ - I that a basis may have: loose enough for half precision."""


def result_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, else what came."""
    return torch.float32 if dtype in HALF else dtype


def check_codes(Z: object, name: str = "Z", *, finite: bool = True) -> Tensor:
    """Codes (B, D), floating point, not empty; half precision becomes float32."""
    codes = check_tensor(name, Z)
    if not codes.is_floating_point():
        raise TypeError(f"{name}: expected floating point, got {_word(codes.dtype)}; use {name}.float()")
    if codes.ndim != 2:
        raise ValueError(f"{name}: expected (B, D), got {tuple(codes.shape)}")
    if 0 in codes.shape:
        empty = "rows: B = 0" if len(codes) == 0 else "columns: D = 0"
        raise ValueError(f"{name}: expected (B, D) with B, D >= 1, got no {empty}")
    codes = codes.to(result_dtype(codes.dtype))
    if finite:
        check_rows_finite(name, codes)
    return codes


def check_rows_finite(name: str, tensor: Tensor, hint: str = "") -> None:
    """Raise naming how many rows hold NaN or infinity."""
    # a sum sees every NaN and infinity in one pass; it may overflow by itself, so that only it is followed up
    if bool(torch.isfinite(tensor.detach().sum())):
        return
    bad = int((~torch.isfinite(tensor)).flatten(1).any(1).sum())
    if bad:
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity in {bad} rows{hint}")


def check_mapping(name: str, value: object, *, of: str = "tensors") -> Mapping[str, Any]:
    """A dict that is not empty."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a dict of name -> {of}, got {type(value).__name__}")
    if not value:
        raise ValueError(f"{name}: expected at least one quantity, got an empty dict")
    return value


def check_quantity(name: str, value: object, rows: int | None) -> Tensor:
    """A quantity as (B, m), floating point; (B,) is one column and (B, ...) is flattened."""
    target = check_tensor(name, value)
    if not target.is_floating_point():
        raise TypeError(f"{name}: expected floating point, got {_word(target.dtype)}; use .float()")
    if target.ndim == 0:
        raise ValueError(f"{name}: expected (B, ...), got a scalar")
    if rows is not None and len(target) != rows:
        raise ValueError(f"{name}: {len(target)} rows, Z has {rows}")
    flat = target.reshape(len(target), -1) if target.numel() else target.reshape(len(target), 0)
    if flat.shape[1] == 0:
        raise ValueError(f"{name}: expected at least one column, got {tuple(target.shape)}")
    return flat.to(result_dtype(flat.dtype))


def check_quantities(Y: object, rows: int | None, *, finite: bool = True) -> dict[str, Tensor]:
    """Every quantity as (B, m)."""
    found = {}
    for name, value in check_mapping("Y", Y).items():
        label = f"Y[{name!r}]"
        found[name] = check_quantity(label, value, rows)
        if finite:
            check_rows_finite(label, found[name], "; missing='drop' in SufficientStatistics leaves them out")
    return found


def check_same_dtype(Z: Tensor, tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise ``TypeError`` unless all share the dtype of Z."""
    for key, value in tensors.items():
        if value.dtype != Z.dtype:
            raise TypeError(
                f"{name}[{key!r}]: expected {_word(Z.dtype)} like Z, got {_word(value.dtype)}; convert one"
            )


def check_names(name: str, given: Iterable[str], wanted: Iterable[str], of: str) -> None:
    """Raise naming what is missing and what is too much."""
    have, want = set(given), set(wanted)
    if have == want:
        return
    parts = [
        f"{word} {', '.join(map(repr, sorted(names)))}"
        for word, names in (("missing", want - have), ("extra", have - want))
        if names
    ]
    raise ValueError(f"{name}: expected the names of {of}, got {' and '.join(parts)}")


def check_bases(W: object, dim: int | None, name: str = "W") -> dict[str, Tensor]:
    """Bases (k, D) with orthonormal rows, one for each name."""
    found: dict[str, Tensor] = {}
    for key, value in check_mapping(name, W).items():
        found[key] = check_basis(f"{name}[{key!r}]", value, dim)
    return found


def check_basis(label: str, value: object, dim: int | None) -> Tensor:
    """A basis (k, D) with orthonormal rows."""
    basis = check_tensor(label, value)
    if not basis.is_floating_point():
        raise TypeError(f"{label}: expected floating point, got {_word(basis.dtype)}")
    if basis.ndim != 2 or len(basis) == 0:
        raise ValueError(f"{label}: expected (k, D) with k >= 1, got {tuple(basis.shape)}")
    if (dim is not None and basis.shape[1] != dim) or len(basis) > basis.shape[1]:
        wanted = f"(k, {dim})" if dim is not None else "(k, D) with k <= D"
        raise ValueError(
            f"{label}: expected orthonormal rows {wanted}, got {tuple(basis.shape)}; (D, k)? transpose"
        )
    basis = basis.to(result_dtype(basis.dtype))
    gram = basis.detach() @ basis.detach().mT
    check_orthonormal(label, gram)
    return basis


def check_orthonormal(label: str, gram: Tensor) -> None:
    """Raise unless a Gram matrix of rows, or each of a batch, is the identity."""
    off = float((gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)).abs().max())
    if not off <= ORTHONORMAL:
        raise ValueError(
            f"{label}: expected orthonormal rows (k, D); got a largest entry of W Wᵀ - I of {off:.3g}; "
            "got (D, k)? transpose"
        )


def check_stack(name: str, stack: Tensor, names: Sequence[str], sizes: Sequence[int]) -> None:
    """Raise unless the rows of every block of a stack are orthonormal."""
    fixed = stack.detach()
    if len(set(sizes)) == 1:
        blocks = fixed.view(len(sizes), sizes[0], -1)
        label = (
            f"{name}[{names[0]!r}]" if len(sizes) == 1 else f"one of {name}[{', '.join(map(repr, names))}]"
        )
        check_orthonormal(label, blocks @ blocks.mT)
        return
    for q, block in zip(names, fixed.split(list(sizes)), strict=True):
        check_orthonormal(f"{name}[{q!r}]", block @ block.mT)


def check_enough_rows(rows: int, k: int, what: str) -> None:
    """Raise unless a batch has k + 2 rows."""
    if rows < k + 2:
        raise ValueError(f"Z: {what} needs at least k + 2 = {k + 2} rows, got {rows}")


def check_size(name: str, k: object) -> int:
    """A number of directions: a whole number of at least 1, of no other type."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"{name}: expected a whole number >= 1, got {k!r}")
    return k


def per_name(name: str, value: object, names: Iterable[str]) -> dict[str, int]:
    """A size for each name, from one number or a dict."""
    names = list(names)
    if isinstance(value, Mapping):
        check_names(name, value, names, "Y")
        return {q: check_size(f"{name}[{q!r}]", value[q]) for q in names}
    return dict.fromkeys(names, check_size(name, value))


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
