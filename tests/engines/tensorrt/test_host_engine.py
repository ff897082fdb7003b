"""Runs `test_engine_loop.py` without a GPU, for three generations of TensorRT."""

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


@pytest.mark.parametrize("generation", ["8", "10", "11"])
@pytest.mark.timeout(600)
def test_engines_on_the_host(tmp_path: Path, generation: str) -> None:
    if find_gpus():
        pytest.skip("there is a real GPU, on which test_engine_loop.py has run")
    build_driver(tmp_path)
    libraries = [str(tmp_path), os.environ.get("LD_LIBRARY_PATH", "")]
    paths = [str(HERE / "host_tensorrt"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PYTHONPATH": ":".join(filter(None, paths)),
        HOST_GPU: "1",
        "HOST_TENSORRT": generation,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(HERE / "test_engine_loop.py")]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=590
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
