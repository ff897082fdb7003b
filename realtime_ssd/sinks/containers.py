"""Container formats of annotated video: file suffix, video codec and muxer options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from realtime_ssd.core.errors import UsageError

__all__ = ["VIDEO_SUFFIXES", "Container", "container_of"]

# Fragments of a second, each readable once it is on disk, converted to a regular file at the end.
# Time stamps are kept even if audio starts before the video.
_MP4 = {
    "movflags": "hybrid_fragmented+delay_moov",
    "frag_duration": "1000000",
    "avoid_negative_ts": "disabled",
    "flush_packets": "1",
}
# Clusters of a second instead of five.
_MATROSKA = {
    "cluster_time_limit": "1000",
    "default_mode": "passthrough",
    "avoid_negative_ts": "disabled",
    "flush_packets": "1",
}


@dataclass(frozen=True, slots=True)
class Container:
    """A container format.

    Attributes:
        name: Name for messages.
        codec: Name of the FFmpeg encoder that writes its video on the CPU.
        stored: Names of the video formats that it stores.
        options: Options of the FFmpeg muxer.
    """

    name: str
    codec: str
    stored: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)


_MODERN = ("h264", "hevc", "av1")
_CONTAINERS = {
    ".mp4": Container(".mp4", "libx264", _MODERN, _MP4),
    ".m4v": Container(".m4v", "libx264", ("h264",), _MP4),
    ".mov": Container(".mov", "libx264", ("h264", "hevc"), _MP4),
    ".mkv": Container(".mkv", "libx264", (*_MODERN, "vp9"), _MATROSKA),
    ".avi": Container(".avi", "libx264", ("h264",)),
    ".webm": Container(".webm", "libvpx-vp9", ("vp9", "av1"), _MATROSKA),
}
VIDEO_SUFFIXES = tuple(_CONTAINERS)


def container_of(path: Path) -> Container:
    """Return the container format that the suffix of a path selects.

    Raises:
        UsageError: If it is not the suffix of a supported format.
    """
    container = _CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise UsageError(
            f"'{path}' is not a supported video format; use one of {', '.join(VIDEO_SUFFIXES)}"
        )
    return container
