"""A headless Chromium, and how to wait for what a page does."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(
        (CHROMIUM is None or DRIVER is None) and not os.environ.get("PULLBACK_REQUIRE_BROWSER"),
        reason="needs Chromium: apt-get install chromium chromium-driver",
    ),
]


@contextmanager
def headless(width: int = 1280, height: int = 1000) -> Iterator[Any]:
    """A browser without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """The first true value of a condition; fails by name when time runs out."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def complaints(driver: Any) -> list[str]:
    """What the console says of errors."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


OVERLAPS = """
const boxes = [...document.querySelectorAll(arguments[0])]
  .map((e) => e.getBoundingClientRect()).filter((b) => b.width > 0 && b.height > 0);
let count = 0;
boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
  const beside = a.right - 1 < b.left || b.right - 1 < a.left;
  const above = a.bottom - 1 < b.top || b.bottom - 1 < a.top;
  count += beside || above ? 0 : 1;
}));
return count;
"""


def assert_fits(driver: Any, parts: str) -> None:
    """The page is no wider than its window, and no two of its parts (a CSS selector) overlap."""
    width, window = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window
    assert driver.execute_script(OVERLAPS, parts) == 0


def fetched(driver: Any) -> list[str]:
    """What the page has loaded from elsewhere."""
    names = driver.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    return [name for name in names if not name.startswith(("data:", "blob:"))]
