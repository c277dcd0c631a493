"""What a page about contributions carries: few features of each point, so packed that all sums still hold."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int16

from pullback.attribution import Attribution
from pullback.plots.labels import Labels

MAX_POINTS = 100_000
CONTRIBUTION_BYTES = 8_000_000
CHUNK_CELLS = 4_000_000
STEPS = 32_767
TOP_NAMES = 20


@dataclass(frozen=True, eq=False)
class Cargo:
    """Contributions of m points, k features one by one and the others as one sum.

    Attributes:
        rows: (m,) which rows of the attribution.
        features: (k,) which features, the largest first.
        codes: (k, d, m) contributions in steps of ``step``.
        step: (k, d).
        rest: (d, m) sum of the other features, and of what rounding to steps has cost the k.
        offset: (d, m), or (d, 1) where it is the same everywhere.
        value: (d, m) what all of these add up to where the check holds.
        norm: (m,) Σ_j √Σ_i C_ij² over all features.
        top: (m,) the feature with the largest norm.
    """

    rows: Int[np.ndarray, " m"]
    features: Int[np.ndarray, " k"]
    codes: Int16[np.ndarray, "k d m"]
    step: Float[np.ndarray, "k d"]
    rest: Float[np.ndarray, "d m"]
    offset: Float[np.ndarray, "d m2"]
    value: Float[np.ndarray, "d m"]
    norm: Float[np.ndarray, " m"]
    top: Int[np.ndarray, " m"]


def sampled_rows(n: int, most: int, random_state: int) -> np.ndarray:
    """All rows, or a sorted random sample of them."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(random_state).choice(n, most, replace=False))


def pack(attribution: Attribution, rows: np.ndarray, top_k: int, groups: Labels | None) -> Cargo:
    """Choose the features, round their contributions to 16 bits each, and sum up the others.

    A feature is chosen by the largest of its mean norms over all points and over each group. The rest holds
    what the rounding costs, so that codes, rest and offset add up to what the contributions did.
    """
    values = attribution.values.detach()
    _, d, p = values.shape
    m = len(rows)
    most = max(1, CONTRIBUTION_BYTES // (2 * d * m))
    sizes, norm, top = _sizes(values, rows, groups)
    features = np.argsort(-sizes, kind="stable")[: min(top_k, most, p)]
    codes = np.empty((len(features), d, m), dtype=np.int16)
    largest = _largest(values, rows, features)
    step = np.where(largest > 0, largest, 1.0) / STEPS
    rest = np.empty((d, m), dtype=np.float32)
    for part in _slices(m, d * p):
        block = _block(values, rows[part])
        kept = np.rint(block[..., features].transpose(2, 1, 0) / step[..., None])
        codes[..., part] = kept.astype(np.int16)
        rest[:, part] = block.sum(2).T - (kept * step[..., None]).sum(0)
    offset, value = (_block(part.detach(), rows).T for part in (attribution.offset, attribution.value))
    if m and bool((offset == offset[:, :1]).all()):
        offset = offset[:, :1]
    return Cargo(
        rows, features, codes, step, rest, offset.astype(np.float32), value.astype(np.float32), norm, top
    )


def _block(values: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    return values[torch.as_tensor(rows, device=values.device)].cpu().double().numpy()


def _slices(m: int, width: int) -> list[slice]:
    size = max(1, CHUNK_CELLS // max(width, 1))
    return [slice(low, min(low + size, m)) for low in range(0, m, size)]


def _sizes(values: torch.Tensor, rows: np.ndarray, groups: Labels | None) -> tuple[np.ndarray, ...]:
    """Importance of each feature; of each point the sum of all norms and the feature with the largest."""
    _, d, p = values.shape
    member = np.zeros(len(rows), dtype=np.int64)
    if groups is not None and not groups.numeric:
        member = groups.values.astype(np.int64)
    kinds = int(member.max()) + 1 if len(member) else 1
    totals, counts = np.zeros((kinds, p)), np.bincount(member, minlength=kinds).astype(float)
    norm, top = np.empty(len(rows), dtype=np.float32), np.empty(len(rows), dtype=np.int64)
    for part in _slices(len(rows), d * p):
        size = np.sqrt((_block(values, rows[part]) ** 2).sum(1))
        norm[part], top[part] = size.sum(1), size.argmax(1)
        for kind in np.unique(member[part]):
            totals[kind] += size[member[part] == kind].sum(0)
    means = totals / np.maximum(counts, 1)[:, None]
    overall = totals.sum(0) / max(counts.sum(), 1)
    return np.maximum(overall, means.max(0)), norm, top


def _largest(values: torch.Tensor, rows: np.ndarray, features: np.ndarray) -> np.ndarray:
    _, d, p = values.shape
    largest = np.zeros((len(features), d))
    for part in _slices(len(rows), d * p):
        block = np.abs(_block(values, rows[part])[..., features])
        largest = np.maximum(largest, block.max(0).T)
    return largest


def top_names(top: np.ndarray, names: list[str]) -> tuple[list[str], np.ndarray]:
    """The most frequent top features, most frequent first, and each point's place among them, or -1."""
    found, counts = np.unique(top, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")][:TOP_NAMES]
    place = np.full(int(found.max()) + 1, -1, dtype=np.int16)
    place[order] = np.arange(len(order))
    return [names[j] for j in order], place[top]


def shades(values: Any, rows: np.ndarray, features: np.ndarray) -> dict[str, Any]:
    """Values of the features as 254 shades between their 1 % and 99 % quantiles; 255 is missing."""
    codes = np.empty((len(features), len(rows)), dtype=np.uint8)
    ends = np.zeros((len(features), 2))
    for k, j in enumerate(features):
        column = np.asarray(values[:, j], dtype=np.float64)[rows]
        finite = column[np.isfinite(column)]
        low, high = np.quantile(finite, [0.01, 0.99]) if finite.size else (0.0, 1.0)
        high = high if high > low else low + 1.0
        scaled = np.clip((column - low) / (high - low), 0, 1) * 254
        codes[k] = np.where(np.isfinite(scaled), np.rint(scaled), 255)
        ends[k] = low, high
    return {"codes": base64_of(codes), "ends": ends.tolist()}


def base64_of(array: np.ndarray) -> str:
    """The bytes of an array, little-endian, in base64."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")


def as_script(content: dict[str, Any], name: str) -> str:
    """Plain values as a block of JSON on a page, which no text inside can end."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'
