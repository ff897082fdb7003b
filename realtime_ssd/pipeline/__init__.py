"""The loop: capture threads, one bounded hand-off, an inference thread, and results in order."""

from __future__ import annotations

from realtime_ssd.core.metrics import Statistics
from realtime_ssd.pipeline.loop import Pipeline, PipelineOptions

__all__ = ["Pipeline", "PipelineOptions", "Statistics"]
