"""The command that says why points are where they are: `explain`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import pullback as pb
from pullback.commands.options import AsJson, Overwrite, Quiet, Run
from pullback.commands.printing import console, print_json
from pullback.run_explanation import (
    baseline_of,
    check_files,
    check_line,
    explain_groups,
    explain_pairs,
    explain_rows,
    rows_to_explain,
    write_page,
)
from pullback.run_folder import open_run, values_of


def explain(
    run: Run,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="Rows to explain: a file or data:NAME; those of the fit if absent."
        ),
    ] = None,
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Table of contributions (.csv .parquet .npz .json ...).")
    ],
    page: Annotated[
        Path | None, typer.Option(help="Interactive page (.html): select points, see their features.")
    ] = None,
    between: Annotated[
        list[str] | None,
        typer.Option(
            help="Two rows, A:B, by name or number, or with --groups two groups: why they lie apart. "
            "May be repeated."
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Column with groups (label: that of the data): what holds each apart from the rest."
        ),
    ] = None,
    reduction: Annotated[
        Literal["none", "l2", "mean_l2"],
        typer.Option(help="Signed for each coordinate; one size a feature; the mean size over all rows."),
    ] = "none",
    layout: Annotated[
        Literal["wide", "long"], typer.Option(help="A column for each feature, or a row for each.")
    ] = "wide",
    map: Annotated[
        Literal["derivative", "local_linear"] | None,
        typer.Option(help="Which map to use where the network has a layer norm."),
    ] = None,
    method: Annotated[
        Literal["auto", "local", "path"], typer.Option(help="The map around the point, or a path integral.")
    ] = "auto",
    baseline: Annotated[
        Literal["training", "data", "zero"],
        typer.Option(help="Where features contribute nothing: mean of the training rows, of DATA, or zero."),
    ] = "training",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Which features put points where they are: a table that adds up, each row with its residual."""
    check_files(out, page, overwrite=overwrite)
    _check_choices(between, groups, reduction, layout)
    model, record = open_run(run)
    dataset = rows_to_explain(data, record, groups)
    options: dict[str, Any] = {"map": map, "method": method}
    options["baseline"] = baseline_of(baseline, values_of(dataset))
    if groups is not None:
        found = explain_groups(model, dataset, between or [], **options)
    elif between:
        found = explain_pairs(model, dataset, between, **options)
    else:
        reduced = None if reduction == "none" else reduction
        found = explain_rows(model, dataset, long=layout == "long", reduction=reduced, **options)
    pb.data.write_table(out, found.columns, overwrite=overwrite)
    notes = found.notes
    if page is not None:
        notes += write_page(model, dataset, page, **options)
    notes = tuple(dict.fromkeys(notes))
    files = {"out": str(out)} | ({} if page is None else {"page": str(page.resolve())})
    if as_json:
        print_json({**files, **found.facts, "notes": list(notes)})
    elif not quiet:
        screen = console()
        screen.print(check_line(found.facts), markup=False)
        screen.print(f"most            {', '.join(found.facts['top'])}", markup=False)
        for note in notes:
            screen.print(f"note: {note}", style="yellow", markup=False)
        for name, path in files.items():
            screen.print(f"{name}: {path}", markup=False)


def _check_choices(between: list[str] | None, groups: str | None, reduction: str, layout: str) -> None:
    if (between or groups is not None) and (reduction != "none" or layout != "wide"):
        raise typer.BadParameter(
            "--reduction and --layout: expected without --between and --groups, whose tables have a row for "
            "each feature"
        )
