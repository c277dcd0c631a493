"""Data sets by name, and names or paths by one word."""

import difflib
import inspect
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pullback.data.dataset import Dataset, DatasetNotInstalled
from pullback.data.sets import SETS
from pullback.data.table import SUFFIXES, read_table

PREFIX = "data:"


def load(name: str, *, strict: bool = False, **options: Any) -> Dataset:
    """Read a named set from the package that carries it; nothing is downloaded, imported from it or rescaled.

    Args:
        name: one of `available`.
        strict: raise where the file is another build than the verified one (a warning otherwise).
        options: of that set, e.g. ``layer="log"`` for ``pbmc68k``.

    Raises:
        ValueError: unknown name.
        TypeError: an option that the set does not have.
        DatasetNotInstalled: absent; the message is the line that installs it.
        DataError: the file does not hold what it should.

    Example:
        >>> from pullback.data import load
        >>> load("digits")
        Dataset('digits', 1797 x 64 float64, 10 distinct labels)
    """
    entry = _entry(name)
    known = list(inspect.signature(entry.read).parameters)[1:]
    for option in options:
        if option not in known:
            raise TypeError(
                f"{name}: no option {option!r}; {'options: ' + ', '.join(known) if known else 'it has none'}"
            )
    if not entry.present():
        raise DatasetNotInstalled(entry.install)
    dataset = entry.read(strict, **options)
    return replace(dataset, name=name, licence=entry.licence, source=entry.source)


def available() -> dict[str, bool]:
    """The names of all sets, and whether each is installed; opens nothing."""
    return {name: entry.present() for name, entry in SETS.items()}


def install_line(name: str) -> str:
    """The command that installs a set."""
    return _entry(name).install


def describe(name: str) -> dict[str, Any]:
    """Content, licence, source, install line and presence of a set, without reading it."""
    entry = _entry(name)
    return {
        "content": entry.content,
        "licence": entry.licence,
        "source": entry.source,
        "install": entry.install,
        "installed": entry.present(),
    }


def resolve(spec: str | os.PathLike, **options: Any) -> Dataset:
    """Read a named set (``data:NAME``, or ``NAME`` where no such file exists) or a file by its ending.

    Args:
        spec: name or path.
        options: of `load` or `read_table`; None means not given.

    Raises:
        FileNotFoundError: neither a file nor a name.
        ValueError: unknown name after ``data:``, or what `read_table` raises.

    Example:
        >>> from pullback.data import resolve
        >>> resolve("data:iris").X.shape
        (150, 4)
    """
    given = {name: value for name, value in options.items() if value is not None}
    text = os.fspath(spec)
    if text.startswith(PREFIX):
        return load(text.removeprefix(PREFIX), **given)
    if text in SETS and not Path(text).exists():
        return load(text, **given)
    if not Path(text).exists() and not Path(text).suffix:
        raise FileNotFoundError(
            f"{text}: neither a file ({' '.join(SUFFIXES)}) nor a named set ({', '.join(SETS)})"
        )
    return read_table(text, **given)


def _entry(name: str) -> Any:
    if name not in SETS:
        close = difflib.get_close_matches(name, SETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"name: expected one of {', '.join(map(repr, SETS))}, got {name!r}{hint}")
    return SETS[name]
