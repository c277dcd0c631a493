import hashlib
import sys

import numpy as np
import pytest

from pullback.data import DataError, DatasetNotInstalled
from pullback.data.carrier import CarrierFile

CONTENT = b"1 2 3"


def carrier(**changes):
    facts = {
        "dataset": "toy",
        "install": "pip install toy",
        "path": "toy_carrier/data/table.txt",
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
    }
    return CarrierFile(**(facts | changes))


def parse(content):
    return np.array(content.decode("ascii").split(), dtype=float)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that would fail if it were imported."""
    folder = tmp_path / "toy_carrier"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "data" / "table.txt").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    return folder / "data" / "table.txt"


def test_reads_without_importing_the_package(installed):
    assert carrier().find() == installed
    assert carrier().parse(parse, strict=True).tolist() == [1.0, 2.0, 3.0]
    assert "toy_carrier" not in sys.modules


def test_absent_package_gives_the_install_line():
    assert carrier(path="no_such_carrier/x").find() is None
    with pytest.raises(DatasetNotInstalled) as caught:
        carrier(path="no_such_carrier/x").parse(parse)
    assert str(caught.value) == "pip install toy"
    assert isinstance(caught.value, FileNotFoundError)


def test_package_without_the_file_counts_as_absent(installed):
    installed.unlink()
    assert carrier().find() is None


def test_truncated_file_names_file_and_sizes(installed):
    installed.write_bytes(CONTENT[:2])
    with pytest.raises(DataError, match=r"toy/table.txt: expected 5 bytes, found 2; reinstall: pip install"):
        carrier().parse(parse)


def test_another_build_is_a_warning_or_an_error_when_strict(installed):
    installed.write_bytes(b"4 5 6")
    with pytest.warns(UserWarning, match=r"toy/table.txt: expected SHA-256"):
        assert carrier().parse(parse).tolist() == [4.0, 5.0, 6.0]
    with pytest.raises(DataError, match="expected SHA-256"):
        carrier().parse(parse, strict=True)


def test_another_build_that_cannot_be_read_is_an_error(installed):
    installed.write_bytes(b"\xff\xfe   ")
    with pytest.raises(DataError, match="not readable"):
        carrier().parse(parse)


def test_wrong_shape_is_an_error():
    with pytest.raises(DataError, match=r"toy/table.txt: expected pixels \(2, 2\), found \(3,\)"):
        carrier().check_shape("pixels", np.zeros(3), (2, 2))


def test_system_file_is_sought_in_the_data_folder_first(tmp_path, monkeypatch):
    file = carrier(path="usr/share/toy_carrier_set/table.txt", root="system")
    monkeypatch.delenv("PULLBACK_DATA", raising=False)
    assert file.find() is None
    unpacked = tmp_path / file.path
    unpacked.parent.mkdir(parents=True)
    unpacked.write_bytes(CONTENT)
    monkeypatch.setenv("PULLBACK_DATA", str(tmp_path))
    assert file.find() == unpacked
    assert file.parse(parse).sum() == 6.0
