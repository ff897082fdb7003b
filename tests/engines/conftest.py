"""Fixtures of the engine tests."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import pytest
from realtime_ssd_engines.cuda import driver
from realtime_ssd_engines.onnx.verify import synthetic_frames
from realtime_ssd_engines.tensorrt import engine_builder, layers, recheck

from realtime_ssd.core.gpu import find_gpus
from tests.engines.cuda.host_driver import BINDINGS
from tests.engines.standins import needs_nvrtc, needs_rtx
from tests.tiny import tiny_model

__all__ = ["needs_nvrtc", "needs_rtx"]


@pytest.fixture(autouse=True, scope="session")
def requested_bindings() -> None:
    """Use PyCUDA or cuda-bindings for the driver, whichever a parent process requests."""
    requested = os.environ.get(BINDINGS)
    if requested == "cuda-bindings":
        sys.modules["pycuda"] = None  # type: ignore[assignment] # "not installed"
    if requested and find_gpus():
        used = driver._pycuda().__name__
        assert used.startswith("pycuda") is (requested == "pycuda"), used


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
