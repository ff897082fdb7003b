"""Requirements of the suites that run GPU code on stand-ins for the driver and TensorRT.

`REALTIME_SSD_REQUIRE_STANDINS=1`, which CI sets, turns the skips of these suites into failures.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = ["REQUIRE_STANDINS", "needs_nvrtc", "needs_rtx", "unavailable"]

REQUIRE_STANDINS = "REALTIME_SSD_REQUIRE_STANDINS"


def unavailable(reason: str) -> NoReturn:
    """Skip the current test, or fail it if the stand-ins are required."""
    if os.environ.get(REQUIRE_STANDINS) == "1":
        pytest.fail(f"{reason} ({REQUIRE_STANDINS} is set)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def needs_nvrtc() -> None:
    """Skip or fail the test without NVRTC."""
    from realtime_ssd_engines.cuda.nvrtc import nvrtc_version

    if nvrtc_version() is None:
        unavailable("NVRTC is not installed")


@pytest.fixture
def needs_rtx() -> None:
    """Skip or fail the test without TensorRT-RTX, whose builder requires no GPU."""
    from realtime_ssd_engines.requirements import installed_flavors
    from realtime_ssd_engines.tensorrt.library import library

    if "rtx" not in installed_flavors():
        unavailable("TensorRT-RTX is not installed")
    library("rtx")
