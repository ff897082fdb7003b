"""Times the kernels, next to other implementations of decoding and NMS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from benchmarks.gpu.baselines import efficient_nms, torchvision_nms
from benchmarks.gpu.checks import Check
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.frame import random_frames
from benchmarks.gpu.gpu_timing import Timing, time_work
from benchmarks.gpu.head_cases import HeadCase, ssd300_case
from benchmarks.gpu.networks import open_slot
from realtime_ssd.core.spec import InputSpec

__all__ = ["FULL_HD", "checks"]

SECTION = "speed"
FULL_HD = (1920, 1080)
MAX_DETECT_US = {1: 30.0, 32: 3.0}
MAX_PREPROCESS_US = {1: 4.0, 32: 1.3}
"""Targets in microseconds per image by batch size."""

MIN_SPEEDUP = 3.0
BASELINES = {"EfficientNMS_TRT": efficient_nms, "torchvision batched_nms": torchvision_nms}


def checks(context: GpuContext) -> list[Check]:
    """Time decode + NMS on 8732 boxes × 21 classes, and pre-processing from 1080p."""
    return [check for images in context.batches for check in _batch_checks(context, images)]


def _batch_checks(context: GpuContext, images: int) -> Iterator[Check]:
    for name, check in (
        (f"decode + NMS of 8732 x 21, batch {images}", _time_detection),
        (f"preprocess 1080p BGR, batch {images}", _time_preprocessing),
    ):
        yield Check(name, partial(check, context, images, name))
    for label in BASELINES:
        name = f"{label} on 8732 x 21, batch {images}"
        yield Check(name, partial(_time_baseline, context, images, label, name))


def _case(context: GpuContext, images: int) -> HeadCase:
    return ssd300_case(context.rng("8732 x 21"), images)


def _rounds(context: GpuContext) -> int:
    return 5 if context.quick else 51


def _detect(context: GpuContext, images: int) -> tuple[Timing, float]:
    """Return the time per batch and the number of detections per image."""
    with open_slot(context, _case(context, images)) as (device, slot):
        slot.submit(random_frames(images, (64, 64)))
        detections = sum(header.count for header, _ in slot.collect())
        work = slot.stages(images)["detect"]
        return time_work(device, slot.stream, work, rounds=_rounds(context)), detections / images


def _time_detection(context: GpuContext, images: int, name: str) -> None:
    timing, detections = _detect(context, images)
    note = f"{detections:.0f} detections per image, {timing.us:.1f} µs per batch"
    most, value = MAX_DETECT_US.get(images), timing.us / images
    context.report.number(
        SECTION, name, value, "µs per image", most=most, note=note, clock=timing.clock
    )


def _time_baseline(context: GpuContext, images: int, label: str, name: str) -> None:
    baseline = BASELINES[label](context, _case(context, images))
    ours = _detect(context, images)[0].us / images
    note = f"{baseline / ours:.1f} times ours"
    context.report.number(SECTION, name, baseline, "µs per image", note=note)
    if label == "EfficientNMS_TRT":
        context.report.number(
            SECTION, f"{name} / ours", baseline / ours, "times", least=MIN_SPEEDUP
        )


def _time_preprocessing(context: GpuContext, images: int, name: str) -> None:
    case, size = _case(context, images), InputSpec(300, 300, "BGR", (104.0, 117.0, 123.0))
    with open_slot(context, replace(case, spec=replace(case.spec, input=size))) as (device, slot):
        slot.submit(random_frames(images, FULL_HD))
        slot.collect()
        work = slot.stages(images)["preprocess"]
        timing = time_work(device, slot.stream, work, rounds=_rounds(context))
    most, value = MAX_PREPROCESS_US.get(images), timing.us / images
    context.report.number(SECTION, name, value, "µs per image", most=most, clock=timing.clock)
