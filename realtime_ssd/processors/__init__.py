"""Work on results between inference and the sinks: tracking, zones, privacy."""

from __future__ import annotations

from realtime_ssd.processors.base import BaseProcessor, Processor, ProcessorPlugin

__all__ = ["BaseProcessor", "Processor", "ProcessorPlugin"]
