"""The loop: capture threads, one bounded hand-off, an inference thread, and results in order."""

from __future__ import annotations

from realtime_ssd.pipeline.loop import Pipeline, PipelineOptions
from realtime_ssd.pipeline.stats import Statistics

__all__ = ["Pipeline", "PipelineOptions", "Statistics"]
