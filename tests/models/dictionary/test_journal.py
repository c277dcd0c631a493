"""States of loops in memory and on disk: what is kept, forgotten, drawn again and refused."""

import math
from pathlib import Path

import pytest
import torch

from pullback import charts
from pullback.io import FormatError, save_tensors
from pullback.models.dictionary import journal as room
from pullback.models.dictionary.codes import Codes
from pullback.models.dictionary.journal import UNKEPT, Journal, Store
from pullback.models.dictionary.layout import Layout
from pullback.models.dictionary.packing import Packer, unpack

KNOWN = {"Codes": Codes, "Layout": Layout, "Circle": charts.Circle}


def store(folder: Path, **run: object) -> Store:
    return Store(folder / "file.safetensors", run, KNOWN)


@pytest.fixture(autouse=True)
def every_state_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SPACING", 0.0)


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    wide = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    codes = Codes(torch.zeros(2, 1, dtype=torch.long), wide[:2, :1], wide[:2].unsqueeze(1))
    state = (1, 2.5, math.inf, None, "name", True, (wide, wide.mT, wide), codes, Layout((charts.circle(3),)))
    with store(tmp_path) as first:
        Journal(first).at("loop").keep(state)
    again = store(tmp_path)
    again.read()
    found = Journal(again).at("loop").last()
    assert found[:6] == state[:6]
    one, turned, same = found[6]
    assert torch.equal(one, wide)
    assert torch.equal(turned, wide.mT)
    assert (one.stride(), turned.stride()) == (wide.stride(), wide.mT.stride())
    assert one is same
    assert torch.equal(found[7].coords, codes.coords)
    assert found[7].logits is None
    assert found[8] == state[8]


def test_a_tensor_is_held_once() -> None:
    packer, rows = Packer(KNOWN), torch.ones(3)
    packer.pack((rows, (rows, rows)))
    assert len(packer.tensors) == 1


def test_an_outer_state_makes_inner_ones_forgotten(tmp_path: Path) -> None:
    journal = Journal(store(tmp_path))
    outer, inner, other = journal.at("a"), journal.at("a").at("b"), journal.at("ab")
    inner.keep(1)
    other.keep(2)
    outer.at("c").keep(3)
    assert (inner.last(), outer.at("c").last(), outer.last()) == (1, 3, None)
    assert outer.keep(4) == 4
    assert (inner.last(), outer.at("c").last(), outer.last(), other.last()) == (None, None, 4, 2)


def test_a_part_is_made_once_and_draws_go_on(tmp_path: Path) -> None:
    def run(kept: Store) -> tuple[list[int], list[float]]:
        source = torch.Generator().manual_seed(3)
        journal, made = Journal(kept).drawing(source), []

        def part(name: str) -> float:
            made.append(name)
            return float(torch.rand(1, generator=source))

        first = journal.at("first").once(lambda: part("first"))
        second = journal.at("second").once(lambda: part("second"))
        return made, [first, second, float(torch.rand(1, generator=source))]

    with store(tmp_path) as whole:
        made, numbers = run(whole)
    assert made == ["first", "second"]
    again = store(tmp_path)
    again.read()
    assert run(again) == ([], numbers)
    del again.kept["second",]
    assert run(again) == (["second"], numbers)


def test_without_a_store_nothing_is_kept() -> None:
    place = UNKEPT.at("loop")
    assert place.keep(3) == 3
    assert place.last() is None
    assert [place.once(lambda: 4), place.once(lambda: 5)] == [4, 5]


def test_the_outcome_of_a_fit_is_all_that_is_left_of_it(tmp_path: Path) -> None:
    with store(tmp_path) as kept:
        Journal(kept).at("loop").keep(1)
        Journal(kept).keep(2)
    again = store(tmp_path)
    again.read()
    assert list(again.kept) == [()]
    assert Journal(again).last() == 2


def test_files_are_spaced_and_the_last_state_is_written_at_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SPACING", 1e9)
    kept, early, late = store(tmp_path), store(tmp_path), store(tmp_path)
    for i in range(3):
        Journal(kept).keep(i)
    early.read()
    kept.__exit__(RuntimeError, RuntimeError("died"), None)
    late.read()
    assert (Journal(early).last(), Journal(late).last()) == (0, 2)


def test_time_goes_on_where_it_stood(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.began -= 100.0
    Journal(kept).keep(1)
    again = store(tmp_path)
    again.read()
    assert 100 <= Journal(again).clock() < 160


def test_a_disk_that_refuses_costs_the_checkpoint_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = store(tmp_path / "gone")
    assert Journal(kept).keep(5) == 5
    assert "no checkpoint written, the fit goes on" in caplog.text
    assert Journal(kept).last() == 5


def test_what_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"checkpoint_dir: expected charts of pullback.charts, got Sphere"):
        Journal(store(tmp_path)).keep(charts.sphere(1))
    for plain in ({"class": "Sphere", "L": 1}, {"class": "Circle", "size": 2}, {"tensor": "7", "order": []}):
        with pytest.raises(FormatError, match="expected parts of a fit"):
            unpack(plain, {}, KNOWN)
    file = tmp_path / "file.safetensors"
    save_tensors(file, {"a": torch.zeros(1)}, {"kind": "model"})
    with pytest.raises(FormatError, match="not a checkpoint of a dictionary"):
        store(tmp_path).read()
    Journal(store(tmp_path)).keep(1)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(FormatError, match="truncated"):
        store(tmp_path).read()
