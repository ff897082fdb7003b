"""The public API changes only together with its description."""

from __future__ import annotations

import json

import pytest

import realtime_ssd
from tests.core.api_surface import FILE, api_surface


def test_api_is_the_recorded_one() -> None:
    recorded = json.loads(FILE.read_text())
    message = "the public API changed; if intended, run: python -m tests.core.api_surface"
    assert api_surface() == recorded, message


def test_every_exported_name_exists() -> None:
    for name in realtime_ssd.__all__:
        assert getattr(realtime_ssd, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'missing'"):
        _ = realtime_ssd.missing
