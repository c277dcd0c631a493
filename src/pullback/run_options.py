"""Options of a fit, from the command line and from a file, and the estimator that they make."""

import inspect
import tomllib
from pathlib import Path
from typing import Any

import typer

import pullback as pb

MODELS = {
    "vae": "VAE",
    "autoencoder": "Autoencoder",
    "hvae": "HVAE",
    "rhvae": "RHVAE",
    "umap": "ParametricUMAP",
}
UMAP_NAMES = {"latent_dim": "n_components", "max_epochs": "epochs"}
"""Options that UMAP's users know by another name."""
READING = tuple(
    name for name in inspect.signature(pb.data.read_table).parameters if name not in ("path", "absent")
)
"""How a file may say that data are read."""
STANDARDIZES = {"standard": True, "global": False, "auto": False}


def make_estimator(model: str, settings: dict[str, Any]) -> Any:
    """An estimator by the name of its kind, with options that it knows."""
    if model not in MODELS:
        raise ValueError(f"model: expected one of {', '.join(MODELS)}, got {model!r}")
    estimator = getattr(pb, MODELS[model])()
    if model == "umap":
        settings = _as_umap(settings)
    known = estimator.get_params()
    for name in settings:
        if name not in known:
            raise typer.BadParameter(f"{name}: {model} has no such option; it has {', '.join(sorted(known))}")
    return estimator.set_params(**settings)


def _as_umap(settings: dict[str, Any]) -> dict[str, Any]:
    """The same options under UMAP's names."""
    for name, own in UMAP_NAMES.items():
        if name in settings and own in settings:
            raise typer.BadParameter(f"{own}: given twice, as {name} too; leave one out")
    named = {UMAP_NAMES.get(name, name): value for name, value in settings.items()}
    if "scale" in named:
        scale = named.pop("scale")
        if scale not in STANDARDIZES:
            known = ", ".join(STANDARDIZES)
            raise typer.BadParameter(f"scale: expected one of {known} for umap, got {scale!r}")
        named.setdefault("standardize", STANDARDIZES[scale])
    return named


def read_config(path: Path | None) -> dict[str, Any]:
    """The options of a TOML file.

    Raises:
        FileNotFoundError: there is none. ValueError: it is no TOML, or reads data in a way that is not known.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise FileNotFoundError(f"--config: no such file {str(path)!r}")
    try:
        options = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    reading = options.get("data", {})
    if not isinstance(reading, dict):
        raise ValueError(f"{path}: data: expected a table of options for reading, got {reading!r}")
    for name in reading:
        if name not in READING:
            raise ValueError(f"{path}: data.{name}: expected one of {', '.join(READING)}")
    return options


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` with VALUE as in TOML; a bare word is a string."""
    options = {}
    for text in pairs:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set: expected NAME=VALUE, got {text!r}")
        try:
            options[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[name] = value
    return options


def own_options(pairs: list[str]) -> dict[str, Any]:
    """`parse_options` of a model, without those that the run itself decides."""
    options = parse_options(pairs)
    for name in ("checkpoint_dir", "resume"):
        if name in options:
            raise typer.BadParameter(
                f"--set: {name} is the run's own; the folder is --out, and there is --resume"
            )
    return options
