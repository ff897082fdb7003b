"""From ONNX file to detections through TensorRT-RTX, on a GPU or on stand-ins.

`test_host_engine.py` runs this file with stand-ins for the driver and TensorRT-RTX.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from realtime_ssd_engines.cli import build as build_command
from realtime_ssd_engines.requirements import has_bindings
from realtime_ssd_engines.tensorrt.cache import EngineCache, runtime_cache_file
from realtime_ssd_engines.tensorrt.flavors import explain_flavor, usable_flavors
from realtime_ssd_engines.tensorrt.toolchain import RtxToolchain

from realtime_ssd.backends import BackendOptions, backend_names, open_backend
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.gpu import find_gpus
from tests.engines.cuda.test_gpu_loop import host_kernels  # noqa: F401 - an autouse fixture
from tests.engines.tensorrt.test_engine_loop import CELLS, assert_close, detect, make_frames

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (find_gpus() and has_bindings() and find_spec("tensorrt_rtx")),
        reason="there is no NVIDIA GPU with Python bindings and TensorRT-RTX",
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REALTIME_SSD_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


def test_auto_runs_rtx_engines_without_tensorrt(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "tensorrt" in backend_names()
    assert usable_flavors()[0] == ("rtx",)
    assert explain_flavor().startswith("run with TensorRT-RTX; TensorRT is not installed")
    with open_backend(model, "onnxruntime") as backend:
        expected = detect(backend, make_frames())
    with open_backend(model, "auto", BackendOptions(batch=3)) as backend:
        assert backend.name == "tensorrt"
        assert_close(detect(backend, make_frames()), expected, pixels=0.5)
    (entry,) = EngineCache().entries()
    assert entry.key is not None
    assert (entry.key.flavor, entry.key.max_batch, entry.problem) == ("rtx", 3, "")
    assert entry.metadata["agreement"]["passed"]
    assert "cannot be captured" not in caplog.text


def test_compiled_kernels_are_kept_beside_the_engine(model: Path) -> None:
    options = BackendOptions(batch=3)
    with open_backend(model, "tensorrt", options):
        pass
    (entry,) = EngineCache().entries()
    file = runtime_cache_file(entry.path)
    content = file.read_bytes()
    assert [content.count(b"batch %d" % size) for size in (1, 2, 3)] == [1, 1, 1]
    file.write_bytes(content + b"\nkernel of another run")
    written = file.stat().st_mtime_ns
    with open_backend(model, "tensorrt", options):
        pass
    assert file.stat().st_mtime_ns == written  # it was loaded, and nothing was compiled again
    file.write_bytes(b"of another driver")
    with open_backend(model, "tensorrt", options) as backend:
        assert list(map(len, detect(backend, make_frames()))) == [1] * len(CELLS)
    assert file.read_bytes() == content
    EngineCache().remove(entry.path)
    assert not file.exists()


def test_a_folder_that_is_not_writable_costs_only_the_kernels(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with open_backend(model, "tensorrt"):
        pass
    (entry,) = EngineCache().entries()
    runtime_cache_file(entry.path).unlink()
    monkeypatch.setattr("realtime_ssd_engines.tensorrt.network.replace_file", fail)
    with open_backend(model, "tensorrt") as backend:
        assert len(detect(backend, make_frames()[:1])[0]) == 1
    assert not runtime_cache_file(entry.path).exists()


def test_a_shipped_engine_is_compared_when_it_is_first_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    capability = "{}.{}".format(*find_gpus()[0].capability)
    shipped = tmp_path / "shipped" / "m.engine"
    with monkeypatch.context() as patch:
        patch.setattr(RtxToolchain, "can_run", lambda _: False)
        with pytest.raises(UsageError, match="`layers` and `report` measure the engine"):
            build_command.build(
                str(model), flavor="rtx", compute_capability=capability, layers=True
            )
        build_command.build(
            str(model), flavor="rtx", compute_capability=capability, batch=2, output=shipped
        )
    names = {file.name for file in shipped.parent.iterdir()}
    assert names == {"m.engine", "m.json", "m.reference.onnx"}
    model.unlink()
    for compared in (True, False):
        caplog.clear()
        with open_backend(shipped, options=BackendOptions(batch=2, score_threshold=0.9)) as backend:
            assert list(map(len, detect(backend, make_frames()))) == [1] * len(CELLS)
        assert ("comparing engine 'm.engine' with ONNX Runtime" in caplog.text) is compared
    metadata = json.loads(shipped.with_suffix(".json").read_text())
    assert metadata["compared_on"] == find_gpus()[0].name
    metadata["agreement"]["passed"] = False
    shipped.with_suffix(".json").write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match="disagrees with its ONNX file on GPU"):
        open_backend(shipped)


def test_gpus_that_do_not_exist_are_rejected(model: Path) -> None:
    with pytest.raises(UsageError, match=r"`device` 7 does not exist: the NVIDIA driver finds "):
        open_backend(model, "tensorrt", BackendOptions(device=7))
    with open_backend(model, "tensorrt", BackendOptions(device=0)) as backend:
        assert list(map(len, detect(backend, make_frames()))) == [1] * len(CELLS)
