"""A whole fit: starts from several views of the data, each followed by sweeps, the best of them kept."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.charts import as_chart
from pullback.draws import source_of
from pullback.models.dictionary.alone import spread
from pullback.models.dictionary.cluster_start import CLOSED, cluster_start
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.encoding import encode, encode_softmax
from pullback.models.dictionary.gradient_fit import descend
from pullback.models.dictionary.labelled import fit_labelled, known, label_coordinates
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import largest_ratio, noise_level
from pullback.models.dictionary.pure_start import fit_pure, pure_of, pure_start
from pullback.models.dictionary.start import Kinds, Start, fit_groups
from pullback.models.dictionary.sweep import Alternated, SweepOptions, SweepState, alternate, gauged
from pullback.models.dictionary.topology import Topology
from pullback.typing import Chart

Init = Literal["cluster", "pure", "random"]
Solver = Literal["alternating", "adam"]
SHARES = (0.25, 0.12, 0.40)
NEIGHBOURS = (10, 6, 15)


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
    """

    view: str
    fit: Alternated
    topologies: tuple[Topology | None, ...]
    pure: tuple[int, ...]
    found: int
    sigma: float | None

    @property
    def objective(self) -> float:
        """F at the end."""
        return self.fit.path[-1]


@dataclass(frozen=True, eq=False)
class DictionaryFit:
    """All attempts, the best of them first.

    Attributes:
        attempts: sorted.
        by_noise: whether by s² rather than by F.
    """

    attempts: tuple[Attempt, ...]
    by_noise: bool

    @property
    def ranks(self) -> tuple[float, ...]:
        """What attempts were ranked by: s² of sums, F of mixtures."""
        return tuple(one.fit.s2 if self.by_noise else one.objective for one in self.attempts)

    @property
    def best(self) -> Attempt:
        """The fit that is kept."""
        return self.attempts[0]


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
    """
    began = time.monotonic()
    generator = source_of(generator, torch.device("cpu"))
    attempts: list[Attempt] = []
    all_labelled = labels is not None and len(labels) == n_atoms
    for view in _views(init, n_restarts):
        left = None if options.max_seconds is None else options.max_seconds - (time.monotonic() - began)
        if attempts and left is not None and left <= 0:
            break
        # the gauge is for the fit that is kept
        now = replace(options, isometry=0.0, max_seconds=None if left is None else max(left, 0.0))
        try:
            attempts.append(
                _attempt(
                    Z, n_atoms, kinds, now, init, view, solver, row_weights, labels or {}, generator, callback
                )
            )
        except KeyboardInterrupt:
            if not attempts:
                raise
            break
        attempt = attempts[-1]
        if "interrupted" in attempt.fit.message:
            break
        if attempt.sigma is not None and attempt.fit.s2 <= largest_ratio(*Z.shape) * attempt.sigma**2:
            break
    by_noise = options.gate == "amplitude"
    ranked = sorted(attempts, key=lambda one: one.fit.s2 if by_noise else one.objective)
    if options.gauge and not all_labelled:
        ranked[0] = replace(ranked[0], fit=gauged(ranked[0].fit, Z, options, row_weights))
    return DictionaryFit(tuple(ranked), by_noise)


@dataclass(frozen=True)
class _View:
    name: str
    number: int


def _views(init: object, n_restarts: int) -> Iterator[_View]:
    if not isinstance(init, str):
        yield _View("given groups" if isinstance(init, Tensor) else "given dictionary", 0)
        return
    for i in range(n_restarts):
        known = {"cluster": NEIGHBOURS, "pure": SHARES}.get(init, ())
        what = f"{known[i]:g}" if i < len(known) else f"rows drawn again {i}"
        yield _View(f"{init}: {what}" if init != "random" else f"random {i}", i)


def _attempt(
    Z: Tensor,
    n_atoms: int,
    kinds: Kinds,
    options: SweepOptions,
    init: object,
    view: _View,
    solver: Solver,
    row_weights: Tensor | None,
    labels: Mapping[int, Tensor],
    generator: torch.Generator,
    callback: Callable[[SweepState], object] | None,
) -> Attempt:
    soft, auto = options.gate == "softmax", isinstance(kinds, str) and kinds == "auto"
    if init in ("pure", "cluster"):
        start = _from_view(Z, n_atoms, kinds, options, str(init), view, generator)
        if init == "pure" and not labels and solver == "alternating":
            pure = fit_pure(
                Z,
                start,
                options,
                choose=auto,
                row_weights=row_weights,
                callback=callback,
                generator=generator,
            )
            return Attempt(view.name, pure.fit, pure.topologies, pure.pure, start.found, start.sigma)
    elif init == "random":
        start = random_start(Z, n_atoms, kinds, options, generator=generator)
    elif isinstance(init, Tensor):
        start = group_start(Z, init, n_atoms, kinds, options, generator=generator)
    else:
        layout, B = init  # type: ignore[misc]
        start = dictionary_start(Z, layout, B, options)
    if labels:
        start = _labelled(Z, start, labels, options)
        if len(labels) == n_atoms:
            # nothing is left to be found: coordinates stay where the labels put them
            options = replace(options, max_sweeps=1, gauge=False)
    layout = Layout(start.charts)
    fitted = descend if solver == "adam" else alternate
    fit = fitted(layout, Z, start.codes, options, row_weights=row_weights, lam=start.lam, callback=callback)
    pure = tuple(len(group) for group in start.groups) if soft else tuple(len(rows) for rows in pure_of(fit))
    return Attempt(view.name, fit, start.topologies, pure, start.found, start.sigma)


def _first(number: object) -> float:
    return float(number(0) if callable(number) else number)  # type: ignore[arg-type]


def _from_view(
    Z: Tensor,
    n_atoms: int,
    kinds: Kinds,
    options: SweepOptions,
    init: str,
    view: _View,
    generator: torch.Generator,
) -> Start:
    """A structured start; on rows drawn again where the known views are used up."""
    views: tuple[float, ...] = NEIGHBOURS if init == "cluster" else SHARES
    again = view.number >= len(views)
    rows = torch.arange(len(Z), device=Z.device)
    if again:
        rows = torch.randint(len(Z), (len(Z),), generator=generator, device=generator.device).unique()
        rows = rows.to(Z.device)
    value = views[0] if again else views[view.number]
    if init == "cluster":
        soft, tau = options.gate == "softmax", _first(options.tau)
        start = cluster_start(
            Z[rows], n_atoms, kinds, softmax=soft, neighbours=int(value), tau=tau, generator=generator
        )
    else:
        m = options.n_active
        start = pure_start(Z[rows], n_atoms, kinds, n_active=m, share=value, generator=generator)
    if not again:
        return start
    whole = dictionary_start(Z, Layout(start.charts), _decoders(Z[rows], start, options), options)
    groups = tuple(rows[group] for group in start.groups)
    return replace(start, codes=whole.codes, lam=None, groups=groups)


def _decoders(Z: Tensor, start: Start, options: SweepOptions) -> Float[Tensor, "k p"]:
    layout = Layout(start.charts)
    short = replace(options, max_sweeps=1, gauge=False)
    return alternate(layout, Z, start.codes, short, lam=start.lam).B


def dictionary_start(
    Z: Float[Tensor, "n p"], layout: Layout, B: Float[Tensor, "k p"], options: SweepOptions
) -> Start:
    """Codes of rows from nothing for decoders that are known.

    Args:
        Z: rows, (n, p).
        layout: of the atoms.
        B: decoders in the units of Z, (M_tot, p).
        options: of the sweeps.
    """
    scale, sigma = spread(Z), noise_level(Z).sigma
    rows, B = Z.double() / scale, B.double()
    if options.gate == "softmax":
        tau, entropy = _first(options.tau), _first(options.entropy)
        codes = encode_softmax(layout, rows, B / scale, tau=tau, entropy=entropy).codes
    else:
        level = 0.05 * scale if sigma is None else sigma
        price = Z.shape[1] * level**2 / 8 if options.open_cost is None else options.open_cost
        codes = encode(layout, rows, B, min(options.n_active, layout.K), price / scale**2).codes
        codes = replace(codes, weights=codes.weights * scale)
    none = torch.zeros(0, dtype=torch.long, device=Z.device)
    return Start(layout.charts, codes, None, (None,) * layout.K, (none,) * layout.K, sigma, layout.K)


def group_start(
    Z: Float[Tensor, "n p"],
    groups: Int[Tensor, " n"],
    n_atoms: int,
    kinds: Kinds,
    options: SweepOptions,
    *,
    generator: torch.Generator | None = None,
) -> Start:
    """A start from the group of every row, one an atom; -1 for none.

    Args:
        Z: rows, (n, p).
        groups: numbers 0 .. n_atoms - 1, (n,).
        n_atoms: K.
        kinds: see `fit_groups`.
        options: of the sweeps.
        generator: of chart starts.
    """
    soft = options.gate == "softmax"
    rows = [(groups == k).nonzero().flatten() for k in range(n_atoms)]
    found = fit_groups(Z, rows, kinds, amplitudes=not soft, generator=generator)
    layout = Layout(tuple(one.fit.chart for one in found))
    B = torch.cat([one.fit.B for one in found])
    start = dictionary_start(Z, layout, B, options)
    codes = start.codes
    if soft:
        coords = codes.coords.clone()
        assert codes.logits is not None
        logits = codes.logits.clone()
        for k, (at, one) in enumerate(zip(rows, found, strict=True)):
            coords[at, k, : one.fit.chart.c] = one.fit.t
            logits[at] = CLOSED * _first(options.tau)
            logits[at, k] = 0.0
        codes = Codes.softmax(logits, coords, _first(options.tau))
    lam = torch.tensor([one.fit.lam for one in found], dtype=torch.float64, device=Z.device)
    topologies = tuple(one.topology for one in found)
    return Start(layout.charts, codes, lam, topologies, tuple(rows), start.sigma, n_atoms)


def random_start(
    Z: Float[Tensor, "n p"],
    n_atoms: int,
    kinds: Kinds,
    options: SweepOptions,
    *,
    generator: torch.Generator | None = None,
) -> Start:
    """Codes drawn at random: what structured starts are measured against. "auto" makes every atom a circle.

    Args:
        Z: rows, (n, p).
        n_atoms: K.
        kinds: a name, a chart or one an atom.
        options: of the sweeps.
        generator: of all draws.
    """
    source = source_of(generator, torch.device("cpu"))
    chosen: object = "circle" if isinstance(kinds, str) and kinds == "auto" else kinds
    if isinstance(chosen, str) or hasattr(chosen, "jet"):
        charts: tuple[Chart, ...] = (as_chart(chosen),) * n_atoms  # type: ignore[arg-type]
    elif callable(chosen):
        raise ValueError("charts: expected names or charts with init='random', got a function of groups")
    else:
        charts = tuple(as_chart(chart) for chart in chosen)  # type: ignore[union-attr]
    layout, n, K = Layout(charts), len(Z), n_atoms
    coords = torch.zeros(n, K, layout.widths[2], dtype=torch.float64)
    for k, chart in enumerate(charts):
        grid = chart.grid(400)
        coords[:, k, : chart.c] = grid[torch.randint(len(grid), (n,), generator=source)]
    scores = torch.randn(n, K, generator=source, dtype=torch.float64)
    if options.gate == "softmax":
        codes = Codes.softmax(scores.to(Z.device), coords.to(Z.device), _first(options.tau))
    else:
        m = min(options.n_active, K)
        atoms = scores.topk(m, 1).indices
        coords = coords.gather(1, atoms.unsqueeze(2).expand(-1, -1, coords.shape[2])).to(Z.device)
        size = Z.double().norm(dim=1, keepdim=True) / math.sqrt(m)
        codes = Codes(atoms.to(Z.device), size.expand(-1, m).clamp_min(1e-6 * spread(Z)).clone(), coords)
    none = torch.zeros(0, dtype=torch.long, device=Z.device)
    return Start(charts, codes, None, (None,) * K, (none,) * K, noise_level(Z).sigma, K)


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
    coords = codes.coords.clone()
    for k, values in labels.items():
        mine = (codes.atoms == k) & known(values).unsqueeze(1)
        row, slot = mine.nonzero(as_tuple=True)
        t = torch.zeros(len(Z), 1, dtype=coords.dtype, device=coords.device)
        t[known(values)] = label_coordinates(layout.charts[k], values[known(values)].double())
        coords[row, slot, :1] = t[row]
    return replace(start, codes=replace(codes, coords=coords), lam=None)
