"""Do the kernels give what numpy and OpenCV give? Fresh heads and pictures on every run."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.cuda.kernel_params import Colour, Header, Precision
from realtime_ssd_engines.cuda.kernel_set import KernelSet
from realtime_ssd_engines.cuda.slots import FrameSlot

from benchmarks.gpu.context import Room, fetch
from benchmarks.gpu.heads import Case, adversarial_cases, random_cases, real_cases, spec_of
from benchmarks.gpu.networks import RecordedHeads
from benchmarks.gpu.rows import SkippedError
from realtime_ssd.core.frames import Frame, Surface
from realtime_ssd.core.postprocess import PostProcessor, RawDetections
from realtime_ssd.core.preprocess import letterbox_params, preprocess
from realtime_ssd.core.spec import InputSpec, Thresholds

__all__ = ["check_kernels", "difference"]

SECTION = "kernels"
SIZES = ((64, 64), (1, 1), (301, 177), (1280, 720), (1920, 1080))
INPUTS = {
    "warp, RGB": InputSpec(300, 300, "RGB", (128.0,) * 3, (1 / 128,) * 3),
    "warp, BGR": InputSpec(512, 512, "BGR", (104.0, 117.0, 123.0)),
    "odd width": InputSpec(321, 237, "RGB", (1.0, 2.0, 3.0), (0.5, 0.25, 2.0)),
    "letterbox": InputSpec(320, 320, "RGB", resize="letterbox", fill=114),
}


def difference(got: RawDetections, expected: RawDetections) -> str:
    """Say how two answers differ; "" if they agree.

    Scores may differ by rounding (the GPU's exponential is not numpy's), and with them the order
    of rows whose scores are that close.
    """
    if len(got.scores) != len(expected.scores):
        return f"{len(got.scores)} detections instead of {len(expected.scores)}"
    order, wanted = (np.lexsort((one.class_ids, one.box_indices)) for one in (got, expected))
    for name in ("box_indices", "class_ids"):
        if not np.array_equal(getattr(got, name)[order], getattr(expected, name)[wanted]):
            return f"other {name} were kept"
    for name, one, two in (
        ("scores", got.scores, expected.scores),
        ("boxes", got.boxes[order], expected.boxes[wanted]),
    ):
        if not np.allclose(one, two, rtol=2e-5, atol=2e-6):
            return f"{name} differ by {np.abs(one - two).max():.3g}"
    return ""


def check_kernels(room: Room, seed: int) -> None:
    """Compare decode + NMS and pre-processing with the references.

    Args:
        room: What the sections share.
        seed: Of the random heads and pictures.
    """
    rng = np.random.default_rng(seed)
    groups: dict[str, Iterable[Case]] = {
        "random heads": random_cases(rng, quick=room.quick),
        "adversarial heads": adversarial_cases(rng),
    }
    with suppress(SkippedError):
        anchors = room.real("weights/ssd_mobilenet_v1_coco_onnx/anchors_ycxchw_f32.npy")
        groups["real heads"] = real_cases(room.real("golden/onnx_heads"), anchors)
    for name, cases in groups.items():
        with room.report.guard(SECTION, name):
            room.need_gpu()
            for number, case in enumerate(cases):
                kinds: tuple[Precision, ...] = ("fp32", "fp16")
                for precision in kinds[number % 2 :][:1] if room.quick else kinds:
                    _check_case(room, case, precision)
    if "real heads" not in groups:
        with room.report.guard(SECTION, "real heads"):
            room.real("golden/onnx_heads")
    for name in ("same bits on every run", "NaN is counted", "overflow is counted"):
        with room.report.guard(SECTION, name):
            room.need_gpu()
            _QUESTIONS[name](room, rng)
    for name, spec in INPUTS.items():
        for source in ("BGR", "NV12"):
            with room.report.guard(SECTION, f"preprocess {source}: {name}"):
                room.need_gpu()
                _check_pictures(room, source, name, spec, rng)


def run_heads(
    room: Room, case: Case, precision: Precision = "fp32", times: int = 1
) -> list[list[tuple[Header, RawDetections]]]:
    """Decode one batch several times."""
    device, images = room.device(), len(case.scores)
    try:
        with device:
            network = RecordedHeads(device, case.scores, case.offsets, precision)
            cache = room.place / "kernels"
            kernels = KernelSet(device, case.spec, network.boxes, network.types, cache=cache)
            slot = FrameSlot(device, kernels, network, images, graphs=False)
            frames = [Frame(np.zeros((8, 8, 3), np.uint8), index=i) for i in range(images)]
            answers = []
            for _ in range(times):
                slot.submit(frames)
                answers.append(slot.collect())
            slot.close()
            kernels.close()
            network.close()
        return answers
    finally:
        device.close()


def _check_case(room: Room, case: Case, precision: Precision) -> None:
    name = f"{case.name} ({precision})"
    if precision == "fp16":
        halves = (values.astype(np.float16) for values in (case.scores, case.offsets))
        scores, offsets = (values.astype(np.float32) for values in halves)
        case = replace(case, scores=scores, offsets=offsets)
    with room.report.guard(SECTION, name):
        (answer,) = run_heads(room, case, precision)
        post, problems, found = PostProcessor(case.spec), [], 0
        for scores, offsets, (_, got) in zip(case.scores, case.offsets, answer, strict=True):
            expected = post(scores, offsets)
            found += len(expected.scores)
            problems.append(difference(got, expected))
        wrong = [problem for problem in problems if problem]
        sentence = f"{len(wrong)} of {len(problems)} images differ: {'; '.join(wrong[:2])}"
        room.report.truth(SECTION, name, not wrong, sentence, f"{found} detections")


def _same_bits(room: Room, rng: np.random.Generator) -> None:
    (case, *_) = random_cases(rng, quick=True)
    runs = run_heads(room, case, times=5 if room.quick else 50)
    same = all(
        np.array_equal(one.boxes, two.boxes) and np.array_equal(one.scores, two.scores)
        for run in runs[1:]
        for (_, one), (_, two) in zip(runs[0], run, strict=True)
    )
    room.report.truth(
        SECTION, "same bits on every run", same, "two runs differ", f"{len(runs)} runs"
    )


def _nan(room: Room, rng: np.random.Generator) -> None:
    (case, *_) = random_cases(rng, quick=True)
    case.scores[0, 3, 1] = np.nan
    ((first, *rest),) = run_heads(room, case)
    good = first[0].broken == 1 and not any(header.broken for header, _ in rest)
    room.report.truth(SECTION, "NaN is counted", good, f"{first[0].broken} boxes were counted")


def _overflow(room: Room, rng: np.random.Generator) -> None:
    """Ask for more candidates than 64 MiB of lists hold: 255 classes of 40,001 boxes."""
    if room.quick:
        raise SkippedError("ten million candidates are too many for --quick")
    limits = Thresholds(
        score_threshold=0.01, iou_threshold=0.45, pre_nms_top_k=10, max_detections=20
    )
    spec = spec_of(256, 100, limits, activation="none")
    shape = (1, spec.num_boxes)
    scores = np.full((*shape, spec.num_classes), 0.5, np.float32)
    offsets = rng.normal(0, 1, (*shape, 4)).astype(np.float32)
    (((header, _),),) = run_heads(room, Case("overflow", spec, scores, offsets))
    capacity = min(spec.num_boxes, (64 << 20) // (8 * spec.num_classes))
    expected = (spec.num_boxes - capacity) * (spec.num_classes - 1)
    sentence = f"{header.overflow} candidates were counted instead of {expected}"
    good = header.overflow == expected > 0
    room.report.truth(SECTION, "overflow is counted", good, sentence, f"{expected} candidates")


_QUESTIONS = {
    "same bits on every run": _same_bits,
    "NaN is counted": _nan,
    "overflow is counted": _overflow,
}


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw random pixels with a smooth part."""
    width, height = size
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    slope = np.linspace(0, 255, noise.size).reshape(noise.shape).astype(np.uint8)
    return np.where(rng.random((height, width, 1)) < 0.5, noise, slope)


def _check_pictures(
    room: Room, source: str, name: str, spec: InputSpec, rng: np.random.Generator
) -> None:
    """Compare one batch of pictures of all sizes with OpenCV's answer, to the bit."""
    sizes = list(SIZES[:3] if room.quick else SIZES)
    if source == "NV12":
        sizes = [(max(2, w // 2 * 2), max(2, h // 2 * 2)) for w, h in sizes]
    contract = replace(spec_of(2, 2, Thresholds()), input=spec)
    heads = np.zeros((len(sizes), contract.num_boxes, 2), np.float32)
    offsets = np.zeros((len(sizes), contract.num_boxes, 4), np.float32)
    device = room.device()
    try:
        with device:
            network = RecordedHeads(device, heads, offsets)
            cache = room.place / "kernels"
            kernels = KernelSet(device, contract, network.boxes, network.types, cache=cache)
            slot = FrameSlot(device, kernels, network, len(sizes), graphs=False)
            pictures = [_picture(rng, size) for size in sizes]
            make = _bgr if source == "BGR" else _nv12
            frames, expected, release = make(device, pictures, spec)
            slot.submit(frames)
            slot.collect()
            shape = (len(sizes), 3, spec.height, spec.width)
            got = fetch(device, slot.addresses["input"], np.float32, shape)
            for memory in (slot, kernels, network, *release):
                memory.close()
    finally:
        device.close()
    gap = float(np.abs(got - expected).max())
    _tell_gap(room, f"preprocess {source}: {name}", spec, gap, source)


def _tell_gap(room: Room, name: str, spec: InputSpec, gap: float, source: str) -> None:
    """BGR must agree to the bit; NV12 to one step, where a colour lies between two."""
    most = 1.001 * max(spec.scale) if source == "NV12" else 0.0
    room.report.number(SECTION, name, gap, "largest gap", most=most)


def _bgr(
    device: Device, pictures: list[NDArray[np.uint8]], spec: InputSpec
) -> tuple[list[Frame], NDArray[np.float32], list[Any]]:
    frames = [Frame(picture, index=i) for i, picture in enumerate(pictures)]
    return frames, np.stack([preprocess(picture, spec) for picture in pictures]), []


def _nv12(
    device: Device, pictures: list[NDArray[np.uint8]], spec: InputSpec
) -> tuple[list[Frame], NDArray[np.float32], list[Any]]:
    """Lay random luma and chroma into device memory, in every standard and range."""
    frames, expected, memory = [], [], []
    kinds = [("bt601", False), ("bt601", True), ("bt709", False), ("bt709", True)]
    for number, picture in enumerate(pictures):
        standard, full = kinds[number % 4]
        height, width = picture.shape[:2]
        luma, chroma = picture[..., 0], picture[: height // 2, : width // 2, 1:]
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
        surface = Surface(width, height, planes, (pitch, pitch), standard, full, buffer)  # type: ignore[arg-type]
        frames.append(Frame(picture, index=number, surface=surface))
        expected.append(_nv12_reference(luma, chroma, spec, Colour.of(standard, full)))  # type: ignore[arg-type]
    return frames, np.stack(expected), list(memory)


def _nv12_reference(
    luma: NDArray[np.uint8], chroma: NDArray[np.uint8], spec: InputSpec, colour: Colour
) -> NDArray[np.float32]:
    """Resize both planes with OpenCV and convert each pixel in float32."""
    spot = letterbox_params(spec, luma.shape[1], luma.shape[0])
    size = (spot.width, spot.height)
    level = cv2.resize(np.ascontiguousarray(luma), size, interpolation=cv2.INTER_LINEAR)
    blue_red = [
        cv2.resize(np.ascontiguousarray(chroma[..., c]), size, interpolation=cv2.INTER_LINEAR)
        for c in (0, 1)
    ]
    u, v = (plane.astype(np.float32) - 128 for plane in blue_red)
    y = (level.astype(np.float32) - np.float32(colour.luma_offset)) * np.float32(colour.luma_scale)
    planes = (
        y + np.float32(colour.blue_u) * u,
        y + np.float32(colour.green_u) * u + np.float32(colour.green_v) * v,
        y + np.float32(colour.red_v) * v,
    )
    picture = np.full((spec.height, spec.width, 3), spec.fill, np.float32)
    inside = np.rint(np.clip(np.stack(planes, axis=-1), 0, 255))
    picture[spot.y : spot.y + spot.height, spot.x : spot.x + spot.width] = inside
    ordered = picture[..., ::-1] if spec.channels == "RGB" else picture
    mean, scale = np.array(spec.mean, np.float32), np.array(spec.scale, np.float32)
    scaled = (ordered - mean) * scale
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))
