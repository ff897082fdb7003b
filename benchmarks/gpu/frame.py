"""The one-launch frame: same bits as single launches, flat memory, little Python."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda import driver

from benchmarks.gpu.context import Room
from benchmarks.gpu.heads import Case, random_cases, ssd300_case
from benchmarks.gpu.networks import RecordedHeads
from benchmarks.gpu.rows import SkippedError
from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame

__all__ = ["check_frames", "pictures", "steady"]

SECTION = "frame"
SOAK = 10_000


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> list[Frame]:
    """Draw random frames of one size (width, height)."""
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], 3)
    return [Frame(rng.integers(0, 256, shape, np.uint8), index=i) for i in range(count)]


@contextmanager
def recorded(
    room: Room, case: Case, *, graphs: bool = True, slots: int = 3
) -> Iterator[GpuBackend]:
    """Open the runtime with recorded heads as the network."""
    device = room.device()
    try:
        with device:
            network = RecordedHeads(device, case.scores, case.offsets)
            options = BackendOptions(batch=len(case.scores))
            cache = room.place / "kernels"
            backend = GpuBackend(device, network, case.spec, options, slots, graphs, cache)
    except BaseException:
        device.close()
        raise
    with backend:
        yield backend


def check_frames(room: Room, seed: int) -> None:
    """Check graphs, memory and Python's share on recorded heads.

    Args:
        room: What the sections share.
        seed: Of the random heads.
    """
    rng = np.random.default_rng(seed)
    (case, *_) = random_cases(rng, quick=True)
    for name, question in (
        ("graph = single launches, bit for bit", _same_bits),
        (f"device memory over {_soak(room)} frames", _flat),
        ("Python time a frame", _python),
        ("three slots against one", _overlap),
    ):
        with room.report.guard(SECTION, name):
            room.need_gpu()
            question(room, case, name)


def _soak(room: Room) -> int:
    return 300 if room.quick else SOAK


def _same_bits(room: Room, case: Case, name: str) -> None:
    if not driver.graphs_available():
        raise SkippedError("cuda-bindings is not installed, so there are no graphs")
    answers: list[list[Detections]] = []
    sizes = [(64, 48), (300, 300), (1920, 1080)]
    for graphs in (False, True):
        with recorded(room, case, graphs=graphs) as backend:
            found = []
            for turn, size in enumerate(sizes):
                given = pictures(1 + turn % backend.max_batch, size, turn)
                found += backend.collect(backend.submit(given))
            answers.append(found)
    same = all(
        np.array_equal(one.boxes, two.boxes)
        and np.array_equal(one.scores, two.scores)
        and np.array_equal(one.class_ids, two.class_ids)
        for one, two in zip(*answers, strict=True)
    )
    count = sum(map(len, answers[0]))
    room.report.truth(SECTION, name, same, "the answers differ", f"{count} detections")


def _flat(room: Room, case: Case, name: str) -> None:
    frames, whole = pictures(len(case.scores), (320, 240)), _soak(room)
    with recorded(room, case) as backend:
        keeper = room.device()
        for _ in range(20):
            backend.collect(backend.submit(frames))
        before, begun = keeper.free_memory(), time.monotonic()
        for _ in range(whole // len(frames)):
            backend.collect(backend.submit(frames))
        spent, after = time.monotonic() - begun, keeper.free_memory()
        keeper.close()
    note = f"{whole / spent:.0f} frames/s"
    room.report.number(SECTION, name, (before - after) / 2**20, "MiB more", most=0, note=note)


def _python(room: Room, case: Case, name: str) -> None:
    """Time the calls alone: the GPU has finished before the answer is asked for."""
    times = []
    one = Case(case.name, case.spec, case.scores[:1], case.offsets[:1])
    (frame,) = pictures(1, (64, 48))
    with recorded(room, one) as backend:
        for _ in range(100 if room.quick else 1000):
            begun = time.perf_counter()
            ticket = backend.submit([frame])
            submitted = time.perf_counter()
            ticket.payload.stream.synchronize()
            resumed = time.perf_counter()
            backend.collect(ticket)
            times.append(submitted - begun + time.perf_counter() - resumed)
    value = 1e6 * statistics.median(times)
    room.report.number(SECTION, name, value, "µs", most=100, note="submit and collect, batch 1")


def _overlap(room: Room, case: Case, name: str) -> None:
    """Push 1080p frames through one slot and through three."""
    frames = pictures(1, (1920, 1080))
    heavy = ssd300_case(np.random.default_rng(0), 1)
    rounds, rates = 20 if room.quick else 300, {}
    for slots in (1, 3):
        with recorded(room, heavy, slots=slots) as backend:
            rates[slots] = steady(backend, frames, rounds)
    room.report.number(SECTION, name, rates[1] / rates[3], "times as fast")


def steady(backend: GpuBackend, frames: list[Frame], rounds: int) -> float:
    """Keep all slots busy and give the seconds a batch takes."""
    waiting = [backend.submit(frames) for _ in range(backend.max_in_flight)]
    begun = time.perf_counter()
    for _ in range(rounds):
        backend.collect(waiting.pop(0))
        waiting.append(backend.submit(frames))
    spent = (time.perf_counter() - begun) / rounds
    for ticket in waiting:
        backend.collect(ticket)
    return spent
