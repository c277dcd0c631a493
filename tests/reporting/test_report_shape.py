"""What the page says about geometry: steps of equal length, distances, curvature, shares of a path."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bokeh.models import CheckboxGroup

import pullback as pb
from pullback.metrics import from_tensor
from pullback.reporting.diagnosis import join
from pullback.reporting.evidence import gather
from pullback.reporting.latent_figure import field_behind, latent_figure
from pullback.reporting.overlay import add_indicatrices
from pullback.reporting.path_shares import share_blocks, shares_along
from pullback.reporting.shape_figures import _runs, central_row, shape_of
from pullback.reporting.shape_section import shape_section

Make = Callable[..., Any]


def relu(model: Any) -> Any:
    """The same model with kinks."""
    model.module_[1] = torch.nn.ReLU()
    return model


@pytest.mark.parametrize("d", [2, 3])
def test_steps_of_equal_length_lie_hidden_on_the_map(bent: Make, d: int) -> None:
    model = bent(d, width=8)
    evidence = gather(model, model.data(150))
    drawn = latent_figure(evidence, field_behind(evidence))
    before = len(drawn.figure.renderers)
    overlay = add_indicatrices(drawn.figure, evidence)
    assert overlay is not None
    assert isinstance(overlay.choice, CheckboxGroup)
    added = drawn.figure.renderers[before:]
    assert sum(len(part.data_source.data["xs"]) for part in added) == len(overlay.ellipses.centres) > 10
    assert not any(part.visible for part in added)
    assert f"{overlay.ellipses.radius:g}" in overlay.choice.labels[0]


def test_one_dimension_has_neither_steps_nor_curvature(bent: Make) -> None:
    model = bent(1)
    evidence = gather(model, model.data(60))
    drawn = latent_figure(evidence, field_behind(evidence))
    assert add_indicatrices(drawn.figure, evidence) is None
    assert shape_section(evidence, field_behind(evidence)) == ([], {})


def test_distances_leave_the_most_central_sample(bent: Make) -> None:
    model = bent(2, width=8)
    evidence = gather(model, model.data(200))
    shape = shape_of(evidence, field_behind(evidence))
    assert shape is not None
    assert shape.rays is not None
    assert shape.measured is None
    row = central_row(evidence)
    assert shape.centre == evidence.sample_names[row]
    np.testing.assert_allclose(shape.rays.points[:, 0], np.tile(evidence.shown_codes[row], (48, 1)))
    rings = [part for part in shape.fan.renderers if "length" in part.data_source.data]
    assert {length for part in rings for length in part.data_source.data["length"]} >= set(shape.rings)
    # The certified distance to the end of a ray is the length of the ray.
    end = torch.as_tensor(shape.rays.points[:3, -1])
    start = torch.as_tensor(evidence.shown_codes[row])
    known = pb.distance(evidence.metric, start, end, data=torch.as_tensor(evidence.shown_codes))
    np.testing.assert_allclose(known, shape.rays.radius, rtol=1e-3)


def test_more_dimensions_are_projected_and_the_page_says_so(bent: Make) -> None:
    model = bent(3, width=8)
    evidence = gather(model, model.data(120))
    sections, figures = shape_section(evidence, None)
    assert set(figures) == {"fan", "curvature"}
    assert "projected" in sections[0].note
    assert "measured at 120 of the samples" in sections[0].note
    assert "Sectional curvature" in sections[0].body


def test_a_piecewise_linear_decoder_gets_a_sentence_instead_of_zeros(bent: Make, tmp_path: Path) -> None:
    model = relu(bent(2, width=8))
    X = model.data(80)
    page = pb.report(model, X, tmp_path / "a.html", n_geodesics=1).read_text()
    assert "ReLU at layer 1 has kinks" in page
    assert 'data-figure="curvature"' not in page
    assert 'data-figure="steps"' in page


def test_a_metric_that_is_degenerate_everywhere_has_no_section(bent: Make) -> None:
    model = bent(2)
    X = model.data(60)
    model.module_[2].weight.data.zero_()
    evidence = gather(model, X)
    assert central_row(evidence) is None
    assert shape_section(evidence, field_behind(evidence)) == ([], {})
    drawn = latent_figure(evidence, field_behind(evidence))
    assert add_indicatrices(drawn.figure, evidence) is None


def test_lines_are_split_at_their_gaps() -> None:
    line = np.stack([np.arange(7.0), np.zeros(7)], axis=1)
    line[[2, 6]] = np.nan
    line[4] = np.nan
    xs, _, number = _runs([line, line[:2]])
    assert xs == [[0.0, 1.0], [0.0, 1.0]]
    assert number == [0, 1]


def test_shares_of_a_path_name_the_features_of_the_data(bent: Make) -> None:
    model = bent(2, width=12)
    names = [f"gene <{i}>" for i in range(12)]
    evidence = gather(model, model.data(100), feature_names=names)
    paths = join(evidence, 2)
    assert paths is not None
    shares = shares_along(model, paths.geodesic, evidence.feature_names)
    blocks = share_blocks(evidence, paths)
    assert len(blocks) == 2
    largest = int(shares.fraction[0].argmax())
    assert blocks[0].index(f"gene &lt;{largest}&gt;") < 400
    assert "<gene" not in blocks[0]
    assert blocks[0].count('class="bar') == 10
    assert "2 others" in blocks[0]
    assert f"{100 * float(shares.fraction[0, largest]):.1f}\u202f%" in blocks[0]
    change = evidence.decode(paths.points[0][[0, -1]])[:, largest] / evidence.spread[largest]
    assert f"{change[1] - change[0]:+.1f} sd" in blocks[0]


def test_shares_of_pictures_are_a_picture(digits: tuple[Any, np.ndarray, np.ndarray]) -> None:
    model, pictures, labels = digits
    evidence = gather(model, pictures, labels=labels)
    paths = join(evidence, 1)
    assert paths is not None
    block = share_blocks(evidence, paths)[0]
    assert "of 64 pixels" in block
    assert block.count("data:image/png;base64,") == 1


def test_a_metric_without_features_is_split_by_latent_coordinate(bent: Make) -> None:
    model = bent(2)
    model.metric = lambda dtype=None: from_tensor(
        lambda z: torch.diag(torch.tensor([3.0, 1.0]).to(z)).expand(len(z), 2, 2), 2
    )
    line = torch.linspace(0, 1, 5).double()[:, None].expand(-1, 2)[None]
    shares = shares_along(model, line, ("a", "b"))
    assert shares.feature_names == ("latent 1", "latent 2")
    np.testing.assert_allclose(shares.fraction, [[0.75, 0.25]])
