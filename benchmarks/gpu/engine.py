"""Engines: how long they take to build, whether they agree, and what they score on real photos."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.gpu.context import Room
from benchmarks.gpu.rows import SkippedError
from benchmarks.gpu.subjects import NAMES, REAL, Subject, find_subject

__all__ = ["check_engines"]

SECTION = "engines"
SETS = {"coco_mini": "coco_mini/JPEGImages", "dali_coco61": "dali_coco61/images"}
GATE = 0.001


def check_engines(room: Room) -> None:
    """Build every model in FP16 and FP32, compare it, and score the real one.

    What matters most comes first, for the time may run out.
    """
    _check_builds(room, "fp16")
    for name in SETS:
        with room.report.guard(SECTION, f"{REAL}: AP on {name}"):
            room.need_tensorrt()
            room.report.check_time()
            _score(room, name)
    with room.report.guard(SECTION, f"{REAL} int8: build"):
        room.need_tensorrt()
        room.report.check_time()
        _build(room, find_subject(room, REAL), "int8", room.real("photos/darknet"))
    _check_builds(room, "fp32")


def _check_builds(room: Room, precision: str) -> None:
    for name in NAMES:
        with room.report.guard(SECTION, f"{name} {precision}: build"):
            room.need_tensorrt()
            room.report.check_time()
            _build(room, find_subject(room, name), precision)


def _build(room: Room, subject: Subject, precision: str, photos: Path | None = None) -> None:
    from realtime_ssd_engines.tensorrt.build import EngineOptions, obtain
    from realtime_ssd_engines.tensorrt.cache import examine

    options = EngineOptions(
        precision, max_batch=max(room.batches), cache=room.place / "engines", calibration=photos
    )
    name = f"{subject.name} {precision}"
    done = obtain(subject.path, subject.spec, options)
    size = f"{len(done.plan) / 2**20:.1f} MiB, batch to {options.max_batch}"
    facts = examine(done.path).facts  # it may have been built by another section
    room.report.number(SECTION, f"{name}: build", facts["build_seconds"], "s", note=size)
    found = facts["agreement"]
    note = (
        f"{found['detections']} detections, largest score gap {found['score_max']:.2g}, "
        f"least IoU {found['least_iou']:.3f}"
    )
    least = 100 * found["gate"]["share"]
    room.report.number(
        SECTION, f"{name}: agreement", 100 * found["share"], "%", least=least, note=note
    )
    begun = time.monotonic()
    again = obtain(subject.path, subject.spec, options)
    spent = time.monotonic() - begun
    room.report.truth(
        SECTION, f"{name}: cache", again.plan == done.plan, "it was built again", f"{spent:.2f} s"
    )


def _score(room: Room, name: str) -> None:
    """Score the FP16 engine and ONNX Runtime on the same photos."""
    try:
        from realtime_ssd_training.data import open_dataset
        from realtime_ssd_training.evaluation.evaluator import SCORE_THRESHOLD, evaluate
    except ImportError as error:
        raise SkippedError(f"the package {error.name} is not installed") from error
    from realtime_ssd.backends import BackendOptions, open_backend

    images = room.real(SETS[name])
    annotations = room.real(f"{name}/instances.json")
    subject, scores = find_subject(room, REAL), {}
    for backend in ("onnxruntime", "tensorrt"):
        options = BackendOptions(score_threshold=SCORE_THRESHOLD)
        with open_backend(subject.path, backend, options) as opened:
            data = open_dataset(f"coco:{annotations}:{images}")
            scores[backend] = evaluate(opened, data).metrics.mean
    gap = abs(scores["tensorrt"] - scores["onnxruntime"])
    note = f"{scores['tensorrt']:.4f} against {scores['onnxruntime']:.4f}"
    room.report.number(SECTION, f"{REAL}: AP on {name}", gap, "|ΔAP|", most=GATE, note=note)
