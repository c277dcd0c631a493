"""The gallery's scripts run, those of a data set where it is installed."""

import ast
import re
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
CONFIGURATION = (EXAMPLES.parent / "conf.py").read_text()
NEEDS = ast.literal_eval(re.search(r"^_needs = (\{.*\})$", CONFIGURATION, re.MULTILINE)[1])


def _scripts():
    for path in sorted(EXAMPLES.glob("plot_*.py")):
        marks = [pytest.mark.data(NEEDS[path.stem])] if path.stem in NEEDS else []
        yield pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("path", list(_scripts()))
def test_example(path, monkeypatch, capsys):
    monkeypatch.setattr(plt, "show", lambda: None)
    plt.close("all")
    try:
        runpy.run_path(str(path))
        assert plt.get_fignums(), "no figure"
        assert capsys.readouterr().out, "no number"
    finally:
        plt.close("all")


def test_the_pages_know_which_example_needs_which_set():
    for path in EXAMPLES.glob("plot_*.py"):
        text = path.read_text()
        for name in ("hsmm", "pbmc68k", "mnist_5k"):
            assert (f'load("{name}"' in text) == (NEEDS.get(path.stem) == name)
