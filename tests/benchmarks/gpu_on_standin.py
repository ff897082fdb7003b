"""Runs the GPU benchmark on the driver stand-in; started by `test_gpu.py` as a separate process.

On the stand-in, "machine code" is the path of a library compiled for the host.
"""

from __future__ import annotations

import sys

from realtime_ssd_engines.cuda import kernel_set

from benchmarks.gpu.__main__ import main
from tests.engines.cuda.host_kernels import build


def compile_kernel(name: str, settings: dict[str, str], *_: object) -> bytes:
    return str(build(name, tuple(settings.items()))._name).encode() + b"\0"


if __name__ == "__main__":
    vars(kernel_set)["compile_kernel"] = compile_kernel
    sys.exit(main(sys.argv[1:]))
