"""Data files inside packages of others: found without importing anything, checked before they are read."""

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from pullback.data.dataset import DataError, Dataset, DatasetNotInstalled

T = TypeVar("T")
DATA_FOLDER = "PULLBACK_DATA"


@dataclass(frozen=True)
class CarrierFile:
    """One file of an installed package, with the size and the hash of the build that was verified.

    Attributes:
        dataset: name of the set the file belongs to.
        install: the line that installs the package.
        path: with ``root="package"`` it starts with the importable name, with ``root="system"`` it is
            relative to ``$PULLBACK_DATA`` (a folder where packages were unpacked) or to ``/``.
        size: in bytes.
        sha256: hexadecimal.
        root: where ``path`` starts.
    """

    dataset: str
    install: str
    path: str
    size: int
    sha256: str
    root: Literal["package", "system"] = "package"

    @property
    def label(self) -> str:
        return f"{self.dataset}/{self.path.rsplit('/', 1)[-1]}"

    def find(self) -> Path | None:
        """The file on this machine, or None; neither opens it nor imports its package."""
        for folder in self._folders():
            candidate = folder / self.path
            if candidate.is_file():
                return candidate
        return None

    def _folders(self) -> list[Path]:
        if self.root == "system":
            unpacked = os.environ.get(DATA_FOLDER)
            return [Path(unpacked), Path("/")] if unpacked else [Path("/")]
        spec = find_spec(self.path.split("/", 1)[0])
        return [Path(entry).parent for entry in (spec.submodule_search_locations or ())] if spec else []

    def parse(self, parser: Callable[[bytes], T], *, strict: bool = False) -> T:
        """Check the file and hand its content to ``parser``.

        Another hash at the right size is another build: a warning if it can be parsed, an error if not.

        Args:
            parser: turns the content into arrays; raises `DataError` for a wrong shape.
            strict: raise for another hash.

        Raises:
            DatasetNotInstalled: the file is absent.
            DataError: wrong size, another hash with ``strict``, or not readable.
        """
        path = self.find()
        if path is None:
            raise DatasetNotInstalled(self.install)
        content = path.read_bytes()
        if len(content) != self.size:
            raise DataError(
                f"{self.label}: expected {self.size} bytes, found {len(content)}; reinstall: {self.install}"
            )
        found = hashlib.sha256(content).hexdigest()
        known = found == self.sha256
        other = f"{self.label}: expected SHA-256 {self.sha256}, found {found}; reinstall: {self.install}"
        if strict and not known:
            raise DataError(other)
        try:
            parsed = parser(content)
        except Exception as error:
            if known or isinstance(error, DataError):
                raise
            raise DataError(f"{other} (not readable: {error})") from error
        if not known:
            warnings.warn(other, stacklevel=4)
        return parsed

    def check_shape(self, what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        """Raise `DataError` unless ``array`` has the ``shape`` of the verified build."""
        if array.shape != shape:
            raise DataError(
                f"{self.label}: expected {what} {shape}, found {array.shape}; reinstall: {self.install}"
            )


@dataclass(frozen=True)
class NamedSet:
    """A set that can be loaded by name; one module of `pullback.data.sets` defines each.

    Attributes:
        name: what `load` takes.
        content: one line on what it is.
        licence: as found in the package that carries it.
        source: package and origin.
        install: the line that installs the carrier and what reads it.
        read: ``read(strict, **options)``; its keyword arguments are the options of `load`.
        files: what must be present.
        modules: importable names that reading needs.
    """

    name: str
    content: str
    licence: str
    source: str
    install: str
    read: Callable[..., Dataset]
    files: tuple[CarrierFile, ...] = ()
    modules: tuple[str, ...] = ()

    def present(self) -> bool:
        """Whether everything needed is installed; opens and imports nothing."""
        return all(file.find() for file in self.files) and all(find_spec(module) for module in self.modules)
