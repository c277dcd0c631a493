"""What an interactive page carries, and what it refuses to draw."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pullback as pb
from attributions import explained, failed
from pullback.plots import cargo
from pullback.plots.cargo import pack, sampled_rows, top_names
from pullback.plots.group_sums import apart, mean_over
from pullback.plots.labels import read_labels


def carried(html: str) -> dict[str, Any]:
    """The block of JSON on a page."""
    found = re.search(r'<script type="application/json" id="cargo">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def array(text: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(shape)


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(1, 40),
    p=st.integers(1, 30),
    d=st.integers(1, 4),
    top_k=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_what_is_packed_adds_up_to_what_was_explained(n: int, p: int, d: int, top_k: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    values, value = (torch.randn(*shape, generator=random).double() for shape in ((n, d, p), (n, d)))
    found = replace(
        explained(1, p=2, d=1), values=values, offset=value - values.sum(2), value=value, kink_margin=None,
        residual=torch.zeros(n), baseline=torch.zeros(p), feature_names=None,
    )  # fmt: skip
    packed = pack(found, np.arange(n), top_k, None)
    assert len(packed.features) == min(top_k, p)
    parts = packed.codes * packed.step[..., None]
    np.testing.assert_allclose(
        parts, values.numpy()[:, :, packed.features].transpose(2, 1, 0), atol=float(packed.step.max())
    )
    np.testing.assert_allclose(parts.sum(0) + packed.rest, values.sum(2).T, atol=1e-5)
    np.testing.assert_allclose(packed.offset + packed.rest + parts.sum(0), packed.value, atol=2e-5)
    sizes = np.linalg.norm(values.numpy(), axis=1)
    np.testing.assert_allclose(packed.norm, sizes.sum(1), rtol=1e-5)
    np.testing.assert_array_equal(packed.top, sizes.argmax(1))


def test_a_feature_that_matters_to_a_small_group_is_carried() -> None:
    found = explained(60, p=7)
    values = found.values.clone()
    values[:, :, 3] = 0
    values[:2, :, 3] = 5  # of two rows alone
    groups = read_labels(np.array([0] * 2 + [1] * 58))
    assert 3 in pack(replace(found, values=values), np.arange(60), 2, groups).features


def test_the_budget_of_bytes_decides_how_many_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cargo, "CONTRIBUTION_BYTES", 2 * 2 * 60 * 3)
    packed = pack(explained(60, p=7), np.arange(60), 200, None)
    assert packed.codes.shape == (3, 2, 60)


def test_the_frequent_top_features_are_named() -> None:
    names, place = top_names(np.array([4, 2, 4, 4, 2, 0]), list("abcde"))
    assert names == ["e", "c", "a"]
    assert place.tolist() == [0, 1, 0, 0, 1, 2]


def test_many_rows_are_sampled_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pullback.plots.explorer.MAX_POINTS", 50)
    found = explained(60)
    with pytest.warns(UserWarning, match="60 rows; a random sample of 50"):
        page = pb.plots.interactive_embedding(found.value, found)
    np.testing.assert_array_equal(page.rows, sampled_rows(60, 50, 0))
    assert "50 of 60 rows are drawn, chosen at random." in page.html
    assert carried(page.html)["n"] == 50


def test_the_page_is_one_file_with_checks_first(tmp_path: Path) -> None:
    found = explained(60)
    path = tmp_path / "page.html"
    page = pb.plots.interactive_embedding(found.value, found, top_k=3, path=path)
    text = path.read_text(encoding="utf-8")
    assert text == page.html
    assert page.path == path
    assert text.index('data-check="sums"') < text.index('id="bars"')
    assert "The 3 most important of 7 features are told apart; the others are one bar." in text
    assert "How to read it." in text
    assert "All 2 checks pass." in text
    bad = pb.plots.interactive_embedding(found.value, failed(found))
    assert 'class="bars failed"' in bad.html
    assert 'class="bars failed"' not in text


def test_it_shows_itself_in_a_notebook() -> None:
    found = explained(20)
    shown = pb.plots.interactive_embedding(found.value, found)._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "<script" not in shown  # escaped


def test_names_cannot_break_the_page() -> None:
    found = replace(explained(20), feature_names=("</script><b>", "a", "a", "@x", "$y", "\u2028", "é"))
    groups = np.array(["<i>one", "</script>two"])[np.arange(20) % 2]
    page = pb.plots.interactive_embedding(
        found.value, found, groups=groups, hover_data={"<b>@x": np.arange(20)}, title="<script>"
    )
    content = carried(page.html)
    assert sorted(content["features"]) == sorted(["</script><b>", "a", "a (2)", "@x", "$y", "\u2028", "é"])
    assert content["groups"]["categories"] == ["</script>two", "<i>one"]
    assert "<title>&lt;script&gt;</title>" in page.html


def test_values_pictures_and_columns_are_carried() -> None:
    found = explained(20)
    values = np.random.default_rng(0).normal(size=(20, 7))
    values[3, :] = np.nan
    for pictures in (np.zeros((20, 4, 4)), np.zeros((20, 4, 4, 3), dtype=np.uint8)):
        page = pb.plots.interactive_embedding(
            found.value, found, feature_values=values, hover_images=pictures, hover_data={"a": values[:, 0]}
        )
        content = carried(page.html)
        codes = array(content["shades"]["codes"], "u1", (7, 20))
        assert (codes[:, 3] == 255).all()
        ends = np.array(content["shades"]["ends"])
        kept = np.arange(20) != 3
        clipped = np.clip(values[kept][:, page.features].T, ends[:, :1], ends[:, 1:])
        shown = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * codes[:, kept] / 254
        np.testing.assert_allclose(shown, clipped, atol=0.02)
        assert page.html.count("data:image/png;base64,") >= 20
        assert "column0" in page.html


@pytest.mark.parametrize("n", [1, 2])
def test_one_row_is_enough(n: int) -> None:
    found = explained(3)
    few = replace(
        found, values=found.values[:n], offset=found.offset[:n], value=found.value[:n], kink_margin=None,
        residual=found.residual[:n],
    )  # fmt: skip
    assert carried(pb.plots.interactive_embedding(few.value, few).html)["n"] == n


def test_the_sums_of_the_page_are_those_of_python() -> None:
    found = explained(60)
    packed = pack(found, np.arange(60), 3, None)
    mask = np.arange(60) < 20
    expected = apart(mean_over(found, mask), mean_over(found, ~mask))
    parts = packed.codes * packed.step[..., None]
    difference = parts[..., mask].mean(2) - parts[..., ~mask].mean(2)
    u = packed.value[:, mask].mean(1) - packed.value[:, ~mask].mean(1)
    u = u / np.linalg.norm(u)
    np.testing.assert_allclose(difference @ u, expected.parts[0][packed.features], atol=1e-5)
