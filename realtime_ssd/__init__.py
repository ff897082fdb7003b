"""Real-time SSD video detection: `Detector`, `open_source`, `annotate` and their data types."""

from __future__ import annotations

# Nothing is imported here: `realtime_ssd.__main__` handles Ctrl+C before the first slow import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from realtime_ssd.annotators import annotate
    from realtime_ssd.core.detections import Detection, Detections
    from realtime_ssd.core.errors import RealtimeSSDError
    from realtime_ssd.core.frames import Frame
    from realtime_ssd.core.spec import ModelSpec
    from realtime_ssd.detector import Detector
    from realtime_ssd.sources import open_source

__all__ = [
    "Detection",
    "Detections",
    "Detector",
    "Frame",
    "ModelSpec",
    "RealtimeSSDError",
    "annotate",
    "open_source",
]
__version__ = "0.1.0"

_MODULES = {
    "Detection": "realtime_ssd.core.detections",
    "Detections": "realtime_ssd.core.detections",
    "Detector": "realtime_ssd.detector",
    "Frame": "realtime_ssd.core.frames",
    "ModelSpec": "realtime_ssd.core.spec",
    "RealtimeSSDError": "realtime_ssd.core.errors",
    "annotate": "realtime_ssd.annotators",
    "open_source": "realtime_ssd.sources",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'realtime_ssd' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
