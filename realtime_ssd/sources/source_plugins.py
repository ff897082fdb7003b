"""Plug-ins of the built-in sources, registered as entry points.

Each imports the module of its source, and with it OpenCV or FFmpeg, only when it opens one.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from realtime_ssd.sources.base import Source, SourceOptions
from realtime_ssd.sources.formats import (
    IMAGE_SUFFIXES,
    REMOTE_VIDEO_SUFFIXES,
    STREAM_SCHEMES,
    scheme_of,
)

__all__ = ["CAMERA", "DEMO", "FILE", "IMAGES", "STREAM"]

_CAMERA = re.compile(r"^(?:/dev/video)?(\d+)$")


class CameraPlugin:
    """Opens `0` and `/dev/video0`; see `SourcePlugin`."""

    priority = 50

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        return _CAMERA.match(text) is not None

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        from realtime_ssd.sources.camera import Camera

        return Camera(int(_CAMERA.sub(r"\1", text)))


class DemoPlugin:
    """Opens `demo` and `demo:…`; see `SourcePlugin`."""

    priority = 50

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        return text == "demo" or text.startswith("demo:")

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        from realtime_ssd.sources.demo import DemoSource

        return DemoSource(text)


class ImagesPlugin:
    """Opens an image, a folder of images or a glob; see `SourcePlugin`."""

    priority = 40

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        if scheme_of(text):
            return False
        path = Path(text).expanduser()
        if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
            return True
        return any(character in text for character in "*?[") and not path.exists()

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        from realtime_ssd.sources.images import Images

        return Images(Path(text).expanduser())


class FilePlugin:
    """Opens a local video file, or one on a web server; see `SourcePlugin`."""

    priority = 30

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        scheme = scheme_of(text)
        if not scheme:
            return Path(text).expanduser().exists()
        is_video = urlsplit(text).path.lower().endswith(REMOTE_VIDEO_SUFFIXES)
        return scheme in ("http", "https") and is_video

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        from realtime_ssd.sources.file import VideoFile

        path = text if scheme_of(text) else str(Path(text).expanduser())
        return VideoFile(path, gpu=options.decoder == "gpu")


class StreamPlugin:
    """Opens the URL of a network stream; see `SourcePlugin`."""

    priority = 20

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        return scheme_of(text) in STREAM_SCHEMES

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        from realtime_ssd.sources.stream import Stream

        return Stream(text)


CAMERA, DEMO, FILE = CameraPlugin(), DemoPlugin(), FilePlugin()
IMAGES, STREAM = ImagesPlugin(), StreamPlugin()
