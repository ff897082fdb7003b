"""Sound and subtitles of a source that can be read only once, such as a pipe."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import InputContainer
from av.container.streams import StreamContainer
from av.format import ContainerFormat
from av.stream import Stream

__all__ = ["PacketFeed", "PacketTimes"]

MAX_BYTES = 16 << 20
"""Bytes of sound that are kept for a reader; beyond that the oldest are dropped."""

Packet: TypeAlias = "av.Packet[Any]"


@dataclass(slots=True)
class PacketTimes:
    """A video packet without its data: what the clock of the source is derived from."""

    stream_index: int
    size: int
    pts: int | None
    dts: int | None
    time_base: Fraction | None


class PacketFeed:
    """Passes packets from the thread that reads a container to one that copies its sound.

    It is read like an `InputContainer`, except that `demux` returns what has been read so far, and
    that its iterator continues after `StopIteration` once more has been read. The container is
    closed when the source and the reader, if there is one, are done with it.

    Args:
        container: The open container; only `put` is called while it is demuxed.
    """

    def __init__(self, container: InputContainer) -> None:
        self._container = container
        self._packets: deque[Packet | PacketTimes] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._has_reader = self._source_done = False
        self._wanted: set[int] | None = None  # streams; all until there is a reader

    @property
    def streams(self) -> StreamContainer:
        """The streams of the container."""
        return self._container.streams

    @property
    def format(self) -> ContainerFormat:
        """The format of the container."""
        return self._container.format

    def dumps_format(self) -> str:
        """Return FFmpeg's description of the container."""
        return str(getattr(self._container, "dumps_format")())  # noqa: B009 - not annotated

    def attach(self) -> bool:
        """Announce the only reader, which must call `close`; False if it would be too late."""
        with self._lock:
            if self._has_reader or self._source_done:
                return False
            self._has_reader = True
            return True

    def put(self, packet: Packet) -> None:
        """Add a packet that was demuxed, before its time stamps are changed."""
        item: Packet | PacketTimes = packet
        if packet.stream.type == "video":
            item = PacketTimes(
                packet.stream_index, packet.size, packet.pts, packet.dts, packet.time_base
            )
        with self._lock:
            if self._wanted is not None and packet.stream_index not in self._wanted:
                return
            self._packets.append(item)
            self._bytes += _held_bytes(item)
            while self._bytes > MAX_BYTES:
                self._bytes -= _held_bytes(self._packets.popleft())

    @property
    def ended(self) -> bool:
        """Whether no more packets will arrive."""
        return self._source_done

    def demux(self, *streams: Stream) -> Iterator[Packet | PacketTimes]:
        """Return an iterator over the packets of some streams that have been read so far."""
        self._wanted = {stream.index for stream in streams}
        return _Packets(self)

    def next_packet(self) -> Packet | PacketTimes:
        """Return the oldest packet.

        Raises:
            StopIteration: If there is none at present.
        """
        with self._lock:
            while self._packets:
                item = self._packets.popleft()
                self._bytes -= _held_bytes(item)
                if self._wanted is None or item.stream_index in self._wanted:
                    return item
        raise StopIteration

    def end(self) -> None:
        """Record that the source has been read to its end, or is not read any further."""
        with self._lock:
            self._source_done = True
            if not self._has_reader:
                self._packets.clear()
                self._container.close()

    def close(self) -> None:
        """Release the reader's share of the container."""
        with self._lock:
            self._has_reader = False
            self._packets.clear()
            if self._source_done:
                self._container.close()


class _Packets:
    """Iterator of `PacketFeed.demux`."""

    def __init__(self, feed: PacketFeed) -> None:
        self._feed = feed

    def __iter__(self) -> Iterator[Packet | PacketTimes]:
        return self

    def __next__(self) -> Packet | PacketTimes:
        return self._feed.next_packet()


def _held_bytes(item: Packet | PacketTimes) -> int:
    return 64 if isinstance(item, PacketTimes) else item.size
