"""File suffixes and URL schemes that the built-in sources read."""

from __future__ import annotations

import re

__all__ = ["HEIF_SUFFIXES", "IMAGE_SUFFIXES", "STREAM_SCHEMES", "VIDEO_SUFFIXES", "scheme_of"]

HEIF_SUFFIXES = (".heic", ".heif", ".avif")
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
    *HEIF_SUFFIXES,
)
VIDEO_SUFFIXES = (
    *(
        ".mp4",
        ".m4v",
        ".mov",
        ".qt",
        ".mkv",
        ".webm",
        ".avi",
        ".ts",
        ".m2ts",
        ".mts",
        ".mpg",
        ".mpeg",
    ),
    *(
        ".m2v",
        ".vob",
        ".flv",
        ".f4v",
        ".wmv",
        ".asf",
        ".3gp",
        ".3g2",
        ".ogv",
        ".mxf",
        ".dv",
        ".gif",
    ),
    *(".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".y4m", ".ivf", ".m3u8"),
)
"""What counts as a video in a folder and among the matches of a glob. Any file can be named."""

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
