"""The machine, its copy bandwidth and the minimum time of a graph node."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from realtime_ssd_engines.cuda import compile as kernel_compiler
from realtime_ssd_engines.cuda import driver

from benchmarks.gpu.checks import Check
from benchmarks.gpu.context import GpuContext
from benchmarks.gpu.gpu_timing import time_work
from benchmarks.gpu.report_rows import Row
from realtime_ssd.core.gpu import cuda_version, driver_release, find_gpus

__all__ = ["checks"]

SECTION = "machine"
COPY_BYTES = 1 << 30


def checks(context: GpuContext) -> list[Check]:
    """Report GPU, driver and packages, and measure copy bandwidth and launch overhead."""
    return [
        Check("description", lambda: _describe(context), needs_gpu=False),
        Check("copies", lambda: _copies(context)),
        Check("TensorRT", lambda: _tensorrt(context), needs_gpu=False),
    ]


def _describe(context: GpuContext) -> None:
    gpus = "; ".join(
        f"{gpu.name}, {gpu.architecture}, {gpu.memory / 2**30:.0f} GiB" for gpu in find_gpus()
    )
    cuda = cuda_version()
    for name, text in (
        ("GPU", gpus),
        ("driver", f"CUDA {cuda[0]}.{cuda[1]}, {driver_release()}" if cuda else ""),
        ("kernel compiler", kernel_compiler.compiler_name() or ""),
        ("graphs", "cuda-bindings" if driver.graphs_available() else ""),
        ("PyTorch", _package("torch")),
        ("PyAV", _package("av")),
    ):
        status = "ok" if text else "skipped: not available"
        context.report.add(Row(SECTION, name, status, note=text))


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _tensorrt(context: GpuContext) -> None:
    """Report TensorRT's version if it can build and run an engine."""
    context.require_tensorrt()
    from realtime_ssd_engines.tensorrt import library

    context.report.add(Row(SECTION, "TensorRT", "ok", note=library.version(context.flavor)))


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
            timing = time_work(device, stream, copy, repeats=1, rounds=9)
            rate = copied_bytes / timing.us / 1e3
            context.report.number(SECTION, name, rate, "GB/s", clock=timing.clock)
        floor = time_work(
            device, stream, lambda: device.copy_inside(second.address, first, 4, stream)
        )
        name = "floor of one small copy in a graph"
        context.report.number(SECTION, name, floor.us, "µs", clock=floor.clock)
        for memory in (first, second, pinned):
            memory.close()
