"""From an ONNX file to detections through an engine: on a GPU, or on the stand-ins for driver and
TensorRT that `test_host_engine.py` puts on the path.
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
from realtime_ssd_engines.requirements import has_bindings
from realtime_ssd_engines.tensorrt.build import EngineOptions, obtain
from realtime_ssd_engines.tensorrt.cache import EngineCache
from realtime_ssd_engines.tensorrt.layers import measure
from realtime_ssd_engines.tensorrt.recheck import recheck
from realtime_ssd_engines.tensorrt.toolchain import TensorRT

from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.files import sha256_of
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.spec import read_spec
from tests.engines.cuda.test_gpu_loop import _host_kernels  # noqa: F401 - an automatic fixture
from tests.tiny import bright_cell

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (find_gpus() and has_bindings() and find_spec("tensorrt")),
        reason="there is no NVIDIA GPU with PyCUDA and TensorRT",
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REALTIME_SSD_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


CELLS = [(0, 0), (1, 2), (3, 3), (2, 1), (0, 3)]


def frames() -> list[Frame]:
    return [Frame(bright_cell(cell), index=i) for i, cell in enumerate(CELLS)]


def answers(backend: Backend, given: list[Frame]) -> list[Detections]:
    """Answers to batches as large as they may be."""
    found = []
    for start in range(0, len(given), backend.max_batch):
        found += backend.collect(backend.submit(given[start : start + backend.max_batch]))
    return found


def assert_alike(got: list[Detections], expected: list[Detections], pixels: float) -> None:
    assert [len(one) for one in got] == [len(one) for one in expected]
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.class_ids, two.class_ids)
        np.testing.assert_allclose(one.scores, two.scores, atol=0.02)
        np.testing.assert_allclose(one.boxes, two.boxes, atol=pixels)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_engine_finds_what_onnx_runtime_finds(model: Path, folder: Path, batch: int) -> None:
    with open_backend(model, "onnxruntime") as backend:
        expected = answers(backend, frames())
    assert all(len(one) == 1 for one in expected)
    options = BackendOptions(batch=batch)
    with open_backend(model, "auto", options) as backend:
        assert backend.name == "tensorrt"
        assert_alike(answers(backend, frames()), expected, pixels=0.5)
    (entry,) = EngineCache().entries()
    assert entry.key is not None
    assert (entry.key.precision, entry.key.max_batch, entry.problem) == ("fp16", batch, "")
    assert entry.facts["agreement"]["passed"]
    assert list(folder.glob("timing-*.cache"))
    with open_backend(model, "tensorrt", options) as backend:
        assert_alike(answers(backend, frames()), expected, pixels=0.5)
    (again,) = EngineCache().entries()
    assert again == entry


def test_an_engine_that_tensorrt_refuses_is_built_again(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_backend(model, "tensorrt"):
        pass
    (entry,) = EngineCache().entries()
    entry.path.write_bytes(b"from another TensorRT")
    note = json.loads(entry.path.with_suffix(".json").read_text())
    note["sha256"] = sha256_of(entry.path)
    entry.path.with_suffix(".json").write_text(json.dumps(note))
    with open_backend(model, "tensorrt") as backend:
        assert len(answers(backend, frames()[:1])[0]) == 1
    assert "refuses the engine" in caplog.text
    (again,) = EngineCache().entries()
    assert again.path.read_bytes() != b"from another TensorRT"
    with pytest.raises(ModelError, match="refuses the engine"):
        TensorRT().open(b"rubbish", read_spec(model))


def test_an_engine_file_runs_without_its_onnx_file(model: Path, tmp_path: Path) -> None:
    from realtime_ssd_engines.cli import build as command

    with open_backend(model, "onnxruntime") as backend:
        expected = answers(backend, frames())
    copy = tmp_path / "copy.engine"
    command.build(str(model), max_batch=2, output=copy)
    with open_backend(model, "tensorrt", BackendOptions(batch=2, score_threshold=0.9)):
        pass  # thresholds of one run do not become those of the engine
    model.unlink()
    with open_backend(copy, options=BackendOptions(batch=2)) as backend:
        assert backend.name == "tensorrt"
        assert_alike(answers(backend, frames()), expected, pixels=0.5)
    with pytest.raises(UsageError, match="takes 2 images at once"):
        open_backend(copy, options=BackendOptions(batch=3))
    with pytest.raises(UsageError, match="backend 'onnxruntime' cannot run"):
        open_backend(copy, "onnxruntime")
    copy.write_bytes(copy.read_bytes() + b" ")
    with pytest.raises(ModelError, match="the file is damaged"):
        open_backend(copy)


def test_engine_and_onnx_file_are_scored_alike(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from realtime_ssd_engines.cli import build as command
    from realtime_ssd_training.cli import evaluate as scoring

    from tests.training.bright import write_bright_set

    data = f"coco:{write_bright_set(tmp_path / 'data')}"
    copy = tmp_path / "copy.engine"
    command.build(str(model), max_batch=2, output=copy)
    found = {}
    for name, path, backend in (
        ("onnx", model, "onnxruntime"),
        ("built", model, "tensorrt"),
        ("engine", copy, "auto"),
    ):
        out = tmp_path / f"{name}.json"
        scoring.evaluate(model=str(path), data=data, json=out, backend=backend, batch=2)
        found[name] = json.loads(out.read_text())
    assert [found[name]["backend"] for name in found] == ["onnxruntime", "tensorrt", "tensorrt"]
    assert 0.2 < found["onnx"]["AP"] < 0.9
    for name in ("built", "engine"):
        assert found[name]["AP"] == pytest.approx(found["onnx"]["AP"], abs=0.02)
        assert found[name]["AP50"] == pytest.approx(found["onnx"]["AP50"], abs=1e-6)


def test_a_fixed_batch_of_one(model: Path) -> None:
    fixed = onnx.load(str(model))
    for value in (fixed.graph.input[0], *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, str(model))
    with open_backend(model, "tensorrt") as backend:
        assert [len(one) for one in answers(backend, frames())] == [1] * len(CELLS)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_other_precisions_layers_and_a_second_look(
    model: Path, tmp_path: Path, precision: str
) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), bright_cell((1, 1)))
    said: list[str] = []
    options = EngineOptions(precision, max_batch=2, calibration=tmp_path)
    done = obtain(model, read_spec(model), options, said.append, [bright_cell((2, 2))])
    assert "comparing it with ONNX Runtime" in said
    if os.environ.get("HOST_TENSORRT") in ("10", "11"):
        assert "  100 % built" in said
    layers = measure(done.plan, read_spec(model), 3)
    assert sum(layer.milliseconds or 0 for layer in layers) > 0
    (entry,) = EngineCache().entries()
    if precision == "fp32":
        assert recheck(entry).passed


def test_a_file_that_tensorrt_cannot_read(model: Path) -> None:
    broken = onnx.load(str(model))
    broken.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(broken, str(model))
    options = EngineOptions("fp32")
    with pytest.raises(ModelError, match=r"cannot read '.*tiny.onnx'.*NoSuchOperator"):
        obtain(model, read_spec(model), options)
    assert not EngineCache().entries()


def test_the_real_model_on_real_photos(shared_data: Path, tmp_path: Path) -> None:
    from realtime_ssd_training.importers import ImportOptions, import_model

    path = tmp_path / "coco.onnx"
    folder = shared_data / "weights" / "ssd_mobilenet_v1_coco_onnx"
    import_model(folder / "ssd_mobilenet_v1_coco_300.onnx", path, ImportOptions())
    photos = [
        cv2.imread(str(shared_data / "photos/darknet" / f"{n}.jpg")) for n in ("dog", "giraffe")
    ]
    given = [Frame(photo, index=i) for i, photo in enumerate(photos)]
    options = BackendOptions(batch=2, score_threshold=0.5)
    with open_backend(path, "onnxruntime", options) as backend:
        expected = answers(backend, given)
    with open_backend(path, "tensorrt", options) as backend:
        got = answers(backend, [dataclasses.replace(frame) for frame in given])
    assert sum(map(len, expected)) >= 4
    assert_alike(got, expected, pixels=4.0)


def test_the_commands_build_report_list_verify_and_remove(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from realtime_ssd_engines.cli import build as command
    from realtime_ssd_engines.cli import engines as commands

    report, copy = tmp_path / "layers.json", tmp_path / "copy.engine"
    command.build(str(model), layers=True, report=report, output=copy)
    told = capsys.readouterr()
    assert "comparing it with ONNX Runtime" in told.err
    assert "fp16 engine of 'tiny'" in told.out
    layers = json.loads(report.read_text())
    assert layers
    assert all(layer["milliseconds"] is None or layer["milliseconds"] >= 0 for layer in layers)
    assert f"{len(layers)} layers" in told.out
    assert layers[0]["name"] in told.out
    (entry,) = EngineCache().entries()
    assert copy.read_bytes() == entry.path.read_bytes()
    commands.list_engines()
    assert "100.00 % agree  intact" in capsys.readouterr().out
    commands.verify()
    assert f"{entry.path.name}  intact" in capsys.readouterr().out
    commands.remove(entry.path.name[:8])
    assert not list(folder.glob("*.engine"))
    with pytest.raises(UsageError, match="exists; add --overwrite"):
        command.build(str(model), report=report)
