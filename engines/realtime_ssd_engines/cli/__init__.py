"""Commands `build` and `engines`."""

from __future__ import annotations

from realtime_ssd.cli.command import Command

__all__ = ["BUILD", "ENGINES"]

BUILD = Command(
    "realtime_ssd_engines.cli.build:build",
    "Build the TensorRT engine of a model in advance.",
    50,
    "realtime-ssd build street --precision fp16 --batch 4",
)
ENGINES = Command(
    "realtime_ssd_engines.cli.engines:app", "List, verify and remove TensorRT engines.", 51
)
