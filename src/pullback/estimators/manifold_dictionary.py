"""The manifold dictionary as a scikit-learn estimator."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pullback.estimators.dictionary_checkpoint import open_journal, resumed_seed
from pullback.estimators.dictionary_options import (
    checked_options,
    given_number,
    read_init,
    read_labels,
    read_row_weights,
)
from pullback.estimators.dictionary_rows import Given, is_by_row, new_frame, read_ambient
from pullback.estimators.fitted_dictionary import FittedDictionary
from pullback.estimators.rows import draw_seed
from pullback.models.dictionary.alarms import log_alarms
from pullback.models.dictionary.codes import Codes, SparseCodes
from pullback.models.dictionary.counting import count_atoms, grown
from pullback.models.dictionary.decoder_step import gather, solve
from pullback.models.dictionary.diagnostics import diagnose_fit
from pullback.models.dictionary.journal import UNKEPT, Journal
from pullback.models.dictionary.latents import rows_of_latents
from pullback.models.dictionary.restarts import DictionaryFit, fit_dictionary
from pullback.models.dictionary.row_metrics import RowMetrics
from pullback.models.dictionary.transforming import Encoder
from pullback.validation import check_whole

FORGETTING = 0.98
"""Share of what was learnt that a batch of `partial_fit` leaves."""
REFRESH = 10
"""Batches of `partial_fit` between new decoders, after as many in which each brings them."""


class ManifoldDictionary(FittedDictionary):
    """A sparse dictionary whose atoms are curves, surfaces and points: which, how much, and where on it.

    z = b0 + Σ_k a_k g_k(t_k) + noise with g_k = Φ_k(t_k) B_k: a row uses a few atoms, and a coordinate on
    each says where. Decoders are solved in closed form and smoothed by Fellner-Schall steps, rows by batched
    Levenberg-Marquardt steps, from starts on clusters or on rows of one atom; charts are chosen by Laplace
    evidence against the null of separate points.

    Args:
        n_atoms: K, or "auto": the number of cones that hold rows of one atom (not by factors of rows).
        charts: "auto" (by evidence), a name ("circle", "interval", "plane", "sphere", "torus", "line") or a
            chart of `pullback.charts` for all atoms, a list of K, or a function (rows, groups) -> list that
            is called once on the groups that the start found.
        gate: "amplitude": a >= 0, at most ``n_active`` of them; "softmax": shares that add up to 1, for
            mixtures and convex blends.
        n_active: most atoms a row (amplitude gate); None for 3, or for all atoms if there are fewer.
        entropy: price of using several atoms a row (softmax gate), in units of the rows' spread; a number or
            a function of the sweep.
        tau: temperature of the softmax gate, likewise.
        smoothness: "reml" chooses it for each atom; a number fixes λ.
        isometry: strength of the gauge that charts other than circles get, likewise; circles are laid out by
            arc length.
        init: "auto" ("cluster" for softmax, "pure" for amplitude), "cluster", "pure", "random" (benchmarks
            only), a fitted dictionary, or the group of every row.
        n_restarts: starts at most, each from another view of the data; fewer if one reaches the noise.
        ambient: metric of data space (`pullback.ambient`) that the misfit is measured in: Euclidean, Diagonal
            or LowRank with one factor for all rows; None for Euclidean. LowRank with a factor for every row,
            (N, p, r), for noise or gaps that differ from row to row (experimental): charts and starts are
            found on rows as they probably are, then decoders by conjugate gradients, and codes, by each row's
            own. New rows bring theirs to `transform`, `score`, `steer` and `ablate`; `align` and reports
            measure all rows alike.
        offset: b0: None for 0, "mean", or an array (p,). Never subtract the mean of sums.
        solver: "alternating", or "adam", which moves decoders by gradients instead: slower, to compare
            with, and a pattern for losses of your own on ``module_``.
        max_sweeps, max_seconds: budget; the best fit so far is kept.
        tol: relative change of the objective at which a fit is at rest.
        open_cost: what an atom must save of ½|z - ẑ|² to be used; None for p σ²/8.
        callback: function of a `SweepState`, after every sweep.
        checkpoint_dir: folder for ``checkpoint.safetensors``, kept up to date while `fit` runs, so that at
            most a few per cent of the time and the sweep or chart under way are lost. At the end it holds the
            outcome, until another fit replaces it. Charts must be of `pullback.charts`.
        resume: go on from the checkpoint in ``checkpoint_dir`` if there is one, to the same bits as a fit
            that was never stopped, budgets in seconds aside; at once where that fit had come to its end.
        dtype: "float32" or "float64" of results; None for that of the rows.
        random_state: int, RandomState or None.
    Attributes:
        atoms_: K `Atom` objects: decode, jacobian, metric, arclength, chart, roughness_weight.
        components_: all decoders, (M_tot, p).
        codes_: `SparseCodes` of the training rows.
        module_: `ManifoldDictionaryModule` for training by gradients.
        diagnostics_: `FitDiagnostics`, alarms included.
        sigma_: noise level.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    When to use: features that are circles, arcs or surfaces; ordinary directions are the chart "line".
    Example:
        >>> import numpy as np
        >>> draw = np.random.default_rng(0)
        >>> t = draw.uniform(0, 2 * np.pi, 300)
        >>> Z = np.c_[np.cos(t), np.sin(t), np.zeros((300, 4))] + 0.02 * draw.normal(size=(300, 6))
        >>> model = ManifoldDictionary(1, "circle", gate="softmax", random_state=0).fit(Z)
        >>> model.transform(Z).coords.shape, bool(model.diagnostics_.fvu < 0.01)
        ((300, 1, 1), True)
    """

    def __init__(
        self,
        n_atoms: Any = 8,
        charts: Any = "auto",
        *,
        gate: Any = "amplitude",
        n_active: Any = None,
        entropy: Any = 0.05,
        tau: Any = 1.0,
        smoothness: Any = "reml",
        isometry: Any = 0.1,
        init: Any = "auto",
        n_restarts: Any = 3,
        ambient: Any = None,
        offset: Any = None,
        solver: Any = "alternating",
        max_sweeps: Any = 40,
        max_seconds: Any = None,
        tol: Any = 1e-5,
        open_cost: Any = None,
        callback: Any = None,
        checkpoint_dir: Any = None,
        resume: Any = False,
        dtype: Any = None,
        random_state: Any = None,
    ):
        self.n_atoms = n_atoms
        self.charts = charts
        self.gate = gate
        self.n_active = n_active
        self.entropy = entropy
        self.tau = tau
        self.smoothness = smoothness
        self.isometry = isometry
        self.init = init
        self.n_restarts = n_restarts
        self.ambient = ambient
        self.offset = offset
        self.solver = solver
        self.max_sweeps = max_sweeps
        self.max_seconds = max_seconds
        self.tol = tol
        self.open_cost = open_cost
        self.callback = callback
        self.checkpoint_dir = checkpoint_dir
        self.resume = resume
        self.dtype = dtype
        self.random_state = random_state

    # fitting

    def fit(
        self, Z: Any, y: Any = None, *, row_weights: Any = None, center_by: Any = None, labels: Any = None
    ) -> "ManifoldDictionary":
        """Find atoms and the codes of rows.

        Args:
            Z: rows, (N, p), array, frame or tensor; at least two an atom.
            y: ignored.
            row_weights: w >= 0, (N,).
            center_by: names of a nuisance factor, (N,), whose means are subtracted first.
            labels: values of an atom, (N,), NaN where unknown, as {atom: values}; a plain array where K = 1.
                While the fit lasts, labelled rows that use the atom stay where the labels put them.
        Returns:
            The estimator itself. After the checks nothing is raised: a fit that did not come to rest says so
            in ``diagnostics_``.
        Raises:
            ValueError, TypeError: see the messages; while it fits only where evidence gives a labelled atom a
                chart that one number a row cannot be a coordinate of.
        """
        K = given_number(self)
        checked_options(self, K)
        given = self._read(Z, reset=True)
        n, device = len(given.rows), given.rows.device
        weights = read_row_weights(row_weights, n)
        shared, metrics = read_ambient(self.ambient, n, given.rows.shape[1], device)
        if metrics is not None:
            self._check_alone(K, center_by)
        self._frame = new_frame(given.rows, self.offset, shared, center_by, by_row=metrics is not None)
        rows = self._frame.inside(given.rows.double() - self._frame.taken(given.rows, center_by).double())
        if metrics is not None:
            rows = metrics.visible(rows)
        seed = resumed_seed(self, draw_seed(self.random_state))

        def fitted(count: int, journal: Journal = UNKEPT) -> DictionaryFit:
            init, values = read_init(self, count, n), read_labels(labels, count, n)
            if isinstance(init, tuple):
                init = (init[0], self._frame.inside(init[1].to(rows)))
            return fit_dictionary(
                rows,
                count,
                self.charts,
                checked_options(self, count),
                init=init.to(device) if isinstance(init, Tensor) else init,
                n_restarts=int(self.n_restarts),
                solver=self.solver,
                row_weights=None if weights is None else weights.to(device),
                labels=None if values is None else {k: v.to(device) for k, v in values.items()},
                generator=torch.Generator().manual_seed(seed),
                callback=self.callback,
                metrics=metrics,
                journal=journal,
            )

        data = {"Z": given.rows, "row_weights": weights, "center_by": center_by, "labels": labels}
        with open_journal(self, seed, data) as journal:
            found: DictionaryFit | None = journal.last()
            if found is None and K is not None:
                found = fitted(K, journal.at("fit"))
            elif found is None:
                count = journal.at("count").once(lambda: count_atoms(rows))
                found = grown(fitted, count, rows.shape, journal.at("growth"))
            if not found.interrupted:
                journal.keep(found)
            outer = given.rows.double() - self._frame.taken(given.rows, center_by).double()
            n_active = checked_options(self, found.best.fit.layout.K).n_active
            self._settle(found, rows, outer, given, n_active, metrics)
        return self

    def fit_transform(self, Z: Any, y: Any = None, **options: Any) -> SparseCodes:
        """Fit, and the codes of the same rows."""
        self.fit(Z, y, **options)
        ambient = self.ambient if self._frame.by_row else None
        return self.transform(Z, center_by=options.get("center_by"), ambient=ambient)

    def partial_fit(self, Z: Any, y: Any = None) -> "ManifoldDictionary":
        """Learn from a batch of rows of a stream; the first one is fitted as by `fit`.

        Sums over rows are kept, of which each batch leaves .98; charts and number of atoms never change.

        Args:
            Z: rows, (N, p).
            y: ignored.
        Raises:
            ValueError: a metric with a factor a row, which the next rows do not have.
        """
        if self._frame.by_row if hasattr(self, "atoms_") else is_by_row(self.ambient):
            raise ValueError("ambient: expected a metric that all rows of a stream share, got a factor a row")
        if not hasattr(self, "atoms_"):
            self.fit(Z)
            return self
        given = self._read(Z, reset=False)
        outer = given.rows.double() - self._frame.taken(given.rows).double()
        inner, encoder = self._frame.inside(outer), self._encoder
        codes = self._internal(encoder.solve(inner).codes)
        fresh = gather(encoder.layout, codes, outer)
        kept = self._moments
        self._moments = fresh if kept is None else kept.plus(fresh, FORGETTING)
        self._seen += 1
        if self._seen <= REFRESH or self._seen % REFRESH == 0:
            self._renew(given)
        return self

    @classmethod
    def from_sae(
        cls, decoder: Any, codes: Any, n_atoms: int = 8, charts: Any = "auto", **options: Any
    ) -> "ManifoldDictionary":
        """A dictionary from the latents of a sparse autoencoder: latents that point alike or fire together
        become one atom.

        Args:
            decoder: directions of the latents, (L, p).
            codes: activations, (N, L), dense or a sparse matrix.
            n_atoms: K, groups of latents.
            charts: as in the class.
            options: of the class, too.
        Returns:
            The dictionary, fitted to the rows ``codes @ decoder``.
        Raises:
            ValueError: shapes that do not fit.
        """
        check_whole("n_atoms", n_atoms)
        rows, groups = rows_of_latents(decoder, codes, n_atoms)
        return cls(n_atoms, charts, init=groups, **options).fit(rows)

    # inside

    def _check_alone(self, K: int | None, center_by: Any) -> None:
        """Raise where factors of rows meet what measures all rows alike."""
        if K is None:
            raise ValueError("n_atoms: expected a number where rows have factors of their own, got 'auto'")
        if self.solver != "alternating":
            raise ValueError(
                f"solver: expected 'alternating' where rows have factors of their own, got {self.solver!r}"
            )
        if isinstance(self.offset, str) or center_by is not None:
            name = "center_by" if center_by is not None else "offset"
            raise ValueError(
                f"{name}: expected no mean to subtract where rows have factors of their own, which may not "
                "have seen what it is of; subtract it from the rows"
            )

    def _settle(
        self,
        found: DictionaryFit,
        rows: Tensor,
        outer: Tensor,
        given: Given,
        n_active: int,
        metrics: RowMetrics | None,
    ) -> None:
        """Fitted attributes."""
        fit = found.best.fit
        layout, s2 = fit.layout, fit.s2
        share = 1.0 if metrics is None else metrics.share
        factors = None if metrics is None else metrics.factors
        cost = rows.shape[1] * share * s2 / 8 if self.open_cost is None else float(self.open_cost)
        entropy, tau = _last(self.entropy, self.max_sweeps), _last(self.tau, self.max_sweeps)
        # as a file gives them back: products round differently for transposed memory
        decoders = fit.B.contiguous()
        self._encoder = Encoder(
            layout, decoders, self.gate, n_active, entropy, tau, cost, s2, fit.scale, share
        )
        B = fit.B
        if self._frame.ambient is not None:
            # the same regression, of the rows as they are
            B = solve(layout, gather(layout, fit.codes, outer), fit.decoders.lam, fit.decoders.rho).B
            if self._frame.by_row:
                B = self._frame.outside(fit.B, B)
        self._moments, self._seen = None, 0
        self._lam, self._rho = fit.decoders.lam, fit.decoders.rho
        self._publish(B, given)
        inside = (
            fit.codes
            if fit.codes.logits is not None
            else replace(fit.codes, weights=fit.codes.weights / fit.scale)
        )
        self.codes_ = self._returned(self._encoder.codes(rows, inside, factors), given)
        self.diagnostics_ = diagnose_fit(found, rows, metrics)
        log_alarms(self.diagnostics_.alarms)
        self._moments = gather(layout, fit.codes, outer)

    def _internal(self, codes: Codes) -> Codes:
        """Codes in units of the rows."""
        if codes.logits is not None:
            return codes
        return replace(codes, weights=codes.weights * self._encoder.scale)

    def _renew(self, given: Given) -> None:
        """Decoders and noise level from the sums so far."""
        assert self._moments is not None
        encoder = self._encoder
        fit = solve(encoder.layout, self._moments, self._lam, self._rho)
        B = fit.B
        inner = B if self._frame.ambient is None else self._frame.inside(B)
        self._encoder = replace(encoder, B=inner.double().contiguous())
        if self._frame.ambient is None:
            self._encoder = replace(self._encoder, s2=fit.s2)
        self._publish(B, given)


def _last(number: Any, sweeps: int) -> float:
    """A number, or what a schedule ends with."""
    value: Any = number(sweeps) if callable(number) else number
    return float(value)
