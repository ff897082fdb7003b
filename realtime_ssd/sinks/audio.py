"""The audio of a source file, copied packet by packet into the annotated video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer

__all__ = ["AudioTrack", "decode_time"]

Packet: TypeAlias = "av.Packet[Any]"


class AudioTrack:
    """Copies the packets of the first audio stream of a source file, unchanged.

    Args:
        path: Source file.
        source: The same file, opened; closed with this object.
    """

    def __init__(self, path: Path, source: InputContainer) -> None:
        self._path, self._source = path, source
        self._input = source.streams.audio[0]
        self._pending: Packet | None = None
        self._packets = self._read()
        self._filter: BitStreamFilterContext | None = None
        self._keeps_negative_times = False

    @classmethod
    def open(cls, path: Path) -> AudioTrack | None:
        """Open the audio of a file; return None if it has none."""
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
        """Name of the codec, for messages."""
        return str(self._input.codec_context.codec.canonical_name)

    def attach(self, container: OutputContainer) -> None:
        """Add an audio stream for the packets to an output file.

        Raises:
            ValueError: If this container format does not support the codec.
            FFmpegError: As above, here or when the header of the file is written.
        """
        self._output = container.add_stream_from_template(self._input)
        # AVI cannot store audio that starts before the video: it would shift both.
        self._keeps_negative_times = container.format.name != "avi"
        context = self._input.codec_context
        if context.name == "aac" and not context.extradata:
            # MPEG-TS has a header in every packet where other formats have one for the stream.
            self._filter = BitStreamFilterContext("aac_adtstoasc", self._input)

    def packets(self, until: float | None) -> Iterator[Packet]:
        """Yield the next packets up to a time in seconds, or all that remain if it is None."""
        while True:
            packet = self._pending or next(self._packets, None)
            self._pending = packet
            if packet is None or (until is not None and decode_time(packet) > until):
                return
            self._pending = None
            packet.stream = self._output
            yield packet

    def has_video_after(self, seconds: float) -> bool:
        """Return whether the source has video after a time, so that audio there is not copied.

        Args:
            seconds: Time of the last frame that was written.
        """
        try:
            with av.open(str(self._path)) as source:
                video = source.streams.video[0]
                time_base = video.time_base or 1
                source.seek(int(seconds / time_base), stream=video)
                times = (packet.pts for packet in source.demux(video))
                return any(pts is not None and pts * time_base > seconds + 1e-6 for pts in times)
        except (av.error.FFmpegError, IndexError):
            return False

    def _read(self) -> Iterator[Packet]:
        """Yield all packets that can be written; a damaged source ends early, like its video."""
        packets = self._source.demux(self._input)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                filtered = [packet] if self._filter is None else self._filter.filter(packet)
            except av.error.FFmpegError:
                return
            yield from (item for item in filtered if item.dts is not None and self._is_kept(item))

    def _is_kept(self, packet: Packet) -> bool:
        """Return whether a packet can be stored; AAC before time 0 is only encoder delay."""
        is_aac = self._input.codec_context.name == "aac"
        if self._keeps_negative_times or packet.pts is None or not is_aac:
            return True
        return packet.pts + (packet.duration or 0) > 0

    def close(self) -> None:
        """Close the source file."""
        self._source.close()


def decode_time(packet: Packet) -> float:
    """Return the decoding time stamp in seconds; 0.0 if the packet has none."""
    if packet.dts is None or packet.time_base is None:
        return 0.0
    return float(packet.dts * packet.time_base)
