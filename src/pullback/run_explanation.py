"""Contributions of a run: of rows, between two rows, between groups; as tables, with their check."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

import pullback as pb
from pullback.attribution import Attribution
from pullback.data.output import check_table_path
from pullback.plots.cargo import MAX_POINTS, sampled_rows
from pullback.reporting.write import check_writable
from pullback.run_folder import resolve_again, values_of
from pullback.run_rows import row_number, split_pair

PAGE_BYTES = 2**29
"""Contributions that a page may be made from; of more, a sample of the rows is drawn."""
TOP = 5


@dataclass(frozen=True)
class RunExplanation:
    """What was explained, and what it says of itself.

    Attributes:
        columns: of the table.
        facts: the check, and counts, as plain values.
        notes: warnings on the way.
    """

    columns: dict[str, Any]
    facts: dict[str, Any]
    notes: tuple[str, ...]


def check_files(out: Path, page: Path | None, *, overwrite: bool) -> None:
    """Find out before any work that both files can be written."""
    check_table_path(out, overwrite=overwrite)
    if page is not None:
        if page.absolute() == out.absolute():
            raise ValueError(f"--out and --page: expected different files, got {out} twice")
        if page.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"--page: expected a file that ends in .html, got {page.name!r}")
        check_writable(page, overwrite=overwrite)


def rows_to_explain(data: str | None, record: dict[str, Any], groups: str | None) -> Any:
    """The data of the fit, or others read in the same way; ``groups`` names the column of the groups."""
    source = data or record["data"]
    if source is None:
        raise ValueError(
            "DATA: expected a file or data:NAME; the model was saved without a record of its data"
        )
    if groups is None:
        return resolve_again(source, record)
    named = groups == "label" and (source.startswith("data:") or "label" in record["reading"])
    dataset = (
        resolve_again(source, record)
        if named  # the labels that the data have, whatever their column is called
        else pb.data.resolve(source, **(record["reading"] | {"label": groups}))
    )
    if dataset.y is None:
        raise typer.BadParameter(f"--groups: {source} has no labels; name the column that holds the groups")
    return dataset


def baseline_of(kind: str, values: Any) -> torch.Tensor | None:
    """The point from which features are counted."""
    if kind == "training":
        return None
    rows = np.asarray(values)
    rows = rows.reshape(len(rows), -1)
    return torch.as_tensor(rows.mean(0) if kind == "data" else np.zeros(rows.shape[1], dtype=rows.dtype))


def explain_rows(model: Any, dataset: Any, *, long: bool, **options: Any) -> RunExplanation:
    """One row of the table a sample and output (a feature, too, where ``long``); a feature where averaged."""
    found, notes = _explained(model, values_of(dataset), options)
    names = _features(found, dataset)
    if found.reduction == "mean_l2":
        columns = {"feature": names, "size": _plain(found.values)}
        columns |= {"residual": np.full(len(names), _worst(found)), "exact": np.full(len(names), found.exact)}
        return RunExplanation(columns, facts_of(found, dataset), notes)
    samples, outputs = np.asarray(dataset.samples), np.asarray(output_names(found))
    per_sample = {"residual": _plain(found.residual), "exact": exact_rows(found)}
    values = _plain(found.values)
    if values.ndim == 2:
        head = {"sample": samples, **per_sample}
    else:
        head = {
            "sample": np.repeat(samples, len(outputs)),
            "output": np.tile(outputs, len(samples)),
            "value": _plain(found.value).ravel(),
            "offset": _plain(found.offset).ravel(),
            **{name: np.repeat(column, len(outputs)) for name, column in per_sample.items()},
        }
        values = values.reshape(-1, values.shape[2])
    word = "size" if found.reduction == "l2" else "contribution"
    return RunExplanation(_laid_out(head, names, values, word, long=long), facts_of(found, dataset), notes)


def explain_pairs(model: Any, dataset: Any, pairs: Sequence[str], **options: Any) -> RunExplanation:
    """One row of the table a pair and feature: its part of the difference, and of the distance."""
    ends = [
        [row_number(word, dataset.samples, "--between") for word in split_pair(text, "--between")]
        for text in pairs
    ]
    rows = np.unique(np.array(ends))
    values = values_of(dataset)
    place = {row: k for k, row in enumerate(rows.tolist())}
    method = options.get("method", "auto")
    found, notes = _explained(model, values.iloc[rows] if hasattr(values, "iloc") else values[rows], options)
    i, j = ([place[end[side]] for end in ends] for side in (0, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        apart = found.between(i, j, method=method)
        along = found.between(i, j, method=method, reduction="distance")
    names = _features(apart, dataset)
    p = len(names)
    distance = np.linalg.norm(_plain(apart.value), axis=1)
    columns: dict[str, Any] = {
        "pair": np.repeat(np.array(pairs), p),
        "feature": np.tile(np.array(names), len(pairs)),
        "to_distance": _plain(along.values).ravel(),
    }
    for k, name in enumerate(output_names(apart)):
        columns[f"to_{name}"] = _plain(apart.values[:, k]).ravel()
    columns |= {
        "distance": np.repeat(distance, p),
        "offset": np.repeat(_along(apart), p),
        "residual": np.repeat(_plain(apart.residual), p),
        "exact": np.repeat(exact_rows(apart), p),
    }
    more = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return RunExplanation(columns, facts_of(apart, dataset) | {"pairs": len(pairs)}, notes + more)


def explain_groups(model: Any, dataset: Any, pairs: Sequence[str], **options: Any) -> RunExplanation:
    """One row of the table a comparison and feature: each group with the rest, or the named pairs."""
    labels = np.array([str(label) for label in dataset.y])
    known = list(dict.fromkeys(sorted(labels.tolist())))
    if len(known) < 2:
        raise typer.BadParameter(f"--groups: expected at least two groups, got {', '.join(known)}")
    asked = [split_pair(text, "--between") for text in pairs]
    for name in (name for pair in asked for name in pair):
        if name not in known:
            raise typer.BadParameter(f"--between: {name!r} is no group; there are {', '.join(known[:20])}")
    comparisons: list[tuple[str, str | None]] = list(asked) or [(name, None) for name in known]
    found, notes = _explained(model, values_of(dataset), options | {"reduction": "mean_l2"})
    parts = [found.separation(labels, a, b) for a, b in comparisons]
    names = _features(found, dataset)
    p, outputs = len(names), output_names(found)
    columns: dict[str, Any] = {
        "group": np.repeat(np.array([a for a, _ in comparisons]), p),
        "other": np.repeat(np.array([b or "all others" for _, b in comparisons]), p),
        "feature": np.tile(np.array(names), len(parts)),
        "to_distance": np.concatenate([_plain(part.values) for part in parts]),
    }
    for k, name in enumerate(outputs):
        columns[f"to_{name}"] = np.concatenate([_plain(part.vector[k]) for part in parts])
    distance, offset = (
        np.array([float(getattr(part, name)) for part in parts]) for name in ("distance", "offset")
    )
    total = np.array([float(part.values.double().sum()) for part in parts]) + offset
    size = np.array([float(part.values.double().abs().sum()) for part in parts]) + np.abs(offset)
    residual = np.abs(distance - total) / np.maximum(size, np.finfo(float).tiny)
    good = found.exact & (residual <= found.verification.tolerance)
    columns |= {
        "distance": np.repeat(distance, p),
        "offset": np.repeat(offset, p),
        "residual": np.repeat(residual, p),
        "exact": np.repeat(good, p),
    }
    facts = facts_of(found, dataset) | {"comparisons": len(parts), "residual": float(residual.max())}
    return RunExplanation(columns, facts, notes)


def write_page(model: Any, dataset: Any, page: Path, **options: Any) -> tuple[str, ...]:
    """The interactive page of the rows, of a sample of them where they are many; what it has to say."""
    values = values_of(dataset)
    codes = np.asarray(model.transform(values[:1]))
    cells = codes.shape[1] * dataset.X.shape[1] * codes.dtype.itemsize
    rows = sampled_rows(len(dataset.X), min(MAX_POINTS, max(100, PAGE_BYTES // cells)), 0)
    chosen = values.iloc[rows] if hasattr(values, "iloc") else values[rows]
    found, notes = _explained(model, chosen, options | {"reduction": None})
    if found.value.shape[1] < 2:
        raise ValueError("--page: expected at least 2 latent dimensions, got 1")
    shape = dataset.image_shape
    pictures = None
    if shape is not None and shape[0] in (1, 3):
        pictures = dataset.X[rows].reshape(-1, *shape).transpose(0, 2, 3, 1)
    pb.plots.interactive_embedding(
        found.value,
        found,
        groups=None if dataset.y is None else np.asarray(dataset.y)[rows],
        feature_names=_features(found, dataset),
        feature_values=dataset.X[rows],
        hover_images=pictures,
        hover_data={"row": np.asarray(dataset.samples)[rows]},
        title=f"{type(model).__name__}: what puts points where they are",
        path=page,
    )
    if len(rows) < len(dataset.X):
        notes += (f"the page shows {len(rows)} of {len(dataset.X)} rows, chosen at random",)
    return notes


def facts_of(found: Attribution, dataset: Any) -> dict[str, Any]:
    """What an attribution says of itself, as plain values."""
    top = found.top(TOP)
    names = _features(found, dataset)
    return {
        "rows": len(dataset.X),
        "map": found.map,
        "method": found.method,
        "passed": bool(found.verification.passed),
        "residual": _worst(found),
        "tolerance": found.verification.tolerance,
        "exact": bool(found.exact),
        "homogeneity": found.homogeneity,
        "top": [names[j] for j in top.index.tolist()],
    }


def check_line(facts: dict[str, Any]) -> str:
    """The check in one line."""
    verdict = "pass" if facts["passed"] else "FAIL"
    exact = "exact" if facts["exact"] else "not exact"
    return (
        f"sums            {verdict:<10} largest residual {facts['residual']:.1e}, allowed "
        f"{facts['tolerance']:.0e}; {exact}; map {facts['map']}, method {facts['method']}"
    )


def output_names(found: Attribution) -> tuple[str, ...]:
    """Names of the latent coordinates."""
    return found.output_names or tuple(f"z{i + 1}" for i in range(found.value.shape[1]))


def exact_rows(found: Attribution) -> np.ndarray:
    """Whether the sums of each row hold to rounding."""
    good = _plain(found.residual) <= found.verification.tolerance
    return good & (found.piecewise_linear and found.nodes is None)


def _explained(model: Any, values: Any, options: dict[str, Any]) -> tuple[Attribution, tuple[str, ...]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = pb.explain(model, values, **options)
    return found, tuple(dict.fromkeys(str(warning.message) for warning in caught))


def _features(found: Attribution, dataset: Any) -> list[str]:
    known = dataset.features if found.feature_names is None else found.feature_names
    return [str(name) for name in known]


def _worst(found: Attribution) -> float:
    return float(found.residual.max()) if found.residual.numel() else 0.0


def _plain(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy()


def _along(found: Attribution) -> np.ndarray:
    """Offsets of pairs along their own directions."""
    value, offset = _plain(found.value), _plain(found.offset)
    length = np.linalg.norm(value, axis=1)
    return np.divide((value * offset).sum(1), length, out=np.zeros_like(length), where=length > 0)


def _laid_out(
    head: dict[str, np.ndarray], names: list[str], values: np.ndarray, word: str, *, long: bool
) -> dict[str, Any]:
    rows, p = values.shape
    if long:
        repeated = {name: np.repeat(column, p) for name, column in head.items()}
        first = {name: repeated.pop(name) for name in ("sample", "output") if name in repeated}
        return {**first, "feature": np.tile(np.array(names), rows), word: values.ravel(), **repeated}
    columns: dict[str, Any] = dict(head)
    for j, name in enumerate(names):
        key, number = f"{word}_{name}", 2
        while key in columns:  # names may repeat
            key, number = f"{word}_{name} ({number})", number + 1
        columns[key] = values[:, j]
    return columns
