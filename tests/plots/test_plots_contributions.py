"""Still figures of contributions and embeddings: what is drawn adds up, is named, and says when it failed."""

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pullback as pb
from attributions import explained, failed, network, rows
from pullback.attribution import contributions, contributions_between, group_contributions
from pullback.plots.group_sums import apart, mean_over


@pytest.fixture(autouse=True)
def close() -> Any:
    yield
    plt.close("all")


def widths(ax: Any) -> np.ndarray:
    return np.array([bar.get_width() for bar in ax.patches])


def names(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_yticklabels()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bars_of_the_coordinates_add_up(dtype: torch.dtype) -> None:
    x = rows(dtype=dtype)
    found = contributions(network(dtype=dtype), x, baseline=x.mean(0))
    ax = pb.plots.plot_contributions(found, top=3)
    assert names(ax)[-2:] == ["4 others", "offset"]
    drawn = widths(ax).reshape(2, 5)  # one container an output
    np.testing.assert_allclose(
        drawn.sum(1), found.value.mean(0), atol=1e-6 if dtype == torch.float32 else 1e-13
    )
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["latent 1", "latent 2"]


@pytest.mark.parametrize("kinds", [2, 3, 5])
def test_bars_of_groups_add_up_to_the_distance_from_the_rest(kinds: int) -> None:
    found = explained(p=7)
    groups = np.arange(60) % kinds
    ax = pb.plots.plot_contributions(found, groups=groups, top=7)
    value = found.value.numpy()
    distance = [np.linalg.norm(value[groups == k].mean(0) - value[groups != k].mean(0)) for k in range(kinds)]
    if kinds == 2:
        np.testing.assert_allclose(widths(ax).sum(), distance[0], rtol=1e-12)
        assert "What holds 0 apart from 1" in ax.get_title(loc="left")
    elif kinds == 3:
        np.testing.assert_allclose(widths(ax).reshape(3, 8).sum(1), distance, rtol=1e-12)
    else:
        dots = np.stack([drawn.get_offsets()[:, 0] for drawn in ax.collections[1:]])
        np.testing.assert_allclose(dots.sum(1), distance, rtol=1e-12)


@pytest.mark.parametrize("method", ["local", "path"])
def test_what_holds_groups_apart_is_what_the_attribution_says(method: str) -> None:
    x, labels = rows(), np.arange(60) % 3
    net = network()
    found = contributions(net, x, baseline=x.mean(0), method=method)
    expected = group_contributions(net, x, labels, method=method, baseline=x.mean(0)).between(1, 2)
    ours = apart(mean_over(found, labels == 1), mean_over(found, labels == 2))
    np.testing.assert_allclose(ours.parts[0], expected.values, atol=1e-12)
    np.testing.assert_allclose(ours.offset[0], expected.offset, atol=1e-12)
    np.testing.assert_allclose(ours.total[0], expected.distance, atol=1e-12)
    assert abs(ours.residual[0]) < 1e-12


@settings(deadline=None, max_examples=20)
@given(angle=st.floats(0, 6.28), shift=st.floats(-5, 5))
def test_turning_and_moving_the_latent_space_changes_nothing(angle: float, shift: float) -> None:
    found = explained(20)
    turn = torch.tensor(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float64
    )
    moved = replace(
        found,
        values=turn @ found.values,
        offset=found.offset @ turn.T + shift,
        value=found.value @ turn.T + shift,
    )
    mask = np.arange(20) < 8
    first, second = (apart(mean_over(part, mask), mean_over(part, ~mask)) for part in (found, moved))
    np.testing.assert_allclose(first.parts, second.parts, atol=1e-12)
    np.testing.assert_allclose(first.total, second.total, atol=1e-12)


def test_groups_whose_centroids_coincide_have_no_direction() -> None:
    found = explained(10)
    twice = replace(
        found,
        kink_margin=None,
        residual=found.residual.repeat(2),
        values=found.values.repeat(2, 1, 1),
        offset=found.offset.repeat(2, 1),
        value=found.value.repeat(2, 1),
    )
    mask = np.arange(20) < 10
    sums = apart(mean_over(twice, mask), mean_over(twice, ~mask))
    assert np.abs(sums.parts).max() == 0
    assert sums.total[0] == 0


@pytest.mark.parametrize("reduction", ["l2", "mean_l2"])
def test_sizes_are_drawn_as_they_are(reduction: str) -> None:
    found = explained(reduction=reduction)
    ax = pb.plots.plot_contributions(found, top=4)
    size = found.values if reduction == "mean_l2" else found.values.mean(0)
    np.testing.assert_allclose(widths(ax), np.sort(size.numpy())[::-1][:4], rtol=1e-12)
    assert "others" not in " ".join(names(ax))


def test_more_than_three_coordinates_are_drawn_as_one_size() -> None:
    found = explained(d=4)
    ax = pb.plots.plot_contributions(found, top=7)
    expected = np.linalg.norm(found.values.numpy(), axis=1).mean(0)
    np.testing.assert_allclose(widths(ax), np.sort(expected)[::-1], rtol=1e-12)


def test_distances_of_pairs_add_up() -> None:
    x = rows()
    for method in ("path", "local"):
        found = contributions_between(network(), x[:30], x[30:], reduction="distance", method=method)
        ax = pb.plots.plot_contributions(found, top=3)
        np.testing.assert_allclose(widths(ax).sum(), found.value.norm(dim=1).mean(), rtol=1e-12)


def test_the_title_names_map_method_baseline_and_residual() -> None:
    x = rows()
    title = pb.plots.plot_contributions(explained()).get_title(loc="left")
    assert "map: derivative, method: local, baseline given, largest residual" in title
    title = pb.plots.plot_contributions(contributions(network(), x)).get_title(loc="left")
    assert "baseline 0" in title
    between = contributions_between(network(), x[:1], x[1:2])
    assert "method: path, between pairs" in pb.plots.plot_contributions(between).get_title(loc="left")


@pytest.mark.parametrize("kinds", [1, 2, 3, 6])
def test_a_failed_check_is_hatched_and_said(kinds: int) -> None:
    groups = None if kinds == 1 else np.arange(60) % kinds
    good = pb.plots.plot_contributions(explained(), groups=groups)
    bad = pb.plots.plot_contributions(failed(explained()), groups=groups)
    assert "check failed: the sums miss the network by 2e-02, allowed 1e-05" in bad.get_title(loc="left")
    assert "failed" not in good.get_title(loc="left")
    if kinds < 5:
        assert all(bar.get_hatch() for bar in bad.patches)
        assert not any(bar.get_hatch() for bar in good.patches)
    else:
        assert all(len(drawn.get_facecolors()) == 0 for drawn in bad.collections[1:])
        assert all(len(drawn.get_facecolors()) == 1 for drawn in good.collections[1:])


def test_numbers_stay_inside_the_figure() -> None:
    ax = pb.plots.plot_contributions(explained(), groups=np.arange(60) % 2)
    ax.figure.canvas.draw()
    frame = ax.get_window_extent()
    for number in ax.texts:
        box = number.get_window_extent()
        assert box.x0 >= frame.x0 - 1
        assert box.x1 <= frame.x1 + 1


@pytest.mark.parametrize("d", [2, 3, 5])
def test_an_embedding_names_its_groups_at_their_medians(d: int) -> None:
    Z = np.random.default_rng(0).normal(size=(90, d)).astype("float32")
    groups = np.array(["a", "b", "c"])[np.arange(90) % 3]
    ax = pb.plots.plot_embedding(Z, groups, components=(1, 0))
    found = {text.get_text(): text.get_position() for text in ax.texts}
    for name in "abc":
        np.testing.assert_allclose(found[name], np.median(Z[groups == name][:, [1, 0]], axis=0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("component 2", "component 1")
    assert sum(len(drawn.get_offsets()) for drawn in ax.collections) == 90


def test_groups_of_an_embedding_take_other_names() -> None:
    Z, groups = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    for labels in (["x", "y", "z"], {0: "x", 1: "y", 2: "z"}):
        ax = pb.plots.plot_embedding(Z, groups, labels=labels)
        assert [text.get_text() for text in ax.texts] == ["x", "y", "z"]
    assert [text.get_text() for text in pb.plots.plot_embedding(Z, groups, labels={1: "y"}).texts] == [
        "0",
        "y",
        "2",
    ]


def test_many_points_are_pixels() -> None:
    Z = np.random.default_rng(0).normal(size=(20_001, 2))
    assert all(drawn.get_rasterized() for drawn in pb.plots.plot_embedding(Z).collections)
    assert not any(drawn.get_rasterized() for drawn in pb.plots.plot_embedding(Z[:-1]).collections)


def test_numbers_colour_an_embedding_on_a_scale() -> None:
    Z = np.random.default_rng(0).normal(size=(30, 2))
    ax = pb.plots.plot_embedding(Z, Z[:, 0])
    assert len(ax.figure.axes) == 2
    assert not ax.texts
