"""One attempt of a fit: a start from one view of the data, and the sweeps that follow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.models.dictionary.cluster_start import cluster_start
from pullback.models.dictionary.gradient_fit import descend
from pullback.models.dictionary.iterate import Alternated, SweepState
from pullback.models.dictionary.journal import Journal
from pullback.models.dictionary.known_start import dictionary_start, group_start
from pullback.models.dictionary.labelled import KnownCoordinates, fit_labelled
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.pure_fit import fit_pure, pure_of
from pullback.models.dictionary.pure_start import pure_start
from pullback.models.dictionary.random_start import random_start
from pullback.models.dictionary.start import Kinds, Start
from pullback.models.dictionary.sweep import alternate
from pullback.models.dictionary.sweep_options import SweepOptions, at_sweep
from pullback.models.dictionary.topology import Topology

Init = Literal["cluster", "pure", "random"]
Solver = Literal["alternating", "adam"]
SHARES = (0.25, 0.12, 0.40)
NEIGHBOURS = (10, 6, 15)


@dataclass(frozen=True)
class View:
    """What an attempt starts from.

    Attributes:
        name: for people.
        number: of the attempt, from 0.
    """

    name: str
    number: int


@dataclass(frozen=True, eq=False)
class Attempt:
    """A fit from one view of the data.

    Attributes:
        view: what it started from.
        fit: where it ended.
        topologies: how charts were chosen, None where they were given.
        pure: rows that each atom has alone, (K,); those it started from in the softmax gate.
        found: groups that the data suggested; fewer than K where some had to be made up.
        sigma: noise level of the rows, None where their spectrum does not tell.
        interrupted: whether Ctrl-C ended it.
    """

    view: str
    fit: Alternated
    topologies: tuple[Topology | None, ...]
    pure: tuple[int, ...]
    found: int
    sigma: float | None
    interrupted: bool = False

    @property
    def objective(self) -> float:
        """F at the end."""
        return self.fit.path[-1]


@dataclass(frozen=True, eq=False)
class Task:
    """What is fitted, the same for all attempts; see `fit_dictionary`."""

    Z: Float[Tensor, "n p"]
    n_atoms: int
    kinds: Kinds
    init: Init | Int[Tensor, " n"] | tuple[Layout, Float[Tensor, "k p"]]
    solver: Solver
    row_weights: Float[Tensor, " n"] | None
    labels: Mapping[int, Float[Tensor, " n"]]
    generator: torch.Generator
    callback: Callable[[SweepState], object] | None

    @property
    def all_labelled(self) -> bool:
        """Whether labels say where every atom is."""
        return len(self.labels) == self.n_atoms

    def known(self, layout: Layout) -> KnownCoordinates | None:
        """Coordinates that labels fix."""
        return KnownCoordinates.of(layout, self.labels) if self.labels else None


def attempt_fit(task: Task, options: SweepOptions, view: View, journal: Journal) -> Attempt:
    """A start from a view, and its fit.

    Args:
        task: what is fitted.
        options: of the sweeps.
        view: of the data.
        journal: keeps the start and what follows.
    """
    Z, labels, soft = task.Z, task.labels, options.gate == "softmax"
    start: Start = journal.at("start").once(lambda: _start(task, options, view, journal.at("start")))
    if task.init == "pure" and not labels and task.solver == "alternating":
        pure = fit_pure(
            Z,
            start,
            options,
            choose=isinstance(task.kinds, str) and task.kinds == "auto",
            row_weights=task.row_weights,
            callback=task.callback,
            generator=task.generator,
            journal=journal.at("rounds"),
        )
        return Attempt(
            view.name, pure.fit, pure.topologies, pure.pure, start.found, start.sigma, pure.interrupted
        )
    if labels and task.all_labelled:
        # nothing is left to be found: coordinates stay where the labels put them
        options = replace(options, max_sweeps=1, gauge=False)
    layout = Layout(start.charts)
    stays = task.known(layout)
    given = {"row_weights": task.row_weights, "lam": start.lam, "callback": task.callback, "known": stays}
    if task.solver == "adam":
        fit = descend(layout, Z, start.codes, options, **given)
    else:
        fit = alternate(layout, Z, start.codes, options, **given, journal=journal.at("sweeps"))
    pure = tuple(len(group) for group in start.groups) if soft else tuple(len(rows) for rows in pure_of(fit))
    return Attempt(view.name, fit, start.topologies, pure, start.found, start.sigma, fit.interrupted)


def _start(task: Task, options: SweepOptions, view: View, journal: Journal) -> Start:
    Z, init = task.Z, task.init
    if isinstance(init, Tensor):
        start = group_start(
            Z, init, task.n_atoms, task.kinds, options, generator=task.generator, journal=journal
        )
    elif not isinstance(init, str):
        start = dictionary_start(Z, *init, options)
    elif init == "random":
        start = random_start(Z, task.n_atoms, task.kinds, options, generator=task.generator)
    else:
        start = _from_view(task, options, view, journal)
    return _labelled(Z, start, task.labels, options) if task.labels else start


def _from_view(task: Task, options: SweepOptions, view: View, journal: Journal) -> Start:
    """A structured start; on rows drawn again where the known views are used up."""
    Z, generator = task.Z, task.generator
    views: tuple[float, ...] = NEIGHBOURS if task.init == "cluster" else SHARES
    again = view.number >= len(views)
    rows = torch.arange(len(Z), device=Z.device)
    if again:
        rows = journal.at("rows").once(lambda: _drawn_again(len(Z), generator)).to(Z.device)
    value = views[0] if again else views[view.number]
    if task.init == "cluster":
        soft, tau = options.gate == "softmax", at_sweep(options.tau, 0)
        start = cluster_start(
            Z[rows],
            task.n_atoms,
            task.kinds,
            softmax=soft,
            neighbours=int(value),
            tau=tau,
            generator=generator,
            journal=journal,
        )
    else:
        start = pure_start(
            Z[rows],
            task.n_atoms,
            task.kinds,
            n_active=options.n_active,
            share=value,
            generator=generator,
            journal=journal,
        )
    if not again:
        return start
    whole = dictionary_start(Z, Layout(start.charts), _decoders(Z[rows], start, options), options)
    groups = tuple(rows[group] for group in start.groups)
    return replace(start, codes=whole.codes, lam=None, groups=groups)


def _drawn_again(n: int, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Rows of a bootstrap, each once."""
    return torch.randint(n, (n,), generator=generator, device=generator.device).unique()


def _decoders(Z: Tensor, start: Start, options: SweepOptions) -> Float[Tensor, "k p"]:
    layout = Layout(start.charts)
    short = replace(options, max_sweeps=1, gauge=False)
    return alternate(layout, Z, start.codes, short, lam=start.lam).B


def _labelled(Z: Tensor, start: Start, labels: Mapping[int, Tensor], options: SweepOptions) -> Start:
    """The start with labelled atoms from their labels, and all rows encoded anew."""
    layout, B = Layout(start.charts), _decoders(Z, start, options)
    for k, values in labels.items():
        block = fit_labelled(layout.charts[k], Z, values).B
        if options.gate == "amplitude":
            grid = layout.charts[k].grid().to(block)
            size = (layout.charts[k].jet(grid, 0).value @ block).square().sum(1).mean().sqrt()
            block = block / size.clamp_min(1e-300)
        B[layout.block(k)] = block
    codes = dictionary_start(Z, layout, B, options).codes
    return replace(start, codes=KnownCoordinates.of(layout, labels).put(codes), lam=None)
