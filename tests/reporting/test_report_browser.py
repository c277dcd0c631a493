"""The page in a real browser: drawn, quiet, responsive, alive, and without a network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import NEEDS_BROWSER, assert_fits, fetched, headless, until
from pullback.reporting import report

pytestmark = NEEDS_BROWSER

# The view of a figure, and the place of one of its samples in the window.
FIND = """
const host = document.querySelector(`[data-figure="${arguments[0]}"]`);
const id = host.querySelector('[data-root-id]').dataset.rootId;
const view = [...Bokeh.index.roots].find((root) => root.model.id === id);
"""
PLACE = (
    FIND
    + """
host.scrollIntoView({block: 'center'});
const column = arguments[1];
const renderer = view.model.renderers.find((r) => r.data_source && column in r.data_source.data);
const data = renderer.data_source.data;
const row = arguments[2];
const box = view.el.getBoundingClientRect();
const {x_scale, y_scale} = view.frame;
return [box.left + x_scale.compute(data.x[row]), box.top + y_scale.compute(data.y[row])];
"""
)
# How many different colours each figure's canvas shows: an empty canvas has one.
DRAWN = """
const found = {};
for (const host of document.querySelectorAll('[data-figure]')) {
  const id = host.querySelector('[data-root-id]').dataset.rootId;
  const view = [...Bokeh.index.roots].find((root) => root.model.id === id);
  if (!view.frame) { continue; }
  const canvas = view.canvas.primary.canvas;
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; i < pixels.length; i += 4) {
    colours.add(pixels[i] + 256 * pixels[i + 1] + 65536 * pixels[i + 2]);
  }
  found[host.dataset.figure] = colours.size;
}
return found;
"""
TOOLTIP = """
const texts = [];
const walk = (node) => {
  if (node.nodeType === 1 && node.classList.contains('bk-Tooltip')) {
    const inside = node.shadowRoot ?? node;
    const images = inside.querySelectorAll('img[src^="data:image/png"]').length;
    texts.push({text: inside.textContent, images});
  }
  for (const child of [...(node.shadowRoot?.children ?? []), ...node.children]) { walk(child); }
};
walk(document.body);
return texts;
"""


@pytest.fixture(scope="module")
def page(digits: tuple[Any, np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, pictures, labels = digits
    path = tmp_path_factory.mktemp("browser") / "run.html"
    return report(model, pictures, path, labels=labels, label_name="digit", n_geodesics=4)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with headless() as driver:
        yield driver


def opened(driver: Any, page: Path, width: int = 1280) -> Any:
    driver.get_log("browser")
    driver.set_window_size(width, 1000)
    driver.get(page.as_uri())
    until(
        lambda: driver.execute_script("return window.Bokeh !== undefined && Bokeh.documents.length > 0"),
        "Bokeh",
    )
    until(lambda: driver.execute_script("return Bokeh.documents.every((d) => d.is_idle)"), "an idle page")
    return driver


def test_everything_is_drawn_and_the_console_is_quiet(chromium: Any, page: Path) -> None:
    driver = opened(chromium, page)
    found = until(lambda: driver.execute_script(DRAWN), "figures")
    assert {"map", "paths", "fan", "curvature"} <= set(found)
    assert sum(name.startswith("loss") for name in found) >= 3
    assert all(colours > 5 for colours in found.values()), found
    assert found["map"] > 100
    assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    broken = "return [...document.images].filter((i) => !i.complete || i.naturalWidth === 0).length"
    assert driver.execute_script(broken) == 0


def test_nothing_is_asked_of_the_network(chromium: Any, page: Path) -> None:
    driver = opened(chromium, page)
    assert fetched(driver) == []


@pytest.mark.parametrize("width", [1280, 800])
def test_it_fits_the_window(chromium: Any, page: Path, width: int) -> None:
    driver = opened(chromium, page, width)
    assert_fits(driver, ".check, .figure, .how, .strips:not([hidden]), table.paths, .tick + dl")


def test_the_pointer_brings_up_the_decoded_picture(chromium: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    driver = opened(chromium, page)
    x, y = driver.execute_script(PLACE, "map", "name", 7)
    pointer = ActionChains(driver)
    pointer.w3c_actions.pointer_action.move_to_location(int(x), int(y))
    pointer.perform()
    tips = until(
        lambda: [tip for tip in driver.execute_script(TOOLTIP) if tip["text"].strip()], "a hover box"
    )
    assert "digit:" in tips[0]["text"]
    assert "row" in tips[0]["text"]
    assert "magnification" in tips[0]["text"]
    assert 1 <= tips[0]["images"] <= 10  # one a class where samples overlap


def test_a_click_chooses_a_path(chromium: Any, page: Path) -> None:
    driver = opened(chromium, page)
    shown = """
    const strips = [...document.querySelectorAll('.strips[data-path]')];
    return strips.filter((e) => !e.hidden).map((e) => e.dataset.path);
    """
    assert driver.execute_script(shown) == ["0"]
    driver.execute_script("document.querySelector('table.paths tr[data-path=\"2\"]').click()")
    until(lambda: driver.execute_script(shown) == ["2"], "the strips of path 2")
    assert driver.execute_script("return document.querySelector('tr.chosen').dataset.path") == "2"
    widths = FIND + (
        "const widths = view.model.renderers.map((r) => r.data_source.data.width);"
        "return widths.filter((w) => w).map((w) => w.indexOf(4));"
    )
    assert driver.execute_script(widths, "paths") == [2, 2]


def test_steps_of_equal_length_are_shown_on_demand(chromium: Any, page: Path) -> None:
    driver = opened(chromium, page)
    shown = FIND + (
        "const all = view.model.renderers.filter((r) => r.glyph && r.glyph.type === 'Patches');"
        "return all.map((r) => r.visible);"
    )
    assert set(driver.execute_script(shown, "map")) == {False}
    tick = FIND + (
        "const walk = (n) => n.querySelector?.('input[type=checkbox]') ?? "
        "[...n.querySelectorAll('*')].map((e) => e.shadowRoot).filter(Boolean).map(walk).find(Boolean);"
        "walk(host).click();"
    )
    driver.execute_script(tick, "steps")
    until(lambda: set(driver.execute_script(shown, "map")) == {True}, "the ellipses")
    driver.execute_script(tick, "steps")
    until(lambda: set(driver.execute_script(shown, "map")) == {False}, "the map without them")
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_two_figures_of_the_shape_show_the_same_place(chromium: Any, page: Path) -> None:
    driver = opened(chromium, page)
    ends = FIND + (
        "const {x_range, y_range} = view.model;"
        "return [x_range.start, x_range.end, y_range.start, y_range.end];"
    )
    first, second = (driver.execute_script(ends, name) for name in ("fan", "curvature"))
    np.testing.assert_allclose(first, second, atol=0.05 * (first[1] - first[0]))


def test_samples_take_another_colour(chromium: Any, page: Path) -> None:
    driver = opened(chromium, page)
    state = FIND + (
        "const all = view.model.renderers.filter((r) => r.data_source && 'name' in r.data_source.data);"
        "return all.map((r) => r.glyph.fill_color.field ?? 'fixed');"
    )
    assert set(driver.execute_script(state, "map")) == {"fixed"}
    choose = "Bokeh.documents[0].get_model_by_name('colour').value = arguments[0]"
    driver.execute_script(choose, "magnification")
    until(lambda: set(driver.execute_script(state, "map")) == {"decades"}, "colours by magnification")
    driver.execute_script(choose, "digit")
    until(lambda: set(driver.execute_script(state, "map")) == {"fixed"}, "colours by digit")
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
