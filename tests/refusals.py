"""What a command line that is refused must say and leave behind."""

from pathlib import Path

import pytest

from pullback.cli import main


def snapshot(*folders: Path) -> dict[str, bytes]:
    """All files and what they hold."""
    return {
        str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()
    }


def assert_refused(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture, *folders: Path
) -> None:
    """One line on stderr that holds ``message``, nothing on stdout, and no file changed in ``folders``."""
    before = snapshot(*folders)
    assert main(words) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert snapshot(*folders) == before
