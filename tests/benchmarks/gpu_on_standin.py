"""Runs the GPU benchmark on the driver stand-in; started by `test_gpu.py` as a separate process.

On the stand-in, "machine code" is the path of a library compiled for the host. The process of a
section is this module too; it plants faults if the environment variable is set.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from functools import partial

from realtime_ssd_engines.cuda import kernel_set

from benchmarks.gpu import frame, section
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.checks import Check
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.head_cases import random_cases
from tests.engines.cuda.host_kernels import build

FAULTS = "REALTIME_SSD_PLANTED_FAULTS"
MODULE = "tests.benchmarks.gpu_on_standin"


def compile_kernel(name: str, settings: dict[str, str], *_: object) -> bytes:
    return str(build(name, tuple(settings.items()))._name).encode() + b"\0"


def plant_faults() -> None:
    """Replace the section `frame` by two checks with a fault and one without."""

    def crash() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def lose_gpu() -> None:
        ctypes.CDLL("libcuda.so.1").host_fail(700)  # CUDA_ERROR_ILLEGAL_ADDRESS
        raise ValueError("planted")

    def checks(context: GpuContext) -> list[Check]:
        (case, *_) = random_cases(context.rng("frame"), quick=True)
        measure = partial(frame._measure_overhead, context, case, "healthy")
        return [Check("crash", crash), Check("lost GPU", lose_gpu), Check("healthy", measure)]

    vars(frame)["checks"] = checks


if __name__ == "__main__":
    vars(kernel_set)["compile_kernel"] = compile_kernel
    if sys.argv[1].startswith("{"):
        if os.environ.get(FAULTS):
            plant_faults()
        sys.exit(section.main(sys.argv[1:]))
    sys.exit(main(sys.argv[1:], MODULE))
