"""What is asked of a network, checked once: how to sum, how to reduce, how far to go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pullback.attribution.collecting import Collector
from pullback.attribution.groups import FeatureGroups, read_groups
from pullback.attribution.network import Network, first_curved, read_network, rows_at_once
from pullback.attribution.preprocessing import read_preprocessing
from pullback.attribution.result import Method, Reduction
from pullback.validation import check_choice, check_points, check_positive, check_whole

METHODS = get_args(Method)
REDUCTIONS = (None, *get_args(Reduction))
KinkMargin = Literal["relative", "exact"] | None


@dataclass(frozen=True, eq=False)
class Question:
    """A network and the options of its attribution.

    Attributes:
        network: with what stands in front of it.
        outputs: d.
        reduction, groups, tol, max_pieces, kink_margin, strict, out, chunk_size: as in `contributions`.
        feature_names, output_names: for the result.
        ignores_magnitude: whether the network is meant to, which is then no warning.
        stacklevel: of warnings, so that they point to the caller.
    """

    network: Network
    outputs: int
    reduction: Reduction | None
    groups: FeatureGroups | None
    tol: float
    max_pieces: int
    kink_margin: KinkMargin
    strict: bool
    out: Tensor | None
    chunk_size: int | None
    feature_names: tuple[str, ...] | None
    output_names: tuple[str, ...] | None
    ignores_magnitude: bool = False
    stacklevel: int = 6

    def chunks(self, n: int, width: int, itemsize: int = 4) -> Iterator[slice]:
        """Slices of rows whose contributions fit the budget."""
        size = self.chunk_size
        if size is None:
            size = rows_at_once(self.outputs * width, itemsize)
        return (slice(low, min(low + size, n)) for low in range(0, n, size))

    def collector(self, x: Tensor) -> Collector:
        """An empty result for rows like ``x``."""
        n, p = x.shape
        width = p if self.groups is None else len(self.groups.names)
        shape = {None: (n, self.outputs, width), "mean_l2": (width,)}.get(self.reduction, (n, width))
        values = x.new_empty(shape) if self.out is None else self._checked_out(x, shape)
        return Collector(
            self.reduction, self.groups, values.zero_() if self.reduction == "mean_l2" else values
        )

    def _checked_out(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        out = self.out
        if not isinstance(out, Tensor):
            raise TypeError(f"out: expected a torch.Tensor, got {type(out).__name__}")
        if tuple(out.shape) != shape or out.dtype != x.dtype or out.device != x.device:
            raise ValueError(
                f"out: expected {shape} {x.dtype} on {x.device}, got {tuple(out.shape)} {out.dtype} on "
                f"{out.device}"
            )
        return out.detach()

    def asked(self, **changes: Any) -> "Question":
        """The same with other options."""
        return replace(self, **changes)


def read_question(
    net: Any,
    x: Tensor,
    *,
    reduction: Any,
    preprocessing: Any,
    feature_groups: Any,
    tol: float = 1e-6,
    max_pieces: int = 10_000,
    kink_margin: Any = None,
    strict: bool = False,
    out: Any = None,
    chunk_size: int | None = None,
    feature_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    ignores_magnitude: bool = False,
    stacklevel: int = 6,
) -> Question:
    """The question, its options checked; ``x`` is a checked table of rows."""
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("kink_margin", kink_margin, ("relative", "exact", None))
    check_positive("tol", tol)
    check_whole("max_pieces", max_pieces)
    if chunk_size is not None:
        check_whole("chunk_size", chunk_size)
    network = read_network(net, x, read_preprocessing(preprocessing, x.shape[1]))
    groups = read_groups(feature_groups, x.shape[1], feature_names)
    named = feature_names if groups is None else groups.names
    with torch.no_grad():
        probe = x[:1] if len(x) else x.new_zeros(1, x.shape[1])
        outputs = network(probe).shape[1]
    return Question(
        network=network,
        outputs=outputs,
        reduction=reduction,
        groups=groups,
        tol=tol,
        max_pieces=max_pieces,
        kink_margin=kink_margin,
        strict=strict,
        out=out,
        chunk_size=chunk_size,
        feature_names=None if named is None else tuple(named),
        output_names=None if output_names is None else tuple(output_names),
        ignores_magnitude=ignores_magnitude,
        stacklevel=stacklevel,
    )


def read_rows(name: str, x: Any) -> Tensor:
    """Rows (n, p), finite and dense."""
    if hasattr(x, "toarray") or (isinstance(x, Tensor) and x.layout != torch.strided):
        call = "to_dense()" if isinstance(x, Tensor) else "toarray()"
        raise TypeError(f"{name}: sparse input not supported; pass {name}.{call}")
    return check_points(name, x).detach()


def choose_method(network: Network, method: str) -> Literal["local", "path"]:
    """ "local" for nets that are linear piece by piece (norms aside), else "path".

    Raises:
        ValueError: unknown; "local" of another net.
    """
    check_choice("method", method, METHODS)
    curved = first_curved(network)
    if method == "auto":
        return "path" if curved is not None else "local"
    if method == "local" and curved is not None:
        raise ValueError(
            f"method: {type(curved.module).__name__} at layer {curved.path or '(itself)'} is not piecewise "
            'linear; use method="path" (or local_affine with map="derivative" for the Jacobian alone)'
        )
    return "local" if method == "local" else "path"
