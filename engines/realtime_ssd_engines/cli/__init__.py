"""The commands `build` and `engines`."""

from __future__ import annotations

from realtime_ssd.cli.registry import Command

__all__ = ["BUILD", "ENGINES"]

BUILD = Command(
    "realtime_ssd_engines.cli.build:build", "Build a TensorRT engine before the first run.", 50
)
ENGINES = Command(
    "realtime_ssd_engines.cli.engines:app", "List, check and remove TensorRT engines.", 51
)
