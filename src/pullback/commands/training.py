"""Commands that train a model: `demo` and `fit`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import pullback as pb
from pullback.commands.options import (
    AsJson,
    Categorical,
    Data,
    Drop,
    Family,
    Identifier,
    Key,
    Label,
    Layer,
    Missing,
    Model,
    Overwrite,
    Quiet,
    Scale,
    given,
)
from pullback.commands.printing import console, print_json
from pullback.run_folder import (
    LIVE_FILE,
    REPORT_FILE,
    check_folder,
    fit_plain,
    save_run,
    values_of,
    write_record,
)
from pullback.run_options import make_estimator, own_options, read_config

DEMO_MODEL: Model = "vae"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model, codes and report.")] = Path(
        "pullback-demo"
    ),
    model: Annotated[Model, typer.Option(help="Kind of model.")] = DEMO_MODEL,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fit the handwritten digits, measure the geometry of their latent space, write the report."""
    settings = {"random_state": 0}
    _fit_and_report("data:digits", {}, model, settings, out, overwrite, quiet, as_json, resume=False)


def fit(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, codes and report.")],
    model: Annotated[Model | None, typer.Option(help="Kind of model; vae if not given.")] = None,
    latent_dim: Annotated[int | None, typer.Option(min=1, help="Dimensions of the latent space.")] = None,
    likelihood: Annotated[Family | None, typer.Option(help="Distribution of the data.")] = None,
    scale: Annotated[Scale | None, typer.Option(help="Scaling of the features.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows of a gradient step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    isometry: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Weight of an isometry penalty (nats a row; a third of the number of features is a start): "
            "distances of the latent space become those of the data.",
        ),
    ] = None,
    twin: Annotated[
        bool,
        typer.Option(
            help="With --isometry, train the same model without it as well, to show both in the report."
        ),
    ] = True,
    seed: Annotated[int, typer.Option(help="Makes the fit repeatable.")] = 0,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda ...")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other option of the model, NAME=VALUE; may be repeated."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file: model options, and a table named data for reading. Options given here win."
        ),
    ] = None,
    label: Label = None,
    identifier: Identifier = None,
    drop: Drop = None,
    missing: Missing = None,
    categorical: Categorical = None,
    layer: Layer = None,
    key: Key = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Keep live.html in the folder up to date while it trains."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    report: Annotated[bool, typer.Option(help="Also write report.html.")] = True,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on DATA; write the model, the codes and the report to a folder."""
    from_file = read_config(config)
    reading = from_file.pop("data", {}) | given(
        label=label, id=identifier, drop=drop, missing=missing, categorical=categorical, layer=layer, key=key
    )
    chosen = model or from_file.pop("model", "vae")
    from_file.pop("model", None)
    settings = {"random_state": seed} | from_file | own_options(option or [])
    settings |= given(
        latent_dim=latent_dim,
        likelihood=likelihood,
        scale=scale,
        max_epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        device=device,
        penalties=None if isometry is None else [pb.IsometryPenalty(isometry, latents="both")],
    )
    _fit_and_report(
        data,
        reading,
        chosen,
        settings,
        out,
        overwrite,
        quiet,
        as_json,
        resume=resume,
        report=report,
        twin=twin and report and isometry is not None,
        live=live,
    )


def _fit_and_report(
    data: str,
    reading: dict[str, Any],
    model: str,
    settings: dict[str, Any],
    out: Path,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    *,
    resume: bool,
    report: bool = True,
    twin: bool = False,
    live: bool = False,
) -> None:
    estimator = make_estimator(model, settings)
    if (out / "config.json").exists() and not (overwrite or resume):
        raise FileExistsError(f"{out}: already holds a model; pass --overwrite or choose another --out")
    check_folder(out)
    dataset = pb.data.resolve(data, **reading)
    estimator.set_params(checkpoint_dir=str(out / "checkpoint"), resume=resume)
    if quiet or as_json:
        estimator.set_params(progress=False)
    values = values_of(dataset)
    if live:
        out.mkdir(parents=True, exist_ok=True)
        title = f"{type(estimator).__name__} on {data}"
        view = pb.plots.LiveView(out / LIVE_FILE, values, groups=dataset.y, title=title)
        estimator.set_params(callbacks=[view])
    estimator.fit(values)
    if live:
        estimator.set_params(callbacks=None)
    save_run(estimator, out)
    plain = fit_plain(estimator, values, out) if twin else None
    command = shlex.join(["pullback", *sys.argv[1:]])
    record = {"data": data, "reading": reading, "command": command, "plain": plain is not None}
    write_record(out, dataset, estimator.embedding_, **record)
    diagnosis = pb.diagnose(estimator, values, labels=dataset.y)
    summary = {
        "run": str(out),
        "model": type(estimator).__name__,
        "rows": len(dataset.X),
        "features": len(dataset.features),
        "converged": bool(estimator.converged_),
        "message": estimator.message_,
        "checks": diagnosis.as_dict(),
    }
    if report:
        page = pb.report(
            estimator,
            values,
            out / REPORT_FILE,
            labels=dataset.y,
            diagnosis=diagnosis,
            before=plain,
            command=command,
        )
        summary["report"] = str(page.resolve())
    if as_json:
        print_json(summary)
    elif not quiet:
        screen = console()
        for line in diagnosis.summary():
            screen.print(line)
        if not estimator.converged_:
            screen.print(f"note: {estimator.message_}", style="yellow")
        if report:
            screen.print(f"report: {summary['report']}")
