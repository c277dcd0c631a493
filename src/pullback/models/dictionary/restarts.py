"""A whole fit: attempts from several views of the data, the best of them kept."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.draws import source_of
from pullback.models.dictionary.attempt import (
    NEIGHBOURS,
    SHARES,
    Attempt,
    Init,
    Solver,
    Task,
    View,
    attempt_fit,
)
from pullback.models.dictionary.decoder_step import NotDefiniteError
from pullback.models.dictionary.filling import filled
from pullback.models.dictionary.iterate import INTERRUPTED, Alternated, SweepState
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import largest_ratio
from pullback.models.dictionary.row_metrics import RowMetrics
from pullback.models.dictionary.start import Kinds
from pullback.models.dictionary.sweep import alternate, gauged
from pullback.models.dictionary.sweep_options import SweepOptions


@dataclass(frozen=True, eq=False)
class DictionaryFit:
    """All attempts, the best of them first.

    Attributes:
        attempts: sorted.
        by_noise: whether by s² rather than by F.
        interrupted: whether Ctrl-C ended it.
        measured: how the first went on with every row measured by its own factor; attempts measure rows as
            they probably are.
    """

    attempts: tuple[Attempt, ...]
    by_noise: bool
    interrupted: bool = False
    measured: Alternated | None = None

    def broken_off(self) -> "DictionaryFit":
        """The same, ended by Ctrl-C."""
        first, *others = self.attempts
        first = replace(first, fit=replace(first.fit, converged=False, message=INTERRUPTED))
        return DictionaryFit((first, *others), self.by_noise, True, self.measured)

    @property
    def ranks(self) -> tuple[float, ...]:
        """What attempts were ranked by: s² of sums, F of mixtures."""
        return tuple(one.fit.s2 if self.by_noise else one.objective for one in self.attempts)

    @property
    def best(self) -> Attempt:
        """The fit that is kept; the spectrum of the rows says nothing of the noise that factors leave."""
        first = self.attempts[0]
        return first if self.measured is None else replace(first, fit=self.measured, sigma=None)


@dataclass(frozen=True, eq=False)
class Attempts:
    """Where attempts can go on.

    Attributes:
        done: attempts at their end.
        began: on the journal's clock.
        likely: rows as they probably are, where each is measured by a factor of its own.
    """

    done: tuple[Attempt, ...]
    began: float
    likely: Float[Tensor, "n p"] | None = None


def fit_dictionary(
    Z: Float[Tensor, "n p"],
    n_atoms: int,
    kinds: Kinds,
    options: SweepOptions,
    *,
    init: Init | Int[Tensor, " n"] | tuple[Layout, Float[Tensor, "k p"]] = "cluster",
    n_restarts: int = 3,
    solver: Solver = "alternating",
    row_weights: Float[Tensor, " n"] | None = None,
    labels: Mapping[int, Float[Tensor, " n"]] | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[SweepState], object] | None = None,
    metrics: RowMetrics | None = None,
    journal: Journal = UNKEPT,
) -> DictionaryFit:
    """Fits from several views until one explains all but the noise.

    Another seed alone gives the same clusters, so that a restart changes the share of rows taken for pure, or
    the neighbours of the graph, and then draws rows again.

    Args:
        Z: rows, (n, p).
        n_atoms: K.
        kinds: see `fit_groups`.
        options: of the sweeps; ``max_seconds`` counts for all attempts.
        init: "cluster", "pure", "random", the group of every row, or a layout with decoders to start from.
        n_restarts: attempts at most.
        solver: "alternating" of `alternate`, or "adam" of `descend`, which goes on from the first codes and
            leaves out the rounds on pure rows.
        row_weights: w, (n,).
        labels: values of some atoms, (n,) each, NaN where unknown; their decoders start from them, and these
            coordinates stay.
        generator: of starts.
        callback: of `alternate`.
        metrics: of rows that are measured each by a factor of its own, Z in the coordinates of
            their mean: attempts are made on rows as they probably are, and the best goes on by factors.
        journal: keeps every attempt, and what is done of the one under way.
    """
    source = source_of(generator, torch.device("cpu"))
    journal = journal.drawing(source)
    allowed = math.inf if options.max_seconds is None else options.max_seconds

    def begun() -> Attempts:
        began = journal.clock()
        if metrics is None:
            return Attempts((), began)
        late = partial(_is_late, journal, began + allowed)
        return Attempts((), began, filled(Z.double(), metrics, row_weights, late))

    known: Attempts = journal.once(begun)
    likely, ends = Z if known.likely is None else known.likely, known.began + allowed
    task = Task(likely, n_atoms, kinds, init, solver, row_weights, labels or {}, source, callback)
    done, interrupted = list(known.done), False
    for view in list(_views(init, n_restarts))[len(done) :]:
        if done and (_enough(done[-1], likely) or _is_late(journal, ends)):
            break
        left = None if options.max_seconds is None else max(ends - journal.clock(), 0.0)
        # the gauge is for the fit that is kept
        now = replace(options, isometry=0.0, max_seconds=left)
        try:
            done.append(attempt_fit(task, now, view, journal.at(view.name)))
        except KeyboardInterrupt:
            if not done:
                raise
            interrupted = True
            break
        interrupted = done[-1].interrupted
        if interrupted:
            break
        journal.keep(replace(known, done=tuple(done)))
    by_noise = options.gate == "amplitude"
    ranked = sorted(done, key=lambda one: one.fit.s2 if by_noise else one.objective)
    if options.gauge and not (labels and task.all_labelled):
        kept = ranked[0].fit
        kept = gauged(kept, likely, options, row_weights, task.known(kept.layout))
        ranked[0] = replace(ranked[0], fit=kept)
    measured = None
    if metrics is not None and not interrupted:
        left = None if options.max_seconds is None else max(ends - journal.clock(), 0.0)
        exact = replace(task, Z=Z)
        try:
            measured = _by_factors(exact, ranked[0].fit, metrics, replace(options, max_seconds=left), journal)
            interrupted = measured.interrupted
        except KeyboardInterrupt:
            interrupted = True
        except NotDefiniteError as error:
            told = f"rows are measured alike: {error}"
            ranked[0] = replace(ranked[0], fit=replace(ranked[0].fit, converged=False, message=told))
    found = DictionaryFit(tuple(ranked), by_noise, measured=measured)
    return found.broken_off() if interrupted else found


def _is_late(journal: Journal, ends: float) -> bool:
    return journal.clock() >= ends


def _by_factors(
    task: Task, kept: Alternated, metrics: RowMetrics, options: SweepOptions, journal: Journal
) -> Alternated:
    """A fit that goes on with every row measured by its own factor, in the gauge that it has.

    Where gaps leave a decoder loose, its length would lay coordinates out wrongly.
    """
    options = replace(options, gauge=False)
    if task.labels and task.all_labelled:
        options = replace(options, max_sweeps=1)
    return alternate(
        kept.layout,
        task.Z,
        kept.codes,
        options,
        row_weights=task.row_weights,
        lam=kept.decoders.lam,
        callback=task.callback,
        metrics=metrics,
        known=task.known(kept.layout),
        journal=journal.at("factors"),
    )


def _enough(attempt: Attempt, Z: Tensor) -> bool:
    """Whether an attempt leaves nothing but the noise."""
    sigma = attempt.sigma
    return sigma is not None and attempt.fit.s2 <= largest_ratio(*Z.shape) * sigma**2


def _views(init: object, n_restarts: int) -> Iterator[View]:
    if not isinstance(init, str):
        yield View("given groups" if isinstance(init, Tensor) else "given dictionary", 0)
        return
    for i in range(n_restarts):
        known = {"cluster": NEIGHBOURS, "pure": SHARES}.get(init, ())
        what = f"{known[i]:g}" if i < len(known) else f"rows drawn again {i}"
        yield View(f"{init}: {what}" if init != "random" else f"random {i}", i)
