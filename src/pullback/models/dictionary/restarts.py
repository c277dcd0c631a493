"""A whole fit: attempts from several views of the data, the best of them kept."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

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
from pullback.models.dictionary.iterate import INTERRUPTED, SweepState
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import largest_ratio
from pullback.models.dictionary.start import Kinds
from pullback.models.dictionary.sweep import gauged
from pullback.models.dictionary.sweep_options import SweepOptions


@dataclass(frozen=True, eq=False)
class DictionaryFit:
    """All attempts, the best of them first.

    Attributes:
        attempts: sorted.
        by_noise: whether by s² rather than by F.
        interrupted: whether Ctrl-C ended it.
    """

    attempts: tuple[Attempt, ...]
    by_noise: bool
    interrupted: bool = False

    def broken_off(self) -> "DictionaryFit":
        """The same, ended by Ctrl-C."""
        first, *others = self.attempts
        first = replace(first, fit=replace(first.fit, converged=False, message=INTERRUPTED))
        return DictionaryFit((first, *others), self.by_noise, True)

    @property
    def ranks(self) -> tuple[float, ...]:
        """What attempts were ranked by: s² of sums, F of mixtures."""
        return tuple(one.fit.s2 if self.by_noise else one.objective for one in self.attempts)

    @property
    def best(self) -> Attempt:
        """The fit that is kept."""
        return self.attempts[0]


@dataclass(frozen=True, eq=False)
class Attempts:
    """Where attempts can go on: those that are done, and when they began on the journal's clock."""

    done: tuple[Attempt, ...]
    began: float


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
        labels: values of some atoms, (n,) each, NaN where unknown; their decoders start from them.
        generator: of starts.
        callback: of `alternate`.
        journal: keeps every attempt, and what is done of the one under way.
    """
    source = source_of(generator, torch.device("cpu"))
    task = Task(Z, n_atoms, kinds, init, solver, row_weights, labels or {}, source, callback)
    journal = journal.drawing(source)
    known: Attempts = journal.once(lambda: Attempts((), journal.clock()))
    ends = math.inf if options.max_seconds is None else known.began + options.max_seconds
    done, interrupted = list(known.done), False
    for view in list(_views(init, n_restarts))[len(done) :]:
        if done and (_enough(done[-1], Z) or journal.clock() >= ends):
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
        journal.keep(Attempts(tuple(done), known.began))
    by_noise = options.gate == "amplitude"
    ranked = sorted(done, key=lambda one: one.fit.s2 if by_noise else one.objective)
    if options.gauge and not (labels and task.all_labelled):
        ranked[0] = replace(ranked[0], fit=gauged(ranked[0].fit, Z, options, row_weights))
    found = DictionaryFit(tuple(ranked), by_noise)
    return found.broken_off() if interrupted else found


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
