"""Commands that write tables from a trained model: `transform`, `sample` and `geodesic`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

import pullback as pb
from pullback.commands.options import AsJson, Data, Overwrite, Run
from pullback.commands.printing import console, done
from pullback.data.output import check_table_path
from pullback.run_dictionary import known_groups
from pullback.run_folder import code_columns, open_run, read_codes, resolve_again, values_of
from pullback.run_options import parse_options
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
    groups = known_groups(dataset, record)
    codes = model.transform(values_of(dataset), **({} if groups is None else {"center_by": groups}))
    pb.data.write_table(out, code_columns(dataset, codes), overwrite=overwrite)
    width = "atoms" if isinstance(model, pb.ManifoldDictionary) else "latent_dim"
    done(as_json, out=str(out), rows=len(codes), **{width: codes.shape[1]})


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
    done(as_json, **facts(out, method, drawn))


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
            console().print(f"{entry['pair']}: length {entry['length']:.4g}, {word}", markup=False)
        if not all(entry["converged"] for entry in found):
            console().print(f"note: {paths.found.message}", style="yellow", markup=False)
    done(as_json, paths=found if as_json else None, out=out, shares=shares, figure=figure)
