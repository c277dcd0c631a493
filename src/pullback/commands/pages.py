"""Commands that describe a trained model: `report` and `info`."""

import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import pullback as pb
from pullback.commands.options import AsJson, Overwrite, Run
from pullback.commands.printing import console, done, print_facts, print_json
from pullback.run_dictionary import known_groups
from pullback.run_folder import REPORT_FILE, open_plain, open_run, resolve_again, values_of
from pullback.run_partition import held_out_again, known_quantities

DEPENDENCIES = ("torch", "numpy", "scipy", "scikit-learn", "lightning", "bokeh", "matplotlib", "pandas")


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
    curved = isinstance(model, pb.ManifoldDictionary)
    if curved and others:
        raise ValueError("--other: expected runs of a model with a decoder, got a dictionary; use align")
    diagnosis = None if curved else pb.diagnose(model, values, labels=dataset.y, others=others)
    same = data in (None, record["data"])
    written = pb.report(
        model,
        values,
        page,
        labels=dataset.y,
        diagnosis=diagnosis,
        before=open_plain(run, record),
        quantities=known_quantities(dataset, record),
        held_out=held_out_again(run, len(values)) if same else None,
        center_by=known_groups(dataset, record),
        command=shlex.join(["pullback", *sys.argv[1:]]),
    )
    if diagnosis is None:
        done(as_json, report=str(written.resolve()))
        return
    if not as_json:
        for line in diagnosis.summary():
            console().print(line)
    done(as_json, report=str(written.resolve()), checks=diagnosis.as_dict() if as_json else None)


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
        print_json(facts)
        return
    print_facts(facts)
