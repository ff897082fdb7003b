"""Sources of frames: cameras, video files, network streams, images and the demo.

Modules that use PyAV import OpenCV first. Each ships a libxcb of its own, and if PyAV's is loaded
first, OpenCV blocks while it connects to the X server to open a window.
"""

from realtime_ssd.sources.base import Source, SourceInfo, SourceOptions, SourcePlugin
from realtime_ssd.sources.opening import open_source, open_sources

__all__ = [
    "Source",
    "SourceInfo",
    "SourceOptions",
    "SourcePlugin",
    "open_source",
    "open_sources",
]
