"""The kernel tests once more, compiled with address and undefined-behaviour checks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.cuda.host_kernels import SANITIZE

HERE = Path(__file__).parent
CHOSEN = "batch_equals or damaged or more_candidates or class_counts or different_sizes or half"


@pytest.mark.timeout(600)
def test_no_bad_access_and_no_undefined_behaviour() -> None:
    """Numpy's buffers come from a checked allocator: one element too far is seen."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    command = [compiler, "-print-file-name=libasan.so"]
    library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("the compiler has no address sanitizer library")
    environment = {
        **os.environ,
        SANITIZE: "1",
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "PYTHONMALLOC": "malloc",
    }
    files = [str(HERE / "test_detect.py"), str(HERE / "test_preprocess.py")]
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", CHOSEN, *files]
    result = subprocess.run(
        pytest_command, env=environment, capture_output=True, text=True, check=False, timeout=590
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
