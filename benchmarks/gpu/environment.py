"""The machine, its copy bandwidth and the minimum time of a graph node."""

from __future__ import annotations

import statistics

from realtime_ssd_engines.cuda import compile as kernel_compiler
from realtime_ssd_engines.cuda import driver

from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.gpu_timing import time_ms
from benchmarks.gpu.report_rows import Row
from realtime_ssd.core.gpu import cuda_version, driver_release, find_gpus

__all__ = ["describe_machine"]

SECTION = "machine"
COPY_BYTES = 1 << 30


def describe_machine(context: GpuContext) -> None:
    """Report GPU, driver and compiler, and measure copy bandwidth and launch overhead."""
    gpus = "; ".join(
        f"{gpu.name}, {gpu.architecture}, {gpu.memory / 2**30:.0f} GiB" for gpu in find_gpus()
    )
    version = cuda_version()
    driver_text = f"CUDA {version[0]}.{version[1]}, {driver_release()}" if version else ""
    graphs = "cuda-bindings" if driver.graphs_available() else ""
    for name, text in (
        ("GPU", gpus),
        ("driver", driver_text),
        ("kernel compiler", kernel_compiler.compiler_name() or ""),
        ("graphs", graphs),
        ("TensorRT", "" if context.tensorrt_problem else _tensorrt()),
    ):
        status = "ok" if text else "skipped: not available"
        context.report.add(Row(SECTION, name, status, note=text))
    with context.report.guard(SECTION, "copy inside the GPU"):
        _copies(context)


def _tensorrt() -> str:
    from realtime_ssd_engines.tensorrt.library import version

    return version()


def _copies(context: GpuContext) -> None:
    device = context.device()
    size = COPY_BYTES >> 6 if context.quick else COPY_BYTES
    with device:
        first, second = device.buffer(size), device.buffer(size)
        pinned, stream = device.pinned(size >> 2), device.stream()
        device.fill_zero(first, stream)
        copies = {
            "copy inside the GPU": (
                lambda: device.copy_inside(second.address, first, size, stream),
                2 * size,
            ),
            "copy from pinned memory": (
                lambda: device.copy_in(first, pinned.bytes, stream),
                size >> 2,
            ),
        }
        for name, (copy, copied_bytes) in copies.items():
            times = time_ms(device, stream, copy, repeats=1, rounds=9)
            rate = copied_bytes / statistics.median(times) / 1e6
            context.report.number(SECTION, name, rate, "GB/s")
        small = time_ms(
            device, stream, lambda: device.copy_inside(second.address, first, 4, stream)
        )
        floor = 1000 * statistics.median(small)
        context.report.number(SECTION, "floor of one small copy in a graph", floor, "µs")
        for memory in (first, second, pinned):
            memory.close()
