"""How fast this machine is: `realtime-ssd benchmark`."""

from __future__ import annotations

from realtime_ssd.profiling.compare import Change, compare
from realtime_ssd.profiling.machine import describe
from realtime_ssd.profiling.plan import Plan, run
from realtime_ssd.profiling.rows import Row

__all__ = ["Change", "Plan", "Row", "compare", "describe", "run"]
