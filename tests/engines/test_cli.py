"""`realtime-ssd build` and `realtime-ssd engines`, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from realtime_ssd_engines.requirements import missing_parts

from realtime_ssd.core.gpu import find_gpus
from tests.cli.program import run
from tests.engines.runtime import get
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(bool(find_gpus()), reason="says what a machine without a GPU says")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two engines in a folder that the program is told to use."""
    from tests.cli import program

    model = tiny_model(tmp_path / "tiny.onnx")
    get(model, tmp_path / "engines")
    get(model, tmp_path / "engines", precision="fp32", max_batch=4)
    moved = {**program.ENVIRONMENT, "REALTIME_SSD_ENGINES": str(tmp_path / "engines")}
    monkeypatch.setattr(program, "ENVIRONMENT", moved)
    return tmp_path / "engines"


def test_list_verify_and_remove(folder: Path) -> None:
    listed = run("engines").stdout.splitlines()
    assert len(listed) == 2
    assert "tiny fp16 batch 1, ONNX Runtime on a CPU, TensorRT 1.0" in listed[0]
    assert "100.00 % agree  intact" in listed[0]
    checked = run("engines", "verify")
    assert checked.returncode == 0
    assert checked.stdout.count("intact") == 2
    assert all(part in checked.stderr for part in missing_parts())
    next(folder.glob("tiny-fp32*.engine")).write_bytes(b"rubbish")
    broken = run("engines", "verify")
    assert broken.returncode == 1
    assert "the file is damaged" in broken.stdout
    assert "1 of 2 engines cannot be used" in broken.stderr
    assert run("engines", "remove", "tiny-fp32").stdout == "1 engines removed\n"
    assert run("engines", "remove", "tiny-fp32").returncode == 2
    assert run("engines", "remove").returncode == 2
    assert run("engines", "remove", "--all").stdout == "1 engines removed\n"
    assert run("engines", "list").stdout == f"no engines in '{folder}'\n"


def test_build_without_a_gpu_names_what_is_missing(folder: Path) -> None:
    done = run("build", folder.parent / "tiny.onnx", "--max-batch", 4)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert all(part in done.stderr for part in missing_parts())
    taken = run("build", folder.parent / "tiny.onnx", "--output", folder.parent / "tiny.onnx")
    assert taken.returncode == 2
    assert "add --overwrite" in taken.stderr


def test_backend_tensorrt_without_a_gpu_and_auto(folder: Path) -> None:
    words = (
        "--source",
        "demo:64x64,frames=1",
        "--model",
        folder.parent / "tiny.onnx",
        "--json",
        "-",
    )
    asked = run(*words, "--backend", "tensorrt")
    assert asked.returncode == 1
    assert "cannot run TensorRT engines: it lacks" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1
    auto = run(*words)
    assert auto.returncode == 0
    assert auto.stdout
