"""HEIC and AVIF images: whole where they are stored in tiles, as by the cameras of phones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
import numpy as np

from realtime_ssd.core.errors import SourceError
from realtime_ssd.core.extras import missing_packages, require
from realtime_ssd.core.frames import Image
from realtime_ssd.sources.base import InputLimits
from realtime_ssd.sources.ffmpeg import FrameConverter, is_tile, media_location
from realtime_ssd.sources.formats import HEIF_SUFFIXES
from realtime_ssd.sources.media_input import open_input

__all__ = ["check_heif", "load_heif"]


def check_heif(paths: Sequence[Path]) -> None:
    """Check before a run that all of some images can be read.

    FFmpeg reads single images; tiles, which it delivers one by one, need pillow-heif.

    Raises:
        RealtimeSSDError: If an image is stored in tiles and pillow-heif is not installed.
    """
    if not missing_packages("pillow_heif"):
        return
    for path in paths:
        if path.suffix.lower() in HEIF_SUFFIXES and _has_tiles(path):
            require("heif", "pillow_heif", purpose=f"reading '{path}', which is stored in tiles,")


def _has_tiles(path: Path) -> bool:
    try:
        with open_input(media_location(str(path))) as container:
            return any(is_tile(stream) for stream in container.streams.video)
    except (av.error.FFmpegError, OSError):
        return False


def load_heif(path: Path, limits: InputLimits) -> Image | None:
    """Return an image upright as BGR; None if it cannot be decoded.

    Args:
        path: HEIC or AVIF file.
        limits: Limits of the source.
    """
    if path.suffix.lower() != ".avif" and not missing_packages("pillow_heif"):
        return _load_with_pillow(path)
    try:
        with open_input(media_location(str(path)), limits=limits) as container:
            if any(is_tile(stream) for stream in container.streams.video):
                return None
            return FrameConverter().to_bgr(next(container.decode(video=0)))
    except (av.error.FFmpegError, OSError, IndexError, StopIteration, SourceError):
        return None


def _load_with_pillow(path: Path) -> Image | None:
    import pillow_heif

    try:
        image = pillow_heif.open_heif(path, convert_hdr_to_8bit=True, bgr_mode=True)
        pixels = np.asarray(image)
    except (OSError, ValueError, RuntimeError, EOFError, SyntaxError):
        return None
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3], np.uint8)
