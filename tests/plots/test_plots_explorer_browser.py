"""The interactive page in a real browser: selections drive the bars, sums agree with Python, all is quiet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pullback as pb
from attributions import explained, network, rows
from browser import NEEDS_BROWSER, assert_fits, complaints, fetched, headless, until
from pullback.attribution import group_contributions

pytestmark = NEEDS_BROWSER

N, P, D, K = 300, 60, 3, 50
GROUPS = np.array(["first", "second", "third"])[np.arange(N) % 3]

SELECT = """
const page = Bokeh.documents.find((found) => found.get_model_by_name('points'));
page.get_model_by_name('points').selected.indices = arguments[0];
"""
CHOOSE = """
const control = document.getElementById(arguments[0]);
control.value = arguments[1];
control.dispatchEvent(new Event('input'));
control.dispatchEvent(new Event('change'));
"""
BARS = """
const table = document.getElementById('bars');
return {
  ...table.dataset,
  title: document.getElementById('bars-title').textContent,
  text: document.getElementById('total').textContent,
  rows: [...table.rows].map((row) => [row.dataset.feature, Number(row.dataset.value), row.className]),
};
"""
COLUMN = """
const page = Bokeh.documents.find((found) => found.get_model_by_name('points'));
return Array.from(page.get_model_by_name('points').data[arguments[0]]);
"""


@pytest.fixture(scope="module")
def found() -> Any:
    return explained(N, p=P, d=D)


@pytest.fixture(scope="module")
def page(found: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "page.html"
    pictures = np.random.default_rng(0).integers(0, 255, size=(N, 6, 6)).astype(np.uint8)
    pb.plots.interactive_embedding(
        found.value, found, groups=GROUPS, feature_values=rows(N, P), hover_images=pictures,
        hover_data={"name": [f"cell {i}" for i in range(N)]}, top_k=K, path=path,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with headless(height=1600) as driver:
        yield driver


def opened(driver: Any, page: Path, width: int = 1280) -> Any:
    driver.get_log("browser")
    driver.set_window_size(width, 1600)
    driver.get(page.as_uri())
    until(lambda: driver.execute_script("return document.body.dataset.ready") == "yes", "the page")
    return driver


def bars(driver: Any, view: str, picked: str) -> dict[str, Any]:
    """The bars of a view, once they show the selections of these sizes."""
    driver.execute_script(CHOOSE, "view", view)
    until(lambda: driver.execute_script(BARS).get("picked") == picked, f"bars of {picked}")
    return driver.execute_script(BARS)


def numbers(shown: dict[str, Any]) -> dict[str, float]:
    """The features that have a bar of their own."""
    return {name: value for name, value, kind in shown["rows"] if kind == ""}


def test_everything_is_drawn_and_the_console_is_quiet(chromium: Any, page: Path) -> None:
    driver = opened(chromium, page)
    shown = driver.execute_script(BARS)
    assert len(numbers(shown)) == 36
    assert [name for name, _, kind in shown["rows"] if kind] == ["24 other features"]
    assert "all 300 points" in shown["title"]
    assert complaints(driver) == []
    assert fetched(driver) == []


@pytest.mark.parametrize("width", [1280, 800])
def test_it_fits_the_window_without_overlaps(chromium: Any, page: Path, width: int) -> None:
    driver = opened(chromium, page, width)
    assert_fits(driver, ".check, .controls > *, .figure, .legend, .how, .bars-title, table.bars, .total")


def test_a_selection_changes_the_bars(chromium: Any, page: Path, found: Any) -> None:
    driver = opened(chromium, page)
    values = found.values.numpy()
    sizes = np.linalg.norm(values, axis=1)
    names = {name: j for j, name in enumerate(found.feature_names)}
    for chosen in (list(range(0, 300, 3)), [7]):
        driver.execute_script(SELECT, chosen)
        picked = f"{len(chosen)},0"
        shown = bars(driver, "size", picked)
        for name, value in numbers(shown).items():
            assert value == pytest.approx(sizes[chosen, names[name]].mean(), abs=1e-4)
        assert float(shown["sum"]) == pytest.approx(sizes[chosen].sum(1).mean(), rel=1e-4)
        shown = bars(driver, "share", picked)
        shares = (sizes / sizes.sum(1, keepdims=True))[chosen].mean(0)
        for name, value in numbers(shown).items():
            assert value == pytest.approx(shares[names[name]], abs=1e-4)
        for i in range(D):
            shown = bars(driver, f"output:{i}", picked)
            for name, value in numbers(shown).items():
                assert value == pytest.approx(values[chosen, i, names[name]].mean(), abs=1e-5)
            assert float(shown["sum"]) == pytest.approx(found.value[chosen, i].mean().item(), abs=1e-5)
            assert float(shown["total"]) == pytest.approx(found.value[chosen, i].mean().item(), abs=1e-6)
            assert "residual" in shown["text"]
    assert complaints(driver) == []


@pytest.mark.parametrize("view", ["rest", "pair"])
def test_comparisons_add_up_to_what_python_says(chromium: Any, page: Path, found: Any, view: str) -> None:
    driver = opened(chromium, page)
    legend = (
        "[...document.querySelectorAll('#legend button')].find((b) => b.textContent === arguments[0]).click()"
    )
    driver.execute_script(legend, "second")
    if view == "pair":
        driver.execute_script("document.querySelector('[data-pick=B]').click()")
        driver.execute_script(legend, "third")
        labels = GROUPS
        assert driver.execute_script("return document.getElementById('view').value") == "pair"
    else:
        labels = np.where(GROUPS == "second", "second", "third")
    shown = bars(driver, view, "100,100" if view == "pair" else "100,0")
    x = rows(N, P)
    expected = group_contributions(network(P, D), x, labels, baseline=x.mean(0)).between("second", "third")
    values = expected.values.numpy()
    names = {name: j for j, name in enumerate(found.feature_names)}
    assert len(numbers(shown)) == 36
    for name, value in numbers(shown).items():
        assert value == pytest.approx(values[names[name]], abs=1e-5)
    assert float(shown["sum"]) == pytest.approx(expected.distance.item(), abs=1e-5)
    assert float(shown["total"]) == pytest.approx(expected.distance.item(), abs=1e-6)
    offset = next(value for name, value, kind in shown["rows"] if name == "offset")
    assert offset == pytest.approx(expected.offset.item(), abs=1e-5)
    assert complaints(driver) == []


def test_the_views_that_need_selections_say_so(chromium: Any, page: Path) -> None:
    driver = opened(chromium, page)
    assert "Select points as A" in bars(driver, "rest", "0,0")["title"]
    assert "points as B" in bars(driver, "pair", "0,0")["title"]
    assert bars(driver, "pair", "0,0")["rows"] == []
    driver.execute_script(SELECT, list(range(N)))
    assert "Select points as A" in bars(driver, "rest", "300,0")["title"]


def test_selections_are_marked_and_cleared(chromium: Any, page: Path) -> None:
    driver = opened(chromium, page)
    driver.execute_script(SELECT, [1, 2])
    driver.execute_script("document.querySelector('[data-pick=B]').click()")
    driver.execute_script(SELECT, [5])
    bars(driver, "size", "2,1")
    edge = driver.execute_script(COLUMN, "edge")
    assert [edge[i] for i in (1, 2, 5, 0)] == [1, 1, 2, 0]
    assert driver.execute_script(COLUMN, "alpha")[0] < 0.5
    driver.execute_script("document.querySelector('[data-pick=A]').click()")
    assert bars(driver, "size", "2,1")["picked"] == "2,1"  # going back to A keeps both
    driver.execute_script("document.getElementById('clear').click()")
    bars(driver, "size", "0,0")
    assert set(driver.execute_script(COLUMN, "edge")) == {0}
    assert complaints(driver) == []


def test_a_click_and_a_box_select(chromium: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    driver = opened(chromium, page)
    place = """
    const host = document.querySelector('[data-figure="map"]');
    host.scrollIntoView({block: 'start'});
    const id = host.querySelector('[data-root-id]').dataset.rootId;
    const view = [...Bokeh.index.roots].find((root) => root.model.id === id);
    const data = view.model.renderers[0].data_source.data;
    const box = view.el.getBoundingClientRect();
    return [box.left + view.frame.x_scale.compute(data.x[arguments[0]]),
            box.top + view.frame.y_scale.compute(data.y[arguments[0]])];
    """
    x, y = (int(v) for v in driver.execute_script(place, 7))
    pointer = ActionChains(driver)
    pointer.w3c_actions.pointer_action.move_to_location(x, y)
    pointer.w3c_actions.pointer_action.click()
    pointer.perform()
    until(lambda: driver.execute_script(BARS)["picked"] not in ("0,0", None), "a click's selection")
    driver.execute_script("document.getElementById('clear').click()")
    lasso = ActionChains(driver)
    action = lasso.w3c_actions.pointer_action
    action.move_to_location(x - 60, y - 60)
    action.pointer_down()
    for a, b in ((x + 60, y - 60), (x + 60, y + 60), (x - 60, y + 60), (x - 60, y - 50)):
        action.move_to_location(a, b)
    action.pointer_up()
    lasso.perform()
    until(lambda: int(driver.execute_script(BARS)["picked"].split(",")[0]) >= 1, "a lasso's selection")
    assert complaints(driver) == []


def test_points_take_every_colour(chromium: Any, page: Path, found: Any) -> None:
    driver = opened(chromium, page)
    np.testing.assert_array_equal(driver.execute_script(COLUMN, "shade"), np.arange(N) % 3)
    driver.execute_script(CHOOSE, "colour", "top")
    sizes = np.linalg.norm(found.values.numpy(), axis=1)
    strongest = [found.feature_names[j] for j in sizes.argmax(1)]
    driver.execute_script(CHOOSE, "top", "3")
    legend = driver.execute_script(
        "return [...document.querySelectorAll('#legend button')].map((b) => b.textContent)"
    )
    assert len(legend) == 4
    assert legend[-1] == "others"
    shade = [-1 if v is None else int(v) for v in driver.execute_script(COLUMN, "shade")]
    for row, place in enumerate(shade):
        assert strongest[row] == legend[place] if place >= 0 else strongest[row] not in legend[:3]
    driver.execute_script(CHOOSE, "colour", "contribution")
    driver.execute_script(CHOOSE, "feature", "gene 5")
    np.testing.assert_allclose(driver.execute_script(COLUMN, "shade"), sizes[:, 5], atol=1e-4)
    driver.execute_script(CHOOSE, "colour", "value")
    values = rows(N, P)[:, 5].numpy()
    low, high = np.quantile(values, [0.01, 0.99])
    shown = driver.execute_script(COLUMN, "shade")
    np.testing.assert_allclose(shown, np.clip(values, low, high), atol=0.01 * (high - low))
    driver.execute_script(CHOOSE, "feature", "no such gene")
    assert (
        driver.execute_script("return document.getElementById('feature').getAttribute('aria-invalid')")
        == "true"
    )
    np.testing.assert_array_equal(driver.execute_script(COLUMN, "shade"), shown)
    assert complaints(driver) == []


def test_other_coordinates_can_be_drawn(chromium: Any, page: Path, found: Any) -> None:
    driver = opened(chromium, page)
    driver.execute_script(CHOOSE, "axis-x", "2")
    np.testing.assert_allclose(driver.execute_script(COLUMN, "x"), found.value[:, 2], atol=1e-5)
    np.testing.assert_allclose(driver.execute_script(COLUMN, "y"), found.value[:, 1], atol=1e-5)
    assert complaints(driver) == []
