"""Rows around one or two curves: always a model, of the right kind, or one that says it is undecided."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import pullback as pb
from pullback.models.dictionary.scores import coordinate_score
from single_atoms import CASES

QUICK = ["circle, 200 x 8, sigma .2"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(CASES)[:-1] if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_curves_and_sheets(name) -> None:
    case = CASES[name]()
    model = pb.ManifoldDictionary(case.n_atoms, gate="softmax", random_state=0).fit(case.rows)
    kinds = sorted(atom.chart.name for atom in model.atoms_)
    undecided = sum(alarm.code == "topology_undecided" for alarm in model.diagnostics_.alarms)
    if len(case.rows) >= 200:
        assert kinds == sorted(case.kinds)
        assert not undecided
    else:
        assert kinds == sorted(case.kinds) or undecided
    codes = model.transform(case.rows)
    rebuilt = model.inverse_transform(codes)
    spread = ((case.clean - case.clean.mean(0)) ** 2).sum()
    noise = ((case.rows - case.clean) ** 2).sum() / spread
    assert ((rebuilt - case.clean) ** 2).sum() / spread < noise
    if kinds == ["circle"]:
        assert (
            coordinate_score(
                "circle", torch.from_numpy(case.t[:, None]), torch.from_numpy(codes.coords[:, 0])
            )
            > 0.975
        )


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["softmax", "amplitude"])
def test_digits_are_explained_no_worse_than_by_axes(gate) -> None:
    """At as many scalars a row: coordinates of the active atoms, and their weights."""
    case = CASES["digits, 500 x 10"]()
    model = pb.ManifoldDictionary(3, gate=gate, random_state=0, max_sweeps=10).fit(case.rows)
    codes = model.transform(case.rows)
    dims = np.array([atom.chart.d for atom in model.atoms_])
    active = np.asarray(codes.weights) > 0.01
    scalars = np.where(active, dims[codes.indices] + 1, 0).sum(1).mean()
    left = ((case.rows - model.inverse_transform(codes)) ** 2).sum() / (case.rows**2).sum()
    axes = PCA(10).fit(case.rows).explained_variance_ratio_
    assert left <= 1 - axes[: int(np.ceil(scalars))].sum()
