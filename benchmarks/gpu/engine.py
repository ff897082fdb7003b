"""Engines: how long they take to build, whether they agree, and what they score on real photos."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.gpu.room import Room
from benchmarks.gpu.rows import SkippedError
from benchmarks.gpu.subjects import NAMES, REAL, Subject, find_subject

__all__ = ["check_engines"]

SECTION = "engines"
SETS = {"coco_mini": "coco_mini/JPEGImages", "dali_coco61": "dali_coco61/images"}
GATE = 0.001


def check_engines(room: Room) -> None:
    """Build every model in FP32 and FP16, compare it, and score the real one."""
    for name in NAMES:
        for precision in ("fp32", "fp16"):
            with room.report.guard(SECTION, f"{name} {precision}: build"):
                room.need_tensorrt()
                room.report.check_time()
                _build(room, find_subject(room, name), precision)
    with room.report.guard(SECTION, f"{REAL} int8: build"):
        room.need_tensorrt()
        room.report.check_time()
        _build(room, find_subject(room, REAL), "int8", room.real("photos/darknet"))
    for name in SETS:
        with room.report.guard(SECTION, f"{REAL}: AP on {name}"):
            room.need_tensorrt()
            room.report.check_time()
            _score(room, name)


def _build(room: Room, subject: Subject, precision: str, photos: Path | None = None) -> None:
    from engines.build import EngineOptions, obtain

    options = EngineOptions(
        precision, max_batch=max(room.batches), cache=room.place / "engines", calibration=photos
    )
    name = f"{subject.name} {precision}"
    done = obtain(subject.path, subject.spec, options)
    size = f"{len(done.plan) / 2**20:.1f} MiB, batch to {options.max_batch}"
    room.report.number(SECTION, f"{name}: build", done.facts["build_seconds"], "s", note=size)
    found = done.facts["agreement"]
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
        from training.data import open_dataset
        from training.evaluate import SCORE, evaluate
    except ImportError as error:
        raise SkippedError(f"the package {error.name} is not installed") from error
    from realtime_ssd.backends import BackendOptions, open_backend

    images = room.real(SETS[name])
    annotations = room.real(f"{name}/instances.json")
    subject, scores = find_subject(room, REAL), {}
    for backend in ("onnxruntime", "tensorrt"):
        with open_backend(subject.path, backend, BackendOptions(score=SCORE)) as opened:
            data = open_dataset(f"coco:{annotations}:{images}")
            scores[backend] = evaluate(opened, data).score.mean
    gap = abs(scores["tensorrt"] - scores["onnxruntime"])
    note = f"{scores['tensorrt']:.4f} against {scores['onnxruntime']:.4f}"
    room.report.number(SECTION, f"{REAL}: AP on {name}", gap, "|ΔAP|", most=GATE, note=note)
