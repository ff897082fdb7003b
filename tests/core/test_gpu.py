"""GPU queries against a fake driver library."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from realtime_ssd.core import gpu

ATTRIBUTES = {75: 9, 76: 0}


class FakeDriver:
    """A driver with two devices; every function returns the given status."""

    def __init__(self, *, version: int = 12080, status: int = 0, devices: int = 2) -> None:
        self._version, self._status, self._devices = version, status, devices

    def _set(self, reference: Any, value: int) -> int:
        reference._obj.value = value
        return self._status

    def cuInit(self, _flags: int) -> int:  # noqa: N802
        return self._status

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        return self._set(version, self._version)

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        return self._set(count, self._devices)

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        return self._set(device, 40 + ordinal)

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        name.value = f"GPU {device.value}".encode()[:size]
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: ctypes.c_int) -> int:  # noqa: N802
        return self._set(memory, device.value << 30)

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _device: Any) -> int:  # noqa: N802
        return self._set(value, ATTRIBUTES[attribute])


@pytest.fixture
def use_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def use(driver: FakeDriver | None) -> None:
        gpu.find_gpus.cache_clear()
        monkeypatch.setattr(gpu, "driver_library", lambda: driver)

    yield use
    gpu.find_gpus.cache_clear()


def test_gpus_of_the_driver(use_driver: Any) -> None:
    use_driver(FakeDriver())
    assert gpu.find_gpus() == (
        gpu.Gpu(0, "GPU 40", (9, 0), 40 << 30),
        gpu.Gpu(1, "GPU 41", (9, 0), 41 << 30),
    )
    assert gpu.find_gpus()[0].architecture == "sm_90"
    assert gpu.cuda_version() == (12, 8)
    use_driver(FakeDriver(version=13000))
    assert gpu.cuda_version() == (13, 0)


@pytest.mark.parametrize("driver", [None, FakeDriver(status=100)])
def test_no_usable_driver(use_driver: Any, driver: FakeDriver | None) -> None:
    use_driver(driver)
    assert gpu.find_gpus() == ()
    assert gpu.cuda_version() is None


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue", "580.95.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57  Release", "575.57"),
        ("no version 1.2", ""),
    ],
)
def test_driver_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, release: str
) -> None:
    monkeypatch.setattr(gpu, "_KERNEL_MODULE", tmp_path / "version")
    assert gpu.driver_release() == ""
    (tmp_path / "version").write_text(text)
    assert gpu.driver_release() == release
