"""Tensors and plain settings on disk: safetensors and JSON, written atomically, no pickle.

A model is a folder with ``config.json`` (readable; carries the format version and the checksums) and
``model.safetensors``. Reading runs no code from the files and refuses what it does not know.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise
from torch import Tensor

from pullback._version import __version__

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
TENSOR_FILE = "model.safetensors"
PREVIOUS_TENSOR_FILE = "model.previous.safetensors"
METADATA_KEY = "pullback"


class FormatError(ValueError):
    """A saved file is unknown, truncated, altered or of another format version."""


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the final name only if the block ends without error.

    A reader sees the old file or the new one, never a part of it, whenever the process is killed.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; create it or choose another path")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp{path.suffix}")
    # Created by open, not by tempfile, so that the file has the permissions that the user's umask gives.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | os.PathLike) -> None:
    """Temporary files beside ``path`` of writers that were killed; for a path that has one writer."""
    path = Path(path)
    for left in path.parent.glob(f".{path.name}.*.tmp{path.suffix}"):
        left.unlink(missing_ok=True)


def _as_json(name: str, settings: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(settings))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers, strings, lists, dicts or None, got {error}") from error


def _encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None) -> bytes:
    header = {METADATA_KEY: _as_json("metadata", metadata or {})}
    independent = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    try:
        return serialise(independent, metadata=header)
    except KeyError as error:
        kinds = {name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()}
        raise TypeError(f"tensors: safetensors has no form for {error}; got {kinds}") from error


def _decode(path: Path, content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = parse_tensors(content)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise FormatError(f"{path}: not a readable safetensors file ({error}); truncated?") from error
    if METADATA_KEY not in header:
        raise FormatError(f"{path}: a safetensors file, but not one written by pullback")
    try:
        metadata = json.loads(header[METADATA_KEY])
    except ValueError as error:
        raise FormatError(f"{path}: metadata not readable as JSON ({error}); it may be altered") from error
    if not isinstance(metadata, dict):
        raise FormatError(f"{path}: expected metadata as a JSON object, got {type(metadata).__name__}")
    return tensors, metadata


def save_tensors(
    path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write tensors and JSON-able ``metadata`` to one safetensors file, atomically.

    Args:
        path: file to write; its folder must exist.
        tensors: named tensors of any shape and dtype.
        metadata: plain values (numbers, strings, lists, dicts) that travel in the file's header.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: ``metadata`` has no JSON form, or safetensors knows no such dtype (complex128).

    Example:
        >>> import tempfile, torch
        >>> path = tempfile.mkdtemp() + "/step.safetensors"
        >>> save_tensors(path, {"weight": torch.ones(2)}, {"step": 3})
        >>> load_tensors(path)
        ({'weight': tensor([1., 1.])}, {'step': 3})
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(_encode(tensors, metadata))


def load_tensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: ``(tensors, metadata)``, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: the file is truncated or not a safetensors file of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return _decode(path, path.read_bytes())


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _settings_checksum(config: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in config.items() if key != "config_sha256"}
    return _checksum(json.dumps(rest, sort_keys=True).encode())


def _keep_previous(directory: Path) -> None:
    """Give the present tensors a second name, under which they outlive their replacement.

    Without it a process killed between the two renames of `save_model` would leave new tensors beside old
    settings: neither model. A file that an earlier kill left behind may be the only one that fits the present
    settings, and is kept then.
    """
    current, previous = directory / TENSOR_FILE, directory / PREVIOUS_TENSOR_FILE
    if not current.is_file() or not _fits(directory, current):
        return
    previous.unlink(missing_ok=True)
    try:
        os.link(current, previous)
    except OSError:  # a file system without hard links
        with atomic_path(previous) as temporary:
            shutil.copyfile(current, temporary)


def _fits(directory: Path, tensors: Path) -> bool:
    """Whether these tensors are the ones that the folder's settings were saved with."""
    try:
        wanted = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))["tensors_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return _checksum(tensors.read_bytes()) == wanted


def save_model(
    directory: str | os.PathLike,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    overwrite: bool = False,
) -> Path:
    """Write ``config.json`` and ``model.safetensors`` into a folder (made if absent); return the folder.

    Killed at any moment, it leaves a folder that `load_model` reads as the old model or the new one.

    Args:
        directory: the model's folder; other files in it are left alone.
        config: JSON-able settings; format version, library version and checksums are added.
        tensors: named parameters and buffers.
        overwrite: replace a model that the folder already holds.

    Raises:
        FileExistsError: the folder already holds a model and ``overwrite`` is False.
        TypeError: a setting has no JSON form.

    Example:
        >>> import tempfile, torch
        >>> folder = save_model(tempfile.mkdtemp(), {"width": 2}, {"weight": torch.ones(2)})
        >>> config, tensors = load_model(folder)
        >>> config["width"], tensors["weight"]
        (2, tensor([1., 1.]))
    """
    directory = Path(directory)
    if (directory / CONFIG_FILE).exists() and not overwrite:
        raise FileExistsError(f"{directory}: already holds a model; pass overwrite=True or another folder")
    content = _encode(tensors, None)
    whole = {
        **config,
        "format_version": FORMAT_VERSION,
        "pullback_version": __version__,
        "tensors_sha256": _checksum(content),
    }
    # Checksums are taken over what a reader will parse: JSON turns tuples to lists and keys to strings.
    whole["config_sha256"] = _settings_checksum(json.loads(_as_json("config", whole)))
    text = json.dumps(whole, indent=2) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_path(directory / CONFIG_FILE) as temporary_config:
        temporary_config.write_text(text, encoding="utf-8")
        _keep_previous(directory)
        # The tensors take their name first: a folder with a config always has its tensors.
        with atomic_path(directory / TENSOR_FILE) as temporary_tensors:
            temporary_tensors.write_bytes(content)
    (directory / PREVIOUS_TENSOR_FILE).unlink(missing_ok=True)
    return directory


def load_model(directory: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a folder written by `save_model`: ``(config, tensors)``, checked against the stored checksums.

    Raises:
        FileNotFoundError: the folder or one of its two files is absent.
        FormatError: another format version, or a truncated or altered file; the message says which.
    """
    directory = Path(directory)
    for name in (CONFIG_FILE, TENSOR_FILE):
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"{directory / name}: no such file; expected a folder written by save(...)"
            )
    config = _read_config(directory / CONFIG_FILE)
    for path in (directory / TENSOR_FILE, directory / PREVIOUS_TENSOR_FILE):
        if path.is_file() and _checksum(content := path.read_bytes()) == config["tensors_sha256"]:
            return config, _decode(path, content)[0]
    raise FormatError(f"{directory / TENSOR_FILE}: truncated or altered since saved (checksum differs)")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path}: not readable as JSON ({error}); it may be truncated") from error
    if not isinstance(config, dict) or "format_version" not in config:
        raise FormatError(f"{path}: not a configuration written by pullback (no format_version)")
    if config["format_version"] != FORMAT_VERSION:
        raise FormatError(
            f"{path}: format version {config['format_version']}, this pullback reads {FORMAT_VERSION}; "
            f"the file was written by pullback {config.get('pullback_version', 'unknown')}"
        )
    if config.get("config_sha256") != _settings_checksum(config):
        raise FormatError(f"{path}: altered since saved (checksum differs)")
    return config
