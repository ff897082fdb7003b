"""`realtime-ssd build` and `realtime-ssd engines` as separate processes, without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from realtime_ssd_engines.requirements import missing_parts

from realtime_ssd.core.gpu import find_gpus
from tests.cli.program import run
from tests.engines.tensorrt.onnx_toolchain import build_engine
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(
    bool(find_gpus()), reason="asserts the output of a machine without a GPU"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an engine folder with two engines, which the program uses."""
    from tests.cli import program

    model = tiny_model(tmp_path / "tiny.onnx")
    build_engine(model, tmp_path / "engines")
    build_engine(model, tmp_path / "engines", precision="fp32", batch=4)
    environment = {**program.ENVIRONMENT, "REALTIME_SSD_ENGINES": str(tmp_path / "engines")}
    monkeypatch.setattr(program, "ENVIRONMENT", environment)
    return tmp_path / "engines"


def test_engines_are_listed_verified_and_removed(folder: Path) -> None:
    listed = run("engines").stdout.splitlines()
    assert len(listed) == 2
    assert "tiny fp16 batch 1, ONNX Runtime on a CPU 0.0, TensorRT 1.0" in listed[0]
    assert "100.00 % agree  intact" in listed[0]
    verified = run("engines", "verify")
    assert verified.returncode == 0
    assert verified.stdout.count("intact") == 2
    assert all(part in verified.stderr for part in missing_parts())
    next(folder.glob("tiny-fp32*.engine")).write_bytes(b"garbage")
    failed = run("engines", "verify")
    assert failed.returncode == 1
    assert "the file is damaged" in failed.stdout
    assert "1 of 2 engines cannot be used" in failed.stderr
    assert run("engines", "remove", "tiny-fp32").stdout == "1 engines removed\n"
    assert run("engines", "remove", "tiny-fp32").returncode == 2
    assert run("engines", "remove").returncode == 2
    assert run("engines", "remove", "--all").stdout == "1 engines removed\n"
    assert run("engines", "list").stdout == f"no engines in '{folder}'\n"


def test_build_without_a_gpu_lists_what_is_missing(folder: Path) -> None:
    result = run("build", folder.parent / "tiny.onnx", "--batch", 4)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert all(part in result.stderr for part in missing_parts())
    (folder.parent / "old.engine").touch()
    existing = run("build", folder.parent / "tiny.onnx", "--output", folder.parent / "old.engine")
    assert existing.returncode == 2
    assert "set --overwrite" in existing.stderr


def test_without_a_gpu_tensorrt_fails_and_auto_uses_the_cpu(folder: Path) -> None:
    arguments = (
        "--source",
        "demo:64x64,frames=1",
        "--model",
        folder.parent / "tiny.onnx",
        "--json",
        "-",
    )
    result = run(*arguments, "--backend", "tensorrt")
    assert result.returncode == 1
    assert "cannot run TensorRT engines: missing" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    auto = run(*arguments)
    assert auto.returncode == 0
    assert auto.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("build", "street", "--flavor", "rtx", "--compute-capability", "8.9"),
        ("benchmark", "--duration", 0.1),
        ("--source", "demo:64x64,frames=1", "--json", "-"),
    ],
)
def test_a_gpu_that_does_not_exist_is_a_usage_error(command: tuple[object, ...]) -> None:
    result = run(*command, "--device", 1)
    assert (result.returncode, result.stdout) == (2, "")
    message = "realtime-ssd: --device 1 does not exist: the NVIDIA driver finds no GPU"
    assert result.stderr.splitlines()[-1] == message


def test_hardware_decoding_requires_the_first_gpu() -> None:
    arguments = ("--source", "demo:64x64,frames=1", "--json", "-", "--decoder", "gpu")
    result = run(*arguments, "--device", 1)
    assert result.returncode == 2
    assert "--decoder gpu decodes on GPU 0; set --device to 0" in result.stderr
