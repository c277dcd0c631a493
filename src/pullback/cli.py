"""The command line: thin commands over the public functions.

Exit codes: 0 done, 1 failed (one line on stderr says why and what to try), 2 wrong usage.
"""

import json
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

import pullback as pb
from pullback.data.output import check_table_path
from pullback.run_folder import (
    REPORT_FILE,
    check_folder,
    code_columns,
    fit_plain,
    open_plain,
    open_run,
    read_codes,
    resolve_again,
    values_of,
    write_record,
)
from pullback.run_options import make_estimator, parse_options, read_config
from pullback.run_paths import (
    check_outputs,
    draw,
    node_columns,
    share_columns,
    solve_pairs,
    summaries,
    write_figure,
)
from pullback.run_sampling import draw_samples, facts, sample_columns

app = typer.Typer(
    name="pullback",
    help="See, shape and sample the geometry of a latent space.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Literal["vae", "autoencoder", "hvae", "rhvae"]
DEMO_MODEL: Model = "vae"
Family = Literal["gaussian", "bernoulli", "poisson", "negative_binomial", "categorical"]
Scale = Literal["auto", "global", "standard", "minmax", "maxabs", "center", "none"]

DEPENDENCIES = ("torch", "numpy", "scipy", "scikit-learn", "lightning", "bokeh", "matplotlib", "pandas")

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
    str | None,
    typer.Option(help="Missing values: error, drop, mean or median.", rich_help_panel="Reading the data"),
]
Categorical = Annotated[
    str | None, typer.Option(help="Non-numeric columns: error or onehot.", rich_help_panel="Reading the data")
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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code. Errors are one line, or a traceback with ``--debug``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = app(args=words, prog_name="pullback", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except Exception as error:
        if debug:
            raise
        usage = getattr(error, "format_message", None)  # the argument parser's own errors have it
        if usage is not None:
            text = (usage() or type(error).__name__).rstrip(".") + "."
            return _fail(f"{text} See 'pullback COMMAND --help'.", 2)
        return _fail(str(error) or type(error).__name__, 1)


def _fail(message: str, code: int) -> int:
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        "error: " + " ".join(message.split()), style="red", markup=False
    )
    return code


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """See, shape and sample the geometry of a latent space."""


@app.command()
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


@app.command()
def fit(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, codes and report.")],
    model: Annotated[Model | None, typer.Option(help="Kind of model; vae if not given.")] = None,
    latent_dim: Annotated[int | None, typer.Option(help="Dimensions of the latent space.")] = None,
    likelihood: Annotated[Family | None, typer.Option(help="Distribution of the data.")] = None,
    scale: Annotated[
        str | None, typer.Option(help="Scaling of the features: standard, minmax, none ...")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows of a gradient step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    isometry: Annotated[
        float | None,
        typer.Option(
            help="Weight of an isometry penalty (nats a row; a third of the number of features is a start): "
            "distances of the latent space become those of the data."
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    report: Annotated[bool, typer.Option(help="Also write report.html.")] = True,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on DATA; write the model, the codes and the report to a folder."""
    from_file = read_config(config)
    reading = from_file.pop("data", {}) | _given(
        label=label, id=identifier, drop=drop, missing=missing, categorical=categorical, layer=layer, key=key
    )
    chosen = model or from_file.pop("model", "vae")
    from_file.pop("model", None)
    settings = {"random_state": seed} | from_file | parse_options(option or [])
    settings |= _given(
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
    estimator.fit(values)
    estimator.save(out, overwrite=True)
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
        _print_json(summary)
    elif not quiet:
        console = _console()
        for line in diagnosis.summary():
            console.print(line)
        if not estimator.converged_:
            console.print(f"note: {estimator.message_}", style="yellow")
        if report:
            console.print(f"report: {summary['report']}")


@app.command()
def transform(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Table of codes (.csv .parquet .npy .json ...).")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Encode the rows of DATA with a trained model."""
    model, record = open_run(run)
    dataset = resolve_again(data, record)
    codes = model.transform(values_of(dataset))
    pb.data.write_table(out, code_columns(dataset, codes), overwrite=overwrite)
    _done(as_json, out=str(out), rows=len(codes), latent_dim=codes.shape[1])


@app.command()
def sample(
    run: Run,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Table of samples (.csv .parquet .npy .json ...).")
    ],
    number: Annotated[int, typer.Option("--number", "-n", help="How many samples.")] = 100,
    method: Annotated[
        str, typer.Option(help="How to draw latents: prior, posterior, and with rhvae volume or rhmc.")
    ] = "prior",
    data: Annotated[
        str | None,
        typer.Option(help="Rows whose posterior is sampled (posterior, rhmc): a file or data:NAME."),
    ] = None,
    observe: Annotated[
        Literal["mean", "sample"], typer.Option(help="Expected rows, or with the noise of the likelihood.")
    ] = "mean",
    seed: Annotated[int, typer.Option(help="Makes the draw repeatable.")] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the sampler (volume, rhmc), NAME=VALUE; may be repeated."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw new rows from a trained model: latent points, their log-density, decoded features."""
    check_table_path(out, overwrite=overwrite)
    model, record = open_run(run)
    drawn, origin = draw_samples(
        model,
        record,
        number,
        method=method,
        observe=observe,
        data=data,
        seed=seed,
        options=parse_options(option or []),
    )
    pb.data.write_table(out, sample_columns(model, drawn, origin), overwrite=overwrite)
    _done(as_json, **facts(out, method, drawn))


@app.command()
def geodesic(
    run: Run,
    out: Annotated[Path, typer.Option("--out", "-o", help="Table of paths (.csv .parquet .json ...).")],
    pair: Annotated[
        list[str],
        typer.Option(help="Two rows of the training data, FROM:TO, by name or number; may be repeated."),
    ],
    nodes: Annotated[int, typer.Option(help="Points along each path (odd).")] = 65,
    decoded: Annotated[bool, typer.Option(help="Also write the decoded features along the path.")] = False,
    shares: Annotated[
        Path | None, typer.Option(help="Table of each feature's share of the energy (.csv .parquet ...).")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Picture of the paths and what is along them (.png .pdf .svg).")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Shortest paths of the model's metric between rows of the training data, each with its certificate."""
    check_outputs(out, shares, figure, overwrite=overwrite)
    model, record = open_run(run)
    paths = solve_pairs(model, read_codes(run, record), pair, nodes)
    pb.data.write_table(out, node_columns(paths, decoded=decoded), overwrite=overwrite)
    if shares is not None:
        pb.data.write_table(shares, share_columns(paths), overwrite=overwrite)
    if figure is not None:
        write_figure(figure, draw(paths))
    found = summaries(paths)
    if not as_json:
        for entry in found:
            word = "certified" if entry["converged"] else "NOT certified"
            _console().print(f"{entry['pair']}: length {entry['length']:.4g}, {word}", markup=False)
        if not all(entry["converged"] for entry in found):
            _console().print(f"note: {paths.found.message}", style="yellow", markup=False)
    _done(as_json, paths=found if as_json else None, out=out, shares=shares, figure=figure)


@app.command()
def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file; RUN/report.html if not given.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Other data than the model was trained on.")] = None,
    other: Annotated[
        list[Path] | None,
        typer.Option(help="A run of the same model, trained again: checks how stable distances are."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure the geometry of a trained model again and write its report."""
    model, record = open_run(run)
    others = [open_run(path)[0] for path in other or ()]
    page = out or run / REPORT_FILE
    if page.exists() and not overwrite:
        raise FileExistsError(f"{page}: already there; pass --overwrite or choose another --out")
    if data is None and record["data"] is None:
        raise ValueError(
            "--data: expected a file or data:NAME; the model was saved without a record of its data"
        )
    dataset = resolve_again(data or record["data"], record)
    values = values_of(dataset)
    diagnosis = pb.diagnose(model, values, labels=dataset.y, others=others)
    written = pb.report(
        model,
        values,
        page,
        labels=dataset.y,
        diagnosis=diagnosis,
        before=open_plain(run, record),
        command=shlex.join(["pullback", *sys.argv[1:]]),
    )
    if not as_json:
        for line in diagnosis.summary():
            _console().print(line)
    _done(as_json, report=str(written.resolve()), checks=diagnosis.as_dict() if as_json else None)


@app.command()
def info(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Folder written by `pullback fit`.")
    ] = None,
    data: Annotated[
        bool, typer.Option("--data", help="List the named data sets and their licences.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a trained model, the named data sets, or this installation."""
    if run is not None:
        model, record = open_run(run)
        facts = {
            **record,
            "converged": model.converged_,
            "message": model.message_,
            "options": model.get_params(deep=False),
        }
    elif data:
        facts = {name: pb.data.describe(name) for name in pb.data.available()}
    else:
        facts = {"pullback": pb.__version__, "python": sys.version.split()[0]} | {
            name: metadata.version(name) for name in DEPENDENCIES
        }
    if as_json:
        _print_json(facts)
        return
    _print_facts(facts)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, [])}


def _print_facts(facts: dict[str, Any], indent: int = 0) -> None:
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            _console().print(" " * indent + name, style="bold", markup=False)
            _print_facts(value, indent + 2)
        else:
            _console().print(f"{'':{indent}}{name:<{width}}  {value}", markup=False)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True, markup=True)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, default=str))


def _done(as_json: bool, **facts: Any) -> None:
    given = {name: value for name, value in facts.items() if value is not None}
    if as_json:
        _print_json(given)
        return
    for name, value in given.items():
        _console().print(f"{name}: {value}")
