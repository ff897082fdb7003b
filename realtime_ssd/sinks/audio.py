"""The audio of a source file, copied packet by packet beside the annotated video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer

__all__ = ["Audio", "seconds_of"]

Packet: TypeAlias = "av.Packet[Any]"


class Audio:
    """Gives the audio packets of a source file, as they are, in step with the video.

    Args:
        path: Source file.
        source: The same, opened.
    """

    def __init__(self, path: Path, source: InputContainer) -> None:
        self._path, self._source = path, source
        self._input = source.streams.audio[0]
        self._waiting: Packet | None = None
        self._rest = self._all()
        self._filter: BitStreamFilterContext | None = None
        self._early = False

    @classmethod
    def of(cls, path: Path) -> Audio | None:
        """Open the audio of a file; None if it has none."""
        try:
            source = av.open(str(path))
        except av.error.FFmpegError:
            return None
        if not source.streams.audio:
            source.close()
            return None
        return cls(path, source)

    @property
    def codec(self) -> str:
        """Name of the codec, for people."""
        return str(self._input.codec_context.codec.canonical_name)

    def attach(self, container: OutputContainer) -> None:
        """Add a stream for the packets to a file.

        Raises:
            ValueError: If this kind of file takes no such audio; or an FFmpegError, then or when
                the file's header is written.
        """
        self._output = container.add_stream_from_template(self._input)
        # AVI cannot say that audio begins before the video; it would move both.
        self._early = container.format.name != "avi"
        context = self._input.codec_context
        if context.name == "aac" and not context.extradata:
            # MPEG-TS puts a header before each packet where others have one for the whole file.
            self._filter = BitStreamFilterContext("aac_adtstoasc", self._input)

    def packets(self, until: float | None) -> Iterator[Packet]:
        """Give the packets up to a time in seconds, or all that are left."""
        while True:
            packet = self._waiting or next(self._rest, None)
            self._waiting = packet
            if packet is None or (until is not None and seconds_of(packet) > until):
                return
            self._waiting = None
            packet.stream = self._output
            yield packet

    def video_goes_on(self, seconds: float) -> bool:
        """Tell whether the source has video after a time, so that the rest of its audio is not due.

        Args:
            seconds: Time of the last frame that was written.
        """
        try:
            with av.open(str(self._path)) as source:
                video = source.streams.video[0]
                base = video.time_base or 1
                source.seek(int(seconds / base), stream=video)
                stamps = (packet.pts for packet in source.demux(video))
                return any(pts is not None and pts * base > seconds + 1e-6 for pts in stamps)
        except (av.error.FFmpegError, IndexError):
            return False

    def _all(self) -> Iterator[Packet]:
        """Read all packets that can be written; a damaged source ends early, as its video says."""
        packets = self._source.demux(self._input)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                ready = [packet] if self._filter is None else self._filter.filter(packet)
            except av.error.FFmpegError:
                return
            yield from (one for one in ready if one.dts is not None and self._wanted(one))

    def _wanted(self, packet: Packet) -> bool:
        """Tell whether a packet has its place; what ends before the beginning is not heard."""
        if self._early or packet.pts is None or self._input.codec_context.name != "aac":
            return True
        return packet.pts + (packet.duration or 0) > 0

    def close(self) -> None:
        """Close the source file."""
        self._source.close()


def seconds_of(packet: Packet) -> float:
    """Give the time at which a packet is decoded; 0.0 where it does not say."""
    if packet.dts is None or packet.time_base is None:
        return 0.0
    return float(packet.dts * packet.time_base)
