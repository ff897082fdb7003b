"""File suffixes and URL schemes that the built-in sources read."""

from __future__ import annotations

import re

__all__ = ["IMAGE_SUFFIXES", "REMOTE_VIDEO_SUFFIXES", "STREAM_SCHEMES", "scheme_of"]

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".jp2",
)
REMOTE_VIDEO_SUFFIXES = (
    ".mp4",
    ".mkv",
    ".mov",
    ".avi",
    ".webm",
    ".m4v",
    ".ts",
    ".mpg",
    ".mpeg",
    ".flv",
)
"""An HTTP URL whose path ends like this is read as a file rather than as a live stream."""

STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt", "rtp")
_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")


def scheme_of(text: str) -> str:
    """Return the scheme of a URL in lower case; an empty string if the text is not a URL.

    Example:
        >>> scheme_of("RTSP://camera/live"), scheme_of("clips/street.mp4")
        ('rtsp', '')
    """
    match = _SCHEME.match(text)
    return match[1].lower() if match else ""
