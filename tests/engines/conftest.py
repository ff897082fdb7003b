"""Fixtures of the engine tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.standins import needs_nvrtc
from tests.tiny import tiny_model

__all__ = ["needs_nvrtc"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the ONNX file of a bright-square detector with a dynamic batch."""
    return tiny_model(tmp_path / "tiny.onnx")
