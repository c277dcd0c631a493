"""What the likelihoods share: checks of their targets and drawing with a generator of any device."""

from collections.abc import Callable

import torch
from torch import Tensor


def bad_entry(x: Tensor, bad: Tensor, expected: str, hint: str) -> None:
    """Raise ``ValueError`` that names the first entry of ``x`` where ``bad`` holds, if there is one."""
    if bool(bad.any()):
        row, column = (int(i) for i in bad.nonzero()[0])
        tail = f"; {hint}" if hint else ""
        raise ValueError(f"x: {expected}, got {x[row, column].item():g} at row {row}, column {column}{tail}")


def check_feature_count(name: str, value: str, n_features: int | None) -> None:
    """Raise ``ValueError`` where one parameter a feature is asked and the number of features is not known."""
    if n_features is None:
        raise ValueError(f"n_features: expected the number of features for {name}={value!r}, got None")


def refuse_library(library: object) -> None:
    """Raise ``ValueError`` for a library size given to a likelihood that has none."""
    if library is not None:
        raise ValueError(f"library: expected None, got {library!r}; only counts have a library size")


def drawn_on(like: Tensor, generator: torch.Generator | None, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """``draw(like)`` on the device of the generator, brought back to the device of ``like``."""
    device = like.device if generator is None else generator.device
    return draw(like.to(device)).to(like.device)
