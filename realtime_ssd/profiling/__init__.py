"""Speed measurements: `realtime-ssd benchmark`."""

from __future__ import annotations

from realtime_ssd.profiling.benchmark import BenchmarkOptions, run
from realtime_ssd.profiling.compare import Change, compare
from realtime_ssd.profiling.machine import describe_machine
from realtime_ssd.profiling.measurements import Measurement

__all__ = ["BenchmarkOptions", "Change", "Measurement", "compare", "describe_machine", "run"]
