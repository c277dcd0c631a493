"""Sphinx configuration."""

import re

from pullback._version import __version__
from pullback.data import available

project = "pullback"
author = "The pullback developers"
copyright = "2026, The pullback developers"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples", "gallery/*.ipynb", "gallery/*.py", "gallery/*.json"]
nb_execution_mode = "off"  # the gallery's scripts are executed, the pages' examples run in the test suite
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_rtype = False

# An example of a data set that is not installed is shown without being run.
_needs = {"plot_hsmm": "hsmm", "plot_pbmc": "pbmc68k"}
_absent = [example for example, name in _needs.items() if not available()[name]]

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": rf"^(?!.*(?:{'|'.join(_absent)})\.py$).*plot_" if _absent else r"plot_",
    "abort_on_example_error": True,
    "capture_repr": (),
    "show_memory": False,
    "download_all_examples": False,
}

html_theme = "furo"
html_title = "pullback"
html_static_path = ["_static"]


def open_sections(app, what, name, obj, options, lines):
    """Begin sections after an empty line; what stands beside their names (``Returns: text``) goes below."""
    opened = []
    for line in lines:
        head = re.fullmatch(r"(Args|Returns|Raises|Warns|Gotchas|Example):(?: +(\S.*))?", line)
        if head and opened and opened[-1]:
            opened.append("")
        opened += [f"{head[1]}:", f"    {head[2]}"] if head and head[2] else [line]
    lines[:] = opened


def escape_bars(app, what, name, obj, options, lines):
    """Keep the bars of norms and absolute values, outside literals, from being read as markup."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split("(``.*?``)", line)
            lines[i] = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def setup(app):
    """Register the hooks above: the first before sections are read, the second after."""
    app.connect("autodoc-process-docstring", open_sections, priority=400)
    app.connect("autodoc-process-docstring", escape_bars)
