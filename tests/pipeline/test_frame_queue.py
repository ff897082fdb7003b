"""The bounded queue between capture and inference."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from realtime_ssd.core.frames import Frame
from realtime_ssd.pipeline.frame_queue import FrameQueue, SourceQueue
from tests.pipeline.fakes import RecordingObserver


def frame(index: int, source: str = "a") -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), index, source)


def indices(frames: list[Frame]) -> list[tuple[str, int]]:
    return [(each.source, each.index) for each in frames]


def test_frames_are_taken_in_turn_starting_after_the_source_served_last() -> None:
    queues = [SourceQueue(name, live=False, maxsize=10) for name in "abc"]
    queue = FrameQueue(queues, RecordingObserver())
    for source in queues:
        for index in range(3):
            queue.put(source, frame(index, source.name))
    taken = [indices(queue.take(1))[0] for _ in range(9)]
    assert taken == [(name, index) for index in range(3) for name in "abc"]


def test_a_batch_continues_the_turn() -> None:
    queues = [SourceQueue(name, live=True, maxsize=10) for name in "abc"]
    queue = FrameQueue(queues, RecordingObserver())
    for source in queues:
        for index in range(2):
            queue.put(source, frame(index, source.name))
    assert indices(queue.take(2)) == [("a", 0), ("b", 0)]
    assert indices(queue.take(4)) == [("c", 0), ("a", 1), ("b", 1), ("c", 1)]


def test_a_live_source_keeps_the_newest_and_counts_the_replaced() -> None:
    observer = RecordingObserver()
    source = SourceQueue("a", live=True)
    queue = FrameQueue([source], observer)
    for index in range(5):
        assert queue.put(source, frame(index))
    assert indices(queue.take(8)) == [("a", 4)]
    assert observer.frames == [("a", "replaced")] * 4


def test_the_mark_of_a_replaced_frame_moves_to_its_replacement() -> None:
    source = SourceQueue("a", live=True)
    queue = FrameQueue([source], RecordingObserver())
    queue.put(source, replace(frame(0), discontinuity=True))
    queue.put(source, frame(1))
    (taken,) = queue.take(1)
    assert (taken.index, taken.discontinuity) == (1, True)
    queue.put(source, frame(2))
    assert not queue.take(1)[0].discontinuity


def test_a_full_file_queue_blocks_until_frames_are_taken() -> None:
    source = SourceQueue("a", live=False, maxsize=2)
    queue = FrameQueue([source], RecordingObserver())
    third = threading.Event()

    def produce() -> None:
        for index in range(3):
            queue.put(source, frame(index))
        third.set()

    thread = threading.Thread(target=produce)
    thread.start()
    assert not third.wait(0.05)
    assert indices(queue.take(1)) == [("a", 0)]
    assert third.wait(30)
    thread.join()


def test_files_may_read_one_frame_more_ahead_than_a_batch_takes() -> None:
    source = SourceQueue("a", live=False, maxsize=2)
    queue = FrameQueue([source], RecordingObserver(), batch_timeout=0.0)
    queue.put(source, frame(0))
    queue.take(8)
    for index in range(9):
        queue.put(source, frame(index))  # would block above 9
    assert source.maxsize == 9
    assert len(queue.take(100)) == 9


@pytest.mark.parametrize("live", [False, True])
def test_the_limit_ends_a_source(live: bool) -> None:
    observer = RecordingObserver()
    source = SourceQueue("a", live=live, maxsize=1, limit=2)
    queue = FrameQueue([source], observer, batch_timeout=0.0)
    assert queue.put(source, frame(0))
    queue.take(1)
    more = queue.put(source, frame(1))
    assert more == live  # a live source ends once the frame is taken, for it may be replaced
    queue.take(1)
    assert not queue.put(source, frame(2))
    assert observer.frames == [("a", "stopped")]
    if live:
        assert queue.take(1) == []


def test_closing_drops_what_waits_and_unblocks_everyone() -> None:
    observer = RecordingObserver()
    source = SourceQueue("a", live=False, maxsize=2)
    queue = FrameQueue([source], observer)
    queue.put(source, frame(0))
    queue.put(source, frame(1))
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(queue.put(source, frame(2))))
    thread.start()
    queue.close()
    thread.join(30)
    assert answers == [False]
    assert queue.take(1) == []
    assert observer.frames == [("a", "stopped")] * 3
    queue.close()
    assert len(observer.frames) == 3


def test_take_returns_nothing_once_all_sources_finished() -> None:
    queues = [SourceQueue(name, live=False) for name in "ab"]
    queue = FrameQueue(queues, RecordingObserver())
    queue.put(queues[0], frame(0))
    queue.finish(queues[0])
    queue.finish(queues[1])
    assert len(queue.take(4)) == 1
    assert queue.take(4) == []
