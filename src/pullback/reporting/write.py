"""One call that looks at a fitted model and writes the page."""

import datetime
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pullback._version import __version__
from pullback.estimators.manifold_dictionary import ManifoldDictionary
from pullback.estimators.parametric_umap import ParametricUMAP
from pullback.estimators.reading import features_of
from pullback.inputs import read_input
from pullback.io import atomic_path
from pullback.plots.document import Section, assemble
from pullback.reporting.checks import Diagnosis
from pullback.reporting.condition_section import condition_section
from pullback.reporting.diagnosis import join, measure
from pullback.reporting.dictionary_page import DICTIONARY_STYLE, dictionary_sections
from pullback.reporting.embedding_diagnosis import diagnose_embedding
from pullback.reporting.embedding_page import embedding_sections
from pullback.reporting.evidence import Evidence, Observed, gather, observe, only_encodes
from pullback.reporting.path_strips import CHOOSE_PATH
from pullback.reporting.quantities_section import quantities_section
from pullback.reporting.reasons import reasons_section
from pullback.reporting.samples_section import samples_section
from pullback.reporting.sections import (
    Figures,
    checks_section,
    map_sections,
    origin_section,
    reconstruction_section,
    training_section,
)
from pullback.reporting.thumbnails import shorten
from pullback.reporting.wording import plural
from pullback.validation import check_whole

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "bokeh", "matplotlib")


def report(
    model: Any,
    X: Any,
    path: str | os.PathLike,
    *,
    labels: Any = None,
    label_name: str | None = None,
    feature_names: Any = None,
    max_points: int = 2000,
    n_geodesics: int = 8,
    diagnosis: Diagnosis | None = None,
    before: Any = None,
    quantities: Mapping[str, Any] | None = None,
    held_out: Any = None,
    center_by: Any = None,
    command: str | None = None,
    overwrite: bool = True,
    random_state: int = 0,
) -> Path:
    """Write one HTML file about a fitted model: checks first, then map, geodesics, reconstructions, training.

    The file opens from disk without a network and is bounded in size: of many rows a sample is drawn, and the
    page says so. It is written whole or not at all.

    Args:
        model: a fitted estimator (`VAE`, `Autoencoder`, `ParametricUMAP`, ...); the page of a
            `ManifoldDictionary` shows its atoms.
        X: data ``(n, p)`` or images ``(n, c, h, w)`` as for ``fit``.
        path: the HTML file; its folder must exist.
        labels: one label a row, categories or numbers, to colour by; geodesics join typical samples of each.
        label_name: what the labels are; a pandas Series brings its own name.
        feature_names: names of the p features; a DataFrame or AnnData brings its own.
        max_points: samples drawn at most.
        n_geodesics: pairs of samples joined by geodesics.
        diagnosis: what `diagnose` found for the same model, data and labels; its checks and paths are shown
            and not computed again. None computes them.
        before: the same model trained on the same data without its penalties; the map of the condition number
            then shows both. Fit it with the same options and seed and ``penalties=()``.
        quantities: values of the quantities that a `SubspacePartition` does not compute, as for ``fit``.
        held_out: numbers of rows of X that a `ParametricUMAP` has not been fitted to, to measure its
            quantities on; other models hold rows out themselves.
        center_by: names of the nuisance factor of a `ManifoldDictionary`, as for ``fit``.
        command: what made the page, printed at its end; None prints the call.
        overwrite: replace a file that is already there.
        random_state: seed of the samples.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError, IsADirectoryError, FileExistsError, PermissionError: the file cannot be written
            (checked before any work).
        TypeError: the model cannot encode and decode.
        sklearn.exceptions.NotFittedError: the model is not fitted.
        ValueError: X has another width than the model, holds NaN, the labels are of another length, or
            ``before`` has other features or latent dimensions than the model.

    Example:
        >>> import numpy as np, pathlib, tempfile, pullback as pb
        >>> X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
        >>> model = pb.VAE(hidden=(8,), max_epochs=2, progress=False, random_state=0).fit(X)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = pb.report(model, X, pathlib.Path(folder) / "run.html", n_geodesics=2)
        ...     page.read_text().startswith("<!DOCTYPE html>")
        True
    """
    path = check_writable(path, overwrite=overwrite)
    check_whole("n_geodesics", n_geodesics)
    options: dict[str, Any] = {
        "labels": labels,
        "label_name": label_name,
        "feature_names": feature_names,
        "max_points": max_points,
        "random_state": random_state,
    }
    if isinstance(model, ManifoldDictionary):
        shown: dict[str, Any] = {"labels": labels, "center_by": center_by, "max_points": max_points}
        lead, sections = dictionary_sections(model, X, **shown, random_state=random_state)
        origin = origin_section(command or _call(model, path), _versions(), _options(model))
        text = assemble(
            title="ManifoldDictionary: report on curved atoms",
            lead=lead,
            sections=[*sections, origin],
            figures={},
            footer=_footer(),
            style=DICTIONARY_STYLE,
        )
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path
    if center_by is not None:
        raise ValueError("center_by: expected None for a model that is no dictionary, got values")
    apart = None if held_out is None else _held_out(model, held_out, len(read_input(features_of(model, X))))
    if only_encodes(model):
        if before is not None:
            raise ValueError("before: expected None for a model without a decoder, got another model")
        seen = observe(model, X, **options)
        found = diagnose_embedding(seen) if diagnosis is None else diagnosis
        parts, figures = _embedding_parts(seen, X, quantities, apart)
    else:
        seen = gather(model, X, before=before, **options)
        found = measure(seen, join(seen, n_geodesics)) if diagnosis is None else diagnosis
        parts, figures = _parts(seen, found, X, quantities, apart)
    training, curves = training_section(seen, found)
    origin = origin_section(command or _call(model, path), _versions(), _options(model))
    text = assemble(
        title=f"{type(model).__name__}: report on a latent space",
        lead=_lead(seen),
        sections=[checks_section(seen, found), *parts, training, origin],
        figures=figures | curves,
        behaviour=CHOOSE_PATH,
        footer=_footer(),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _footer() -> str:
    return f"pullback {__version__}, {datetime.datetime.now().astimezone():%d %B %Y, %H:%M %Z}"


def _parts(
    evidence: Evidence,
    found: Diagnosis,
    X: Any,
    quantities: Mapping[str, Any] | None,
    held_out: np.ndarray | None,
) -> tuple[list[Section], Figures]:
    """What there is to show of a model that encodes and decodes."""
    sections, figures = map_sections(evidence, found)
    unequal, conditions = condition_section(evidence)
    drawn, dots = samples_section(evidence, found)
    rebuilt, more = reconstruction_section(evidence)
    reserved, readings = quantities_section(evidence, X, quantities, held_out)
    parts = [*sections, *unequal, *reserved, *reasons_section(evidence, X), *drawn, rebuilt]
    return parts, figures | conditions | readings | dots | more


def _embedding_parts(
    seen: Observed, X: Any, quantities: Mapping[str, Any] | None, held_out: np.ndarray | None
) -> tuple[list[Section], Figures]:
    """What there is to show of a model that only encodes."""
    sections, figures = embedding_sections(seen)
    reserved, readings = quantities_section(seen, X, quantities, held_out)
    return [*sections, *reserved, *reasons_section(seen, X)], figures | readings


def _held_out(model: Any, rows: Any, n: int) -> np.ndarray:
    """Row numbers, for a model that reserves room and holds none out itself."""
    if not isinstance(model, ParametricUMAP) or getattr(model, "partition_", None) is None:
        raise ValueError(
            "held_out: expected None for a model other than a ParametricUMAP with a partition, got rows"
        )
    index = np.asarray(rows)
    if not index.size:
        raise ValueError("held_out: expected numbers of rows (k,), got none; leave some out of the fit")
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise ValueError(
            f"held_out: expected numbers of rows (k,), got {index.dtype} {index.shape}; np.flatnonzero makes "
            "them of a mask"
        )
    if index.min() < 0 or index.max() >= n:
        raise ValueError(
            f"held_out: expected numbers of rows, 0 to {n - 1}, got {index.min()} to {index.max()}"
        )
    return np.unique(index)


def check_writable(path: str | os.PathLike, *, overwrite: bool) -> Path:
    """Return the path if a file can be written there; raise ``OSError`` of the fitting kind otherwise."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"{path}: expected a file to write, got a folder; add a name such as report.html"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; create it or choose another path")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: already there; pass overwrite=True or choose another path")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{path.parent}: folder is not writable; choose another path")
    return path


def _lead(evidence: Observed) -> str:
    d, p = evidence.codes.shape[1], evidence.x.shape[1]
    what = plural(p, "feature")
    if evidence.image_shape is not None:
        what = "pictures of " + " × ".join(str(side) for side in evidence.image_shape[1:]) + " pixels"
    return f"{plural(evidence.n, 'sample')}, {what}, {plural(d, 'latent dimension')}"


def _call(model: Any, path: Path) -> str:
    return f"pullback.report({' '.join(repr(model).split())}, X, {str(path)!r})"


def _versions() -> dict[str, str]:
    found = {"pullback": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in PACKAGES}


def _options(model: Any) -> dict[str, str]:
    if not hasattr(model, "get_params"):
        return {}
    found = model.get_params(deep=False)
    return {name: shorten(" ".join(repr(value).split()), 200) for name, value in found.items()}
