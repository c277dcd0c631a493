"""The folder of one run: the model, the codes, the report, and the record of how the data were read."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pullback as pb
from pullback.io import atomic_path
from pullback.models.dictionary.codes import SparseCodes

RECORD_FILE = "run.json"
CODES_FILE = "codes.parquet"
REPORT_FILE = "report.html"
LIVE_FILE = "live.html"
PLAIN_FOLDER = "plain"
"""The same model without its penalties, where it was trained to compare."""


def check_folder(out: Path) -> None:
    """Find out before training whether a folder can be written; one that is made for that does not stay."""
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"{place}: a file; --out needs a folder")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place}: not writable; choose another --out")
    try:
        # Permissions tell too little: as root on a file system that takes no files all is allowed.
        Path(tempfile.mkdtemp(prefix=".pullback-", dir=place)).rmdir()
    except OSError as error:
        raise PermissionError(f"{place}: takes no files ({error.strerror}); choose another --out") from error


def values_of(dataset: Any) -> Any:
    """What an estimator is given: images in their shape, tables with the names of their columns."""
    return dataset.X.reshape(-1, *dataset.image_shape) if dataset.image_shape else dataset.frame()


def code_columns(dataset: Any, codes: Any) -> dict[str, Any]:
    """Columns of a table of codes: name, label where there is one, coordinates."""
    label = {} if dataset.y is None else {"label": dataset.y}
    coded = sparse_columns(codes) if isinstance(codes, SparseCodes) else {"z": codes}
    return {"sample": dataset.samples, **label, **coded}


def sparse_columns(codes: SparseCodes) -> dict[str, Any]:
    """Codes of a dictionary slot by slot: atom (-1 if empty), weight, coordinates and their deviations."""
    plain = codes.numpy()
    columns: dict[str, Any] = {"residual": plain.residual, "at_rest": plain.converged}
    columns |= {"atom": plain.indices, "weight": plain.weights}
    for slot in range(plain.indices.shape[1]):
        columns |= {f"t{slot + 1}_": plain.coords[:, slot], f"sd{slot + 1}_": plain.coord_sd[:, slot]}
    return {name: values for name, values in columns.items() if 0 not in values.shape}


def save_run(model: Any, run: Path) -> None:
    """Write the model; until `write_record` the folder does not say what it was fitted to."""
    path = run / RECORD_FILE
    before = path.read_bytes() if path.is_file() else None
    path.unlink(missing_ok=True)
    try:
        model.save(run, overwrite=True)
    except BaseException:  # the model of before is still there
        if before is not None:
            path.write_bytes(before)
        raise


def write_record(run: Path, dataset: Any, codes: Any, **record: Any) -> None:
    """Keep beside the model what its codes are and how its data were read."""
    with atomic_path(run / RECORD_FILE) as temporary:
        temporary.write_text(json.dumps({**record, "labelled": dataset.y is not None}, indent=2) + "\n")
    pb.data.write_table(run / CODES_FILE, code_columns(dataset, codes), overwrite=True)


def read_codes(run: Path, record: dict[str, Any]) -> Any:
    """The codes of the training data, with the names of their rows."""
    if "labelled" not in record:
        raise FileNotFoundError(f"{run / RECORD_FILE}: no such file; expected a folder of `pullback fit`")
    label = "label" if record["labelled"] else None
    return pb.data.read_table(run / CODES_FILE, id="sample", label=label)


def open_run(run: Path) -> tuple[Any, dict[str, Any]]:
    """A trained model and the record of how it was made (empty for a model saved from Python)."""
    model = pb.load(run)
    record = json.loads((run / RECORD_FILE).read_text()) if (run / RECORD_FILE).is_file() else {}
    return model, {"data": None, "reading": {}} | record


def fit_plain(estimator: Any, values: Any, run: Path) -> Any:
    """Train the same model without its penalties and save it beside that of the run."""
    plain = type(estimator)(**estimator.get_params(deep=False))
    folder = run / PLAIN_FOLDER
    plain.set_params(penalties=(), checkpoint_dir=str(folder / "checkpoint"))
    plain.fit(values)
    plain.save(folder, overwrite=True)
    return plain


def open_plain(run: Path, record: dict[str, Any]) -> Any:
    """The same model trained without its penalties, or None."""
    return pb.load(run / PLAIN_FOLDER) if record.get("plain") else None


def resolve_again(data: str, record: dict[str, Any]) -> Any:
    """Read data as those of the fit were read; new rows need no more than the features."""
    reading = record["reading"]
    beside = {"label", "id", "extra", "drop"} & reading.keys()
    dataset = pb.data.resolve(data, **reading, **({"absent": "ignore"} if beside else {}))
    groups = record.get("center_by")
    if groups and groups not in dataset.extra and groups in reading.get("extra", ()):
        raise ValueError(f"{data}: no column {groups!r}, whose groups the dictionary was centred by")
    return dataset
