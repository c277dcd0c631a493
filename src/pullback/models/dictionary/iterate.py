"""A fit at one time, and what it has become at its end."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pullback.models.dictionary.codes import Codes, decode
from pullback.models.dictionary.decoder_step import DecoderFit
from pullback.models.dictionary.layout import Layout

INTERRUPTED = "interrupted; the best iterate is kept"


@dataclass(frozen=True, eq=False)
class Iterate:
    """Decoders, codes and F at one time."""

    objective: float
    fit: DecoderFit
    codes: Codes


@dataclass(frozen=True, eq=False)
class SweepState:
    """What a callback is told after the decoders of a sweep.

    Attributes:
        sweep: its number, from 0.
        objective: F, in units of the rows.
        sigma: noise level.
        fvu: Σ|z - ẑ|² over Σ|z - z̄|².
        seconds: since the start.
        codes: codes, weights in units of the spread.
    """

    sweep: int
    objective: float
    sigma: float
    fvu: float
    seconds: float
    codes: Codes


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """Where sweeps can go on.

    Attributes:
        sweep: the next one.
        codes: its codes, in units of the spread.
        lam: its λ, (K,).
        damping: of the rows, (n,); None to begin anew.
        best: best iterate so far.
        path: F of the sweeps before.
        retries: see `Alternated`.
        began: time of the journal's clock.
    """

    sweep: int
    codes: Codes
    lam: Float[Tensor, " k"]
    damping: Float[Tensor, " n"] | None
    best: Iterate | None
    path: tuple[float, ...]
    retries: int
    began: float


@dataclass(frozen=True, eq=False)
class Alternated:
    """A fit.

    Attributes:
        layout: of the atoms.
        codes: of the rows.
        decoders: B and its regression, in units of the rows.
        scale: spread of the rows, sqrt(mean |z - z̄|²).
        path: F after the decoders of every sweep.
        converged: whether F and λ came to rest.
        message: why it ended.
        sweeps: how many.
        retries: how often a Cholesky factor needed more ridge.
    """

    layout: Layout
    codes: Codes
    decoders: DecoderFit
    scale: float
    path: tuple[float, ...]
    converged: bool
    message: str
    sweeps: int
    retries: int

    @property
    def B(self) -> Float[Tensor, "k p"]:
        """Decoders, (M_tot, p)."""
        return self.decoders.B

    @property
    def s2(self) -> float:
        """Noise variance."""
        return self.decoders.s2

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.message == INTERRUPTED

    def reconstruction(self) -> Float[Tensor, "n p"]:
        """ẑ of the rows, (n, p)."""
        return decode(self.layout, self.B, self.codes)
