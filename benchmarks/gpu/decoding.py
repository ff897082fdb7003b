"""Hardware decoding: frames that NVDEC decodes, next to those of the CPU."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from realtime_ssd_engines.backend import GpuBackend

from benchmarks.gpu.checks import Check
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.frame import open_recorded
from benchmarks.gpu.head_cases import HeadCase, random_cases
from benchmarks.gpu.report_rows import SkippedError
from realtime_ssd.backends.base import PendingBatch
from realtime_ssd.core.frames import Frame

__all__ = ["checks"]

SECTION = "nvdec"
SIZE, FRAMES, RATE = (1920, 1080), 90, 30
HELD = 48
"""Frames held at once: more than the 32 surfaces of the decoder."""

MAX_ERROR = 1.5  # of 255, mean over a frame


def checks(context: GpuContext) -> list[Check]:
    """Decode a generated video on the GPU, after the kernels have taken the primary context."""
    return [
        Check(name, partial(check, context, name))
        for name, check in (
            ("frames equal those of the CPU", _compare_frames),
            (f"{HELD} frames held at once", _hold_frames),
            ("decoding", _measure_rate),
            ("decoding and detection with recorded heads", _detect),
        )
    ]


def _video(context: GpuContext) -> Path:
    """Return a video of moving gradients, encoded once per run.

    Raises:
        SkippedError: If videos cannot be decoded on this GPU.
    """
    import av

    from realtime_ssd.sources.nvdec import unavailable_reason

    if reason := unavailable_reason():
        raise SkippedError(reason)
    path = context.workdir / "gradients.mp4"
    if path.exists():
        return path
    partial_path = path.with_suffix(".partial.mp4")
    width, height = SIZE
    columns, rows = np.meshgrid(*(np.arange(size).astype(np.uint8) for size in SIZE))
    with av.open(str(partial_path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(FRAMES):
            shift = np.uint8(number)
            image = np.stack([columns + shift, rows - shift, rows + columns], -1)
            image = np.minimum(image, 255 - image)  # without jumps
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return partial_path.replace(path)


def _read(path: Path, decoder: Literal["cpu", "gpu"]) -> list[Frame]:
    from realtime_ssd.sources import open_source

    with open_source(path, decoder=decoder) as source:
        return list(source)


def _compare_frames(context: GpuContext, name: str) -> None:
    """Open the backend first: NVDEC refuses a primary context with other flags."""
    path = _video(context)
    with open_recorded(context, _case(context)):
        decoded, expected = _read(path, "gpu"), _read(path, "cpu")
    on_gpu = sum(frame.surface is not None for frame in decoded)
    if on_gpu != FRAMES or len(expected) != FRAMES:
        raise ValueError(f"{on_gpu} of {FRAMES} frames stayed on the GPU")
    errors = [
        np.abs(one.image.astype(np.int16) - other.image.astype(np.int16)).mean()
        for one, other in zip(decoded[::10], expected[::10], strict=True)
    ]
    note = f"{on_gpu} frames"
    context.report.number(SECTION, name, max(errors), "mean error", most=MAX_ERROR, note=note)


def _hold_frames(context: GpuContext, name: str) -> None:
    from realtime_ssd.sources import open_source

    held: list[Frame] = []
    with open_source(_video(context), decoder="gpu") as source:
        for frame in source:
            held.append(frame)
            if len(held) == HELD:
                break
        planes = {frame.surface.planes[0] for frame in held if frame.surface is not None}
    context.report.check(SECTION, name, len(planes) == HELD, f"{len(planes)} surfaces")


def _measure_rate(context: GpuContext, name: str) -> None:
    from realtime_ssd.sources import open_source

    path = _video(context)
    decoders: tuple[Literal["gpu", "cpu"], ...] = ("gpu", "cpu")
    for decoder in decoders:
        with open_source(path, decoder=decoder) as source:
            begin = time.perf_counter()
            count = sum(1 for _ in source)
            seconds = time.perf_counter() - begin
        label = f"{name} on the {decoder.upper()}, 1080p"
        context.report.number(SECTION, label, count / seconds, "frames/s")


def _case(context: GpuContext) -> HeadCase:
    (case, *_) = random_cases(context.rng("nvdec"), quick=True)
    return HeadCase(case.name, case.spec, case.scores[:1], case.offsets[:1])


def _detect(context: GpuContext, name: str) -> None:
    from realtime_ssd.sources import open_source

    path = _video(context)
    with (
        open_recorded(context, _case(context)) as backend,
        open_source(path, decoder="gpu") as source,
    ):
        begin = time.perf_counter()
        count = _run(backend, iter(source))
        seconds = time.perf_counter() - begin
    context.report.number(SECTION, name, count / seconds, "frames/s", note=f"{count} frames")


def _run(backend: GpuBackend, frames: Iterator[Frame]) -> int:
    """Detect in all frames with all slots busy; return the number of frames."""
    pending, count = deque[PendingBatch](), 0
    for frame in frames:
        if len(pending) == backend.max_in_flight:
            count += len(backend.collect(pending.popleft()))
        pending.append(backend.submit([frame]))
    return count + sum(len(backend.collect(batch)) for batch in pending)
