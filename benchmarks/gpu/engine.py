"""Engines: build time, agreement with ONNX Runtime, and average precision on annotated images."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.gpu.checks import Check
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.models import TRAINED, find_model
from benchmarks.gpu.report_rows import SkippedError

__all__ = ["checks"]

SECTION = "engines"
SETS = {"coco_mini": "coco_mini/JPEGImages", "dali_coco61": "dali_coco61/images"}
MAX_AP_DIFFERENCE = 0.001


def checks(context: GpuContext) -> list[Check]:
    """Build and verify the engines of the models, and evaluate the trained model."""
    result = [*_build_checks(context, "fp16")]
    if TRAINED in context.names:
        result += [
            *(
                Check(f"{TRAINED}: AP on {name}", partial(_evaluate, context, name))
                for name in SETS
            ),
            Check(f"{TRAINED} int8: build", partial(_build_int8, context)),
        ]
    return [*result, *_build_checks(context, "fp32")]


def _build_checks(context: GpuContext, precision: str) -> Iterator[Check]:
    for name in context.names:
        check = partial(_build, context, name, precision)
        yield Check(f"{name} {precision}: build", check)


def _build_int8(context: GpuContext) -> None:
    context.require_tensorrt()
    _build(context, TRAINED, "int8", context.data_file("photos/darknet"))


def _build(context: GpuContext, name: str, precision: str, photos: Path | None = None) -> None:
    context.require_tensorrt()
    from realtime_ssd_engines.tensorrt.cache import read_entry
    from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
    from realtime_ssd_engines.tensorrt.toolchain import make_toolchain

    model, toolchain = find_model(context, name), make_toolchain(context.flavor)
    options = EngineOptions(
        precision,
        batch=max(context.batches),
        cache=context.workdir / "engines",
        calibration=photos,
    )
    name = f"{name} {precision}"
    engine = get_or_build_engine(model.path, model.spec, options, toolchain=toolchain)
    size = f"{len(engine.plan) / 2**20:.1f} MiB, batch to {options.batch}"
    metadata = read_entry(engine.path).metadata  # another section may have built it
    context.report.number(SECTION, f"{name}: build", metadata["build_seconds"], "s", note=size)
    agreement = metadata["agreement"]
    note = (
        f"{agreement['detections']} detections, maximum score error {agreement['score_max']:.2g}, "
        f"minimum IoU {agreement['least_iou']:.3f}"
    )
    least = 100 * agreement["gate"]["share"]
    context.report.number(
        SECTION, f"{name}: agreement", 100 * agreement["share"], "%", least=least, note=note
    )
    begin = time.monotonic()
    again = get_or_build_engine(model.path, model.spec, options, toolchain=toolchain)
    seconds = time.monotonic() - begin
    context.report.check(
        SECTION,
        f"{name}: cache",
        again.plan == engine.plan,
        "the engine was built again",
        f"{seconds:.2f} s",
    )


def _evaluate(context: GpuContext, name: str) -> None:
    """Evaluate the FP16 engine and ONNX Runtime on the same images."""
    context.require_tensorrt()
    os.environ.setdefault("REALTIME_SSD_ENGINES", str(context.workdir / "engines"))
    try:
        from realtime_ssd_training.data import open_dataset
        from realtime_ssd_training.evaluation.evaluator import SCORE_THRESHOLD, evaluate
    except ImportError as error:
        raise SkippedError(f"the package {error.name} is not installed") from error
    from realtime_ssd.backends import BackendOptions, open_backend

    images = context.data_file(SETS[name])
    annotations = context.data_file(f"{name}/instances.json")
    model, scores = find_model(context, TRAINED), {}
    for backend in ("onnxruntime", "tensorrt"):
        with open_backend(
            model.path, backend, BackendOptions(score_threshold=SCORE_THRESHOLD)
        ) as opened:
            dataset = open_dataset(f"coco:{annotations}:{images}")
            scores[backend] = evaluate(opened, dataset).metrics.mean
    difference = abs(scores["tensorrt"] - scores["onnxruntime"])
    note = f"{scores['tensorrt']:.4f} instead of {scores['onnxruntime']:.4f}"
    context.report.number(
        SECTION, f"{TRAINED}: AP on {name}", difference, "|ΔAP|", most=MAX_AP_DIFFERENCE, note=note
    )
