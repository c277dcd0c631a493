"""The command that finds curved atoms: `dictionary`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

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
    Overwrite,
    Quiet,
    given,
)
from pullback.commands.printing import console, print_json
from pullback.estimators.dictionary_checkpoint import FILE_NAME, digest, remove_checkpoint
from pullback.run_beside import read_beside, reading_with
from pullback.run_dictionary import SweepNotes, same_dictionary
from pullback.run_folder import REPORT_FILE, check_folder, save_run, write_record
from pullback.run_options import own_options

CHECKPOINT_FOLDER = "checkpoint"
"""Of the run's folder; gone when the run is written."""
KINDS = ("auto", "circle", "interval", "plane", "sphere", "torus", "line")


def dictionary(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the dictionary, codes and report.")],
    atoms: Annotated[
        int | None, typer.Option(min=1, help="Number of atoms; counted in the rows if not given.")
    ] = None,
    charts: Annotated[
        list[str] | None,
        typer.Option(help=f"Kind of all atoms, or of each if given once an atom: {', '.join(KINDS)}."),
    ] = None,
    gate: Annotated[
        Literal["amplitude", "softmax"],
        typer.Option(help="amplitude: sums of a few atoms; softmax: mixtures, one atom a row."),
    ] = "amplitude",
    active: Annotated[
        int | None, typer.Option(min=1, help="Most atoms a row (amplitude); 3 if not given.")
    ] = None,
    center_by: Annotated[
        str | None, typer.Option(help="Column of a nuisance factor whose group means are subtracted.")
    ] = None,
    restarts: Annotated[int, typer.Option(min=1, help="Starts at most.")] = 3,
    sweeps: Annotated[int, typer.Option(min=1, help="Most sweeps of a fit.")] = 40,
    seconds: Annotated[float | None, typer.Option(min=0, help="Most seconds of a fit.")] = None,
    seed: Annotated[int, typer.Option(help="Makes the fit repeatable.")] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other option of the dictionary, NAME=VALUE; may be repeated."),
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
    """Find curved atoms (circles, arcs, surfaces, points) in DATA, and where each row lies on them."""
    reading = given(
        label=label, id=identifier, drop=drop, missing=missing, categorical=categorical, layer=layer, key=key
    )
    checkpoint = out / CHECKPOINT_FOLDER
    begun = (checkpoint / FILE_NAME).exists()
    finished = resume and (out / "config.json").exists() and not (overwrite or begun)
    if (out / "config.json").exists() and not (overwrite or resume):
        raise FileExistsError(f"{out}: already holds a model; pass --overwrite or choose another --out")
    check_folder(out)
    kinds = _checked_kinds(charts or ["auto"], atoms)
    names = [] if center_by is None else [center_by]
    dataset, beside = read_beside(data, names, reading, "--center-by")
    groups = next(iter(beside.values()), None)
    settings = own_options(option or []) | given(n_active=active, max_seconds=seconds)
    model = pb.ManifoldDictionary(
        atoms or "auto",
        kinds[0] if len(kinds) == 1 else list(kinds),
        gate=gate,
        n_restarts=restarts,
        max_sweeps=sweeps,
        random_state=seed,
    ).set_params(**{"checkpoint_dir": str(checkpoint), "resume": resume} | settings)
    kept = reading_with(data, names, reading)
    command = shlex.join(["pullback", *sys.argv[1:]])
    record = {"data": data, "reading": kept, "command": command, "plain": False, "center_by": center_by}
    record |= {"rows": digest(dataset.X), "groups": None if groups is None else digest(groups)}
    if finished:
        model = same_dictionary(model, out, len(dataset.X), dataset.features, record)
    else:
        with SweepNotes(console(), silent=quiet or as_json) as progress:
            model.set_params(callback=progress)
            model.fit(dataset.frame(), center_by=groups)
        model.set_params(callback=None)
        save_run(model, out)
    write_record(out, dataset, model.codes_, **record)
    if not model.interrupted_:
        remove_checkpoint(checkpoint)
    known = model.diagnostics_
    summary = {
        "run": str(out),
        "model": type(model).__name__,
        "rows": len(dataset.X),
        "features": len(dataset.features),
        "atoms": [atom.chart.name for atom in model.atoms_],
        "fvu": known.fvu,
        "sigma": known.sigma,
        "converged": known.converged,
        "message": known.message,
        "alarms": [str(alarm) for alarm in known.alarms],
    }
    if report:
        page = pb.report(
            model, dataset.frame(), out / REPORT_FILE, labels=dataset.y, center_by=groups, command=command
        )
        summary["report"] = str(page.resolve())
    if as_json:
        print_json(summary)
    elif not quiet:
        notes = ["the fit had come to its end before"] if finished else []
        notes += ["interrupted: --resume goes on"] if model.interrupted_ else []
        _tell(model, notes, summary.get("report"))


def _checked_kinds(kinds: list[str], atoms: int | None) -> list[str]:
    for kind in kinds:
        if kind not in KINDS:
            raise typer.BadParameter(f"--charts: expected one of {', '.join(KINDS)}, got {kind!r}")
    if len(kinds) not in (1, atoms):
        raise typer.BadParameter(
            f"--charts: expected one kind, or one for each of --atoms {atoms}, got {len(kinds)}"
        )
    return kinds


def _tell(model: pb.ManifoldDictionary, notes: list[str], page: str | None) -> None:
    """What was found, in lines."""
    screen, known = console(), model.diagnostics_
    for k, atom in enumerate(model.atoms_):
        screen.print(f"atom {k}: {atom.chart.name}, {known.usage[k]:.1%} of rows", markup=False)
    for note in notes:
        screen.print(note, style="yellow")
    screen.print(f"unexplained: {known.fvu:.4f} of the variance; noise {known.sigma:.3g}", markup=False)
    for alarm in known.alarms:
        screen.print(f"alarm: {alarm}", style="yellow", markup=False)
    if page:
        screen.print(f"report: {page}", markup=False)
