"""Fixtures of the engine tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from realtime_ssd_engines.onnx.verify import synthetic_frames
from realtime_ssd_engines.tensorrt import engine_builder, layers, recheck

from tests.engines.standins import needs_nvrtc
from tests.tiny import tiny_model

__all__ = ["needs_nvrtc"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the ONNX file of a detector of bright cells with a dynamic batch."""
    return tiny_model(tmp_path / "tiny.onnx")


@pytest.fixture(autouse=True)
def cached_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render the frames on which engines are verified only once per process."""
    for module in (engine_builder, layers, recheck):
        monkeypatch.setattr(module, "synthetic_frames", _cached_frames)


_cached_frames = cache(synthetic_frames)
