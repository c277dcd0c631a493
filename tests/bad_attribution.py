"""Rows of the table of bad input: attribution."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

import pullback as pb
from pullback import attribution

NAN = float("nan")
X = torch.arange(28.0).reshape(4, 7)
NET = nn.Sequential(nn.Linear(7, 8), nn.ReLU(), nn.Linear(8, 2))
NORMED = nn.Sequential(nn.Linear(7, 8), nn.PReLU(), nn.LayerNorm(8), nn.Linear(8, 2))
CURVED = nn.Sequential(nn.Linear(7, 8), nn.GELU(), nn.Linear(8, 2))
DROPOUT = nn.Sequential(nn.Linear(7, 2), nn.Dropout())
BATCH = nn.Sequential(nn.Linear(7, 2), nn.BatchNorm1d(2))
J, Z = torch.zeros(4, 2, 7), torch.zeros(4, 2)
FITTED = StandardScaler().fit(X.numpy())
CLIPPED = MinMaxScaler(clip=True).fit(X.numpy())
Case = tuple[str, Callable[..., Any], type[Exception], str]


def of(net: Any = NET, x: Any = X, **options: Any) -> Any:
    return pb.contributions(net, x, **options)


def between(a: Any = X, b: Any = X, net: Any = NET, **options: Any) -> Any:
    return pb.contributions_between(net, a, b, **options)


def grouped(groups: Any = ("a", "a", "b", "b"), net: Any = NET, x: Any = X, **options: Any) -> Any:
    return pb.group_contributions(net, x, groups, **options)


def explained() -> Any:
    return pb.explain(NET, X)


def spoiled(value: float) -> torch.Tensor:
    x = X.clone()
    x[3, 5] = value
    return x


ATTRIBUTION_CASES: list[Case] = [
    ("contributions: net", lambda: of(torch.relu), TypeError, "net: expected an nn.Module"),
    ("contributions: list", lambda: of(x=[[1.0]]), TypeError, "x: expected a torch.Tensor"),
    ("contributions: NaN", lambda: of(x=spoiled(NAN)), ValueError, "got nan at row 3, column 5"),
    ("contributions: inf", lambda: of(x=spoiled(-float("inf"))), ValueError, "got -inf at row 3, column 5"),
    ("contributions: sparse", lambda: of(x=sparse.csr_matrix(X.numpy())), TypeError, "pass x.toarray()"),
    ("contributions: sparse tensor", lambda: of(x=X.to_sparse()), TypeError, "pass x.to_dense()"),
    ("contributions: rank", lambda: of(x=X[0]), ValueError, "x: expected (n, d)"),
    ("contributions: precision", lambda: of(x=X.double()), TypeError, "float64"),
    ("contributions: dropout", lambda: of(DROPOUT), ValueError, "call net.eval()"),
    ("contributions: batch norm", lambda: of(BATCH), ValueError, "call net.eval()"),
    ("contributions: map", lambda: of(map="exact"), ValueError, "'derivative', 'local_linear'"),
    ("contributions: method", lambda: of(method="shap"), ValueError, "'auto', 'local', 'path'"),
    ("contributions: reduction", lambda: of(reduction="l1"), ValueError, "'l2', 'mean_l2', 'distance'"),
    ("contributions: distance", lambda: of(reduction="distance"), ValueError, "single points (4, 7)"),
    ("contributions: norm", lambda: of(NORMED), ValueError, "net contains LayerNorm at layer 2"),
    (
        "contributions: curved",
        lambda: of(CURVED, method="local"),
        ValueError,
        "GELU at layer 1 is not piecewise",
    ),
    ("contributions: map of curved", lambda: of(CURVED, map="flat"), ValueError, "map: expected one of"),
    ("contributions: kink_margin", lambda: of(kink_margin="near"), ValueError, "'relative', 'exact'"),
    ("contributions: tol", lambda: of(tol=0.0), ValueError, "tol: expected a finite number > 0"),
    ("contributions: max_pieces", lambda: of(max_pieces=0), ValueError, "max_pieces: expected"),
    ("contributions: chunk_size", lambda: of(chunk_size=0), ValueError, "chunk_size: expected"),
    (
        "contributions: baseline",
        lambda: of(baseline=torch.zeros(3)),
        ValueError,
        "baseline: expected shape (7,)",
    ),
    ("contributions: baseline NaN", lambda: of(baseline=torch.full((7,), NAN)), ValueError, "baseline: "),
    ("contributions: out", lambda: of(out=torch.zeros(4, 7)), ValueError, "out: expected (4, 2, 7)"),
    ("contributions: out precision", lambda: of(out=torch.zeros(4, 2, 7).double()), ValueError, "float64"),
    (
        "contributions: out kind",
        lambda: of(out=np.zeros((4, 2, 7))),
        TypeError,
        "out: expected a torch.Tensor",
    ),
    (
        "contributions: group",
        lambda: of(feature_groups={"a": [9]}),
        ValueError,
        "expected columns of 7, got 9",
    ),
    (
        "contributions: groups",
        lambda: of(feature_groups={"a": [1], "b": [1]}),
        ValueError,
        "another group too",
    ),
    ("contributions: labels", lambda: of(feature_groups=["a"] * 3), ValueError, "7 labels, got 3"),
    ("contributions: front", lambda: of(preprocessing=3), TypeError, "preprocessing: expected a fitted"),
    ("contributions: unfitted", lambda: of(preprocessing=PCA(2)), ValueError, "expected a fitted PCA"),
    (
        "contributions: unfitted scaler",
        lambda: of(preprocessing=StandardScaler()),
        ValueError,
        "call fit first",
    ),
    ("contributions: clip", lambda: of(preprocessing=CLIPPED), ValueError, "clip=False"),
    (
        "contributions: pipeline",
        lambda: of(preprocessing=Pipeline([("a", None)])),
        ValueError,
        "empty Pipeline",
    ),
    (
        "contributions: width",
        lambda: of(x=X[:, :5], preprocessing=FITTED),
        ValueError,
        "5 features as x, got 7",
    ),
    ("contributions: pair", lambda: of(preprocessing=(X[0], X.T)), ValueError, "mean (p,) and matrix (k, p)"),
    (
        "contributions_between: shapes",
        lambda: between(b=X[:3]),
        ValueError,
        "b: expected (4, 7) like a, got (3, 7)",
    ),
    ("contributions_between: widths", lambda: between(b=X[0, :3]), ValueError, "b: expected (4, 7)"),
    ("contributions_between: NaN", lambda: between(b=spoiled(NAN)), ValueError, "b: expected finite"),
    ("contributions_between: sparse", lambda: between(a=sparse.eye(3)), TypeError, "pass a.toarray()"),
    ("contributions_between: method", lambda: between(method="line"), ValueError, "'auto', 'local', 'path'"),
    (
        "contributions_between: local",
        lambda: between(net=CURVED, method="local"),
        ValueError,
        "GELU at layer 1",
    ),
    ("group_contributions: labels", lambda: grouped(["a"]), ValueError, "groups: expected (4,) labels"),
    ("group_contributions: none", lambda: grouped([None] * 4), ValueError, "at least one label"),
    ("group_contributions: NaN", lambda: grouped(x=spoiled(NAN)), ValueError, "x: expected finite"),
    ("group_contributions: method", lambda: grouped(method="mean"), ValueError, "'auto', 'local', 'path'"),
    ("group_contributions: group", lambda: grouped().separation("a", "c"), ValueError, "'a', 'b', got 'c'"),
    ("explain: model", lambda: pb.explain(3, X), TypeError, "expected a fitted estimator or an nn.Module"),
    ("explain: not fitted", lambda: pb.explain(pb.Autoencoder(2), X.numpy()), ValueError, "not fitted"),
    ("explain: direction", lambda: pb.explain(NET, X, direction="up"), ValueError, "'encode', 'decode'"),
    ("explain: module", lambda: pb.explain(NET, X, direction="decode"), ValueError, "pass the decoder"),
    ("explain: NaN", lambda: pb.explain(NET, spoiled(NAN)), ValueError, "got nan at row 3, column 5"),
    ("explain: text", lambda: pb.explain(NET, [["a"] * 7]), ValueError, "X: expected numbers"),
    ("explain: rows", lambda: explained().between(0, 9), ValueError, "j: expected row numbers from 0 to 3"),
    ("explain: lengths", lambda: explained().between([0, 1], [0, 1, 2]), ValueError, "expected 2 rows as i"),
    ("explain: reduction", lambda: explained().between(0, 1, reduction="l3"), ValueError, "reduction: "),
    ("explain: labels", lambda: explained().separation(["a"]), ValueError, "labels: expected (4,)"),
    (
        "explain: which",
        lambda: explained().separation([1, 2, 3, 3]),
        ValueError,
        "a: expected one of 1, 2, 3",
    ),
    ("explain: same", lambda: explained().separation([1, 2, 3, 3], 1, 1), ValueError, "b: expected another"),
    ("explain: alone", lambda: explained().separation([1, 1, 1, 1], 1), ValueError, "rows outside of 1"),
    ("explain: top", lambda: explained().top(0), ValueError, "k: expected"),
    ("Attribution: no rows", lambda: of().between(0, 1), ValueError, "call pb.explain"),
    ("attribution.compute_jacobian: model", lambda: attribution.compute_jacobian(3, X), TypeError, "model: "),
    (
        "compute_jacobian: map",
        lambda: attribution.compute_jacobian(NET, X, map="x"),
        ValueError,
        "map: expected",
    ),
    (
        "compute_jacobian: rank",
        lambda: attribution.compute_jacobian(NET, X[0]),
        ValueError,
        "x: expected (n, *dims)",
    ),
    ("compute_jacobian: batch", lambda: attribution.compute_jacobian(NET, X, 0), ValueError, "batch_size"),
    (
        "compute_jacobian: curved",
        lambda: attribution.compute_jacobian(CURVED, X, map="local_linear"),
        ValueError,
        "GELU at layer 1",
    ),
    ("project_jacobian: widths", lambda: attribution.project_jacobian(J, X), ValueError, "expected (7, p)"),
    ("project_jacobian: kind", lambda: attribution.project_jacobian([1], X), TypeError, "jacobian: expected"),
    ("reduce_contributions: method", lambda: attribution.reduce_contributions(J, "l1"), ValueError, "'l2'"),
    ("reduce_contributions: rank", lambda: attribution.reduce_contributions(X), ValueError, "(n, d, p)"),
    (
        "verify_jacobian: shape",
        lambda: attribution.verify_jacobian(Z, J[:, :1], X),
        ValueError,
        "J: expected (4, 2, 7)",
    ),
    (
        "verify_jacobian: offset",
        lambda: attribution.verify_jacobian(Z, J, X, X),
        ValueError,
        "offset: expected",
    ),
]
