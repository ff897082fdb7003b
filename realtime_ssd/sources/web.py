"""Sources on web servers: what a server sends decides whether it is an image, a file or live."""

from __future__ import annotations

import time

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
from av.container import InputContainer

from realtime_ssd.core.errors import SourceError
from realtime_ssd.sources.base import Source, SourceOptions
from realtime_ssd.sources.file import VideoFile
from realtime_ssd.sources.polled_image import PolledImage, RemoteImage, is_image
from realtime_ssd.sources.stream import Stream, connect

__all__ = ["open_url"]


def open_url(url: str, options: SourceOptions) -> Source:
    """Open an address of a web server as what it is.

    An image is read once, or again and again if `interval` is set. Content with a size or a
    duration, such as a video or a finished HLS playlist, is a file. All other content is live; its
    connection is kept for the first `open` of the stream. So is an address that does not answer:
    the first `open` raises the error, and the next one tries again.

    Args:
        url: `http://` or `https://` address.
        options: Options of the caller.

    Raises:
        SourceError: If an image or a file cannot be read.
    """
    try:
        container = connect(url, options.limits)
    except SourceError as error:
        if options.interval is not None:
            return PolledImage(url, options.interval, limits=options.limits)
        return Stream(url, error=error, limits=options.limits)
    opened_at = time.monotonic()
    if is_image(container):
        container.close()
        if options.interval is None:
            return RemoteImage(url, options.limits)
        return PolledImage(url, options.interval, limits=options.limits)
    if _is_finite(container):
        container.close()
        return VideoFile(url, gpu=options.decoder == "gpu", limits=options.limits)
    return Stream(url, container=container, opened_at=opened_at, limits=options.limits)


def _is_finite(container: InputContainer) -> bool:
    """Return whether the content has an end: a duration, or a size in bytes.

    The size of an HLS playlist is that of its text; a playlist that is not finished has no
    duration.
    """
    if container.duration is not None and container.duration > 0:
        return True
    return container.size > 0 and container.format.name != "hls"
