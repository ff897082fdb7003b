"""Runs `test_gpu_loop.py` and `test_gpu_faults.py` on the stand-in for NVIDIA's driver.

The stand-in executes stream work as late as allowed, so that a missing wait, or memory that is
reused too early, changes the results.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from realtime_ssd.core.gpu import find_gpus
from tests.engines.cuda.host_driver import run_pytest_on_standins


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("driver_version", "bindings"),
    [
        pytest.param("12040", "cuda-bindings", marks=pytest.mark.slow),
        ("13000", "cuda-bindings"),
        pytest.param("13000", "pycuda", marks=pytest.mark.slow),
    ],
)
@pytest.mark.skipif(bool(find_gpus()), reason="test_gpu_loop.py runs on the GPU")
def test_gpu_loop_on_the_driver_standin(tmp_path: Path, driver_version: str, bindings: str) -> None:
    """The old driver lacks functions that current cuda-bindings look up."""
    folder = Path(__file__).parent
    files = [folder / "test_gpu_loop.py", folder / "test_gpu_faults.py"]
    run_pytest_on_standins(tmp_path, files, bindings=bindings, HOST_DRIVER_VERSION=driver_version)


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(find_gpus()), reason="test_gpu_loop.py runs on the GPU")
def test_integrated_gpus_read_pixels_in_place(tmp_path: Path) -> None:
    folder, tests = Path(__file__).parent, ("changing_sizes", "only_pixels", "in_parts", "surfaces")
    files = [folder / "test_gpu_loop.py", folder / "test_gpu_faults.py"]
    run_pytest_on_standins(tmp_path, [*files, "-k", " or ".join(tests)], HOST_INTEGRATED="1")


def test_the_gpu_tests_are_collected_without_pyav_and_pytorch(tmp_path: Path) -> None:
    """A machine with a GPU may have neither."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['av'] = sys.modules['torch'] = None\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q"],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert all(f"test_{name}.py::" in result.stdout for name in ("gpu_loop", "nvdec_gpu"))
