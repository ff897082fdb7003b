"""Skipping or failing of suites whose requirements are missing."""

from __future__ import annotations

import pytest

from tests.engines.standins import REQUIRE_STANDINS, unavailable


def test_missing_requirements_fail_if_the_standins_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REQUIRE_STANDINS, "1")
    with pytest.raises(pytest.fail.Exception, match=r"g\+\+ is not installed"):
        unavailable("g++ is not installed")


def test_missing_requirements_skip_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE_STANDINS, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"g\+\+ is not installed"):
        unavailable("g++ is not installed")
