"""Video files: every frame in order, upright, with its own time stamp."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, TypeAlias

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import InputContainer
from av.video.stream import VideoStream

from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.errors import SourceError, UsageError, first_line, redact
from realtime_ssd.core.frames import Frame, Image, LazyImage
from realtime_ssd.core.printable import printable
from realtime_ssd.sources.base import BaseSource, InputLimits, SourceInfo
from realtime_ssd.sources.ffmpeg import (
    FrameConverter,
    discard,
    error_reason,
    is_remote,
    main_video,
    media_location,
    orientation_of,
    undecodable,
    upright_size,
)
from realtime_ssd.sources.media_input import open_input, pixel_problem
from realtime_ssd.sources.nvdec import open_on_gpu, surface_of
from realtime_ssd.sources.packet_feed import PacketFeed
from realtime_ssd.sources.seeking import seek_if_indexed, skip_packets
from realtime_ssd.sources.timestamps import FrameClock, PacketClock, frame_duration, is_gap

__all__ = ["VideoFile", "decoder_threads"]

_log = logging.getLogger(__name__)

Packet: TypeAlias = "av.Packet[Any]"

MAX_DECODER_THREADS = 4
TIMEOUT = 8.0
"""Limit in seconds for opening a file on the network and for each read from it."""


class VideoFile(BaseSource):
    """Reads a video file, local or on a web server.

    Args:
        path: File or URL; a pipe is opened once, and read as it arrives.
        gpu: Whether to decode on the GPU and leave the frames in its memory. If that is not
            possible, the CPU decodes, with a warning that gives the reason.
        limits: Limits of the source.

    Raises:
        UsageError: If the file does not exist or is not readable for this user.
        SourceError: If it is not a video.
    """

    def __init__(self, path: str, *, gpu: bool = False, limits: InputLimits | None = None) -> None:
        self._limits = limits or InputLimits()
        self._path, self._name, self._gpu = path, printable(redact(path)), gpu
        self._container: InputContainer | None = None
        self._decoded: Generator[av.VideoFrame, None, None] = _no_frames()
        self._converter = FrameConverter()
        self._feed: PacketFeed | None = None
        self._skip_to: Fraction | None = None
        self.info = SourceInfo(self._name)
        self.open()
        self.first_time = (self._next.pts or 0) * self.info.time_base if self._next else Fraction(0)

    def open(self) -> None:
        """Open the file at its first frame; see `Source.open`."""
        self.close()
        container = _open(self._path, self._name, self._limits, gpu=self._gpu)
        if not container.streams.video:
            container.close()
            raise SourceError(f"'{self._name}' contains no video; use a video file")
        self._container, self._stream = container, main_video(container.streams.video)
        problem = undecodable(self._name, container, self._stream)
        problem = problem or pixel_problem(self._name, self._stream, self._limits)
        if problem:
            self.close()
            raise SourceError(problem)
        if not is_remote(self._path) and not Path(self._path).is_file():
            self._feed = PacketFeed(container)
        _set_threads(self._stream)
        self._packets = self._undecodable = self._concealed = self._index = self._end = 0
        self._demux_error = ""
        self._packet_clock = PacketClock(container, self._stream)
        self._frame_clock = FrameClock(frame_duration(self._stream), self._stream.start_time or 0)
        self._last_pts: int | None = None
        skip_to = self._skip_to
        self._has_seeked = skip_to is not None and seek_if_indexed(container, self._stream, skip_to)
        self._decoded = self._decode(container, None if self._has_seeked else skip_to)
        # The rotation is known only from the first frame, which `read` returns later; it repairs
        # the time stamp of a frame with that of the next one.
        first = self._next = next(self._decoded, None)
        if first is not None and self._on_cpu_despite_gpu(first):
            _warn(self._name, "NVDEC does not support this kind of video")
            self._gpu = False
            self.open()  # with the threads of the CPU's decoder
            return
        sideways = first is not None and orientation_of(first)[0]
        info = _source_info(self._path, self._name, self._stream, sideways=sideways)
        self.info = replace(info, feed=self._feed)

    def seek(self, time: Fraction) -> None:
        """Open the file again near a time; see `Seekable`. A pipe stays at its beginning.

        Args:
            time: Seconds of the source.
        """
        if self._feed is None:
            self._skip_to = time
            self.open()

    def _on_cpu_despite_gpu(self, frame: av.VideoFrame) -> bool:
        wanted = self._gpu and self._stream.codec_context.is_hwaccel
        return wanted and frame.format.name != "cuda"

    def read(self) -> Frame | None:
        """See `Source.read`; damage is reported after the last readable frame."""
        if self._container is None:
            return None
        decoded, self._next = self._next, next(self._decoded, None)
        if decoded is None:
            self._check_complete()
            return None
        time_base = decoded.time_base or self._stream.time_base or Fraction(1, 1000)
        pts, discontinuity = self._timestamp(decoded, time_base)
        frame = Frame(
            LazyImage(partial(self._convert, decoded), *upright_size(decoded)),
            self._index,
            self._name,
            pts,
            time_base,
            surface=surface_of(decoded) if decoded.format.name == "cuda" else None,
            discontinuity=discontinuity,
            pixel_aspect=self.info.pixel_aspect,
        )
        self._index += 1
        return frame

    def _timestamp(self, decoded: av.VideoFrame, time_base: Fraction) -> tuple[int, bool]:
        """Return the time stamp of a frame, and whether it is a discontinuity."""
        last = self._last_pts
        pts = self._frame_clock.next(decoded.pts, self._next.pts if self._next else None)
        self._last_pts = pts
        restarted = self._packet_clock.is_restart(pts)
        return pts, last is not None and (restarted or is_gap(float((pts - last) * time_base)))

    def _convert(self, decoded: av.VideoFrame) -> Image:
        try:
            return self._converter.to_bgr(decoded)
        except (av.error.FFmpegError, ValueError) as error:
            raise SourceError(
                f"'{self._name}' has frames that cannot be converted to BGR: {first_line(error)}"
            ) from error

    def close(self) -> None:
        """See `Source.close`."""
        if self._container is None:
            return
        self._decoded.close()
        if self._feed is not None:
            self._feed.end()
        else:
            self._container.close()
        self._container = None

    def _demux(self, container: InputContainer) -> Iterator[Packet]:
        """Yield the packets of the video, and pass all others on, up to the end or to damage."""
        tracks = (*container.streams.audio, *container.streams.subtitles)
        if self._feed is None:
            discard(tracks)  # a playlist may have files of its own for them
            tracks = ()
        packets = container.demux(self._stream, *tracks)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self._demux_error = error.strerror or "damaged"
                return
            if self._feed is not None:
                self._feed.put(packet)
            # The last packets, which are empty, have no index.
            if packet.stream.index == self._stream.index:
                yield packet

    def _decode(
        self, container: InputContainer, skip_to: Fraction | None
    ) -> Generator[av.VideoFrame, None, None]:
        """Decode packet by packet; undecodable packets are counted and skipped."""
        packets = skip_packets(self._demux(container), self._packet_clock, skip_to)
        for packet, needed in packets:
            self._count(packet)
            if not needed:
                continue
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self._undecodable += 1
                self._packet_clock.discard(packet)
                continue
            for frame in frames:
                self._concealed += frame.is_corrupt
                frame.pts = self._packet_clock.presentation_time(frame)
                yield frame

    def _count(self, packet: av.Packet[Any]) -> None:
        """Update the number of packets and the end of the latest one."""
        if not packet.size:
            return
        self._packets += 1
        start = packet.pts if packet.pts is not None else packet.dts
        if start is not None:
            self._end = max(self._end, start + (packet.duration or 0))

    def _is_truncated(self) -> bool:
        """Return whether packets at the end of the file are missing.

        AVI counts dropped frames, for which it stores no packet, so fewer packets than frames are
        accepted if the last one ends where the stream ends.
        """
        stream = self._stream
        complete = not stream.frames or self._packets >= stream.frames
        if self._demux_error or self._has_seeked or complete:
            return bool(self._demux_error)
        if not stream.duration or not stream.time_base:
            return True
        rate = stream.average_rate
        frame_duration = 1 / (rate * stream.time_base) if rate else Fraction(1)
        return self._end < (stream.start_time or 0) + stream.duration - frame_duration / 2

    def _check_complete(self) -> None:
        """Report damage once all readable frames have been read.

        Raises:
            SourceError: If frames are missing.
        """
        if not self._index:
            reason = "it may be damaged"
            if is_remote(self._path):
                reason += ", or its server does not support range requests: download it first"
            raise SourceError(f"'{self._name}' has no frame that can be decoded; {reason}")
        kept = f"the {self._index} frames that could be decoded were kept"
        if self._is_truncated():
            total = f" of {self._stream.frames}" if self._stream.frames else ""
            raise SourceError(
                f"'{self._name}' is truncated after frame {self._packets}{total}; {kept}"
            )
        if self._undecodable:
            raise SourceError(f"'{self._name}' is damaged in {self._undecodable} places; {kept}")
        if self._concealed:
            _log.warning(
                "'%s' is damaged: %d of its %d frames were repaired and may look wrong",
                *(self._name, self._concealed, self._index),
            )


def _no_frames() -> Generator[av.VideoFrame, None, None]:
    yield from ()


def _open(path: str, name: str, limits: InputLimits, *, gpu: bool) -> InputContainer:
    remote = is_remote(path)
    timeout = TIMEOUT if remote else None
    location = media_location(path)
    is_file = remote or Path(path).is_file()
    try:
        if is_file and not remote:
            with Path(path).open("rb"):
                pass
        if gpu and is_file:
            container, reason = open_on_gpu(location, timeout, limits)
            if container is not None:
                return container
            _warn(name, reason)
        return open_input(location, limits=limits, timeout=timeout)
    except av.error.FFmpegError as error:
        hint = "" if is_file else "; an MP4 file can only be piped if its index comes first"
        reason = error_reason(error)
        raise SourceError(f"'{name}' cannot be read as a video: {reason}{hint}") from None
    except OSError as error:
        raise UsageError(f"'{name}' cannot be opened: {error.strerror}") from None


def decoder_threads(width: int, height: int, cores: int) -> int:
    """Return the number of decoder threads: each has overhead, so just enough for inference."""
    return max(1, min(cores, MAX_DECODER_THREADS, ceil(width * height / 1e6 * cores / 2)))


def _set_threads(stream: VideoStream) -> None:
    """Set the threads of a decoder; each thread of NVDEC occupies one of its 32 surfaces."""
    stream.thread_type = "AUTO"
    context = stream.codec_context
    threads = decoder_threads(context.width, context.height, cpu_count())
    context.thread_count = 1 if context.is_hwaccel else threads


def _warn(name: str, reason: str) -> None:
    _log.warning("'%s' is decoded on the CPU: %s", name, reason)


def _source_info(path: str, name: str, stream: VideoStream, *, sideways: bool) -> SourceInfo:
    width, height = stream.codec_context.width, stream.codec_context.height
    file = None if is_remote(path) else Path(path)
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    return SourceInfo(
        name=name,
        width=height if sideways else width,
        height=width if sideways else height,
        rate=stream.average_rate or stream.base_rate,
        time_base=stream.time_base or Fraction(1, 1000),
        frame_count=stream.frames or None,
        path=file,
        files=() if file is None else (file,),
        pixel_aspect=1 / aspect if sideways else aspect,
        # A pipe can be read only once.
        media=media_location(path) if file is None or file.is_file() else "",
    )
