"""HSMM: a time course of differentiating human myoblasts, single cells, carried by a Debian package.

The values are FPKM (fragments per kilobase of transcript and million of mapped fragments), not counts: take
``layer="log"`` and a Gaussian likelihood.
"""

import operator
from functools import partial
from importlib import import_module
from typing import Any, Literal

import numpy as np

from pullback.data.carrier import CarrierFile, NamedSet
from pullback.data.dataset import Dataset
from pullback.validation import check_choice

PACKAGE = "r-bioc-hsmmsinglecell"
INSTALL = (
    f'apt-get download {PACKAGE} && dpkg-deb -x {PACKAGE}_*.deb "$PULLBACK_DATA" && pip install rdata xarray'
)
LAYERS = ("fpkm", "log")
GENES, CELLS = 47192, 271
LOWEST, FEWEST_CELLS = 0.1, 10


def _file(name: str, size: int, sha256: str) -> CarrierFile:
    return CarrierFile(
        dataset="hsmm",
        install=INSTALL,
        path=f"usr/lib/R/site-library/HSMMSingleCell/data/{name}.rda",
        size=size,
        sha256=sha256,
        root="system",
    )


MATRIX = _file(
    "HSMM_expr_matrix", 16307699, "164937f63687f3fe3ec68f8509b7ba22b27b44bb7b3641ad462260675c4b015f"
)
ANNOTATION = _file(
    "HSMM_gene_annotation", 461982, "d4de9ae50c617890cd9871078df98f3f800896c6ad88e61e185d0609b140d5eb"
)
SHEET = _file("HSMM_sample_sheet", 6796, "599ddb58abd8795c6b8a06bb0b80c29c962043c3dce1ab32e46f6c87b140a622")


def choose_genes(fpkm: np.ndarray, genes: Literal["all", "expressed"] | int) -> np.ndarray:
    """Columns to keep, in the order of the file.

    "expressed" keeps the genes above .1 FPKM in at least 10 cells; a number keeps so many of these, those of
    the highest variance of log(1 + FPKM).

    Args:
        fpkm: ``(n, p)``.
        genes: which.

    Returns:
        Ascending column numbers.

    Raises:
        ValueError: neither a word that is known nor a number from 1 to the expressed genes.
    """
    if isinstance(genes, str):
        check_choice("genes", genes, ("all", "expressed"))
    if genes == "all":
        return np.arange(fpkm.shape[1])
    expressed = np.flatnonzero((fpkm > LOWEST).sum(axis=0) >= FEWEST_CELLS)
    if genes == "expressed":
        return expressed
    if isinstance(genes, bool) or not isinstance(genes, int | np.integer) or not 1 <= genes <= len(expressed):
        raise ValueError(
            f"genes: expected 'all', 'expressed' or a number from 1 to {len(expressed)}, got {genes!r}"
        )
    variance = np.log1p(fpkm[:, expressed]).var(axis=0)
    # A stable sort: among equal variances the first in the file, on every machine.
    highest = np.argsort(-variance, kind="stable")[: operator.index(genes)]
    return np.sort(expressed[highest])


def _parse(file: CarrierFile, name: str, shape: tuple[int, int], content: bytes) -> Any:
    # By its name alone: type checkers should pass where this optional reader is absent.
    rdata: Any = import_module("rdata")
    table = rdata.conversion.convert(rdata.parser.parse_data(content))[name]
    file.check_shape(name, np.asarray(table), shape)
    return table


def _read(strict: bool, layer: str = "fpkm", genes: Literal["all", "expressed"] | int = "all") -> Dataset:
    check_choice("layer", layer, LAYERS)
    matrix = MATRIX.parse(partial(_parse, MATRIX, "HSMM_expr_matrix", (GENES, CELLS)), strict=strict)
    annotation = ANNOTATION.parse(
        partial(_parse, ANNOTATION, "HSMM_gene_annotation", (GENES, 4)), strict=strict
    )
    sheet = SHEET.parse(partial(_parse, SHEET, "HSMM_sample_sheet", (CELLS, 7)), strict=strict)
    fpkm = np.ascontiguousarray(matrix.to_numpy().T)
    samples = matrix.coords["dim_1"].to_numpy().astype(str)
    sheet, annotation = sheet.loc[samples], annotation.loc[matrix.coords["dim_0"].to_numpy().astype(str)]
    kept = choose_genes(fpkm, genes)
    values, rows = fpkm[:, kept], annotation.iloc[kept]
    return Dataset(
        X=np.log1p(values) if layer == "log" else values,
        y=sheet["Hours"].astype(str).astype(np.int64).to_numpy(),
        features=rows.index.to_numpy().astype(str),
        samples=samples,
        extra={
            "media": sheet["Media"].to_numpy().astype(str),
            "state": sheet["State"].astype(str).astype(np.int64).to_numpy(),
            "pseudotime": sheet["Pseudotime"].to_numpy(dtype=np.float64),
            "mapped_fragments": sheet["Mapped.Fragments"].to_numpy(dtype=np.int64),
            "gene_names": rows["gene_short_name"].to_numpy().astype(str),
            "biotypes": rows["biotype"].to_numpy().astype(str),
        },
    )


SET = NamedSet(
    name="hsmm",
    content=(
        "271 myoblasts at 0, 24, 48, 72 hours of differentiation, 47192 genes (or genes=2000); "
        "layer: fpkm (default) or log"
    ),
    licence="Artistic-2.0 (HSMMSingleCell)",
    source="Bioconductor HSMMSingleCell 1.18.0 of Debian; Trapnell et al. 2014",
    install=INSTALL,
    read=_read,
    files=(MATRIX, ANNOTATION, SHEET),
    modules=("rdata", "xarray"),
)
