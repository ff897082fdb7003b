"""Sources of frames: cameras, video files, network streams, images and the demo.

Modules that use PyAV import OpenCV first. Each ships a libxcb of its own, and if PyAV's is loaded
first, OpenCV blocks while it connects to the X server to open a window.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from realtime_ssd.core.errors import UsageError, redact
from realtime_ssd.core.registry import load_plugins
from realtime_ssd.sources.base import Source, SourceInfo, SourceOptions, SourcePlugin
from realtime_ssd.sources.formats import STREAM_SCHEMES, scheme_of

__all__ = ["Source", "SourceInfo", "SourceOptions", "SourcePlugin", "open_source"]


def open_source(text: str | int | Path, *, decoder: Literal["cpu", "gpu"] = "cpu") -> Source:
    """Open the source that a text describes.

    Files, images and the demo are open when this returns, so that a wrong name is reported
    immediately; cameras and streams are opened by the pipeline, which also reopens them after a
    loss.

    Args:
        text: Camera number, `/dev/videoN`, video file, image, folder of images, glob of images,
            URL (`rtsp://`, `http://`, …), `demo[:WxH[@FPS][,seed=N][,frames=N]]`, or a form that
            an installed plug-in adds. An HTTP URL whose path ends like a video file is read as a
            file, without loss of frames.
        decoder: Where to decode video files; "gpu" only where that is possible.

    Returns:
        The source; close it when done.

    Raises:
        UsageError: If the text is malformed or the source does not exist.
        SourceError: If the source exists but cannot be read.

    Example:
        >>> with open_source("demo:320x180@25,frames=2") as source:
        ...     sizes = [(frame.width, frame.height) for frame in source]
        >>> sizes
        [(320, 180), (320, 180)]
    """
    name = str(text)
    if scheme_of(name) == "file":
        name = urlsplit(name).path
    return _find_plugin(name).open(name, SourceOptions(decoder))


def _find_plugin(text: str) -> SourcePlugin:
    plugins: list[SourcePlugin] = list(load_plugins("sources").values())
    try:
        for plugin in sorted(plugins, key=lambda plugin: -plugin.priority):
            if plugin.matches(text):
                return plugin
    except OSError as error:
        raise UsageError(f"'{redact(text)}' cannot be opened: {error.strerror}") from None
    if scheme_of(text):
        raise UsageError(
            f"'{redact(text)}' has an unknown scheme; use one of {', '.join(STREAM_SCHEMES)}, or "
            "a file"
        )
    raise UsageError(f"'{text}' does not exist; use a file, folder, URL, camera number or 'demo'")
