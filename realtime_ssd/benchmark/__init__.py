"""How fast this machine is: `realtime-ssd benchmark`."""

from __future__ import annotations

from realtime_ssd.benchmark.compare import Change, compare
from realtime_ssd.benchmark.machine import describe
from realtime_ssd.benchmark.plan import Plan, run
from realtime_ssd.benchmark.rows import Row

__all__ = ["Change", "Plan", "Row", "compare", "describe", "run"]
