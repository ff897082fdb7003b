"""Work on results between inference and the sinks: tracking, zones, privacy."""

from __future__ import annotations

from realtime_ssd.processors.base import BaseProcessor, Processor, ProcessorPlugin
from realtime_ssd.processors.filters import SizeFilter, Smoother
from realtime_ssd.processors.ground import GroundPlane
from realtime_ssd.processors.heatmap import HeatMap
from realtime_ssd.processors.privacy import Anonymizer
from realtime_ssd.processors.tracking import Tracker
from realtime_ssd.processors.zone_shapes import Shape, parse_shape
from realtime_ssd.processors.zones import Line, Zone

__all__ = [
    "Anonymizer",
    "BaseProcessor",
    "GroundPlane",
    "HeatMap",
    "Line",
    "Processor",
    "ProcessorPlugin",
    "Shape",
    "SizeFilter",
    "Smoother",
    "Tracker",
    "Zone",
    "parse_shape",
]
