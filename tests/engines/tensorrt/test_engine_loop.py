"""From ONNX file to detections through an engine, on a GPU or on stand-ins.

`test_host_engine.py` runs this file with stand-ins for the driver and TensorRT.
"""

from __future__ import annotations

import dataclasses
import json
import os
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from realtime_ssd_engines.cuda import compile as compile_module
from realtime_ssd_engines.requirements import has_bindings
from realtime_ssd_engines.tensorrt.cache import EngineCache
from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
from realtime_ssd_engines.tensorrt.layers import profile_engine
from realtime_ssd_engines.tensorrt.recheck import recheck
from realtime_ssd_engines.tensorrt.toolchain import TensorRTToolchain

from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.files import sha256_of
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.spec import read_spec
from tests.engines.cuda.test_gpu_loop import host_kernels  # noqa: F401 - an autouse fixture
from tests.engines.cuda.test_preprocess import read_image
from tests.tiny import bright_cell

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (find_gpus() and has_bindings() and find_spec("tensorrt")),
        reason="there is no NVIDIA GPU with Python bindings and TensorRT",
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REALTIME_SSD_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


CELLS = [(0, 0), (1, 2), (3, 3), (2, 1), (0, 3)]


def make_frames() -> list[Frame]:
    return [Frame(bright_cell(cell), index=i) for i, cell in enumerate(CELLS)]


def detect(backend: Backend, frames: list[Frame]) -> list[Detections]:
    """Detect objects in batches of the maximum size."""
    results: list[Detections] = []
    for start in range(0, len(frames), backend.max_batch):
        results += backend.collect(backend.submit(frames[start : start + backend.max_batch]))
    return results


def assert_close(got: list[Detections], expected: list[Detections], pixels: float) -> None:
    assert list(map(len, got)) == list(map(len, expected))
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.class_ids, two.class_ids)
        np.testing.assert_allclose(one.scores, two.scores, atol=0.02)
        np.testing.assert_allclose(one.boxes, two.boxes, atol=pixels)


@pytest.mark.parametrize("batch", [1, 3])
def test_engine_and_onnx_runtime_detect_the_same_objects(
    model: Path, folder: Path, batch: int
) -> None:
    with open_backend(model, "onnxruntime") as backend:
        expected = detect(backend, make_frames())
    assert [len(detections) for detections in expected] == [1] * len(CELLS)
    options = BackendOptions(batch=batch)
    with open_backend(model, "auto", options) as backend:
        assert backend.name == "tensorrt"
        assert_close(detect(backend, make_frames()), expected, pixels=0.5)
    (entry,) = EngineCache().entries()
    assert entry.key is not None
    assert (entry.key.precision, entry.key.max_batch, entry.problem) == ("fp16", batch, "")
    assert entry.metadata["agreement"]["passed"]
    assert list(folder.glob("timing-*.cache"))
    with open_backend(model, "tensorrt", options) as backend:
        assert_close(detect(backend, make_frames()), expected, pixels=0.5)
    (again,) = EngineCache().entries()
    assert again == entry


def test_engines_that_tensorrt_cannot_load_are_rebuilt(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_backend(model, "tensorrt"):
        pass
    (entry,) = EngineCache().entries()
    entry.path.write_bytes(b"from another TensorRT")
    metadata = json.loads(entry.path.with_suffix(".json").read_text())
    metadata["sha256"] = sha256_of(entry.path)
    entry.path.with_suffix(".json").write_text(json.dumps(metadata))
    with open_backend(model, "tensorrt") as backend:
        assert len(detect(backend, make_frames()[:1])[0]) == 1
    assert "cannot load the engine" in caplog.text
    (again,) = EngineCache().entries()
    assert again.path.read_bytes() != b"from another TensorRT"
    with pytest.raises(ModelError, match="cannot load the engine"):
        TensorRTToolchain().load(b"garbage", read_spec(model))


def test_engines_whose_outputs_contradict_the_specification_are_rejected(model: Path) -> None:
    spec = read_spec(model)
    plan = get_or_build_engine(model, spec, EngineOptions()).plan
    wrong = dataclasses.replace(spec, labels=(*spec.labels, "another class"))
    with pytest.raises(ModelError, match=r"'scores' .* has shape \(1, 16, 2\), .* \(1, 16, 3\)"):
        TensorRTToolchain().load(plan, wrong)


def test_engine_files_run_without_their_onnx_file(model: Path, tmp_path: Path) -> None:
    from realtime_ssd_engines.cli import build as build_command

    with open_backend(model, "onnxruntime") as backend:
        expected = detect(backend, make_frames())
    copy = tmp_path / "copy.engine"
    build_command.build(str(model), batch=2, output=copy)
    with open_backend(model, "tensorrt", BackendOptions(batch=2, score_threshold=0.9)):
        pass  # thresholds of a run are not stored with the engine
    model.unlink()
    with open_backend(copy, options=BackendOptions(batch=2)) as backend:
        assert backend.name == "tensorrt"
        assert_close(detect(backend, make_frames()), expected, pixels=0.5)
    with pytest.raises(UsageError, match=r"`batch` must be at most 2, .* not 3"):
        open_backend(copy, options=BackendOptions(batch=3))
    with pytest.raises(UsageError, match="backend 'onnxruntime' cannot run"):
        open_backend(copy, "onnxruntime")
    copy.write_bytes(copy.read_bytes() + b" ")
    with pytest.raises(ModelError, match="the file is damaged"):
        open_backend(copy)


def test_engine_and_onnx_file_have_the_same_average_precision(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from realtime_ssd_engines.cli import build as build_command
    from realtime_ssd_training.cli import evaluate as evaluate_command

    from tests.training.bright import write_bright_set

    data = f"coco:{write_bright_set(tmp_path / 'data')}"
    copy = tmp_path / "copy.engine"
    build_command.build(str(model), batch=2, output=copy)
    scores = {}
    for name, path, backend in (
        ("onnx", model, "onnxruntime"),
        ("built", model, "tensorrt"),
        ("engine", copy, "auto"),
    ):
        out = tmp_path / f"{name}.json"
        evaluate_command.evaluate(model=str(path), data=data, json=out, backend=backend, batch=2)
        scores[name] = json.loads(out.read_text())
    assert [scores[name]["backend"] for name in scores] == ["onnxruntime", "tensorrt", "tensorrt"]
    assert 0.2 < scores["onnx"]["AP"] < 0.9
    for name in ("built", "engine"):
        assert scores[name]["AP"] == pytest.approx(scores["onnx"]["AP"], abs=0.02)
        assert scores[name]["AP50"] == pytest.approx(scores["onnx"]["AP50"], abs=1e-6)


def test_without_a_kernel_compiler_no_engine_is_built(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_module, "compiler_name", lambda: None)
    with pytest.raises(ModelError, match="neither NVRTC nor nvcc was found"):
        open_backend(model, "tensorrt")
    assert not EngineCache().entries()


def test_models_with_a_fixed_batch_of_one(model: Path) -> None:
    fixed = onnx.load(str(model))
    for value in (fixed.graph.input[0], *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, str(model))
    with open_backend(model, "tensorrt") as backend:
        assert list(map(len, detect(backend, make_frames()))) == [1] * len(CELLS)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_other_precisions_are_built_profiled_and_verified(
    model: Path, tmp_path: Path, precision: str
) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), bright_cell((1, 1)))
    progress: list[str] = []
    options = EngineOptions(precision, batch=2, calibration=tmp_path)
    engine = get_or_build_engine(
        model, read_spec(model), options, progress.append, [bright_cell((2, 2))]
    )
    assert "comparing it with ONNX Runtime" in progress
    if "HOST_TENSORRT" in os.environ:
        header = json.loads(engine.plan.split(b"\n")[1])
        assert header["tf32"] is (precision != "fp32")
    if os.environ.get("HOST_TENSORRT") in ("10", "11"):
        assert "  100 % built" in progress
    layers = profile_engine(engine.plan, read_spec(model), 3)
    assert sum(layer.milliseconds or 0 for layer in layers) > 0
    (entry,) = EngineCache().entries()
    if precision == "fp32":
        assert recheck(entry).passed


def test_unsupported_operators_raise_an_error_that_names_them(model: Path) -> None:
    spec, unsupported = read_spec(model), onnx.load(str(model))
    unsupported.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(unsupported, str(model))
    options = EngineOptions("fp32")
    with pytest.raises(ModelError, match=r"cannot parse '.*tiny.onnx'.*NoSuchOperator"):
        get_or_build_engine(model, spec, options)
    assert not EngineCache().entries()


def test_the_coco_model_detects_the_same_objects_in_photos(
    shared_data: Path, tmp_path: Path
) -> None:
    from realtime_ssd_training.importers import ImportOptions, import_model

    path = tmp_path / "coco.onnx"
    folder = shared_data / "weights" / "ssd_mobilenet_v1_coco_onnx"
    import_model(folder / "ssd_mobilenet_v1_coco_300.onnx", path, ImportOptions())
    folder = shared_data / "photos/darknet"
    photos = [read_image(folder / f"{name}.jpg") for name in ("dog", "giraffe")]
    frames = [Frame(photo, index=i) for i, photo in enumerate(photos)]
    options = BackendOptions(batch=2, score_threshold=0.5)
    with open_backend(path, "onnxruntime", options) as backend:
        expected = detect(backend, frames)
    with open_backend(path, "tensorrt", options) as backend:
        got = detect(backend, [dataclasses.replace(frame) for frame in frames])
    assert sum(map(len, expected)) >= 4
    assert_close(got, expected, pixels=4.0)


def test_commands_build_list_verify_and_remove_engines(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from realtime_ssd_engines.cli import build as build_command
    from realtime_ssd_engines.cli import engines as engine_commands

    report, copy = tmp_path / "layers.json", tmp_path / "copy.engine"
    build_command.build(str(model), layers=True, report=report, output=copy)
    captured = capsys.readouterr()
    assert "comparing it with ONNX Runtime" in captured.err
    assert "fp16 engine of 'tiny'" in captured.out
    layers = json.loads(report.read_text())
    assert layers
    assert all(layer["milliseconds"] is None or layer["milliseconds"] >= 0 for layer in layers)
    assert f"{len(layers)} layers" in captured.out
    assert layers[0]["name"] in captured.out
    (entry,) = EngineCache().entries()
    assert copy.read_bytes() == entry.path.read_bytes()
    engine_commands.list_engines()
    assert "100.00 % agree  intact" in capsys.readouterr().out
    engine_commands.verify()
    assert f"{entry.path.name}  intact" in capsys.readouterr().out
    engine_commands.remove(entry.path.name[:8])
    assert not list(folder.glob("*.engine"))
    with pytest.raises(UsageError, match="exists; set `overwrite`"):
        build_command.build(str(model), report=report)
