"""PBMC 68k, reduced: 700 blood cells with counts of 765 variable genes, carried by scanpy.

The file holds no counts. ``raw.X`` is log(1 + 1e4 count / n_counts) rounded to three decimals, with the
cell's total ``n_counts`` over the whole transcriptome, so that

    count = round(expm1(raw) n_counts / 1e4)

is exact: no entry lies further than .082 from a whole number.
"""

import io
from typing import Any

import numpy as np
from scipy import sparse

from pullback.data.carrier import CarrierFile, NamedSet
from pullback.data.dataset import DataError, Dataset
from pullback.validation import check_choice

INSTALL = "pip install --no-deps scanpy==1.11.5 && pip install h5py"
CELLS = CarrierFile(
    dataset="pbmc68k",
    install=INSTALL,
    path="scanpy/datasets/10x_pbmc68k_reduced.h5ad",
    size=1772368,
    sha256="e71d41e737c941559b7c57c9243bdb3d2c889c2adfdf00e3422ac6b46783676f",
)
SHAPE = (700, 765)
LAYERS = ("counts", "log", "scaled")
CATEGORIES = ("bulk_labels", "phase", "louvain")
NUMBERS = ("n_genes", "percent_mito", "n_counts", "S_score", "G2M_score")
ROUNDING = 0.1


def recover_counts(log: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Counts behind log(1 + 1e4 count / total), in the dtype of ``log``.

    Raises:
        DataError: an entry is further than .1 from a whole number.
    """
    exact = np.expm1(log.astype(np.float64)) * totals.astype(np.float64)[:, None] / 1e4
    counts = np.round(exact)
    distance = np.abs(exact - counts).max()
    if distance > ROUNDING:
        raise DataError(f"{CELLS.label}: expected counts, found {distance:.3f} from a whole number")
    return counts.astype(log.dtype)


def _parse(content: bytes) -> dict[str, Any]:
    import h5py

    file: Any
    with h5py.File(io.BytesIO(content)) as file:
        obs, raw = file["obs"][:], file["raw.X"]
        parsed = {
            "scaled": file["X"][:],
            "log": sparse.csr_array(
                (raw["data"][:], raw["indices"][:], raw["indptr"][:]), shape=SHAPE
            ).toarray(),
            "features": file["var"][:]["index"].astype(str),
            "samples": obs["index"].astype(str),
            "obs": {name: obs[name] for name in NUMBERS}
            | {name: file[f"uns/{name}_categories"][:].astype(str)[obs[name]] for name in CATEGORIES}
            | {name: file["obsm"][:][name] for name in ("X_pca", "X_umap")},
        }
    CELLS.check_shape("X", parsed["scaled"], SHAPE)
    return parsed


def _read(strict: bool, layer: str = "counts") -> Dataset:
    check_choice("layer", layer, LAYERS)
    cells = CELLS.parse(_parse, strict=strict)
    counts = recover_counts(cells["log"], cells["obs"]["n_counts"])
    obs = cells["obs"]
    return Dataset(
        X=counts if layer == "counts" else cells[layer],
        y=obs["bulk_labels"],
        features=cells["features"],
        samples=cells["samples"],
        extra={name: obs[name] for name in obs if name != "bulk_labels"} | {"library": counts.sum(axis=1)},
    )


SET = NamedSet(
    name="pbmc68k",
    content="700 blood cells of 10 types, 765 variable genes; layer: counts (default), log or scaled",
    licence="BSD-3-Clause (scanpy)",
    source="scanpy 1.11.5, 10x_pbmc68k_reduced.h5ad; 10x Genomics, Zheng et al. 2017",
    install=INSTALL,
    read=_read,
    files=(CELLS,),
    modules=("h5py",),
)
