"""Conversion, build, verification and caching of engines, with ONNX Runtime as the toolchain."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from realtime_ssd_engines.onnx.verify import Heads, Runner, onnx_runner
from realtime_ssd_engines.requirements import missing_parts
from realtime_ssd_engines.tensorrt import engine_builder, library
from realtime_ssd_engines.tensorrt import toolchain as toolchain_module
from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
from realtime_ssd_engines.tensorrt.layers import profile_engine
from realtime_ssd_engines.tensorrt.toolchain import RtxToolchain, Target, make_toolchain

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.gpu import Gpu, find_gpus
from realtime_ssd.core.spec import ModelSpec, read_spec
from tests.engines.tensorrt.onnx_toolchain import (
    OnnxToolchain,
    build_and_hash,
    build_engine,
)
from tests.tiny import bright_cell


def input_type(plan: bytes) -> int:
    dtype: int = onnx.load_from_string(plan).graph.input[0].type.tensor_type.elem_type
    return dtype


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", onnx.TensorProto.FLOAT), ("fp16", onnx.TensorProto.FLOAT16)]
)
def test_engines_are_built_once_and_then_read_from_the_cache(
    model: Path, tmp_path: Path, precision: str, dtype: int
) -> None:
    toolchain = OnnxToolchain()
    first = build_engine(
        model, tmp_path / "c", toolchain, precision=precision, batch=8, opt_batch=2
    )
    again = build_engine(
        model, tmp_path / "c", toolchain, precision=precision, batch=8, opt_batch=2
    )
    assert first.plan == again.plan
    assert input_type(first.plan) == dtype
    assert [request.profiles for request in toolchain.requests] == [((1, 1, 1), (1, 2, 8))]
    metadata = json.loads(first.path.with_suffix(".json").read_text())
    assert metadata["agreement"]["passed"]
    assert metadata["agreement"]["detections"] > 0
    assert metadata["source"] == str(model)
    assert metadata["key"]["model_sha256"] == first.key.model_sha256


def test_engines_depend_on_target_options_and_model(model: Path, tmp_path: Path) -> None:
    toolchain, cache = OnnxToolchain(), tmp_path / "c"
    newer = OnnxToolchain(target=Target("ONNX Runtime on a CPU", "0.0", "2.0"))
    paths = {
        build_engine(model, cache, toolchain).path,
        build_engine(model, cache, newer).path,
        build_engine(model, cache, toolchain, batch=2).path,
        build_engine(model, cache, toolchain, batch=2, opt_batch=1).path,
        build_engine(model, cache, toolchain, precision="fp32").path,
    }
    changed = onnx.load(str(model))
    changed.doc_string = "changed"
    onnx.save(changed, str(model))
    paths.add(build_engine(model, cache, toolchain).path)
    assert len(paths) == 6


def test_damaged_engines_are_rebuilt_and_rebuild_is_respected(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toolchain = OnnxToolchain()
    first = build_engine(model, tmp_path / "c", toolchain)
    first.path.write_bytes(b"garbage")
    assert build_engine(model, tmp_path / "c", toolchain).plan == first.plan
    assert len(caplog.messages) == 1
    assert "rebuilding the cached engine" in caplog.text
    assert "the file is damaged" in caplog.text
    build_engine(model, tmp_path / "c", toolchain, rebuild=True)
    assert len(toolchain.requests) == 3


def test_models_with_a_fixed_batch_have_no_profile(model: Path, tmp_path: Path) -> None:
    fixed = onnx.load(str(model))
    for value in (fixed.graph.input[0], *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, str(model))
    toolchain = OnnxToolchain()
    build_engine(model, tmp_path / "c", toolchain)
    assert toolchain.requests[0].profiles == ()
    with pytest.raises(UsageError, match=r"fixed batch of 1, so `batch` cannot be 4"):
        build_engine(model, tmp_path / "c", toolchain, batch=4)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(fixed, str(model))
    with pytest.raises(ModelError, match="fixed batch of 3"):
        build_engine(model, tmp_path / "c", toolchain)


def test_int8_engines_depend_on_the_calibration_images(model: Path, tmp_path: Path) -> None:
    import cv2

    photos = tmp_path / "photos"
    photos.mkdir()
    for cell in range(4):
        cv2.imwrite(str(photos / f"{cell}.png"), bright_cell((cell, cell)))
    engine = build_engine(model, tmp_path / "c", precision="int8", calibration=photos)
    kinds = {node.op_type for node in onnx.load_from_string(engine.plan).graph.node}
    assert "QuantizeLinear" in kinds
    assert engine.key.calibration
    cv2.imwrite(str(photos / "more.png"), bright_cell((0, 3)))
    recalibrated = build_engine(model, tmp_path / "c", precision="int8", calibration=photos)
    assert recalibrated.key.calibration != engine.key.calibration


def shifted(heads: Heads) -> Heads:
    return heads[0], heads[1] + np.float32(0.5)


def with_nan(heads: Heads) -> Heads:
    scores = heads[0].copy()
    scores[3, 1] = np.nan
    return scores, heads[1]


@pytest.mark.parametrize(
    ("modify", "reason"), [(shifted, "0.00 %"), (with_nan, "values are NaN or infinite")]
)
def test_engines_that_disagree_are_rejected_with_a_report(
    model: Path, tmp_path: Path, modify: Callable[[Heads], Heads], reason: str
) -> None:
    toolchain = OnnxToolchain(modify=modify)
    with pytest.raises(ModelError, match="build it in fp32 with") as caught:
        build_engine(model, tmp_path / "c", toolchain)
    assert reason in str(caught.value)
    (report,) = (tmp_path / "c").glob("*.refused.json")
    assert str(report) in str(caught.value)
    contents = json.loads(report.read_text())
    assert contents["layers"][0]["kind"] == "OnnxRuntime"
    assert not contents["agreement"]["passed"]
    assert not list((tmp_path / "c").glob("*.engine"))
    assert build_engine(model, tmp_path / "c", toolchain, verify=False).plan


def test_engines_are_verified_on_the_synthetic_street_by_default(
    model: Path, tmp_path: Path
) -> None:
    engine = build_engine(model, tmp_path / "c", frames=None)
    assert engine.metadata["agreement"]["frames"] == 12
    assert engine.metadata["agreement"]["detections"] > 12


@pytest.mark.parametrize(("precision", "original"), [("fp16", True), ("int8", False)])
def test_engines_are_compared_with_the_right_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, original: bool
) -> None:
    """FP16 engines are compared with the original file, INT8 engines with their Q/DQ file."""
    import cv2

    cv2.imwrite(str(tmp_path / "1.png"), bright_cell((1, 1)))
    references: list[Path] = []

    def record(path: Path, spec: ModelSpec) -> Runner:
        references.append(path)
        return onnx_runner(path, spec)

    monkeypatch.setattr(engine_builder, "onnx_runner", record)
    build_engine(model, tmp_path / "c", precision=precision, calibration=tmp_path)
    assert [path == model for path in references] == [original]


def test_the_timing_cache_is_updated_by_each_build(model: Path, tmp_path: Path) -> None:
    toolchain, custom = OnnxToolchain(), tmp_path / "custom" / "timing.cache"
    build_engine(model, tmp_path / "c", toolchain)
    build_engine(model, tmp_path / "c", toolchain, precision="fp32")
    (default,) = (tmp_path / "c").glob("timing-*.cache")
    assert default.read_bytes() == b"timed;timed;"
    build_engine(model, tmp_path / "c", toolchain, timing_cache=custom, rebuild=True)
    assert custom.read_bytes() == b"timed;"
    assert default.read_bytes() == b"timed;timed;"


def test_concurrent_processes_build_an_engine_once(model: Path, tmp_path: Path) -> None:
    log, cache = tmp_path / "builds.txt", tmp_path / "c"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=spawn) as pool:
        futures = [pool.submit(build_and_hash, model, cache, log) for _ in range(3)]
        plans = {future.result(timeout=100) for future in futures}
    assert len(plans) == 1
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "must be one of fp16, fp32, int8, not 'fp8'"),
        ({"batch": 0}, "`batch` must be at least 1, not 0"),
        (
            {"batch": 2, "opt_batch": 3},
            "`opt_batch` must be between 1 and 2, the largest.*not 3",
        ),
        (
            {"batch": 2, "opt_batch": 0},
            "`opt_batch` must be between 1 and 2, the largest.*not 0",
        ),
        ({"precision": "int8"}, "set `calibration` to a folder"),
        ({"precision": "int8", "calibration": Path("nowhere")}, "'nowhere' is not a folder"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EngineOptions(**options)


def test_a_damaged_model_raises_model_error(model: Path, tmp_path: Path) -> None:
    spec = read_spec(model)
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"tiny.onnx' is not a readable ONNX file"):
        get_or_build_engine(model, spec, EngineOptions(cache=tmp_path), toolchain=OnnxToolchain())


def test_engines_are_built_and_loaded_for_the_selected_gpu(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    gpus = (Gpu(0, "first", (8, 9), 1 << 30), Gpu(1, "second", (12, 0), 1 << 30))
    opened: list[int] = []

    def open_device(number: int) -> None:
        opened.append(number)
        raise ModelError("no driver here")

    monkeypatch.setattr(toolchain_module, "find_gpus", lambda: gpus)
    monkeypatch.setattr(toolchain_module, "require_gpu", lambda *_: None)
    monkeypatch.setattr(toolchain_module, "missing_parts", lambda _: [])
    monkeypatch.setattr(toolchain_module, "Device", open_device)
    monkeypatch.setattr(library, "version", lambda flavor="tensorrt": flavor)
    for device, (name, capability) in enumerate((("first", "8.9"), ("second", "12.0"))):
        tensorrt, rtx = make_toolchain("tensorrt", device=device), RtxToolchain((), device)
        assert tensorrt.target() == Target(name, capability, "tensorrt")
        assert rtx.target() == Target("RTX", capability, "rtx")
        assert tensorrt.gpu_name() == rtx.gpu_name() == name
        assert RtxToolchain(["8.9"], device).can_run() is (device == 0)
        for toolchain in (tensorrt, rtx):
            with pytest.raises(ModelError, match="no driver here"):
                toolchain.load(b"", read_spec(model))
        assert opened == [device] * 2
        opened.clear()


def test_layers_are_profiled(model: Path, tmp_path: Path) -> None:
    engine = build_engine(model, tmp_path / "c")
    (layer,) = profile_engine(engine.plan, read_spec(model), 2, OnnxToolchain())
    assert layer.milliseconds is not None
    assert layer.milliseconds > 0


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
def test_without_a_gpu_the_error_lists_what_is_missing(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        get_or_build_engine(model, read_spec(model), EngineOptions(cache=tmp_path))
    assert all(part in str(caught.value) for part in missing_parts())
    assert not list(tmp_path.glob("*.engine"))
