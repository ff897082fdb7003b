"""Kernel tests with the address and undefined-behavior sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.cuda.host_kernels import SANITIZE
from tests.engines.standins import unavailable

HERE = Path(__file__).parent
SELECTED = (
    "batch_equals_reference and fp16 or nan_and or exceed_the_limits and 33 or different_sizes"
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sanitizers_find_no_errors_in_the_kernels() -> None:
    """The sanitizer's allocator also serves numpy, so that overruns of arrays are detected."""
    compiler = shutil.which("gcc")
    if compiler is None:
        unavailable("gcc is not installed")
    command = [compiler, "-print-file-name=libasan.so"]
    library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(library).is_absolute():
        unavailable("the compiler has no address sanitizer library")
    environment = {
        **os.environ,
        SANITIZE: "1",
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "PYTHONMALLOC": "malloc",
    }
    files = [str(HERE / "test_detect.py"), str(HERE / "test_preprocess.py")]
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*pytest_command, "-k", SELECTED, *files],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=590,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
