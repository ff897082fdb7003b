"""What the proof runs on, and the two ceilings every other number is measured against."""

from __future__ import annotations

import statistics

from realtime_ssd_engines.cuda import compile as compiler
from realtime_ssd_engines.cuda import driver

from benchmarks.gpu.clock import milliseconds
from benchmarks.gpu.context import Room
from benchmarks.gpu.rows import Row
from realtime_ssd.core.gpu import cuda_version, driver_release, find_gpus

__all__ = ["describe_machine"]

SECTION = "machine"
LARGE = 1 << 30


def describe_machine(room: Room) -> None:
    """Tell GPU, driver and compiler, and measure the copy bandwidth and the launch floor."""
    gpus = "; ".join(
        f"{gpu.name}, {gpu.architecture}, {gpu.memory / 2**30:.0f} GiB" for gpu in find_gpus()
    )
    version = cuda_version()
    told = f"CUDA {version[0]}.{version[1]}, {driver_release()}" if version else ""
    graphs = "cuda-bindings" if driver.graphs_available() else ""
    for name, text in (
        ("GPU", gpus),
        ("driver", told),
        ("kernel compiler", compiler.compiler_name() or ""),
        ("graphs", graphs),
        ("TensorRT", "" if room.no_tensorrt else _tensorrt()),
    ):
        status = "ok" if text else "skipped: there is none here"
        room.report.add(Row(SECTION, name, status, note=text))
    with room.report.guard(SECTION, "copy inside the GPU"):
        _copies(room)


def _tensorrt() -> str:
    from realtime_ssd_engines.tensorrt.library import version

    return version()


def _copies(room: Room) -> None:
    device = room.device()
    size = LARGE >> 6 if room.quick else LARGE
    try:
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
            for name, (copy, moved) in copies.items():
                times = milliseconds(device, stream, copy, repeats=1, rounds=9)
                rate = moved / statistics.median(times) / 1e6
                room.report.number(SECTION, name, rate, "GB/s")
            tiny = milliseconds(
                device, stream, lambda: device.copy_inside(second.address, first, 4, stream)
            )
            floor = 1000 * statistics.median(tiny)
            room.report.number(SECTION, "floor of one small copy in a graph", floor, "µs")
            for memory in (first, second, pinned):
                memory.close()
    finally:
        device.close()
