"""Tensors and plain settings on disk: safetensors and JSON, written atomically, no pickle.

A model is a folder with ``config.json`` (readable; carries the format version and the checksums) and
``model.safetensors``. Reading runs no code from the files and refuses what it does not know.
"""

import hashlib
import json
import os
import tempfile
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
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None) -> bytes:
    independent = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    return serialise(independent, metadata={METADATA_KEY: json.dumps(dict(metadata or {}))})


def _decode(path: Path, content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = parse_tensors(content)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise FormatError(f"{path}: not a readable safetensors file ({error}); it may be truncated") from error
    if METADATA_KEY not in header:
        raise FormatError(f"{path}: a safetensors file, but not one written by pullback")
    return tensors, json.loads(header[METADATA_KEY])


def save_tensors(
    path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write tensors and JSON-able ``metadata`` to one safetensors file, atomically.

    Args:
        path: file to write; its folder must exist.
        tensors: named tensors of any shape and dtype.
        metadata: plain values (numbers, strings, lists, dicts) that travel in the file's header.
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


def _settings_checksum(config: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in config.items() if key != "config_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def save_model(
    directory: str | os.PathLike,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    overwrite: bool = False,
) -> Path:
    """Write ``config.json`` and ``model.safetensors`` into a folder (made if absent); return the folder.

    Args:
        directory: the model's folder; other files in it are left alone.
        config: JSON-able settings; format version, library version and checksums are added.
        tensors: named parameters and buffers.
        overwrite: replace a model that the folder already holds.

    Raises:
        FileExistsError: the folder already holds a model and ``overwrite`` is False.
        TypeError: a setting has no JSON form.
    """
    directory = Path(directory)
    if (directory / CONFIG_FILE).exists() and not overwrite:
        raise FileExistsError(f"{directory}: already holds a model; pass overwrite=True or choose another folder")
    content = _encode(tensors, None)
    whole = {
        "format_version": FORMAT_VERSION,
        "pullback_version": __version__,
        **config,
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
    }
    # Checksums are taken over what a reader will parse: JSON turns tuples to lists and keys to strings.
    whole["config_sha256"] = _settings_checksum(json.loads(json.dumps(whole)))
    text = json.dumps(whole, indent=2) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_path(directory / CONFIG_FILE) as temporary_config:
        temporary_config.write_text(text)
        # The tensors take their name first: a folder with a config always has its tensors.
        with atomic_path(directory / TENSOR_FILE) as temporary_tensors:
            temporary_tensors.write_bytes(content)
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
            raise FileNotFoundError(f"{directory / name}: no such file; expected a folder written by model.save(...)")
    config_path, tensor_path = directory / CONFIG_FILE, directory / TENSOR_FILE
    try:
        config = json.loads(config_path.read_text())
    except ValueError as error:
        raise FormatError(f"{config_path}: not readable as JSON ({error}); it may be truncated") from error
    if not isinstance(config, dict) or "format_version" not in config:
        raise FormatError(f"{config_path}: not a configuration written by pullback (no format_version)")
    if config["format_version"] != FORMAT_VERSION:
        raise FormatError(
            f"{config_path}: format version {config['format_version']}, this pullback reads {FORMAT_VERSION}; "
            f"the file was written by pullback {config.get('pullback_version', 'unknown')}"
        )
    if config.get("config_sha256") != _settings_checksum(config):
        raise FormatError(f"{config_path}: altered since it was saved (checksum differs)")
    content = tensor_path.read_bytes()
    if hashlib.sha256(content).hexdigest() != config.get("tensors_sha256"):
        raise FormatError(f"{tensor_path}: truncated or altered since it was saved (checksum differs)")
    return config, _decode(tensor_path, content)[0]
