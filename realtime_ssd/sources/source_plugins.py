"""Plug-ins of the built-in sources, registered as entry points.

Each imports the module of its source, and with it OpenCV or FFmpeg, only when it opens one.
"""

from __future__ import annotations

import re

from realtime_ssd.sources.base import Source, SourceOptions
from realtime_ssd.sources.formats import (
    IMAGE_SUFFIXES,
    STREAM_SCHEMES,
    VIDEO_SUFFIXES,
    scheme_of,
)
from realtime_ssd.sources.paths import is_camera_device, is_pattern, local_path

__all__ = ["CAMERA", "DEMO", "FILE", "IMAGES", "STREAM", "ImagesPlugin"]

_CAMERA = re.compile(r"^(?:[0-9]+|/dev/video[0-9]+|/dev/v4l/[^?]+)$")


class CameraPlugin:
    """Opens `0`, `/dev/video0`, `camera:0?size=1280x720&fps=30`; see `SourcePlugin`."""

    priority = 50

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        device = text.partition("?")[0]
        if text.startswith("camera:") or _CAMERA.match(device):
            return True
        return device.startswith("/dev/") and is_camera_device(device)

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        from realtime_ssd.sources.camera import Camera, parse_camera

        return Camera(*parse_camera(text))


class DemoPlugin:
    """Opens `demo` and `demo:…`; see `SourcePlugin`."""

    priority = 50

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        return text == "demo" or text.startswith("demo:")

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        from realtime_ssd.sources.demo import DemoSource

        return DemoSource(text, limits=options.limits)


class ImagesPlugin:
    """Opens an image, a folder of images or a glob; see `SourcePlugin`."""

    priority = 40

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        if scheme_of(text):
            return False
        path = local_path(text)
        return path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES or is_pattern(path)

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        from realtime_ssd.sources.images import Images

        path = local_path(text)
        if options.interval is not None and path.is_file():
            from realtime_ssd.sources.polled_image import PolledImage

            return PolledImage(path, options.interval, limits=options.limits)
        return Images(path, recursive=options.recursive, limits=options.limits)


class FilePlugin:
    """Opens a local video file or pipe; see `SourcePlugin`."""

    priority = 30

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        return not scheme_of(text) and local_path(text).exists()

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        path = local_path(text)
        if path.suffix.lower() not in VIDEO_SUFFIXES and path.is_file():
            from realtime_ssd.sources.polled_image import is_image_file

            if is_image_file(path, options.limits):
                return IMAGES.open(text, options)
        from realtime_ssd.sources.file import VideoFile

        return VideoFile(str(path), gpu=options.decoder == "gpu", limits=options.limits)


class StreamPlugin:
    """Opens the URL of a network stream, or of anything on a web server; see `SourcePlugin`."""

    priority = 20

    def matches(self, text: str) -> bool:
        """See `SourcePlugin.matches`."""
        return scheme_of(text) in STREAM_SCHEMES

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourcePlugin.open`."""
        from realtime_ssd.sources.stream import Stream, check_password

        check_password(text)
        if scheme_of(text) in ("http", "https"):
            from realtime_ssd.sources.web import open_url

            return open_url(text, options)
        return Stream(text, limits=options.limits)


CAMERA, DEMO, FILE = CameraPlugin(), DemoPlugin(), FilePlugin()
IMAGES, STREAM = ImagesPlugin(), StreamPlugin()
