"""What a folder keeps of a dictionary whose charts were chosen."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import pullback as pb
from planted import planted
from pullback.models.dictionary import start, topology
from pullback.models.dictionary.topology import Topology


@pytest.fixture(scope="module")
def chosen() -> pb.ManifoldDictionary:
    """Two atoms, one by evidence among fewer candidates than usual, one that was given."""
    Z = planted(120, kinds=("circle", "circle"), p=8, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topology, "_counts", lambda rows: [2, 3, 4, 7, 8, 16])
        patch.setattr(start, "CANDIDATES", ("circle", "interval"))
        model = pb.ManifoldDictionary(
            2, gate="softmax", init=Z.A.argmax(1), max_sweeps=3, random_state=0
        ).fit(Z.Z.numpy())
    known = model.diagnostics_
    model.diagnostics_ = replace(known, topology=(known.topology[0], None))
    return model


def first(model: pb.ManifoldDictionary) -> Topology:
    known = model.diagnostics_.topology[0]
    assert known is not None
    return known


def test_evidence_survives_on_disk(chosen, tmp_path: Path) -> None:
    again = pb.ManifoldDictionary.load(chosen.save(tmp_path / "m"))
    before, after = first(chosen), first(again)
    assert again.diagnostics_.topology[1] is None
    assert [entry.name for entry in after.table] == [entry.name for entry in before.table]
    assert [entry.evidence for entry in after.table] == [entry.evidence for entry in before.table]
    assert [entry.separate for entry in after.table] == [entry.fit is None for entry in before.table]
    assert after.chart.name == before.chart.name
    assert replace(after, table=()) == replace(before, table=())
    assert np.isfinite(after.gap_limit)


def test_bars_of_a_file_are_those_of_the_fit(chosen, tmp_path: Path) -> None:
    again = pb.ManifoldDictionary.load(chosen.save(tmp_path / "m"))
    one, two = (pb.plots.evidence_bars(model, 0) for model in (chosen, again))
    assert one.get_title(loc="left") == two.get_title(loc="left")
    assert [label.get_text() for label in one.get_yticklabels()] == [
        label.get_text() for label in two.get_yticklabels()
    ]
    assert len(two.patches) == 2 + 4
    for bar, other in zip(one.patches, two.patches, strict=True):
        assert bar.get_extents().bounds == other.get_extents().bounds
        assert bar.get_facecolor() == other.get_facecolor()
    with pytest.raises(ValueError, match="its chart was given"):
        pb.plots.evidence_bars(again, 1)
    plt.close("all")


def test_a_topology_without_a_rival_survives(chosen, tmp_path: Path) -> None:
    known = first(chosen)
    alone = replace(known, margin=float("inf"), gap=float("nan"), table=known.table[:1])
    model = pb.ManifoldDictionary.load(chosen.save(tmp_path / "first"))
    model.diagnostics_ = replace(model.diagnostics_, topology=(alone, None))
    found = first(pb.ManifoldDictionary.load(model.save(tmp_path / "m")))
    assert found.margin == float("inf")
    assert np.isnan(found.gap)
