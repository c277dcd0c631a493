"""A latent space in fixed orthogonal blocks, one for each named quantity and one that is free."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullback.subspaces import decoders
from pullback.subspaces.arguments import (
    check_codes,
    check_mapping,
    check_names,
    check_orthonormal,
    check_quantities,
    check_rows_finite,
    check_same_dtype,
    check_size,
)
from pullback.subspaces.isotropy import participation
from pullback.subspaces.loo import RIDGE
from pullback.subspaces.partition_scores import (
    NO_ROWS,
    Layout,
    PartitionScores,
    PartitionTerms,
    consecutive,
    scores_of_parts,
)
from pullback.subspaces.statistics import SufficientStatistics
from pullback.subspaces.steering import steered
from pullback.subspaces.targets import target_facts
from pullback.typing import Schedule
from pullback.validation import check_positive, check_tensor

Weight = float | int | Schedule
WEIGHTS = {"fit": 1.0, "leak": 1.0, "free": 1.0, "isotropy": 0.0}
COLLAPSED = 1e-8
"""Share of the mean variance of the codes below which a block gets no smaller ridge."""
STATE = ("y_mean", "y_rate", "implied", "told", "widths", "decoder", "offset")


class PartitionLoss(nn.Module):
    """Trains each quantity into its own latent coordinates, and out of all others.

    Quantity q owns the coordinates [o_q, o_q + k_q) in the order of ``sizes``; the last f = D - Σ k are free.
    With y standardised over all training rows and R² the closed-form leave-one-out `loo_r2` of the batch,

        total = w_fit mean_q (1 - R²(z_q, y_q)) + w_leak mean_{q≠r} max(0, R²(z_r, y_q - E[y_q | y_r]))
              + w_free mean_q max(0, R²(z_free, y_q)) + w_isotropy isotropy(z_free)

    Decoders are solved inside; there is no parameter to learn. What quantities share by nature is no leak:
    E[y_q | y_r] is their linear regression over all rows. Blocks that are fixed and orthogonal, instead of
    subspaces solved again and again, cannot come to overlap. One Cholesky factor serves all that is read from
    a block.

    Args:
        latent_dim: D.
        sizes: name -> k, Σ k <= D.
        ridge: of the read-outs, relative to the mean variance of the coordinates.
        weights: of "fit", "leak", "free" (1 each) and "isotropy" (0), numbers or functions of the step.
        basis: (D, D) with orthonormal rows, which take the place of the coordinate axes.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.
    Example:
        >>> import torch
        >>> z = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
        >>> partition = PartitionLoss(4, {"mass": 1, "centre": 2})
        >>> Y = {"mass": z[:, 0], "centre": z[:, 1:3]}
        >>> partition.fit_targets(Y)
        >>> terms = partition(z, Y)
        >>> round(terms.total.item(), 2), terms.leak["mass", "centre"].item() < 0.05
        (0.0, True)

    When to use: batches of B >= max(k, f) + 2 rows, better of five times as many. A quantity that is missing
    in some rows (NaN) is judged by the others; too few of them leave it out of the batch, as if R² were 0.
    """

    y_mean: Tensor
    y_rate: Tensor
    implied: Tensor
    told: Tensor
    widths: Tensor
    decoder: Tensor
    offset: Tensor
    basis: Tensor | None

    def __init__(
        self,
        latent_dim: int,
        sizes: Mapping[str, int],
        *,
        ridge: float | int = RIDGE,
        weights: Mapping[str, Any] | None = None,
        basis: Float[Tensor, "d d"] | None = None,
    ):
        super().__init__()
        check_size("latent_dim", latent_dim)
        named = check_mapping("sizes", sizes, of="numbers")
        self.sizes = {q: check_size(f"sizes[{q!r}]", k) for q, k in named.items()}
        self.names = tuple(self.sizes)
        total = sum(self.sizes.values())
        if total > latent_dim:
            raise ValueError(
                f"sizes: expected no more than there is, got sum of sizes {total} > latent_dim {latent_dim}"
            )
        check_positive("ridge", ridge)
        self.latent_dim, self.n_free, self.ridge = latent_dim, latent_dim - total, float(ridge)
        self.weights: dict[str, Any] = checked_weights(weights, self.n_free)
        self.register_buffer("basis", None if basis is None else _checked_basis(basis, latent_dim))
        for name in STATE:
            self.register_buffer(name, None)
        stops = torch.tensor([*self.sizes.values(), self.n_free]).cumsum(0).tolist()
        self._parts = [
            slice(stop - k, stop) for stop, k in zip(stops, [*self.sizes.values(), self.n_free], strict=True)
        ]
        if self.n_free == 0:
            self._parts.pop()
        self._layout: dict[tuple[torch.device, torch.dtype], Layout] = {}

    # --- what is known of the quantities ------------------------------------------------------------------

    def fit_targets(self, Y: Mapping[str, Tensor] | SufficientStatistics) -> None:
        """Units of the quantities and what they imply of each other, from all training rows, once.

        Args:
            Y: name -> (n, ...), NaN where a value is missing; or statistics of all rows.
        Raises:
            TypeError, ValueError: other names; a quantity that is constant or missing everywhere.
        """
        facts, dtype = target_facts(Y, self.names)
        self.y_mean, self.y_rate = facts.mean.to(dtype), facts.rate.to(dtype)
        self.implied = facts.implied.to(dtype)
        self.told, self.widths = facts.told.to(facts.mean.device), facts.widths.to(facts.mean.device)
        self._layout.clear()

    def _check_fitted(self) -> None:
        if self.y_mean is None:
            raise RuntimeError("partition: expected known quantities, got none; call fit_targets first")

    # --- the loss -----------------------------------------------------------------------------------------

    def forward(self, z: Float[Tensor, "b d"], Y: Mapping[str, Tensor], *, step: int = 0) -> PartitionTerms:
        """The loss of a batch.

        Args:
            z: codes; the gradient flows through them.
            Y: name -> (B, ...) of the same dtype; NaN where a value is missing.
            step: for weights that change.
        Raises:
            RuntimeError: before `fit_targets`.
            TypeError, ValueError: an argument of the wrong kind, shape or value; too few rows.
        """
        self._check_fitted()
        codes = self._checked_codes(z)
        targets = check_quantities(Y, len(codes), finite=False)
        check_names("Y", targets, self.names, "sizes")
        check_same_dtype(codes, targets, "Y")
        for q, width in zip(self.names, self.widths.tolist(), strict=True):
            if targets[q].shape[1] != width:
                raise ValueError(
                    f"Y[{q!r}]: expected {width} columns as in fit_targets, got {targets[q].shape[1]}"
                )
        self.check_rows(len(codes))
        scores = self.scores(
            codes,
            torch.cat([targets[q] for q in self.names], dim=1),
            isotropy=bool(self.weight("isotropy", step)),
        )
        means = self.means(scores)
        total = sum(self.weight(name, step) * mean for name, mean in means.items())
        told = self.told.tolist()
        pairs = [(i, j) for i in range(len(self.names)) for j in range(len(self.names)) if i != j]
        return PartitionTerms(
            total,  # type: ignore[arg-type]
            dict(zip(self.names, scores.fit.unbind(), strict=True)),
            {(self.names[i], self.names[j]): scores.leak[i, j] if told[i][j] else None for i, j in pairs},
            dict(zip(self.names, scores.free.unbind(), strict=True)),
            scores.isotropy,
        )

    def weight(self, name: str, step: int) -> float:
        """Weight of "fit", "leak", "free" or "isotropy" at a step."""
        weight: Any = self.weights[name]
        return float(weight(step) if callable(weight) else weight)  # type: ignore[arg-type]

    def check_rows(self, rows: int, name: str = "z") -> None:
        """Raise ``ValueError`` unless a batch is large enough for every block."""
        named = zip((*self.names, "the free dimensions"), self._parts, strict=False)
        part, k = max(((name, p.stop - p.start) for name, p in named), key=lambda pair: pair[1])
        if rows < k + NO_ROWS:
            block = f"block {part!r}" if part in self.sizes else part
            raise ValueError(
                f"{name}: {block} of size {k} needs at least k + 2 = {k + NO_ROWS} rows, got {rows}"
            )

    def scores(
        self, z: Float[Tensor, "b d"], y: Float[Tensor, "b m"], *, isotropy: bool = False
    ) -> PartitionScores:
        """The terms of a batch of checked codes and of the columns of all quantities side by side."""
        z = z if self.basis is None else z @ self.basis.to(z).mT
        z = z - z.mean(0)
        y = (y - self.y_mean.to(y)) * self.y_rate.to(y)
        floor = (COLLAPSED * z.detach().square().sum() / z.numel()).clamp_min(torch.finfo(z.dtype).tiny)
        r2 = scores_of_parts(z, y, self.implied.to(y), self._laid_out(z), ridge=self.ridge, t_floor=floor)
        Q = len(self.names)
        own = r2[:Q]
        leak = own.clamp_min(0).mT * self.told
        free = r2[Q].clamp_min(0) if self.n_free else y.new_zeros(Q)
        spread = self._isotropy(z[:, self._parts[-1]]) if isotropy and self.n_free else None
        return PartitionScores(1 - own.diagonal(), leak, free, spread)

    def means(self, scores: PartitionScores) -> dict[str, Tensor]:
        """Terms of the total, without their weights."""
        found = {
            "fit": scores.fit.mean(),
            "leak": scores.leak.sum() / self.told.sum().clamp_min(1),
            "free": scores.free.mean(),
        }
        return found if scores.isotropy is None else found | {"isotropy": scores.isotropy}

    def _isotropy(self, free: Tensor) -> Tensor:
        return (free[:1] * 0).sum() if self.n_free == 1 else participation(free)

    def _laid_out(self, z: Tensor) -> Layout:
        key = (z.device, z.dtype)
        if key not in self._layout:
            self._layout[key] = Layout.of(self._parts, self.widths.tolist(), z)
        return self._layout[key]

    # --- reading ------------------------------------------------------------------------------------------

    @property
    def bases(self) -> dict[str, Tensor]:
        """name -> the orthonormal rows of its block, (k, D)."""
        eye = torch.eye(self.latent_dim) if self.basis is None else self.basis
        return {q: eye[part] for q, part in zip(self.names, self._parts, strict=False)}

    def blocks(self, z: Float[Tensor, "b d"]) -> dict[str, Tensor]:
        """name -> the coordinates of its block, (B, k)."""
        turned = self._turned(z)
        return {q: turned[:, part] for q, part in zip(self.names, self._parts, strict=False)}

    def free(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b f"]:
        """The free coordinates."""
        return self._turned(z)[:, self.latent_dim - self.n_free :]

    def _turned(self, z: Tensor) -> Tensor:
        codes = self._checked_codes(z)
        return codes if self.basis is None else codes @ self.basis.to(codes).mT

    def _checked_codes(self, z: object) -> Tensor:
        codes = check_codes(z, "z")
        if codes.shape[1] != self.latent_dim:
            raise ValueError(f"z: expected (B, {self.latent_dim}), got {tuple(codes.shape)}")
        return codes

    def fit_decoders(self, statistics: SufficientStatistics) -> dict[str, Tensor]:
        """Ridge decoders from each block to its quantity, for `predict`; ridges by generalised
        cross-validation.

        Args:
            statistics: of codes and quantities of all rows.
        Returns: name -> A (k, m).
        """
        if not isinstance(statistics, SufficientStatistics):
            raise TypeError(f"statistics: expected SufficientStatistics, got {type(statistics).__name__}")
        check_names("statistics", statistics.names, self.names, "sizes")
        W = {q: basis.to(statistics.mean) for q, basis in self.bases.items()}
        A = decoders.fit_decoders(W, statistics)
        decoder = statistics.mean.new_zeros(sum(self.sizes.values()), sum(a.shape[1] for a in A.values()))
        offsets, column = [], 0
        for q, part in zip(self.names, self._parts, strict=False):
            a = A[q].to(decoder)
            decoder[part, column : column + a.shape[1]] = a
            column += a.shape[1]
            moments = statistics.moments(q)
            offsets.append(moments.y_mean - moments.z_mean @ W[q].mT @ a)
        self.decoder, self.offset = decoder.to(statistics.dtype), torch.cat(offsets).to(statistics.dtype)
        if self.widths is None:
            self.widths = torch.tensor([a.shape[1] for a in A.values()])
        return A

    def predict(self, z: Float[Tensor, "b d"]) -> dict[str, Tensor]:
        """name -> the quantity of each code, (B, m), in its units.

        Raises:
            RuntimeError: before `fit_decoders`.
        """
        self._check_decoders()
        turned = self._turned(z)
        found = turned[:, : len(self.decoder)] @ self.decoder.to(turned) + self.offset.to(turned)
        return dict(zip(self.names, found.split(self.widths.tolist(), dim=1), strict=True))

    def steer(self, z: Float[Tensor, "b d"], Y: Mapping[str, Tensor]) -> Tensor:
        """Codes whose decoders give other values: the least change of the blocks of these quantities alone.

            z' = z + (y - ŷ(z)) A⁺ W

        Args:
            z: codes.
            Y: name -> (B, m) wanted, or (1, m) for all; for some of the quantities.
                Where A has more columns than rows, the nearest values that the block can give are reached.
        """
        self._check_decoders()
        codes = self._checked_codes(z)
        check_names("Y", {*check_mapping("Y", Y), *self.names}, self.names, "the partition")
        now = self.predict(codes)
        wanted = {}
        for q, value in Y.items():
            y = wanted[q] = check_tensor(f"Y[{q!r}]", value).to(codes)
            if y.ndim != 2 or y.shape[1] != now[q].shape[1] or len(y) not in (1, len(codes)):
                expected = (len(codes), now[q].shape[1])
                raise ValueError(f"Y[{q!r}]: expected {expected}, got {tuple(y.shape)}")
            check_rows_finite(f"Y[{q!r}]", y)
        spans = consecutive(self.widths.tolist())
        A = {q: self.decoder[p, s] for q, p, s in zip(self.names, self._parts, spans, strict=False)}
        return steered(codes, now, wanted, self.bases, A)

    def _check_decoders(self) -> None:
        if self.decoder is None:
            raise RuntimeError("partition: expected decoders, got none; call fit_decoders first")

    # --- saving -------------------------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # what has not been fitted here takes the shapes of what was fitted there
        for name in (*STATE, "basis"):
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and (own is None or own.shape != stored.shape):
                setattr(self, name, torch.empty_like(stored))
        self._layout.clear()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"latent_dim={self.latent_dim}, sizes={self.sizes}, ridge={self.ridge}"


def checked_weights(weights: Mapping[str, Any] | None, n_free: int) -> dict[str, Any]:
    """Weights by name, those that are not given at their defaults."""
    given: Any = {} if weights is None else weights
    if not isinstance(given, Mapping):
        raise TypeError(f"weights: expected a dict of name -> weight, got {type(given).__name__}")
    check_names("weights", {*given, *WEIGHTS}, WEIGHTS, "the terms of a partition")
    for name, weight in given.items():
        if not callable(weight):
            check_positive(f"weights[{name!r}]", weight, zero=True)
    if n_free == 0 and given.get("isotropy"):
        raise ValueError("weights: expected free dimensions for 'isotropy', got no free dimensions")
    return WEIGHTS | dict(given)


def _checked_basis(basis: object, dim: int) -> Tensor:
    matrix = check_tensor("basis", basis)
    if tuple(matrix.shape) != (dim, dim) or not matrix.is_floating_point():
        raise ValueError(
            f"basis: expected ({dim}, {dim}) floating point, got {tuple(matrix.shape)} {matrix.dtype}"
        )
    fixed = matrix.detach().clone()
    check_orthonormal("basis", fixed @ fixed.mT)
    return fixed
