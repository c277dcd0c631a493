"""Rows of the table of bad input: subspaces of named quantities."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pullback import subspaces as ps

NAN = float("nan")
Z = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = {"q": Z[:, :2], "r": Z[:, 2:4]}
W = {"q": torch.eye(6)[:2], "r": torch.eye(6)[2:4]}
A = {"q": torch.eye(2), "r": torch.eye(2)}
ALL = ps.SufficientStatistics.from_tensors(Z, Y)
Case = tuple[str, Callable[..., Any], type[Exception], str]


def spoiled(value: float = NAN) -> Tensor:
    codes = Z.clone()
    codes[[1, 5], 0] = value
    return codes


def statistics(Z: Any = Z, Y: Any = Y, **options: Any) -> Any:
    return ps.SufficientStatistics.from_tensors(Z, Y, **options)


def align(Z: Any = Z, W: Any = W, A: Any = A, Y: Any = Y, **options: Any) -> Any:
    return ps.alignment_loss(Z, W, A, Y, **options)


def combine(Z: Any = Z, W: Any = W, A: Any = A, Y: Any = Y, W_prev: Any = None, **options: Any) -> Any:
    return ps.combined_loss(Z, W, A, Y, W_prev, **options)


def leak(Z: Any = Z, W: Any = W, Y: Any = Y, **options: Any) -> Any:
    return ps.conditional_leak(Z, W, Y, **({"statistics": ALL} | options))


def partition(Z: Any = Z, Y: Any = Y, fitted: bool = True, **options: Any) -> Any:
    loss = ps.PartitionLoss(**({"latent_dim": 6, "sizes": {"q": 2, "r": 3}} | options))
    if fitted:
        loss.fit_targets(globals()["Y"])
    return loss(Z, Y)


def unfitted() -> ps.PartitionLoss:
    return ps.PartitionLoss(6, {"q": 2, "r": 3})


def decoding(call: str, *arguments: Any) -> Any:
    loss = unfitted()
    loss.fit_decoders(ALL)
    return getattr(loss, call)(*arguments)


def evaluate(W: Any = W, **options: Any) -> Any:
    rows = {"Z_train": Z, "Y_train": Y, "Z_test": Z[:9] + 1, "Y_test": {q: y[:9] for q, y in Y.items()}}
    return ps.evaluate_subspaces(W, **(rows | options))


def mass(x: Tensor) -> Tensor:
    return x.sum(1)


FLAT = torch.full((40, 1), 0.1)
WIDE = {"q": torch.eye(6)[:4], "r": torch.linalg.qr(Z[:6].mT).Q.mT[:3]}
three, pool, dims = ps.minimal_latent_dim, ps.pool, ps.ensure_dim

SUBSPACE_CASES: list[Case] = [
    # what all share
    ("statistics: codes", lambda: statistics(Z[0]), ValueError, "Z: expected (B, D), got (6,)"),
    ("statistics: list", lambda: statistics([[1.0]]), TypeError, "Z: expected a torch.Tensor"),
    ("statistics: whole numbers", lambda: statistics(Z.long()), TypeError, "got int64; use Z.float()"),
    ("statistics: rows", lambda: statistics(Y={"q": Z[:9]}), ValueError, "Y['q']: 9 rows, Z has 40"),
    ("statistics: empty", lambda: statistics(Y={}), ValueError, "got an empty dict"),
    ("statistics: no rows", lambda: statistics(Z[:0]), ValueError, "B = 0"),
    ("statistics: no columns", lambda: statistics(Z[:, :0]), ValueError, "D = 0"),
    ("statistics: NaN", lambda: statistics(spoiled()), ValueError, "NaN or infinity in 2 rows"),
    ("statistics: NaN in Y", lambda: statistics(Y={"q": spoiled()}), ValueError, "missing='drop'"),
    ("statistics: missing", lambda: statistics(missing="mean"), ValueError, "'raise', 'drop'"),
    (
        "statistics: weights",
        lambda: statistics(weights=torch.ones(3)),
        ValueError,
        "weights: expected shape (40,)",
    ),
    (
        "statistics: negative",
        lambda: statistics(weights=-torch.ones(40)),
        ValueError,
        "weights: expected a finite",
    ),
    ("statistics: names", lambda: ALL.merge(statistics(Y={"q": Y["q"]})), ValueError, "missing 'r'"),
    (
        "statistics: widths",
        lambda: ALL.merge(statistics(Y=Y | {"r": Z})),
        ValueError,
        "expected 2 columns, got 6",
    ),
    ("statistics: block", lambda: ALL.block("z", "s"), ValueError, "expected one of 'z', 'q', 'r', got 's'"),
    ("fold_statistics: folds", lambda: ps.fold_statistics(Z, Y, folds=41), ValueError, "at most B = 40"),
    # solvers
    (
        "readout_subspace: k",
        lambda: ps.readout_subspace(Z, Y, 3),
        ValueError,
        "k=3 but rank of cov(z, y) is 2",
    ),
    ("readout_subspace: bool", lambda: ps.readout_subspace(Z, Y, True), ValueError, "k: expected a whole"),
    ("readout_subspace: float", lambda: ps.readout_subspace(Z, Y, 2.0), ValueError, "k: expected a whole"),
    ("readout_subspace: no Y", lambda: ps.readout_subspace(Z), ValueError, "Y: expected quantities"),
    ("readout_subspace: data", lambda: ps.readout_subspace("z"), TypeError, "stats_or_Z: expected"),
    ("readout_subspace: twice", lambda: ps.readout_subspace(ALL, Y), ValueError, "Y: expected None"),
    (
        "readout_subspace: loo",
        lambda: ps.readout_subspace(ALL, k=1, criterion="loo"),
        ValueError,
        "needs rows",
    ),
    (
        "readout_subspace: criterion",
        lambda: ps.readout_subspace(Z, Y, 1, criterion="aic"),
        ValueError,
        "'loo', 'gcv'",
    ),
    (
        "readout_subspace: columns",
        lambda: ps.readout_subspace(Z, Y, 1, standardize="row"),
        ValueError,
        "'column'",
    ),
    ("readout_subspace: names", lambda: ps.readout_subspace(Z, Y, {"q": 1, "s": 1}), ValueError, "extra 's'"),
    ("readout_subspace: no folds", lambda: ps.readout_subspace(ALL), ValueError, "fold_statistics"),
    (
        "readout_subspace: still codes",
        lambda: ps.readout_subspace(Z * 0, Y, 1),
        ValueError,
        "codes that vary",
    ),
    (
        "encoding_subspace: k",
        lambda: ps.encoding_subspace(Z, Y, 0),
        ValueError,
        "k: expected a whole number >= 1",
    ),
    ("encoding_subspace: rank", lambda: ps.encoding_subspace(Z, Y, 3), ValueError, "rank of cov(z, y) is 2"),
    ("encoding_subspace: constant", lambda: ps.encoding_subspace(Z, FLAT), ValueError, "is constant: k = 0"),
    (
        "principal_directions: constant",
        lambda: ps.principal_directions(Z, {"f": FLAT}),
        ValueError,
        "'f' is const",
    ),
    (
        "solve_subspaces: kind",
        lambda: ps.solve_subspaces(Z, Y, kind="both"),
        ValueError,
        "'readout', 'encoding'",
    ),
    (
        "solve_subspaces: orthogonal",
        lambda: ps.solve_subspaces(Z, Y, orthogonal="yes"),
        ValueError,
        "'polar'",
    ),
    (
        "solve_subspaces: dict",
        lambda: ps.solve_subspaces(Z, Y, k={"q": 3, "r": 1}),
        ValueError,
        "k=3 but rank",
    ),
    ("subspaces: k", lambda: ps.subspaces(Z, Y, -1), ValueError, "k: expected a whole number >= 1, got -1"),
    ("fit_decoders: ridge", lambda: ps.fit_decoders(W, Z, Y, ridge=-1.0), ValueError, "ridge: expected"),
    ("fit_decoders: option", lambda: ps.fit_decoders(W, Z, Y, ridge="cv"), ValueError, "'loo', 'gcv'"),
    (
        "fit_decoders: names",
        lambda: ps.fit_decoders({"q": W["q"]}, Z, Y),
        ValueError,
        "W: expected the names",
    ),
    ("orthogonalize: method", lambda: ps.orthogonalize(W, method="qr"), ValueError, "'polar', 'ordered'"),
    ("orthogonalize: too many", lambda: ps.orthogonalize(WIDE), ValueError, "sum of sizes 7 > latent_dim 6"),
    (
        "orthogonalize: shared",
        lambda: ps.orthogonalize(W | {"r": W["q"]}),
        ValueError,
        "q, r share a direction",
    ),
    ("erase: rtol", lambda: ps.erase(Z, Y, rtol=0.0), ValueError, "rtol: expected"),
    ("erase: rank", lambda: ps.erase(Z, Y, target_rank=0), ValueError, "target_rank: expected"),
    ("erase: constant", lambda: ps.erase(Z, FLAT), ValueError, "is constant"),
    # ranks and sizes
    (
        "k_per_q: share",
        lambda: ps.k_per_q(Y, 0.0),
        ValueError,
        "threshold: expected a share of the variance in (0, 1]",
    ),
    ("k_per_q: above 1", lambda: ps.k_per_q(Y, 1.5), ValueError, "in (0, 1], got 1.5"),
    ("k_per_q: unknown", lambda: ps.k_per_q(Y, {"s": 0.9}), ValueError, "extra 's'"),
    ("k_per_q: method", lambda: ps.k_per_q(Y, method="elbow"), ValueError, "'gavish_donoho'"),
    ("k_per_q: both", lambda: ps.k_per_q(Y, 0.9, method="cv", Z=Z), ValueError, "threshold: expected None"),
    ("k_per_q: codes", lambda: ps.k_per_q(Y, method="cv"), ValueError, "Z: expected codes"),
    (
        "k_per_q: folds",
        lambda: ps.k_per_q(Y, Z=Z, folds=1),
        ValueError,
        "folds: expected a whole number >= 2",
    ),
    ("effective_rank: constant", lambda: ps.effective_rank(FLAT), ValueError, "got constant ones"),
    ("participation_ratio: NaN", lambda: ps.participation_ratio(spoiled()), ValueError, "NaN"),
    ("minimal_latent_dim: k", lambda: three(0, Q=2), ValueError, "k: expected a whole number >= 1, got 0"),
    ("minimal_latent_dim: empty", lambda: three({}), ValueError, "empty dict"),
    ("minimal_latent_dim: Q", lambda: three(3), ValueError, "Q: expected the number of quantities"),
    ("minimal_latent_dim: share", lambda: three(3, Q=1, free_frac=1.0), ValueError, "in [0, 1), got 1.0"),
    ("minimal_latent_dim: heads", lambda: three(3, Q=1, num_heads=0), ValueError, "num_heads: expected"),
    ("optimal_bins: share", lambda: ps.optimal_bins(Y, 8, -1), ValueError, "variance_threshold: expected"),
    ("optimal_bins: bins", lambda: ps.optimal_bins(Y, 0), ValueError, "max_bins: expected"),
    ("optimal_bins: unknown", lambda: ps.optimal_bins(Y, 8, {"s": 0.5}), ValueError, "extra 's'"),
    (
        "optimal_bins: strict",
        lambda: ps.optimal_bins({"z": Z}, 2, 1.0, strict=True),
        ValueError,
        "kept by n: 1:",
    ),
    ("solve_dims: method", lambda: ps.solve_dims(Y, 4, 0.9, 0.9, method="parallel"), ValueError, "threshold"),
    # losses
    ("loo_r2: rows", lambda: ps.loo_r2(Z[:7], Z[:7, 0]), ValueError, "needs at least k + 2 = 8 rows, got 7"),
    ("loo_r2: precision", lambda: ps.loo_r2(Z, Z[:, 0].double()), TypeError, "float64"),
    ("loo_r2: ridge", lambda: ps.loo_r2(Z, Z, ridge=0.0), ValueError, "ridge: expected"),
    (
        "alignment_loss: precision",
        lambda: align(Y={"q": Z[:, :2].double(), "r": Z[:, :2]}),
        TypeError,
        "Y['q']",
    ),
    (
        "alignment_loss: names",
        lambda: align(A={"q": A["q"]}),
        ValueError,
        "A: expected the names of W, got missing 'r'",
    ),
    ("alignment_loss: transposed", lambda: align(W={q: w.mT for q, w in W.items()}), ValueError, "transpose"),
    (
        "alignment_loss: scaled",
        lambda: align(W={q: 2 * w for q, w in W.items()}),
        ValueError,
        "orthonormal rows (k, D)",
    ),
    (
        "alignment_loss: decoder",
        lambda: align(A=A | {"q": torch.ones(2, 3)}),
        ValueError,
        "A['q']: expected shape",
    ),
    ("alignment_loss: normalize", lambda: align(normalize="sd"), ValueError, "'variance', 'none'"),
    ("alignment_loss: center", lambda: align(center=Z), TypeError, "center: expected SufficientStatistics"),
    ("alignment_loss: NaN", lambda: align(Z=spoiled()), ValueError, "in 2 rows"),
    (
        "disentanglement_loss: rows",
        lambda: ps.disentanglement_loss(Z[:3], W),
        ValueError,
        "k + 2 = 4 rows, got 3",
    ),
    (
        "disentanglement_loss: statistics",
        lambda: ps.disentanglement_loss(Z, W, statistics=ALL),
        ValueError,
        "None",
    ),
    ("conditional_leak: statistics", lambda: leak(statistics=Y), TypeError, "statistics: expected"),
    ("conditional_leak: rows", lambda: leak(Z[:1], W, {q: y[:1] for q, y in Y.items()}), ValueError, "got 1"),
    (
        "conditional_leaks: names",
        lambda: ps.conditional_leaks(Z, W, {"q": Z}, statistics=ALL),
        ValueError,
        "missing",
    ),
    (
        "free_leak: rows",
        lambda: ps.free_leak(Z[:3], W, {q: y[:3] for q, y in Y.items()}),
        ValueError,
        "free_leak needs",
    ),
    ("isotropy_loss: rows", lambda: ps.isotropy_loss(Z[:2], W), ValueError, "at least 3 rows, got 2"),
    (
        "isotropy_loss: n_dir",
        lambda: ps.isotropy_loss(Z, W, n_dir=0),
        ValueError,
        "n_dir: expected a whole number",
    ),
    (
        "isotropy_loss: full",
        lambda: ps.isotropy_loss(Z, {"q": torch.eye(6)}),
        ValueError,
        "no free dimensions",
    ),
    ("isotropy_loss: still", lambda: ps.isotropy_loss(0 * Z, W), ValueError, "expected codes that vary"),
    ("stability_loss: shape", lambda: ps.stability_loss(W, W | {"q": W["q"][:1]}), ValueError, "W_prev['q']"),
    ("stability_loss: names", lambda: ps.stability_loss(W, {"q": W["q"]}), ValueError, "missing 'r'"),
    ("combined_loss: weights", lambda: combine(weights={"align": 1.0}), ValueError, "got 'align'"),
    (
        "combined_loss: negative",
        lambda: combine(weights={"isotropy": -1.0}),
        ValueError,
        "weights['isotropy']",
    ),
    (
        "combined_loss: stability",
        lambda: combine(W_prev=W, weights={"stability": 1}),
        ValueError,
        "constant term",
    ),
    ("combined_loss: previous", lambda: combine(weights={"stability": 1.0}), ValueError, "W_prev: expected"),
    ("subspace_change: rows", lambda: ps.subspace_change(Z[:2], Z[:2]), ValueError, "orthonormal rows"),
    ("subspace_change: one", lambda: ps.subspace_change(W, W["q"]), TypeError, "two dicts"),
    (
        "subspace_change: width",
        lambda: ps.subspace_change(W["q"], torch.eye(5)[:2]),
        ValueError,
        "W_new: expected",
    ),
    # quantities
    ("pool: mode", lambda: pool(Z, 2, "mean"), ValueError, "'avg', 'max'"),
    ("pool: bins", lambda: pool(Z, 0), ValueError, "n_bins: expected"),
    ("pool: axes", lambda: pool(Z, (2, 2)), ValueError, "expected 1 numbers"),
    ("pool: spatial", lambda: pool(Z, 2, spatial_dims=2), ValueError, "spatial_dims: expected at most 1"),
    ("compute_Q: none", lambda: ps.compute_Q(), TypeError, "expected at least one function"),
    ("compute_Q: names", lambda: ps.compute_Q(lambda x: x, lambda x: x), ValueError, "two named '<lambda>'"),
    (
        "compute_Q: argument",
        lambda: ps.compute_Q(mass)(y=Z),
        TypeError,
        "mass: expected the argument 'x', got 'y'",
    ),
    (
        "compute_Q: rows",
        lambda: ps.compute_Q(a=lambda x: x, b=lambda x: x[:3])(x=Z),
        ValueError,
        "b: 3 rows, a has",
    ),
    ("compute_Q: value", lambda: ps.compute_Q(a=lambda x: 3.0)(x=Z), TypeError, "a: expected a tensor"),
    (
        "input_to_quantity: names",
        lambda: ps.input_to_quantity({"a": 2}, "avg", mass),
        ValueError,
        "missing 'mass'",
    ),
    ("input_to_quantity: mode", lambda: ps.input_to_quantity(2, "sum", mass), ValueError, "'avg', 'max'"),
    (
        "ensure_dim: axes",
        lambda: dims(mass, dims=1)(Z),
        ValueError,
        "x: expected at most 1 axes, got (40, 6)",
    ),
    (
        "ensure_dim: names",
        lambda: dims(mass, dims=3, targets=["y"]),
        ValueError,
        "expected some of 'x', got 'y'",
    ),
    ("to_device: device", lambda: ps.to_device(mass, device="abacus"), ValueError, "device: expected"),
    ("to_device: names", lambda: ps.to_device(mass, targets=["y"]), ValueError, "got 'y'"),
    # partitions
    (
        "PartitionLoss: sizes",
        lambda: partition(sizes={"q": 30, "r": 10}, latent_dim=32),
        ValueError,
        "sum of sizes 40 > latent_dim 32",
    ),
    ("PartitionLoss: size", lambda: partition(sizes={"q": 0}), ValueError, "sizes['q']: expected a whole"),
    ("PartitionLoss: none", lambda: partition(sizes={}), ValueError, "got an empty dict"),
    ("PartitionLoss: dim", lambda: partition(latent_dim=True), ValueError, "latent_dim: expected a whole"),
    ("PartitionLoss: ridge", lambda: partition(ridge=0.0), ValueError, "ridge: expected a finite number > 0"),
    ("PartitionLoss: weights", lambda: partition(weights={"fits": 1}), ValueError, "extra 'fits'"),
    ("PartitionLoss: weight", lambda: partition(weights={"fit": -1}), ValueError, "weights['fit']"),
    (
        "PartitionLoss: isotropy",
        lambda: partition(latent_dim=5, weights={"isotropy": 1.0}),
        ValueError,
        "no free dimensions",
    ),
    ("PartitionLoss: basis", lambda: partition(basis=torch.eye(5)), ValueError, "basis: expected (6, 6)"),
    (
        "PartitionLoss: turned",
        lambda: partition(basis=2 * torch.eye(6)),
        ValueError,
        "basis: expected orthonormal rows",
    ),
    ("PartitionLoss: early", lambda: partition(fitted=False), RuntimeError, "call fit_targets first"),
    ("PartitionLoss: decoders", lambda: unfitted().predict(Z), RuntimeError, "call fit_decoders first"),
    (
        "PartitionLoss: few",
        lambda: partition(Z[:4], {q: y[:4] for q, y in Y.items()}),
        ValueError,
        "block 'r' of size 3 needs at least k + 2 = 5 rows, got 4",
    ),
    (
        "PartitionLoss: free",
        lambda: partition(Z[:4], {"q": Y["q"][:4]}, latent_dim=6, sizes={"q": 1}, fitted=False),
        RuntimeError,
        "fit_targets",
    ),
    ("PartitionLoss: codes", lambda: partition(Z[:, :5]), ValueError, "z: expected (B, 6), got (40, 5)"),
    ("PartitionLoss: NaN", lambda: partition(spoiled()), ValueError, "NaN or infinity in 2 rows"),
    ("PartitionLoss: dtype", lambda: partition(Z.double()), TypeError, "Y['q']: expected float64 like Z"),
    ("PartitionLoss: whole", lambda: partition(Z.long()), TypeError, "use z.float()"),
    ("PartitionLoss: names", lambda: partition(Y={"q": Y["q"], "s": Y["r"]}), ValueError, "missing 'r'"),
    ("PartitionLoss: rows", lambda: partition(Y=Y | {"q": Z[:9]}), ValueError, "Y['q']: 9 rows, Z has 40"),
    ("PartitionLoss: columns", lambda: partition(Y=Y | {"q": Z}), ValueError, "expected 2 columns as in"),
    (
        "PartitionLoss: constant",
        lambda: unfitted().fit_targets(Y | {"q": FLAT}),
        ValueError,
        "quantity 'q' is constant: k = 0",
    ),
    (
        "PartitionLoss: all missing",
        lambda: unfitted().fit_targets(Y | {"q": FLAT * NAN}),
        ValueError,
        "Y['q']: expected at least one row with finite values, got none",
    ),
    (
        "PartitionLoss: never together",
        lambda: unfitted().fit_targets({"q": torch.cat([Z[:9], Z * NAN]), "r": torch.cat([Z[:9] * NAN, Z])}),
        ValueError,
        "rows with both 'q' and 'r'",
    ),
    (
        "PartitionLoss: lengths",
        lambda: unfitted().fit_targets(Y | {"q": Z[:9]}),
        ValueError,
        "Y['r']: 40 rows, Y['q'] has 9",
    ),
    (
        "PartitionLoss: statistics",
        lambda: unfitted().fit_targets(statistics(missing="drop")),
        ValueError,
        "missing='raise'",
    ),
    ("PartitionLoss: decoders", lambda: unfitted().fit_decoders(Z), TypeError, "statistics: expected"),
    ("PartitionLoss: steer", lambda: decoding("steer", Z, {"s": Z}), ValueError, "extra 's'"),
    ("PartitionLoss: steer to", lambda: decoding("steer", Z, {"q": Z}), ValueError, "expected (40, 2)"),
    ("PartitionLoss: predict", lambda: decoding("predict", Z[:, :5]), ValueError, "z: expected (B, 6)"),
    # evaluation
    (
        "evaluate_subspaces: rows",
        lambda: evaluate(Z_test=Z.clone(), Y_test=Y),
        ValueError,
        "the test rows are the training rows",
    ),
    ("evaluate_subspaces: names", lambda: evaluate({"q": W["q"]}), ValueError, "Y_train: expected the names"),
    ("evaluate_subspaces: width", lambda: evaluate(Z_test=Z[:9, :5]), ValueError, "Z_test: expected (N, 6)"),
    ("evaluate_subspaces: W", lambda: evaluate({"q": W["q"].mT}), ValueError, "orthonormal rows"),
    (
        "evaluate_subspaces: columns",
        lambda: evaluate(Y_test={"q": Z[:9], "r": Z[:9]}),
        ValueError,
        "Y_test['q']: expected 2 columns",
    ),
    ("evaluate_subspaces: alphas", lambda: evaluate(alphas=[0.0]), ValueError, "alphas: expected a finite"),
    ("evaluate_subspaces: draws", lambda: evaluate(bootstraps=-1), ValueError, "bootstraps: expected"),
]
