"""Starts from what is known: a dictionary, or the group of every row."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullback.models.dictionary.alone import spread
from pullback.models.dictionary.cluster_start import CLOSED
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.encoding import encode, encode_softmax
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.noise import noise_level
from pullback.models.dictionary.start import Kinds, Start, fit_groups
from pullback.models.dictionary.sweep_options import SweepOptions, at_sweep


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
        tau, entropy = at_sweep(options.tau, 0), at_sweep(options.entropy, 0)
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
    journal: Journal = UNKEPT,
) -> Start:
    """A start from the group of every row, one an atom; -1 for none.

    Args:
        Z: rows, (n, p).
        groups: numbers 0 .. n_atoms - 1, (n,).
        n_atoms: K.
        kinds: see `fit_groups`.
        options: of the sweeps.
        generator: of chart starts.
        journal: keeps every chart.
    """
    soft = options.gate == "softmax"
    rows = [(groups == k).nonzero().flatten() for k in range(n_atoms)]
    found = fit_groups(Z, rows, kinds, amplitudes=not soft, generator=generator, journal=journal)
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
            logits[at] = CLOSED * at_sweep(options.tau, 0)
            logits[at, k] = 0.0
        codes = Codes.softmax(logits, coords, at_sweep(options.tau, 0))
    lam = torch.tensor([one.fit.lam for one in found], dtype=torch.float64, device=Z.device)
    topologies = tuple(one.topology for one in found)
    return Start(layout.charts, codes, lam, topologies, tuple(rows), start.sigma, n_atoms)
