"""Runs the engine loops on stand-ins for the driver, three generations of TensorRT, and RTX."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_ssd.core.gpu import find_gpus
from tests.engines.cuda.host_driver import run_pytest_on_standins

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("generation", "bindings"),
    [
        pytest.param("8", "cuda-bindings", marks=pytest.mark.slow),
        ("10", "cuda-bindings"),
        ("11", "cuda-bindings"),
        pytest.param("11", "pycuda", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(find_gpus()), reason="test_engine_loop.py runs on the GPU")
def test_engine_loop_on_the_standins(tmp_path: Path, generation: str, bindings: str) -> None:
    run_pytest_on_standins(
        tmp_path,
        [HERE / "test_engine_loop.py"],
        HERE / "host_tensorrt",
        bindings,
        HOST_TENSORRT=generation,
    )


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(find_gpus()), reason="test_rtx_loop.py runs on the GPU")
def test_rtx_loop_on_the_standins(tmp_path: Path) -> None:
    files = [HERE / "test_rtx_loop.py"]
    run_pytest_on_standins(tmp_path, files, HERE / "host_rtx", HOST_TENSORRT="rtx")
