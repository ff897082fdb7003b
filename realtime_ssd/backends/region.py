"""Detection in a part of the frames only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from realtime_ssd.backends.base import Backend, PendingBatch
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Frame, Image, LazyImage, Surface
from realtime_ssd.sources.base import SourceInfo

__all__ = ["Region", "RegionBackend", "check_region", "crop_frame"]

Region = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


class RegionBackend(Closeable):
    """Runs another backend on a rectangle of each frame; boxes are in pixels of the whole frame.

    Args:
        backend: Runs the model; closed with this one.
        region: The rectangle; it must lie within every frame.
    """

    def __init__(self, backend: Backend, region: Region) -> None:
        self._backend, self._region = backend, region
        self.name, self.spec = backend.name, backend.spec
        self.max_batch, self.max_submit = backend.max_batch, backend.max_submit
        self.max_in_flight = backend.max_in_flight
        self.converts_frames = backend.converts_frames

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        """See `Backend.submit`."""
        inner = self._backend.submit([self._crop(frame) for frame in frames])
        return PendingBatch(tuple(frames), payload=inner)

    def _crop(self, frame: Frame) -> Frame:
        x, y, width, height = self._region
        if x + width > frame.width or y + height > frame.height:
            raise SourceError(_outside(self._region, frame.source, frame.width, frame.height))
        return crop_frame(frame, self._region)

    def collect(self, batch: PendingBatch) -> list[Detections]:
        """See `Backend.collect`."""
        inner = batch.payload
        answers = self._backend.collect(inner)
        batch.timings, batch.passes, batch.error = inner.timings, inner.passes, inner.error
        x, y, *_ = self._region
        offset = np.array((x, y, x, y), np.float32)
        return [replace(detections, boxes=detections.boxes + offset) for detections in answers]

    def close(self) -> None:
        """See `Backend.close`."""
        self._backend.close()


def check_region(region: Region, infos: Sequence[SourceInfo]) -> None:
    """Check that a rectangle lies within the frames of all sources whose size is known.

    Raises:
        UsageError: If it does not.
    """
    x, y, width, height = region
    for info in infos:
        if info.width and (x + width > info.width or y + height > info.height):
            raise UsageError(_outside(region, info.name, info.width, info.height))


def _outside(region: Region, name: str, width: int, height: int) -> str:
    text = ",".join(map(str, region))
    return (
        f"`roi` {text} is not within the {width}x{height} pixels of '{name}'; it is "
        "x,y,width,height"
    )


def crop_frame(frame: Frame, region: Region) -> Frame:
    """Return a part of a frame as a frame of its own; its first reader copies the pixels.

    Args:
        frame: The frame.
        region: The part; it must lie within the frame.
    """
    _, _, width, height = region
    surface = None if frame.surface is None else _crop_surface(frame.surface, region)
    pixels = LazyImage(partial(_crop_image, frame, region), width, height)
    return replace(frame, pixels=pixels, surface=surface)


def _crop_image(frame: Frame, region: Region) -> Image:
    x, y, width, height = region
    return np.ascontiguousarray(frame.image[y : y + height, x : x + width])


def _crop_surface(surface: Surface, region: Region) -> Surface | None:
    """Return the part of a surface, without a copy; None if it cuts through its chroma samples."""
    x, y, width, height = region
    if any(value % 2 for value in region):
        return None
    luma, chroma = surface.planes
    planes = (luma + y * surface.pitches[0] + x, chroma + y // 2 * surface.pitches[1] + x)
    return replace(surface, width=width, height=height, planes=planes)
