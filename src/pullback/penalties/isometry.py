"""The isometry gauge: a decoder whose pullback metric is a reference metric up to one global scale."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from pullback.ambient import Euclidean
from pullback.jets import Jet
from pullback.penalties.block_low_rank import BlockPlusLowRank
from pullback.penalties.decoder_metric import trained_metric, trained_square
from pullback.penalties.errors import DegenerateMetricError, UnnormalisedPriorError
from pullback.penalties.evidence import Evidence
from pullback.penalties.gauge import check_reference, reference_rows
from pullback.penalties.isometry_curvature import (
    CurvatureKind,
    assemble,
    gauss_newton_product,
    hessian_product,
)
from pullback.penalties.isometry_evaluation import IsometryEvaluation, is_plain, quick_evaluation
from pullback.penalties.isometry_preparation import Preparation, Prepared, jacobian_of, zeros_for
from pullback.penalties.jet_supply import JetSource, Supply, check_target, explain_not_finite
from pullback.penalties.latent_sampling import LatentPolicy, LatentSampling
from pullback.penalties.options import written
from pullback.penalties.protocol import Tier
from pullback.penalties.sampled_gauge import (
    Estimator,
    Reduce,
    estimator_for,
    exact_square,
    probed_square,
)
from pullback.penalties.schedule import Number, Scheduled
from pullback.penalties.statistics import IsometryStatistics
from pullback.penalties.strength import Rho, strength
from pullback.typing import Ambient, Map
from pullback.validation import check_choice, check_points, check_whole

Strength = Tensor | float
Reduction = Literal["sum", "mean"]


class IsometryPenalty:
    """How far the pullback metric is from a reference, up to one global scale.

    g_n = J_nᵀ W J_n, ḡ = Σ tr g_n/(n d), R_n = g_n/ḡ - Gref_n, P = ½ μ Σ_n ‖R_n‖²_F. It fixes the chart: what
    is left of smooth reparametrisations is one scale (and the isometries of the reference), so that sparsity,
    rank or relevance can act on axes. P(c J) = P(J) for every c.

    A target is a `Jet`, or points (n, d) where ``decoder``, ``source`` or ``jet=`` gives the derivatives.
    With a decoder they are computed inside, and neither Hessians nor third derivatives are formed. All
    results are differentiable to whatever they are computed from.

    Args:
        weight: w of the strength μ = sign(w) exp(ln|w| + rho), a number or a schedule.
        reference: Gref, (d, d) or one a row (n, d, d), symmetric; None is the identity.
        ambient: the metric W of data space (`pullback.ambient`); None is Euclidean, and in training the
            Fisher metric of the model's likelihood, so that gauge and likelihood cannot disagree.
        reference_scale: "as_given", or "normalize" to divide the reference by its mean trace a dimension.
        decoder: a `Map`; recommended, because its derivatives are never out of date.
        source: something with ``jet(points, order)``, such as `DuchonRadialSource`.
        schedule: a function of the step that replaces ``weight``.
        missing: what a missing derivative does: "raise", or "zero", which says so once in the log.
        degenerate: what ḡ = 0 does: "raise" or "zero".
        reduction: "sum" over rows, or "mean".
        estimator: how `penalize` gets the metric: "exact", "hutchinson" (products with random vectors), or
            "auto": exact up to 16 latent dimensions; `estimator_for` tells.
        probes: random vectors a row for "hutchinson".
        latent_dim: d, for flat targets that no jet comes with.
        latents: where a training step asks for the gauge: "codes", "mixtures" of two codes, "both", or a
            `LatentSampling` that also says how many.
        name: what a history calls it.
    Raises:
        ValueError: see the messages. MissingJetError: a derivative that nobody gave.
    Example:
        >>> import torch
        >>> stretch = IsometryPenalty(decoder=lambda z: z * torch.tensor([1.0, 3.0]))
        >>> round(stretch.value(torch.zeros(5, 2)).item(), 4)
        3.2
    """

    kind = "isometry"
    tier: Tier = "psi"
    row_block_diagonal = False
    rho_count = 1
    proportional = True

    def __init__(
        self,
        weight: Number = 1.0,
        *,
        reference: Tensor | None = None,
        ambient: Ambient | None = None,
        reference_scale: Literal["as_given", "normalize"] = "as_given",
        decoder: Map | None = None,
        source: JetSource | None = None,
        schedule: Callable[[int], float] | None = None,
        missing: Literal["raise", "zero"] = "raise",
        degenerate: Literal["raise", "zero"] = "raise",
        reduction: Reduction = "sum",
        estimator: Estimator = "auto",
        probes: int = 1,
        latent_dim: int | None = None,
        latents: LatentPolicy | LatentSampling = "codes",
        name: str | None = None,
    ):
        check_choice("missing", missing, ("raise", "zero"))
        check_choice("degenerate", degenerate, ("raise", "zero"))
        check_choice("reduction", reduction, ("sum", "mean"))
        check_choice("estimator", estimator, ("auto", "exact", "hutchinson"))
        check_whole("probes", probes)
        if latent_dim is not None:
            check_whole("latent_dim", latent_dim)
        if source is not None and not isinstance(source, JetSource):
            raise TypeError(
                f"source: expected something with jet(points, order), got {type(source).__name__}"
            )
        if decoder is not None and not callable(decoder):
            raise TypeError(f"decoder: expected a map (n, d) -> (n, p), got {type(decoder).__name__}")
        self._weight = Scheduled("weight", weight, schedule)
        self.reference = check_reference(reference, reference_scale)
        self.reference_scale, self._ambient = reference_scale, ambient
        self.decoder, self.source, self.missing, self.degenerate = decoder, source, missing, degenerate
        self.latent_dim = latent_dim
        self.latents = latents if isinstance(latents, LatentSampling) else LatentSampling(latents)
        self._supply = Supply(decoder, source, self.ambient, missing)
        self._preparation = Preparation(self.reference, degenerate, latent_dim)
        self.reduction: Reduction = reduction
        self.estimator: Estimator = estimator
        self.probes = probes
        self.name = self.kind if name is None else name

    @property
    def weight(self) -> float:
        """The present weight."""
        return self._weight.now

    @property
    def ambient(self) -> Ambient:
        """The metric of data space."""
        return Euclidean() if self._ambient is None else self._ambient

    @property
    def chosen_ambient(self) -> Ambient | None:
        """The metric of data space as it was given; where none was, training takes the likelihood's own."""
        return self._ambient

    # the penalty of a target

    def pullback_metric(self, target: Tensor | Jet, *, jet: Jet | None = None) -> Tensor:
        """g = Jᵀ W J, (n, d, d).

        Raises:
            MissingJetError: no Jacobian, whatever ``missing`` says: there is no metric that is zero.
        """
        supply = replace(self._supply, missing="raise")
        known = self._preparation.known(supply, target, jet, 1, "pullback_metric")
        if known is None:
            d = target.shape[-1] if isinstance(target, Tensor) else jacobian_of(target).shape[-1]
            return zeros_for(target).sum().new_zeros(0, d, d)
        if not bool(torch.isfinite(known.metric.detach()).all()):
            explain_not_finite(target, known)
        return known.metric

    def value(self, target: Tensor | Jet, rho: Rho = 0.0, *, jet: Jet | None = None) -> Tensor:
        """P, a scalar."""
        at = self._ready(target, jet, 1, "value")
        return zeros_for(target).sum() if at is None else self._value(at, rho)

    def grad_target(self, target: Tensor | Jet, rho: Rho = 0.0, *, jet: Jet | None = None) -> Tensor:
        """Gradient by the points, in their shape; (n, d) for a jet."""
        at = self._ready(target, jet, 2, "grad_target")
        if at is None:
            return zeros_for(target)
        slope = at.known.contract(at.gauge.sensitivity)
        return self._shaped(self._strength(rho, at) * slope, target, at.known)

    def grad_jacobian(self, target: Tensor | Jet, rho: Rho = 0.0, *, jet: Jet | None = None) -> Tensor:
        """Gradient by the Jacobians, 2 μ W J A, (n, p, d)."""
        at = self._ready(target, jet, 1, "grad_jacobian")
        if at is None:
            known = target if isinstance(target, Jet) else jet or self._supply.attached
            return torch.zeros_like(jacobian_of(known))
        return self._strength(rho, at) * at.known.jacobian_slope(at.gauge.sensitivity)

    def grad_rho(self, target: Tensor | Jet, rho: Rho = 0.0, *, jet: Jet | None = None) -> Tensor:
        """[value], because the strength is exp(rho)."""
        return self.value(target, rho, jet=jet).reshape(1)

    def evaluate(self, target: Tensor | Jet, rho: Rho = 0.0, *, jet: Jet | None = None) -> IsometryEvaluation:
        """Value and both gradients at the cost of one."""
        quick = self._quick(target, rho, jet)
        if quick is not None:
            return quick
        at = self._ready(target, jet, 2, "evaluate")
        if at is None:
            known = target if isinstance(target, Jet) else jet or self._supply.attached
            J = None if known is None else known.jacobian
            slope = None if J is None else torch.zeros_like(J)
            return IsometryEvaluation(zeros_for(target).sum(), zeros_for(target), slope, 0.0)
        A = self._strength(rho, at) * at.gauge.sensitivity
        slope = self._shaped(at.known.contract(A), target, at.known)
        return IsometryEvaluation(
            self._value(at, rho), slope, at.known.jacobian_slope(A), float(at.gauge.mean.detach())
        )

    # second order

    def hvp(self, target: Tensor | Jet, v: Tensor, rho: Rho = 0.0, *, jet: Jet | None = None) -> Tensor:
        """Exact Hessian by the points times ``v``, the curvature of the decoder and of ḡ included."""
        at = self._ready(target, jet, 3, "hvp")
        if at is None:
            return torch.zeros_like(v)
        product = hessian_product(at.gauge, at.known, self._vector(v, at.known))
        return self._shaped(self._strength(rho, at) * product, v, at.known, "v")

    def psd_majorizer_hvp(
        self, target: Tensor | Jet, v: Tensor, rho: Rho = 0.0, *, jet: Jet | None = None
    ) -> Tensor:
        """Gauss-Newton product μ DRᵀ DR v: positive semi-definite, but no bound of the Hessian.

        Raises:
            ValueError: a negative strength; use ``curvature(kind="loewner")``.
        """
        at = self._ready(target, jet, 2, "psd_majorizer_hvp")
        if at is None:
            return torch.zeros_like(v)
        mu = self._strength(rho, at, positive=True)
        product = gauss_newton_product(at.gauge, at.known, self._vector(v, at.known))
        return self._shaped(mu * product, v, at.known, "v")

    def curvature(
        self,
        target: Tensor | Jet,
        rho: Rho = 0.0,
        kind: CurvatureKind = "gauss_newton",
        *,
        jet: Jet | None = None,
    ) -> BlockPlusLowRank:
        """The Hessian, or what stands in for it, with exact solves and determinants.

        Args:
            target: a jet or points.
            rho: log-strength.
            kind: "gauss_newton" (positive semi-definite), "hessian" (exact, may be indefinite) or "loewner"
                (positive semi-definite and above the Hessian).
            jet: derivatives at the points.
        """
        check_choice("kind", kind, ("gauss_newton", "hessian", "loewner"))
        at = self._ready(target, jet, 2 if kind == "gauss_newton" else 3, "curvature")
        if at is None:
            rows = zeros_for(target)
            rows = rows.reshape(-1, rows.shape[-1])
            blocks = rows.new_zeros(*rows.shape, rows.shape[1])
            return BlockPlusLowRank(
                blocks, rows.new_zeros(rows.numel(), 1), rows.new_zeros(1, 1), kind != "hessian"
            )
        mu = self._strength(rho, at, positive=kind == "gauss_newton")
        return assemble(at.gauge, at.known, self.reference, mu, kind)

    def hessian_diag(self, target: Tensor | Jet, rho: Rho = 0.0) -> None:
        """None: rows are coupled. The diagonal is ``curvature(target, kind="hessian").diagonal()``."""

    def psd_majorizer_diag(self, target: Tensor | Jet, rho: Rho = 0.0) -> None:
        """None: the operator of `psd_majorizer_hvp` is dense."""

    # sums over chunks, batches and ranks

    def statistics(self, target: Tensor | Jet, *, jet: Jet | None = None) -> IsometryStatistics:
        """What merges exactly over chunks and ranks; see `value_of` and `surrogate`."""
        return IsometryStatistics.of(self.pullback_metric(target, jet=jet), self.reference)

    def value_of(self, statistics: IsometryStatistics, rho: Rho = 0.0) -> Tensor:
        """P of all points whose statistics were merged, in float64."""
        mu = strength(self.weight, rho, torch.float64)
        try:
            value = mu * statistics.half_square()
        except DegenerateMetricError as error:
            self._preparation.accept(error, "value_of")
            return torch.zeros_like(statistics.mean)
        return value if self.reduction == "sum" else value / statistics.rows

    def surrogate(
        self,
        target: Tensor | Jet,
        statistics: IsometryStatistics,
        rho: Rho = 0.0,
        *,
        jet: Jet | None = None,
    ) -> Tensor:
        """μ Σ A_n:g_n with A from the statistics of all points, held fixed.

        Its gradients, added up over batches, are the gradient of P over all points. Where ranks average their
        gradients, multiply it by their number.
        """
        g = self.pullback_metric(target, jet=jet)
        try:
            A = statistics.sensitivity(g.detach(), self.reference).to(g).detach()
        except DegenerateMetricError as error:
            self._preparation.accept(error, "surrogate")
            return g.new_zeros(())
        mu = strength(self.weight, rho, g.dtype)
        value = mu * (A * g).sum()
        return value if self.reduction == "sum" else value / statistics.rows.to(g)

    # training

    def estimator_for(self, latent_dim: int) -> Literal["exact", "hutchinson"]:
        """How `penalize` gets the metric of a decoder with this many latent dimensions."""
        return estimator_for(self.estimator, latent_dim)

    def penalize(
        self,
        decoder: Map,
        z: Tensor,
        rho: Rho = 0.0,
        *,
        ambient: Ambient | None = None,
        reduction: Reduction | None = None,
        reduce: Reduce | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """P of a decoder at points, for a training loss: differentiable to both, possibly once only.

        A batch has a ḡ of its own: another objective than that of all data, scale-free as well.

        Args:
            decoder: a module or function, (n, d) -> (n, p).
            z: points, (n, d).
            rho: log-strength.
            ambient: the metric of data space; None is the penalty's own.
            reduction: "sum" or "mean" over rows; None is the penalty's own.
            reduce: sum over processes with gradient, where ``z`` are one process's rows; the result is that
                of all rows. With one reference a row, they are this process's.
            generator: for the random vectors of the "hutchinson" estimator.
        Returns: a scalar; `estimator_for` says whether it is exact.
        """
        check_points("z", z, finite=False)
        if z.shape[0] == 0 and reduce is None:
            return z.new_zeros(())
        ambient = self.ambient if ambient is None else ambient
        reference = reference_rows(self.reference, *z.shape)
        mu, total = strength(self.weight, rho, z.dtype), (reduction or self.reduction) == "sum"
        exact = self.estimator_for(z.shape[1]) == "exact"
        try:
            if exact and reduce is None and not isinstance(mu, Tensor):
                factor = mu / 2 if total else mu / (2 * z.shape[0])
                return trained_square(decoder, z, ambient, reference, factor)
            if exact:
                square, rows = exact_square(trained_metric(decoder, z, ambient), reference, reduce)
            else:
                options = {"probes": self.probes, "reduce": reduce, "generator": generator}
                square, rows = probed_square(decoder, z, ambient, reference, **options)
        except DegenerateMetricError as error:
            self._preparation.accept(error, "penalize")
            return z.new_zeros(())
        return mu / (2 if total else 2 * rows) * square

    # state

    def with_jet(self, jet: Jet | None) -> "IsometryPenalty":
        """A penalty that knows these derivatives of its target; None forgets them."""
        if jet is not None:
            check_target("jet", jet, points=False)
        other = copy(self)
        other._supply = replace(self._supply, attached=jet)
        return other

    def refresh_caches(self, jacobian: Tensor | None, hessian: Tensor | None = None) -> None:
        """Keep J and H for the targets to come, and forget K; None clears. They are not followed when the
        decoder moves: prefer ``decoder=``.
        """
        self._attach(jacobian=jacobian, hessian=hessian, third=None)

    def set_jacobian_cache(self, jacobian: Tensor | None) -> None:
        """Keep J."""
        self._attach(jacobian=jacobian)

    def set_jacobian_second_cache(self, hessian: Tensor | None) -> None:
        """Keep H."""
        self._attach(hessian=hessian)

    def set_third_decoder_derivative(self, third: Tensor | None) -> None:
        """Keep K."""
        self._attach(third=third)

    def _attach(self, **parts: Tensor | None) -> None:
        attached = replace(self._supply.attached or Jet(None, None), **parts)
        empty = attached.jacobian is None and attached.hessian is None and attached.third is None
        self._supply = replace(self._supply, attached=None if empty else attached)

    def apply_schedule(self, step: int) -> None:
        """Take the weight that the schedule has at ``step``; without a schedule nothing changes."""
        self._weight.advance(step)

    def log_normalizer(self, rho: Rho, n: int) -> Tensor:
        """There is none: its mass is an integral over decoders, and it is scale-free.

        Raises:
            UnnormalisedPriorError: always.
        """
        raise UnnormalisedPriorError(
            "isometry: the value falls with its log-strength and no normaliser exists, so an optimiser would "
            "send the strength to 0; use a schedule, a validation grid or a bound on the penalty"
        )

    def neg_log_prior(self, target: Tensor | Jet, rho: Rho = 0.0) -> Tensor:
        """value + log_normalizer, which raises; see `log_normalizer`."""
        return self.log_normalizer(rho, 0)

    # plumbing

    def _ready(self, target: Tensor | Jet, jet: Jet | None, order: int, what: str) -> Prepared | None:
        return self._preparation.ready(self._supply, target, jet, order, what)

    def _strength(self, rho: Rho, at: Prepared, positive: bool = False) -> Strength:
        mu = strength(self.weight, rho, at.known.metric.dtype)
        if positive and float(mu) < 0:
            raise ValueError(
                f"weight: expected >= 0 for Gauss-Newton, got {self.weight}; use curvature(kind='loewner')"
            )
        return mu if self.reduction == "sum" else mu / at.gauge.metric.shape[0]

    def _value(self, at: Prepared, rho: Rho) -> Tensor:
        return (self._strength(rho, at) * at.gauge.square / 2).to(at.known.metric.dtype)

    def _quick(self, target: Tensor | Jet, rho: Rho, jet: Jet | None) -> IsometryEvaluation | None:
        """`evaluate` of a given jet outside of any graph; None where that is not the case."""
        check_target("target", target)
        known = target if isinstance(target, Jet) else jet or self._supply.attached
        if self.reference is not None or known is None or isinstance(rho, Tensor):
            return None
        J, H = known.jacobian, known.hessian
        if J is None or H is None or not is_plain(J, H):
            return None
        at = self._supply.given(known, target if isinstance(target, Tensor) else None, 2)
        mu = float(strength(self.weight, rho, J.dtype))
        return quick_evaluation(at, mu if self.reduction == "sum" else mu / J.shape[0])

    def _vector(self, v: Tensor, known: Evidence) -> Tensor:
        n, d = known.metric.shape[:2]
        if not isinstance(v, Tensor) or tuple(v.shape) not in ((n, d), (n * d,)):
            got = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
            raise ValueError(f"v: expected the target's shape ({n}, {d}), got {got}")
        return v.to(known.metric).reshape(n, d)

    def _shaped(self, result: Tensor, like: Tensor | Jet, known: Evidence, name: str = "target") -> Tensor:
        if not bool(torch.isfinite(result.detach()).all()):
            explain_not_finite(like, known, name)
        result = result.to(known.metric.dtype)
        return result.reshape(like.shape) if isinstance(like, Tensor) else result

    def __repr__(self) -> str:
        return written(self)
