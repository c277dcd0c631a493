"""The command that reserves latent coordinates for columns of a table: `partition`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

import pullback as pb
from pullback.commands.options import (
    AsJson,
    Categorical,
    Data,
    Drop,
    Identifier,
    Key,
    Label,
    Layer,
    Missing,
    Model,
    Overwrite,
    Quiet,
    given,
)
from pullback.commands.printing import console, print_json
from pullback.estimators.held_out import evaluate_apart, seen_part
from pullback.run_beside import reading_with
from pullback.run_folder import REPORT_FILE, check_folder, save_run, values_of, write_record
from pullback.run_options import parse_options
from pullback.run_partition import (
    HELD_OUT,
    check_held_out,
    kinds_of,
    numbers_of,
    read_with_quantities,
    reserving_estimator,
    rows_to_hold_out,
    write_quantities,
)


def partition(
    data: Data,
    quantity: Annotated[
        list[str],
        typer.Option(
            "--quantity",
            help="Column (obs field, array beside the data) to reserve room for; may be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, codes and report.")],
    model: Annotated[Model, typer.Option(help="Kind of model; umap makes a map.")] = "autoencoder",
    size: Annotated[
        list[str] | None, typer.Option(help="Latent coordinates of a quantity, COL=K; may be repeated.")
    ] = None,
    circular: Annotated[
        list[str] | None,
        typer.Option(help="Quantity that is a position on a circle, COL=PERIOD; may be repeated."),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(help="Quantity that is a category though its values are numbers; may be repeated."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            min=0, help="Weight beside the reconstruction; twice the features if not given, 1 for umap."
        ),
    ] = None,
    latent_dim: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Latent dimensions; twice what the quantities take if not given, two more for umap.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most passes over the data.")] = None,
    seed: Annotated[int, typer.Option(help="Makes the fit repeatable.")] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other option of the model, NAME=VALUE; may be repeated."),
    ] = None,
    label: Label = None,
    identifier: Identifier = None,
    drop: Drop = None,
    missing: Missing = None,
    categorical: Categorical = None,
    layer: Layer = None,
    key: Key = None,
    report: Annotated[bool, typer.Option(help="Also write report.html.")] = True,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on DATA that keeps latent coordinates for known quantities; measure what is where."""
    reading = given(
        label=label, id=identifier, drop=drop, missing=missing, categorical=categorical, layer=layer, key=key
    )
    if (out / "config.json").exists() and not overwrite:
        raise FileExistsError(f"{out}: already holds a model; pass --overwrite or choose another --out")
    check_folder(out)
    dataset, quantities = read_with_quantities(data, quantity, reading)
    settings = {"random_state": seed, "validation_fraction": HELD_OUT} | parse_options(option or [])
    if "partition" in settings:
        raise typer.BadParameter("--set: partition is made of --quantity and the options beside it")
    settings |= given(latent_dim=latent_dim, max_epochs=epochs)
    periods, held_out = numbers_of(circular or [], "--circular"), None
    check_held_out(len(dataset.X), settings["validation_fraction"])
    if model == "umap":
        # a map holds no rows out itself
        kinds = kinds_of(quantities, periods, category or [])
        held_out = rows_to_hold_out(quantities, kinds, settings.pop("validation_fraction"), seed)
    estimator = reserving_estimator(
        model,
        quantities,
        settings,
        sizes=numbers_of(size or [], "--size"),
        circular=periods,
        categorical=category or [],
        strength=strength,
    )
    if quiet or as_json:
        estimator.set_params(progress=False)
    values = values_of(dataset)
    seen = seen_part(values, quantities, held_out)
    estimator.fit(seen.X, quantities=seen.quantities)
    save_run(estimator, out)
    kept = reading_with(data, quantity, reading)
    command = shlex.join(["pullback", *sys.argv[1:]])
    record = {"data": data, "reading": kept, "command": command, "plain": False, "quantities": quantity}
    codes = estimator.embedding_ if held_out is None else estimator.transform(values)
    write_record(out, dataset, codes, **record)
    table = evaluate_apart(estimator, values, quantities, held_out)
    write_quantities(out, table, held_out)
    summary = {
        "run": str(out),
        "model": type(estimator).__name__,
        "rows": len(dataset.X),
        "features": len(dataset.features),
        "converged": bool(estimator.converged_),
        "message": estimator.message_,
        **table.to_dict(),
    }
    if report:
        page = pb.report(
            estimator,
            values,
            out / REPORT_FILE,
            labels=dataset.y,
            quantities=quantities,
            held_out=held_out,
            command=command,
        )
        summary["report"] = str(page.resolve())
    if as_json:
        print_json(summary)
    elif not quiet:
        screen = console()
        screen.print(str(table), markup=False)
        if not estimator.converged_:
            screen.print(f"note: {estimator.message_}", style="yellow", markup=False)
        if report:
            screen.print(f"report: {summary['report']}", markup=False)
