"""Rows of the table of bad input: figures and pages of embeddings and contributions, the live view."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import pullback as pb
from attributions import explained

NAN = float("nan")
Z = np.zeros((4, 2))
FOUND = explained(4, p=3)
SIZES = explained(4, p=3, reduction="l2")
MEANS = explained(4, p=3, reduction="mean_l2")
NONE = {name: getattr(FOUND, name)[:0] for name in ("values", "offset", "value", "residual", "kink_margin")}
EMPTY = replace(FOUND, **NONE)
SPOILED = replace(FOUND, values=torch.full_like(FOUND.values, NAN))
ONE = explained(4, p=3, d=1)
embedding, bars = pb.plots.plot_embedding, pb.plots.plot_contributions


def page(points: Any = Z, attribution: Any = FOUND, **options: Any) -> Any:
    return pb.plots.interactive_embedding(points, attribution, **options)


def live(path: Any = "live.html", *args: Any, **options: Any) -> Any:
    return pb.plots.LiveView(path, *args, **options)


scatter, curves, trace = pb.plots.readout_scatter, pb.plots.angle_curves, pb.plots.SubspaceTrace

OTHER = "model: expected a fitted ManifoldDictionary"
NEW = pb.ManifoldDictionary(2)

PLOT_CASES: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("plots.plot_atom: model", lambda: pb.plots.plot_atom(Z, 0), TypeError, OTHER),
    ("plots.atom_gallery: model", lambda: pb.plots.atom_gallery(Z), TypeError, OTHER),
    ("plots.coordinate_dial: model", lambda: pb.plots.coordinate_dial(Z, 0, Z, [1]), TypeError, OTHER),
    ("plots.speed_curve: model", lambda: pb.plots.speed_curve(Z, 0), TypeError, OTHER),
    ("plots.coverage: model", lambda: pb.plots.coverage(Z, 0), TypeError, OTHER),
    ("plots.atom_usage: model", lambda: pb.plots.atom_usage(Z), TypeError, OTHER),
    ("plots.coactivation: model", lambda: pb.plots.coactivation(Z), TypeError, OTHER),
    ("plots.evidence_bars: model", lambda: pb.plots.evidence_bars(Z), TypeError, OTHER),
    ("plots.restart_spread: model", lambda: pb.plots.restart_spread(Z), TypeError, OTHER),
    ("plots.plot_atom: unfitted", lambda: pb.plots.plot_atom(NEW, 0), ValueError, "call fit first"),
    ("plots.error_curve: none", lambda: pb.plots.error_curve({}), ValueError, "curves: expected a name"),
    ("plots.error_curve: zero",
     lambda: pb.plots.error_curve({"a": [(0, 1)]}), ValueError, "curves['a']: expected positive"),
    ("plots.readout_scatter: shape", lambda: scatter([1.0, 2.0], [1.0]), ValueError, "like actual, got (2,)"),
    ("plots.readout_scatter: NaN", lambda: scatter([NAN, 1.0], [1.0, 1.0]), ValueError, "finite values"),
    ("plots.leak_matrix: table", lambda: pb.plots.leak_matrix({}), TypeError, "table: expected a Subspace"),
    ("plots.angle_curves: none", lambda: curves({"q": []}), ValueError, "angles: expected angles of one or"),
    ("plots.angle_curves: rank", lambda: curves({"q": [1.0]}), ValueError, "angles['q']: expected numbers"),
    ("plots.angle_curves: first", lambda: curves({"q": [[1.0]]}, first=-1), ValueError, "first: expected a"),
    ("plots.SubspaceTrace: none", lambda: trace(Z, {}), ValueError, "quantities: expected a dict"),
    ("plots.SubspaceTrace: sizes", lambda: trace(Z, {"q": Z}, sizes=0), ValueError, "sizes: expected"),
    ("plots.SubspaceTrace: early", lambda: trace(Z, {"q": Z}).angles(), ValueError, "one or more epochs"),
    ("plots.plot_embedding: rank", lambda: embedding(Z[0]), ValueError, "Z: expected numbers of shape"),
    ("plots.plot_embedding: one column", lambda: embedding(Z[:, :1]), ValueError, "Z: expected at least 2"),
    ("plots.plot_embedding: NaN", lambda: embedding(Z * NAN), ValueError, "Z: expected finite numbers"),
    ("plots.plot_embedding: empty", lambda: embedding(Z[:0]), ValueError, "Z: expected at least one number"),
    ("plots.plot_embedding: text", lambda: embedding([["a", "b"]]), ValueError, "Z: expected numbers"),
    ("plots.plot_embedding: groups", lambda: embedding(Z, [1, 2]), ValueError, "groups: expected one label"),
    ("plots.plot_embedding: components",
     lambda: embedding(Z, components=(0, 2)), ValueError, "components: expected two different numbers"),
    ("plots.plot_embedding: same component",
     lambda: embedding(Z, components=(1, 1)), ValueError, "components: expected two different numbers"),
    ("plots.plot_embedding: labels",
     lambda: embedding(Z, [0, 1, 1, 0], labels=["a"]), ValueError, "labels: expected a name for each of 2"),
    ("plots.plot_embedding: labels alone", lambda: embedding(Z, labels=["a"]), ValueError, "groups: none"),
    ("plots.plot_embedding: labels of numbers",
     lambda: embedding(Z, [0.1, 0.2, 0.3, 0.4], labels=["a"]), ValueError, "numbers on a scale"),
    ("plots.plot_contributions: kind", lambda: bars(Z), TypeError, "attribution: expected an Attribution"),
    ("plots.plot_contributions: empty", lambda: bars(EMPTY), ValueError, "at least one row"),
    ("plots.plot_contributions: NaN", lambda: bars(SPOILED), ValueError, "finite contributions"),
    ("plots.plot_contributions: top", lambda: bars(FOUND, top=0), ValueError, "top: expected"),
    ("plots.plot_contributions: groups", lambda: bars(FOUND, groups=[1]), ValueError, "groups: expected one"),
    ("plots.plot_contributions: one group",
     lambda: bars(FOUND, groups=["a"] * 4), ValueError, "at least two categories, got one group"),
    ("plots.plot_contributions: numbers",
     lambda: bars(FOUND, groups=[0.1, 0.2, 0.3, 0.4]), ValueError, "got numbers on a scale"),
    ("plots.plot_contributions: groups of one sum",
     lambda: bars(MEANS, groups=[0, 0, 1, 1]), ValueError, "got 'mean_l2'"),
    ("plots.interactive_embedding: kind", lambda: page(Z, Z), TypeError, "attribution: expected"),
    ("plots.interactive_embedding: reduced", lambda: page(Z, SIZES), ValueError, "reduction=None, got 'l2'"),
    ("plots.interactive_embedding: rows", lambda: page(Z[:3]), ValueError, "Z: expected 4 rows"),
    ("plots.interactive_embedding: columns", lambda: page(np.zeros((4, 3))), ValueError, "Z: expected 2 col"),
    ("plots.interactive_embedding: one dimension", lambda: page(Z[:, :1], ONE), ValueError, "at least 2"),
    ("plots.interactive_embedding: NaN", lambda: page(Z * NAN), ValueError, "Z: expected finite"),
    ("plots.interactive_embedding: groups", lambda: page(groups=[1]), ValueError, "groups: expected"),
    ("plots.interactive_embedding: names",
     lambda: page(feature_names=["a"]), ValueError, "feature_names: expected 3 names, got 1"),
    ("plots.interactive_embedding: values",
     lambda: page(feature_values=Z), ValueError, "feature_values: expected numbers (4, 3), got (4, 2)"),
    ("plots.interactive_embedding: images",
     lambda: page(hover_images=np.zeros((3, 5, 5))), ValueError, "hover_images: expected (4, h, w)"),
    ("plots.interactive_embedding: channels",
     lambda: page(hover_images=np.zeros((4, 5, 5, 2))), ValueError, "hover_images: expected (4, h, w)"),
    ("plots.interactive_embedding: data", lambda: page(hover_data=[1]), TypeError, "hover_data: expected a"),
    ("plots.interactive_embedding: column",
     lambda: page(hover_data={"a": [1]}), ValueError, "hover_data: expected columns of 4 rows"),
    ("plots.interactive_embedding: top_k", lambda: page(top_k=0), ValueError, "top_k: expected"),
    ("plots.interactive_embedding: folder",
     lambda: page(path="no/page.html"), FileNotFoundError, "no such folder"),
    ("plots.interactive_embedding: a folder", lambda: page(path="."), IsADirectoryError, "add a name"),
    ("plots.LiveView: folder", lambda: live("no/live.html"), FileNotFoundError, "expected a file in"),
    ("plots.LiveView: a folder", lambda: live("."), FileNotFoundError, "expected a file"),
    ("plots.LiveView: every", lambda: live(every=0.0), ValueError, "every: expected"),
    ("plots.LiveView: max_points", lambda: live(max_points=0), ValueError, "max_points: expected"),
    ("plots.LiveView: groups alone", lambda: live(groups=[1]), ValueError, "groups: expected rows X"),
    ("plots.LiveView: groups", lambda: live("live.html", Z, groups=[1]), ValueError, "groups: expected one"),
]  # fmt: skip
