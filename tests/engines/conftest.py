"""What the tests of engines share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A detector of bright squares with a dynamic batch."""
    return tiny_model(tmp_path / "tiny.onnx")
