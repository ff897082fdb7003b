"""Sound tracks and subtitles of a source file, copied packet by packet into the annotated video."""

from __future__ import annotations

import io
import logging
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import Any, TypeAlias, cast

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.subtitles.stream import SubtitleStream

from realtime_ssd.sources.ffmpeg import codec_name, discard, main_video, sound_of
from realtime_ssd.sources.media_input import open_input
from realtime_ssd.sources.packet_feed import PacketFeed, PacketTimes
from realtime_ssd.sources.seeking import seek_if_indexed
from realtime_ssd.sources.timestamps import PacketClock, is_gap

__all__ = ["CopiedTracks", "decode_time"]

_log = logging.getLogger(__name__)

Packet: TypeAlias = "av.Packet[Any]"

TIMEOUT = 8.0
"""Limit in seconds for opening a file on the network and for each read from it."""

_MAX_HELD = 500  # packets of one track that wait for the video to reach a jump of the clock
_MAX_NUDGE = Fraction(1, 10)  # seconds by which a packet may be moved to follow the one before
_METADATA = ("language", "title")
_MAX_DELAY = 2  # packets before time 0 that only prepare the decoder
# Bytes of silence; all other PCM codecs have 0.
_SILENCE = {"pcm_mulaw": 0xFF, "pcm_alaw": 0xD5, "pcm_u8": 0x80}
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_UNSUPPORTED = (av.error.FFmpegError, ValueError, TypeError, AttributeError)


class CopiedTracks:
    """Copies the packets of all sound tracks and subtitles of a file, unchanged.

    Their time stamps are shifted like those of the video frames; see
    `realtime_ssd.sources.timestamps`.

    Args:
        source: Source file, opened for this object, which closes it; or the packets of a source
            that can be read only once.
        start: Time of the source, in seconds, before which nothing is copied.
    """

    def __init__(self, source: InputContainer | PacketFeed, start: Fraction = Fraction(0)) -> None:
        self._source, self._start = source, start
        self._video = main_video(source.streams.video)
        self._clock = PacketClock(source, self._video)
        self._tracks: dict[int, _Track] = {}
        self._ready: deque[Packet] = deque()
        self._demuxed: Iterator[Packet | PacketTimes] = iter(())
        self._video_end = Fraction(-(10**9))

    @classmethod
    def open(cls, location: str, start: Fraction = Fraction(0)) -> CopiedTracks | None:
        """Open a file or URL; return None if it has neither sound nor subtitles.

        Args:
            location: See `SourceInfo.media`.
            start: Time of the source, in seconds, before which nothing is copied.
        """
        timeout = TIMEOUT if "://" in location else None
        try:
            source = open_input(location, timeout=timeout)
        except (av.error.FFmpegError, OSError):
            return None
        if not source.streams.video or not (source.streams.audio or source.streams.subtitles):
            source.close()
            return None
        if start:
            seek_if_indexed(source, main_video(source.streams.video), start)
        return cls(source, start)

    def attach(self, container: OutputContainer, path: str, suffix: str) -> None:
        """Add a track to an output file for each one that its format supports.

        Args:
            container: Output file, before its header is written.
            path: Its path, for warnings about tracks that are left out.
            suffix: Its suffix, likewise.
        """
        sound = sound_of(self._source.streams.audio, self._video)
        sounds = len(sound)
        for stream in (*sound, *self._source.streams.subtitles):
            decoded = _must_be_decoded(stream, container.format.name)
            if decoded or _is_supported(stream, container.format.name):
                output = _add_pcm(container, stream) if decoded else _add_stream(container, stream)
                self._tracks[stream.index] = _Track(stream, output, self._clock, self._start)
                continue
            content = "sound" if sounds == 1 else f"sound track {stream.index}"
            if stream.type != "audio":
                content = f"subtitles {stream.index}"
            _log.warning(
                "'%s' is written without %s: %s does not support the source's %s",
                *(path, content, suffix, codec_name(self._source, stream)),
            )
        streams = (self._video, *(track.input for track in self._tracks.values()))
        if isinstance(self._source, InputContainer):
            discard(one for one in self._source.streams if one not in streams)
        self._demuxed = self._source.demux(*streams)

    def packets(self, until: Fraction | None, shift: Fraction) -> Iterator[Packet]:
        """Yield the next packets up to a time, or all that remain.

        Args:
            until: Time in seconds of the output file, or None.
            shift: Added to the time stamps of the source, in seconds.
        """
        while self._ready or self._read():
            if not self._ready:
                continue
            packet = self._ready[0]
            track = self._tracks[packet.stream_index]
            if until is not None and track.time_of(packet) + shift > until:
                return
            self._ready.popleft()
            yield from track.place(packet, shift)

    def drop(self, packet: Packet) -> None:
        """Stop copying the track of a packet that cannot be written."""
        for index, track in list(self._tracks.items()):
            if track.output is packet.stream and not track.dropped:
                track.dropped = True
                _log.warning(
                    "the sound or subtitles of track %d end early: a packet of %s cannot be "
                    "written",
                    *(index, codec_name(self._source, track.input)),
                )

    def has_video_after(self, time: Fraction) -> bool:
        """Return whether the source has video after a time, so that sound there is not copied.

        Args:
            time: Time of the last frame that was written, in seconds of the source.
        """
        while self._video_end <= time + Fraction(1, 10**6):
            if not self._read():
                return False
        return True

    def _read(self) -> bool:
        """Read one packet; return whether there was one. Damage ends this like the video."""
        try:
            packet = next(self._demuxed, None)
        except av.error.FFmpegError:
            packet = None
        if packet is None and isinstance(self._source, PacketFeed) and not self._source.ended:
            return False  # the rest has not been read yet
        if packet is None:
            held = [item for track in self._tracks.values() for item in track.release(end=True)]
            self._ready.extend(held)
            return bool(held)
        if packet.stream_index == self._video.index:
            self._clock.correct(packet)
            if packet.pts is not None and packet.time_base is not None and packet.size:
                self._video_end = max(self._video_end, packet.pts * packet.time_base)
            for track in self._tracks.values():
                self._ready.extend(track.release())
        elif not isinstance(packet, PacketTimes) and packet.size:
            track = self._tracks[packet.stream_index]
            track.receive(packet)
            self._ready.extend(track.release())
        return True

    def close(self) -> None:
        """Close the source file."""
        self._source.close()


class _Track:
    """One copied track.

    Args:
        stream: Its stream in the source.
        output: Its stream in the output file.
        clock: Clock of the source's video, which says where time jumps and by how much.
        start: Time of the source, in seconds, before which nothing is copied.
    """

    def __init__(self, stream: Stream, output: Stream, clock: PacketClock, start: Fraction) -> None:
        self._start = start
        self.input, self.output, self.dropped = stream, output, False
        self._format = output.container.format.name
        self._resampler: AudioResampler | None = None
        self._clock, self._segment, self._own_offset = clock, 0, Fraction(0)
        self._base = Fraction(stream.time_base or Fraction(1, 1000))
        self._held: deque[Packet] = deque()
        self._raw_end: Fraction | None = None  # of the last packet, before correction
        self._end = Fraction(0)  # likewise, after it
        self._last: int | None = None  # decoding time of the last packet in the output file
        self._closed_gap = 0  # total of the gaps that AVI leaves out, in units of the output
        self._filter: BitStreamFilterContext | None = None
        context = stream.codec_context
        if context.name != output.codec_context.name:
            self._resampler = AudioResampler("s16")
        if context.name == "aac" and not context.extradata:
            # MPEG-TS has a header in every packet where other formats have one for the stream.
            self._filter = BitStreamFilterContext("aac_adtstoasc", stream)

    def receive(self, packet: Packet) -> None:
        """Accept the next packet of the source."""
        try:
            packets = [packet] if self._filter is None else self._filter.filter(packet)
        except av.error.FFmpegError:
            return
        if self._filter is not None and self.output.codec_context.extradata:
            packets = [_without_header(item, self.input) for item in packets]
        for item in packets:
            if item.dts is None:
                item.dts = item.pts
            if item.dts is not None and not self._is_cut(item):
                self._held.append(item)

    def _is_cut(self, packet: Packet) -> bool:
        """Return whether the edit list of the source hides a packet that is no encoder delay."""
        time, delay = packet.pts or 0, _MAX_DELAY * (packet.duration or 0)
        return packet.is_discard and not -delay <= time <= 0

    def release(self, *, end: bool = False) -> list[Packet]:
        """Return the packets whose times are known, corrected; others wait for the video."""
        released = []
        while self._held and self._follow_clock(self._held[0], end=end):
            packet = self._held.popleft()
            raw = (packet.dts or 0) * self._base
            shift = round((self._clock.offsets[self._segment] + self._own_offset) / self._base)
            duration = (packet.duration or 0) * self._base
            packet.dts = (packet.dts or 0) + shift
            packet.pts = packet.dts if packet.pts is None else packet.pts + shift
            self._raw_end, self._end = raw + duration, packet.dts * self._base + duration
            released.append(packet)
        return released

    def _follow_clock(self, packet: Packet, *, end: bool) -> bool:
        """Advance to the jump of the clock that a packet shows; False if it is still unknown."""
        latest = len(self._clock.offsets) - 1
        if self.input.type != "audio":
            self._segment = latest
            return True
        raw = (packet.dts or 0) * self._base
        expected = raw + self._clock.offsets[self._segment]
        if self._own_offset and abs(expected - self._end) <= _MAX_NUDGE:
            self._own_offset = Fraction(0)  # only the packets before this one were wrong
            return True
        if self._raw_end is None or not self._clock.jumps(self._raw_end, raw):
            return True
        if self._segment < latest:
            self._segment, self._own_offset = self._segment + 1, Fraction(0)
            return True
        if not end and len(self._held) < _MAX_HELD:
            return False
        # Only the clock of this track jumped.
        self._own_offset = self._end - raw - self._clock.offsets[self._segment]
        return True

    def time_of(self, packet: Packet) -> Fraction:
        """Return the decoding time of a corrected packet in seconds of the source."""
        return (packet.dts or 0) * self._base

    def place(self, packet: Packet, shift: Fraction) -> Iterator[Packet]:
        """Yield a packet with the time stamps and stream of the output file, if it belongs there.

        Args:
            packet: Corrected packet.
            shift: Added to its time stamps, in seconds.
        """
        target = Fraction(self.output.time_base or self._base)
        if self._start and (packet.pts or 0) * self._base < self._start:
            return  # before the part of the source that is written
        times = [(stamp or 0) * self._base + shift for stamp in (packet.pts, packet.dts)]
        duration = (packet.duration or 0) * self._base
        if self.dropped or (self._format == "avi" and times[0] < 0):
            return  # AVI cannot store sound that starts before the video
        pts, dts = (round(time / target) - self._closed_gap for time in times)
        if self._format == "avi" and self._last and is_gap(float((dts - self._last) * target)):
            # AVI stores neither time stamps nor, in effect, long gaps.
            gap = dts - self._last - 1
            self._closed_gap, pts, dts = self._closed_gap + gap, pts - gap, dts - gap
        if self._last is not None and dts <= self._last:
            if self.input.type == "audio" and (self._last - dts) * target > _MAX_NUDGE + target:
                return  # overlaps with what was written
            dts = self._last + 1
            pts = max(pts, dts)
        if self._resampler is not None:
            packet = av.Packet(_decode(packet, self._resampler))
        packet.time_base, packet.stream = target, self.output
        packet.pts, packet.dts, packet.duration = pts, dts, round(duration / target)
        if self._last is None and self._format == "avi" and dts > 0:
            yield self._lead_in(packet)
        self._last = dts
        yield packet

    def _lead_in(self, packet: Packet) -> Packet:
        """Return a packet for time 0, since AVI starts every track there.

        It is silence for PCM. For other codecs it is the first packet, after which the muxer
        stores empty ones up to the next.
        """
        name = self.input.codec_context.name
        data = bytes(packet)
        if name.startswith("pcm_") and packet.duration:
            count = ceil(len(data) / packet.duration * (packet.dts or 0))
            data = bytes([_SILENCE.get(name, 0)]) * count
        lead = av.Packet(data)
        lead.stream, lead.time_base = self.output, packet.time_base
        lead.pts = lead.dts = 0
        lead.is_keyframe = True
        return lead


def _add_stream(container: OutputContainer, stream: Stream) -> AudioStream | SubtitleStream:
    """Add a stream like another one, with its language and flags."""
    output = container.add_stream_from_template(stream, opaque=True)
    if not isinstance(output, AudioStream | SubtitleStream):
        raise TypeError(output.type)
    context = output.codec_context
    if isinstance(output, AudioStream) and context.name == "aac" and not context.extradata:
        context.extradata = _aac_header(output)
    output.metadata.update({k: v for k, v in stream.metadata.items() if k in _METADATA})
    output.disposition = stream.disposition
    return output


def _must_be_decoded(stream: Stream, format_name: str) -> bool:
    """Return whether sound is stored as PCM: PyAV does not write G.711 and ADPCM to Matroska."""
    name = "" if stream.type != "audio" else codec_name(None, stream)
    telephone = name in ("pcm_mulaw", "pcm_alaw") or name.startswith("adpcm_")
    return telephone and format_name == "matroska"


def _add_pcm(container: OutputContainer, stream: Stream) -> AudioStream:
    if not isinstance(stream, AudioStream):
        raise TypeError(stream.type)
    output = container.add_stream("pcm_s16le", stream.rate, layout=stream.layout.name)
    if not isinstance(output, AudioStream):
        raise TypeError(output.type)
    output.metadata.update({k: v for k, v in stream.metadata.items() if k in _METADATA})
    output.disposition = stream.disposition
    return output


def _without_header(packet: Packet, stream: Stream) -> Packet:
    """Return an AAC packet without the header that `aac_adtstoasc` attaches to the first one.

    The output has this header already; Matroska would write it a second time, over other data.
    """
    plain: Packet = av.Packet(bytes(packet))
    plain.stream = stream
    plain.pts, plain.dts, plain.duration = packet.pts, packet.dts, packet.duration
    plain.is_keyframe = True
    if packet.time_base is not None:
        plain.time_base = packet.time_base
    return plain


def _decode(packet: Packet, resampler: AudioResampler) -> bytes:
    """Return the samples of a packet as 16-bit PCM."""
    decoded = cast("list[av.AudioFrame]", packet.decode())
    frames = [out for frame in decoded for out in resampler.resample(frame)]
    return b"".join(frame.to_ndarray().tobytes() for frame in frames)


def _aac_header(stream: AudioStream) -> bytes | None:
    """Return the AudioSpecificConfig of AAC (low complexity), which MPEG-TS does not store."""
    context = stream.codec_context
    if context.sample_rate not in _AAC_RATES or context.channels > 6:
        return None
    rate = _AAC_RATES.index(context.sample_rate)
    return (2 << 11 | rate << 7 | context.channels << 3).to_bytes(2, "big")


def _is_supported(stream: Stream, format_name: str) -> bool:
    """Return whether a container format stores this stream, by writing a header into memory."""
    try:
        with av.open(io.BytesIO(), "w", format=format_name) as scratch:
            _add_stream(scratch, stream)
            scratch.start_encoding()
    except _UNSUPPORTED:
        return False
    return True


def decode_time(packet: Packet) -> Fraction:
    """Return the decoding time stamp in seconds; 0 if the packet has none."""
    if packet.dts is None or packet.time_base is None:
        return Fraction(0)
    return packet.dts * packet.time_base
