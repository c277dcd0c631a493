"""Fixtures that every test may use."""

import os

import jaxtyping
import pytest
import torch


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Every numeric test runs in both precisions."""
    return request.param


@pytest.fixture
def as_users_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the run-time shape checks of the test session off, so that bad input meets our own errors."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of absent data sets with the line that installs them, unless the set is required."""
    wanted = [item for item in items if item.get_closest_marker("data")]
    if not wanted:
        return
    from pullback.data import available, install_line

    present = available()
    required = set(filter(None, os.environ.get("PULLBACK_REQUIRE_DATA", "").split(",")))
    for item in wanted:
        name = item.get_closest_marker("data").args[0]
        if not present[name] and name not in required:
            item.add_marker(pytest.mark.skip(reason=install_line(name)))
