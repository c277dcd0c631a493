"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Model = Literal["vae", "autoencoder", "hvae", "rhvae", "umap"]
Family = Literal["gaussian", "bernoulli", "poisson", "negative_binomial", "categorical"]
Scale = Literal["auto", "global", "standard", "minmax", "maxabs", "center", "none"]

Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A file (.csv .tsv .parquet .npy .npz .h5ad .zarr) or data:NAME."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder written by `pullback fit`.")]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object to stdout, nothing else.", rich_help_panel="Output"),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is already there.", rich_help_panel="Output")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bar, no summary.", rich_help_panel="Output")
]
Label = Annotated[
    str | None,
    typer.Option(
        help="Column (or obs field) with the label; not trained on.", rich_help_panel="Reading the data"
    ),
]
Identifier = Annotated[
    str | None,
    typer.Option("--id", help="Column with the names of the rows.", rich_help_panel="Reading the data"),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(help="Column to leave out; may be repeated.", rich_help_panel="Reading the data"),
]
Missing = Annotated[
    Literal["error", "drop", "mean", "median"] | None,
    typer.Option(
        help="Missing values: refused, rows left out, or filled in.", rich_help_panel="Reading the data"
    ),
]
Categorical = Annotated[
    Literal["error", "onehot"] | None,
    typer.Option(help="Non-numeric columns: refused, or 0/1 columns.", rich_help_panel="Reading the data"),
]
Layer = Annotated[
    str | None,
    typer.Option(
        help="Layer of an AnnData file or named set, e.g. counts.", rich_help_panel="Reading the data"
    ),
]
Key = Annotated[
    str | None, typer.Option(help="Name of the array in an .npz file.", rich_help_panel="Reading the data")
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given on the command line."""
    return {name: value for name, value in options.items() if value not in (None, [])}
