"""Runs `test_gpu_loop.py` on a stand-in for NVIDIA's driver, with the real PyCUDA.

The stand-in does the work of streams as late as it may, so that a missing wait or memory that is
reused too early gives a wrong answer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from realtime_ssd.core.gpu import find_gpus
from tests.engines.cuda.host_driver import build_driver
from tests.engines.cuda.test_gpu_loop import HOST_GPU

HERE = Path(__file__).parent


@pytest.mark.timeout(600)
def test_gpu_loop_on_the_host(tmp_path: Path) -> None:
    if find_gpus():
        pytest.skip("there is a real GPU, on which test_gpu_loop.py has run")
    build_driver(tmp_path)
    paths = [str(tmp_path), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths)), HOST_GPU: "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(HERE / "test_gpu_loop.py")]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=590
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
