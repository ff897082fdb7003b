"""Where frames come from, and how a source is named in a few words."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

# Before PyAV is loaded by any module of this package: both bring their own libxcb along, and with
# PyAV's in the process first, OpenCV waits for the X server for ever when it opens a window.
import cv2  # noqa: F401

from realtime_ssd.core.errors import UsageError, redact
from realtime_ssd.sources.base import Source, SourceInfo

__all__ = ["Source", "SourceInfo", "open_source"]

STREAMS = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt", "rtp")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg", ".flv")
_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_DEVICE = re.compile(r"^/dev/video(\d+)$")


def open_source(text: str | int | Path, *, gpu: bool = False) -> Source:
    """Open what a user names.

    Files, images and the demo are open when this returns, so that a wrong name is known at once;
    cameras and streams are opened by the loop, which also brings them back after a loss.

    Args:
        text: Camera number, `/dev/videoN`, video file, image, folder of images, glob of images,
            URL (`rtsp://`, `http://`, ...) or `demo[:WxH[@FPS][,seed=N][,frames=N]]`. A URL whose
            path ends like a video file is read as a file: it waits and loses no frame.
        gpu: Whether video files are decoded on the GPU, where it can.

    Returns:
        The source; close it when done.

    Raises:
        UsageError: If it cannot exist.
        SourceError: If it exists but cannot be read.

    Example:
        >>> with open_source("demo:320x180@25,frames=2") as source:
        ...     frame = source.read()
        >>> frame.width, frame.height
        (320, 180)
    """
    word = str(text)
    if word.isdigit() or _DEVICE.match(word):
        from realtime_ssd.sources.camera import Camera

        device = _DEVICE.match(word)
        return Camera(int(device[1] if device else word))
    if word == "demo" or word.startswith("demo:"):
        from realtime_ssd.sources.demo import DemoSource

        return DemoSource(word)
    scheme = _SCHEME.match(word)
    return _open_url(word, scheme[1].lower(), gpu) if scheme else _open_path(word, gpu)


def _open_url(url: str, scheme: str, gpu: bool) -> Source:
    if scheme == "file":
        return _open_path(urlsplit(url).path, gpu)
    if scheme not in STREAMS:
        raise UsageError(
            f"'{redact(url)}' has an unknown scheme; use one of {', '.join(STREAMS)}, or a file"
        )
    if scheme in ("http", "https") and urlsplit(url).path.lower().endswith(VIDEO_SUFFIXES):
        from realtime_ssd.sources.file import VideoFile

        return VideoFile(url, gpu=gpu)
    from realtime_ssd.sources.stream import Stream

    return Stream(url)


def _open_path(word: str, gpu: bool) -> Source:
    from realtime_ssd.sources.images import SUFFIXES, Images

    path = Path(word).expanduser()
    try:
        if path.is_dir() or path.suffix.lower() in SUFFIXES:
            return Images(path)
        if not path.exists() and any(sign in word for sign in "*?["):
            return Images(path)
        if not path.exists():
            raise UsageError(f"'{word}' does not exist; give a file, folder, URL, camera or 'demo'")
    except OSError as error:
        raise UsageError(f"'{word}' cannot be opened: {error.strerror}") from None
    from realtime_ssd.sources.file import VideoFile

    return VideoFile(str(path), gpu=gpu)
