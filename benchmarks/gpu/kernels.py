"""Compares the kernels with numpy and OpenCV, on new random heads and images in each run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.cuda.kernel_params import Color, ImageHeader, Precision

from benchmarks.gpu.checks import Check
from benchmarks.gpu.context import GpuContext, fetch
from benchmarks.gpu.head_cases import (
    HeadCase,
    adversarial_cases,
    make_spec,
    random_cases,
    recorded_cases,
)
from benchmarks.gpu.networks import open_slot
from benchmarks.gpu.parity import difference
from benchmarks.gpu.report_rows import SkippedError
from realtime_ssd.core.frames import Frame, Surface
from realtime_ssd.core.postprocess import PostProcessor, RawDetections
from realtime_ssd.core.preprocess import letterbox_params, preprocess
from realtime_ssd.core.spec import InputSpec, Thresholds

__all__ = ["checks"]

SECTION = "kernels"
SIZES = ((64, 64), (1, 1), (301, 177), (1280, 720), (1920, 1080))
INPUTS = {
    "warp, RGB": InputSpec(300, 300, "RGB", (128.0,) * 3, (1 / 128,) * 3),
    "warp, BGR": InputSpec(512, 512, "BGR", (104.0, 117.0, 123.0)),
    "odd width": InputSpec(321, 237, "RGB", (1.0, 2.0, 3.0), (0.5, 0.25, 2.0)),
    "letterbox": InputSpec(320, 320, "RGB", resize="letterbox", fill=114),
}


def checks(context: GpuContext) -> list[Check]:
    """Compare decoding, NMS and pre-processing with the references."""
    return [
        *_head_checks(context),
        Check("results are reproducible", partial(_check_reproducibility, context)),
        Check("NaN is counted", partial(_check_nan_count, context)),
        Check("overflow is counted", partial(_check_overflow_count, context)),
        *(
            Check(f"preprocess {source}: {name}", partial(_check_images, context, source, name))
            for name in INPUTS
            for source in ("BGR", "NV12")
        ),
    ]


def _head_checks(context: GpuContext) -> Iterator[Check]:
    cases = [
        *random_cases(context.rng("random heads"), quick=context.quick),
        *adversarial_cases(context.rng("adversarial heads")),
    ]
    try:
        anchors = context.data_file("weights/ssd_mobilenet_v1_coco_onnx/anchors_ycxchw_f32.npy")
        cases += recorded_cases(context.data_file("golden/onnx_heads"), anchors)
    except SkippedError as reason:
        yield Check("recorded heads", partial(_skip, str(reason)))
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    for number, case in enumerate(cases):
        for precision in precisions[number % 2 :][:1] if context.quick else precisions:
            name = f"{case.name} ({precision})"
            yield Check(name, partial(_check_case, context, case, precision, name))


def _skip(reason: str) -> None:
    raise SkippedError(reason)


def run_heads(
    context: GpuContext, case: HeadCase, precision: Precision = "fp32", times: int = 1
) -> list[list[tuple[ImageHeader, RawDetections]]]:
    """Decode a batch several times."""
    frames = [Frame(np.zeros((8, 8, 3), np.uint8), index=i) for i in range(len(case.scores))]
    results = []
    with open_slot(context, case, precision) as (_, slot):
        for _ in range(times):
            slot.submit(frames)
            results.append(slot.collect())
    return results


def _check_case(context: GpuContext, case: HeadCase, precision: Precision, name: str) -> None:
    if precision == "fp16":
        rounded = (values.astype(np.float16) for values in (case.scores, case.offsets))
        scores, offsets = (values.astype(np.float32) for values in rounded)
        case = replace(case, scores=scores, offsets=offsets)
    (result,) = run_heads(context, case, precision)
    post, differences, detections = PostProcessor(case.spec), [], 0
    for scores, offsets, (_, got) in zip(case.scores, case.offsets, result, strict=True):
        expected = post(scores, offsets)
        detections += len(expected.scores)
        differences.append(difference(got, expected, case.spec.thresholds.score_threshold))
    errors = list(filter(None, differences))
    message = f"{len(errors)} of {len(differences)} images differ: {'; '.join(errors[:2])}"
    context.report.check(SECTION, name, not errors, message, f"{detections} detections")


def _check_reproducibility(context: GpuContext) -> None:
    (case, *_) = random_cases(context.rng("reproducible"), quick=True)
    runs = run_heads(context, case, times=5 if context.quick else 50)
    identical = all(
        np.array_equal(one.boxes, two.boxes) and np.array_equal(one.scores, two.scores)
        for run in runs[1:]
        for (_, one), (_, two) in zip(runs[0], run, strict=True)
    )
    context.report.check(
        SECTION, "results are reproducible", identical, "runs differ", f"{len(runs)} runs"
    )


def _check_nan_count(context: GpuContext) -> None:
    (case, *_) = random_cases(context.rng("NaN"), quick=True)
    case.scores[0, 3, 1] = np.nan
    ((first, *rest),) = run_heads(context, case)
    correct = first[0].nan_boxes == 1 and not any(header.nan_boxes for header, _ in rest)
    context.report.check(
        SECTION, "NaN is counted", correct, f"{first[0].nan_boxes} boxes were counted"
    )


def _check_overflow_count(context: GpuContext) -> None:
    """Produce more candidates than 64 MiB of lists hold: 255 classes of 40,001 boxes."""
    if context.quick:
        raise SkippedError("not run with --quick: ten million candidates")
    limits = Thresholds(
        score_threshold=0.01, iou_threshold=0.45, pre_nms_top_k=10, max_detections=20
    )
    spec = make_spec(256, 100, limits, activation="none")
    shape = (1, spec.num_boxes)
    scores = np.full((*shape, spec.num_classes), 0.5, np.float32)
    offsets = context.rng("overflow").normal(0, 1, (*shape, 4)).astype(np.float32)
    (((header, _),),) = run_heads(context, HeadCase("overflow", spec, scores, offsets))
    capacity = min(spec.num_boxes, (64 << 20) // (8 * spec.num_classes))
    expected = (spec.num_boxes - capacity) * (spec.num_classes - 1)
    message = f"{header.overflow} candidates were counted instead of {expected}"
    correct = header.overflow == expected > 0
    context.report.check(SECTION, "overflow is counted", correct, message, f"{expected} candidates")


def _random_image(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return noise mixed with a gradient."""
    width, height = size
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    gradient = np.linspace(0, 255, noise.size).reshape(noise.shape).astype(np.uint8)
    return np.where(rng.random((height, width, 1)) < 0.5, noise, gradient)


def _check_images(context: GpuContext, source: str, name: str) -> None:
    """Compare a batch of images of all sizes with OpenCV."""
    spec, rng = INPUTS[name], context.rng(f"{source} {name}")
    sizes = list(SIZES[:3] if context.quick else SIZES)
    if source == "NV12":
        sizes = [(max(2, w // 2 * 2), max(2, h // 2 * 2)) for w, h in sizes]
    model = replace(make_spec(2, 2, Thresholds()), input=spec)
    heads = np.zeros((len(sizes), model.num_boxes, 2), np.float32)
    offsets = np.zeros((len(sizes), model.num_boxes, 4), np.float32)
    case = HeadCase(name, model, heads, offsets)
    images = [_random_image(rng, size) for size in sizes]
    upload = _bgr if source == "BGR" else _nv12
    with open_slot(context, case) as (device, slot):
        frames, expected, buffers = upload(device, images, spec)
        slot.submit(frames)
        slot.collect()
        shape = (len(sizes), 3, spec.height, spec.width)
        got = fetch(device, slot.addresses["input"], np.float32, shape)
        for memory in buffers:
            memory.close()
    error = float(np.abs(got - expected).max())
    _report_error(context, f"preprocess {source}: {name}", spec, error, source)


def _report_error(
    context: GpuContext, name: str, spec: InputSpec, error: float, source: str
) -> None:
    """BGR must be bit-exact; NV12 may differ by one step because of rounding."""
    most = 1.001 * max(spec.scale) if source == "NV12" else 0.0
    context.report.number(SECTION, name, error, "maximum error", most=most)


def _bgr(
    device: Device, images: list[NDArray[np.uint8]], spec: InputSpec
) -> tuple[list[Frame], NDArray[np.float32], list[Any]]:
    frames = [Frame(image, index=i) for i, image in enumerate(images)]
    return frames, np.stack([preprocess(image, spec) for image in images]), []


def _nv12(
    device: Device, images: list[NDArray[np.uint8]], spec: InputSpec
) -> tuple[list[Frame], NDArray[np.float32], list[Any]]:
    """Upload random luma and chroma for all color standards and ranges."""
    frames, expected, memory = [], [], []
    formats: list[tuple[Literal["bt601", "bt709"], bool]] = [
        ("bt601", False),
        ("bt601", True),
        ("bt709", False),
        ("bt709", True),
    ]
    for number, image in enumerate(images):
        standard, full_range = formats[number % 4]
        height, width = image.shape[:2]
        luma, chroma = image[..., 0], image[: height // 2, : width // 2, 1:]
        pitch = width + 32
        rows = np.zeros((height + height // 2, pitch), np.uint8)
        rows[:height, :width] = luma
        rows[height:, :width] = chroma.reshape(height // 2, width)
        staging, buffer = device.pinned(rows.nbytes), device.buffer(rows.nbytes)
        staging.view(rows.dtype, rows.shape)[...] = rows
        stream = device.stream()
        device.copy_in(buffer, staging.bytes[: rows.nbytes], stream)
        stream.synchronize()
        memory += [staging, buffer]
        planes = (buffer.address, buffer.address + height * pitch)
        surface = Surface(width, height, planes, (pitch, pitch), standard, full_range, buffer)
        frames.append(Frame(image, index=number, surface=surface))
        expected.append(_nv12_reference(luma, chroma, spec, Color.of(standard, full_range)))
    return frames, np.stack(expected), list(memory)


def _nv12_reference(
    luma: NDArray[np.uint8], chroma: NDArray[np.uint8], spec: InputSpec, color: Color
) -> NDArray[np.float32]:
    """Resize both planes with OpenCV and convert the pixels in float32."""
    import cv2

    letterbox = letterbox_params(spec, luma.shape[1], luma.shape[0])
    size = (letterbox.width, letterbox.height)
    level = cv2.resize(np.ascontiguousarray(luma), size, interpolation=cv2.INTER_LINEAR)
    blue_red = [
        cv2.resize(np.ascontiguousarray(chroma[..., c]), size, interpolation=cv2.INTER_LINEAR)
        for c in (0, 1)
    ]
    u, v = (plane.astype(np.float32) - 128 for plane in blue_red)
    y = (level.astype(np.float32) - np.float32(color.luma_offset)) * np.float32(color.luma_scale)
    planes = (
        y + np.float32(color.blue_u) * u,
        y + np.float32(color.green_u) * u + np.float32(color.green_v) * v,
        y + np.float32(color.red_v) * v,
    )
    image = np.full((spec.height, spec.width, 3), spec.fill, np.float32)
    pixels = np.rint(np.clip(np.stack(planes, axis=-1), 0, 255))
    image[
        letterbox.y : letterbox.y + letterbox.height, letterbox.x : letterbox.x + letterbox.width
    ] = pixels
    channels = image[..., ::-1] if spec.channels == "RGB" else image
    mean, scale = np.array(spec.mean, np.float32), np.array(spec.scale, np.float32)
    scaled = (channels - mean) * scale
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))
