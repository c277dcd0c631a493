"""Rows of a run as they are named on the command line."""

from typing import Any

import typer


def split_pair(text: str, option: str = "--pair") -> tuple[str, str]:
    """``FROM:TO`` as two words."""
    start, colon, end = text.partition(":")
    if not (start and colon and end):
        raise typer.BadParameter(f"{option}: expected FROM:TO, e.g. 0:17, got {text!r}")
    return start, end


def row_number(word: str, samples: Any, option: str = "--pair") -> int:
    """The number of a row that is given by its name or its number."""
    names = list(samples)
    if word in names:
        return names.index(word)
    if word.isdigit() and int(word) < len(names):
        return int(word)
    raise typer.BadParameter(f"{option}: {word!r} is neither a row's name nor a number below {len(names)}")
