"""The page shows how unequal directions are, beside the same model without its penalties."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.reporting.condition_section import condition_section
from pullback.reporting.evidence import gather

Make = Callable[..., Any]


def mappers(fig: Any) -> list[Any]:
    """Colour mappers of the scales below a figure."""
    return [bar.color_mapper for bar in fig.below if hasattr(bar, "color_mapper")]


def stretched(model: Any, factor: float) -> Any:
    """The same map of the data with another unit along the first axis."""
    model.module_[0].weight.data[:, 0] *= factor
    model.encoder_[:, 0] /= factor
    return model


def cells(body: str) -> list[list[str]]:
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)][1:]


def test_alone_it_shows_the_model(bent: Make) -> None:
    model = bent(2, width=8)
    evidence = gather(model, model.data(120))
    sections, figures = condition_section(evidence)
    assert set(figures) == {"condition"}
    ((name, mean, median, high, lost),) = cells(sections[0].body)
    known = pb.flatness(evidence.metric, torch.from_numpy(evidence.shown_codes)).condition_number
    assert float(mean) == pytest.approx(float(known), abs=0.006)
    assert 1 <= float(median) <= float(high)
    assert name == "This model"
    assert "%" in lost
    assert "second time" not in sections[0].note


@pytest.mark.parametrize("d", [2, 3])
def test_beside_it_stands_the_model_before_at_one_scale(bent: Make, d: int) -> None:
    model, before = bent(d, width=8), stretched(bent(d, width=8), 10.0)
    X = model.data(120)
    sections, figures = condition_section(gather(model, X, before=before))
    assert set(figures) == {"condition", "condition_before"}
    old, new = cells(sections[0].body)
    assert old[0] == "Without the penalties"
    assert float(old[1]) > 1.3 * float(new[1])
    assert old[4] == new[4]  # the same decoded rows
    ends = {mapper.high for figure in figures.values() for mapper in mappers(figure)}
    assert len(ends) == 1
    assert "second time without the penalties" in sections[0].note


def test_one_dimension_has_no_section(bent: Make) -> None:
    model = bent(1)
    assert condition_section(gather(model, model.data(40))) == ([], {})


def test_a_singular_metric_is_said_to_be_infinite(bent: Make) -> None:
    model = bent(2)
    X = model.data(60)
    model.module_[2].weight.data.zero_()
    sections, _ = condition_section(gather(model, X))
    assert cells(sections[0].body)[0][1:4] == ["∞", "∞", "∞"]


def test_the_page_holds_both_maps(bent: Make, tmp_path: Path) -> None:
    model, before = bent(2, width=8), stretched(bent(2, width=8), 3.0)
    X = model.data(80)
    page = pb.report(model, X, tmp_path / "a.html", n_geodesics=1, before=before).read_text()
    assert page.index('data-figure="condition_before"') < page.index('data-figure="condition"')
    assert np.isfinite(float(cells(page[page.index('<section id="condition"') :])[0][1]))
