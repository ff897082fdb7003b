"""Engines: build time, agreement with ONNX Runtime, and average precision on annotated images."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.models import NAMES, TRAINED, BenchmarkModel, find_model
from benchmarks.gpu.report_rows import SkippedError

__all__ = ["check_engines"]

SECTION = "engines"
SETS = {"coco_mini": "coco_mini/JPEGImages", "dali_coco61": "dali_coco61/images"}
MAX_AP_DIFFERENCE = 0.001


def check_engines(context: GpuContext) -> None:
    """Build and verify the engines of all models, and evaluate the trained model.

    The most important checks come first, in case the time budget is exceeded.
    """
    _check_builds(context, "fp16")
    for name in SETS:
        with context.report.guard(SECTION, f"{TRAINED}: AP on {name}"):
            context.require_tensorrt()
            context.report.check_time()
            _evaluate(context, name)
    with context.report.guard(SECTION, f"{TRAINED} int8: build"):
        context.require_tensorrt()
        context.report.check_time()
        _build(context, find_model(context, TRAINED), "int8", context.data_file("photos/darknet"))
    _check_builds(context, "fp32")


def _check_builds(context: GpuContext, precision: str) -> None:
    for name in NAMES:
        with context.report.guard(SECTION, f"{name} {precision}: build"):
            context.require_tensorrt()
            context.report.check_time()
            _build(context, find_model(context, name), precision)


def _build(
    context: GpuContext, model: BenchmarkModel, precision: str, photos: Path | None = None
) -> None:
    from realtime_ssd_engines.tensorrt.cache import read_entry
    from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine

    options = EngineOptions(
        precision,
        batch=max(context.batches),
        cache=context.workdir / "engines",
        calibration=photos,
    )
    name = f"{model.name} {precision}"
    engine = get_or_build_engine(model.path, model.spec, options)
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
    again = get_or_build_engine(model.path, model.spec, options)
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
