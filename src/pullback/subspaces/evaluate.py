"""Where quantities can be read on held-out rows: from all codes, their own subspace, others, and the rest."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullback.draws import source_of
from pullback.linalg import widened
from pullback.subspaces.arguments import check_bases, check_codes, check_names, check_quantities
from pullback.subspaces.bases import complement
from pullback.subspaces.partition import PartitionLoss
from pullback.subspaces.probes import Probe, probe
from pullback.subspaces.space import Space
from pullback.subspaces.table import Estimate, SubspaceTable
from pullback.validation import check_positive, check_whole

ALPHAS = tuple(10.0**power for power in range(-3, 5))
LEVEL = 0.95
AUTOMATIC = 1e-4
"""Share of the cross-covariance left outside a subspace below which it was taken out, not learned away."""


def evaluate_subspaces(
    W_or_partition: Mapping[str, Tensor] | Space | PartitionLoss,
    *,
    Z_train: Float[Tensor, "n d"],
    Y_train: Mapping[str, Tensor],
    Z_test: Float[Tensor, "N d"],
    Y_test: Mapping[str, Tensor],
    alphas: Sequence[float] | None = None,
    bootstraps: int = 200,
    generator: torch.Generator | None = None,
) -> SubspaceTable:
    """Held-out R² of linear probes of every quantity from every part of the codes.

    A probe is a ridge regression of standardised columns, its strength by leaving one training row out,
    scored on test rows: the mean over columns, each at least -1. What quantity r itself tells of q is the
    floor of what its subspace may tell; only the excess is a leak. Intervals hold 95 % of resampled rows;
    an excess is the difference on the same rows. The probes are not fitted again, so that intervals leave out
    the chance of the training rows.

    Args:
        W_or_partition: name -> orthonormal rows (k, D); or a `Space`; or a `PartitionLoss`.
        Z_train, Z_test: codes.
        Y_train, Y_test: name -> (n, ...), NaN where a value is missing.
        alphas: strengths of the ridge; None is 10^-3 to 10^4.
        bootstraps: how many resamples of the test rows; 0 for none.
        generator: of the resamples; None draws the same ones every time.
    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value; test rows that are the training
            rows.
    Example:
        >>> import torch
        >>> z = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        >>> Y = {"mass": z[:, 0], "centre": z[:, 1:3]}
        >>> table = evaluate_subspaces(
        ...     {"mass": torch.eye(4)[:1], "centre": torch.eye(4)[1:3]},
        ...     Z_train=z[:300], Y_train={q: y[:300] for q, y in Y.items()},
        ...     Z_test=z[300:], Y_test={q: y[300:] for q, y in Y.items()},
        ... )
        >>> round(table.own["mass"].value, 2), table.free["centre"].value < 0.05
        (1.0, True)

    Gotchas: where a subspace was solved by cross-covariance on the training rows, nothing is left in its
    complement by construction, whatever the codes; ``automatic`` says so.
    """
    train, test = check_codes(Z_train, "Z_train"), check_codes(Z_test, "Z_test")
    W = _bases(W_or_partition, train)
    if test.shape[1] != train.shape[1]:
        raise ValueError(f"Z_test: expected (N, {train.shape[1]}) like Z_train, got {tuple(test.shape)}")
    if test.shape == train.shape and torch.equal(test, train):
        raise ValueError("Z_test: expected rows that were held out, but the test rows are the training rows")
    y_train, y_test = _quantities(Y_train, train, W, "Y_train"), _quantities(Y_test, test, W, "Y_test")
    for q in W:
        wanted, got = y_train[q].shape[1], y_test[q].shape[1]
        if wanted != got:
            raise ValueError(f"Y_test[{q!r}]: expected {wanted} columns like Y_train, got {got}")
    check_whole("bootstraps", bootstraps, minimum=0)
    grid = torch.tensor(ALPHAS if alphas is None else list(alphas), dtype=torch.float64, device=train.device)
    check_positive("alphas", grid)
    draws = resamples(len(test), bootstraps, generator, train.device)
    return _assembled(W, (widened(train), widened(test)), (y_train, y_test), grid, draws)


def resamples(
    n: int, draws: int, generator: torch.Generator | None, device: torch.device
) -> Float[Tensor, "s n"] | None:
    """How often each row is drawn in each resample of n rows."""
    if draws == 0:
        return None
    source = source_of(generator, device)
    picked = torch.randint(n, (draws, n), generator=source, device=source.device).to(device)
    counts = torch.zeros(draws, n, dtype=torch.float64, device=device)
    return counts.scatter_add_(1, picked, torch.ones_like(counts))


def _assembled(
    W: dict[str, Tensor],
    Z: tuple[Tensor, Tensor],
    Y: tuple[dict[str, Tensor], dict[str, Tensor]],
    alphas: Tensor,
    draws: Tensor | None,
) -> SubspaceTable:
    stack = torch.cat(list(W.values()))
    N = complement(stack)
    notes: list[str] = []

    def score(q: str, what: str, inputs: tuple[Tensor, Tensor]) -> tuple[Estimate, Probe]:
        found = probe(inputs[0], Y[0][q], inputs[1], Y[1][q], alphas)
        if found.note:
            notes.append(f"{q} from {what}: {found.note}")
        return estimate(found.r2(), None if draws is None else found.r2(draws)), found

    def of(matrix: Tensor) -> tuple[Tensor, Tensor]:
        return Z[0] @ matrix, Z[1] @ matrix

    columns: dict[str, Any] = {name: {} for name in ("all", "own", "free", "complement")}
    pairs: dict[str, Any] = {name: {} for name in ("other", "floor", "excess")}
    eye = torch.eye(stack.shape[1], dtype=stack.dtype, device=stack.device)
    for q, basis in W.items():
        for name, inputs in (
            ("all", Z),
            ("own", of(basis.mT)),
            ("free", of(N)),
            ("complement", of(eye - basis.mT @ basis) if len(basis) < len(eye) else of(eye[:, :0])),
        ):
            columns[name][q], _ = score(q, name, inputs)
    for q, r in permutations(W, 2):
        pairs["other"][q, r], told = score(q, f"the subspace of {r}", of(W[r].mT))
        given = (widened(Y[0][r]), widened(Y[1][r]))
        pairs["floor"][q, r], known = score(q, r, given)
        difference = None if draws is None else told.r2(draws) - known.r2(draws)
        pairs["excess"][q, r] = estimate(told.r2() - known.r2(), difference)
    overlap = {
        (a, b): float(torch.linalg.svdvals(W[a] @ W[b].mT)[0])
        for i, a in enumerate(W)
        for b in list(W)[i + 1 :]
    }
    return SubspaceTable(
        **columns,
        **pairs,
        automatic={q: _taken_out(basis, Z[0], Y[0][q]) for q, basis in W.items()},
        overlap=overlap,
        rank=int((torch.linalg.svdvals(stack) > 1e-6).sum()),
        sizes={q: len(basis) for q, basis in W.items()},
        latent_dim=stack.shape[1],
        n_train=len(Z[0]),
        n_test=len(Z[1]),
        notes=tuple(notes),
    )


def estimate(value: Float[Tensor, " one"], draws: Tensor | None) -> Estimate:
    """A value with the interval that holds 95 % of its resamples."""
    centre = float(value[0])
    if draws is None or not bool(torch.isfinite(draws).any()):
        return Estimate(centre, float("nan"), float("nan"))
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=draws.dtype, device=draws.device)
    low, high = torch.nanquantile(draws, ends).tolist()
    return Estimate(centre, low, high)


def _taken_out(basis: Tensor, Z: Tensor, Y: Tensor) -> bool:
    """Whether the codes outside a subspace have no covariance with its quantity at all."""
    kept = torch.isfinite(Y).all(1)
    z, y = Z[kept] - Z[kept].mean(0), widened(Y[kept]) - widened(Y[kept]).mean(0)
    cross = z.mT @ y
    outside = cross - basis.mT @ (basis @ cross)
    return len(basis) < len(cross) and bool(outside.norm() <= AUTOMATIC * cross.norm())


def _bases(given: Any, Z: Tensor) -> dict[str, Tensor]:
    if isinstance(given, PartitionLoss):
        bases = given.bases
    else:
        bases = given.W if isinstance(given, Space) else given
    found = check_bases(bases, Z.shape[1])
    return {q: widened(basis.detach()).to(Z.device) for q, basis in found.items()}


def _quantities(given: object, Z: Tensor, W: Mapping[str, Tensor], label: str) -> dict[str, Tensor]:
    found = check_quantities(given, len(Z), finite=False)
    check_names(label, found, W, "the subspaces")
    return {q: found[q].detach() for q in W}
