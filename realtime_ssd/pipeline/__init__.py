"""The pipeline: capture threads, a bounded queue, inference, processors, and results in order."""

from __future__ import annotations

from realtime_ssd.core.metrics import Statistics
from realtime_ssd.pipeline.loop import Pipeline
from realtime_ssd.pipeline.options import PipelineOptions
from realtime_ssd.pipeline.sink_group import SinkGroup

__all__ = ["Pipeline", "PipelineOptions", "SinkGroup", "Statistics"]
