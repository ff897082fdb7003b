"""Real-time SSD video detection: `Detector`, `open_source` and their data types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from realtime_ssd.core.detections import Detection, Detections
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.spec import ModelSpec

if TYPE_CHECKING:
    from realtime_ssd.detector import Detector
    from realtime_ssd.sources import open_source

__all__ = [
    "Detection",
    "Detections",
    "Detector",
    "Frame",
    "ModelSpec",
    "RealtimeSSDError",
    "open_source",
]
__version__ = "0.1.0"

_LAZY = {"Detector": "realtime_ssd.detector", "open_source": "realtime_ssd.sources"}


def __getattr__(name: str) -> Any:
    """Import the heavier public names when they are first used."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'realtime_ssd' has no attribute {name!r}")
