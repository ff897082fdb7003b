"""The order of work: convert, build, verify, keep — with ONNX Runtime in TensorRT's place."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from realtime_ssd_engines.onnx.verify import Heads
from realtime_ssd_engines.requirements import missing_parts
from realtime_ssd_engines.tensorrt.build import EngineOptions, ensure_engine, obtain
from realtime_ssd_engines.tensorrt.layers import measure
from realtime_ssd_engines.tensorrt.toolchain import Machine

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.spec import read_spec
from tests.engines.runtime import OnnxToolchain, get, get_in_process
from tests.tiny import bright_cell


def input_type(plan: bytes) -> int:
    kind: int = onnx.load_from_string(plan).graph.input[0].type.tensor_type.elem_type
    return kind


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp32", onnx.TensorProto.FLOAT), ("fp16", onnx.TensorProto.FLOAT16)]
)
def test_built_once_then_from_the_cache(
    model: Path, tmp_path: Path, precision: str, kind: int
) -> None:
    tools = OnnxToolchain()
    first = get(model, tmp_path / "c", tools, precision=precision, max_batch=8, opt_batch=2)
    again = get(model, tmp_path / "c", tools, precision=precision, max_batch=8, opt_batch=2)
    assert first.plan == again.plan
    assert input_type(first.plan) == kind
    assert [job.batches for job in tools.jobs] == [(1, 2, 8)]
    note = json.loads(first.path.with_suffix(".json").read_text())
    assert note["agreement"]["passed"]
    assert note["agreement"]["detections"] > 0
    assert note["source"] == str(model)
    assert note["key"]["model_sha256"] == first.key.model_sha256


def test_another_machine_option_or_model_needs_another_engine(model: Path, tmp_path: Path) -> None:
    tools, cache = OnnxToolchain(), tmp_path / "c"
    newer = OnnxToolchain(machine=Machine("ONNX Runtime on a CPU", "0.0", "2.0", "none"))
    paths = {
        get(model, cache, tools).path,
        get(model, cache, newer).path,
        get(model, cache, tools, max_batch=2).path,
        get(model, cache, tools, max_batch=2, opt_batch=1).path,
        get(model, cache, tools, precision="fp32").path,
    }
    changed = onnx.load(str(model))
    changed.doc_string = "changed"
    onnx.save(changed, str(model))
    paths.add(get(model, cache, tools).path)
    assert len(paths) == 6


def test_damage_is_built_again_and_rebuild_is_obeyed(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tools = OnnxToolchain()
    first = get(model, tmp_path / "c", tools)
    first.path.write_bytes(b"rubbish")
    assert get(model, tmp_path / "c", tools).plan == first.plan
    assert len(caplog.messages) == 1
    assert "is built again: the file is damaged" in caplog.text
    get(model, tmp_path / "c", tools, rebuild=True)
    assert len(tools.jobs) == 3


def test_a_fixed_batch_has_no_profile_and_takes_one_image(model: Path, tmp_path: Path) -> None:
    fixed = onnx.load(str(model))
    for value in (fixed.graph.input[0], *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, str(model))
    tools = OnnxToolchain()
    get(model, tmp_path / "c", tools)
    assert tools.jobs[0].batches is None
    with pytest.raises(UsageError, match=r"fixed batch of 1, so `max_batch` cannot be 4"):
        get(model, tmp_path / "c", tools, max_batch=4)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(fixed, str(model))
    with pytest.raises(ModelError, match="fixed batch of 3"):
        get(model, tmp_path / "c", tools)


def test_int8_is_calibrated_on_photos(model: Path, tmp_path: Path) -> None:
    import cv2

    photos = tmp_path / "photos"
    photos.mkdir()
    for cell in range(4):
        cv2.imwrite(str(photos / f"{cell}.png"), bright_cell((cell, cell)))
    done = get(model, tmp_path / "c", precision="int8", calibration=photos)
    kinds = {node.op_type for node in onnx.load_from_string(done.plan).graph.node}
    assert "QuantizeLinear" in kinds
    assert done.key.calibration
    cv2.imwrite(str(photos / "more.png"), bright_cell((0, 3)))
    more = get(model, tmp_path / "c", precision="int8", calibration=photos)
    assert more.key.calibration != done.key.calibration


def shifted(heads: Heads) -> Heads:
    return heads[0], heads[1] + np.float32(0.5)


def poisoned(heads: Heads) -> Heads:
    scores = heads[0].copy()
    scores[3, 1] = np.nan
    return scores, heads[1]


@pytest.mark.parametrize(
    ("change", "reason"), [(shifted, "0.00 %"), (poisoned, "values are NaN or infinite")]
)
def test_an_engine_that_disagrees_is_refused_with_a_report(
    model: Path, tmp_path: Path, change: object, reason: str
) -> None:
    tools = OnnxToolchain(change=change)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"--precision fp32") as caught:
        get(model, tmp_path / "c", tools)
    assert reason in str(caught.value)
    (report,) = (tmp_path / "c").glob("*.refused.json")
    assert str(report) in str(caught.value)
    told = json.loads(report.read_text())
    assert told["layers"][0]["kind"] == "OnnxRuntime"
    assert not told["agreement"]["passed"]
    assert not list((tmp_path / "c").glob("*.engine"))
    assert get(model, tmp_path / "c", tools, verify=False).plan


def test_the_built_in_street_stands_in_for_frames(model: Path, tmp_path: Path) -> None:
    options = EngineOptions(cache=tmp_path / "c")
    done = obtain(model, read_spec(model), options, toolchain=OnnxToolchain())
    assert done.facts["agreement"]["frames"] == 12
    assert done.facts["agreement"]["detections"] > 12


def test_timings_grow_beside_the_engines_or_where_the_user_says(
    model: Path, tmp_path: Path
) -> None:
    tools, own = OnnxToolchain(), tmp_path / "own" / "timing.cache"
    get(model, tmp_path / "c", tools)
    get(model, tmp_path / "c", tools, precision="fp32")
    (kept,) = (tmp_path / "c").glob("timing-*.cache")
    assert kept.read_bytes() == b"timed;timed;"
    get(model, tmp_path / "c", tools, timing_cache=own, rebuild=True)
    assert own.read_bytes() == b"timed;"
    assert kept.read_bytes() == b"timed;timed;"


def test_processes_that_want_the_same_engine_build_it_once(model: Path, tmp_path: Path) -> None:
    log, cache = tmp_path / "builds.txt", tmp_path / "c"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=spawn) as pool:
        work = [pool.submit(get_in_process, model, cache, log) for _ in range(3)]
        plans = {done.result(timeout=100) for done in work}
    assert len(plans) == 1
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision 'fp8' does not exist"),
        ({"max_batch": 0}, "1 ≤ opt-batch ≤ max-batch, not 0 and 0"),
        ({"max_batch": 2, "opt_batch": 3}, "not 3 and 2"),
        ({"max_batch": 2, "opt_batch": 0}, "not 0 and 2"),
        ({"precision": "int8"}, "give --calibration FOLDER"),
        ({"precision": "int8", "calibration": Path("nowhere")}, "'nowhere' is no folder"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EngineOptions(**options)  # type: ignore[arg-type]


def test_a_damaged_model_is_one_sentence(model: Path, tmp_path: Path) -> None:
    spec = read_spec(model)
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"tiny.onnx' is not a readable ONNX file"):
        obtain(model, spec, EngineOptions(cache=tmp_path), toolchain=OnnxToolchain())


def test_layers_are_measured(model: Path, tmp_path: Path) -> None:
    done = get(model, tmp_path / "c")
    (layer,) = measure(done.plan, read_spec(model), 2, OnnxToolchain())
    assert layer.milliseconds is not None
    assert layer.milliseconds > 0


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
def test_without_a_gpu_one_sentence_says_what_is_missing(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        ensure_engine(model, read_spec(model), EngineOptions(cache=tmp_path))
    assert all(part in str(caught.value) for part in missing_parts())
    assert not list(tmp_path.glob("*.engine"))
