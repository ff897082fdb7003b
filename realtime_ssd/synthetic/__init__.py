"""A procedural street scene with exact ground truth, for tests, benchmarks and demos."""

from __future__ import annotations

from realtime_ssd.synthetic.ground_truth import TruthBox
from realtime_ssd.synthetic.scene import LABELS, StreetScene

__all__ = ["LABELS", "StreetScene", "TruthBox"]
