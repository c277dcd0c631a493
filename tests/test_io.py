"""Files without pickle: what goes in comes out, and everything else is refused by name."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pullback.io import (
    CONFIG_FILE,
    PREVIOUS_TENSOR_FILE,
    TENSOR_FILE,
    FormatError,
    atomic_path,
    load_model,
    load_tensors,
    remove_leftovers,
    save_model,
    save_tensors,
)

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
    torch.complex64,
]
PARTS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".tmp" in path.name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)], ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 7).to(dtype)
    save_tensors(tmp_path / "a.safetensors", {"x": tensor})
    found = load_tensors(tmp_path / "a.safetensors")[0]["x"]
    assert found.dtype == dtype
    assert found.shape == tensor.shape
    assert bits(found) == bits(tensor)


def test_special_values_survive(tmp_path: Path) -> None:
    tensor = torch.tensor([float("nan"), float("inf"), -0.0, 5e-324], dtype=torch.float64)
    save_tensors(tmp_path / "a.safetensors", {"x": tensor})
    assert bits(load_tensors(tmp_path / "a.safetensors")[0]["x"]) == bits(tensor)


def test_views_shared_memory_and_gradients_are_stored_as_values(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "t": base.T,
        "slice": base[:, 1:3],
        "same": base,
        "leaf": torch.ones(2, requires_grad=True) * 2,
    }
    save_tensors(tmp_path / "a.safetensors", tensors)
    found, metadata = load_tensors(tmp_path / "a.safetensors")
    assert metadata == {}
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        assert torch.equal(found[name], value.detach())
        assert not found[name].requires_grad


def test_metadata_comes_back_as_json_reads_it(tmp_path: Path) -> None:
    metadata = {
        "epoch": 3,
        "loss": [0.1, 2.5e-300],
        "names": ("é", "β"),
        "nested": {"none": None, "yes": True},
    }
    save_tensors(tmp_path / "a.safetensors", {}, metadata)
    tensors, found = load_tensors(tmp_path / "a.safetensors")
    assert tensors == {}
    assert found == {**metadata, "names": ["é", "β"]}


def test_settings_without_a_json_form_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="metadata: expected numbers, strings"):
        save_tensors(tmp_path / "a.safetensors", PARTS, {"bad": object()})
    with pytest.raises(TypeError, match="config: expected numbers, strings"):
        save_model(tmp_path / "model", {"bad": {1, 2}}, PARTS)
    assert list(tmp_path.iterdir()) == []


def test_a_dtype_that_has_no_form_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="complex128"):
        save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(2, dtype=torch.complex128)})
    assert list(tmp_path.iterdir()) == []


def test_absent_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors: no such file"):
        load_tensors(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="no such folder; create it"):
        save_tensors(tmp_path / "no" / "a.safetensors", PARTS)
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        load_model(tmp_path / "none")


@pytest.mark.parametrize("keep", [0, 4, 8, 40, 0.5, 0.99])
def test_truncated_tensor_files_are_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, PARTS)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        load_tensors(path)


def test_foreign_tensor_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(PARTS, tmp_path / "bare.safetensors")
    with pytest.raises(FormatError, match="not one written by pullback"):
        load_tensors(tmp_path / "bare.safetensors")
    save_file(PARTS, tmp_path / "broken.safetensors", metadata={"pullback": "{"})
    with pytest.raises(FormatError, match="metadata not readable as JSON"):
        load_tensors(tmp_path / "broken.safetensors")
    save_file(PARTS, tmp_path / "list.safetensors", metadata={"pullback": "[1]"})
    with pytest.raises(FormatError, match="expected metadata as a JSON object, got list"):
        load_tensors(tmp_path / "list.safetensors")


def test_pickles_are_refused(tmp_path: Path) -> None:
    torch.save(PARTS, tmp_path / "a.safetensors")
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        load_tensors(tmp_path / "a.safetensors")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_never_do_worse_than_a_format_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError):
        load_tensors(path)


def test_model_round_trip_and_readable_settings(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "deep" / "model", {"class": "VAE", "hidden": (128, 64)}, PARTS)
    config, tensors = load_model(folder)
    assert (config["class"], config["hidden"], config["format_version"]) == ("VAE", [128, 64], 1)
    assert all(torch.equal(tensors[name], PARTS[name]) for name in PARTS)
    assert sorted(os.listdir(folder)) == [CONFIG_FILE, TENSOR_FILE]
    assert json.loads((folder / CONFIG_FILE).read_text())["class"] == "VAE"


def test_settings_read_from_a_folder_can_be_saved_again(tmp_path: Path) -> None:
    config, tensors = load_model(save_model(tmp_path / "a", {"class": "VAE", "format_version": 99}, PARTS))
    again, _ = load_model(save_model(tmp_path / "b", config, tensors))
    assert again == config


def test_overwrite_is_asked_for_and_leaves_other_files_alone(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", {"turn": 1}, PARTS)
    (folder / "report.html").write_text("kept")
    with pytest.raises(FileExistsError, match="already holds a model; pass overwrite=True"):
        save_model(folder, {"turn": 2}, PARTS)
    assert load_model(folder)[0]["turn"] == 1
    save_model(folder, {"turn": 2}, {"weight": torch.ones(3)}, overwrite=True)
    config, tensors = load_model(folder)
    assert config["turn"] == 2
    assert set(tensors) == {"weight"}
    assert sorted(os.listdir(folder)) == [CONFIG_FILE, TENSOR_FILE, "report.html"]


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (CONFIG_FILE, lambda text: text[: len(text) // 2], "not readable as JSON"),
        (CONFIG_FILE, lambda _: b"\xff\xfe", "not readable as JSON"),
        (CONFIG_FILE, lambda _: b"[]", "not a configuration written by pullback"),
        (CONFIG_FILE, lambda _: b"{}", "not a configuration written by pullback"),
        (CONFIG_FILE, lambda text: text.replace(b'"turn": 1', b'"turn": 2'), "altered since saved"),
        (
            CONFIG_FILE,
            lambda text: text.replace(b'"format_version": 1', b'"format_version": 2'),
            "format version 2",
        ),
        (TENSOR_FILE, lambda text: text[:-1], "truncated or altered since saved"),
        (TENSOR_FILE, lambda text: text[:-1] + bytes([text[-1] ^ 1]), "truncated or altered since saved"),
        (TENSOR_FILE, lambda _: b"", "truncated or altered since saved"),
    ],
)
def test_damaged_models_are_refused(tmp_path: Path, name: str, edit, message: str) -> None:
    folder = save_model(tmp_path / "model", {"turn": 1}, PARTS)
    (folder / name).write_bytes(edit((folder / name).read_bytes()))
    with pytest.raises(FormatError, match=message) as caught:
        load_model(folder)
    assert name in str(caught.value)


def test_swapped_tensors_of_another_model_are_refused(tmp_path: Path) -> None:
    first = save_model(tmp_path / "a", {}, PARTS)
    second = save_model(tmp_path / "b", {}, {"weight": torch.ones(2, 3), "bias": torch.ones(2)})
    (first / TENSOR_FILE).write_bytes((second / TENSOR_FILE).read_bytes())
    with pytest.raises(FormatError, match="checksum differs"):
        load_model(first)


def test_either_file_alone_is_not_a_model(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", {}, PARTS)
    content = (folder / TENSOR_FILE).read_bytes()
    (folder / TENSOR_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_model(folder)
    (folder / TENSOR_FILE).write_bytes(content)
    (folder / CONFIG_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_model(folder)


def test_an_error_inside_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = save_model(tmp_path / "model", {}, PARTS)
    finally:
        os.umask(before)
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in (CONFIG_FILE, TENSOR_FILE)} == {0o640}


KILLED_SAVE = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import torch
    from pullback.io import save_model

    folder, moment = Path(sys.argv[1]), int(sys.argv[2])
    seen = 0

    def watched(name):
        original = getattr(Path, name)

        def step(self, *args, **kwargs):
            global seen
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *args, **kwargs)

        setattr(Path, name, step)

    for name in ("replace", "unlink", "write_bytes", "write_text", "read_bytes"):
        watched(name)
    save_model(folder, {"turn": 2}, {"weight": torch.full((3,), 2.0)}, overwrite=True)
""")


def test_a_save_killed_at_any_step_leaves_the_old_model_or_the_new(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", {"turn": 1}, {"weight": torch.full((3,), 1.0)})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    turns = []
    for moment in range(1, 30):
        done = subprocess.run(
            [sys.executable, "-c", KILLED_SAVE, str(folder), str(moment)], env=environment, check=False
        )
        config, tensors = load_model(folder)
        assert torch.equal(tensors["weight"], torch.full((3,), float(config["turn"])))
        turns.append(config["turn"])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        # Start again from the first model, through whatever the killed process has left.
        save_model(folder, {"turn": 1}, {"weight": torch.full((3,), 1.0)}, overwrite=True)
        assert not (folder / PREVIOUS_TENSOR_FILE).exists()
    assert done.returncode == 0
    assert turns == sorted(turns)
    assert set(turns) == {1, 2}
    assert len(turns) >= 6


def test_saving_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    folder = save_model(tmp_path / "model", {"turn": 1}, PARTS)
    save_model(folder, {"turn": 2}, PARTS, overwrite=True)
    assert load_model(folder)[0]["turn"] == 2
    assert sorted(os.listdir(folder)) == [CONFIG_FILE, TENSOR_FILE]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with atomic_path(path) as temporary:
        # SIGKILL leaves a file of such a name
        temporary.with_name(temporary.name.replace(".tmp", "0.tmp")).write_text("half")
    kept = [tmp_path / name for name in ("checkpoint.safetensors", ".other.ab.tmp.safetensors")]
    for file in kept:
        file.write_text("whole")
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
