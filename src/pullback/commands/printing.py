"""What commands print: facts by line, or one JSON object."""

import json
from typing import Any

import typer
from rich.console import Console


def print_facts(facts: dict[str, Any], indent: int = 0) -> None:
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            console().print(" " * indent + name, style="bold", markup=False)
            print_facts(value, indent + 2)
        else:
            console().print(f"{'':{indent}}{name:<{width}}  {value}", markup=False)


def console() -> Console:
    return Console(highlight=False, soft_wrap=True, markup=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, default=str))


def done(as_json: bool, **facts: Any) -> None:
    given = {name: value for name, value in facts.items() if value is not None}
    if as_json:
        print_json(given)
        return
    for name, value in given.items():
        console().print(f"{name}: {value}")
