"""A procedural street scene with exact ground truth: test data, benchmark input and show-piece."""

from __future__ import annotations

from realtime_ssd.synthetic.scene import LABELS, StreetScene
from realtime_ssd.synthetic.truth import TruthBox

__all__ = ["LABELS", "StreetScene", "TruthBox"]
