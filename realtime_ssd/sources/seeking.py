"""Skipping to a time of a video without decoding everything before it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import floor
from typing import Any, TypeAlias

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import InputContainer
from av.video.stream import VideoStream

from realtime_ssd.sources.timestamps import PacketClock

__all__ = ["seek_if_indexed", "skip_packets"]

_INDEXED = ("mov", "matroska")  # formats in FFmpeg with an index, and without jumps of the clock

Packet: TypeAlias = "av.Packet[Any]"


def seek_if_indexed(container: InputContainer, stream: VideoStream, time: Fraction) -> bool:
    """Continue at the last key frame before a time, if the format has an index for that.

    In other formats, whose clock may jump, only reading everything before shows where a time is.

    Args:
        container: Open file, of which nothing has been read.
        stream: Its video stream.
        time: Seconds of the source.

    Returns:
        Whether this was possible; if not, the file is at its beginning.
    """
    if container.format.name.split(",")[0] not in _INDEXED or not stream.time_base:
        return False
    try:
        container.seek(floor(time / stream.time_base), stream=stream, backward=True)
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def skip_packets(
    packets: Iterator[Packet], clock: PacketClock, time: Fraction | None
) -> Iterator[tuple[Packet, bool]]:
    """Yield packets with corrected time stamps, without those that a time does not need.

    Everything before the last key frame before that time is left out.

    Args:
        packets: Packets of a video stream, in the order of the file.
        clock: Corrects their time stamps.
        time: Seconds of the source; None for the beginning. If the packets have no time stamps,
            none is left out.

    Yields:
        Each packet, and whether it is to be decoded.
    """
    waiting: list[Packet] = []
    for packet in packets:
        clock.correct(packet)
        if time is None:
            yield packet, True
            continue
        pts, time_base = packet.pts, packet.time_base
        before = pts is not None and bool(time_base) and pts * time_base < time
        if packet.is_keyframe and before:
            for skipped in waiting:
                clock.discard(skipped)
                yield skipped, False
            waiting.clear()
        waiting.append(packet)
        if not before:
            time = None
            for needed in waiting:
                yield needed, True
            waiting.clear()
    for needed in waiting:
        yield needed, True
