"""Copies of pixels with several threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray
from realtime_ssd_engines.cuda import staging
from realtime_ssd_engines.cuda.staging import HostCopier, copy_threads


@pytest.fixture(autouse=True)
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "BAND_BYTES", 1000)


def images(*sizes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_copies_are_complete_and_in_order(threads: int) -> None:
    sources = [*images((7, 11), (100, 64), (1, 3000), (3000, 1)), images((50, 90))[0][::2, 10:33]]
    targets = [np.zeros_like(source) for source in sources]
    finished = []
    with HostCopier(threads) as copier:
        for index in copier.copy(list(zip(targets, sources, strict=True))):
            np.testing.assert_array_equal(targets[index], sources[index])
            finished.append(index)
    assert finished == list(range(len(sources)))


def test_a_copy_that_is_abandoned_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory may be freed afterwards."""
    running, copied, real = threading.Event(), [], np.copyto

    def slow_copy(target: NDArray[np.uint8], source: NDArray[np.uint8]) -> None:
        running.set()
        real(target, source)
        copied.append(len(target))

    monkeypatch.setattr(np, "copyto", slow_copy)
    (source,) = images((400, 50))
    with HostCopier(2) as copier:
        copies = copier.copy([(np.zeros_like(source), source)] * 4)
        next(copies)
        assert running.is_set()
        copies.close()
        before = len(copied)
    assert len(copied) == before


def test_errors_of_copies_are_raised() -> None:
    (source,) = images((400, 50))
    with HostCopier(2) as copier, pytest.raises(ValueError, match="broadcast"):
        list(copier.copy([(np.zeros((400, 49, 3), np.uint8), source)]))


def test_half_of_the_cores_copy() -> None:
    assert [copy_threads(cores) for cores in (1, 2, 4, 8, 16, 64)] == [1, 1, 2, 4, 8, 8]
