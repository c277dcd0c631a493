"""The command line: one program of the thin commands over the public functions.

Exit codes: 0 done, 1 failed (one line on stderr says why and what to try), 2 wrong usage.
"""

import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console
from sklearn.exceptions import ConvergenceWarning

from pullback.commands import dictionaries, explanation, pages, partitioning, tables, training

app = typer.Typer(
    name="pullback",
    help="See, shape and sample the geometry of a latent space.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = (
    training.demo,
    training.fit,
    tables.transform,
    tables.sample,
    tables.geodesic,
    explanation.explain,
    partitioning.partition,
    dictionaries.dictionary,
    pages.report,
    pages.info,
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code. Errors are one line, or a traceback with ``--debug``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with warnings.catch_warnings():
            # what a fit says of its end stands in the summary
            warnings.simplefilter("ignore", ConvergenceWarning)
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


for command in COMMANDS:
    app.command()(command)
