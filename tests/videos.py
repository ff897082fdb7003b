"""Videos with known frames and time stamps, and readers to check videos with."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer

from realtime_ssd import Frame, open_source
from realtime_ssd.core.errors import SourceError


def make_video(
    path: Path,
    stamps: list[int],
    *,
    time_base: Fraction = Fraction(1, 30000),
    size: tuple[int, int] = (160, 120),
    audio: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video whose frame i has the uniform brightness 20 + i (mod 200).

    Args:
        path: File to write; it is returned.
        stamps: Time stamp of each frame in units of `time_base`.
        time_base: Seconds per unit.
        size: Width and height in pixels.
        audio: Whether to add a tone of the same length.
        options: Options of the container.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", Fraction(30000, 1001), options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = time_base
        sound = container.add_stream("aac", 16000, layout="mono") if audio else None
        for number, stamp in enumerate(stamps):
            level = 20 + number % 200
            frame = av.VideoFrame.from_ndarray(
                np.full((size[1], size[0], 3), level, np.uint8), format="bgr24"
            )
            frame.pts, frame.time_base = stamp, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _add_tone(container, sound, float(stamps[-1] * time_base))
    return path


def _add_tone(container: OutputContainer, stream: AudioStream, seconds: float) -> None:
    for start in range(0, int(seconds * 16000), 1024):
        wave = np.sin(np.arange(start, start + 1024) * 0.17).astype(np.float32)[None] * 0.2
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def stamps_of(path: Path) -> list[Fraction]:
    """Return the exact time of every frame in seconds."""
    return [Fraction(frame.pts or 0) * frame.time_base for frame in readable(path)[0]]


def readable(path: Path) -> tuple[list[Frame], str]:
    """Return all frames that can be read, and the error message after them or an empty string."""
    frames: list[Frame] = []
    source = open_source(path)
    try:
        frames.extend(source)
    except SourceError as error:
        return frames, str(error)
    return frames, ""


def audio_of(path: Path) -> list[bytes]:
    """Return the packets of the first audio stream."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Set the display matrix of the first track of an MP4 file, as the cameras of phones do.

    Args:
        path: File to change; it is returned.
        a: x' = a x + c y and y' = b x + d y, with y downwards.
        b: See `a`.
        c: See `a`.
        d: See `a`.
    """
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    data[start : start + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)
    return path
