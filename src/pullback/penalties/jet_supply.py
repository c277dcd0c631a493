"""Where the derivatives of a decoder come from, and what happens where one is missing.

Order: the argument ``jet``, the target itself if it is a jet, an attached jet, the decoder, a radial source.
"""

import logging
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from pullback.jets import Jet, jet
from pullback.penalties.errors import MissingJetError
from pullback.penalties.evidence import DecoderAt, Evidence, GivenJet
from pullback.penalties.target import as_rows
from pullback.typing import Ambient, Map
from pullback.validation import check_finite, check_tensor, check_whole

logger = logging.getLogger(__name__)

NAMES = ("jacobian", "hessian", "third")
SHAPES = ("(n, p, d)", "(n, p, d, d)", "(n, p, d, d, d)")
ORDINALS = ("first", "second", "third")


@runtime_checkable
class JetSource(Protocol):
    """Something that knows derivatives at points, such as a radial decoder."""

    def jet(self, points: Tensor, order: int = 3) -> Jet: ...


@dataclass(frozen=True, eq=False)
class Supply:
    """The places where derivatives may come from."""

    decoder: Map | None
    source: JetSource | None
    ambient: Ambient
    missing: Literal["raise", "zero"]
    attached: Jet | None = None

    def evidence(self, target: Tensor | Jet, given: Jet | None, order: int, what: str) -> Evidence | None:
        """What is known to ``order``; None where a derivative is missing and ``missing`` is "zero".

        Raises:
            MissingJetError: a derivative is missing, naming it and the ways to give it.
            ValueError: shapes that disagree.
        """
        points = None if isinstance(target, Jet) else target
        known = target if isinstance(target, Jet) else given if given is not None else self.attached
        if known is None and self.decoder is not None and points is not None:
            return DecoderAt(self.decoder, points, self.ambient)
        known = self._completed(known, points, order)
        for k in range(order):
            if getattr(known, NAMES[k]) is None:
                return self._missing(known, k, what)
        return self.given(known, points, order)

    def given(self, known: Jet, points: Tensor | None, order: int) -> GivenJet:
        """The evidence of a jet that is complete to ``order``, checked."""
        check_jet(known, points, order)
        return GivenJet.of(known, self.ambient)

    def _completed(self, known: Jet | None, points: Tensor | None, order: int) -> Jet:
        known = Jet(None, None) if known is None else known
        if all(getattr(known, name) is not None for name in NAMES[:order]) or points is None:
            return known
        supplied = [self._by_decoder(points, order), self._by_source(points, order)]
        for more in filter(None, supplied):
            fields = {name: getattr(more, name) for name in NAMES[:order] if getattr(known, name) is None}
            known = replace(known, **fields)
        return known

    def _by_decoder(self, points: Tensor, order: int) -> Jet | None:
        found = None if self.decoder is None else jet(self.decoder, points, order)
        assert found is None or isinstance(found, Jet)
        return found

    def _by_source(self, points: Tensor, order: int) -> Jet | None:
        return None if self.source is None else self.source.jet(points, order)

    def _missing(self, known: Jet, k: int, what: str) -> None:
        if self.missing == "zero":
            return
        have = [ORDINALS[j] for j in range(3) if getattr(known, NAMES[j]) is not None]
        attached = f"only the {' and '.join(have)} is there" if have else "none is there"
        raise MissingJetError(
            f"{what} needs the {ORDINALS[k]} jet {SHAPES[k]}; {attached}; pass a jet of order {k + 1}, "
            "decoder=, source=, or missing='zero'"
        )


def check_jet(known: Jet, points: Tensor | None, order: int) -> None:
    """Raise ``ValueError`` naming the array and both shapes unless a jet's parts fit each other."""
    J = known.jacobian
    if J is None or J.ndim != 3:
        raise ValueError(f"jacobian: expected (n, p, d), got {None if J is None else tuple(J.shape)}")
    n, p, d = J.shape
    for k in range(1, order):
        part, expected = getattr(known, NAMES[k]), (n, p, *(d,) * (k + 1))
        if tuple(part.shape) != expected:
            raise ValueError(
                f"{NAMES[k]}: expected {expected} from the Jacobian's {(n, p, d)}, got {tuple(part.shape)}"
            )
    if points is not None and tuple(points.shape) != (n, d):
        raise ValueError(f"jacobian: expected n, d of the target {tuple(points.shape)}, got {(n, p, d)}")


def check_target(name: str, target: object, *, points: bool = True) -> None:
    """Raise ``TypeError`` unless ``target`` is a `Jet`, or points where those will do, too."""
    if not isinstance(target, (Jet, Tensor) if points else Jet):
        wanted = "a Jet or points (n, d) as a torch.Tensor" if points else "a Jet"
        raise TypeError(f"{name}: expected {wanted}, got {type(target).__name__}")


def explain_not_finite(target: Tensor | Jet | None, known: Evidence, name: str = "target") -> None:
    """Raise ``ValueError`` naming the first array and row that is not finite, after a result was not."""
    if isinstance(target, Tensor):
        check_finite(name, target)
    if isinstance(known, GivenJet):
        for name, part in zip(NAMES, (known.jacobian, known.hessian, known.third), strict=True):
            if part is not None:
                check_finite(name, part.flatten(1))
    bad = (~torch.isfinite(known.metric).flatten(1).all(1)).nonzero()
    if len(bad):
        raise ValueError(f"decoder: expected a finite metric, got infinity or NaN at row {int(bad[0])}")
    raise ValueError("decoder: expected finite derivatives, got infinity or NaN; check the decoder's scale")


def as_points(target: Tensor, known: Jet | None, latent_dim: int | None) -> Tensor:
    """Target points as (n, d); flat ones take d from a jet or the penalty."""
    if known is not None and known.jacobian is not None:
        latent_dim = known.jacobian.shape[-1]
    return as_rows("target", target, latent_dim if target.ndim == 1 else None)


def jet_from_flat(
    jacobian: Tensor,
    hessian: Tensor | None = None,
    third: Tensor | None = None,
    *,
    d: int,
    value: Tensor | None = None,
) -> Jet:
    """A `Jet` from row-major flat arrays: J (n, p·d), H (n, p·d²), K (n, p, d³) or (n, p·d³).

    Raises:
        ValueError: an array whose entries are no whole number of features.
    Example:
        >>> import torch
        >>> jet_from_flat(torch.zeros(5, 6), torch.zeros(5, 12), d=2).hessian.shape
        torch.Size([5, 3, 2, 2])
    """
    check_whole("d", d)
    check_tensor("jacobian", jacobian)
    n = jacobian.shape[0]
    parts: list[Tensor | None] = []
    for k, part in enumerate((jacobian, hessian, third), start=1):
        if part is None:
            parts.append(None)
            continue
        p, rest = divmod(check_tensor(NAMES[k - 1], part).flatten(1).shape[1], d**k)
        wanted = jacobian.flatten(1).shape[1] // d
        if part.shape[0] != n or rest or p != wanted:
            count = f"p·{d**k}" if k == 1 else f"{wanted}·{d**k}"
            raise ValueError(
                f"{NAMES[k - 1]}: expected n={n} rows of {count} entries, got {tuple(part.shape)}"
            )
        parts.append(part.reshape(n, p, *(d,) * k))
    return Jet(value, parts[0], parts[1], parts[2])


def factor_from_flat(factor: Tensor, p: int) -> Tensor:
    """Factors (n, p, r) from rows (n, p·r), element i·r + k; pass them to `pullback.ambient.LowRank`.

    Probes (n, p, s) are such factors as they are.

    Raises:
        ValueError: rows that are no whole number of columns.
    Example:
        >>> import torch
        >>> factor_from_flat(torch.zeros(5, 6), 3).shape
        torch.Size([5, 3, 2])
    """
    check_tensor("factor", factor)
    check_whole("p", p)
    if factor.ndim != 2 or factor.shape[1] % p:
        raise ValueError(f"factor: expected (n, p·r) with p={p}, got {tuple(factor.shape)}")
    return factor.reshape(factor.shape[0], p, -1)
