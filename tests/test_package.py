"""The public face: what `import pullback` loads, what it names, what it costs."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pullback as pb

SOURCE = Path(pb.__file__).parent
HEAVY = ("sklearn", "pandas", "lightning", "bokeh", "matplotlib", "scipy", "typer")


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = json.loads(run_python("import json, sys, pullback; print(json.dumps(sorted(sys.modules)))"))
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]


def test_import_draws_no_random_number_and_changes_no_setting() -> None:
    code = """
import torch, numpy
before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
numbers = numpy.random.get_state()[1].copy()
import pullback
for name in pullback.__all__:
    getattr(pullback, name)
assert torch.equal(torch.get_rng_state(), before[0])
assert (torch.get_default_dtype(), torch.get_num_threads()) == before[1:]
assert (numpy.random.get_state()[1] == numbers).all()
print("same")
"""
    assert run_python(code).strip() == "same"


@pytest.mark.parametrize("name", sorted(pb.__all__))
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(pb, name) is not None
    assert name in dir(pb)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'geodesics'"):
        pb.geodesics  # noqa: B018


def test_stub_names_the_same_things() -> None:
    tree = ast.parse((SOURCE / "__init__.pyi").read_text())
    names = {
        alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert names == set(pb.__all__)
