"""Runs `test_gpu_loop.py` on the stand-in for NVIDIA's driver.

The stand-in executes stream work as late as allowed, so that a missing wait, or memory that is
reused too early, changes the results.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_ssd.core.gpu import find_gpus
from tests.engines.cuda.host_driver import run_pytest_on_standins


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(find_gpus()), reason="test_gpu_loop.py runs on the GPU")
def test_gpu_loop_on_the_driver_standin(tmp_path: Path) -> None:
    run_pytest_on_standins(tmp_path, Path(__file__).with_name("test_gpu_loop.py"))
